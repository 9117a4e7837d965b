"""Measures the detector of anomalies on made-up metrics, beside the rules that people use. Prints tables.

    python -m benchmarks.anomalies [--scale 0.1] [--taxis nyc_taxi.csv]

The metrics are those of `benchmarks.metrics`, from seeds that no threshold was chosen by (`--tuning` shows those that
it was). Events are found where there is an alert while they last; alerts within an hour are one false alarm. `--taxis`
takes the taxi rides of the Numenta Anomaly Benchmark (github.com/numenta/NAB, data/realKnownCause/nyc_taxi.csv), which
may not be copied here; without them a stand-in is measured.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from benchmarks import metrics
from benchmarks.metrics import App
from benchmarks.tables import Figure, goals, progress, table
from pulse.monitoring import detector
from pulse.monitoring.detector import ALL, Parts

Bools = np.ndarray[Any, np.dtype[np.bool_]]

TUNING, SCORING = tuple(range(6)), tuple(range(600, 606))
WEEKS = 6.5  # of history that are handed to the detector at each tick
AFTER = 4  # buckets after an event in which an alert is not held against anybody
SCORED_DAYS, GROUPS = 21, 3
ARRIVED = 0.3  # of the first bucket of those that are late

ALONE = replace(ALL, together=False)  # as `judge` judges: every series for itself
ABLATION: dict[str, Parts] = {
    "all parts": ALONE,
    "… one bucket alone": replace(ALONE, windows=(1,)),
    "… 16 buckets alone": replace(ALONE, windows=(16,)),
    "… references as they are": replace(ALONE, scaled=False),
    "… no return to last week's level": replace(ALONE, returning=False),
    "… holidays as Sundays only": replace(ALONE, others=False),
    "… longer windows as they are": replace(ALONE, recovery=False),
    "… no noise of counting": replace(ALONE, floor=False),
    "… small counts as large ones": replace(ALONE, small=False),
    "… few days as enough": replace(ALONE, few=False),
    "all parts, series of a tick together": ALL,
}


@dataclass
class Score:
    """How a rule did."""

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
        """The delay in buckets that this share of the events found stays within."""
        every = [delay for kind, delays in self.delays.items() for delay in delays if not kinds or kind in kinds]
        return float(np.percentile(every, 100 * share)) if every else float("nan")


# --- the rules --------------------------------------------------------------------------------------------------------


def detected(app: App, score: Score, parts: Parts) -> Bools:
    """Alerts of the detector by scored bucket and series, tick by tick; and how it took late data."""
    history, denominators = app.history(), app.denominators()
    kinds = dict.fromkeys(app.bottom, "ratio")
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
            parts=parts,
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
    """What a tick sees of a series that is late: part of one bucket, then zeros or nothing. With the lag in minutes."""
    seen = seen.copy()
    place, since = seen.columns.get_loc(event.series), tick - event.start
    seen.iloc[-1 - since, place] = np.floor(seen.iloc[-1 - since, place] * ARRIVED)
    seen.iloc[len(seen) - since :, place] = 0.0 if event.start % 2 else np.nan
    return seen, (since + 1 - ARRIVED) * metrics.MINUTES


def ratios(app: App) -> pd.DataFrame:
    """The series with ratios divided: what the simple rules look at."""
    return app.history().assign(**{name: app.top[name] / np.maximum(app.bottom[name], 1) for name in app.bottom})


def percent(app: App, threshold: float) -> Bools:
    """So many percent off the same bucket of last week."""
    values = ratios(app)
    off = (values / values.shift(metrics.WEEK) - 1).abs()
    return (off > threshold).to_numpy()[app.scored :]


def sigmas(app: App, threshold: float) -> Bools:
    """So many standard deviations off the mean of this time of day, over the four weeks before."""
    values = ratios(app).to_numpy()
    days = values.reshape(-1, metrics.PER_DAY, values.shape[1])
    back = min(28, app.scored // metrics.PER_DAY)
    alerts = []
    for day in range(app.scored // metrics.PER_DAY, len(days)):
        before = days[day - back : day]
        alerts.append(np.abs(days[day] - before.mean(axis=0)) > threshold * before.std(axis=0))
    return np.concatenate(alerts)


def weekday_sigmas(app: App, threshold: float) -> Bools:
    """The same by weekday and time, robust: off the median of the weeks before, by their median absolute deviation."""
    values = ratios(app).to_numpy()
    weeks = min(5, app.scored // metrics.WEEK)
    before = np.stack([np.roll(values, metrics.WEEK * week, axis=0) for week in range(1, weeks + 1)])
    middle = np.median(before, axis=0)
    spread = 1.4826 * np.median(np.abs(before - middle), axis=0)
    return (np.abs(values - middle) > threshold * np.maximum(spread, 1e-9))[app.scored :]


BASELINES: dict[str, tuple[Callable[[App, float], Bools], tuple[float, ...]]] = {
    "percent against last week": (percent, (0.3, 0.5, 0.75, 0.95, 1.5, 2.5, 4, 8)),
    "sigmas by time of day": (sigmas, (3, 4, 5, 7, 10, 15)),
    "robust sigmas by weekday and time": (weekday_sigmas, (3, 6, 10, 20, 50, 150, 500)),
}


# --- the scores -------------------------------------------------------------------------------------------------------


def count(app: App, alerts: Bools, score: Score) -> None:
    """Add what the alerts found, and what they claimed, to a score."""
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


def measure(app: App, parts: Parts = ALONE) -> Score:
    """The detector's score on one app."""
    score = Score()
    count(app, detected(app, score, parts), score)
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


