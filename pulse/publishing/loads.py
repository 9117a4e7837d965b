"""How a day is published: its rows go into the tables of loads, which nobody reads; one inserted row publishes them.

What is promised. A day is published by one row in `publications`, for all three tables at once: before that row nothing
has changed for anybody, wherever the load was killed; after it everything has. Whoever reads one of the three tables
sees all of one load and nothing of another. Two statements may see two loads, when a day is published between them, and
so may the two sides of a join.

Loads of one day may run at the same time: each publishes what it computed, and in the end the one stays whose source
was extracted later, for all three tables and every reader. A load that was extracted before the one that is published
does not take its place: an old run that is repeated changes nothing.

A load that is not published any more is dropped an hour later, so that no statement that has begun loses its rows.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pulse import PulseError
from pulse.clickhouse import ClickHouse, quoted
from pulse.publishing import keeping

TABLES = ("user_activity", "dimension_activity", "daily_metrics")
"""What is published, as readers see it. The rows of all loads are in `<table>_loads`."""


STAGING = rf"^((feed|message|earlier)_(hours|users|attributes)|attributes|users|{'|'.join(TABLES)})__"
"""The names of the tables that a run makes for itself: what they hold, and whose they are."""


class PublishingError(PulseError):
    """A day cannot be published, or what is published cannot be read."""


@dataclass(frozen=True)
class Contents:
    """What a table held: how many rows, and a sum of hashes of these columns, which no changed row leaves as it was."""

    columns: list[str]
    rows: int
    hash: int


@dataclass(frozen=True)
class Held:
    """What a source held of a day when it was extracted, for each hour since the day began."""

    rows: list[int]
    """Empty: nobody counted."""
    hashes: list[int]
    """Sums of hashes of those rows, as `schema.sql` says; empty: unknown."""


@dataclass(frozen=True)
class Publication:
    """Which load of a day is published, who made it, and what it was made from."""

    event_date: date
    step: int
    load: str
    run: str
    feed: Held
    messages: Held
    extracted_at: datetime
    """When the earlier of the two extracts began, within a second; 1970: unknown."""
    contents: dict[str, Contents]
    """By table; empty for days that were published before there were loads."""


def publication(db: ClickHouse, day: date) -> Publication | None:
    """The publication of a day that counts, None where the day is not published.

    Raises:
        ClickHouseError: no server answers, or the tables are not there.
    """
    newest = """
    -- The publication of a day that counts, at most one row
    select
        step,
        load,
        run,
        feed_rows,
        feed_hashes,
        message_rows,
        message_hashes,
        toUnixTimestamp(extracted_at) as extracted,
        contents
    from publications
    where event_date = {day:Date}
    order by step desc, extracted_at desc, load desc
    limit 1
    """
    found = db.rows(newest, day=day)
    if not found:
        return None
    (row,) = found
    contents = json.loads(row["contents"] or "{}")
    return Publication(
        event_date=day,
        step=int(row["step"]),
        load=row["load"],
        run=row["run"],
        feed=Held(row["feed_rows"], row["feed_hashes"]),
        messages=Held(row["message_rows"], row["message_hashes"]),
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
    feed: Held,
    messages: Held,
    extracted_at: datetime,
) -> Publication:
    """Publish a day: all three tables, in one step; unless it is published from later extracts, and so stays as it is.

    Repeated, it publishes the same again.

    Args:
        db: where.
        day: the day.
        load: the load that is staged.
        run: whose it is, as the archive names it.
        staged: the staging table of each of `TABLES`, with rows of this day and load only.
        feed: what the feed held when it was extracted.
        messages: what the messenger held.
        extracted_at: when that was: see `made_at`.

    Returns:
        The publication that counts: of this load, or of one that was extracted no earlier.

    Raises:
        PublishingError: the loads do not hold what was staged; the day is as it was.
        ClickHouseError: a statement failed; unless it was the last one and no answer came, the day is as it was.
    """
    contents = {table: read_contents(db, staged[table], day, load, _columns(db, table)) for table in TABLES}
    for table, each in contents.items():
        if each.rows:  # ClickHouse refuses to replace a partition by an empty one
            db.replace_partition(f"{table}_loads", (day, load), staged[table])
        if (found := read_contents(db, f"{table}_loads", day, load, each.columns)) != each:
            raise PublishingError(
                f"{table}_loads holds {found.rows:,} rows of {day} where {each.rows:,} were staged, or others; "
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
                    "message_rows": messages.rows,
                    "message_hashes": messages.hashes,
                    "extracted_at": extracted_at,
                    "contents": json.dumps({table: vars(each) for table, each in contents.items()}),
                }
            ],
            "publications",
        )
        # Where others read the same last step, the row of one of them may count, though its extracts are older.
        now = publication(db, day)
        if now and (now.load == load or now.extracted_at >= extracted_at):
            return now


def _is_newer(last: Publication, extracted_at: datetime) -> bool:
    """Whether what is published was extracted later; a time far ahead only shows that a clock was wrong."""
    return extracted_at < last.extracted_at < datetime.now(UTC) + timedelta(days=1)


def made_at(db: ClickHouse, names: Iterable[str]) -> datetime:
    """When the first of these staging tables was made, within a second.

    Raises:
        ClickHouseError: no server answers.
    """
    made = """
    -- When the first of the staging tables was made, one row
    select toUnixTimestamp(min(metadata_modification_time))
    from system.tables
    where database = {database:String} and name in {names:Array(String)}
    """
    return datetime.fromtimestamp(int(db.value(made, database=db.database, names=list(names))), UTC)


def read_contents(db: ClickHouse, table: str, day: date, load: str, columns: list[str]) -> Contents:
    """What a table of loads, or a staging table of the same shape, holds of a load.

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


