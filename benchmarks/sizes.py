"""Measures the ETL's time on days of other sizes, and on sources of other kinds. Prints one table.

    python -m benchmarks.sizes [--scale 0.05]

The curve: days of 1, 5, 20 and 60 million feed actions and a quarter as many messages (times the scale), once with
users in proportion to them and once with two million users, on a server limited to 2 GB. Its exponent is the slope of
time against actions in a diagram with logarithmic axes, from 5 to 60 million: 1 is linear. The kinds: a day of 5
million feed actions with other types of ids and times, and stored in other ways, as ratios to the same day as the
sandbox has it.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

from pulse_sandbox import clickhouse_stand_in

from benchmarks import days
from benchmarks.etl import GB, SOURCE, Place, limited, run_notebooks
from benchmarks.tables import Figure, goals, progress
from pulse import settings

SIZES = (1_000_000, 5_000_000, 20_000_000, 60_000_000)
KINDS_SIZE = 5_000_000
SHARE = 10  # feed actions for each user, where users are in proportion
FIXED_USERS = 2_000_000


def curve(folder: Path, day: date, scale: float) -> Iterator[Figure]:
    """Time against size."""
    for name, users_of in (
        ("users in proportion", lambda feed: feed // SHARE),
        ("two million users", lambda feed: int(FIXED_USERS * scale)),
    ):
        sizes, found = [int(size * scale) for size in SIZES], []
        for feed in sizes:
            progress(f"{feed:,} feed actions, {name}")
            with tempfile.TemporaryDirectory(dir=folder) as data:
                seconds, memory = limited(Path(data), day, feed, feed // 4, users_of(feed))
            found.append(seconds)
            yield Figure(f"{feed:,} feed actions, {name}", f"{seconds:.1f} s; the process {memory / GB:.2f} GB")
        logarithms = [[math.log(each) for each in values[1:]] for values in (sizes, found)]
        slope = statistics.linear_regression(*logarithms).slope
        in_proportion = name == "users in proportion"
        yield Figure(
            "… exponent from the second size on",
            f"{slope:.2f}",
            "≤ 1.1" if in_proportion else "",
            slope <= 1.1 if in_proportion else None,
        )


def kinds(folder: Path, day: date, scale: float) -> Iterator[Figure]:
    """The same day in other apps."""
    with clickhouse_stand_in.running(folder / "kinds") as server:
        zone = settings.load().zone
        feed = int(KINDS_SIZE * scale)
        days.make_day(server.url, SOURCE, day, zone, feed, feed // 4, feed // SHARE)

        def seconds(source: str) -> float:
            place = Place(server, day, folder, source, f"pulse_{source}")
            run_notebooks(place, f"{source}_warm")
            return sum(cold.clickhouse for cold in run_notebooks(place, source).values())

        usual = seconds(SOURCE)
        yield Figure(f"{feed:,} feed actions as the sandbox has them", f"{usual:.2f} s")
        for name, source in days.other_apps(server.url, SOURCE, zone):
            progress(name)
            found = seconds(source)
            yield Figure(f"… {name}", f"{found / usual:.2f} × ({found:.2f} s)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description="Measure the ETL on other days.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the events and users; 0.05 for a quick look")
    arguments = parser.parse_args()
    day = datetime.now(settings.load().zone).date() - timedelta(days=1)
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as name:
        figures = [*curve(Path(name), day, arguments.scale), *kinds(Path(name), day, arguments.scale)]
    print(goals(figures))


if __name__ == "__main__":
    main()