def measure_rule(apps: list[App], rule: Callable[[App, float], Bools], threshold: float) -> Score:
    """A simple rule's score."""
    score = Score()
    for app in apps:
        count(app, rule(app, threshold), score)
    return score


def quiet_enough(apps: list[App], rule: Callable[[App, float], Bools], thresholds: tuple[float, ...]) -> float:
    """The first threshold that gives no more false alarms than the detector may, or the last."""
    for threshold in thresholds:
        if measure_rule(apps, rule, threshold).per_week <= 0.10:
            return threshold
    return thresholds[-1]


# --- half a year of taxis ---------------------------------------------------------------------------------------------


TAXI_HOLIDAYS = {
    date(2014, 7, 4), date(2014, 9, 1), date(2014, 10, 13), date(2014, 11, 11), date(2014, 11, 27),
    date(2014, 12, 25), date(2015, 1, 1), date(2015, 1, 19),
}  # fmt: skip
TAXI_EVENTS = {  # what is known to have happened, and the days around it in which an alert is no false one
    "marathon": (date(2014, 10, 31), date(2014, 11, 3)),
    "Thanksgiving": (date(2014, 11, 26), date(2014, 11, 30)),
    "Christmas": (date(2014, 12, 23), date(2014, 12, 28)),
    "New Year": (date(2014, 12, 29), date(2015, 1, 3)),
    "blizzard": (date(2015, 1, 25), date(2015, 1, 29)),
}


def taxis(seed: int) -> pd.Series:
    """A stand-in for the taxi rides of New York by half-hour, July 2014 to January 2015: level, rhythm, weather, the
    five known events.
    """
    random = np.random.default_rng([2014, seed])
    index = pd.date_range("2014-07-01", "2015-01-31 23:30", freq="30min")
    hours, weekday = (index.hour + index.minute / 60).to_numpy(), index.day_of_week.to_numpy()
    free = (weekday >= 5) | np.isin(index.date, list(TAXI_HOLIDAYS))
    working = np.interp(hours, [0, 4.5, 6, 8.5, 14, 16.5, 19, 22, 24], [11, 2.2, 5, 20, 19, 14.5, 26, 22, 11])
    leisure = np.interp(hours, [0, 3, 6, 9, 13, 19, 23, 24], [18, 9, 2.6, 7, 14, 17, 19, 18])
    rides = 1000 * np.where(free, leisure, working) * (1 + 0.03 * (weekday - 3) * ~free)
    rides *= np.exp(metrics.noise(random, len(index), 0.8, 0.03) + metrics.noise(random, len(index), 0.995, 0.04))
    for _ in range(60):  # rain, for a few hours
        at, lasts = int(random.integers(len(index))), int(random.integers(4, 16))
        rides[at : at + lasts] *= 1 + random.normal(0, 0.08)

    def change(start: str, end: str, factor: float) -> None:
        rides[(index >= start) & (index < end)] *= factor

    change("2014-11-02 01:00", "2014-11-02 02:00", 2.0)  # the hour that came twice
    change("2014-11-02 09:00", "2014-11-02 17:00", 1.2)
    change("2014-11-27 06:00", "2014-11-28 00:00", 0.65)
    change("2014-12-24 18:00", "2014-12-26 06:00", 0.5)
    change("2014-12-31 22:00", "2015-01-01 04:00", 1.7)
    change("2015-01-01 06:00", "2015-01-01 22:00", 0.75)
    change("2015-01-26 14:00", "2015-01-27 12:00", 0.15)
    return pd.Series(random.poisson(rides).astype(float), index)


