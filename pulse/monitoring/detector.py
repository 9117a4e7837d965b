"""Anomalies in metrics of a regular rhythm: history in, verdict out. Nothing is read, written or sent here.

What a bucket should hold is what the same weekday and time held in the last four weeks (the median of the four), each
week scaled by how the day before the bucket compares with the day before its counterpart. How far off that is on
ordinary days, at this time of day over the last two weeks, says how far is too far. A bucket is judged alone and as
the end of the last 4 and 16 buckets, which finds what is small but lasts. A holiday should hold what a Sunday or its
own weekday holds, or anything between them.

Only the past of the judged bucket is used, and all of it is in the history: a verdict depends on nothing else.
"""

import math
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from pulse import PulseError

Kind: TypeAlias = Literal["count", "ratio", "value"]
Holidays: TypeAlias = Callable[[date], bool] | Collection[date] | pd.Series | None
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

WINDOWS = (1, 4, 16)
SCORES = {1: 1.3, 4: 1.0, 16: 1.25}  # the least score of each window, in those of the middle one
EFFECTS = {1: 4.25, 4: 3.25, 16: 1.0}  # and the least effect, in those of the longest
SMALL = 0.5  # how much more a window needs in which one event is expected; less and less the more are
SHOWN = 0.75  # of a window's effect that its last buckets must still show: else it is over
FEW = 1.1  # how much wider all is with fewer than three of the same weekday to compare with
REFERENCES = 4  # days a bucket is compared with: the same weekday of so many weeks, or the days most like it
ENOUGH_REFERENCES = 3  # where the same weekday has fewer, days like it are taken as well
WEEKS = 4  # back to which levels are compared
ENOUGH_DAYS = 6  # that are compared; those before them are only if the same weekday is there
CYCLES = 15  # the judged day, and the two weeks before it that say how far off is ordinary
DAYS = CYCLES + 2 + 7 * REFERENCES  # of history that are looked at
LEVEL_HOURS = 24
LEAST_HOURS = 8  # of those, for a level to be known
LEAST_RESIDUALS = 8  # windows of the past, for what is ordinary to be known
OUTAGE = math.log(4)  # a day's level that far below the week's is an outage, not a level
BLENDED = 50  # events in a bucket at which its neighbours count as much as itself
MINUTES = 24 * 60
MOST = 1e15  # more than that is counted as that
NORMAL_MAD = 1.4826  # standard deviations in a median absolute deviation, of a normal distribution
SHARED = np.array([math.nan, 1.0, 2.0, 1.0, 2.0])  # by how many the middle of so many values is divided


class HistoryError(PulseError):
    """The history is not one that can be judged."""


@dataclass(frozen=True)
class Thresholds:
    """How far from its expected value a metric must be for an alert.

    Args:
        score: in standard deviations of what is ordinary for the metric at this time of day, over the last 4 buckets;
            a third more in one alone, and a quarter more over the last 16. Small counts need more.
        effect: and by this share of the expected value (0.1 is 10 %) over the last 16 buckets; by three and a quarter
            times that over the last 4, four and a quarter times in one alone.
        holiday: how many times that effect it must be on holidays, which are like Sundays only roughly, and by the root
            of that more standard deviations.
    """

    score: float = 3.8
    effect: float = 0.075
    holiday: float = 2.5


