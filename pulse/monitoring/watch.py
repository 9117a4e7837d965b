"""Reads and checks `notebooks/monitoring/watch.toml`, which says what the monitoring watches."""

import tomllib
from collections.abc import Collection, Container, Mapping
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
    """`watch.toml` is wrong; the message names the entry and what to do."""


@dataclass(frozen=True)
class Watched:
    """A metric that is watched, its thresholds, and the owners whom alerts mention."""

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
    """A metric whose incidents are not sent until the end of a day: of one slice (`os: iOS`), or of all if empty."""

    metric: str
    slice: str
    until: date


@dataclass(frozen=True)
class Watch:
    """The checked content of `notebooks/monitoring/watch.toml`, whose comments explain the entries."""

    metrics: Mapping[str, Watched]
    least_share: float = 0.02
    most_alerts: int = 5
    resolve_after: int = 2
    reopen_hours: float = 2.0
    holidays: tuple[date, ...] = ()
    country: str = ""
    snoozes: tuple[Snooze, ...] = ()

    def is_holiday(self, day: date) -> bool:
        """Whether a day is listed, or is a public holiday of the country."""
        return day in self.holidays or (bool(self.country) and day in _public_holidays(self.country))

    def snoozed(self, series: Collection[Series], now: datetime) -> bool:
        """Whether all of these series are snoozed; an incident that no other series shows is not sent."""
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
        """The thresholds by metric."""
        return {name: watched.thresholds for name, watched in self.metrics.items()}


def load_watch(path: Path) -> Watch:
    """Read and check the file.

    Raises:
        WatchError: the file does not exist or is not TOML, or an entry is wrong.
    """
    try:
        entries = tomllib.loads(path.read_text())
    except OSError as error:
        raise WatchError(f"{path} cannot be read ({error.strerror}); restore it from git.") from None
    except tomllib.TOMLDecodeError as error:
        raise WatchError(f"{path.name} is not TOML: {error}; correct it.") from None
    try:
        metrics = {name: _watched(name, dict(entry)) for name, entry in entries.pop("metrics", {}).items()}
        snoozes = [
            Snooze(entry["metric"], entry.get("slice", ""), date.fromisoformat(str(entry["until"])))
            for entry in entries.pop("snooze", [])
        ]
        holidays = tuple(date.fromisoformat(str(day)) for day in entries.pop("holidays", []))
        watch = Watch(metrics, holidays=holidays, snoozes=tuple(snoozes), **entries)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise WatchError(
            f"{path.name} has a wrong or unknown entry: {error}; its comments say what is allowed."
        ) from None
    unknown = {snooze.metric for snooze in watch.snoozes} - set(metrics)
    shares = {name for watched in metrics.values() for name in (watched.of, watched.per) if name} - set(metrics)
    if not metrics:
        raise WatchError(f"{path.name} watches no metric; add a table such as [metrics.views].")
    if unknown or shares:
        wrong = ", ".join(sorted(unknown | shares))
        raise WatchError(
            f"{path.name} names metrics that it does not watch: {wrong}; add them under [metrics], or remove the names."
        )
    if watch.country:
        _public_holidays(watch.country)
    return watch


def _watched(name: str, entry: dict[str, Any]) -> Watched:
    """A metric from its table in the file.

    Raises:
        ValueError: it is not a metric of `metric_buckets`, nor a share of two of them.
    """
    metric = BY_COLUMN.get(name)
    bucketed = columns("metric_buckets")
    if metric is None or not (name in bucketed or {metric.of, metric.per} <= set(bucketed)):
        raise ValueError(f"{name} is not a metric of metric_buckets; pulse/metrics.py lists them")
    owners = tuple(entry.pop("owners", ()))
    return Watched(metric, thresholds=replace(Thresholds(), **entry), owners=owners)


@cache
def _public_holidays(country: str) -> Container[date]:
    import holidays  # takes a while to import, and most installations name no country

    try:
        return holidays.country_holidays(country)
    except NotImplementedError:
        raise WatchError(
            f"watch.toml: '{country}' is not a country whose holidays are known; use an ISO 3166 code such as RU."
        ) from None
