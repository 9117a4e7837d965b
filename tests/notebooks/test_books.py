"""What the books of a published day say: every column of every table, and the source, each falsified in turn."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from notebooks.etl import FEED, MESSAGES, Etl
from pulse import books, settings
from pulse.reconcile import DisagreementError, reconcile
from pulse.sandbox.clickhouse import Server

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)
TABLES = ["user_activity", "dimension_activity", "the source"]


def config_of(etl: Etl) -> settings.Settings:
    """The settings of somebody who has the ETL and nothing else."""
    return settings.load(**etl.environment, PULSE_OUTPUT="/nonexistent")


@contextmanager
def computing(server: Server) -> Iterator[Etl]:
    """A published day in whose tables hardly any two numbers are equal."""
    with Etl.fresh(server, DAY) as etl:
        for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
            etl.create_source(table, columns | {"time": "DateTime64(3)"})
        etl.feed(
            *[(1, "view", f"10:{minute:02}", *IOS) for minute in range(10)],
            *[(2, "view", "23:59:59.999", *ANDROID)] * 5,
            *[(2, "like", "11:00", *ANDROID)] * 3,
            (3, "like", "12:00", *IOS),
        )
        etl.messages(
            (1, 2, "10:00", *IOS),
            (1, 3, "10:00", *IOS),
            (2, 3, "10:01", *ANDROID),
            (4, 1, "10:02", *ANDROID),
            (4, 5, "10:03", *ANDROID),
        )
        etl.run()
        yield etl


@pytest.fixture(scope="module")
def computed(clickhouse_server: Server) -> Iterator[Etl]:
    """The day, for tests that change what is published."""
    with computing(clickhouse_server) as etl:
        yield etl


@pytest.fixture
def own_day(clickhouse_server: Server) -> Iterator[Etl]:
    """The day, for a test that changes the source."""
    with computing(clickhouse_server) as etl:
        yield etl


@pytest.fixture
def day(computed: Etl) -> Etl:
    """The day as it was published."""
    computed.run(steps=["load"])
    return computed


def forget(etl: Etl, what: str) -> None:
    """Let the day look as if it had been published before that was recorded."""
    etl.db.execute(
        f"alter table {{database:Identifier}}.publications update {what} where true settings mutations_sync = 1",
        database=etl.db.database,
    )


def falsify(etl: Etl, table: str, what: str) -> None:
    """Change what is published, behind everybody's back."""
    etl.db.execute(
        f"alter table {{database:Identifier}}.{table}_loads {what} settings mutations_sync = 1",
        database=etl.db.database,
    )


def said(etl: Etl) -> str:
    with pytest.raises(DisagreementError) as told:
        reconcile(DAY, config_of(etl))
    return str(told.value)


def test_a_day_agrees_with_itself_and_the_source(day: Etl) -> None:
    assert reconcile(DAY, config_of(day)) == TABLES
    assert books.late_days(DAY, config_of(day)) == []


@pytest.mark.parametrize(
    ("table", "column", "named"),
    [
        *(("daily_metrics", column, column) for column in (
            "feed_users", "messenger_users", "app_users", "both_users", "views", "likes", "ctr", "messages_sent",
            "messages_received", "sent_per_received",
        )),
        *(("dimension_activity", column, f"{column} of os iOS is") for column in (
            "views", "likes", "messages_received", "messages_sent", "users_received", "users_sent",
        )),
        *(("user_activity", column, column) for column in ("views", "likes", "messages_received", "messages_sent")),
        # Nothing else knows these; that they were changed is known.
        *(("user_activity", column, "user_activity was changed") for column in ("users_received", "users_sent")),
    ],
)  # fmt: skip
def test_every_number_is_looked_at(day: Etl, table: str, column: str, named: str) -> None:
    where = {"daily_metrics": "true", "dimension_activity": "dimension_value = 'iOS'", "user_activity": "user_id = '1'"}
    falsify(day, table, f"update {column} = {column} + 1000000 where {where[table]}")
    text = said(day)
    assert named in text
    assert f"{table} was changed after it was published" in text
    # Not by the hash alone, of the days from before there was one.
    if named != "user_activity was changed":
        forget(day, "contents = ''")
        assert named in said(day)


@pytest.mark.parametrize(
    ("table", "what", "named"),
    [
        ("user_activity", "delete where true", "user_activity has 0 rows, 5 were published"),
        (
            "user_activity",
            "update os = 'iPadOS' where user_id = '3'",
            "likes of os iOS is 1 in dimension_activity, 0 f",
        ),
        (
            "user_activity",
            "update feed_active = false where user_id = '2'",
            "feed_users is 3 in daily_metrics, 2 in user",
        ),
        ("user_activity", "update age = '7' where user_id = '5'", "user_activity was changed"),
        ("dimension_activity", "delete where dimension_value = 'unknown'", "dimension_activity has"),
    ],
)
def test_rows_that_are_gone_or_others_are_told(day: Etl, table: str, what: str, named: str) -> None:
    falsify(day, table, what)
    assert named in said(day)


def test_a_day_published_wrong_from_the_start_does_not_agree_with_the_source(day: Etl) -> None:
    """Tables that agree with each other, because all were made from the same wrong rows."""
    falsify(day, "user_activity", "update views = 0 where user_id = '2'")
    falsify(day, "dimension_activity", "update views = views - 5 where dimension_value in ('Android', 'male', '40')")
    falsify(day, "daily_metrics", "update views = 10, ctr = 0.4 where true")
    forget(day, "contents = ''")
    assert (
        said(day)
        == f"The numbers of {DAY} are not the same everywhere: views is 10 in daily_metrics, 15 in the source."
    )


def test_rows_that_came_after_the_day_was_published_are_late_data_and_no_error(own_day: Etl) -> None:
    own_day.feed((1, "view", "00:10", *IOS), (9, "view", "00:20", *IOS), (9, "view", "23:59:59.999", *IOS))
    config = config_of(own_day)
    assert reconcile(DAY, config) == TABLES[:2]
    (late,) = books.late_data(DAY, config)
    assert (late.source, late.published, late.now, late.hours) == ("feed_actions", 19, 22, (0, 23))
    assert str(late) == (
        "feed_actions holds 3 more rows of 2025-03-12 than when it was published, in hours 0 to 23 of the day; "
        "`pulse daily 2025-03-12` publishes the day anew"
    )
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pulse"), "reconcile", str(DAY)],
        env={**os.environ, **own_day.environment, "PULSE_OUTPUT": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            f"The numbers of {DAY} are the same in daily_metrics, user_activity, dimension_activity.",
            f"Late data: {late}.",
        ],
    )
    own_day.run()
    assert books.late_data(DAY, config) == []
    assert reconcile(DAY, config) == TABLES


def test_rows_that_are_gone_or_moved_since_are_told_too(own_day: Etl) -> None:
    own_day.source.execute(
        "alter table {database:Identifier}.message_actions delete where user_id = 4 settings mutations_sync = 1",
        database=own_day.source.database,
    )
    (late,) = books.late_data(DAY, config_of(own_day))
    assert (late.source, late.published, late.now, late.hours) == ("message_actions", 5, 3, (10,))
    assert "holds 2 fewer rows of 2025-03-12 than when it was published, in hour 10 of the day" in str(late)


def test_a_day_from_before_anybody_counted_is_compared_among_its_tables(own_day: Etl) -> None:
    forget(own_day, "feed_rows = [], message_rows = [], contents = ''")
    own_day.feed((1, "view", "00:10", *IOS))
    assert reconcile(DAY, config_of(own_day)) == TABLES[:2]
    assert books.late_data(DAY, config_of(own_day)) == []
