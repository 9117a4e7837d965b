"""How a day is published: its rows go into tables of loads that nobody reads, then one inserted row publishes them.

What is guaranteed. One row in `publications` publishes a day, for all four tables at once: before that row nothing has
changed for any reader, wherever the load was killed; after it everything has. A query on one of the four tables sees
one load as a whole and nothing of another. Two queries may see two loads when a day is published between them, and so
may the two sides of a join.

Loads of one day may run concurrently: each publishes what it computed, and in the end the load whose source was
extracted later remains, for all four tables and every reader. A load with an earlier extract than the published one
does not replace it, so repeating an old run changes nothing.

The users of a replaced load are dropped an hour later, so that a query that has already begun does not lose its rows.
Its metrics and slices, which are few, are kept, so that `pulse as-of` knows what was published before.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from pulse import PulseError
from pulse.clickhouse import ClickHouse, Result, quoted
from pulse.metrics import DIMENSIONS

TABLES = ("user_activity", "dimension_activity", "dimension_metrics", "daily_metrics")
"""The published tables, as readers see them. The rows of all loads are in `<table>_loads`."""

BY_USER = ("user_activity",)
"""Those with a row for each user, which are large. Of a replaced load the others are kept for `REPLACED_DAYS`."""

STAGING = (
    r"((feed|message|passive|earlier)_(hours|users|senders|receivers|attributes)|attributes|slices|users|slice_(counts|senders|receivers)"
    rf"|{'|'.join(TABLES)})__"
)
"""How the names of a run's staging tables begin: what they hold, then the run."""

USERS_PER_PART = 2_500_000
"""How many users a statement groups at a time, so that two threads' groups fit into the gigabyte with which a server of
2 GB begins to continue on disk. That takes three to five times as long as a statement that runs in parts."""


class PublishingError(PulseError):
    """A day cannot be published, or a publication cannot be read."""


@dataclass(frozen=True)
class Contents:
    """What a table held: the number of rows, and a sum of hashes over these columns, which changes with any row."""

    columns: list[str]
    rows: int
    hash: int


@dataclass(frozen=True)
class Held:
    """The rows of a day that a source held at extraction, for each hour since the day began."""

    rows: list[int]
    """Their number; empty if nobody counted them."""
    hashes: list[int]
    """Sums of their hashes, see `schema.sql`; empty if unknown."""
    second: list[int] = field(default_factory=list)
    """Sums of their second hashes; empty if unknown."""


@dataclass(frozen=True)
class Publication:
    """Which load of a day is published, which run made it, and from what."""

    event_date: date
    step: int
    load: str
    run: str
    feed: Held
    messages: Held
    extracted_at: datetime
    """When the earlier of the two extracts began, to the second; 1970 if unknown."""
    contents: dict[str, Contents]
    """By table; empty for days published by a version that had no loads."""


@dataclass(frozen=True)
class Published:
    """One publication of a day, of perhaps several."""

    load: str
    run: str
    at: datetime


def publication(db: ClickHouse, day: date) -> Publication | None:
    """The current publication of a day; None where the day is not published.

    Raises:
        ClickHouseError: no server answers, or the tables are not there.
    """
    return publications(db, day, day).get(day)


def publications(db: ClickHouse, first: date, last: date) -> dict[date, Publication]:
    """The current publications of the days from the first to the last, by day; none of a day that is not published.

    Raises:
        ClickHouseError: no server answers, or the tables are not there.
    """
    newest = """
    -- The current publications, one row per published day
    select
        event_date,
        step,
        load,
        run,
        feed_rows,
        feed_hashes,
        feed_second_hashes,
        message_rows,
        message_hashes,
        message_second_hashes,
        toUnixTimestamp(extracted_at) as extracted,
        contents
    from publications
    where event_date >= {first:Date} and event_date <= {last:Date}
    order by event_date, step desc, extracted_at desc, load desc
    limit 1 by event_date
    """
    found = [_publication(row) for row in db.rows(newest, first=first, last=last)]
    return {each.event_date: each for each in found}


def history(db: ClickHouse, day: date) -> list[Published]:
    """All publications of a day, in order: each replaced the one before.

    Raises:
        ClickHouseError: no server answers, or the tables are not there.
    """
    all_of_them = """
    -- The publications of a day, one row each; of those that took the same step at once, the valid one is last
    select
        load,
        run,
        toUnixTimestamp64Micro(published_at) as published
    from publications
    where event_date = {day:Date}
    order by step, publications.extracted_at, load
    """
    rows = db.rows(all_of_them, day=day)
    return [Published(row["load"], row["run"], datetime.fromtimestamp(row["published"] / 1e6, UTC)) for row in rows]


