"""A day is published whole or not at all, even if a load is killed, repeated or run twice at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import STEPS, Etl, Tables, assert_equal
from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.execution.errors import CheckError
from pulse.publishing import cleaning, keeping, loads

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)


@pytest.fixture
def etl(clickhouse_server: Server) -> Iterator[Etl]:
    """An app with empty tables, and a project without tables."""
    with Etl.fresh(clickhouse_server, DAY) as etl:
        yield etl


@pytest.fixture
def twice(etl: Etl) -> tuple[Etl, Tables, Tables]:
    """A day that run `before` has published and run `after` has staged again, with twice as much of everything.

    Returns the pipeline, and the day before and after as pandas computes it.
    """
    etl.feed((1, "view", "10:00", *IOS), (2, "like", "10:00", *ANDROID))
    etl.messages((1, 2, "10:00", *IOS), (2, 1, "10:00", *ANDROID))
    etl.run(run="before")
    before = etl.expected()
    etl.feed((1, "view", "11:00", *IOS), (2, "like", "11:00", *ANDROID), (3, "share", "11:00", "Symbian", None, 0))
    etl.messages((1, 2, "11:00", *IOS), (2, 1, "11:00", *ANDROID))
    etl.run(steps=STEPS[:3], run="after")
    return etl, before, etl.expected()


def touch(etl: Etl, run: str) -> None:
    """Make the extracts of a run look as if they had just been made."""
    for table in ("feed_hours", "message_hours"):
        etl.db.execute(f"alter table {table}__{run} modify comment 'once more'")


def is_equal(found: Tables, expected: Tables) -> bool:
    """Return whether all rows of all tables are equal."""
    try:
        assert_equal(found, expected)
    except AssertionError:
        return False
    return True


def killed_before(etl: Etl, statement: int) -> bool:
    """Load `after` in a separate process and kill it before a statement; return whether it got that far."""
    process = os.fork()
    if process == 0:
        sent = 0
        real = ClickHouse._run

        def counted(self: ClickHouse, *given: Any, **named: Any) -> Any:
            nonlocal sent
            sent += 1
            if sent == statement:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *given, **named)

        ClickHouse._run = counted  # type: ignore[method-assign]
        try:
            etl.run(steps=["load"], run="after")
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert status in (0, signal.SIGKILL), "the load failed"
    return status == signal.SIGKILL


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.prove), 3])
def test_a_load_killed_at_any_statement_leaves_one_whole_day_or_the_other(
    twice: tuple[Etl, Tables, Tables], every: int
) -> None:
    etl, before, after = twice
    seen = []
    statement = 1
    while killed_before(etl, statement):
        published = etl.published()
        assert is_equal(published, before) or is_equal(published, after), f"killed before statement {statement}"
        seen.append(is_equal(published, after))
        if seen[-1]:
            touch(etl, "before")
            etl.run(steps=["load"], run="before")
            assert_equal(etl.published(), before)
            touch(etl, "after")
        statement += every
    assert_equal(etl.published(), after)
    # A single statement publishes the day: before it nothing has changed, after it everything has.
    assert statement > 15
    assert seen == sorted(seen)
    assert {*seen} == {False, True}


def test_a_load_that_was_killed_is_completed_by_repeating_it(twice: tuple[Etl, Tables, Tables]) -> None:
    etl, _, after = twice
    for statement in (10, 20):
        killed_before(etl, statement)
    etl.run(steps=["load"], run="after")
    assert_equal(etl.published(), after)
    assert etl.db.value("select count() from user_activity_loads where event_date = {day:Date}", day=DAY) == 5


def test_readers_see_whole_loads_while_a_day_is_published_again_and_again(twice: tuple[Etl, Tables, Tables]) -> None:
    etl, before, after = twice
    expected = {
        table: {(len(rows), int(rows["likes"].sum())) for rows in (getattr(before, table), getattr(after, table))}
        for table in Tables._fields
    }
    wrong: list[Any] = []
    reads = 0
    stop = threading.Event()

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            for table, right in expected.items():
                seen = etl.db.read(f"select count() as n, sum(likes) as likes from {table} where event_date = '{DAY}'")  # noqa: S608
                if tuple(map(int, seen.loc[0])) not in right:
                    wrong.append((table, seen.loc[0].to_dict()))
                reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            for run in ("after", "before"):
                touch(etl, run)
                etl.run(steps=["load"], run=run)
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert reads > 20


def extracted_at(etl: Etl, run: str) -> datetime:
    return loads.made_at(etl.db, [f"feed_hours__{run}", f"message_hours__{run}"])


def test_an_older_load_does_not_take_the_place_of_a_newer_one(twice: tuple[Etl, Tables, Tables]) -> None:
    """For example, a task of the morning is cleared after somebody has published the day again by hand."""
    etl, before, after = twice
    while extracted_at(etl, "after") <= extracted_at(etl, "before"):
        touch(etl, "after")
    etl.run(steps=["load"], run="after")
    etl.run(steps=["load"], run="before")
    assert_equal(etl.published(), after)
    assert etl.db.value("select count() from publications") == 2
    # A clock that was wrong for a while does not block publishing for good.
    etl.db.execute(
        "alter table {database:Identifier}.publications update extracted_at = now64(6) + interval 2 day where true"
        " settings mutations_sync = 1",
        database=etl.db.database,
    )
    etl.run(steps=["load"], run="before")
    assert_equal(etl.published(), before)


def test_of_two_loads_that_take_the_same_step_the_newer_one_stays(
    twice: tuple[Etl, Tables, Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read what is published before either publishes; it does not matter which of them publishes first."""
    etl, _, after = twice
    while extracted_at(etl, "after") <= extracted_at(etl, "before"):
        touch(etl, "after")
    real = loads.publication
    meanwhile: list[loads.Publication] = []

    def read_by_both(db: ClickHouse, day: date) -> loads.Publication | None:
        found = real(db, day)
        if (
            not meanwhile and found is not None
        ):  # after this read and before the load of `after` goes on, run `before` publishes twice
            meanwhile.append(found)
            for _ in range(2):
                etl.run(steps=["load"], run="before")
        return found

    monkeypatch.setattr(loads, "publication", read_by_both)
    etl.run(steps=["load"], run="after")
    assert_equal(etl.published(), after)
    assert etl.db.read("select step, run from publications order by step, run").to_numpy().tolist() == [
        [1, "before"],
        [2, "after"],  # this one did not count, because step 3 was there
        [2, "before"],
        [3, "before"],
        [4, "after"],
    ]


