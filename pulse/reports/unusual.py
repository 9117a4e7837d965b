"""Whether a day's change is unusual for such days."""

import math
from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from statistics import quantiles

from pulse.metrics import WEEK, DayMetrics, Metric, Unit

# How many earlier changes of the same weekday are looked at, and how many have to be known.
MOST_WEEKS, LEAST_WEEKS = 12, 8
# How far beyond the quartiles is unusual, in interquartile ranges: what Tukey called far out.
FENCE = 3.0
# Changes of a share and of a ratio that are never unusual, however small the usual ones are.
LEAST_CHANGE: dict[Unit, float] = {"share": 0.01, "ratio": 0.05}


def is_unusual(day: date, metric: Metric, days: Mapping[date, DayMetrics]) -> bool:
    """Whether a day's change against the same weekday of the week before lies outside what is usual for that weekday.

    The baseline is the last 12 changes of the same weekday, each against the week before it, as far as they are known;
    with fewer than eight the answer is no. A change is unusual when it lies more than three interquartile ranges beyond
    the quartiles of the baseline. On ordinary days this flags one metric in 70 with eight weeks of baseline and one in
    160 with twelve (simulated: normal daily noise with a slow drift), and one odd day in the baseline changes little.

    A count is compared by the logarithm of its ratio, so that half weighs as much as double; a share and a ratio by
    their difference. Changes below three standard deviations of Poisson noise (counts), one percentage point (shares)
    or 0.05 (ratios) are never unusual, so a tiny app stays quiet.

    Args:
        day: the event date, one of `days`.
        metric: which column to look at.
        days: rows by day.
    """
    weeks = [day - back * WEEK for back in range(MOST_WEEKS + 2)]
    values = [_known(days.get(each, {}).get(metric.column)) for each in weeks]
    pairs = list(pairwise(values))
    now, *past = (_moved(*pair, metric.unit) for pair in pairs)
    usual = [each for each in past if each is not None]
    if now is None or len(usual) < LEAST_WEEKS:
        return False
    lower, middle, upper = quantiles(usual, n=4, method="inclusive")
    fence = FENCE * (upper - lower)
    chance = math.sqrt(sum(1 / (value + 1) for value in pairs[0] if value is not None))  # of a count's logarithm
    least = LEAST_CHANGE.get(metric.unit, FENCE * chance)
    return abs(now - middle) > least and not lower - fence <= now <= upper + fence


def _moved(value: float | None, before: float | None, unit: Unit) -> float | None:
    """How far a value moved, on the scale on which its changes are compared."""
    if value is None or before is None:
        return None
    return value - before if unit in LEAST_CHANGE else math.log((value + 1) / (before + 1))  # a count may be zero


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
