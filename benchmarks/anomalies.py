"""Measures the anomaly detector on synthetic metrics, beside the simple rules that people use. Prints tables.

    python -m benchmarks.anomalies [--scale 0.1] [--taxis nyc_taxi.csv]

The metrics come from `benchmarks.metrics`, with seeds that no threshold was tuned on; `--tuning` uses the seeds that
the thresholds were tuned on. `--taxis` takes the taxi rides of the Numenta Anomaly Benchmark (github.com/numenta/NAB,
data/realKnownCause/nyc_taxi.csv), whose licence forbids a copy here; without the file a stand-in is measured.
"""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import pandas as pd

from benchmarks import metrics, taxis
from benchmarks.ablation import ABLATIONS, ALONE
from benchmarks.metrics import App
from benchmarks.scoring import Score, measure, measure_rule, quiet_enough, together
from benchmarks.simple_rules import BASELINES
from benchmarks.tables import Figure, goals, progress, table
from pulse.metrics import BUCKET
from pulse.monitoring import detector

TUNING, SCORING = tuple(range(6)), tuple(range(600, 606))
SCORED_DAYS, GROUPS = 21, 3

HEADING = ("rule", "recall", "false alarms", "F1", "delay: median", "90 %", "leaks", "µs")


def line(name: str, score: Score) -> tuple[str, ...]:
    """A rule's row in the table under `HEADING`. False alarms are per metric and week, delays in buckets."""
    delays = [f"{value:.0f}" for value in (score.delay(0.5), score.delay(0.9), score.delay(0.5, "leak"))]
    cost = f"{1e6 * score.seconds / score.verdicts:.0f}" if score.verdicts else ""
    return name, f"{score.recall:.3f}", f"{score.per_week:.3f}", f"{score.f1:.3f}", *delays, cost


def compare(apps: list[App], tuning: list[App], ours: Score) -> Iterator[tuple[str, ...]]:
    """The rows of the detector and of the simple rules, at their usual threshold and at one with few false alarms."""
    yield HEADING
    yield line("the detector", ours)
    for name, (rule, thresholds) in BASELINES.items():
        usual, quiet = thresholds[0], quiet_enough(tuning, rule, thresholds)
        yield line(f"{name}, {usual:g}", measure_rule(apps, rule, usual))
        yield line(f"… set to be quiet, {quiet:g}", measure_rule(apps, rule, quiet))


def ablations(results: dict[str, tuple[Score, Score, taxis.Result | None]]) -> Iterator[tuple[str, ...]]:
    """What the rule finds when each part is left out: on some apps, with 14 days of history, and on the taxi rides."""
    yield "rule", "recall", "false alarms", "leaks", "14 days: recall", "false alarms", "taxis: false alarms"
    for name, (whole, short, taxi) in results.items():
        of_short = (f"{short.recall:.3f}", f"{short.per_week:.3f}")
        of_taxis = "" if taxi is None else str(taxi[1]) if taxi[0] == 5 else f"{taxi[1]}, {taxi[0]} of 5 found"
        leaks = f"{whole.delay(0.5, 'leak'):.0f}"
        yield name, f"{whole.recall:.3f}", f"{whole.per_week:.3f}", leaks, *of_short, of_taxis


def by_kind(score: Score) -> Iterator[tuple[str, ...]]:
    """How many events of each kind were found."""
    yield "event", "found", "of", "delay: median", "90 %"
    for kind in sorted(score.planted):
        delays = [f"{score.delay(share, kind):.0f}" for share in (0.5, 0.9)]
        yield kind, str(score.found[kind]), str(score.planted[kind]), *delays


def tick_seconds(series: int) -> float:
    """Seconds for a tick over `count` series with five weeks of history, the best of three."""
    index = pd.date_range("2024-03-01", periods=5 * metrics.WEEK, freq=BUCKET)
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
    """Milliseconds of processor time for a verdict on one series, the median of a hundred."""
    app = metrics.make(TUNING[0], groups=1)
    history = app.history().iloc[:, 0]
    taken = []
    for end in range(len(history) - 100, len(history)):
        started = time.process_time()
        detector.judge(history.iloc[:end])
        taken.append(1000 * (time.process_time() - started))
    return float(np.median(taken))


def figures(ours: Score, short: Score, taxi: taxis.Result | None, which: str, series: int) -> Iterator[Figure]:
    """The figures next to their goals."""
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
    """Measure the detector and print the tables."""
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
    rides = taxis.stand_in(seeds[0]) if rides is None and arguments.scale >= 1 else rides
    some = max(1, len(seeds) // 3)
    with ProcessPoolExecutor() as pool:
        progress("scoring the detector")
        running = [pool.submit(measure, app) for app in scored]
        running_short = [pool.submit(measure, app) for app in short_scored]

        def on_some(apps: list[App], scores: list[Future[Score]], ablation: str) -> list[Future[Score]]:
            if ablation == ALONE:  # these are being scored already
                return scores[:some]
            return [pool.submit(measure, app, ablation) for app in apps[:some]]

        running_parts = {
            name: (
                on_some(scored, running, name),
                on_some(short_scored, running_short, name),
                None if rides is None else pool.submit(taxis.judge_taxis, rides, name),
            )
            for name in ABLATIONS
        }
        ours = together(done.result() for done in running)
        progress("with 14 days of history")
        short = together(done.result() for done in running_short)
        progress("its parts")
        parts = {
            name: (
                together(one.result() for one in whole),
                together(one.result() for one in few),
                None if on_taxis is None else on_taxis.result(),
            )
            for name, (whole, few, on_taxis) in running_parts.items()
        }
    progress("the simple rules")
    rules = list(compare(scored, apps(others, days), ours))
    rules.insert(2, line("… with 14 days of history", short))
    progress("speed")
    reached = list(figures(ours, short, parts[ALONE][2], which, int(1000 * arguments.scale)))
    print(f"{len(scored)} apps of {len(scored[0].top)} metrics, {days} days scored. False alarms are per metric-week,")
    print(f"delays are in buckets of {metrics.MINUTES} minutes\n")
    print("\n\n".join([goals(reached), table(rules), table(list(by_kind(ours))), table(list(ablations(parts)))]))


if __name__ == "__main__":
    main()
