"""Runs the ETL in two databases of its own on a sandbox server: raw rows go in, published tables come out.

The four notebooks run either as Airflow runs them, through papermill (three seconds a notebook), or with their code
cells executed one after the other in this process: the same code, parameters and environment, ten times as fast.
"""

import ast
import io
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from zoneinfo import ZoneInfo

import nbformat
import pandas as pd
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks import reference
from pulse import settings, sources
from pulse.clickhouse import ClickHouse
from pulse.execution import runner
from pulse.settings import ROOT
from pulse.sources import Source, definition

FOLDER = ROOT / "notebooks" / "etl"
STEPS = ("extract_feed", "extract_messages", "transform", "load")

# A column of the preset `app`, and what to replace it with if the source stores gender as a code.
GENDER = "    gender,\n"
NAMED_GENDER = "    transform(ifNull(toString(gender), ''), ['0', '1'], ['female', 'male']) as gender,\n"
Sources = Callable[[str, str], None]

ATTRIBUTES = {
    "os": "LowCardinality(Nullable(String))",
    "gender": "LowCardinality(Nullable(String))",
    "age": "Nullable(UInt8)",
}
# What the source of a test may have besides: see `split_by`.
OPTIONAL = {
    "country": "LowCardinality(String)",
    "city": "String",
    "source": "LowCardinality(Nullable(String))",
    "exp_group": "Int8",
}
# The columns of the published tables, in order.
SHAPES = {
    "dimension_activity": {
        "event_date": "Date",
        "dimension": "String",
        "dimension_value": "String",
        "views": "UInt64",
        "likes": "UInt64",
        "messages_received": "UInt64",
        "messages_sent": "UInt64",
        "users_received": "UInt64",
        "users_sent": "UInt64",
    },
    "user_activity": {
        "event_date": "Date",
        "user_id": "String",
        "os": "LowCardinality(String)",
        "gender": "LowCardinality(String)",
        "age": "LowCardinality(String)",
        "country": "LowCardinality(String)",
        "city": "LowCardinality(String)",
        "source": "LowCardinality(String)",
        "exp_group": "LowCardinality(String)",
        "views": "UInt64",
        "likes": "UInt64",
        "messages_received": "UInt64",
        "messages_sent": "UInt64",
        "users_received": "UInt64",
        "users_sent": "UInt64",
        "feed_active": "Bool",
    },
    "dimension_metrics": {
        "event_date": "Date",
        "dimension": "String",
        "dimension_value": "String",
        "feed_users": "UInt64",
        "messenger_users": "UInt64",
        "app_users": "UInt64",
        "both_users": "UInt64",
        "views": "UInt64",
        "likes": "UInt64",
        "ctr": "Nullable(Float64)",
        "messages_sent": "UInt64",
        "messages_received": "UInt64",
        "sent_per_received": "Nullable(Float64)",
    },
    "daily_metrics": {
        "event_date": "Date",
        "feed_users": "UInt64",
        "messenger_users": "UInt64",
        "app_users": "UInt64",
        "both_users": "UInt64",
        "views": "UInt64",
        "likes": "UInt64",
        "ctr": "Nullable(Float64)",
        "messages_sent": "UInt64",
        "messages_received": "UInt64",
        "sent_per_received": "Nullable(Float64)",
    },
}

# Ways to lay out an app's table on disk: the partition key, if any, and the sorting key. ClickHouse reads only the
# parts and granules that may hold matching rows; a test with an unordered table never notices if it skips too many.
LAYOUTS = {
    "by day": ("toDate(time)", "(time, user_id)"),
    "by day and user": ("toDate(time)", "user_id"),
    "by month": ("toYYYYMM(time)", "(toDate(time), user_id, time)"),
    "date and user": ("", "(toDate(time), user_id)"),
    "hour": ("", "(toStartOfHour(time), user_id)"),
    "time": ("", "time"),
    "unordered": ("", "tuple()"),
}

FEED = {"user_id": "UInt32", "action": "LowCardinality(String)", "time": "DateTime", **ATTRIBUTES}
MESSAGES = {"user_id": "UInt32", "receiver_id": "UInt32", "time": "DateTime", **ATTRIBUTES}


class Tables(NamedTuple):
    """The tables that the ETL publishes: a row per user, two rows per dimension and value, and a row per day."""

    user_activity: pd.DataFrame
    dimension_activity: pd.DataFrame
    dimension_metrics: pd.DataFrame
    daily_metrics: pd.DataFrame


