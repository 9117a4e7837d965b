"""Synthetic metrics of an app by bucket, with planted events. The detector is measured on them.

Each seed is another app. Level, daily and weekly seasonality, growth, noise, holidays, and what goes wrong before and
during the scored weeks are all random.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from pulse.metrics import BUCKET

Floats = np.ndarray[Any, np.dtype[np.float64]]

MINUTES = BUCKET // timedelta(minutes=1)
PER_DAY = timedelta(days=1) // BUCKET
WEEK = 7 * PER_DAY
KINDS = ("drop", "spike", "outage", "leak", "ratio", "slice", "shift", "late")


@dataclass(frozen=True)
class Event:
    """What goes wrong with a series from bucket `start` to `end`, `end` excluded."""

    series: str
    kind: str
    start: int
    end: int


@dataclass
class App:
    """The metrics of one app, one column per series, and the events planted in them after bucket `scored`."""

    seed: int
    index: pd.DatetimeIndex
    scored: int
    holidays: set[date]
    top: dict[str, Floats] = field(default_factory=dict)
    bottom: dict[str, Floats] = field(default_factory=dict)  # of the ratios
    events: list[Event] = field(default_factory=list)
    aside: dict[str, list[tuple[int, int]]] = field(
        default_factory=dict
    )  # an alert here counts as neither right nor wrong

    def history(self) -> pd.DataFrame:
        """The series."""
        return pd.DataFrame(self.top, self.index)

    def denominators(self) -> pd.DataFrame:
        """The denominator of each ratio."""
        return pd.DataFrame(self.bottom, self.index)


def make(seed: int, *, training_days: int = 36, scored_days: int = 28, groups: int = 3) -> App:
    """An app with several groups of series. A group: a total, two slices, two ratios each, an unrelated metric."""
    random = np.random.default_rng([20240301, seed])
    start = pd.Timestamp("2024-01-01") + pd.Timedelta(days=int(random.integers(365)))
    days = training_days + scored_days
    index = pd.date_range(start, periods=days * PER_DAY, freq=f"{MINUTES}min", unit="ns")
    app = App(seed, index, training_days * PER_DAY, _holidays(random, index, training_days))
    for group in range(groups):
        _group(app, random, f"{seed}.{group}")
    return app


def _holidays(random: np.random.Generator, index: pd.DatetimeIndex, training_days: int) -> set[date]:
    """One working day in the training period and one in the scored period."""
    days = [day for day in index[::PER_DAY].date if day.weekday() < 5]
    scored = index[training_days * PER_DAY].date()
    return {random.choice([day for day in days if (day < scored) == before]) for before in (True, False)}


def noise(random: np.random.Generator, size: int, memory: float, spread: float, tails: int = 0) -> Floats:
    """Autoregressive noise of that standard deviation; heavy-tailed (Student's t) if degrees of freedom are given."""
    fresh = random.standard_t(tails, size) * np.sqrt((tails - 2) / tails) if tails else random.normal(0, 1, size)
    fresh *= spread * np.sqrt(1 - memory**2)
    fresh[0] = random.normal(0, spread)
    made = np.empty(size)
    last = 0.0
    for number, step in enumerate(fresh):
        last = memory * last + step
        made[number] = last
    return made


def _shape(random: np.random.Generator, hours: Floats) -> Floats:
    """The seasonality of a day: one or two peaks, and a night that is more or less quiet."""
    evening, morning = random.uniform(17, 22), random.uniform(9, 14)

    def hump(at: float, width: float) -> Floats:
        away = np.abs((hours - at + 12) % 24 - 12)
        height: Floats = np.exp(-0.5 * (away / width) ** 2)
        return height

    day = hump(evening, random.uniform(2.5, 4.5)) + random.uniform(0, 0.9) * hump(morning, random.uniform(2, 4))
    shape: Floats = random.uniform(0.04, 0.4) + day / day.max()
    return shape


def _rhythm(app: App, random: np.random.Generator) -> Floats:
    """The expected level of every bucket, 1 on average over a week."""
    index = app.index
    hours = (index.hour + index.minute / 60).to_numpy(dtype=float)
    if random.random() < 0.3:
        hours = np.floor(hours)  # seasonality in steps
    working, weekend = _shape(random, hours), _shape(random, hours)
    mix = random.uniform(0, 1)
    weekend = (mix * weekend + (1 - mix) * working) * random.uniform(0.6, 1.4)
    factors = random.normal(1, 0.05, 7)
    weekday = index.day_of_week.to_numpy()
    holiday = np.isin(index.date, np.array(sorted(app.holidays)))
    free = (weekday >= 5) | holiday
    rhythm: Floats = np.where(free, weekend, working) * np.where(
        holiday, factors[6] * random.uniform(0.8, 1.1), factors[weekday]
    )
    growth = random.uniform(-0.03, 0.06)
    rhythm = rhythm * np.exp(growth * np.arange(len(index)) / WEEK)
    normal: Floats = rhythm / rhythm[:WEEK].mean()
    return normal


def _group(app: App, random: np.random.Generator, name: str) -> None:
    """A total, its two slices, a ratio of each, and one unrelated metric."""
    size = len(app.index)
    level, rhythm = float(10 ** random.uniform(0.5, 6)), _rhythm(app, random)
    calm, spread = random.uniform(0.2, 1.0), random.uniform(0, 0.03)
    wander = calm * random.uniform(0.01, 0.05)
    tails = int(random.choice([0, 0, 4]))
    together = noise(random, size, random.uniform(0.8, 0.99), wander, tails)
    daily = np.repeat(random.normal(0, calm * random.uniform(0, 0.03), size // PER_DAY), PER_DAY)
    share, rate = random.uniform(0.25, 0.75), 10 ** random.uniform(-1.3, -0.3)

    def slice_of(part: float) -> Floats:
        return level * part * rhythm * np.exp(together + daily + noise(random, size, 0.7, calm * 0.015))

    alone = float(10 ** random.uniform(0.5, 6)) * _rhythm(app, random)
    alone *= np.exp(noise(random, size, random.uniform(0.0, 0.98), wander, tails))
    means = {f"{name}.a": slice_of(share), f"{name}.b": slice_of(1 - share), f"{name}.alone": alone}
    hours = np.arange(size) / PER_DAY * 2 * np.pi
    rates = rate * np.exp(noise(random, size, 0.9, calm * random.uniform(0.005, 0.02)))
    rates *= 1 + random.uniform(0, 0.15) * np.sin(hours)
    means[f"{name}.rate"] = rates * (means[f"{name}.a"] + means[f"{name}.b"])

    factors: dict[str, Floats] = {key: np.ones(size) for key in means}
    _plant(app, random, name, factors, {key: _Seen(mean, np.hypot(wander, spread)) for key, mean in means.items()})
    app.top |= {
        f"{name}.{one}": _counts(random, means[f"{name}.{one}"] * factors[f"{name}.{one}"], spread)
        for one in ("a", "b", "alone")
    }
    total = app.top[f"{name}.a"] + app.top[f"{name}.b"]
    likes = random.binomial(total.astype(np.int64), np.clip(rates * factors[f"{name}.rate"], 0, 0.95)).astype(float)
    app.top |= {f"{name}.total": total, f"{name}.rate": likes, f"{name}.likes": likes}
    app.bottom[f"{name}.rate"] = total


def _counts(random: np.random.Generator, mean: Floats, spread: float) -> Floats:
    """Counts that vary a little more than a Poisson process's."""
    uneven = random.gamma(1 / spread**2, spread**2, len(mean)) if spread > 1e-3 else 1.0
    return random.poisson(mean * uneven).astype(float)


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """A metric as a reader sees it: its mean by bucket, and its standard deviation as a share of the mean."""

    mean: Floats
    noise: float

    def shows(self, at: int, factor: Floats) -> bool:
        """Whether somebody who knew the mean would see the change: 8 standard deviations in its clearest four hours."""
        mean = self.mean[at : at + len(factor)]
        best = 0.0
        for first in range(0, len(mean), 8):
            part, change = mean[first : first + 16], factor[first : first + 16]
            most = np.sqrt(part.sum() + (self.noise * part.sum()) ** 2)
            best = max(best, abs((part * (change[: len(part)] - 1)).sum()) / max(most, 1e-9))
        return best >= 8


def _plant(
    app: App, random: np.random.Generator, name: str, factors: dict[str, Floats], seen: dict[str, _Seen]
) -> None:
    """Plant events: unlabelled in the training period, labelled after it, none too small to be visible."""
    size = len(app.index)
    for _ in range(int(random.integers(0, 4))):
        at = int(random.integers(0, app.scored - PER_DAY))
        kind = str(random.choice(["drop", "spike", "outage", "shift", "day"], p=[0.3, 0.3, 0.3, 0.05, 0.05]))
        factor = _course(random, kind)
        if kind == "shift":
            factor = np.resize(factor, size)
        for key in random.choice(list(factors), 2, replace=False):
            if not (key.endswith("rate") and kind in ("outage", "day")):
                factors[key][at : at + len(factor)] *= factor[: size - at]
    for alone in (True, False):
        kinds = ["drop", "spike", "outage", "leak", *(["late", "late"] if alone else ["ratio", "slice"])]
        random.shuffle(kinds)
        if random.random() < 0.5:
            kinds = [*kinds[:5], "shift"]
        room = (size - app.scored) // len(kinds)
        for number, kind in enumerate(kinds):
            keys = {"ratio": ["rate"], "slice": ["a"]}.get(kind, ["alone"] if alone else ["a", "b"])
            for _ in range(20):
                factor = _course(random, kind)
                free = max(1, room - len(factor) - PER_DAY // 2)
                at = app.scored + number * room + int(random.integers(0, free))
                if kind == "shift":
                    factor = np.resize(factor, size - at)
                factor = factor[: size - at]
                if kind == "late" or all(seen[f"{name}.{key}"].shows(at, factor) for key in keys):
                    break
            else:
                continue
            if kind != "late":
                for key in keys:
                    factors[f"{name}.{key}"][at : at + len(factor)] *= factor
            labelled = [*keys, "total"] if keys == ["a", "b"] else keys
            app.events += [Event(f"{name}.{key}", kind, at, at + len(factor)) for key in labelled]
            for other in (
                () if alone else {"total", "likes", "rate"} - set(labelled) - ({"total"} if kind == "ratio" else set())
            ):
                app.aside.setdefault(f"{name}.{other}", []).append((at, at + len(factor)))


def _course(random: np.random.Generator, kind: str) -> Floats:
    """The factor that a metric is multiplied by while the event lasts."""
    length = int(random.uniform(1, 8) * 4)
    if kind in ("drop", "slice"):
        return np.full(length, 1 - random.uniform(0.15, 0.6))
    if kind == "ratio":
        return np.full(max(length, 8), 1 - random.uniform(0.15, 0.5))
    if kind == "spike":
        return np.full(max(2, length // 2), 1 + random.uniform(0.3, 1.5))
    if kind == "outage":
        return np.full(length, float(random.choice([0.0, 0.0, 0.05, 0.1])))
    if kind == "leak":
        ramp = np.linspace(0, 1, int(random.uniform(2, 16) * 4))
        return 1 - np.concatenate([ramp, np.ones(length)]) * random.uniform(0.3, 0.7)
    if kind == "day":
        return np.full(PER_DAY, 0.1)
    if kind == "late":
        return np.ones(int(random.integers(2, 13)))
    return np.full(PER_DAY, 1 + random.choice([-1, 1]) * random.uniform(0.2, 0.5))
