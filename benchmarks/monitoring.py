"""Measures a monitoring tick: ClickHouse's time, the rest, and a whole run as Airflow starts it.

    python -m benchmarks.monitoring [--scale 0.05]

Three apps on a sandbox server of its own: one with so many slices that there are 1,001 series; one with six hours of
raw actions at 100 million events a day, to count; and the sandbox's own events, on which the notebook runs cold.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import nbformat
import pandas as pd
from pulse_sandbox import clickhouse_stand_in
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App

from benchmarks.etl import COLD, run
from benchmarks.tables import Figure, goals, progress
from pulse import schema, settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import BUCKET
from pulse.monitoring.history import histories, judge_histories
from pulse.monitoring.rows import unchanged, verdict_rows
from pulse.monitoring.watch import load_watch
from pulse.sources import Source

NOTEBOOK = settings.ROOT / "notebooks" / "monitoring" / "anomalies.ipynb"
SLICES, DAYS = 143, 46
EVENTS_A_DAY, HOURS = 100_000_000, 6

BUCKETS = """
-- Buckets with a daily rhythm, one row per bucket and slice; the slices are of one size
insert into metric_buckets
select
    {start:DateTime} + toIntervalMinute(15 * intDiv(number, {slices:UInt32})) as bucket,
    if(number % {slices:UInt32} = 0, 'total', 'slice') as dimension,
    if(dimension = 'total', 'all', toString(number % {slices:UInt32})) as dimension_value,
    toUInt64((2 + sin(toHour(bucket) / 24 * 2 * pi())) * (100 + cityHash64(number) % 20)) as app_users,
    app_users as feed_users,
    app_users * 7 as views,
    app_users as likes,
    intDiv(app_users, 2) as messenger_users,
    app_users * 2 as messages_sent,
    app_users * 9 as actions,
    now64(6) as refreshed_at
from numbers_mt({slices:UInt32} * {buckets:UInt32})
"""

ACTIONS = """
-- Actions of some hours, one row each, of two million users
insert into {table:Identifier}
select
    toUInt32(cityHash64(number, 'who') % 2000000) as user_id,
    {columns} as what,
    {start:DateTime} + toIntervalSecond(cityHash64(number, 'when') % ({hours:UInt32} * 3600)) as time,
    if(user_id % 5 < 3, 'Android', 'iOS') as os,
    if(user_id % 7 < 3, 'female', 'male') as gender,
    toUInt8(14 + user_id % 50) as age
