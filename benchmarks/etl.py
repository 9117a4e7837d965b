"""Measures the ETL's time and memory next to other ways to the same tables. Prints one table.

    python -m benchmarks.etl [--scale 0.05] [--rounds 3] [--make-run]

The source is one day of 20 million feed actions and 5 million messages by 2 million users (times the scale), on a
sandbox server of its own. The four notebooks run cold, each in a fresh process as under Airflow, alternating with the
best statements that we found by hand. Then the same with the 30 days before: published with as many users as the day,
while the source has a tenth of a day's events for each of them. Of each, the median of the rounds after the first
counts. Other work on the machine affects every figure, the ratios least. `benchmarks.sizes` measures days of other
sizes and sources of other kinds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
from pulse_sandbox import clickhouse_stand_in, process

from benchmarks import days, small_server, ways
from benchmarks.tables import Figure, goals, progress
from pulse import clickhouse, settings
from pulse.publishing import holds

FEED, MESSAGES, USERS = 20_000_000, 5_000_000, 2_000_000
NOTEBOOKS = ("extract_feed", "extract_messages", "transform", "load")
SOURCE = "app"
TARGETS = ("user_activity", "dimension_activity", "daily_metrics")
HISTORY = 0.1
"""How many events the source has for each day of history, as a share of the day's."""
GB = 1e9

COLD = """
import json, sys
from pathlib import Path
from pulse.execution import runner
done = runner.run(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
print(json.dumps(done.queries))
"""

PARSE = """
import runpy, sys, time
import airflow
started = time.perf_counter()
runpy.run_path(sys.argv[1])
print(time.perf_counter() - started)
"""


class CommandError(Exception):
    """A command failed."""


@dataclass(frozen=True)
class Cold:
    """A notebook in a fresh process: its seconds in all, and the seconds and written rows of each of its statements."""

    seconds: float
    statements: list[tuple[float, int]]

    @property
    def clickhouse(self) -> float:
        return sum(seconds for seconds, _ in self.statements)

    @property
    def making(self) -> float:
        """The seconds of the statements that write, but for the one that counts the source's 23 to 25 hours."""
        return sum(seconds for seconds, rows in self.statements if rows and rows not in (23, 24, 25))

    @property
    def overhead(self) -> float:
        return self.seconds - self.clickhouse


@dataclass(frozen=True)
class Place:
    """The environment that tells a run where to read and write."""

    server: clickhouse_stand_in.Server
    day: date
    folder: Path
    source: str = SOURCE
    database: str = "pulse"

    @property
    def db(self) -> clickhouse.ClickHouse:
        return clickhouse.ClickHouse(self.server.url, self.database, settings.load().zone)

    @property
    def environment(self) -> dict[str, str]:
        named = {"PULSE_DATABASE": self.database, "PULSE_SOURCE_DATABASE": self.source}
        return {**os.environ, "CLICKHOUSE_URL": self.server.url, **named}


# --- what is measured ------------------------------------------------------------------------------------------------


def run_notebooks(place: Place, name: str) -> dict[str, Cold]:
    """Run the four notebooks one after the other, each in a fresh process."""
    parameters = json.dumps({"event_date": str(place.day), "run": name})
    done = {}
    for notebook in NOTEBOOKS:
        if notebook == "load":
            release(place)
        path = settings.ROOT / "notebooks" / "etl" / f"{notebook}.ipynb"
        archived = place.folder / name / f"{notebook}.ipynb"
        started = time.perf_counter()
        answer = run([sys.executable, "-c", COLD, str(path), str(archived), parameters], place.environment)
        seconds = time.perf_counter() - started
        done[notebook] = Cold(
            seconds, [(query.get("seconds", 0.0), query.get("written_rows", 0)) for query in json.loads(answer)]
        )
    return done


def release(place: Place) -> None:
    """Release the day if it is held: the history in the source has a tenth of its events."""
    for hold in holds.held(place.db, place.day):
        holds.release(place.db, hold.event_date, by="the benchmark", because="its history is made smaller on purpose")


