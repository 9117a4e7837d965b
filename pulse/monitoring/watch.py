"""What is watched: `notebooks/monitoring/watch.toml`, checked."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pulse import PulseError
from pulse.metrics import BY_COLUMN, Metric, columns
from pulse.monitoring.detector import Thresholds
from pulse.monitoring.series import Series


class WatchError(PulseError):
    """The file that says what is watched is wrong; the text names the entry and what was expected."""


@dataclass(frozen=True)
class Watched:
    """A metric that is watched: its names, how sensitive the monitoring is, and who is told by name."""

    metric: Metric
    thresholds: Thresholds = field(default_factory=Thresholds)
    owners: tuple[str, ...] = ()

    @property
    def of(self) -> str:
        """The numerator of a share; empty for a count."""
        return self.metric.of

    @property
    def per(self) -> str:
        """The denominator of a share; empty for a count."""
        return self.metric.per


class Snooze(NamedTuple):
    """A metric of which nothing is told until a day is over: of one slice (`os: iOS`), or of all where it is empty."""

    metric: str
    slice: str
    until: date


@dataclass(frozen=True)
class Watch:
    """`notebooks/monitoring/watch.toml`, checked; what its entries mean stands there."""

    metrics: Mapping[str, Watched]
    least_share: float = 0.02
    most_alerts: int = 5
    resolve_after: int = 2
    reopen_hours: float = 2.0
    holidays: tuple[date, ...] = ()
    country: str = ""
    snoozes: tuple[Snooze, ...] = ()

    def is_holiday(self, day: date) -> bool:
        """Whether a day is one of the listed ones or a public holiday of the country."""
        return day in self.holidays or (bool(self.country) and day in _public_holidays(self.country))

    def snoozed(self, series: Collection[Series], now: datetime) -> bool:
        """Whether all of these series are snoozed: nothing is told of an incident that shows no other."""
        silent = [snooze for snooze in self.snoozes if now.date() <= snooze.until]
        return bool(series) and all(
            any(
                each.metric == snooze.metric and snooze.slice in ("", f"{each.dimension}: {each.dimension_value}")
                for snooze in silent
            )
            for each in series
        )

    @property
    def thresholds(self) -> dict[str, Thresholds]:
        """Each metric's."""
        return {name: watched.thresholds for name, watched in self.metrics.items()}


def load_watch(path: Path) -> Watch:
    """Read what is watched.

    Raises:
        WatchError: there is no such file, it is not TOML, or an entry is wrong.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise WatchError(f"{path} cannot be read ({error.strerror}); restore it.") from None
    except tomllib.TOMLDecodeError as error:
        raise WatchError(f"{path.name} is not TOML: {error}; correct it.") from None
    try:
        metrics = {name: _watched(name, dict(entry)) for name, entry in found.pop("metrics", {}).items()}
        snoozes = [
            Snooze(entry["metric"], entry.get("slice", ""), date.fromisoformat(str(entry["until"])))
            for entry in found.pop("snooze", [])
        ]
        holidays = tuple(date.fromisoformat(str(day)) for day in found.pop("holidays", []))
        watch = Watch(metrics, holidays=holidays, snoozes=tuple(snoozes), **found)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise WatchError(
            f"{path.name} has an entry that is wrong or unknown: {error}; its comments say what it takes."
        ) from None
    unknown = {snooze.metric for snooze in watch.snoozes} - set(metrics)
    shares = {name for watched in metrics.values() for name in (watched.of, watched.per) if name} - set(metrics)
    if not metrics or unknown or shares:
        wrong = ", ".join(sorted(unknown | shares)) or "no metric at all"
        raise WatchError(f"{path.name} names what it does not watch: {wrong}; add it under [metrics], or take it out.")
    if watch.country:
        _public_holidays(watch.country)
    return watch


def _watched(name: str, entry: dict[str, Any]) -> Watched:
    metric = BY_COLUMN.get(name)
    bucketed = columns("metric_buckets")
    if metric is None or not (name in bucketed or {metric.of, metric.per} <= set(bucketed)):
        raise ValueError(f"{name} is not a metric of metric_buckets; pulse/metrics.py lists them")
    owners = tuple(entry.pop("owners", ()))
    return Watched(metric, thresholds=replace(Thresholds(), **entry), owners=owners)


@cache
def _public_holidays(country: str) -> Any:
    import holidays

    try:
        return holidays.country_holidays(country)
    except NotImplementedError:
        raise WatchError(
            f"watch.toml: '{country}' is no country whose holidays are known; give one such as RU."
        ) from None