@pytest.mark.prove
def test_two_processes_that_publish_at_once_leave_the_newer_day_whole(twice: tuple[Etl, Tables, Tables]) -> None:
    etl, before, after = twice
    while extracted_at(etl, "after") <= extracted_at(etl, "before"):
        touch(etl, "after")
    for _ in range(3):
        processes = []
        for run in ("after", "before"):
            process = os.fork()
            if process == 0:
                try:
                    etl.run(steps=["load"], run=run)
                    os._exit(0)
                finally:
                    os._exit(1)
            processes.append(process)
        assert [os.waitpid(process, 0)[1] for process in processes] == [0, 0]
        assert_equal(etl.published(), after)
        etl.db.execute(
            "alter table {database:Identifier}.publications delete where run = 'after' settings mutations_sync = 1",
            database=etl.db.database,
        )
        assert_equal(etl.published(), before)


def test_load_can_be_repeated_after_it_has_succeeded(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS))
    etl.messages((1, 2, "10:00", *IOS))
    etl.run()
    before = etl.everything()
    etl.run(steps=["load"])
    pd.testing.assert_frame_equal(etl.everything(), before)
    assert etl.db.read("select step, run from publications order by step").to_numpy().tolist() == [
        [1, "by_hand"],
        [2, "by_hand"],
    ]


def test_a_day_on_which_nothing_happened_at_all_is_published_where_that_is_allowed(etl: Etl) -> None:
    etl.feed((1, "view", "2025-03-11 10:00", *IOS))
    etl.run(steps=STEPS[:3], allow_empty=True)
    with pytest.raises(CheckError, match=r"holds nothing .* \(if really nobody did anything that day, set all"):
        etl.run(steps=["load"])
    etl.run(allow_empty=True)
    assert etl.published().user_activity.empty
    assert etl.published().dimension_activity.empty
    metrics = etl.metrics()
    assert metrics.pop("event_date") == pd.Timestamp(DAY)
    ratios = {"ctr", "sent_per_received"}
    assert metrics == {name: None if name in ratios else 0 for name in metrics}
    # Later it turns out that something did happen that day, and then that nothing happened after all.
    etl.feed((1, "view", "10:00", *IOS))
    etl.run(allow_empty=True)
    assert etl.metrics()["views"] == 1
    etl.source.execute("truncate table feed_actions")
    etl.run(allow_empty=True)
    assert etl.metrics()["views"] == 0
    assert etl.published().user_activity.empty


def test_load_without_its_staging_says_what_to_run(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS))
    etl.run(allow_empty=True)
    with pytest.raises(CheckError, match=r"users__other of run other are not there; run extract and transform for"):
        etl.run(steps=["load"], run="other")