from numbers_mt({rows:UInt64})
"""


def series(url: str, scale: float) -> Iterator[Figure]:
    """Measure reading and judging 1,001 series."""
    zone = settings.load().zone
    db = ClickHouse(url, "series", zone)
    schema.ensure(db)
    end = pd.Timestamp.now("UTC").floor(BUCKET).tz_convert(zone)
    start, slices = end - pd.Timedelta(days=DAYS), max(2, round(SLICES * scale))
    db.execute(BUCKETS, start=start, slices=slices, buckets=timedelta(days=DAYS) // BUCKET)
    watch = load_watch(NOTEBOOK.with_name("watch.toml"))
    cell = _sql("history_of")
    taken, stood = [], pd.DataFrame(columns=["bucket", "metric", "dimension", "dimension_value", "kind", "value"])
    for _ in range(3):
        began = time.perf_counter()
        found = db.read(cell, start=start, end=end, least_share=0.0)
        read = time.perf_counter()
        buckets = pd.date_range(start, end, freq=BUCKET, inclusive="left")
        history = histories(found, buckets, watch, end)
        unchanged(stood, history, watch)
        verdicts = judge_histories(history, watch)
        taken.append((read - began, time.perf_counter() - read))
        day = [row for bucket in buckets[-24:] for row in verdict_rows(bucket, verdicts)]
        stood = pd.DataFrame(day)
    sql, rest = min(taken[1:], key=sum)  # in the first round nothing had been judged before
    count = f"{len(verdicts):,} series"
    yield Figure(f"{count}: reading them from metric_buckets", f"{sql:.2f} s")
    yield Figure(f"{count}: besides SQL", f"{rest:.2f} s", "≤ 0.5 s", rest <= 0.5)
    yield Figure(f"{count}: a tick with SQL", f"{sql + rest:.2f} s", "≤ 2 s", sql + rest <= 2)


def counting(url: str, scale: float) -> Iterator[Figure]:
    """Measure counting the buckets of the hours in which data may still arrive."""
    zone = settings.load().zone
    source, db = ClickHouse(url, "busy_app", zone), ClickHouse(url, "busy", zone)
    ClickHouse(url, "default", zone).execute("create database if not exists busy_app")
    end = pd.Timestamp.now("UTC").floor(BUCKET).tz_convert(zone)
    start, rows = end - pd.Timedelta(hours=HOURS), round(EVENTS_A_DAY * HOURS / 24 * scale)
    kinds = {
        "feed_actions": ("action LowCardinality(String)", "if(number % 5 = 0, 'like', 'view')", 0.8),
        "message_actions": ("receiver_id UInt32", "toUInt32(cityHash64(number, 'whom') % 2000000)", 0.2),
    }
    for table, (column, what, share) in kinds.items():
        source.execute(
            f"create or replace table {table} (user_id UInt32, {column}, time DateTime, os LowCardinality(String), "
            "gender LowCardinality(String), age UInt8) engine = MergeTree partition by toDate(time) order by time"
        )
        actions = ACTIONS.replace("{columns}", what)
        source.execute(actions, table=table, start=start, hours=HOURS, rows=round(rows * share))
    schema.ensure(db, Source("app", "busy_app"))
    count, look = _sql("bucket_counts"), _sql("first_changed")
    for what, since in (("all again", start), ("the last bucket", end - BUCKET)):
        began = time.perf_counter()
        db.value(look, late_from=start, end=end)
        db.execute(count, start=since, end=end)
        seconds = time.perf_counter() - began
        yield Figure(f"{HOURS} hours of {rows:,} events: counting {what}", f"{seconds:.1f} s")


def whole(server: clickhouse_stand_in.Server, folder: Path, scale: float) -> Iterator[Figure]:
    """Measure the notebook in a fresh process on the sandbox's events: the first run, and a usual one."""
    config = settings.load()
    fill(server, App(config.zone, "bench_app", events_per_day=round(300_000 * scale)), days=36)
    midnight = pd.Timestamp(config.day_bounds(datetime.now(config.zone).date())[0])
    where = {
        "CLICKHOUSE_URL": server.url, "PULSE_DATABASE": "bench_monitoring", "PULSE_SOURCE_DATABASE": "bench_app",
    }  # fmt: skip
    seconds = []
    for name, before in (("first", timedelta(hours=2)), ("next", timedelta(hours=1, minutes=45))):
        parameters = json.dumps({"as_of": (midnight - before).isoformat()})
        began = time.perf_counter()
        run([sys.executable, "-c", COLD, str(NOTEBOOK), str(folder / f"{name}.ipynb"), parameters], where)
        seconds.append(time.perf_counter() - began)
    first, other = seconds
    yield Figure("a whole run, the history to be counted first", f"{first:.1f} s")
    yield Figure("a whole run like every other", f"{other:.1f} s", "≤ 15 s", other <= 15)


def _sql(name: str) -> str:
    """A statement from the notebook."""
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code" and f'{name} = """' in cell.source:
            return str(cell.source.split(f'{name} = """')[1].split('"""')[0])
    raise LookupError(f"The notebook has no statement {name}.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description="Measure the monitoring.")
    parser.add_argument("--scale", type=float, default=1.0, help="of series and events; 0.05 for a quick look")
    scale = parser.parse_args().scale
    with (
        tempfile.TemporaryDirectory(prefix="pulse-bench-") as name,
        clickhouse_stand_in.running(Path(name) / "data") as server,
    ):
        figures: list[Figure] = []
        for what, measure in (("series", series), ("counting", counting)):
            progress(what)
            figures += measure(server.url, scale)
        progress("whole runs")
        figures += whole(server, Path(name), scale)
    print(goals(figures))


if __name__ == "__main__":
    main()
