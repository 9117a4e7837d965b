"""How long everything is kept; the nightly DAG `retention` deletes what is older.

The documentation shows these numbers too, which a test compares.
"""

from dataclasses import dataclass

ARCHIVE_DAYS, LOG_DAYS = 30, 90
STAGING_DAYS, UNPUBLISHED_DAYS = 1, 2  # of staging tables, and of loads that were never published
REPLACED_HOURS = 1  # of the users of a load that another one replaced: no statement that reads it takes longer
REPLACED_DAYS = 400  # of the metrics and slices of such a load: what `pulse as-of` can look back on


@dataclass(frozen=True)
class Kept:
    """How many days a table's rows are kept at least. A month is deleted as a whole, once its last day is older.

    Args:
        table: partitioned by month.
        days: how long.
        why: what the rows are needed for.
    """

    table: str
    days: int
    why: str


TABLES = (
    Kept("metric_buckets", 400, "what buckets are compared with, and a year to replay"),
    Kept("verdicts", 100, "incidents need those of two days; the rest is for looking back"),
    Kept("incidents", 800, "two years of what happened"),
)
"""What is not listed in this file is kept forever."""