def test_what_the_source_held_is_published_with_the_day(etl: Etl) -> None:
    etl.feed((1, "view", "00:00", *IOS), (1, "view", "10:59:59", *IOS), (1, "x", "23:59:59", *IOS))
    etl.feed((1, "view", "2025-03-11 23:59:59", *IOS), (1, "view", "2025-03-13 00:00", *IOS))
    etl.messages((1, 2, "10:00", *IOS), (1, 2, "10:30", *IOS))
    etl.run()
    found = loads.publication(etl.db, DAY)
    assert found is not None
    assert [(hour, rows) for hour, rows in enumerate(found.feed.rows) if rows] == [(0, 1), (10, 1), (23, 1)]
    assert [(hour, rows) for hour, rows in enumerate(found.messages.rows) if rows] == [(10, 2)]
    assert len(found.feed.rows) == len(found.messages.rows) == 24
    assert {table: each.rows for table, each in found.contents.items()} == {
        table: len(getattr(etl.published(), table)) for table in Tables._fields
    }


@pytest.mark.parametrize(
    ("timezone", "day", "hours"),
    [("Europe/Berlin", date(2025, 3, 30), 23), ("Europe/Berlin", date(2025, 10, 26), 25), ("Asia/Kolkata", DAY, 24)],
)
def test_a_day_has_as_many_hours_as_the_clock_lets_it_have(
    clickhouse_server: Server, timezone: str, day: date, hours: int
) -> None:
    with Etl.fresh(clickhouse_server, day, timezone) as etl:
        etl.feed((1, "view", "00:00", *IOS), (1, "view", "23:59:59", *IOS))
        etl.run(allow_empty=True)
        found = loads.publication(etl.db, day)
        assert found is not None
        assert found.feed.rows == [1, *([0] * (hours - 2)), 1]


def test_what_nobody_reads_is_dropped_in_its_time_and_nothing_else(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS))
    etl.messages((1, 2, "10:00", *IOS))
    etl.run(run="before")
    etl.run(run="after")
    etl.run(etl.day, steps=STEPS[:3], run="waiting")
    partitions = "select distinct load from user_activity_loads"
    published = loads.publication(etl.db, DAY)
    assert published is not None
    assert len(etl.db.read(partitions)) == 2  # the earlier one stays, because somebody may still be reading it
    assert cleaning.drop_unread(etl.db) == []
    published_earlier(etl, "61 minute")
    old = {name for name in etl.staging() if name.endswith(("__before", "__after"))}
    etl.db.execute("create table my__notes (text String) engine = MergeTree order by ()")
    for name in (*old, "my__notes"):
        make_older(etl, name, timedelta(days=1, minutes=1))
    staged = etl.staging() - old
    dropped = cleaning.drop_unread(etl.db)
    assert [each.partition(" ")[0] for each in dropped if "(" in each] == ["user_activity_loads"]
    assert etl.db.read(partitions)["load"].tolist() == [published.load]
    assert etl.staging() == staged
    published_earlier(etl, f"{keeping.REPLACED_DAYS - 1} day")
    assert cleaning.drop_unread(etl.db) == []  # what was believed before can still be looked up
    published_earlier(etl, "1 day")
    dropped = cleaning.drop_unread(etl.db)
    assert sorted(each.partition(" ")[0] for each in dropped) == [
        "daily_metrics_loads",
        "dimension_activity_loads",
        "dimension_metrics_loads",
    ]
    assert_equal(etl.published(), etl.expected())


def published_earlier(etl: Etl, interval: str) -> None:
    """Make the publications look as if they had been made that much earlier."""
    etl.db.execute(
        "alter table {database:Identifier}.publications update published_at = published_at - interval "
        f"{interval} where true settings mutations_sync = 1",
        database=etl.db.database,
    )


def make_older(etl: Etl, table: str, age: timedelta) -> None:
    """Make a table look as if it had been created that long ago."""
    place = "select metadata_path from system.tables where database = currentDatabase() and name = {table:String}"
    (path,) = etl.server.data.glob(f"*/{etl.db.value(place, table=table)}")
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


def test_a_run_leaves_only_its_staging_beside_the_projects_tables(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS))
    etl.run(steps=["extract_feed"], run="first")  # creates them
    there = etl.tables() - etl.staging()
    etl.run(allow_empty=True, run="first")
    assert etl.tables() - etl.staging() == there
    assert {name.partition("__")[2] for name in etl.staging()} == {"first"}
    assert there >= set(Tables._fields)


def test_a_server_that_fails_while_a_day_is_published_leaves_it_as_it_was(twice: tuple[Etl, Tables, Tables]) -> None:
    etl, before, after = twice
    etl.db.execute("alter table dimension_activity__after add column other UInt8")
    with pytest.raises(ClickHouseError):
        etl.run(steps=["load"], run="after")
    assert_equal(etl.published(), before)
    etl.db.execute("alter table dimension_activity__after drop column other")
    etl.run(steps=["load"], run="after")
    assert_equal(etl.published(), after)
