"""What is kept how long, stated once: the nightly DAG `retention` goes by it, and README's table is that of a test."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

ARCHIVE_DAYS, LOG_DAYS = 30, 90
STAGING_DAYS, UNPUBLISHED_DAYS = 1, 2  # of runs that ended or broke off, and of loads that nobody published
REPLACED_HOURS = 1  # of a load whose place another one took: no statement that reads it takes longer


@dataclass(frozen=True)
class Kept:
    """For how many days at least a table's rows are kept; a month goes as a whole, once its last day is older."""

    table: str
    days: int
    why: str


TABLES = (
    Kept("metric_buckets", 400, "what buckets are compared with, and a year to replay"),
    Kept("verdicts", 100, "what incidents are made from needs two days; the rest is for looking back"),
    Kept("incidents", 800, "two years of what happened"),
)
"""Partitioned by month. What is not listed in this file is kept for ever."""


def clean(db: Any, now: datetime | None = None) -> list[str]:
    """Drop what is kept no longer, whole partitions only; gives what was dropped, by table and partition.

    Args:
        db: the project's `ClickHouse`.
        now: another moment than this one.

    Raises:
        ClickHouseError: a partition cannot be dropped, or no server answers.
    """
    from pulse.publishing import loads  # it loads pandas, which the DAG's file need not

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
    for kept in TABLES:
        last = (now or datetime.now(UTC)) - timedelta(days=kept.days)
        names = {"database": db.database, "table": kept.table, "month": last.year * 100 + last.month}
        for partition in db.read(found, **names)["partition"]:
            db.execute(f"alter table {{table:Identifier}} drop partition {int(partition)}", table=kept.table)
            dropped.append(f"{kept.table} {partition}")
    return dropped + loads.drop_unread(db)
