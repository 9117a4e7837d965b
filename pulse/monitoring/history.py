"""Histories: what each series held by bucket, and the detector's verdict on the last one."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from pulse.metrics import BUCKET
from pulse.monitoring.detector import Thresholds, Verdict, judge_tick
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.watch import Watch

# Users who would have been there: with fewer, silence may be chance.
LEAST_MISSED = 10


def histories(slices: pd.DataFrame, buckets: pd.DatetimeIndex, watch: Watch, known_until: datetime) -> pd.DataFrame:
    """The metrics of each slice by bucket.

    Args:
        slices: one row per slice, the total among them: `dimension`, `dimension_value`, `places` (of buckets in
            `buckets`) and for each metric its values there, as arrays.
        buckets: the first moments of the buckets.
        watch: what is watched; a share's history is that of what it counts.
        known_until: the latest event of all.

    Returns:
        A column per `Series`. A bucket without a row is 0; before the first row of all, and from `known_until` on, NaN.
    """
    series = [Series(name, row.dimension, row.dimension_value) for row in slices.itertuples() for name in watch.metrics]
    values = np.zeros((len(buckets), len(series)), order="F")
    columns = {watched.of or name for name, watched in watch.metrics.items()}
    place = 0
    for row in slices.to_dict("records"):
        rows = np.asarray(row["places"], dtype=np.int64)
        counted = {name: np.asarray(row[name], dtype=np.float64) for name in columns}
        for name, watched in watch.metrics.items():
            values[rows, place] = counted[watched.of or name]
            place += 1
    total = slices[slices["dimension"] == TOTAL[0]]
    values[: min(map(min, total["places"]), default=len(buckets))] = np.nan
    values[np.asarray(buckets >= pd.Timestamp(known_until))] = np.nan
    return pd.DataFrame(values, index=buckets, columns=pd.Index(series, tupleize_cols=False))


def known_until(slices: pd.DataFrame, buckets: pd.DatetimeIndex, watermark: datetime) -> datetime:
    """Until when it is known what happened: the watermark, or the end of the buckets where silence since is ordinary.

    An app in which nothing happens at night is not late every night: silence says that data is late only where
    `LEAST_MISSED` users would have been expected in it, going by the same time of the weeks before.

    Args:
        slices: as for `histories`.
        buckets: as for `histories`.
        watermark: the latest event of all.
    """
    end = buckets[-1] + BUCKET
    total = slices[slices["dimension"] == TOTAL[0]]
    if watermark >= end or total.empty:
        return max(watermark, end)
    users = np.zeros(len(buckets))
    users[total["places"].iloc[0]] = total["app_users"].iloc[0]
    silent = np.flatnonzero(buckets >= pd.Timestamp(watermark))
    week = timedelta(days=7) // BUCKET
    # The same time is the same on the wall: where clocks were changed since, it is so many buckets from where it was.
    ahead = (buckets.tz_localize(None) - buckets.tz_convert("UTC").tz_localize(None)) // pd.Timedelta(BUCKET)
    earlier = []
    for back in (weeks * week for weeks in range(1, 5)):
        if len(silent) and silent[0] >= back:
            places = silent - back + ahead[silent] - ahead[silent - back]
            earlier.append(users[np.clip(places, 0, len(users) - 1)])
    missed = np.median(earlier, axis=0).sum() if earlier else math.inf
    return watermark if missed >= LEAST_MISSED else end


def judge(
    history: pd.DataFrame, watch: Watch, lag_minutes: float = 0.0, thresholds: Mapping[str, Thresholds] | None = None
) -> dict[Series, Verdict]:
    """The verdict on the last bucket of each series.

    Args:
        history: of `histories`, up to the bucket to judge.
        watch: what is watched.
        lag_minutes: how late the data is.
        thresholds: others than those of `watch`, by metric.
    """
    by_metric = thresholds or watch.thresholds
    series: list[Series] = list(history.columns)
    kinds = {place: "ratio" for place, each in enumerate(series) if watch.metrics[each.metric].per}
    below = {place: denominator(history, series[place], watch) for place in kinds}
    verdicts = judge_tick(
        history.set_axis(range(len(series)), axis=1),
        denominators=pd.DataFrame(below) if below else None,
        kinds=kinds,
        lag_minutes=lag_minutes,
        is_holiday=watch.is_holiday,
        thresholds={place: by_metric[each.metric] for place, each in enumerate(series)},
    )
    return {each: verdicts[place] for place, each in enumerate(series)}


def denominator(history: pd.DataFrame, series: Series, watch: Watch) -> pd.Series | None:
    """What a share is a share of; None for what is no share."""
    per = watch.metrics[series.metric].per
    return history[Series(per, *series[1:])] if per else None
