"""Detects anomalies in metrics that have a daily and weekly rhythm. It is pure: histories in, verdicts out.

What a bucket should hold is the median of what the same weekday and time held in the last four weeks. Each of those
weeks is first scaled by how the day before the bucket compares with the day before its counterpart. How far buckets at
this time of day were off over the last two weeks decides how far is too far. A bucket is judged alone and as the end of
the last 4 and 16 buckets, which finds deviations that are small but last. A holiday may run like a Sunday, like its own
weekday, or anything in between.

A verdict depends on the history up to the judged bucket and on nothing else, so a late or repeated run returns the same
one. The modules `grid`, `references`, `expectation` and `scores` hold the steps, in this order.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pulse.metrics import BUCKET
from pulse.monitoring.expectation import Histories
from pulse.monitoring.grid import Clock, Floats, HistoryError, Holidays, Ints, clock_of, column, numbers, on_grid
from pulse.monitoring.references import HISTORY_DAYS, has_few_references, positions
from pulse.monitoring.scores import Deviation, Limits, deviations, scores

Kind: TypeAlias = Literal["count", "ratio", "value"]
VerdictKind: TypeAlias = Literal["normal", "drop", "spike", "data_lag", "unknown"]

FEW = 1.1  # how many times the usual thresholds apply when fewer than three days of the same weekday are there
MOST = 1e15  # larger numbers count as this one
A_DAY = pd.Timedelta(days=1) // BUCKET  # buckets


@dataclass(frozen=True)
class Thresholds:
    """How far a metric must be from its expected value for an alert. Both `score` and `effect` must be exceeded.

    Args:
        score: in standard deviations of what is ordinary for the metric at this time of day, over the last 4 buckets.
            A single bucket needs 1.3 times as much, the last 16 buckets 1.25 times. Small counts need more.
        effect: as a share of the expected value (0.1 is 10 %), over the last 16 buckets. The last 4 buckets need 3.25
            times as much, a single bucket 4.25 times.
        holiday: how many times as large the effect must be on holidays, whose rhythm is known only roughly. The score
            must be larger by the square root of it.
    """

    score: float = 3.8
    effect: float = 0.075
    holiday: float = 2.5


DEFAULT = Thresholds()


@dataclass(frozen=True)
class Verdict:
    """What the detector says about a bucket.

    Args:
        is_anomaly: whether it deserves an alert.
        lower: the least that is expected, in the metric's own unit; NaN where nothing is known.
        upper: the most that is expected.
        score: standard deviations from what is expected, negative below it.
        kind: `normal`, `drop`, `spike`, `data_lag` (the source is late, so nothing can be said yet) or `unknown` (no
            row, or too little history).
        value: what the bucket holds.
        expected: what it should hold.
        deviation: how much the window has too little (negative) or too much, as a share of its expected value.
        window: how many buckets, the judged one the last of them, show the deviation best.
    """

    is_anomaly: bool
    lower: float
    upper: float
    score: float
    kind: VerdictKind
    value: float = math.nan
    expected: float = math.nan
    deviation: float = math.nan
    window: int = 1


UNKNOWN = Verdict(False, math.nan, math.nan, 0.0, "unknown")


def judge(
    history: pd.Series,
    *,
    denominator: pd.Series | None = None,
    kind: Kind = "count",
    lag_minutes: float = 0.0,
    is_holiday: Holidays = None,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Judge the last bucket of one series.

    Args:
        history: the metric by bucket on a regular DatetimeIndex; NaN where there is no row. The detector looks at six
            and a half weeks; two are enough, and a few days are better than nothing.
        denominator: of a ratio, with the same index. The history then holds the numerators (or the ratio itself, if
            its values are fractions).
        kind: `count` (events or users: whole numbers from 0), `ratio`, or `value` (any number).
        lag_minutes: how late the source's data is. If a whole bucket or more may be missing, the verdict is `data_lag`.
            A shorter lag excuses its share of the bucket.
        is_holiday: the days that run like Sundays: a function of a date, a collection of dates, or booleans with the
            same index.
        thresholds: of this metric; the defaults if None.

    Raises:
        HistoryError: the history has no times, or a ratio has no denominator.
    """
    bottom = None if denominator is None else column(denominator, history)
    series = _Series(["metric"], column(history, history), bottom, [kind], [lag_minutes], [thresholds or DEFAULT])
    return _verdicts(history.index, series, is_holiday)["metric"]


