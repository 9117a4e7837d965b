"""Chooses the past days and rows that a bucket is compared with."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pulse.monitoring.grid import Bools, Clock, Ints

REFERENCES = 4  # past days that a bucket is compared with
ENOUGH_REFERENCES = 3  # with fewer days of the same weekday, similar days are added
ENOUGH_DAYS = 6  # days that have references; earlier days then need references of their own weekday
CYCLES = 15  # the judged day and the two weeks before it, which show how large ordinary deviations are
HISTORY_DAYS = CYCLES + 2 + 7 * REFERENCES  # days of history that the detector looks at
WEEKS = 4  # weeks back to which the level of the last day is compared
LEVEL_HOURS = 24  # hours before the longest window that make up the level
LONGEST_WINDOW = 16  # buckets
FRIDAY, SATURDAY, SUNDAY = 4, 5, 6


class Positions(NamedTuple):
    """Row numbers of the grid by cycle: the judged day, the day before it, and so on, each ending at the same time.

    Args:
        judged: by cycle and offset, the buckets around that time.
        references: by cycle, reference and offset, what they are compared with, with one more bucket at either end.
        weeks: by cycle, reference and offset, how many weeks ago the reference is, rounded.
        others: `references` and `weeks` of the judged day if it may run like another kind of day; else None.
        hours: by cycle and hour, the day before the longest window, as numbers of whole hours.
        hours_before: by cycle, hour and week, the same hours of the weeks before.
        alike: by cycle, hour and week, whether both hours are on ordinary days, or both on holidays.
    """

    judged: Ints
    references: Ints
    weeks: Ints
    others: tuple[Ints, Ints] | None
    hours: Ints
    hours_before: Ints
    alike: Bools


def _ordinary_days(back: int, holidays: tuple[bool, ...], oldest: int) -> list[int]:
    """The days before the given day that are not holidays, as days back from the judged one."""
    return [other for other in range(back + 1, min(oldest, HISTORY_DAYS) + 1) if not holidays[other]]


def _same_weekday(days: list[int], wanted: int, judged_weekday: int) -> list[int]:
    """The latest of the days that fall on the wanted weekday."""
    return [other for other in days if (judged_weekday - other) % 7 == wanted][:REFERENCES]


@lru_cache(maxsize=1024)
def reference_days(weekday: int, holidays: tuple[bool, ...], oldest: int) -> Ints:
    """The days that each of the last days is compared with.

    They are the same weekday of the last weeks, or Sundays for a holiday. With fewer than three of them, the most
    similar days are added: working days to working days, weekend days to weekend days, the latest first. A holiday is
    never a reference.

    Args:
        weekday: of the judged day, from 0 for Monday.
        holidays: whether the judged day is a holiday, then the day before, and so on backwards.
        oldest: days of history before the judged day.

    Returns:
        By day (back from the judged one) and reference: how many days before that day the reference is. 0 means no
        reference, which is also the case for early days that have no earlier day of the same weekday.
    """
    chosen = np.zeros((CYCLES + 2, REFERENCES), dtype=np.int64)
    for back in range(CYCLES + 2):
        wanted = SUNDAY if holidays[back] else (weekday - back) % 7
        usable = _ordinary_days(back, holidays, oldest)
        same = _same_weekday(usable, wanted, weekday)
        if not same and np.count_nonzero(chosen[:, 0]) >= ENOUGH_DAYS:
            continue  # compared with other weekdays, it would deviate more than is ordinary
        if len(same) < ENOUGH_REFERENCES:
            weekend = wanted >= SATURDAY
            rest = [other for other in usable if other not in same]
            rest.sort(key=lambda other: ((((weekday - other) % 7) >= SATURDAY) != weekend, other))
            same = (same + rest)[:ENOUGH_REFERENCES]
        chosen[back, : len(same)] = [other - back for other in same]
    return chosen


def has_few_references(clock: Clock, oldest: int) -> bool:
    """Whether the judged day has too few earlier days of its weekday, and is compared with other weekdays too.

    Never for a holiday: it is compared with Sundays anyway.
    """
    chosen = reference_days(clock.weekday, clock.holidays, oldest)[0]
    same = np.count_nonzero((chosen > 0) & (chosen % 7 == 0))
    return not clock.holidays[0] and bool(same < ENOUGH_REFERENCES)


def _other_days(clock: Clock, oldest: int) -> Ints | None:
    """The days to compare the judged day with if it runs like another kind of day; None if it cannot.

    A holiday may run like its own weekday, above all in the hours after midnight. The day before a holiday may run like
    a Friday, or like a Saturday at the weekend.

    Returns:
        Days back from the judged day; 0 where there are no more.
    """
    if clock.holidays[0]:
        wanted = clock.weekday
    elif clock.eve:
        wanted = FRIDAY if clock.weekday < SATURDAY else SATURDAY
    else:
        return None
    same = _same_weekday(_ordinary_days(0, clock.holidays, oldest), wanted, clock.weekday)
    return np.array(same + [0] * (REFERENCES - len(same)), dtype=np.int64)


@lru_cache(maxsize=256)
def positions(clock: Clock, oldest: int) -> Positions:
    """Where in the grid the judged buckets, their references and the hours of their levels are.

    Args:
        clock: when the judged bucket is.
        oldest: days of history before the judged day.

    Returns:
        Row and hour numbers; for what does not exist, the number after the last, where the grid is NaN.
    """
    per_day, per_hour = clock.per_day, clock.per_hour
    rows = HISTORY_DAYS * per_day
    days = reference_days(clock.weekday, clock.holidays, oldest)

    def back(row: Ints) -> Ints:
        """How many days before the judged day a row is; rows just after the judged bucket count as the same day."""
        return np.maximum(0, -((row - (rows - 1) + clock.slot) // per_day))

    def references_of(row: Ints, days: Ints) -> tuple[Ints, Ints]:
        """The rows that each row is compared with, and how many weeks ago they are."""
        days_ago = days[back(row)].transpose(0, 2, 1)
        earlier = row[:, None, :] - days_ago * per_day
        weeks_ago = np.minimum(np.rint(days_ago[:, :, 1:-1] / 7).astype(np.int64), WEEKS)
        return np.where((days_ago > 0) & (earlier >= 0), earlier, rows), weeks_ago

    cycle = np.arange(CYCLES)[:, None]
    offsets = np.arange(-(LONGEST_WINDOW + per_hour), per_hour + 2)
    wide = rows - 1 - per_day * cycle + offsets
    references, weeks_ago = references_of(wide, days)
    other = _other_days(clock, oldest)
    others = None if other is None else references_of(wide[:1], np.concatenate([[other], days[1:]]))

    ends = rows - 1 - per_day * cycle - LONGEST_WINDOW - per_hour * np.arange(LEVEL_HOURS)
    phase = (rows - LONGEST_WINDOW) % per_hour
    weeks = 7 * np.arange(1, WEEKS + 1)
    before = ends[..., None] - per_day * weeks
    holiday = np.array(clock.holidays)
    return Positions(
        judged=np.minimum(wide[:, 1:-1], rows),
        references=references,
        weeks=weeks_ago,
        others=others,
        hours=(ends - phase) // per_hour,
        hours_before=np.where(before < phase, (rows - phase) // per_hour, (before - phase) // per_hour),
        alike=holiday[back(ends)][..., None] == holiday[back(ends)[..., None] + weeks],
    )
