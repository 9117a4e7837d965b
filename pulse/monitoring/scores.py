"""The rule: scores how far the judged bucket, and the longer windows that end with it, are from what was expected."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pulse.monitoring.expectation import Histories, expected, middle_of_sorted
from pulse.monitoring.grid import Bools, Floats, Ints
from pulse.monitoring.references import LONGEST_WINDOW, Positions

WINDOWS = (1, 4, LONGEST_WINDOW)  # in buckets
SCORE_FACTORS = {1: 1.3, 4: 1.0, LONGEST_WINDOW: 1.25}  # by window, times the least score of the thresholds
EFFECT_FACTORS = {1: 4.25, 4: 3.25, LONGEST_WINDOW: 1.0}  # by window, times the least effect of the thresholds
SMALL = 0.5  # how much more a window must score if one event is expected; fades with the root of the expected count
SHOWN = 0.75  # share of a window's effect that its shorter windows must still show; else the deviation is over
LEAST_RESIDUALS = 8  # earlier windows that must be known before anything is judged
NORMAL_MAD = 1.4826  # standard deviations in a median absolute deviation, for a normal distribution
LEAST_SPREAD = 1e-3  # share of the expected value: the least standard deviation of values that are not counts
TINY = 1e-9  # instead of a division by zero


class Limits(NamedTuple):
    """The thresholds of one series on the judged day: the least score and the least effect of an anomaly."""

    score: float
    effect: float


class Scores(NamedTuple):
    """What the rule computes of the judged bucket: by window and series, the last four by series alone.

    Args:
        score: how far off the window is, in standard deviations.
        effect: how far off it is, as a share of what was expected.
        bar: how many times the least score this window needs.
        shows: whether the shorter windows still show the deviation.
        due: what the window should hold, at the level of the day before.
        low: the least of what it should hold, alternatives included.
        high: the most.
        spread: the standard deviation of earlier windows.
        value: what the judged bucket holds.
        expected: what it should hold, for a ratio per unit of its denominator.
        size: a ratio's denominator; 1 for other series.
        known: whether the bucket can be judged.
    """

    score: Floats
    effect: Floats
    bar: Floats
    shows: Bools
    due: Floats
    low: Floats
    high: Floats
    spread: Floats
    value: Floats
    expected: Floats
    size: Floats
    known: Bools


class WindowScores(NamedTuple):
    """The part of `Scores` that is computed window by window, by series.

    Args:
        residuals: how many earlier windows are known.
    """

    score: Floats
    effect: Floats
    spread: Floats
    due: Floats
    low: Floats
    high: Floats
    residuals: Ints


class SeriesScores(NamedTuple):
    """The `Scores` of one series: lists by window, the last four single values."""

    score: list[float]
    effect: list[float]
    bar: list[float]
    shows: list[bool]
    due: list[float]
    low: list[float]
    high: list[float]
    spread: list[float]
    value: float
    expected: float
    size: float
    known: bool


class Deviation(NamedTuple):
    """How far one series is off, in the window that shows it most.

    Args:
        score: in standard deviations.
        effect: as a share of what was expected.
        window: in buckets.
        surprise: how likely such a score is, in times the likelihood of an alert's least score; above 1 it is ordinary.
        lower: the least that the judged bucket may hold without an alert.
        upper: the most.
        value: what it holds.
        expected: what it should hold.
        known: whether it can be judged.
    """

    score: float
    effect: float
    window: int
    surprise: float
    lower: float
    upper: float
    value: float
    expected: float
    known: bool


def scores(histories: Histories, positions: Positions, per_hour: int, late: Floats) -> Scores:
    """Score series of one kind that have the same days of history.

    Args:
        histories: the series; the grid's last row is NaN.
        positions: where to look.
        per_hour: buckets an hour.
        late: by series, the share of the judged bucket that a lag may have kept back.
    """
    counts = histories.counts
    by_day, alternatives = expected(histories, positions, per_hour)
    value = histories.top[positions.judged]
    size = np.ones_like(value) if histories.bottom is None else histories.bottom[positions.judged]
    with np.errstate(invalid="ignore"):
        known = np.isfinite(value) & np.isfinite(by_day) & np.isfinite(size)
    now = value.shape[1] - 1 - per_hour
    held = np.where(known, value, 0.0)
    due = np.where(known, by_day * size, 0.0)
    dues = [due[:1], *(np.where(known[:1] & np.isfinite(each), each * size[:1], due[:1]) for each in alternatives)]
    # The share of the bucket that the lag may have kept back counts as if it had arrived, up to what is expected.
    held[0, now] = np.maximum(held[0, now], np.minimum(held[0, now] + late * due[0, now], due[0, now]))
    ends = np.arange(now - per_hour, now + per_hour + 1)
    least = counting_noise(histories, by_day[0, now])
    by_window = []
    for window in WINDOWS:
        past = _off(_sums(held[1:], ends, window), _sums(due[1:], ends, window), counts, window)
        enough = _sums(known[1:].astype(float), ends, window) >= window / 2
        past = np.where(enough, past, math.nan).reshape(-1, past.shape[2])
        held_now, *dues_now = (_sums(each, np.array([now]), window)[0, 0] for each in (held[:1], *dues))
        by_window.append(_window_scores(past, held_now, np.stack(dues_now), least, counts, window))
    score, effect, spread, due, low, high, residuals = (np.stack(each) for each in zip(*by_window, strict=True))
    return Scores(
        score=score,
        effect=effect,
        bar=_bars(due, counts),
        shows=_shows(effect),
        due=due,
        low=low,
        high=high,
        spread=spread,
        value=value[0, now],
        expected=by_day[0, now],
        size=size[0, now],
        known=known[0, now] & (residuals[0] >= LEAST_RESIDUALS),
    )


def counting_noise(histories: Histories, expected_now: Floats) -> Floats:
    """The least standard deviation of a window, by series, in units of the noise of counting.

    Counts vary at least as much as independent events do. A ratio's numerator is a part of its denominator, and varies
    less the larger a part it is.
    """
    if histories.bottom is None:
        return np.ones_like(expected_now)
    least: Floats = np.sqrt(np.clip(1 - expected_now, 0.04, 1))
    return least


def _bars(due: Floats, counts: bool) -> Floats:
    """How many times the least score each window needs; small counts need more."""
    bar: Floats = np.ones_like(due) * np.array([[SCORE_FACTORS[window]] for window in WINDOWS])
    if counts:
        bar *= 1 + SMALL / np.sqrt(due + 3 / 8)
    return bar


def _shows(effect: Floats) -> Bools:
    """Whether the shorter windows still show the effect of each window; if not, what it shows is over."""
    shows = np.ones_like(effect, dtype=bool)
    for number in range(1, len(effect)):
        still = effect[:number] * np.sign(effect[number]) >= abs(effect[number]) * SHOWN
        shows[number] = still.all(axis=0)
    return shows


def _sums(values: Floats, ends: Ints, window: int) -> Floats:
    """Sums of windows along the second axis, by their last buckets."""
    running = np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(values, axis=1)], axis=1)
    sums: Floats = running[:, ends + 1] - running[:, ends + 1 - window]
    return sums


def _off(held: Floats, due: Floats, counts: bool, window: int) -> Floats:
    """How far off a window is: for counts, in standard deviations of counting (Anscombe's transform); else a bucket."""
    if counts:
        deviates: Floats = 2 * (np.sqrt(held + 3 / 8) - np.sqrt(due + 3 / 8))
        return deviates
    per_bucket: Floats = (held - due) / window
    return per_bucket


def _window_scores(past: Floats, held: Floats, dues: Floats, least: Floats, counts: bool, window: int) -> WindowScores:
    """Score the judged window against earlier windows.

    Args:
        past: how far off each earlier window was; NaN where one is not known.
        held: what the judged window holds.
        dues: what it should hold, then the alternatives. Anything between them is not off at all.
        least: the least standard deviation of counts and ratios.
        counts: whether the series count events.
        window: in buckets.
    """
    residuals = np.isfinite(past).sum(axis=0)
    spread = NORMAL_MAD * middle_of_sorted(np.sort(np.abs(past), axis=0), residuals)
    spread = np.fmax(spread, least if counts else LEAST_SPREAD * np.abs(dues[0]) / window)
    spread = np.fmax(spread, TINY)
    due, low, high = dues[0], dues.min(axis=0), dues.max(axis=0)
    nearest = np.clip(held, low, high)
    effect = (held - nearest) / np.maximum(np.abs(due), TINY)
    return WindowScores(_off(held, nearest, counts, window) / spread, effect, spread, due, low, high, residuals)


def deviations(scored: Scores, limits: Sequence[Limits], counts: bool) -> list[Deviation]:
    """By series: the window that shows the largest deviation, and the expected range of the judged bucket."""
    columns = (np.moveaxis(each, -1, 0).tolist() for each in scored)
    by_series = (SeriesScores(*each) for each in zip(*columns, strict=True))
    return [_deviation(one, limit, counts) for one, limit in zip(by_series, limits, strict=True)]


def _deviation(one: SeriesScores, limit: Limits, counts: bool) -> Deviation:
    """The deviation of one series."""
    strengths = [
        abs(score) / bar if shows and abs(effect) > limit.effect * EFFECT_FACTORS[window] and one.known else 0.0
        for window, score, effect, bar, shows in zip(WINDOWS, one.score, one.effect, one.bar, one.shows, strict=True)
    ]
    position = max(range(len(strengths)), key=strengths.__getitem__)
    surprise = _tail(strengths[position]) / _tail(limit.score) if strengths[position] > 0 else math.inf
    position = position if surprise <= 1 else 0
    window, due = WINDOWS[position], one.due[position]
    margin, least = limit.score * one.bar[position] * one.spread[position], limit.effect * EFFECT_FACTORS[window]
    lower, upper = _range(one.low[position], one.high[position], margin, least, counts, window)
    if counts:
        share = one.expected / due if due > 0 else 1 / one.size
        lower, upper = lower * share, upper * share
    value = one.value / one.size
    return Deviation(
        one.score[position], one.effect[position], window, surprise, lower, upper, value, one.expected, one.known
    )


def _tail(score: float) -> float:
    """How likely a normal deviate is to be at least that far from 0, on either side."""
    return math.erfc(min(score, 35.0) / math.sqrt(2))


def _range(low: float, high: float, margin: float, least: float, counts: bool, window: int) -> tuple[float, float]:
    """The least and the most that a window may hold without an alert; for values that are not counts, per bucket.

    Args:
        low: the least of what it should hold.
        high: the most.
        margin: how far off it may be, in the unit of `_off`.
        least: how far off it may be, as a share.
        counts: whether the series counts events.
        window: in buckets.
    """
    if not counts:
        low, high = low / window, high / window
        return low - max(margin, least * abs(low)), high + max(margin, least * abs(high))
    root = max(math.sqrt(low + 3 / 8) - margin / 2, math.sqrt(3 / 8))
    lower = min(root**2 - 3 / 8, low * (1 - least))
    upper = (math.sqrt(high + 3 / 8) + margin / 2) ** 2 - 3 / 8
    return max(lower, 0.0), max(upper, high * (1 + least))