DEFAULT = Thresholds()


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a bucket.

    Args:
        is_anomaly: whether it deserves an alert.
        lower: the least that is expected of it, in the metric's own unit; nan where nothing is known.
        upper: the most.
        score: standard deviations from what is expected; negative below it.
        kind: `normal`, `drop`, `spike`, `data_lag` (the source is late: nothing can be said yet) or `unknown` (no
            row, or too little history).
        value: what it holds.
        expected: what it should hold.
        deviation: the window's share of the expected value that is missing (negative) or too much.
        window: the buckets, this one the last, in which the deviation shows most.
    """

    is_anomaly: bool
    lower: float
    upper: float
    score: float
    kind: str
    value: float = math.nan
    expected: float = math.nan
    deviation: float = math.nan
    window: int = 1


@dataclass(frozen=True)
class Parts:
    """The parts of the rule that can be left out, for the benchmark to show what each is worth."""

    windows: tuple[int, ...] = WINDOWS
    scaled: bool = True  # each reference by the day before it
    returning: bool = True  # a return to the level of the last week is no anomaly
    others: bool = True  # holidays and their eves may go like another kind of day
    recovery: bool = True  # nor is a bucket for what the buckets before it held
    floor: bool = True  # never less noise than that of counting
    small: bool = True  # small counts must stand out more
    few: bool = True  # and so must what has few days to be compared with
    together: bool = True  # the more series a tick has, the more one must stand out


ALL = Parts()


def judge(
    history: pd.Series,
    *,
    denominator: pd.Series | None = None,
    kind: Kind = "count",
    lag_minutes: float = 0.0,
    is_holiday: Holidays = None,
    state: MutableMapping[str, Any] | None = None,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """The verdict on the last bucket of one series.

    Args:
        history: the metric by bucket on a regular DatetimeIndex; nan where there is no row. Six and a half weeks
            are looked at; two are enough, and a few days better than nothing.
        denominator: of a ratio, by the same index; the history is the numerator then (or the ratio itself, where its
            values are fractions).
        kind: `count` (events or users: whole numbers from 0), `ratio`, or `value` (any number).
        lag_minutes: how late the source's data is. A bucket that the lag has not left whole is no drop: one bucket's
            length or more is `data_lag`; of less, only what the lag cannot explain counts.
        is_holiday: the days that are like Sundays: a function of a date, a collection of dates, or booleans by the
            same index.
        state: left as it is. Everything that a verdict depends on is in the history, so that a tick that comes late,
            or again, gives the same one.
        thresholds: for this metric.

    Raises:
        HistoryError: the history has no times, or a ratio has no denominator.
    """
    bottom = None if denominator is None else _column(denominator, history)
    series = _Series(["metric"], _column(history, history), bottom, [kind], [lag_minutes], [thresholds or DEFAULT])
    return _judge(history.index, series, is_holiday, ALL)["metric"]


def judge_tick(
    history: pd.DataFrame,
    *,
    denominators: pd.DataFrame | None = None,
    kinds: Mapping[str, Kind] | None = None,
    lag_minutes: float | Mapping[str, float] = 0.0,
    is_holiday: Holidays = None,
    states: MutableMapping[str, dict[str, Any]] | None = None,
    thresholds: Mapping[str, Thresholds] | Thresholds | None = None,
    parts: Parts = ALL,
) -> dict[str, Verdict]:
    """The verdicts on the last bucket of many series at once, by column.

    They are those of `judge`, with one difference: among many series something is always rare, so that the one that
    stands out must stand out more, and many that stand out together need not (Benjamini and Hochberg's rule).

    Args:
        history: a column a series.
        denominators: the columns of those that are ratios.
        kinds: by column; what is missing is a count.
        lag_minutes: of all, or by column.
        is_holiday: as for `judge`.
        states: left as they are, as for `judge`.
        thresholds: of all, or by column.
        parts: what of the rule to use.

    Raises:
        HistoryError: the history has no times, or a ratio has no denominator.
    """
    names = list(history.columns)
    kind_of = [(kinds or {}).get(name, "count") for name in names]
    lags = [lag_minutes.get(name, 0.0) if isinstance(lag_minutes, Mapping) else lag_minutes for name in names]
    limits = [thresholds.get(name, DEFAULT) if isinstance(thresholds, Mapping) else thresholds for name in names]
    bottom = None
    if denominators is not None:
        bottom = _numbers(denominators.reindex(index=history.index, columns=names))
    top = _numbers(history)
    series = _Series(names, top, bottom, kind_of, lags, [limit or DEFAULT for limit in limits])
    return _judge(history.index, series, is_holiday, parts)


def band(
    history: pd.Series,
    *,
    denominator: pd.Series | None = None,
    kind: Kind = "count",
    is_holiday: Holidays = None,
    last: int = 96,
    thresholds: Thresholds | None = None,
) -> pd.DataFrame:
    """What the last buckets held and what was expected of them, each by its own past: for a chart.

    Returns:
        By bucket: `value`, `expected`, `lower`, `upper`, in the metric's own unit.

    Raises:
        HistoryError: the history has no times, or a ratio has no denominator.
    """
    judged = {}
    for end in range(max(1, len(history) - last + 1), len(history) + 1):
        below = None if denominator is None else denominator.iloc[:end]
        verdict = judge(history.iloc[:end], denominator=below, kind=kind, is_holiday=is_holiday, thresholds=thresholds)
        judged[history.index[end - 1]] = (verdict.value, verdict.expected, verdict.lower, verdict.upper)
    columns = ["value", "expected", "lower", "upper"]
    rows = pd.DataFrame.from_dict(judged, orient="index", columns=columns, dtype=float)
    return rows if len(rows) else pd.DataFrame(columns=columns, index=history.index[:0], dtype=float)


# --- the series on a grid of days and times ---------------------------------------------------------------------------


class _Series(NamedTuple):
    """The series of a tick: a row a bucket, a column a series."""

    names: list[str]
    top: Floats
    bottom: Floats | None
    kinds: list[Kind]
    lags: list[float]
    thresholds: list[Thresholds]


class _Clock(NamedTuple):
    """Where the rows of the grid are in time. The last row is the judged bucket."""

    per_day: int
    slot: int  # of the judged bucket, from midnight
    weekday: int  # of its day, from Monday
    holidays: tuple[bool, ...]  # whether its day is one, the day before, …
    eve: bool  # whether the day after it is one

    @property
    def hour(self) -> int:
        return self.per_day // 24

    @property
    def step(self) -> float:
        return MINUTES / self.per_day


def _column(values: pd.Series, like: pd.Series) -> Floats:
    """A series' values, one a row of another's."""
    if not isinstance(values, pd.Series):
        raise HistoryError(f"A metric's history is a pandas Series by bucket, not a {type(values).__name__}.")
    if values is not like and not values.index.equals(like.index):
        values = values[~values.index.duplicated(keep="last")].reindex(like.index)
    return _numbers(values).reshape(-1, 1)


def _numbers(values: pd.Series | pd.DataFrame) -> Floats:
    """The values as numbers, nan where there is none.

    Raises:
        HistoryError: some are not numbers.
    """
    try:
        return values.to_numpy(dtype=float, na_value=math.nan)
    except (TypeError, ValueError) as error:
        raise HistoryError(f"A metric's history is numbers by bucket: {error}.") from error


UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _on_grid(index: pd.Index, arrays: list[Floats]) -> tuple[int, pd.Timestamp, list[Floats]] | None:
    """The rows by the clock on the wall: every day has all of its buckets, and the last row is the last bucket.

    Returns:
        How many buckets a day has, the last one's local time, the arrays with a row of nan after the last; None where
        two buckets are not to be had.

    Raises:
        HistoryError: there are no times, or they are of a length that does not make up an hour.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise HistoryError("The history has no times: give it a DatetimeIndex, one entry a bucket.")
    if index.hasnans:
        known = index.notna()
        index, arrays = index[known], [array[known] for array in arrays]
    if not index.is_monotonic_increasing:
        order = np.argsort(index.asi8, kind="stable")
        index, arrays = index[order], [array[order] for array in arrays]
    minute = 60 * UNITS[index.unit]
    steps = np.diff(index.asi8[-500:])
    steps = steps[steps > 0]
    if not len(steps):
        return None
    lengths, often = np.unique(steps, return_counts=True)
    length = int(lengths[often.argmax()])
    if (60 * minute) % length:
        raise HistoryError(f"Buckets of {length / minute:g} minutes do not make up an hour: count by 15 or 30 minutes.")
    per_day = MINUTES * minute // length
    rows = DAYS * per_day
    last = index[-1]
    index = index[-2 * rows :]  # twice: rows may be there twice
    arrays = [array[-len(index) :] for array in arrays]
    wall = index.tz_localize(None).asi8
    places = rows - 1 - (wall[-1] - wall) // length
    last = last.tz_localize(None)
    regular = len(index) >= rows and bool((np.diff(wall[-rows:]) == length).all())
    placed = []
    for array in arrays:
        if regular:
            grid = np.empty((rows + 1, array.shape[1]))
            grid[:-1], grid[-1] = array[-rows:], math.nan
        else:
            grid = np.full((rows + 1, array.shape[1]), math.nan)
            # In the hour that comes twice the clock has been further on than it is.
            inside = (places >= 0) & (places < rows)
            grid[places[inside]] = array[inside]
        placed.append(grid)
    return per_day, last, placed


def _holidays(is_holiday: Holidays, day: date) -> tuple[bool, ...]:
    """Whether the day after a day, that day, the day before it, … are holidays.

    Raises:
        HistoryError: holidays are told in another way than `judge` says.
    """
    if is_holiday is None:
        return (False,) * (DAYS + 2)
    days = [day - timedelta(days=back) for back in range(-1, DAYS + 1)]
    if callable(is_holiday):
        return tuple(bool(is_holiday(each)) for each in days)
    if isinstance(is_holiday, pd.Series):
        if not isinstance(is_holiday.index, pd.DatetimeIndex):
            raise HistoryError("Holidays as a Series need the history's own times as its index.")
        true = is_holiday.eq(True).to_numpy(dtype=bool, na_value=False)
        is_holiday = set(is_holiday.index[true].date)
    if isinstance(is_holiday, (pd.DatetimeIndex, np.ndarray)):
        is_holiday = set(pd.DatetimeIndex(is_holiday).date)
    if not isinstance(is_holiday, Collection):
        raise HistoryError("Holidays are a function of a date, a collection of dates, or booleans by bucket.")
    return tuple(each in is_holiday or datetime.combine(each, time.min) in is_holiday for each in days)


def _ordinary_days(back: int, holidays: tuple[bool, ...], oldest: int) -> list[int]:
    """The days before one, back from the judged day, that are no holidays."""
    return [other for other in range(back + 1, min(oldest, DAYS) + 1) if not holidays[other]]


def _same_weekday(days: list[int], like: int, weekday: int) -> list[int]:
    """The latest of the days that are such a weekday, where the judged day is the given one."""
    return [other for other in days if (weekday - other) % 7 == like][:REFERENCES]


@lru_cache(maxsize=1024)
def _reference_days(weekday: int, holidays: tuple[bool, ...], oldest: int) -> Ints:
    """The days that each of the last days is compared with, as days back from it: a row a day back from the judged
    one. The same weekday of the last weeks, a Sunday for a holiday; where there are not three, the days most like it.
    Never a holiday. 0 where there is none, and for early days without the same weekday.
    """
    found = np.zeros((CYCLES + 2, REFERENCES), dtype=np.int64)
    for back in range(CYCLES + 2):
        like = 6 if holidays[back] else (weekday - back) % 7
        usable = _ordinary_days(back, holidays, oldest)
        same = _same_weekday(usable, like, weekday)
        if not same and np.count_nonzero(found[:, 0]) >= ENOUGH_DAYS:
            continue  # compared with other weekdays it would be further off than is ordinary
        if len(same) < ENOUGH_REFERENCES:
            off = like >= 5
            rest = [other for other in usable if other not in same]
            rest.sort(key=lambda other: ((((weekday - other) % 7) >= 5) != off, other))
            same = (same + rest)[:ENOUGH_REFERENCES]
        found[back, : len(same)] = [other - back for other in same]
    return found


def _other_days(clock: _Clock, oldest: int) -> Ints | None:
    """The days, back from the judged one, that it is compared with if it goes like another kind of day; None if not.

    A holiday may go like its own weekday, all the more in the hours that belong to the night before; the evening before
    one like a Friday's, or a Saturday's.
    """
    if clock.holidays[0]:
        like = clock.weekday
    elif clock.eve:
        like = 4 if clock.weekday < 5 else 5
    else:
        return None
    same = _same_weekday(_ordinary_days(0, clock.holidays, oldest), like, clock.weekday)
    return np.array(same + [0] * (REFERENCES - len(same)), dtype=np.int64)


class _Places(NamedTuple):
    """Rows of the grid, by cycle: the judged day, the day before it, …, each ending at the judged time of day."""

    judged: Ints  # (cycle, offset): the buckets around that time
    references: Ints  # (cycle, reference, offset): what they are compared with, one more before and after
    weeks: Ints  # (cycle, reference, offset): how many weeks ago that was, roughly
    others: tuple[Ints, Ints] | None  # both for the judged day as another kind of day, where it may be one
    hours: Ints  # (cycle, hour): of the day before the longest window, as numbers of whole hours
    hours_before: Ints  # (cycle, hour, week): the same hours of the weeks before
    alike: Bools  # (cycle, hour, week): whether both are of ordinary days, or both of holidays


@lru_cache(maxsize=256)
def _places(clock: _Clock, oldest: int) -> _Places:
    """Where to look. A row or hour that does not exist is that after the last."""
    per_day, hour = clock.per_day, clock.hour
    rows = DAYS * per_day
    days = _reference_days(clock.weekday, clock.holidays, oldest)

    def back(row: Ints) -> Ints:
        """How many days before the judged day a row is; a row just after the judged bucket counts as of its day."""
        return np.maximum(0, -((row - (rows - 1) + clock.slot) // per_day))

    def references_of(row: Ints, days: Ints) -> tuple[Ints, Ints]:
        """The rows that each is compared with, and how many weeks before they are."""
        days_ago = days[back(row)].transpose(0, 2, 1)
        found = row[:, None, :] - days_ago * per_day
        weeks_ago = np.minimum(np.rint(days_ago[:, :, 1:-1] / 7).astype(np.int64), WEEKS)
        return np.where((days_ago > 0) & (found >= 0), found, rows), weeks_ago

    cycle = np.arange(CYCLES)[:, None]
    offsets = np.arange(-(max(WINDOWS) + hour), hour + 2)
    wide = rows - 1 - per_day * cycle + offsets
    references, weeks_ago = references_of(wide, days)
    other = _other_days(clock, oldest)
    others = None if other is None else references_of(wide[:1], np.concatenate([[other], days[1:]]))

    ends = rows - 1 - per_day * cycle - max(WINDOWS) - hour * np.arange(LEVEL_HOURS)
    phase = (rows - max(WINDOWS)) % hour
    weeks = 7 * np.arange(1, WEEKS + 1)
    before = ends[..., None] - per_day * weeks
    holiday = np.array(clock.holidays)
    return _Places(
        judged=np.minimum(wide[:, 1:-1], rows),
        references=references,
        weeks=weeks_ago,
        others=others,
        hours=(ends - phase) // hour,
        hours_before=np.where(before < phase, (rows - phase) // hour, (before - phase) // hour),
        alike=holiday[back(ends)][..., None] == holiday[back(ends)[..., None] + weeks],
    )


# --- the rule ---------------------------------------------------------------------------------------------------------


class _Scores(NamedTuple):
    """What the rule finds of the judged buckets, by window and series; the last four by series alone."""

    score: Floats
    effect: Floats
    bar: Floats  # how many times the least score this window needs
    shows: Bools  # whether the last buckets of the window still show it: else it is over
    due: Floats  # what the window should hold, by the level of the day before
    low: Floats  # the least of what it may well hold
    high: Floats  # and the most
    spread: Floats  # a standard deviation of what is ordinary
    value: Floats
    expected: Floats  # per unit of size
    size: Floats  # a ratio's denominator, else 1
    known: Bools


def _middle(ordered: Floats, known: Ints) -> Floats:
    """The medians along the first axis, of values in order (nan last) of which so many are known."""
    low = np.take_along_axis(ordered, np.maximum(known - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(known // 2, len(ordered) - 1)[None], axis=0)[0]
    return (low + high) / 2


def _median_of_few(values: Floats, axis: int) -> Floats:
    """The median of up to four values along an axis; nan where there is none."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    least = np.where(known, values, np.inf).min(axis=axis)
    most = np.where(known, values, -np.inf).max(axis=axis)
    with np.errstate(invalid="ignore"):
        inner = np.where(count > 2, total - least - most, total)
    return inner / SHARED[count]


def _references(top: Floats, bottom: Floats | None, rows: Ints, counts: bool) -> Floats:
    """What each bucket is compared with (per unit of the denominator). Where it is a small count, the buckets beside
    it count as well: chance weighs more there than the rhythm's steps and bends do.
    """
    near = top[rows]
    middle = near[:, :, 1:-1]
    if not counts:
        return middle
    below = np.ones_like(near) if bottom is None else bottom[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = [array[:, :, :-2] + array[:, :, 1:-1] + array[:, :, 2:] for array in (near, below)]
        alone = middle / below[:, :, 1:-1]
        chance = BLENDED / (BLENDED + sums[0] / 3)
        blended = alone + chance * (sums[0] / sums[1] - alone)
    return np.where(np.isnan(blended), alone, blended)


def _expected(
    top: Floats, bottom: Floats | None, places: _Places, hour: int, counts: bool, parts: Parts
) -> tuple[Floats, list[Floats]]:
    """What each bucket of `places.judged` should hold (per unit of the denominator), by the level of the day before.
    And what else it may well hold (the judged cycle only): by the level of the week before, as another kind of day.
    """
    references = _references(top, bottom, places.references, counts)
    if not parts.scaled:
        return _median_of_few(references, 1), []

    levels = _levels(_hourly(top, bottom, hour, counts), places)
    week = np.median(levels[:8], axis=0, keepdims=True)
    if counts:  # a day without next to anything is an outage, not a new level
        levels[:1] = np.where(levels[:1] < week - OUTAGE, week, levels[:1])
        levels, week = np.exp(levels), np.exp(week)

    def scaled(references: Floats, shifts: Floats) -> Floats:
        return _median_of_few(references * shifts if counts else references + shifts, 1)

    others = []
    if parts.returning:
        others.append(scaled(references[:1], week[0, places.weeks[:1]]))
    if parts.others and places.others is not None:
        rows, weeks = places.others
        others.append(scaled(_references(top, bottom, rows, counts), levels[0, weeks]))
    return scaled(references, levels[np.arange(CYCLES)[:, None, None], places.weeks]), others


def _levels(level: Floats, places: _Places) -> Floats:
    """How the day before each cycle's windows compares with the same hours so many weeks before, by cycle and number of
    weeks (from none): the median of the differences.
    """
    change = level[places.hours][:, :, None] - level[places.hours_before]
    change[~places.alike] = math.nan
    known = np.isfinite(change).sum(axis=1)
    change.sort(axis=1)
    levels = _middle(np.moveaxis(change, 1, 0), known)
    levels[known < LEAST_HOURS] = math.nan
    for cycle in range(len(levels) - 2, -1, -1):  # what is not known is as it was the day before
        levels[cycle] = np.where(np.isnan(levels[cycle]), levels[cycle + 1], levels[cycle])
    levels = np.where(np.isnan(levels), 0.0, levels)
    return np.concatenate([np.zeros_like(levels[:, :1]), levels], axis=1)


def _hourly(top: Floats, bottom: Floats | None, hour: int, counts: bool) -> Floats:
    """The level of each whole hour: a logarithm for counts and ratios. The last row is nan."""
    rows = len(top) - 1
    phase = (rows - max(WINDOWS)) % hour
    end = phase + (rows - phase) // hour * hour

    def by_hour(array: Floats) -> Floats:
        return array[phase:end].reshape(-1, hour, array.shape[1])

    with np.errstate(divide="ignore", invalid="ignore"):
        if bottom is not None:
            level = np.log((by_hour(top).sum(axis=1) + 0.5) / (by_hour(bottom).sum(axis=1) + 1.0))
        elif counts:
            level = np.log(by_hour(top).sum(axis=1) + 0.5)
        else:
            level = by_hour(top).mean(axis=1)
    return np.concatenate([level, np.full((1, level.shape[1]), math.nan)])


def _sums(values: Floats, ends: Ints, window: int) -> Floats:
    """Sums of so many buckets along the second axis, by their last ones."""
    running = np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(values, axis=1)], axis=1)
    return running[:, ends + 1] - running[:, ends + 1 - window]


def _off(held: Floats, due: Floats, counts: bool, window: int) -> Floats:
    """How far off a window is: in standard deviations of counting for counts, else by the bucket."""
    if counts:
        return 2 * (np.sqrt(held + 3 / 8) - np.sqrt(due + 3 / 8))
    return (held - due) / window


def _scores(
    top: Floats, bottom: Floats | None, places: _Places, hour: int, counts: bool, late: Floats, parts: Parts
) -> _Scores:
    """The rule, for series of one kind and the same days of history. The grid's last row is nan."""
    by_day, others = _expected(top, bottom, places, hour, counts, parts)
    value = top[places.judged]
    size = np.ones_like(value) if bottom is None else bottom[places.judged]
    with np.errstate(invalid="ignore"):
        known = np.isfinite(value) & np.isfinite(by_day) & np.isfinite(size)
    now = value.shape[1] - 1 - hour
    held = np.where(known, value, 0.0)
    due = np.where(known, by_day * size, 0.0)
    dues_else = [np.where(known[:1] & np.isfinite(other), other * size[:1], due[:1]) for other in others]
    # What a lag of less than a bucket may have kept back is taken as having come.
    held[0, now] = np.maximum(held[0, now], np.minimum(held[0, now] + late * due[0, now], due[0, now]))
    ends = np.arange(now - hour, now + hour + 1)
    at = np.array([now])
    least = np.ones_like(value[0, now]) if bottom is None else np.sqrt(np.clip(1 - by_day[0, now], 0.04, 1))
    found = []
    for window in parts.windows:
        past = _off(_sums(held[1:], ends, window), _sums(due[1:], ends, window), counts, window)
        enough = _sums(known[1:].astype(float), ends, window) >= window / 2
        past = np.where(enough, past, math.nan).reshape(-1, past.shape[2])
        mass, mass_due = _sums(held[:1], at, window)[0, 0], _sums(due[:1], at, window)[0, 0]
        mass_else = [_sums(other, at, window)[0, 0] for other in dues_else]
        found.append(_window_scores(past, mass, np.stack([mass_due, *mass_else]), least, counts, window, parts))
    score, effect, spread, dues, low, high, count = (np.stack(each) for each in zip(*found, strict=True))
    bar = np.ones_like(dues) * np.array([[SCORES[window]] for window in parts.windows])
    if counts and parts.small:
        bar *= 1 + SMALL / np.sqrt(dues + 3 / 8)
    shows = np.ones_like(score, dtype=bool)
    if parts.recovery:
        for number in range(1, len(parts.windows)):
            still = effect[:number] * np.sign(effect[number]) >= abs(effect[number]) * SHOWN
            shows[number] = still.all(axis=0)
    is_known = known[0, now] & (count[0] >= LEAST_RESIDUALS)
    return _Scores(
        score, effect, bar, shows, dues, low, high, spread, value[0, now], by_day[0, now], size[0, now], is_known
    )


def _window_scores(
    past: Floats, held: Floats, dues: Floats, least: Floats, counts: bool, window: int, parts: Parts
) -> tuple[Floats, ...]:
    """Of the judged window beside those of the past: score, share of what was due, standard deviation; what was due,
    the least and the most that may have been; how many windows of the past are known.

    Args:
        dues: what was due, then whatever else may have been: what lies between them is not off at all.
    """
    count = np.isfinite(past).sum(axis=0)
    spread = NORMAL_MAD * _middle(np.sort(np.abs(past), axis=0), count)
    spread = np.fmax(spread, (least if counts else 1e-3 * np.abs(dues[0]) / window) if parts.floor else 0)
    spread = np.fmax(spread, 1e-9)
    due, low, high = dues[0], dues.min(axis=0), dues.max(axis=0)
    nearest = np.clip(held, low, high)
    effect = (held - nearest) / np.maximum(np.abs(due), 1e-9)
    return _off(held, nearest, counts, window) / spread, effect, spread, due, low, high, count


# --- the verdicts -----------------------------------------------------------------------------------------------------


def _judge(index: pd.Index, series: _Series, is_holiday: Holidays, parts: Parts) -> dict[str, Verdict]:
    """The verdicts, by name."""
    verdicts = dict.fromkeys(series.names, Verdict(False, math.nan, math.nan, 0.0, "unknown"))
    kinds, lags = _checked(series)
    placed = _on_grid(index, [series.top] if series.bottom is None else [series.top, series.bottom])
    if placed is None:
        return verdicts
    per_day, last, arrays = placed
    slot = (last.hour * 60 + last.minute) * per_day // MINUTES
    eve, *holidays = _holidays(is_holiday, last.date())
    clock = _Clock(per_day, slot, last.weekday(), tuple(holidays), eve)
    top, bottom = (arrays * 2)[:2]
    _clean(top, bottom, kinds)
    late = np.clip(lags / clock.step, 0, 1)
    oldest = _oldest_days(top, clock)
    judged: list[_Judged] = []
    for kind in np.unique(kinds):
        for days in np.unique(oldest[kinds == kind]):
            some = np.flatnonzero((kinds == kind) & (oldest == days))
            if days < 2:
                continue
            below = bottom[:, some] if kind == "ratio" else None
            places = _places(clock, int(days))
            lates = (np.zeros(len(some)), late[some]) if ((late[some] > 0) & (late[some] < 1)).any() else (late[some],)
            few = parts.few and _few(clock, int(days))
            limits = [_limits(series.thresholds[number], clock.holidays[0], few) for number in some]
            pair = [
                _findings(
                    _scores(top[:, some], below, places, clock.hour, kind != "value", some_late, parts),
                    limits,
                    kind != "value",
                    parts,
                )
                for some_late in lates
            ]
            judged += [
                _Judged(number, late[number], raw, found)
                for number, raw, found in zip(some, pair[0], pair[-1], strict=True)
            ]
    surprises = [one.found.surprise for one in judged]
    allowed = _allowed(surprises) if parts.together else [surprise <= 1 for surprise in surprises]
    for one, alert in zip(judged, allowed, strict=True):
        verdicts[series.names[one.number]] = one.verdict(alert)
    return verdicts


def _checked(series: _Series) -> tuple[np.ndarray[Any, Any], Floats]:
    """The kinds and lags of the series.

    Raises:
        HistoryError: one is not a kind, or is a ratio without a denominator.
    """
    kinds = np.array(series.kinds)
    for name, kind in zip(series.names, series.kinds, strict=True):
        if kind not in ("count", "ratio", "value"):
            raise HistoryError(f"{name}: {kind!r} is no kind of metric. It is count, ratio or value.")
        if kind == "ratio" and series.bottom is None:
            raise HistoryError(f"{name} is a ratio: its denominator by bucket is needed too.")
    return kinds, np.nan_to_num(np.array(series.lags, dtype=float), nan=0.0, posinf=MOST)


def _clean(top: Floats, bottom: Floats, kinds: np.ndarray[Any, Any]) -> None:
    """Leave what can be reckoned with: no infinite numbers, no counts below zero, ratios as numerators."""
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


def _oldest_days(top: Floats, clock: _Clock) -> Ints:
    """How many days before the judged one each series begins; its first day counts if it is whole."""
    begins = np.where(np.isfinite(top).any(axis=0), np.isfinite(top).argmax(axis=0), len(top))
    before = len(top) - 2 - clock.slot - begins
    return np.maximum(before // clock.per_day, 0)


def _few(clock: _Clock, oldest: int) -> bool:
    """Whether the judged day is compared with other weekdays, for want of its own. A holiday always is."""
    references = _reference_days(clock.weekday, clock.holidays, oldest)[0]
    same = np.count_nonzero((references > 0) & (references % 7 == 0))
    return not clock.holidays[0] and bool(same < ENOUGH_REFERENCES)


def _limits(thresholds: Thresholds, holiday: bool, few: bool) -> Thresholds:
    """The thresholds of the day."""
    score, effect, wider = thresholds.score, thresholds.effect, thresholds.holiday
    if holiday:
        score, effect = score * math.sqrt(wider), effect * wider
    if few:
        score, effect = score * FEW, effect * FEW
    return Thresholds(score, effect, wider)


class _Found(NamedTuple):
    """What is found of one series: its most telling window, and the range of the judged bucket."""

    score: float
    effect: float
    window: int
    surprise: float  # how much less likely than an alert's least score it is, as a ratio; above 1 is no alert
    lower: float
    upper: float
    value: float
    expected: float
    known: bool


class _Judged(NamedTuple):
    """A series' findings: as the rows are, and with what a lag of less than a bucket may have kept back."""

    number: int
    late: float  # in buckets, at most 1
    raw: _Found
    found: _Found

    def verdict(self, alert: bool) -> Verdict:
        found = self.found
        kind = "normal"
        if self.late >= 1:
            kind = "data_lag"
        elif not found.known:
            kind = "unknown"
        elif alert:
            kind = "drop" if found.score < 0 else "spike"
        elif self.raw.surprise <= 1 and self.raw.score < 0 < self.late:
            kind = "data_lag"
        deviation, is_anomaly = found.effect, kind in ("drop", "spike")
        score = found.score if found.known else 0.0
        return Verdict(
            is_anomaly, found.lower, found.upper, score, kind, found.value, found.expected, deviation, found.window
        )


def _findings(scores: _Scores, limits: list[Thresholds], counts: bool, parts: Parts) -> list[_Found]:
    """The scores as findings, by series."""
    columns = [np.moveaxis(each, -1, 0).tolist() for each in scores]
    found = []
    for limit, score, effect, bar, shows, due, low, high, spread, value, expected, size, known in zip(
        limits, *columns, strict=True
    ):
        strength = [
            abs(far) / needed if show and abs(share) > limit.effect * EFFECTS[window] and known else 0.0
            for window, far, share, needed, show in zip(parts.windows, score, effect, bar, shows, strict=True)
        ]
        at = max(range(len(strength)), key=strength.__getitem__)
        surprise = _tail(strength[at]) / _tail(limit.score) if strength[at] > 0 else math.inf
        at = at if surprise <= 1 else 0
        margin, least = limit.score * bar[at] * spread[at], limit.effect * EFFECTS[parts.windows[at]]
        lower, upper = _range(low[at], high[at], margin, least, counts, parts.windows[at])
        if counts:
            share = expected / due[at] if due[at] > 0 else 1 / size
            lower, upper = lower * share, upper * share
        found.append(
            _Found(score[at], effect[at], parts.windows[at], surprise, lower, upper, value / size, expected, known)
        )
    return found


def _tail(score: float) -> float:
    """How often a normal deviation is at least that, on either side."""
    return math.erfc(min(score, 35.0) / math.sqrt(2))


def _range(low: float, high: float, margin: float, least: float, counts: bool, window: int) -> tuple[float, float]:
    """The least and most that a window may hold without an alert; by the bucket for values.

    Args:
        low: the least of what it should hold.
        high: the most.
        margin: how far off it may be, as `_off` says it.
        least: and by what share.
    """
    if not counts:
        low, high = low / window, high / window
        return low - max(margin, least * abs(low)), high + max(margin, least * abs(high))
    root = max(math.sqrt(low + 3 / 8) - margin / 2, math.sqrt(3 / 8))
    lower = min(root**2 - 3 / 8, low * (1 - least))
    upper = (math.sqrt(high + 3 / 8) + margin / 2) ** 2 - 3 / 8
    return max(lower, 0.0), max(upper, high * (1 + least))


def _allowed(surprises: list[float]) -> list[bool]:
    """Which of the series may alert: Benjamini and Hochberg's rule on how surprising each is, 1 being just enough."""
    order = sorted(range(len(surprises)), key=surprises.__getitem__)
    passing = [rank for rank, number in enumerate(order, 1) if surprises[number] <= rank / len(surprises)]
    allowed = set(order[: max(passing, default=0)])
    return [number in allowed for number in range(len(surprises))]
