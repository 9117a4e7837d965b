"""A published day is reconciled: each column of each table, and the source, is falsified in turn."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import FEED, MESSAGES, OPTIONAL, SHAPES, Etl, split_by
from pulse import settings
from pulse.metrics import DIMENSIONS, columns
from pulse.publishing.agreement import USERS_FROM
from pulse.publishing.late_data import late_data, late_days
from pulse.publishing.slices import COUNTS, PARTNERS
from pulse.reports.reconcile import DisagreementError, reconcile

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25, "KZ", "Almaty", "ads", 1), ("Android", "male", 40, "RU", "Tver", "organic", 0)
TABLES = ["user_activity", "dimension_activity", "dimension_metrics", "the source"]


def config_of(etl: Etl) -> settings.Settings:
    """Return the settings of an installation that has the ETL and nothing else."""
    return settings.load(**etl.environment, PULSE_OUTPUT="/nonexistent")


@contextmanager
def computing(server: Server) -> Iterator[Etl]:
    """Publish a day whose tables have hardly any two equal numbers."""
    with Etl.fresh(server, DAY) as etl, TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
        split_by(Path(folder), OPTIONAL)
        environment.setenv("PULSE_SOURCE", folder)
        for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
            etl.create_source(table, columns | OPTIONAL | {"time": "DateTime64(3)"})
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
    """The day, published again without the changes of earlier tests."""
    computed.run(steps=["load"])
    return computed


def forget(etl: Etl, what: str) -> None:
    """Make the day look as if it had been published before Pulse recorded these columns."""
    etl.db.execute(
        f"alter table {{database:Identifier}}.publications update {what} where true settings mutations_sync = 1",
        database=etl.db.database,
    )


def falsify(etl: Etl, table: str, what: str) -> None:
    """Change a published table directly, without a load."""
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
    assert late_days(DAY, config_of(day)) == []


SAID = {
    "daily_metrics": "{} is",
    "dimension_activity": "{} of os iOS is",
    "dimension_metrics": "{} of os iOS is",
    "user_activity": "{} differs between user_activity and the source for 1 user, such as 1",
}


@pytest.mark.parametrize("table", SHAPES)
def test_every_number_is_looked_at(day: Etl, table: str) -> None:
    """A change shows against the record of what was published and, without one, against other tables and the source."""
    numbers = [column for column, kind in SHAPES[table].items() if kind in ("UInt64", "Nullable(Float64)")]
    where = {"daily_metrics": "true", "user_activity": "user_id = '1'"}
    falsified = ", ".join(f"{column} = {column} + {10**6 + place}" for place, column in enumerate(numbers))
    chosen = where.get(table, "dimension_value = 'iOS'")
    falsify(day, table, f"update {falsified} where {chosen}")
    expected = [SAID[table].format(column) for column in numbers]
    text = said(day)
    assert [sentence for sentence in expected if sentence not in text] == []
    assert f"{table} was changed after it was published" in text
    forget(day, "contents = ''")
    text = said(day)
    assert [sentence for sentence in expected if sentence not in text] == []


def test_what_a_user_is_is_looked_at_too(day: Etl) -> None:
    falsified = ", ".join(f"{dimension.column} = 'x'" for dimension in DIMENSIONS)
    falsify(day, "user_activity", f"update {falsified}, feed_active = false where true")
    forget(day, "contents = ''")
    text = said(day)
    # Users 1 to 4 acted, and 1 to 3 of them in the feed. No action has the attributes of user 5, who only received.
    for column, users in [*((dimension.column, 4) for dimension in DIMENSIONS), ("feed_active", 3)]:
        assert f"{column} differs between user_activity and the source for {users} users, such as" in text


def test_a_user_who_is_nowhere_else_is_told(day: Etl) -> None:
    day.db.execute(
        "insert into user_activity_loads select * replace ('6' as user_id, 0 as views, 0 as likes, 0 as messages_sent,"
        " 0 as messages_received, 0 as users_sent, 0 as users_received, false as feed_active)"
        " from user_activity_loads where load in (select load from published_loads) limit 1"
    )
    forget(day, "contents = ''")
    assert said(day) == (
        f"The numbers of {DAY} are not the same everywhere: "
        "user_id differs between user_activity and the source for 1 user, such as 6."
    )
    falsify(day, "user_activity", "delete where user_id = '6'")


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
        ("dimension_metrics", "delete where dimension_value = 'unknown'", "dimension_metrics has"),
        (
            "dimension_metrics",
            "update ctr = null where dimension_value = 'iOS'",
            "ctr of os iOS is – in dimension_metrics, 0.",
        ),
    ],
)
def test_rows_that_are_gone_or_others_are_told(day: Etl, table: str, what: str, named: str) -> None:
    falsify(day, table, what)
    assert named in said(day)


def test_a_day_published_wrong_from_the_start_does_not_agree_with_the_source(day: Etl) -> None:
    """The tables agree with each other, because all were made from the same wrong rows."""
    falsify(day, "user_activity", "update views = 0 where user_id = '2'")
    androids = ", ".join(f"'{value}'" for value in ANDROID)
    falsify(day, "dimension_activity", f"update views = views - 5 where dimension_value in ({androids})")
    falsify(day, "dimension_metrics", f"update views = 0, ctr = null where dimension_value in ({androids})")
    falsify(day, "daily_metrics", "update views = 10, ctr = 0.4 where true")
    forget(day, "contents = ''")
    assert said(day) == (
        f"The numbers of {DAY} are not the same everywhere: views is 10 in daily_metrics, 15 in the source; "
        "ctr is 0.4 in daily_metrics, 0.2666666667 in the source; "
        "views differs between user_activity and the source for 1 user, such as 2."
    )


def test_rows_that_came_after_the_day_was_published_are_late_data_and_no_error(own_day: Etl) -> None:
    own_day.feed((1, "view", "00:10", *IOS), (9, "view", "00:20", *IOS), (9, "view", "23:59:59.999", *IOS))
    config = config_of(own_day)
    assert reconcile(DAY, config) == [*TABLES[:3], "message_actions"]
    (late,) = late_data(DAY, config)
    assert (late.source, late.published, late.now, late.hours) == ("feed_actions", 19, 22, (0, 23))
    assert str(late) == (
        "feed_actions holds 3 more rows of 2025-03-12 than when it was published, in hours 0 to 23 of the day; "
        "`pulse daily 2025-03-12` publishes the day again"
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
            f"The numbers of {DAY} are the same in daily_metrics, user_activity, dimension_activity, "
            "dimension_metrics, message_actions.",
            f"Late data: {late}.",
        ],
    )
    own_day.run()
    assert late_data(DAY, config) == []
    assert reconcile(DAY, config) == TABLES


def test_rows_that_are_gone_or_moved_since_are_told_too(own_day: Etl) -> None:
    own_day.source.execute(
        "alter table {database:Identifier}.message_actions delete where user_id = 4 settings mutations_sync = 1",
        database=own_day.source.database,
    )
    (late,) = late_data(DAY, config_of(own_day))
    assert (late.source, late.published, late.now, late.hours) == ("message_actions", 5, 3, (10,))
    assert "holds 2 fewer rows of 2025-03-12 than when it was published, in hour 10 of the day" in str(late)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("feed_actions", "action = 'like' where user_id = 1"),
        pytest.param("feed_actions", "os = 'Android' where user_id = 1", marks=pytest.mark.prove),
        pytest.param("feed_actions", "os = null where user_id = 1", marks=pytest.mark.prove),
        pytest.param("feed_actions", "action = 'share' where user_id = 1", marks=pytest.mark.prove),
        ("message_actions", "age = 7 where user_id = 1"),
    ],
)
def test_rows_that_were_changed_in_place_are_late_data_and_no_error(own_day: Etl, table: str, what: str) -> None:
    """The hours have as many rows as before."""
    own_day.source.execute(
        f"alter table {{database:Identifier}}.{table} update {what} settings mutations_sync = 1",
        database=own_day.source.database,
    )
    other = {"feed_actions": "message_actions", "message_actions": "feed_actions"}[table]
    assert reconcile(DAY, config_of(own_day)) == [*TABLES[:3], other]
    (late,) = late_data(DAY, config_of(own_day))
    assert (late.source, late.now - late.published, late.hours) == (table, 0, (10,))
    assert f"{table} holds other rows of {DAY} than when it was published, in hour 10 of the day" in str(late)
    # Either hash is enough. Days that were published before hashes were recorded are compared by their numbers of rows.
    forget(own_day, "feed_hashes = [], message_hashes = []")
    assert late_data(DAY, config_of(own_day)) == [late]
    own_day.run()
    own_day.source.execute(
        f"alter table {{database:Identifier}}.{table} update age = 8 where user_id = 1 settings mutations_sync = 1",
        database=own_day.source.database,
    )
    forget(own_day, "feed_second_hashes = [], message_second_hashes = []")
    assert [each.hours for each in late_data(DAY, config_of(own_day))] == [(10,)]
    forget(own_day, "feed_hashes = [], message_hashes = []")
    assert late_data(DAY, config_of(own_day)) == []


def test_of_a_day_whose_feed_is_late_the_messages_are_still_compared(own_day: Etl) -> None:
    own_day.feed((9, "view", "00:20", *IOS))
    falsify(own_day, "user_activity", "update views = 7, users_received = 8 where user_id = '2'")
    forget(own_day, "contents = ''")
    text = said(own_day)
    assert "users_received differs between user_activity and the source for 1 user, such as 2" in text
    assert "views differs between" not in text
    own_day.source.execute("truncate table message_actions")
    assert "between user_activity and the source" not in said(own_day)


def test_every_column_is_known_to_be_made_from_something() -> None:
    """Whoever adds a column has to say what it is made from, so that it is compared with the source."""
    assert {*USERS_FROM} == {column for column in SHAPES["user_activity"] if column != "event_date"}
    assert {*columns("daily_metrics")} == {column for column in SHAPES["daily_metrics"] if column != "event_date"}
    counted = [column for column, kind in SHAPES["dimension_activity"].items() if kind == "UInt64"]
    assert {*COUNTS, *PARTNERS} == {*counted}


def test_a_day_from_before_anybody_counted_is_compared_among_its_tables(own_day: Etl) -> None:
    hashes = ("feed_hashes", "message_hashes", "feed_second_hashes", "message_second_hashes")
    forget(own_day, ", ".join(f"{each} = []" for each in ("feed_rows", "message_rows", *hashes)) + ", contents = ''")
    own_day.feed((1, "view", "00:10", *IOS))
    assert reconcile(DAY, config_of(own_day)) == TABLES[:3]
    assert late_data(DAY, config_of(own_day)) == []
