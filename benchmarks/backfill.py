"""Measures how long a backfill of small days takes, through Airflow and with `pulse backfill`. Prints one table.

    python -m benchmarks.backfill [--days 10]

The sandbox's app has 8,000 events on each day, so that almost nothing is due to their number. The days are computed by
Airflow's own scheduler and executor (`pulse airflow`), two at a time, then again by one command. A day does not depend
on the number of days, so the year is a multiplication.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from pulse_sandbox import clickhouse_stand_in
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App

from benchmarks.tables import Figure, goals, progress
from pulse import settings
from pulse.archive import index

EVENTS_PER_DAY = 8_000
YEAR = 365


def through_airflow(home: Path, environment: dict[str, str], first: date, last: date) -> tuple[float, list[float]]:
    """Backfill these days with Airflow: the seconds, and those of each task that ran a notebook.

    Raises:
        subprocess.CalledProcessError: a command of Airflow failed.
        RuntimeError: Airflow ended by itself, or a day failed.
    """
    days = (last - first).days + 1
    with (home / "airflow.log").open("w") as log:
        airflow = subprocess.Popen(["pulse", "airflow"], env=environment, stdout=log, stderr=log)

    def wait_for_rows(count: int, sql: str) -> None:
        while len(_query(home, sql)) < count:
            if airflow.poll() is not None:
                raise RuntimeError(
                    f"`pulse airflow` ended with status {airflow.returncode}; run it by itself to see why."
                )
            time.sleep(0.5)

    try:
        wait_for_rows(1, "select 1 from dag where dag_id = 'etl'")
        command = ["pulse", "airflow", "dags", "unpause", "etl"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        # The last day, which the schedule asks for; everything has started up after that.
        wait_for_rows(1, "select 1 from dag_run where dag_id = 'etl' and state in ('success', 'failed')")
        command = ["pulse", "airflow", "backfill", "create", "--dag-id", "etl", "--from-date", str(first)]
        command += ["--to-date", f"{last}T23:59:59", "--max-active-runs", "2", "--reprocess-behavior", "completed"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        of_backfill = "from dag_run where run_type = 'backfill' and state in ('success', 'failed')"
        wait_for_rows(days, f"select 1 {of_backfill}")
        (span,) = _query(home, f"select min(start_date), max(end_date), min(state) {of_backfill}")
        tasks = _query(
            home,
            "select duration from task_instance join dag_run using (dag_id, run_id) "
            "where run_type = 'backfill' and operator = 'NotebookOperator'",
        )
    finally:
        airflow.terminate()
        airflow.wait()
    if span[2] != "success":  # as text, failed comes before success
        raise RuntimeError("A day failed through Airflow; `pulse backfill` shows why, if it is the ETL.")
    began, ended = (datetime.fromisoformat(moment) for moment in span[:2])
    return (ended - began).total_seconds(), [seconds for (seconds,) in tasks]


def by_command(environment: dict[str, str], first: date, last: date) -> float:
    """Backfill these days with one command: the seconds.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    subprocess.run(["pulse", "backfill", str(first), str(last)], env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def compare(folder: Path, days: int) -> Iterator[Figure]:
    """The seconds of a day both ways, and what takes them."""
    config = settings.load()
    with clickhouse_stand_in.running(folder / "data") as server:
        progress("making the days")
        app = App(config.zone, "app", events_per_day=EVENTS_PER_DAY)
        fill(server, app, days=days + 1)
        last = config.event_day("yesterday") - timedelta(days=1)
        first = last - timedelta(days=days - 1)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "CLICKHOUSE_URL": server.url,
            "PULSE_SOURCE_DATABASE": "app",
        }
        progress("through Airflow")
        home = folder / "airflow"
        home.mkdir()
        ours = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",  # no other DAG takes the executor's slots
            "PULSE_DATABASE": "by_airflow",
            "PULSE_OUTPUT": str(home / "archive"),
        }
        seconds, tasks = through_airflow(home, environment | ours, first, last)
        progress("with pulse backfill")
        ours = {
            "AIRFLOW_HOME": str(folder / "other"),
            "PULSE_DATABASE": "by_command",
            "PULSE_OUTPUT": str(folder / "other" / "archive"),
        }
        command = by_command(environment | ours, first, last)
        with index.opened(home / "archive") as archive:
            notebooks = [attempt.seconds for attempt in archive.all() if attempt.seconds]
    each = seconds / days
    yield Figure("a small day, backfilled through Airflow", f"{each:.1f} s; a year {each * YEAR / 3600:.1f} h")
    yield Figure("… a task that runs a notebook, median", f"{statistics.median(tasks):.1f} s, two at a time")
    yield Figure("… … of which the notebook's run", f"{statistics.median(notebooks):.1f} s")
    each = command / days
    yield Figure("… with pulse backfill", f"{each:.1f} s; a year {each * YEAR / 3600:.1f} h")


def _query(home: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "airflow.db", timeout=30)) as connection:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:  # no table yet
            return []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backfill", description="Measure a backfill.")
    parser.add_argument("--days", type=int, default=10)
    with tempfile.TemporaryDirectory(prefix="pulse-backfill-") as folder:
        print(goals(list(compare(Path(folder), parser.parse_args().days))))


if __name__ == "__main__":
    main()
