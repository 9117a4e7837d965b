"""Deletes from ClickHouse what is not kept any longer."""

from datetime import UTC, datetime, timedelta

from pulse.clickhouse import ClickHouse
from pulse.publishing import keeping
from pulse.publishing.loads import BY_USER, TABLES, staging_names


def clean(db: ClickHouse, now: datetime | None = None) -> list[str]:
    """Drop the partitions that are older than `pulse.publishing.keeping` says; returns them by table and partition.

    Args:
        db: where the tables are.
        now: the time to count from; the current time unless given.

    Raises:
        ClickHouseError: a partition cannot be dropped, or no server answers.
    """
    found = """
    -- Partitions by month of a table that ended before a day, one row per partition
    select distinct partition
    from system.parts
    where
        active
        and database = {database:String}
        and table = {table:String}
        and toUInt32OrZero(partition) < {month:UInt32}
    order by partition
    """
    dropped = []
    for kept in keeping.TABLES:
        last = (now or datetime.now(UTC)) - timedelta(days=kept.days)
        names = {"database": db.database, "table": db.full_name(kept.table), "month": last.year * 100 + last.month}
        for partition in db.read(found, **names)["partition"]:
            db.execute(f"alter table {{table:Identifier}} drop partition {int(partition)}", table=kept.table)
            dropped.append(f"{kept.table} {partition}")
    return dropped + drop_unread(db)


def drop_unread(db: ClickHouse) -> list[str]:
    """Drop what nobody reads any more, once it is old enough; returns the names.

    That is: the users of loads that were replaced, later the rest of these loads, loads that were never published, and
    staging tables of runs. Until then, a load can be repeated and its tables inspected.

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
        max(replaced.replaced_at) < now() - toIntervalHour(
            if(table in {by_user:Array(String)}, {replaced_hours:UInt32}, 24 * {replaced_days:UInt32})
        ),
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
    tables = [db.full_name(f"{table}_loads") for table in TABLES]
    by_user = [db.full_name(f"{table}_loads") for table in BY_USER]
    ages = {
        "replaced_hours": keeping.REPLACED_HOURS,
        "replaced_days": keeping.REPLACED_DAYS,
        "unpublished_days": keeping.UNPUBLISHED_DAYS,
    }
    for row in db.read(loads, database=db.database, tables=tables, by_user=by_user, **ages).itertuples():
        table = db.own_name(str(row.table))
        db.execute(f"alter table {{table:Identifier}} drop partition {row.partition}", table=table)
        dropped.append(f"{table} {row.partition}")
    left = {"database": db.database, "staging": staging_names(db), "staging_days": keeping.STAGING_DAYS}
    for name in map(db.own_name, db.read(staging, **left)["name"]):
        db.execute("drop table if exists {table:Identifier}", table=name)
        dropped.append(name)
    return dropped