@contextmanager
def peak_memory(pid: int) -> Iterator[list[int]]:
    """Measure a process's peak memory (resident bytes) while the block runs. Afterwards the list has one item."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    found: list[int] = []
    yield found
    status = Path(f"/proc/{pid}/status").read_text()
    found.append(int(status.split("VmHWM:")[1].split()[0]) * 1024)


def run_pandas(place: Place, way: str) -> dict[str, Any]:
    """Run a pandas way in a process of its own. Returns its `seconds` (without imports), `memory` and `rows`."""
    where = [place.server.url, SOURCE, str(place.day), settings.load().timezone, way]
    return dict(json.loads(run([sys.executable, "-m", "benchmarks.ways", *where])))


def differences(place: Place, in_pandas: dict[str, dict[str, Any]]) -> list[str]:
    """The tables in which another way differs, one sentence each; empty if all ways agree."""
    found = []
    for table in TARGETS:
        sql = """
        select count() from (
            (select * from {published:Identifier} where event_date = {day:Date} except select * from {other:Identifier})
            union all
            (select * from {other:Identifier} except select * from {published:Identifier} where event_date = {day:Date})
        )
        """
        rows = place.db.value(sql, published=table, other=f"hand_{table}", day=place.day)
        if rows:
            found.append(f"{table} by hand differs from the notebooks' in {rows:,} rows")
    published = place.db.read(
        "select * except event_date from dimension_activity where event_date = {day:Date}", day=place.day
    )
    ours = {tuple(row.values()) for row in published.to_dict("records")}
    for way, done in in_pandas.items():
        theirs = {tuple(row[name] for name in published.columns) for row in done["rows"]}
        if ours != theirs:
            found.append(
                f"dimension_activity in pandas ({way}) differs from the notebooks' in {len(theirs - ours):,} rows"
            )
    return found


def stock_papermill(folder: Path) -> float:
    """Seconds that papermill's own command takes for a notebook that only has the ETL's imports."""
    cell = nbformat.v4.new_code_cell("import pandas, pandahouse, matplotlib.pyplot, scrapbook")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), folder / "imports.ipynb")
    started = time.perf_counter()
    source, target = str(folder / "imports.ipynb"), str(folder / "done.ipynb")
    run([sys.executable, "-m", "papermill", "--no-progress-bar", source, target])
    return time.perf_counter() - started


def slowest_dag(folder: Path, rounds: int) -> tuple[str, float]:
    """The DAG file that takes longest to parse, and its seconds in the best round, `import airflow` not counted."""
    environment = {**os.environ, "AIRFLOW_HOME": str(folder / "airflow")}
    seconds = {
        path.name: min(
            float(run([sys.executable, "-c", PARSE, str(path)], environment).split()[-1]) for _ in range(rounds)
        )
        for path in sorted((settings.ROOT / "dags").glob("*.py"))
    }
    return max(seconds.items(), key=lambda item: item[1])


def make_run(folder: Path) -> float:
    """Seconds of `make run` in a fresh copy of the project, with packages already downloaded."""
    listing = run(["git", "-C", str(settings.ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    for name in filter(None, listing.split("\0")):
        source, target = settings.ROOT / name, folder / "pulse" / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    started = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MAKE"))}
    run(["make", "-C", str(folder / "pulse"), "run"], environment)
    return time.perf_counter() - started


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """A command's output.

    Raises:
        CommandError: it failed; the text is the last line of its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=settings.ROOT)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise CommandError(said[-1] if said else f"{command[0]} failed with status {done.returncode}")
    return done.stdout


# --- the figures -----------------------------------------------------------------------------------------------------