def drop_unread(db: ClickHouse) -> list[str]:
    """Drop what nobody reads any more, when `pulse.publishing.keeping` says so; gives the names.

    These are loads that others took the place of, loads that were never published, and staging tables of runs. Until
    then, a load can be repeated and looked into.

    Raises:
        ClickHouseError: as `ClickHouse.execute`.
    """
    loads = """
    -- Partitions of loads that nobody reads, one row per table and partition
    with published as (
        select concat('(\\'', toString(event_date), '\\',\\'', load, '\\')') as partition
        from published_loads
    ),

    replaced as (
        select
            concat('(\\'', toString(publications.event_date), '\\',\\'', publications.load, '\\')') as partition,
            max(latest.published_at) as replaced_at
        from publications
        inner join (
            select event_date, max(published_at) as published_at from publications group by event_date
        ) as latest using (event_date)
        group by partition
    )

    select
        parts.table as table,
        parts.partition as partition
    from system.parts as parts
    left join replaced on replaced.partition = parts.partition
    where
        parts.active
        and parts.database = {database:String}
        and parts.table in {tables:Array(String)}
        and parts.partition not in (select partition from published)
    group by parts.table, parts.partition
    having if(
        toUnixTimestamp(max(replaced.replaced_at)) > 0,
        max(replaced.replaced_at) < now() - toIntervalHour({replaced_hours:UInt32}),
        max(parts.modification_time) < now() - toIntervalDay({unpublished_days:UInt32})
    )
    """
    staging = """
    -- Staging tables of runs that ended or broke off long ago, one row per table
    select name
    from system.tables
    where
        database = {database:String}
        and match(name, {staging:String})
        and metadata_modification_time < now() - toIntervalDay({staging_days:UInt32})
    """
    dropped = []
    tables = [f"{table}_loads" for table in TABLES]
    ages = {"replaced_hours": keeping.REPLACED_HOURS, "unpublished_days": keeping.UNPUBLISHED_DAYS}
    for row in db.read(loads, database=db.database, tables=tables, **ages).itertuples():
        db.execute(f"alter table {{table:Identifier}} drop partition {row.partition}", table=row.table)
        dropped.append(f"{row.table} {row.partition}")
    left = {"database": db.database, "staging": STAGING, "staging_days": keeping.STAGING_DAYS}
    for name in db.read(staging, **left)["name"]:
        db.execute("drop table if exists {table:Identifier}", table=name)
        dropped.append(name)
    return dropped


def missing(db: ClickHouse, names: Iterable[str]) -> list[str]:
    """Those of these staging tables that are not there, in order.

    Raises:
        ClickHouseError: no server answers.
    """
    there = """
    -- The staging tables that are there, one row per table
    select name
    from system.tables
    where database = {database:String} and name in {names:Array(String)}
    """
    wanted = list(names)
    return sorted(set(wanted).difference(db.read(there, database=db.database, names=wanted)["name"]))


def staging(db: ClickHouse, run: str) -> list[str]:
    """The names of the staging tables that a run has made."""
    made = """
    -- The staging tables of a run, one row per table
    select name
    from system.tables
    where database = {database:String} and match(name, {staging:String}) and endsWith(name, {suffix:String})
    """
    return db.read(made, database=db.database, staging=STAGING, suffix=f"__{run}")["name"].tolist()


def _columns(db: ClickHouse, table: str) -> list[str]:
    """The columns of a published table, in their order."""
    return db.read("describe table {table:Identifier}", table=table)["name"].tolist()
