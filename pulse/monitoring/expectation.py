"""Computes what each bucket should hold, from its references and from the level of the last day."""

import math
from typing import NamedTuple

import numpy as np

from pulse.monitoring.grid import Floats, Ints
from pulse.monitoring.references import CYCLES, LONGEST_WINDOW, Positions

LEAST_HOURS = 8  # hours of a day that must be comparable for its level to be known
LEVELS_OF_A_WEEK = 8  # daily levels whose median is the level of the last week
OUTAGE = math.log(4)  # a day whose level is this far (as a logarithm) below the last week's is an outage
BLENDED = 50  # events in a bucket; with more, a reference's neighbours weigh less than half
DIVISORS = np.array([math.nan, 1.0, 2.0, 1.0, 2.0])  # by number of known values: how many middle values are averaged


class Histories(NamedTuple):
    """Series of one kind, on the grid.

    Args:
        top: the values, or a ratio's numerators: a row per bucket and a column per series.
        bottom: a ratio's denominators; else None.
        counts: whether they count events: counts and ratios do, other values do not.
    """

    top: Floats
    bottom: Floats | None
    counts: bool


class Comparison(NamedTuple):
    """What the expected values of a tick are computed from.

    Args:
        histories: the series.
        positions: where to look.
        references: by cycle, reference, offset and series: the values to compare with.
        levels: by cycle, number of weeks and series: how the last day compares with that many weeks before.
        week: the same for the last week instead of the last day; one cycle.
    """

    histories: Histories
    positions: Positions
    references: Floats
    levels: Floats
    week: Floats

    def scaled(self, references: Floats, levels: Floats) -> Floats:
        """The median of references that are each moved to today's level."""
        return _median_of_few(references * levels if self.histories.counts else references + levels, 1)


def expected(histories: Histories, positions: Positions, per_hour: int) -> tuple[Floats, list[Floats]]:
    """What each bucket of `positions.judged` should hold, for a ratio per unit of its denominator.

    Returns:
        By cycle, offset and series: the values expected at the level of the day before. And the alternatives, for the
        judged cycle only.
    """
    references = reference_values(histories, positions.references)
    levels = _levels(_hourly(histories, per_hour), positions)
    week = np.median(levels[:LEVELS_OF_A_WEEK], axis=0, keepdims=True)
    if histories.counts:
        is_outage = levels[:1] < week - OUTAGE
        levels[:1] = np.where(is_outage, week, levels[:1])
        levels, week = np.exp(levels), np.exp(week)
    comparison = Comparison(histories, positions, references, levels, week)
    alternatives = [alternative(comparison) for alternative in ALTERNATIVES]
    by_day = comparison.scaled(references, levels[np.arange(CYCLES)[:, None, None], positions.weeks])
    return by_day, [alternative for alternative in alternatives if alternative is not None]


def at_last_weeks_level(comparison: Comparison) -> Floats | None:
    """What is expected if the level of the last day was an exception, and the last week's level is back."""
    weeks = comparison.positions.weeks[:1]
    return comparison.scaled(comparison.references[:1], comparison.week[0, weeks])


def as_another_kind_of_day(comparison: Comparison) -> Floats | None:
    """What is expected if a holiday, or the day before one, runs like another kind of day; None on other days."""
    if comparison.positions.others is None:
        return None
    rows, weeks = comparison.positions.others
    return comparison.scaled(reference_values(comparison.histories, rows), comparison.levels[0, weeks])


ALTERNATIVES = (at_last_weeks_level, as_another_kind_of_day)
"""What a bucket may hold as well; anything between an alternative and the expected value is ordinary."""


def reference_values(histories: Histories, rows: Ints) -> Floats:
    """The values of the references, for a ratio per unit of its denominator.

    A small count is blended with its neighbours, because chance moves it more than the time of day does.
    """
    near = histories.top[rows]
    middle = near[:, :, 1:-1]
    if not histories.counts:
        return middle
    below = np.ones_like(near) if histories.bottom is None else histories.bottom[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = [array[:, :, :-2] + array[:, :, 1:-1] + array[:, :, 2:] for array in (near, below)]
        alone = middle / below[:, :, 1:-1]
        chance = BLENDED / (BLENDED + sums[0] / 3)
        blended: Floats = alone + chance * (sums[0] / sums[1] - alone)
    return np.where(np.isnan(blended), alone, blended)


def _hourly(histories: Histories, per_hour: int) -> Floats:
    """The level of each whole hour, a logarithm for counts and ratios. The last row is NaN."""
    rows = len(histories.top) - 1
    phase = (rows - LONGEST_WINDOW) % per_hour
    end = phase + (rows - phase) // per_hour * per_hour

    def by_hour(array: Floats) -> Floats:
        return array[phase:end].reshape(-1, per_hour, array.shape[1])

    with np.errstate(divide="ignore", invalid="ignore"):
        level: Floats
        if histories.bottom is not None:
            level = np.log((by_hour(histories.top).sum(axis=1) + 0.5) / (by_hour(histories.bottom).sum(axis=1) + 1.0))
        elif histories.counts:
            level = np.log(by_hour(histories.top).sum(axis=1) + 0.5)
        else:
            level = by_hour(histories.top).mean(axis=1)
    return np.concatenate([level, np.full((1, level.shape[1]), math.nan)])


def _levels(hourly: Floats, positions: Positions) -> Floats:
    """How the day before each cycle's windows compares with the same hours of the weeks before.

    Returns:
        By cycle, number of weeks (from 0, which is always 0) and series: the median difference of the hours.
    """
    change = hourly[positions.hours][:, :, None] - hourly[positions.hours_before]
    change[~positions.alike] = math.nan
    known = np.isfinite(change).sum(axis=1)
    change.sort(axis=1)
    levels = middle_of_sorted(np.moveaxis(change, 1, 0), known)
    levels[known < LEAST_HOURS] = math.nan
    for cycle in range(len(levels) - 2, -1, -1):  # an unknown level is taken to be the day before's
        levels[cycle] = np.where(np.isnan(levels[cycle]), levels[cycle + 1], levels[cycle])
    levels = np.where(np.isnan(levels), 0.0, levels)
    return np.pad(levels, ((0, 0), (1, 0), (0, 0)))


def middle_of_sorted(ordered: Floats, known: Ints) -> Floats:
    """The medians along the first axis of sorted values, NaN last, of which only the first `known` count."""
    low = np.take_along_axis(ordered, np.maximum(known - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(known // 2, len(ordered) - 1)[None], axis=0)[0]
    middle: Floats = (low + high) / 2
    return middle


def _median_of_few(values: Floats, axis: int) -> Floats:
    """The median of up to four values along an axis; NaN where none is known."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    least = np.where(known, values, np.inf).min(axis=axis)
    most = np.where(known, values, -np.inf).max(axis=axis)
    with np.errstate(invalid="ignore"):
        inner = np.where(count > 2, total - least - most, total)
    median: Floats = inner / DIVISORS[count]
    return median
