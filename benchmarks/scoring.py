"""Scores rules on the synthetic metrics: what they find, how late, and how often they are wrong.

An event counts as found if an alert comes while it lasts. False alerts within an hour count as one false alarm.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from benchmarks import metrics
from benchmarks.ablation import ALONE, left_out
from benchmarks.metrics import App
from benchmarks.simple_rules import Rule
from pulse.monitoring import detector
from pulse.monitoring.detector import Kind
from pulse.monitoring.grid import Bools

WEEKS = 6.5  # of history that the detector gets at each tick
AFTER = 4  # buckets after an event in which an alert is not counted as false
ARRIVED = 0.3  # share of its first late bucket that has arrived when a series is late


@dataclass
class Score:
    """What a rule found, and how often it was wrong."""

    found: dict[str, int] = field(default_factory=dict)
    planted: dict[str, int] = field(default_factory=dict)
    delays: dict[str, list[int]] = field(default_factory=dict)
    false_alarms: int = 0
    weeks: float = 0.0
    late: int = 0
    late_told: int = 0
    late_as_drop: int = 0
    seconds: float = 0.0
    verdicts: int = 0

    @property
    def recall(self) -> float:
        return sum(self.found.values()) / max(1, sum(self.planted.values()))

    @property
    def per_week(self) -> float:
        return self.false_alarms / max(self.weeks, 1e-9)

    @property
    def f1(self) -> float:
        precision = sum(self.found.values()) / max(1, sum(self.found.values()) + self.false_alarms)
        return 2 * precision * self.recall / max(1e-9, precision + self.recall)

    def delay(self, share: float, *kinds: str) -> float:
        """The delay, in buckets, within which this share of the found events was found."""
        every = [delay for kind, delays in self.delays.items() for delay in delays if not kinds or kind in kinds]
        return float(np.percentile(every, 100 * share)) if every else float("nan")


def detected(app: App, score: Score) -> Bools:
    """The detector's alerts by scored bucket and series, tick by tick. Also scores how it judges late data."""
    history, denominators = app.history(), app.denominators()
    kinds: dict[str, Kind] = dict.fromkeys(app.bottom, "ratio")
    alerts = np.zeros((len(history) - app.scored, history.shape[1]), dtype=bool)
    rows = int(WEEKS * metrics.WEEK)
    late = [event for event in app.events if event.kind == "late"]
    for tick in range(app.scored, len(history)):
        part = slice(max(0, tick + 1 - rows), tick + 1)
        seen, lags = history.iloc[part], {}
        for event in (event for event in late if event.start <= tick < event.end):
            seen, lags[event.series] = behind(seen, event, tick)
        started = time.perf_counter()
        verdicts = detector.judge_tick(
            seen,
            denominators=denominators.iloc[part],
            kinds=kinds,
            lag_minutes=lags,
            is_holiday=app.holidays,
        )
        score.seconds += time.perf_counter() - started
        score.verdicts += len(verdicts)
        alerts[tick - app.scored] = [verdict.is_anomaly for verdict in verdicts.values()]
        for name, lag in lags.items():
            score.late += lag >= metrics.MINUTES
            score.late_told += lag >= metrics.MINUTES and verdicts[name].kind == "data_lag"
            score.late_as_drop += verdicts[name].kind == "drop"
    return alerts


def behind(seen: pd.DataFrame, event: metrics.Event, tick: int) -> tuple[pd.DataFrame, float]:
    """What a tick sees of a late series: part of one bucket, then zeros or nothing.

    Returns:
        The history, and the lag in minutes.
    """
    values = seen.to_numpy(dtype=float, copy=True)
    position, since = list(seen.columns).index(event.series), tick - event.start
    values[-1 - since, position] = np.floor(values[-1 - since, position] * ARRIVED)
    values[len(values) - since :, position] = 0.0 if event.start % 2 else np.nan
    return pd.DataFrame(values, seen.index, seen.columns), (since + 1 - ARRIVED) * metrics.MINUTES


def count(app: App, alerts: Bools, score: Score) -> None:
    """Add the found events and the false alarms to a score."""
    names = list(app.top)
    free = np.ones_like(alerts)
    for event in app.events:
        if event.kind == "late":
            continue
        column, start, end = names.index(event.series), event.start - app.scored, event.end - app.scored
        hits = np.flatnonzero(alerts[start:end, column])
        score.planted[event.kind] = score.planted.get(event.kind, 0) + 1
        score.found[event.kind] = score.found.get(event.kind, 0) + bool(len(hits))
        score.delays.setdefault(event.kind, []).extend(hits[:1].tolist())
        free[start : end + AFTER, column] = False
    for name, spans in app.aside.items():
        for start, end in spans:
            free[start - app.scored : end - app.scored + AFTER, names.index(name)] = False
    score.weeks += free.sum() / metrics.WEEK
    for column in (alerts & free).T:
        at = np.flatnonzero(column)
        score.false_alarms += len(at) and 1 + int((np.diff(at) > 4).sum())


def measure(app: App, ablation: str = ALONE) -> Score:
    """The detector's score on one app.

    Args:
        app: the metrics and the events planted in them.
        ablation: a key of `ABLATIONS`.
    """
    score = Score()
    with left_out(ablation):
        count(app, detected(app, score), score)
    return score


def together(scores: Iterable[Score]) -> Score:
    """The score on several apps."""
    whole = Score()
    for score in scores:
        for name, value in vars(score).items():
            so_far = getattr(whole, name)
            if isinstance(value, dict):
                so_far |= {kind: so_far[kind] + value[kind] if kind in so_far else value[kind] for kind in value}
            else:
                setattr(whole, name, so_far + value)
    return whole


def measure_rule(apps: list[App], rule: Rule, threshold: float) -> Score:
    """The score of a simple rule."""
    score = Score()
    for app in apps:
        count(app, rule(app, threshold), score)
    return score


def quiet_enough(apps: list[App], rule: Rule, thresholds: tuple[float, ...]) -> float:
    """The first threshold with no more false alarms than the detector is allowed, otherwise the last."""
    for threshold in thresholds:
        if measure_rule(apps, rule, threshold).per_week <= 0.10:
            return threshold
    return thresholds[-1]
