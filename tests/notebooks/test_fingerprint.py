"""The fingerprint of a day: what extracts record and what is found later are the same, and any change changes it."""

from datetime import date, timedelta

import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import FEED, MESSAGES, Etl
from pulse import settings
from pulse.metrics import SOURCES
from pulse.publishing import late_data, loads

IOS = ("iOS", "female", 25)
ANDROID = ("Android", "male", 40)


def config_of(etl: Etl) -> settings.Settings:
    return settings.load(**etl.environment, PULSE_OUTPUT="/nonexistent")


@pytest.mark.parametrize(("middle", "hours"), [(date(2025, 3, 30), 23), (date(2025, 10, 26), 25)])
def test_days_read_at_once_have_the_fingerprints_that_their_extracts_recorded(
    clickhouse_server: Server, middle: date, hours: int
) -> None:
    """In spring and autumn too, when a day has 23 or 25 hours, and with rows at both ends of the days."""
    days = [middle + timedelta(days=number) for number in (-1, 0, 1)]
    with Etl.fresh(clickhouse_server, middle, "Europe/Berlin") as etl:
        for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
            etl.create_source(table, columns | {"time": "DateTime64(6)"})
        for number, day in enumerate(days):
            times = [f"{day} {clock}" for clock in ("00:00", "04:30", "04:30", "23:59:59.999999")]
            etl.feed(*[(number + 1, "view", time, *IOS) for time in times])
            etl.messages(*[(number + 1, 2, time, *ANDROID) for time in times])
            etl.run(day)
        config = config_of(etl)
        published = loads.publications(etl.db, days[0], days[-1])
        assert list(published) == days
        assert [len(published[day].feed.rows) for day in days] == [24, hours, 24]
        for source in SOURCES:
            found = late_data.held(etl.db, config, source, days)
            for day in days:
                recorded = late_data._recorded(published[day], source)
                assert sum(found[day].rows) == 4
                assert (found[day].rows, found[day].hashes, found[day].second) == (
                    recorded.rows,
                    recorded.hashes,
                    recorded.second,
                )
                assert found[day].hashes[0] not in (0, found[day].second[0])
        etl.feed((1, "like", f"{middle} 23:30", *IOS))
        (late,) = late_data.late_days(days[-1], config)
        assert (late.event_date, late.hours, late.more) == (middle, (hours - 1,), (1,))


CHANGES = {
    "a row is there twice": ("insert into feed_actions select * from feed_actions where user_id = 1", 1),
    "all rows are there twice": ("insert into feed_actions select * from feed_actions", 4),
    "two rows swap their attributes": (
        "alter table {database:Identifier}.feed_actions "
        "update os = if(os = 'iOS', 'Android', 'iOS') where user_id in (1, 2)",
        0,
    ),
    "two rows swap their users": (
        "alter table {database:Identifier}.feed_actions update user_id = 3 - user_id where user_id in (1, 2)",
        0,
    ),
    "a row moves within its hour": (
        "alter table {database:Identifier}.feed_actions update time = addMilliseconds(time, 1) where user_id = 3",
        0,
    ),
    "one row leaves and its like comes": (
        "alter table {database:Identifier}.feed_actions update action = 'like' where user_id = 4",
        0,
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_both_sums_notice(etl: Etl, what: str) -> None:
    columns = FEED | {"time": "DateTime64(3)", "user_id": "UInt64"}
    etl.create_source("feed_actions", columns, layout="unordered")
    rows = [(1, "view", "10:00", *IOS), (2, "view", "10:00", *ANDROID), (3, "view", "10:10"), (4, "view", "10:10")]
    etl.feed(*rows)
    etl.messages((1, 2, "10:00", *IOS))
    etl.run()
    before = late_data.held(etl.db, config_of(etl), "feed_actions", [etl.day])[etl.day]
    sql, more = CHANGES[what]
    synchronous = " settings mutations_sync = 1" if sql.startswith("alter") else ""
    etl.source.execute(sql + synchronous, database=etl.source.database)
    now = late_data.held(etl.db, config_of(etl), "feed_actions", [etl.day])[etl.day]
    assert sum(now.rows) - sum(before.rows) == more
    assert now.hashes[10] != before.hashes[10]
    assert now.second[10] != before.second[10]


def test_the_order_of_the_rows_is_of_no_account(etl: Etl) -> None:
    rows = [(user, "view", f"{user % 24:02}:10", *IOS) for user in range(1, 50)]
    etl.create_source("feed_actions", FEED, layout="unordered")
    etl.feed(*rows)
    etl.messages((1, 2, "10:00", *IOS))
    etl.run()
    first = late_data.held(etl.db, config_of(etl), "feed_actions", [etl.day])
    etl.source.execute("truncate table feed_actions")
    etl.feed(*rows[25:])
    etl.feed(*reversed(rows[:25]))
    assert late_data.held(etl.db, config_of(etl), "feed_actions", [etl.day]) == first
