"""Rows are deleted in whole months, once all rows of the month are older than they have to be kept."""

from datetime import UTC, datetime, timedelta

from notebooks.etl import Etl
from pulse import schema
from pulse.publishing import cleaning, keeping


def test_every_table_that_is_cleaned_is_one_of_months_and_loses_the_old_ones(etl: Etl) -> None:
    schema.ensure(etl.db)
    now = datetime(2026, 11, 26, tzinfo=UTC)
    for kept in keeping.TABLES:
        by = {"metric_buckets": "bucket", "verdicts": "bucket", "incidents": "opened"}[kept.table]
        for days in (kept.days + 40, kept.days - 1):
            moment = now - timedelta(days=days)
            etl.db.execute(
                f"insert into {kept.table} ({by}) select {{moment:DateTime64(6)}}",  # the other columns have defaults
                moment=moment,
            )
    months = [now - timedelta(days=kept.days + 40) for kept in keeping.TABLES]
    assert cleaning.clean(etl.db, now) == [
        f"{kept.table} {month:%Y%m}" for kept, month in zip(keeping.TABLES, months, strict=True)
    ]
    counted = "select count() from {table:Identifier}"
    assert [etl.db.value(counted, table=kept.table) for kept in keeping.TABLES] == [1, 1, 1]


def test_months_go_once_their_last_day_is_older(etl: Etl) -> None:
    schema.ensure(etl.db)
    days = ["2025-01-31 12:00:00", "2025-02-01 12:00:00", "2025-05-20 12:00:00"]
    for day in days:
        etl.db.execute("insert into verdicts (bucket, kind) select {day:DateTime('UTC')}, 'normal'", day=day)
    assert cleaning.clean(etl.db, datetime(2025, 5, 11, 23, tzinfo=UTC)) == []  # 100 days after the 31st of January
    assert cleaning.clean(etl.db, datetime(2025, 5, 12, tzinfo=UTC)) == ["verdicts 202501"]
    assert cleaning.clean(etl.db, datetime(2025, 5, 12, tzinfo=UTC)) == []
    left = etl.db.read("select toString(toDate(bucket, 'UTC')) as day from verdicts order by bucket")["day"].tolist()
    assert left == ["2025-02-01", "2025-05-20"]