def replaced(db: ClickHouse, day: date, load: str) -> Published | None:
    """The publication of a day that a load replaced; None if it was the first.

    Raises:
        ClickHouseError: as `history`.
    """
    earlier: Published | None = None
    for each in history(db, day):
        if each.load == load:
            return earlier
        earlier = each
    return None


def _publication(row: Mapping[str, Any]) -> Publication:
    contents = json.loads(row["contents"] or "{}")
    return Publication(
        event_date=row["event_date"].date(),
        step=int(row["step"]),
        load=row["load"],
        run=row["run"],
        feed=Held(row["feed_rows"], row["feed_hashes"], row["feed_second_hashes"]),
        messages=Held(row["message_rows"], row["message_hashes"], row["message_second_hashes"]),
        extracted_at=datetime.fromtimestamp(int(row["extracted"]), UTC),
        contents={table: Contents(**each) for table, each in contents.items()},
    )


def publish(
    db: ClickHouse,
    day: date,
    *,
    load: str,
    run: str,
    staged: Mapping[str, str],
    dimensions: Sequence[str],
    feed: Held,
    messages: Held,
    extracted_at: datetime,
) -> Publication:
    """Publish all four tables of a day in one step, unless the published load has later extracts.

    Idempotent: repeated, it publishes the same again.

    Args:
        db: where.
        day: the day.
        load: the load that is staged.
        run: the run that made it, by its name in the archive.
        staged: the staging table of each of `TABLES`, with rows of this day and load only.
        dimensions: those that the source has.
        feed: what the feed held at extraction.
        messages: what the messenger held.
        extracted_at: when that was, see `made_at`.

    Returns:
        The current publication: this load's, or that of a load that was not extracted earlier.

    Raises:
        PublishingError: the tables of loads do not hold what was staged; nothing was published.
        ClickHouseError: a statement failed; nothing was published, unless it was the last one and no answer came.
    """
    contents = {table: read_contents(db, staged[table], day, load, _columns(db, table, dimensions)) for table in TABLES}
    for table, each in contents.items():
        if each.rows:  # ClickHouse refuses to replace a partition by an empty one
            db.replace_partition(f"{table}_loads", (day, load), staged[table])
        if (found := read_contents(db, f"{table}_loads", day, load, each.columns)) != each:
            raise PublishingError(
                f"{table}_loads holds {found.rows:,} rows of {day} where {each.rows:,} were staged, or different ones; "
                "nothing is published: run load again."
            )
    while True:
        last = publication(db, day)
        if last and last.load != load and _is_newer(last, extracted_at):
            return last
        own = Publication(day, last.step + 1 if last else 1, load, run, feed, messages, extracted_at, contents)
        db.write(
            [
                {
                    "event_date": day,
                    "step": own.step,
                    "load": load,
                    "run": run,
                    "feed_rows": feed.rows,
                    "feed_hashes": feed.hashes,
                    "feed_second_hashes": feed.second,
                    "message_rows": messages.rows,
                    "message_hashes": messages.hashes,
                    "message_second_hashes": messages.second,
                    "extracted_at": extracted_at,
                    "contents": json.dumps({table: vars(each) for table, each in contents.items()}),
                }
            ],
            "publications",
        )
        # Another load may have read the same last step, and its row may win though its extracts are older.
        now = publication(db, day)
        if now and (now.load == load or now.extracted_at >= extracted_at):
            return now


def _is_newer(last: Publication, extracted_at: datetime) -> bool:
    """Whether the published load was extracted later. A time far in the future only shows that a clock was wrong."""
    return extracted_at < last.extracted_at < datetime.now(UTC) + timedelta(days=1)


def parts(users: float) -> int:
    """In how many parts a statement that groups this many users is run."""
    return max(1, math.ceil(users / USERS_PER_PART))