def compare_ways(folder: Path, day: date, scale: float, rounds: int) -> Iterator[Figure]:
    """The notebooks' figures next to those of the other ways, on the same server and day."""
    with clickhouse_stand_in.running(folder / "data") as server:
        place = Place(server, day, folder)
        sizes = [int(size * scale) for size in (FEED, MESSAGES, USERS)]
        progress("making the day")
        days.make_day(server.url, SOURCE, day, place.db.zone, *sizes)
        without = alternate(place, "without", rounds)
        pandas = {}
        for way in ("plain", "hashed"):
            progress(f"pandas, {way}")
            pandas[way] = run_pandas(place, way)
        different = differences(place, pandas)
        progress("making its history")
        days.make_history(
            server.url, SOURCE, day, place.db.zone, *(int(size * HISTORY) for size in sizes[:2]), sizes[2]
        )
        from_source = run_notebooks(place, "from_source")
        days.publish_history(place.db, day)
        with_history = alternate(place, "with", rounds)
        different += differences(place, {})

    wall = statistics.median(sum(cold.seconds for cold in done.values()) for done in without.notebooks)
    yield Figure("results of all ways", "; ".join(different) or "equal", "equal", not different)
    yield from without.figures("without history", 2.9)
    for name in NOTEBOOKS:
        yield Figure(f"… of which {name}", f"{statistics.median(d[name].clickhouse for d in without.notebooks):.2f} s")
    yield from with_history.figures("with 30 days of it", 3.5)
    seconds = sum(cold.clickhouse for cold in from_source.values())
    yield Figure("… with 30 days in the source only, each of a tenth", f"{seconds:.1f} s")
    peak = max(without.memory + with_history.memory)
    yield Figure("engine's peak memory", f"{peak / GB:.2f} GB", "≤ 1.5 GB", peak <= 1.5 * GB)
    yield from beside_pandas(pandas, without.clickhouse, wall, max(without.memory))
    overheads = [statistics.median(done[name].overhead for done in without.notebooks) for name in NOTEBOOKS]
    stock = stock_papermill(folder)
    yield Figure(
        "overhead of a notebook, cold",
        f"{max(overheads):.1f} s (stock papermill: {stock:.1f} s)",
        "≤ 1.3 s",
        max(overheads) <= 1.3,
    )


@dataclass(frozen=True)
class Rounds:
    """The notebooks and the statements by hand, in turns: each notebook's times, the seconds by hand, peak memory."""

    notebooks: list[dict[str, Cold]]
    by_hand: list[float]
    memory: list[int]

    @property
    def clickhouse(self) -> float:
        return statistics.median(sum(cold.clickhouse for cold in done.values()) for done in self.notebooks)

    @property
    def tables(self) -> float:
        """The seconds of the statements that make the tables, without those that count, check and publish."""
        return statistics.median(sum(done[name].making for name in NOTEBOOKS[:3]) for done in self.notebooks)

    def figures(self, what: str, goal: float) -> Iterator[Figure]:
        """The times, and their ratios to the statements by hand."""
        ours, hand = self.clickhouse, statistics.median(self.by_hand)
        yield Figure(f"ETL {what}: ClickHouse time", f"{ours:.1f} s", f"≤ {goal} s", ours <= goal)
        yield Figure(
            "… to the best statements by hand", f"{ours / hand:.2f} × ({hand:.1f} s)", "≤ 1.15 ×", ours <= 1.15 * hand
        )
        yield Figure(
            "… of which what makes the tables, to the same", f"{self.tables / hand:.2f} × ({self.tables:.1f} s)"
        )


def alternate(place: Place, name: str, rounds: int) -> Rounds:
    """Run the notebooks and the statements by hand in turns. The first round warms up and is not returned."""
    found = Rounds([], [], [])
    for number in range(rounds + 1):
        progress(f"{name} history, round {number} of {rounds}")
        with peak_memory(place.server.pid) as peak:
            done = run_notebooks(place, f"{name}_{number}")
        by_hand = ways.by_hand(place.db, place.day)
        if number:
            found.notebooks.append(done)
            found.by_hand.append(by_hand)
            found.memory.extend(peak)
    return found