Taxis: TypeAlias = tuple[int, int]  # how many of the five events are found, how many false alarms there are


def judge_taxis(rides: pd.Series, parts: Parts = ALL) -> Taxis:
    """How many of the five events are found, and how many false alarms there are (alerts within a day are one)."""
    history, first = rides.to_frame("rides"), int(6 * metrics.WEEK / 2)
    found, others = set(), []
    for end in range(first + 1, len(rides) + 1):
        seen = history.iloc[max(0, end - 2400) : end]
        if not detector.judge_tick(seen, is_holiday=TAXI_HOLIDAYS, parts=parts)["rides"].is_anomaly:
            continue
        alert = seen.index[-1]
        of = [name for name, (start, end) in TAXI_EVENTS.items() if start <= alert.date() <= end]
        found.update(of)
        if not of and (not others or alert - others[-1] > timedelta(days=1)):
            others.append(alert)
    return len(found), len(others)


# --- the figures ------------------------------------------------------------------------------------------------------


HEADING = ("rule", "recall", "false alarms", "F1", "delay: median", "90 %", "leaks", "µs")


def line(name: str, score: Score) -> tuple[str, ...]:
    """A rule's line: shares, false alarms per metric and week, delays in buckets, cost per verdict."""
    delays = [f"{value:.0f}" for value in (score.delay(0.5), score.delay(0.9), score.delay(0.5, "leak"))]
    cost = f"{1e6 * score.seconds / score.verdicts:.0f}" if score.verdicts else ""
    return name, f"{score.recall:.3f}", f"{score.per_week:.3f}", f"{score.f1:.3f}", *delays, cost


def compare(apps: list[App], tuning: list[App], ours: Score) -> Iterator[tuple[str, ...]]:
    """The detector's line, and those of the simple rules: as people set them, and set to be as quiet."""
    yield HEADING
    yield line("the detector", ours)
    for name, (rule, thresholds) in BASELINES.items():
        usual, quiet = thresholds[0], quiet_enough(tuning, rule, thresholds)
        yield line(f"{name}, {usual:g}", measure_rule(apps, rule, usual))
        yield line(f"… set to be quiet, {quiet:g}", measure_rule(apps, rule, quiet))


def ablation(results: dict[str, tuple[Score, Score, Taxis | None]]) -> Iterator[tuple[str, ...]]:
    """What is lost by every part that is left out: on some of the apps, with 14 days of history, on the taxis."""
    yield "rule", "recall", "false alarms", "leaks", "14 days: recall", "false alarms", "taxis: false alarms"
    for name, (whole, short, taxi) in results.items():
        of_short = (f"{short.recall:.3f}", f"{short.per_week:.3f}")
        of_taxis = "" if taxi is None else str(taxi[1]) if taxi[0] == 5 else f"{taxi[1]}, {taxi[0]} of 5 found"
        leaks = f"{whole.delay(0.5, 'leak'):.0f}"
        yield name, f"{whole.recall:.3f}", f"{whole.per_week:.3f}", leaks, *of_short, of_taxis


def by_kind(score: Score) -> Iterator[tuple[str, ...]]:
    """What was found of each kind of event."""
    yield "event", "found", "of", "delay: median", "90 %"
    for kind in sorted(score.planted):
        delays = [f"{score.delay(share, kind):.0f}" for share in (0.5, 0.9)]
        yield kind, str(score.found[kind]), str(score.planted[kind]), *delays


def tick_seconds(series: int) -> float:
    """Seconds of a tick over so many series of five weeks, the best of three."""
    index = pd.date_range("2024-03-01", periods=5 * metrics.WEEK, freq="15min")
    mean = 500 + 400 * np.sin(np.arange(len(index)) / metrics.PER_DAY * 2 * np.pi)
    counts = np.random.default_rng(1).poisson(mean[:, None], (len(index), series)).astype(float)
    history = pd.DataFrame(counts, index, columns=[f"metric {number}" for number in range(series)])
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        detector.judge_tick(history)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def judge_milliseconds() -> float:
    """Milliseconds of the processor for the verdict on one series, in the middle of a hundred."""
    app = metrics.make(TUNING[0], groups=1)
    history = app.history().iloc[:, 0]
    taken = []
    for end in range(len(history) - 100, len(history)):
        started = time.process_time()
        detector.judge(history.iloc[:end])
        taken.append(1000 * (time.process_time() - started))
    return float(np.median(taken))