def stage(
    db: ClickHouse, table: str, select: str, *, order_by: str = "tuple()", parts: int = 1, **values: Any
) -> Result:
    """Make a staging table from a SELECT, which is run once for each part of the users.

    Args:
        db: where.
        table: the table; it is replaced if it exists.
        select: the statement. `{parts:UInt32}` and `{part:UInt32}`, from 0, are bound in it, so that it picks its part.
        order_by: how the table is sorted; not at all unless given.
        parts: how many parts, see `parts`.
        values: what else to bind.

    Returns:
        What all parts did together.

    Raises:
        ClickHouseError: as `ClickHouse.execute`; the table may hold some of the parts.
    """
    create = f"create or replace table {{table:Identifier}} engine = MergeTree order by {order_by} as"
    insert = "insert into {table:Identifier}"
    return Result.sum(
        db.execute(f"{insert if part else create}\n{select}", table=table, parts=parts, part=part, **values)
        for part in range(parts)
    )


def unpublished(db: ClickHouse, first: date, end: date) -> list[date]:
    """The days that are not published, from `first` up to but without `end`, in order.

    Raises:
        ClickHouseError: no server answers, or the tables are not there.
    """
    days = """
    -- The published days of a time, one row per day
    select event_date
    from published_loads
    where event_date >= {first:Date} and event_date < {end:Date}
    """
    published = {moment.date() for moment in db.read(days, first=first, end=end)["event_date"]}
    window = (first + timedelta(days=number) for number in range((end - first).days))
    return [day for day in window if day not in published]


def read_parts(db: ClickHouse, select: str, *, parts: int, **values: Any) -> pd.DataFrame:
    """The rows of a SELECT that is run once for each part of the users, as `stage` runs it.

    Raises:
        ClickHouseError: as `ClickHouse.read`.
    """
    return pd.concat([db.read(select, parts=parts, part=part, **values) for part in range(parts)], ignore_index=True)


def made_at(db: ClickHouse, names: Iterable[str]) -> datetime:
    """When the first of these staging tables was created, to the second.

    Raises:
        ClickHouseError: no server answers.
    """
    made = """
    -- When the first of the staging tables was made, one row
    select toUnixTimestamp(min(metadata_modification_time))
    from system.tables
    where database = {database:String} and name in {names:Array(String)}
    """
    full = [db.full_name(name) for name in names]
    return datetime.fromtimestamp(int(db.value(made, database=db.database, names=full)), UTC)


def read_contents(db: ClickHouse, table: str, day: date, load: str, columns: list[str]) -> Contents:
    """What a table of loads, or a staging table with the same columns, holds of a load.

    Raises:
        ClickHouseError: the table or a column is not there, or no server answers.
    """
    listed = ", ".join(quoted(column) for column in columns)
    held = f"""
    -- What a table holds of a load, one row
    select count() as row_count, sum(cityHash64(tuple({listed}))) as hash
    from {{table:Identifier}}
    where event_date = {{day:Date}} and load = {{load:String}}
    """  # noqa: S608 (the columns are those of our own tables)
    (found,) = db.rows(held, table=table, day=day, load=load)
    return Contents(columns, int(found["row_count"]), int(found["hash"]))


def missing(db: ClickHouse, names: Iterable[str]) -> list[str]:
    """Which of these staging tables do not exist, in order.

    Raises:
        ClickHouseError: no server answers.
    """
    there = """
    -- The staging tables that exist, one row per table
    select name
    from system.tables
    where database = {database:String} and name in {names:Array(String)}
    """
    wanted = list(names)
    found = db.read(there, database=db.database, names=[db.full_name(name) for name in wanted])
    return sorted(set(wanted).difference(map(db.own_name, found["name"])))


def staging(db: ClickHouse, run: str) -> list[str]:
    """The names of a run's staging tables."""
    made = """
    -- The staging tables of a run, one row per table
    select name
    from system.tables
    where database = {database:String} and match(name, {staging:String}) and endsWith(name, {suffix:String})
    """
    found = db.read(made, database=db.database, staging=staging_names(db), suffix=f"__{run}")
    return [db.own_name(name) for name in found["name"]]


def staging_names(db: ClickHouse) -> str:
    """What the full names of staging tables match, as a regular expression."""
    return f"^{db.prefix}{STAGING}"


def _columns(db: ClickHouse, table: str, dimensions: Sequence[str]) -> list[str]:
    """The columns of a published table, in their order, without the dimensions that the source lacks: all `unknown`."""
    lacking = {each.column for each in DIMENSIONS if each.optional} - {*dimensions}
    named: list[str] = db.read("describe table {table:Identifier}", table=table)["name"].tolist()
    return [name for name in named if name not in lacking]