@dataclass(frozen=True)
class Etl:
    """An app and the pipeline that reads it. Rows and runs are for `day` unless they name another day."""

    server: Server
    name: str
    day: date
    timezone: str = "Europe/Moscow"
    folder: Path = FOLDER
    prefix: str = ""
    app: str = ""
    """The app's database, where it has not the name of the project's with `_app` at its end."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that says when a day begins and ends."""
        return ZoneInfo(self.timezone)

    @property
    def db(self) -> ClickHouse:
        """The project's database."""
        return ClickHouse(self.server.url, self.name, self.zone, prefix=self.prefix)

    @property
    def source(self) -> ClickHouse:
        """The app's database."""
        return ClickHouse(self.server.url, self.app or f"{self.name}_app", self.zone)

    @property
    def reads(self) -> Source:
        """The app's tables, as the settings name them."""
        with patch.dict(os.environ, self.environment):
            return sources.chosen(settings.load())

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the notebooks get."""
        return {
            "CLICKHOUSE_URL": self.server.url,
            "PULSE_DATABASE": self.db.database,
            "PULSE_TABLE_PREFIX": self.prefix,
            "PULSE_SOURCE_DATABASE": self.source.database,
            "PULSE_TIMEZONE": self.timezone,
        }

    @classmethod
    @contextmanager
    def fresh(cls, server: Server, day: date, timezone: str = "Europe/Moscow", *, prefix: str = "") -> Iterator["Etl"]:
        """Create an app with two empty tables and a project without tables; drop both databases afterwards."""
        app = cls(server, f"etl_{uuid.uuid4().hex[:8]}", day, timezone, prefix=prefix)
        outside = ClickHouse(server.url, "default", app.zone)
        outside.execute("create database {name:Identifier}", name=app.source.database)
        try:
            app.create_source("feed_actions", FEED)
            app.create_source("message_actions", MESSAGES)
            yield app
        finally:
            for database in (app.db.database, app.source.database):
                outside.execute("drop database if exists {name:Identifier}", name=database)

    # --- raw rows in -------------------------------------------------------------------------------------------------

    def create_source(self, table: str, columns: dict[str, str], layout: str = "by day") -> None:
        """Create or replace one of the app's tables, with one of `LAYOUTS`.

        Every row is its own granule, so that ClickHouse skips rows here as it does in a table of millions.
        """
        listed = ", ".join(f"`{name}` {kind}" for name, kind in columns.items())
        partition, key = LAYOUTS[layout]
        if {"user_id", "time"} - set(columns):
            partition, key = LAYOUTS["unordered"]  # there is no column to sort it by
        by = f"partition by {partition} " if partition else ""
        self.source.execute(
            f"create or replace table {table} ({listed}) engine = MergeTree {by}order by {key} "
            "settings index_granularity = 1, allow_nullable_key = 1"
        )

    def feed(self, *rows: tuple[Any, ...]) -> None:
        """Write feed actions: (user, action, time, os, gender, age, …). Values left out at the end are unknown."""
        self.write("feed_actions", [*FEED, *OPTIONAL], rows)

    def messages(self, *rows: tuple[Any, ...]) -> None:
        """Write messages: (sender, receiver, time, os, gender, age, …). Values left out at the end are unknown."""
        self.write("message_actions", [*MESSAGES, *OPTIONAL], rows)

    def write(self, table: str, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows with any columns. A `time` such as `09:30` is local and on `day` unless it says otherwise."""
        records = [dict(zip(columns, row, strict=False)) for row in rows]
        self.source.write([row | {"time": self.moment(row["time"])} for row in records], table)

    def moment(self, text: str) -> datetime:
        """Parse a time as `write` takes it."""
        moment = datetime.fromisoformat(text if "-" in text else f"{self.day} {text}")
        return moment if moment.tzinfo else moment.replace(tzinfo=self.zone)

    # --- runs --------------------------------------------------------------------------------------------------------

    def run(self, day: date | str | None = None, steps: Iterable[str] = STEPS, **parameters: Any) -> None:
        """Run the notebooks' code cells one after the other in this process; a notebook gets the parameters it has."""
        given = {"event_date": str(self.day if day is None else day), **parameters}
        unknown = set(given).difference(*(code_cells(self.folder / f"{step}.ipynb")[1] for step in STEPS))
        assert not unknown, f"no notebook of the ETL knows {unknown}"
        said = redirect_stdout(io.StringIO())
        with patch.dict(os.environ, self.environment), said, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No kernel detected")  # a warning of scrapbook, whose `glue` then prints
            for step in steps:
                cells, known = code_cells(self.folder / f"{step}.ipynb")
                names: dict[str, Any] = {"__name__": "__main__"}
                for code, sets_parameters in cells:
                    exec(code, names)  # noqa: S102 (our own notebooks)
                    if sets_parameters:  # where papermill injects its cell
                        names.update({name: value for name, value in given.items() if name in known})

    def run_with_papermill(
        self, folder: Path, day: date | str | None = None, steps: Iterable[str] = STEPS, **parameters: Any
    ) -> None:
        """Run the notebooks as Airflow's tasks do: each in its own kernel, and archived in the folder."""
        given = {"event_date": str(self.day if day is None else day), **parameters}
        for step in steps:
            own = {name: value for name, value in given.items() if name in code_cells(self.folder / f"{step}.ipynb")[1]}
            runner.run(self.folder / f"{step}.ipynb", str(folder / f"{step}.ipynb"), own, environment=self.environment)

    # --- tables out --------------------------------------------------------------------------------------------------

    def published(self, day: date | None = None) -> Tables:
        """Return the rows of the published tables for a day."""
        select = "select * from {} where event_date = {{day:Date}}"
        return sorted_tables(*(self.db.read(select.format(table), day=day or self.day) for table in Tables._fields))

    def everything(self) -> pd.DataFrame:
        """Return the row count and a hash of the rows of each of the tables; they are equal if the tables are."""
        one = "select '{0}' as target, count() as rows, sum(cityHash64(tuple(*))) as hash from {0}"
        found = self.db.read(" union all ".join(one.format(table) for table in Tables._fields))
        return found.sort_values("target", ignore_index=True)

    def expected(self, day: date | None = None, optional: Iterable[str] = (), **options: Any) -> Tables:
        """Compute the same tables from the same raw rows with `reference`; `optional`: those of `OPTIONAL` it reads."""
        feed, messages = (
            self.source.read(f"select {', '.join([*columns, *optional])} from {table}")  # noqa: S608
            for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES))
        )
        given = (feed, messages, day or self.day, self.zone)
        return Tables(
            reference.expected_user_activity(*given, **options),
            reference.expected_dimension_activity(*given, **options),
            reference.expected_dimension_metrics(*given, **options),
            reference.expected_daily_metrics(*given, **options),
        )

    def slices(self, day: date | None = None) -> pd.DataFrame:
        """Return the day's dimension activity, indexed by (dimension, value)."""
        return self.published(day).dimension_activity.set_index(["dimension", "dimension_value"])

    def users(self, day: date | None = None) -> pd.DataFrame:
        """Return the day's user activity, indexed by the user id as a number."""
        users = self.published(day).user_activity
        return users.assign(user_id=users["user_id"].astype("int64")).sort_values("user_id").set_index("user_id")

    def attributes(self, day: date | None = None) -> dict[int, tuple[str, str, str]]:
        """Return each user's os, gender and age that day, by the user id as a number."""
        users = self.published(day).user_activity
        named = users[["os", "gender", "age"]].itertuples(index=False, name=None)
        return dict(sorted(zip(map(int, users["user_id"]), named, strict=True)))

    def metrics(self, day: date | None = None) -> dict[str, Any]:
        """Return the day's metrics by name; a metric without a value is None."""
        row = self.published(day).daily_metrics.iloc[0]
        return {name: None if pd.isna(value) else value for name, value in row.items()}

    def by_hand(self, notebook: str, **parameters: Any) -> dict[str, Any]:
        """Run a notebook, given by its path below `notebooks/`, as an analyst would, and return its variables.

        Its code cells run one after the other in this process, which is faster than a kernel; the last one, which glues
        the results, does not run.
        """
        names: dict[str, Any] = {"__name__": "__main__"}
        node = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
        cells = [cell for cell in node.cells if cell.cell_type == "code"]
        with patch.dict(os.environ, self.environment):
            for cell in cells[:-1]:
                exec(compile(cell.source, notebook, "exec"), names)  # noqa: S102 (our own notebooks)
                if "parameters" in cell.metadata.get("tags", []):
                    assert set(parameters) <= set(names)
                    names.update(parameters)
        return names

    def tables(self) -> set[str]:
        """Return the names of the project's tables and views, as statements name them."""
        found = self.db.read("select name from system.tables where database = currentDatabase()")["name"]
        return {self.db.own_name(name) for name in found if name.startswith(self.prefix)}

    def staging(self) -> set[str]:
        """Return the names of the staging tables, which a run makes for itself."""
        return {name for name in self.tables() if "__" in name}


