"""The simple rules that people use to find anomalies, for comparison with the detector."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pandas as pd

from benchmarks import metrics
from benchmarks.metrics import App
from pulse.monitoring.grid import Bools

Rule: TypeAlias = Callable[[App, float], Bools]
"""An app and a threshold in, alerts by scored bucket and series out."""


def ratios(app: App) -> pd.DataFrame:
    """The series with each ratio divided by its denominator, as the simple rules read them."""
    return app.history().assign(**{name: app.top[name] / np.maximum(app.bottom[name], 1) for name in app.bottom})


def percent(app: App, threshold: float) -> Bools:
    """Alert if a bucket differs from the same bucket of last week by more than a share."""
    values = ratios(app)
    off = (values / values.shift(metrics.WEEK) - 1).abs()
    return (off > threshold).to_numpy()[app.scored :]


def sigmas(app: App, threshold: float) -> Bools:
    """Alert at a number of standard deviations from the mean of this time of day over the last four weeks."""
    values = ratios(app).to_numpy()
    days = values.reshape(-1, metrics.PER_DAY, values.shape[1])
    back = min(28, app.scored // metrics.PER_DAY)
    alerts = []
    for day in range(app.scored // metrics.PER_DAY, len(days)):
        before = days[day - back : day]
        alerts.append(np.abs(days[day] - before.mean(axis=0)) > threshold * before.std(axis=0))
    return np.concatenate(alerts)


def weekday_sigmas(app: App, threshold: float) -> Bools:
    """Alert at a number of median absolute deviations from the median of this weekday and time over the last weeks."""
    values = ratios(app).to_numpy()
    weeks = min(5, app.scored // metrics.WEEK)
    before = np.stack([np.roll(values, metrics.WEEK * week, axis=0) for week in range(1, weeks + 1)])
    middle = np.median(before, axis=0)
    spread = 1.4826 * np.median(np.abs(before - middle), axis=0)
    alerts: Bools = np.abs(values - middle) > threshold * np.maximum(spread, 1e-9)
    return alerts[app.scored :]


BASELINES: dict[str, tuple[Rule, tuple[float, ...]]] = {
    "percent against last week": (percent, (0.3, 0.5, 0.75, 0.95, 1.5, 2.5, 4, 8)),
    "sigmas by time of day": (sigmas, (3, 4, 5, 7, 10, 15)),
    "robust sigmas by weekday and time": (weekday_sigmas, (3, 6, 10, 20, 50, 150, 500)),
}
