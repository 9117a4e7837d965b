"""Builds the history of each watched series, and has the detector judge its last bucket."""

import math
from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pandas as pd

from pulse.metrics import BUCKET, WEEK
from pulse.monitoring.detector import Thresholds, Verdict, judge_tick
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.watch import Watch

LEAST_MISSED = 10  # users expected during a silence; with fewer, the silence may be chance
WEEKS = 4  # weeks back whose same time says how many users to expect


def histories(slices: pd.DataFrame, buckets: pd.DatetimeIndex, watch: Watch, known_until: datetime) -> pd.DataFrame:
    """Build the history of every metric and slice.

    Args:
        slices: one row per slice, the total among them: `dimension`, `dimension_value`, `positions` (the positions in
            `buckets` at which it has rows) and for each metric its values there, as arrays.
        buckets: the first moments of the buckets.
        watch: what is watched. The history of a share is that of its numerator.
        known_until: the moment up to which it is known what happened.

    Returns:
        A column per `Series`. A bucket without a row is 0. Buckets before the first row of the total, and those from
        `known_until` on, are NaN.
    """
    rows = slices.to_dict("records")
    series = [Series(name, row["dimension"], row["dimension_value"]) for row in rows for name in watch.metrics]
    values = np.zeros((len(buckets), len(series)), order="F")
    columns = {watched.of or name for name, watched in watch.metrics.items()}
    column = 0
    for row in rows:
        positions = np.asarray(row["positions"], dtype=np.int64)
        counted = {name: np.asarray(row[name], dtype=np.float64) for name in columns}
        for name, watched in watch.metrics.items():
            values[positions, column] = counted[watched.of or name]
            column += 1
    total = slices[slices["dimension"] == TOTAL[0]]
    values[: min(map(min, total["positions"]), default=len(buckets))] = np.nan
    values[np.asarray(buckets >= pd.Timestamp(known_until))] = np.nan
    return pd.DataFrame(values, index=buckets, columns=pd.Index(series, tupleize_cols=False))


def known_until(slices: pd.DataFrame, buckets: pd.DatetimeIndex, watermark: datetime) -> datetime:
    """Find the moment up to which it is known what happened.

    That is the watermark. But if the silence since then is ordinary, it is the end of the buckets: an app in which
    nothing happens at night is not late every night. The silence means that data is late only if at least
    `LEAST_MISSED` users are expected in it, judging by the same time in the weeks before.

    Args:
        slices: as for `histories`.
        buckets: as for `histories`.
        watermark: the latest event of all sources.
    """
    end = buckets[-1] + BUCKET
    total = slices[slices["dimension"] == TOTAL[0]]
    if watermark >= end or total.empty:
        return max(watermark, end)
    users = np.zeros(len(buckets))
    users[total["positions"].iloc[0]] = total["app_users"].iloc[0]
    silent = np.flatnonzero(buckets >= pd.Timestamp(watermark))
    # The same time means the same local time: after a clock change it is further or fewer buckets away.
    ahead = (buckets.tz_localize(None) - buckets.tz_convert("UTC").tz_localize(None)) // pd.Timedelta(BUCKET)
    earlier = []
    for back in (weeks * (WEEK // BUCKET) for weeks in range(1, WEEKS + 1)):
        if len(silent) and silent[0] >= back:
            positions = silent - back + ahead[silent] - ahead[silent - back]
            earlier.append(users[np.clip(positions, 0, len(users) - 1)])
    missed = float(np.median(earlier, axis=0).sum()) if earlier else math.inf
    return watermark if missed >= LEAST_MISSED else end


def judge_histories(
    history: pd.DataFrame, watch: Watch, lag_minutes: float = 0.0, thresholds: Mapping[str, Thresholds] | None = None
) -> dict[Series, Verdict]:
    """Judge the last bucket of each series.

    Args:
        history: from `histories`, up to the bucket to judge.
        watch: what is watched.
        lag_minutes: how late the data is.
        thresholds: by metric, if not those of `watch`.
    """
    by_metric = thresholds or watch.thresholds
    series = series_of(history)
    shares = {str(each): denominator(history, each, watch) for each in series if watch.metrics[each.metric].per}
    verdicts = judge_tick(
        history.set_axis([str(each) for each in series], axis=1),
        denominators=pd.DataFrame(shares) if shares else None,
        kinds=dict.fromkeys(shares, "ratio"),
        lag_minutes=lag_minutes,
        is_holiday=watch.is_holiday,
        thresholds={str(each): by_metric[each.metric] for each in series},
    )
    return {each: verdicts[str(each)] for each in series}


def series_of(history: pd.DataFrame) -> list[Series]:
    """The columns of a history from `histories`."""
    return [each for each in history if isinstance(each, Series)]


def denominator(history: pd.DataFrame, series: Series, watch: Watch) -> pd.Series | None:
    """The denominator of a share by bucket; None if the series is not a share."""
    per = watch.metrics[series.metric].per
    return history[Series(per, *series[1:])] if per else None
