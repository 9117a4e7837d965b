"""Puts histories on a grid of local days and times, one row per bucket, and says where the judged bucket is in it."""

import math
from collections.abc import Callable, Collection
from datetime import date, datetime, time, timedelta
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pulse import PulseError

Holidays: TypeAlias = Callable[[date], bool] | Collection[date] | pd.Series | None
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

MINUTES_A_DAY = 24 * 60
TICKS_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
STEPS_LOOKED_AT = 500  # of the latest rows, to find the length of a bucket


class HistoryError(PulseError):
    """The history cannot be judged."""


class Grid(NamedTuple):
    """Histories with all the buckets of every day.

    Args:
        per_day: buckets a day.
        last: the local time of the judged bucket, without a time zone.
        arrays: a row per bucket and a column per series. The last row but one is the judged bucket; the last row is
            all NaN, and stands for every bucket that does not exist.
    """

    per_day: int
    last: pd.Timestamp
    arrays: list[Floats]


class Clock(NamedTuple):
    """When the judged bucket is.

    Args:
        per_day: buckets a day.
        slot: its number within its day, from 0 at midnight.
        weekday: of its day, from 0 for Monday.
        holidays: whether its day is a holiday, then the day before, and so on backwards.
        eve: whether the day after it is a holiday.
    """

    per_day: int
    slot: int
    weekday: int
    holidays: tuple[bool, ...]
    eve: bool

    @property
    def per_hour(self) -> int:
        """Buckets an hour."""
        return self.per_day // 24

    @property
    def minutes(self) -> float:
        """The length of a bucket."""
        return MINUTES_A_DAY / self.per_day


def numbers(values: pd.Series | pd.DataFrame) -> Floats:
    """The values as floats, NaN where one is missing.

    Raises:
        HistoryError: some are not numbers.
    """
    try:
        floats: Floats = values.to_numpy(dtype=float, na_value=math.nan)
    except (TypeError, ValueError) as error:
        raise HistoryError(f"A metric's history must hold numbers only: {error}.") from error
    return floats


def column(values: pd.Series, like: pd.Series) -> Floats:
    """A series' values as a column, in the order of another series' index.

    Raises:
        HistoryError: it is not a pandas Series, or some values are not numbers.
    """
    if not isinstance(values, pd.Series):
        raise HistoryError(f"A metric's history must be a pandas Series by bucket, not a {type(values).__name__}.")
    if values is not like and not values.index.equals(like.index):
        values = values[~values.index.duplicated(keep="last")].reindex(like.index)
    return numbers(values).reshape(-1, 1)


def on_grid(index: pd.Index, arrays: list[Floats], days: int) -> Grid | None:
    """Put rows on the grid of the last days, by local time.

    Args:
        index: when each row's bucket begins.
        arrays: a row per entry of `index`, in any order; of rows for the same bucket, the last one counts.
        days: the length of the grid.

    Returns:
        The grid; None if there are fewer than two different buckets.

    Raises:
        HistoryError: the index holds no times, or an hour is not a whole number of buckets.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise HistoryError("The history has no times: give it a DatetimeIndex, one entry a bucket.")
    if index.hasnans:
        known = index.notna()
        index, arrays = index[known], [array[known] for array in arrays]
    if not index.is_monotonic_increasing:
        order = np.argsort(index.asi8, kind="stable")
        index, arrays = index[order], [array[order] for array in arrays]
    length = _bucket_length(index)
    if length is None:
        return None
    per_day = MINUTES_A_DAY * 60 * TICKS_A_SECOND[index.unit] // length
    rows = days * per_day
    last = index[-1].tz_localize(None)
    index = index[-2 * rows :]  # twice as many, because rows may be duplicated
    arrays = [array[-len(index) :] for array in arrays]
    wall = index.tz_localize(None).asi8
    positions = rows - 1 - (wall[-1] - wall) // length
    if len(index) >= rows and bool((np.diff(wall[-rows:]) == length).all()):
        return Grid(per_day, last, [_with_missing_row(array[-rows:]) for array in arrays])
    # When the clock is set back, local times later than the judged bucket's have already passed.
    inside = (positions >= 0) & (positions < rows)
    return Grid(per_day, last, [_placed(array[inside], positions[inside], rows) for array in arrays])


def _bucket_length(index: pd.DatetimeIndex) -> int | None:
    """The most frequent step between rows, in the index' own unit; None if there is none.

    Raises:
        HistoryError: an hour is not a whole number of them.
    """
    minute = 60 * TICKS_A_SECOND[index.unit]
    steps = np.diff(index.asi8[-STEPS_LOOKED_AT:])
    steps = steps[steps > 0]
    if not len(steps):
        return None
    lengths, counts = np.unique(steps, return_counts=True)
    length = int(lengths[counts.argmax()])
    if (60 * minute) % length:
        raise HistoryError(
            f"Buckets of {length / minute:g} minutes do not divide an hour: use buckets of 15 or 30 minutes."
        )
    return length


def _with_missing_row(array: Floats) -> Floats:
    grid = np.empty((len(array) + 1, array.shape[1]))
    grid[:-1], grid[-1] = array, math.nan
    return grid


def _placed(array: Floats, positions: Ints, rows: int) -> Floats:
    grid = np.full((rows + 1, array.shape[1]), math.nan)
    grid[positions] = array
    return grid


def clock_of(grid: Grid, is_holiday: Holidays, days: int) -> Clock:
    """When the grid's judged bucket is.

    Raises:
        HistoryError: `is_holiday` has none of the forms that `judge` takes.
    """
    slot = (grid.last.hour * 60 + grid.last.minute) * grid.per_day // MINUTES_A_DAY
    eve, *holidays = _holidays(is_holiday, grid.last.date(), days)
    return Clock(grid.per_day, slot, grid.last.weekday(), tuple(holidays), eve)


def _holidays(is_holiday: Holidays, day: date, days: int) -> tuple[bool, ...]:
    """Whether the day after a day is a holiday, then the day itself, the day before, and so on for `days` days.

    Raises:
        HistoryError: `is_holiday` has none of the forms that `judge` takes.
    """
    if is_holiday is None:
        return (False,) * (days + 2)
    dates = [day - timedelta(days=back) for back in range(-1, days + 1)]
    if callable(is_holiday):
        return tuple(bool(is_holiday(each)) for each in dates)
    if isinstance(is_holiday, pd.Series):
        if not isinstance(is_holiday.index, pd.DatetimeIndex):
            raise HistoryError("Holidays given as a Series need the history's own times as their index.")
        true = is_holiday.eq(True).to_numpy(dtype=bool, na_value=False)
        is_holiday = set(is_holiday.index[true].date)
    if isinstance(is_holiday, (pd.DatetimeIndex, np.ndarray)):
        is_holiday = set(pd.DatetimeIndex(is_holiday).date)
    if not isinstance(is_holiday, Collection):
        raise HistoryError("Holidays must be a function of a date, a collection of dates, or booleans by bucket.")
    return tuple(each in is_holiday or datetime.combine(each, time.min) in is_holiday for each in dates)
