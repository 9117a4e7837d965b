"""A night finds exactly the published days whose source has changed since, reads few others, and says why."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import date, timedelta
from random import Random
from typing import Any

import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import FEED, MESSAGES, Etl
from pulse import settings
from pulse.metrics import SOURCES
from pulse.publishing import restating, source_parts
from pulse.publishing.restating import Change, SourceChange

FIRST = date(2025, 3, 25)
BERLIN = "Europe/Berlin"  # its clocks change on the 30th of March
IOS, ANDROID, WEB = ("iOS", "female", 25), ("Android", "male", 40), ("web", "female", 31)
USERS = {1: IOS, 2: ANDROID, 3: WEB, 4: IOS, 5: ANDROID}


@contextmanager
def app(server: Server, first: date = FIRST, days: int = 8, layout: str = "by day") -> Iterator[Etl]:
    """An app with a few users, and its published days."""
    with Etl.fresh(server, first, BERLIN) as etl:
        etl.create_source("feed_actions", FEED, layout)
        etl.create_source("message_actions", MESSAGES, layout)
        for day in days_from(first, days):
            arrive(etl, day)
            etl.run(day)
        yield etl


def days_from(first: date, count: int) -> list[date]:
    return [first + timedelta(days=number) for number in range(count)]


def arrive(etl: Etl, day: date) -> None:
    """The rows of a day: each user looks at a post in each of twelve hours, and writes three messages."""
    etl.feed(*[(user, "view", f"{day} {hour:02}:15", *who) for user, who in USERS.items() for hour in range(8, 20)])
    etl.feed(*[(user, "like", f"{day} 19:30", *who) for user, who in USERS.items()])
    etl.messages(*[(user, user % 5 + 1, f"{day} {hour:02}:40", *USERS[user]) for user in USERS for hour in (9, 12, 18)])


def change(etl: Etl, sql: str, day: date) -> None:
    """Change the feed of a day in place, where it says `{those}`."""
    those = "time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}"
    start, end = etl.moment(f"{day} 00:00"), etl.moment(f"{day + timedelta(days=1)} 00:00")
    table = "{database:Identifier}.feed_actions"
    etl.source.execute(
        sql.replace("{those}", those).replace("{feed}", table), database=etl.source.database, start=start, end=end
    )


def late(etl: Etl, day: date) -> None:
    etl.feed(*[(user, "view", f"{day} {hour}:50", *ANDROID) for user in (2, 5) for hour in (21, 22)])


def deleted(etl: Etl, day: date) -> None:
    change(etl, "alter table {feed} delete where {those} and user_id = 3 settings mutations_sync = 1", day)


def doubled(etl: Etl, day: date) -> None:
    change(etl, "insert into {feed} select * from {feed} where {those} and toHour(time, 'Europe/Berlin') = 10", day)


def recoloured(etl: Etl, day: date) -> None:
    """A user is now on another system: no metric of the day changes, but the slices do."""
    change(etl, "alter table {feed} update os = 'web' where {those} and user_id = 4 settings mutations_sync = 1", day)


PLANTS = {"late": late, "deleted": deleted, "doubled": doubled, "changed": recoloured}


def merge(etl: Etl) -> None:
    """Merge all parts, which changes no row."""
    for table in SOURCES:
        etl.source.execute(
            "optimize table {database:Identifier}.{table:Identifier} final",
            database=etl.source.database,
            table=table,
        )


def night(etl: Etl, last: date, days: int = 30, **parameters: Any) -> dict[str, Any]:
    """Run the notebook of the DAG and return its variables."""
    with redirect_stdout(io.StringIO()):
        return etl.by_hand("etl/restate", event_date=str(last), days=days, **parameters)


def outcomes(found: dict[str, Any]) -> dict[date, str]:
    return {each.event_date: each.outcome for each in found["changes"]}


LAST = FIRST + timedelta(days=7)


@pytest.mark.prove
def test_exactly_the_changed_days_are_restated_and_quiet_nights_compare_few(
    clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_parts, "MOST_STATEMENTS", 3)  # as if there were years of partitions
    with app(clickhouse_server) as etl:
        days = days_from(FIRST, 8)
        assert (night(etl, LAST)["due"], days) == (days, days)  # the first night knows nothing yet
        assert night(etl, LAST)["due"] == []
        planted = dict(zip((days[0], days[3], days[5], days[6]), PLANTS, strict=True))
        for day, kind in planted.items():
            PLANTS[kind](etl, day)
        found = night(etl, LAST)
        assert found["due"] == list(planted)  # the other days are skipped
        assert outcomes(found) == dict.fromkeys(planted, "restated")
        assert {each.event_date: each.sources[0].kind for each in found["changes"]} == planted

        etl.run(days[0])
        assert night(etl, LAST)["due"] == list(planted)  # one has been published again, three still wait for it
        for day in planted:
            etl.run(day)
        assert outcomes(night(etl, LAST)) == {}
        assert night(etl, LAST)["due"] == []
        for number in range(1, 4):
            today = LAST + timedelta(days=number)
            arrive(etl, today)  # nobody has published it yet
            merge(etl)
            found = night(etl, today - timedelta(days=1))
            assert outcomes(found) == {}
            etl.run(today)
            found = night(etl, today)
            assert (found["due"], outcomes(found)) == ([today], {})


def test_a_change_below_the_tolerance_is_kept_recorded_and_not_lost(clickhouse_server: Server) -> None:
    with app(clickhouse_server, days=2) as etl:
        night(etl, FIRST + timedelta(days=1))
        etl.feed((1, "view", f"{FIRST} 23:10", *IOS))  # one of 61 views
        for tolerance, outcome in ((0.02, "kept"), (0.02, "kept"), (0.01, "restated")):
            found = night(etl, FIRST + timedelta(days=1), restate_tolerance=tolerance)
            assert (found["due"], outcomes(found)) == ([FIRST], {FIRST: outcome})
        (why,) = restating.reasons(etl.db, FIRST).values()
        assert json.loads(why)["metrics"]["views"] == [60, 61]


def test_what_is_broken_off_is_done_the_next_time(clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with app(clickhouse_server, days=2) as etl:
        last = FIRST + timedelta(days=1)
        night(etl, last)
        late(etl, FIRST)
        for where in ((restating, "record"), (source_parts, "keep")):
            with monkeypatch.context() as patch:
                patch.setattr(*where, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    night(etl, last)
        assert outcomes(night(etl, last)) == {FIRST: "restated"}


def test_the_reason_names_what_came_when_and_from_whom(clickhouse_server: Server) -> None:
    """On a day of 23 hours and one of 25, in the hours that the clocks show."""
    for first in (date(2025, 3, 30), date(2025, 10, 26)):
        with app(clickhouse_server, first, days=1) as etl:
            late(etl, first)
            etl.messages((3, 4, f"{first} 23:59", *WEB), (3, 5, f"{first} 04:00", *WEB))
            (found,) = night(etl, first)["changes"]
            assert isinstance(found, Change)
            assert found.sources == [
                SourceChange("feed_actions", "late", 65, 69, [["21:00", "23:00"]], ["os", "Android"]),
                SourceChange(
                    "message_actions", "late", 15, 17, [["04:00", "05:00"], ["23:00", "24:00"]], ["os", "web"]
                ),
            ]
            assert found.metrics["views"] == [60, 64]
            assert found.metrics["messages_sent"] == [15, 17]
            assert found.metrics["ctr"] == [5 / 60, 5 / 64]
            assert set(found.metrics) == {"views", "ctr", "messages_sent", "messages_received"}


@pytest.mark.parametrize("kind", PLANTS)
def test_the_numbers_of_a_changed_day_are_those_that_the_etl_then_publishes(
    clickhouse_server: Server, kind: str
) -> None:
    with app(clickhouse_server, days=1) as etl:
        PLANTS[kind](etl, FIRST)
        (found,) = night(etl, FIRST)["changes"]
        before = etl.metrics(FIRST)
        etl.run(FIRST)
        after = etl.metrics(FIRST)
        differ = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
        assert found.metrics.keys() == differ.keys()
        assert all(found.metrics[name] == pytest.approx(pair) for name, pair in differ.items())
        if kind == "changed":
            assert not found.metrics
            assert found.moved == {"os": pytest.approx(12 / 60)}  # views of one of five users


@pytest.mark.parametrize("layout", ["by day", pytest.param("by month", marks=pytest.mark.prove), "unordered"])
def test_parts_are_told_for_any_layout(clickhouse_server: Server, layout: str) -> None:
    with app(clickhouse_server, days=3, layout=layout) as etl:
        last = FIRST + timedelta(days=2)
        night(etl, last)
        late(etl, FIRST)
        found = night(etl, last)
        assert outcomes(found) == {FIRST: "restated"}
        assert found["due"] == [FIRST]  # the part with the new rows has no others
        etl.run(FIRST)
        night(etl, last)
        deleted(etl, last)
        found = night(etl, last)
        assert outcomes(found) == {last: "restated"}


def test_a_day_that_arrives_a_second_time_is_noticed(clickhouse_server: Server) -> None:
    """Its parts are copies of those that are there, with the same hashes."""
    with app(clickhouse_server, days=2) as etl:
        last = FIRST + timedelta(days=1)
        night(etl, last)
        arrive(etl, FIRST)
        (found,) = night(etl, last)["changes"]
        assert (found.event_date, found.outcome) == (FIRST, "restated")
        assert [each.kind for each in found.sources] == ["doubled", "doubled"]
        assert found.metrics["views"] == [60, 120]


def test_a_day_of_which_all_rows_are_gone_is_noticed(clickhouse_server: Server) -> None:
    with app(clickhouse_server, days=3) as etl:
        last = FIRST + timedelta(days=2)
        night(etl, last)
        etl.source.execute(
            "alter table {database:Identifier}.feed_actions drop partition '2025-03-26'", database=etl.source.database
        )
        found = night(etl, last)
        (change,) = found["changes"]
        assert (change.event_date, change.outcome) == (date(2025, 3, 26), "restated")
        assert (change.sources[0].kind, change.sources[0].now) == ("deleted", 0)
        assert change.metrics["ctr"] == [5 / 60, None]


@pytest.mark.parametrize("engine", ["Log", "Memory"])
def test_a_source_without_parts_is_always_compared(clickhouse_server: Server, engine: str) -> None:
    with app(clickhouse_server, days=2) as etl:
        columns = ", ".join(f"{name} {kind}" for name, kind in FEED.items())
        etl.source.execute(f"create table other ({columns}) engine = {engine}")
        etl.source.execute("insert into other select * from feed_actions")
        etl.source.execute("drop table feed_actions")
        etl.source.execute("rename table other to feed_actions")
        last = FIRST + timedelta(days=1)
        for _ in range(2):
            found = night(etl, last)
            assert (len(found["due"]), outcomes(found)) == (2, {})
        late(etl, FIRST)
        assert outcomes(night(etl, last)) == {FIRST: "restated"}


def test_a_view_that_is_more_than_rows_is_always_compared(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS))
    etl.messages((1, 2, "10:00", *IOS))
    etl.run()
    config = settings.load(**etl.environment)
    name, source = etl.db.database, etl.source.database
    select = etl.db.value(
        "select as_select from system.tables where name = 'feed_events' and database = currentDatabase()"
    )
    senders = f"select user_id from {source}.message_actions"  # noqa: S608
    etl.source.execute(
        "create table replacing engine = ReplacingMergeTree order by user_id as select * from feed_actions"
    )
    etl.source.execute("create view seen as select * from feed_actions")
    for what, why in {
        select: "",
        f"{select} and user_id in ({senders})": "more than rows of tables",
        select.replace("AS actions", "as actions cross join (select 1 as one) as others"): "more than rows of tables",
        select.replace("feed_actions)", "replacing final)"): "uses FINAL",
        select.replace("feed_actions)", "replacing)"): "",
        select.replace("feed_actions", "seen"): "read through another view",
        f"{select} and time < now()": "uses now",
    }.items():
        etl.db.execute(f"create or replace view {name}.feed_events as {what}")
        for _ in range(2):
            look = source_parts.look(etl.db, config, "feed_actions", etl.day)
            source_parts.keep(etl.db, [look])
        assert why in look.why, what
        assert (look.changed is None) == bool(why), what


@pytest.mark.parametrize(("count", "changed", "nights"), [(5, 2, 3), pytest.param(60, 20, 30, marks=pytest.mark.prove)])
def test_days_of_which_a_third_is_changed_and_then_quiet_nights(
    clickhouse_server: Server, count: int, changed: int, nights: int
) -> None:
    dice = Random(5)  # noqa: S311
    with app(clickhouse_server, date(2025, 3, 1), days=count) as etl:
        days = days_from(date(2025, 3, 1), count)
        assert len(night(etl, days[-1], count)["due"]) == count  # the first night knows nothing yet
        assert night(etl, days[-1], count)["due"] == []
        planted = {day: dice.choice(list(PLANTS)) for day in dice.sample(days, changed)}
        for day, kind in planted.items():
            PLANTS[kind](etl, day)
        found = night(etl, days[-1], count)
        assert sorted(found["due"]) == sorted(planted)
        assert outcomes(found) == dict.fromkeys(sorted(planted), "restated")
        assert {each.event_date: each.sources[0].kind for each in found["changes"]} == planted
        for day in planted:
            etl.run(day)
        for number in range(nights):
            today = days[-1] + timedelta(days=number + 1)
            arrive(etl, today)
            if merged := number % 3 == 2:
                merge(etl)  # all parts are other ones then, so all days are compared
            found = night(etl, today - timedelta(days=1), count)
            assert outcomes(found) == {}
            if number and not merged:
                assert found["due"] == [today - timedelta(days=1)]  # which was not compared before
            etl.run(today)