def split_by(folder: Path, names: Iterable[str]) -> None:
    """Write a `sources.sql` into a folder: the preset `app` with these further columns in both views."""
    text = (definition.PRESETS / "app.sql").read_text()
    assert text.count("    age\n") == 2
    (folder / definition.FILE).write_text(
        text.replace("    age\n", "    age" + "".join(f",\n    {name}" for name in names) + "\n")
    )


@cache
def code_cells(path: Path) -> tuple[list[tuple[Any, bool]], set[str]]:
    """Return a notebook's code cells, each with whether it holds the parameters, and the names of the parameters."""
    cells, parameters = [], set()
    for index, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code":
            tagged = "parameters" in cell.metadata.get("tags", [])
            cells.append((compile(cell.source, f"{path.name}, cell {index}", "exec"), tagged))
            if tagged:
                targets = [node.targets[0] for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
                parameters = {target.id for target in targets if isinstance(target, ast.Name)}
    return cells, parameters


def sorted_tables(
    users: pd.DataFrame, slices: pd.DataFrame, slice_metrics: pd.DataFrame, metrics: pd.DataFrame
) -> Tables:
    """Return a day's tables with sorted rows, so that they can be compared."""
    return Tables(
        users.sort_values("user_id", ignore_index=True),
        slices.sort_values(["dimension", "dimension_value"], ignore_index=True),
        slice_metrics.sort_values(["dimension", "dimension_value"], ignore_index=True),
        metrics.reset_index(drop=True),
    )


def assert_equal(found: Tables, expected: Tables) -> None:
    """Fail if a table differs, and say which one and where; the types of integers and strings may differ."""
    for name, left, right in zip(Tables._fields, found, expected, strict=True):
        pd.testing.assert_frame_equal(left, right, check_dtype=False, check_exact=True, obj=name)