def figures(ours: Score, short: Score, taxi: Taxis | None, which: str, series: int) -> Iterator[Figure]:
    """What is to be reached."""
    yield Figure("events found", f"{ours.recall:.3f}", "≥ 0.97", ours.recall >= 0.97)
    yield Figure("false alarms per metric-week", f"{ours.per_week:.3f}", "≤ 0.10", ours.per_week <= 0.10)
    yield Figure("delay, median", f"{ours.delay(0.5):.0f} buckets", "0", ours.delay(0.5) == 0)
    yield Figure("delay, 90 % within", f"{ours.delay(0.9):.0f} buckets", "≤ 12", ours.delay(0.9) <= 12)
    leaks = ours.delay(0.5, "leak")
    yield Figure("delay of slow leaks, median", f"{leaks:.0f} buckets", "≤ 12", leaks <= 12)
    yield Figure("late data told as late", f"{ours.late_told} of {ours.late}", "all", ours.late_told == ours.late)
    yield Figure("late data told as a drop", str(ours.late_as_drop), "0", ours.late_as_drop == 0)
    yield Figure("14 days of history: events found", f"{short.recall:.3f}", "≥ 0.95", short.recall >= 0.95)
    yield Figure("… false alarms per metric-week", f"{short.per_week:.3f}", "≤ 0.20", short.per_week <= 0.20)
    if taxi:
        found, false = taxi
        yield Figure(f"{which}: events found", f"{found} of 5", "5", found == 5)
        yield Figure("… false alarms in six months", str(false), "≤ 2", false <= 2)
    seconds = tick_seconds(series)
    yield Figure(f"a tick over {series:,} series", f"{seconds:.2f} s", "≤ 0.5 s", seconds <= 0.5)
    milliseconds = judge_milliseconds()
    yield Figure("a verdict on one series", f"{milliseconds:.1f} ms", "≤ 3 ms", milliseconds <= 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anomalies", description="Measure the detector.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the weeks that are scored; 0.1 for a quick look")
    parser.add_argument("--tuning", action="store_true", help="score the seeds that the thresholds were chosen by")
    parser.add_argument("--taxis", help="the file of New York's taxi rides: columns timestamp and value")
    arguments = parser.parse_args()
    rides = arguments.taxis and pd.read_csv(arguments.taxis, index_col="timestamp", parse_dates=True)["value"]
    days = max(3, round(SCORED_DAYS * arguments.scale))
    groups = max(1, round(GROUPS * arguments.scale))
    seeds, others = (TUNING, SCORING) if arguments.tuning else (SCORING, TUNING)
    seeds, others = (some[: max(1, round(len(some) * arguments.scale))] for some in (seeds, others))

    def apps(seeds: tuple[int, ...], days: int, training_days: int = 36) -> list[App]:
        return [metrics.make(seed, training_days=training_days, scored_days=days, groups=groups) for seed in seeds]

    scored, short_scored = apps(seeds, days), apps(seeds, days, 14)
    which = "taxis (a stand-in)" if rides is None else "taxis of New York"
    rides = taxis(seeds[0]) if rides is None and arguments.scale >= 1 else rides
    some = max(1, len(seeds) // 3)
    with ProcessPoolExecutor() as pool:
        progress("scoring the detector")
        running = [pool.submit(measure, app) for app in scored]
        running_short = [pool.submit(measure, app) for app in short_scored]

        def on_some(apps: list[App], with_all: list[Future[Score]], parts: Parts) -> list[Future[Score]]:
            if parts is ALONE:  # as they are scored already
                return with_all[:some]
            return [pool.submit(measure, app, parts) for app in apps[:some]]

        running_parts = {
            name: (
                on_some(scored, running, parts),
                on_some(short_scored, running_short, parts),
                None if rides is None else pool.submit(judge_taxis, rides, parts),
            )
            for name, parts in ABLATION.items()
        }
        ours = together(done.result() for done in running)
        progress("with 14 days of history")
        short = together(done.result() for done in running_short)
        progress("its parts")
        parts = {
            name: (
                together(one.result() for one in whole),
                together(one.result() for one in few),
                taxi and taxi.result(),
            )
            for name, (whole, few, taxi) in running_parts.items()
        }
    progress("the simple rules")
    rules = list(compare(scored, apps(others, days), ours))
    rules.insert(2, line("… with 14 days of history", short))
    progress("speed")
    reached = list(figures(ours, short, parts["all parts"][2], which, int(1000 * arguments.scale)))
    print(f"{len(scored)} apps of {len(scored[0].top)} metrics, {days} days scored. False alarms are per metric-week,")
    print("delays are in buckets of 15 minutes\n")
    print("\n\n".join([goals(reached), table(rules), table(list(by_kind(ours))), table(list(ablation(parts)))]))


if __name__ == "__main__":
    main()