def judge_tick(
    history: pd.DataFrame,
    *,
    denominators: pd.DataFrame | None = None,
    kinds: Mapping[str, Kind] | None = None,
    lag_minutes: float | Mapping[str, float] = 0.0,
    is_holiday: Holidays = None,
    thresholds: Mapping[str, Thresholds] | Thresholds | None = None,
) -> dict[str, Verdict]:
    """Judge the last bucket of many series at once.

    The verdicts are those of `judge`, with one difference: among many series some are always far off by chance. So a
    series that stands out alone must stand out more, while series that stand out together need not (the procedure of
    Benjamini and Hochberg).

    Args:
        history: a column per series.
        denominators: the columns of those that are ratios.
        kinds: by column; a column that is not named holds counts.
        lag_minutes: of all series, or by column.
        is_holiday: as for `judge`.
        thresholds: of all series, or by column.

    Returns:
        The verdicts by column.

    Raises:
        HistoryError: the history has no times, or a ratio has no denominator.
    """
    names = list(history.columns)
    kind_of = [(kinds or {}).get(name, "count") for name in names]
    lags = [lag_minutes.get(name, 0.0) if isinstance(lag_minutes, Mapping) else lag_minutes for name in names]
    limits = [thresholds.get(name, DEFAULT) if isinstance(thresholds, Mapping) else thresholds for name in names]
    bottom = None
    if denominators is not None:
        bottom = numbers(denominators.reindex(index=history.index, columns=names))
    series = _Series(names, numbers(history), bottom, kind_of, lags, [limit or DEFAULT for limit in limits])
    return _verdicts(history.index, series, is_holiday)


def band(
    history: pd.Series,
    *,
    denominator: pd.Series | None = None,
    kind: Kind = "count",
    is_holiday: Holidays = None,
    last: int = A_DAY,
    thresholds: Thresholds | None = None,
) -> pd.DataFrame:
    """Compute the expected range of the last buckets for a chart, each from its own past.

    Args:
        history: as for `judge`, and so are the other arguments.
        denominator: of a ratio.
        kind: of metric.
        is_holiday: the days that run like Sundays.
        last: how many buckets; a day by default.
        thresholds: of this metric.

    Returns:
        By bucket: `value`, `expected`, `lower`, `upper`, in the metric's own unit.

    Raises:
        HistoryError: the history has no times, or a ratio has no denominator.
    """
    columns = ["value", "expected", "lower", "upper"]
    ranges = np.full((min(last, len(history)), len(columns)), math.nan)
    for position, end in enumerate(range(len(history) - len(ranges) + 1, len(history) + 1)):
        below = None if denominator is None else denominator.iloc[:end]
        verdict = judge(history.iloc[:end], denominator=below, kind=kind, is_holiday=is_holiday, thresholds=thresholds)
        ranges[position] = (verdict.value, verdict.expected, verdict.lower, verdict.upper)
    return pd.DataFrame(ranges, index=history.index[len(history) - len(ranges) :], columns=columns)


class _Series(NamedTuple):
    """The series of a tick: a row per bucket and a column per series."""

    names: list[str]
    top: Floats
    bottom: Floats | None
    kinds: list[Kind]
    lags: list[float]
    thresholds: list[Thresholds]


class _Group(NamedTuple):
    """Series of one kind that have the same days of history, and are scored together.

    Args:
        numbers: their columns.
        histories: what they hold.
        late: by series, the share of the judged bucket that may be missing, at most 1.
        limits: by series.
        oldest: days of history before the judged day.
    """

    numbers: Ints
    histories: Histories
    late: Floats
    limits: list[Limits]
    oldest: int


class _Judged(NamedTuple):
    """How far one series is off.

    Args:
        number: its column.
        late: the share of the judged bucket that may be missing, at most 1.
        as_counted: how far it is off as its rows are.
        excused: how far it is off if what the lag may have kept back counts as arrived.
    """

    number: int
    late: float
    as_counted: Deviation
    excused: Deviation

    def verdict(self, alert: bool) -> Verdict:
        """The verdict, given whether the series may alert."""
        excused, kind = self.excused, self._kind(alert)
        return Verdict(
            is_anomaly=kind in ("drop", "spike"),
            lower=excused.lower,
            upper=excused.upper,
            score=excused.score if excused.known else 0.0,
            kind=kind,
            value=excused.value,
            expected=excused.expected,
            deviation=excused.effect,
            window=excused.window,
        )

    def _kind(self, alert: bool) -> VerdictKind:
        if self.late >= 1:
            return "data_lag"
        if not self.excused.known:
            return "unknown"
        if alert:
            return "drop" if self.excused.score < 0 else "spike"
        if self.as_counted.surprise <= 1 and self.as_counted.score < 0 < self.late:
            return "data_lag"
        return "normal"


def _verdicts(index: pd.Index, series: _Series, is_holiday: Holidays) -> dict[str, Verdict]:
    """The verdicts by name."""
    verdicts = dict.fromkeys(series.names, UNKNOWN)
    kinds, lags = _checked(series)
    grid = on_grid(index, [series.top] if series.bottom is None else [series.top, series.bottom], HISTORY_DAYS)
    if grid is None:
        return verdicts
    clock = clock_of(grid, is_holiday, HISTORY_DAYS)
    top, bottom = grid.arrays[0], grid.arrays[-1]
    _clean(top, bottom, kinds)
    late = np.clip(lags / clock.minutes, 0, 1)
    judged = [
        one
        for group in _groups(top, bottom, kinds, late, clock, series.thresholds)
        for one in _judged_group(group, clock)
    ]
    alerts = allowed([one.excused.surprise for one in judged])
    for one, alert in zip(judged, alerts, strict=True):
        verdicts[series.names[one.number]] = one.verdict(alert)
    return verdicts