def beside_pandas(pandas: dict[str, dict[str, Any]], ours: float, wall: float, memory: int) -> Iterator[Figure]:
    """The notebooks against pandas with both tables in memory; also with strings kept in ClickHouse, for comparison."""
    for way, name, goal in (("plain", "pandas", 16), ("hashed", "pandas with hashed strings", 7)):
        seconds, theirs = pandas[way]["seconds"], pandas[way]["memory"]
        faster, share, counts = seconds / ours, memory / theirs, way == "plain"
        measured = f"{faster:.1f} × ({seconds:.0f} s); with all overhead {seconds / wall:.1f} × ({wall:.0f} s)"
        yield Figure(f"… faster than {name}", measured, f"≥ {goal} ×", faster >= goal)
        measured = f"{share:.2f} ({theirs / GB:.1f} GB)"
        yield Figure(f"… memory to {name}", measured, "≤ 0.33" if counts else "", share <= 1 / 3 if counts else None)


def limited(folder: Path, day: date, feed: int, messages: int, users: int) -> tuple[float, int]:
    """The ETL of a day on a server limited to 2 GB: ClickHouse's seconds, and the server's peak memory in bytes.

    Raises:
        CommandError: a notebook failed.
    """
    with clickhouse_stand_in.running(folder / "data") as server:  # without the limit, since making is not measured
        days.make_day(server.url, SOURCE, day, settings.load().zone, feed, messages, users)
    with process.running(small_server.MODULE, folder / "data") as about:
        server = clickhouse_stand_in.Server(about["host"], about["port"], Path(about["data"]), about["pid"])
        with peak_memory(server.pid) as peak:
            done = run_notebooks(Place(server, day, folder), "limited")
    return sum(cold.clickhouse for cold in done.values()), peak[0]


def crowd(folder: Path, day: date, scale: float) -> Iterator[Figure]:
    """Ten times the users and twice the events, on a server that is limited to 2 GB."""
    progress("ten times the users")
    try:
        sizes = [int(size * scale) for size in (2 * FEED, 2 * MESSAGES, 10 * USERS)]
        seconds, memory = limited(folder / "crowd", day, *sizes)
        measured, reached = f"{seconds:.0f} s; the process {memory / GB:.2f} GB", seconds <= 25
    except CommandError as failure:
        measured, reached = str(failure).partition(": ")[2].partition(". ")[0], False
    yield Figure("ten times the users, server limited to 2 GB", measured, "≤ 25 s", reached)


def parsing(folder: Path, rounds: int) -> Iterator[Figure]:
    """How long Airflow takes to parse a DAG file."""
    name, seconds = slowest_dag(folder, rounds)
    yield Figure(f"slowest DAG file to parse ({name})", f"{seconds:.2f} s", "< 1 s", seconds < 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.etl", description="Measure the ETL.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the events and users; 0.05 for a quick look")
    parser.add_argument("--rounds", type=int, default=3, help="whose median counts, after one to warm up")
    parser.add_argument("--make-run", action="store_true", help="measure `make run` in a fresh copy, and nothing else")
    arguments = parser.parse_args()
    day = datetime.now(settings.load().zone).date() - timedelta(days=1)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as name:
        folder = Path(name)
        if arguments.make_run:
            seconds = make_run(folder)
            figures.append(Figure("make run, packages downloaded before", f"{seconds:.0f} s", "≤ 35 s", seconds <= 35))
        else:
            figures += compare_ways(folder, day, arguments.scale, arguments.rounds)
            figures += crowd(folder, day, arguments.scale)
            figures += parsing(folder, arguments.rounds)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    print(f"{os.cpu_count()} cores, {memory:.0f} GB of memory; load average {os.getloadavg()[2]:.1f} over 15 minutes")
    print(f"{FEED * arguments.scale:,.0f} feed actions, {MESSAGES * arguments.scale:,.0f} messages, ", end="")
    print(f"{USERS * arguments.scale:,.0f} users\n\n{goals(figures)}")


if __name__ == "__main__":
    main()