def _checked(series: _Series) -> tuple[npt.NDArray[Any], Floats]:
    """The kinds and lags of the series.

    Raises:
        HistoryError: a kind does not exist, or a ratio has no denominator.
    """
    for name, kind in zip(series.names, series.kinds, strict=True):
        if kind not in ("count", "ratio", "value"):
            raise HistoryError(f"{name} has the unknown kind {kind!r}; use count, ratio or value.")
        if kind == "ratio" and series.bottom is None:
            raise HistoryError(f"{name} is a ratio; pass its denominator by bucket too.")
    return np.array(series.kinds), np.nan_to_num(np.array(series.lags, dtype=float), nan=0.0, posinf=MOST)


def _clean(top: Floats, bottom: Floats, kinds: npt.NDArray[Any]) -> None:
    """Make the values fit for arithmetic, in place: finite, counts not negative, ratios as numerators."""
    with np.errstate(invalid="ignore"):
        for array in (top,) if bottom is top else (top, bottom):
            if not (np.abs(array[:-1]) <= MOST).all():
                array[np.isinf(array)] = math.nan
                np.clip(array, -MOST, MOST, out=array)
        if (top < 0).any():
            top[(top < 0) & (kinds != "value")] = math.nan
        if bottom is not top and not (bottom[:-1] > 0).all():
            bottom[~(bottom > 0)] = math.nan
        for number in np.flatnonzero(kinds == "ratio"):
            ratio = top[:, number]
            if np.nanmax(ratio, initial=0) <= 1 and np.nanmax(ratio % 1, initial=0) > 0:
                top[:, number] = ratio * bottom[:, number]


def _groups(
    top: Floats, bottom: Floats, kinds: npt.NDArray[Any], late: Floats, clock: Clock, thresholds: list[Thresholds]
) -> Iterator[_Group]:
    """The series that can be scored together; those with less than two days of history are left out."""
    oldest = _oldest_days(top, clock)
    for kind in np.unique(kinds):
        for days in np.unique(oldest[kinds == kind]).tolist():
            if days < 2:
                continue
            some = np.flatnonzero((kinds == kind) & (oldest == days))
            histories = Histories(top[:, some], bottom[:, some] if kind == "ratio" else None, bool(kind != "value"))
            few = has_few_references(clock, days)
            limits = [_limits(thresholds[number], clock.holidays[0], few) for number in some]
            yield _Group(some, histories, late[some], limits, days)


def _oldest_days(top: Floats, clock: Clock) -> Ints:
    """How many days before the judged day each series begins; its first day counts only if it is whole."""
    begins = np.where(np.isfinite(top).any(axis=0), np.isfinite(top).argmax(axis=0), len(top))
    before = len(top) - 2 - clock.slot - begins
    days: Ints = np.maximum(before // clock.per_day, 0)
    return days


def _limits(thresholds: Thresholds, holiday: bool, few: bool) -> Limits:
    """The thresholds of the judged day."""
    score, effect = thresholds.score, thresholds.effect
    if holiday:
        score, effect = score * math.sqrt(thresholds.holiday), effect * thresholds.holiday
    if few:
        score, effect = score * FEW, effect * FEW
    return Limits(score, effect)


def _judged_group(group: _Group, clock: Clock) -> list[_Judged]:
    """How far each series of a group is off."""
    counts = group.histories.counts

    def with_lag(late: Floats) -> list[Deviation]:
        scored = scores(group.histories, positions(clock, group.oldest), clock.per_hour, late)
        return deviations(scored, group.limits, counts)

    excused = with_lag(group.late)
    partly_late = bool(((group.late > 0) & (group.late < 1)).any())
    as_counted = with_lag(np.zeros(len(group.late))) if partly_late else excused
    columns = zip(group.numbers.tolist(), group.late.tolist(), as_counted, excused, strict=True)
    return [_Judged(*each) for each in columns]


def allowed(surprises: list[float]) -> list[bool]:
    """Decide which of the series may alert, by the procedure of Benjamini and Hochberg.

    Args:
        surprises: by series, how likely its score is in times that of the least score; 1 is just enough for one series.
    """
    order = sorted(range(len(surprises)), key=surprises.__getitem__)
    passing = [rank for rank, number in enumerate(order, 1) if surprises[number] <= rank / len(surprises)]
    alerting = set(order[: max(passing, default=0)])
    return [number in alerting for number in range(len(surprises))]
