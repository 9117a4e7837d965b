"""`pulse source check`: what it shows of a day, what it calls wrong, and that it only reads, and little.

The account has `readonly = 1`, and nothing of Pulse's is in ClickHouse.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import accounts
import pytest
from pulse_sandbox import clickhouse_stand_in, process
from pulse_sandbox.clickhouse_stand_in import Server
from typer.testing import CliRunner

from notebooks.etl import FEED, MESSAGES, Etl, Sources
from pulse import settings
from pulse.cli import app as cli
from pulse.clickhouse import ClickHouse, Result
from pulse.execution.errors import CheckError
from pulse.sources import definition, measures
from pulse.sources.check import fitting_zone

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an account of `readonly = 1`, at its `reader_url`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{settings.ROOT / 'tests'}:{settings.ROOT}")
        with process.running(accounts.MODULE, tmp_path_factory.mktemp("readonly")) as about:
            yield clickhouse_stand_in._server(about)


@pytest.fixture
def etl(server: Server) -> Iterator[Etl]:
    """An app with a small day."""
    with Etl.fresh(server, DAY) as app:
        yield app


@dataclass(frozen=True)
class Said:
    """What a check said."""

    code: int
    text: str
    fault: str

    def section(self, title: str) -> str:
        """The lines below a title, with single blanks."""
        _, _, rest = self.text.partition(f"\n{title}")
        return " ".join(rest.partition("\n\n")[0].split())


def check(etl: Etl, day: object = DAY) -> Said:
    """Run the check with the read-only account."""
    given = etl.environment | {"CLICKHOUSE_URL": etl.server.reader_url}
    said = CliRunner().invoke(cli, ["source", "check", str(day)], env=given)
    fault = str(said.exception) if said.exception else ""
    assert "Traceback" not in said.output
    assert "sandbox-" not in said.output + fault  # what both passwords begin with
    assert max(map(len, said.stdout.splitlines()), default=0) <= 100
    return Said(said.exit_code, said.stdout, fault)


def small_day(etl: Etl) -> None:
    """A day of ten users, with an action in each hour."""
    for hour in range(24):
        etl.feed(*((user, "view", f"{hour:02}:00:{user:02}", *IOS) for user in range(1, 11)))
        etl.feed((1 + hour % 10, "like", f"{hour:02}:30", *ANDROID))
    etl.messages(*((1 + hour % 5, 5 + hour % 8, f"{hour:02}:10", *IOS) for hour in range(24)))


def test_it_shows_what_the_day_would_publish_and_creates_nothing(etl: Etl) -> None:
    small_day(etl)
    before = etl.server.url, ClickHouse(etl.server.url, "default", etl.zone).read("show databases").to_numpy().tolist()
    said = check(etl)
    assert (said.code, said.fault) == (0, "")
    assert before[1] == ClickHouse(etl.server.url, "default", etl.zone).read("show databases").to_numpy().tolist()
    assert "database " + etl.source.database in said.text
    assert "of Europe/Moscow; the server's zone is UTC" in said.text
    assert "UInt32, published as text" in said.text
    assert "feed: DateTime, no zone in the type, so the server's, UTC" in said.text
    assert re.search(r"^\d+ +2025-03-12 \d\d:\d\d:\d\d\.000 +view +iOS +female +25$", said.text, re.MULTILINE)
    assert said.section("Feed actions") == "view 240 view like 24 like"
    etl.run()
    shown = dict(re.findall(r"(\w+) ([\d,.]+)", said.section("What the day would publish")))
    published = etl.metrics()
    for name in ("feed_users", "messenger_users", "app_users", "both_users", "views", "likes", "messages_sent"):
        assert int(shown[name].replace(",", "")) == published[name]
    assert int(shown["messages_received"]) == published["messages_received"] < published["messages_sent"]
    assert float(shown["ctr"]) == pytest.approx(100 * published["ctr"], abs=0.05)
    assert float(shown["sent_per_received"]) == pytest.approx(published["sent_per_received"], abs=0.005)
    assert said.text.rstrip().endswith("Nothing is wrong with the source on this day.")


Row = tuple[Any, ...]


@pytest.mark.parametrize(
    ("feed", "old", "new", "said"),
    [
        (None, "", "", r"There are no feed rows on 2025-03-12, nor in the 31 days before it: give a day that has some"),
        (
            [(1, "view", "2025-03-10 11:30")],
            "",
            "",
            r"There are no feed rows on 2025-03-12, the last before it are of 2025-03-10 11:30: give a day that",
        ),
        (
            [(1, "shown", "12:00"), (2, "heart", "12:00"), (2, "shown", "12:01")],
            "",
            "",
            r"None of the feed actions is a view or a like, they are 'shown', 'heart': give them the names view and "
            r"like in \S+/app\.sql, line 8\.",
        ),
        (
            [(0, "view", "12:00"), (0, "view", "12:01"), *((user, "view", "12:00") for user in range(1, 9))],
            "",
            "",
            r"20\.00 % of the feed rows have the user_id 0 or '', which count as one user: select nullIf\(user_id, 0\)",
        ),
        (
            [(1, "view", "12:00"), *((user, "view", "12:00") for user in range(2, 5))],
            "    user_id,\n    time",
            "    nullIf(user_id, 1) as user_id,\n    time",
            r"25\.00 % of the feed rows have no user_id, and are left out: \S+/sources\.sql, line 6 probably reads",
        ),
        (
            2 * [(user, "view", "12:00") for user in range(1, 5)],
            "",
            "",
            r"50\.00 % of the feed rows are exact copies of others: they were loaded twice; read the table with",
        ),
    ],
)
def test_a_fault_is_one_sentence_and_a_failure(
    etl: Etl, sources: Sources, feed: list[Row] | None, old: str, new: str, said: str
) -> None:
    etl.feed(*((*row, *IOS) for row in feed or ()))
    etl.messages((1, 2, "12:00", *IOS))
    if old:
        sources(old, new)
    found = check(etl)
    assert found.code == 1
    assert found.fault == "1 fault in the source, see above."
    assert re.match(r"- " + said, found.section("Wrong"))


def test_a_contract_that_is_broken_and_a_missing_right_are_said_first(etl: Etl, sources: Sources) -> None:
    sources("    action,", "    action as what,")
    found = check(etl)
    assert found.code == 1
    assert re.search(r"sources\.sql, line \d+: feed_events has no column action", found.fault)
    etl = replace(etl, name="nowhere")
    found = check(etl)
    assert "81 (UNKNOWN_DATABASE)" in found.fault
    assert "Check PULSE_SOURCE_DATABASE" in found.fault


def test_a_name_that_is_nearly_right_is_a_fault(etl: Etl) -> None:
    etl.feed(
        (1, "view", "12:00", *IOS), (2, "View", "12:00", *IOS), (2, " like", "12:01", *IOS), (3, "viewed", "12:00")
    )
    etl.messages((1, 2, "12:00", *IOS))
    said = "Feed actions are named ' like', 'View', which is neither view nor like: name them view and like in"
    assert said in check(etl).section("Wrong")
    with pytest.raises(
        CheckError, match=r"named '( like|View)', '( like|View)', which is neither view nor like; name th"
    ):
        etl.run()


def test_rows_that_a_statement_may_count_twice_are_a_remark(etl: Etl, sources: Sources) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in FEED.items())
    etl.source.execute(f"create or replace table feed_actions ({columns}) engine = ReplacingMergeTree order by time")
    etl.feed((1, "view", "12:00", *IOS))
    etl.messages((1, 2, "12:00", *IOS))
    said = "feed_actions is a ReplacingMergeTree and read without `final`: until its parts are merged, rows that"
    assert said in check(etl).section("To look at")
    sources("from {source}.feed_actions", "from {source}.feed_actions as feed final")
    assert said not in check(etl).text
    sources("from {source}.feed_actions", "from {source}.feed_actions as f\nleft join system.one on dummy = f.user_id")
    assert "The rows of the feed are joined" in check(etl).section("To look at")


@pytest.mark.parametrize(
    ("select", "multiplies"),
    [
        ("select a from b any left join c using (d)", False),
        ("select a from b left any join c using (d)", False),
        ("select a from b array join c", False),
        ("select a from b left join c using (d)", True),
        ("select a from b\njoin c using (d)", True),
        ("select a from b global inner join c using (d)", True),
        ("select a from b where x in (select y from c join d using (e))", False),
    ],
)
def test_a_join_that_multiplies_rows_is_seen(select: str, multiplies: bool) -> None:
    assert measures.multiplies(definition.Statement("feed_events", select, "", 1)) is multiplies


def test_what_may_be_right_is_a_remark(etl: Etl) -> None:
    etl.feed(*((user, "view", f"{hour:02}:00", "iOS", None, 0) for user in range(1, 51) for hour in range(3, 24)))
    etl.feed((0, "share", "12:00", "iOS"), (7, "view", "05:00", "iOS", None, 0))
    etl.messages((1, 2, "12:00", *IOS))
    found = check(etl)
    assert found.code == 0
    remarks = found.section("To look at")
    assert "gender is missing from every feed row: all of it is published as unknown." in remarks
    assert "age is missing" not in remarks
    assert "0.10 % of the feed rows have the user_id 0 or '', which count as one user: select nullIf" in remarks
    assert "0.10 % of the feed rows are copies of others; all of them count." in remarks
    assert "There are no feed rows in the hours that begin at 00:00, 01:00, 02:00." in remarks
    assert "No feed action is named like, so the day has no likes." in remarks
    assert "exact copies: 1 (0.10 %), by all columns of the table" in found.text


def test_a_night_that_is_not_at_night_is_a_remark(etl: Etl) -> None:
    """The app's people sleep from 2 to 6 in Moscow; the times were written by clocks of UTC + 10."""
    for hour in range(24):
        awake = not 2 <= (hour - 10) % 24 < 6
        etl.feed(*((user, "view", f"{hour:02}:00", *IOS) for user in range(1, 80 if awake else 6)))
    etl.messages((1, 2, "12:00", *IOS))
    assert "The quietest hours of the feed are from 12:00 to 15:00: if your users sleep at" in check(etl).section(
        "To look"
    )


# --- the latest event against now ------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Europe/Moscow", "Asia/Tokyo"])
def test_clock_times_of_another_zone_name_the_setting_that_mends_them(
    etl: Etl, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    yesterday = settings.load().event_day("yesterday")
    etl = replace(etl, day=yesterday)
    minutes = [now - timedelta(minutes=30 * number) - timedelta(minutes=1) for number in range(96)]
    # The server's zone is UTC, so this stores what clocks in that zone show.
    shown = [f"{minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)}+00:00" for minute in minutes]
    etl.feed(*((user, "view", clock, *IOS) for user, clock in enumerate(shown, 1)))
    etl.messages(*((1, 2, clock, *IOS) for clock in shown))
    wrong = check(etl, yesterday)
    assert wrong.code == 1
    hours = 3 if zone == "Europe/Moscow" else 9
    assert re.search(
        rf"\d+ of the latest \d+ feed rows are in the future, by up to {hours - 1} h 5\d min: the app writes times of "
        rf"another zone's clocks\. With PULSE_SOURCE_TIMEZONE={zone} the latest would fit now\.",
        wrong.section("Wrong"),
    )
    monkeypatch.setenv("PULSE_SOURCE_TIMEZONE", zone)
    right = check(etl, yesterday)
    assert right.code == 0
    assert f"feed: DateTime, clock times of {zone} (PULSE_SOURCE_TIMEZONE)" in right.text
    assert re.search(r"feed \S+ \S+ in Europe/Moscow, 0 h [1-3] min ago", right.section("The latest events"))


def test_wrong_times_where_no_setting_helps_are_mended_in_the_definition(etl: Etl, sources: Sources) -> None:
    yesterday = settings.load().event_day("yesterday")
    etl = replace(etl, day=yesterday)
    small_day(etl)
    etl.create_source("feed_actions", FEED | {"time": "DateTime('UTC')"})
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1, minutes=58)
    etl.feed((1, "view", "12:00", *IOS), (1, "view", ahead.isoformat(), *IOS))
    said = (
        r"1 of the latest \d feed rows are in the future, by up to 1 h 5\d min: select `time - interval 2 hour as time`"
    )
    assert re.search(said + r" in \S+, line 7 if they are all ahead by that", check(etl, yesterday).section("Wrong"))
    etl.feed((1, "view", (ahead + timedelta(days=400)).isoformat(), *IOS))
    assert "some clocks are wrong; leave these rows out with `where` in" in check(etl, yesterday).section("Wrong")


@pytest.mark.parametrize(
    ("zone", "hours", "preferred", "fits"),
    [
        ("UTC", 3, "Europe/Moscow", "Europe/Moscow"),
        ("UTC", 3, "Asia/Tokyo", "Europe/Moscow"),
        ("Europe/Moscow", 6, "Europe/Moscow", "Asia/Tokyo"),
        ("UTC", 8, "Europe/Moscow", "Etc/GMT-8"),
        ("America/New_York", 1, "UTC", "Etc/GMT+4"),
        ("UTC", 2.6, "Europe/Moscow", "Europe/Moscow"),
        ("UTC", 5.5, "Asia/Kolkata", "Asia/Kolkata"),
    ],
)
def test_the_zone_that_fits_is_the_projects_or_a_usual_one(zone: str, hours: float, preferred: str, fits: str) -> None:
    now = datetime(2026, 1, 12, 12, tzinfo=UTC)
    assert fitting_zone(ZoneInfo(zone), timedelta(hours=hours), ZoneInfo(preferred), now) == fits


# --- how much is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "days"), [("by day", 20), ("by month", 60)])
def test_it_reads_the_day_and_not_the_table(etl: Etl, monkeypatch: pytest.MonkeyPatch, layout: str, days: int) -> None:
    etl.create_source("feed_actions", FEED, layout)
    etl.create_source("message_actions", MESSAGES, layout)
    fill = "insert into {} ({}) select {}, toDateTime('2024-12-01 00:00:00') + number * 60 from numbers(200000) "
    fill += "settings max_partitions_per_insert_block = 0"
    etl.source.execute(fill.format("feed_actions", "user_id, action, time", "number % 100, 'view'"))
    etl.source.execute(
        fill.format("message_actions", "user_id, receiver_id, time", "1 + number % 100, 1 + number % 90")
    )
    read = []
    real = ClickHouse._run

    def counted(self: ClickHouse, *given: Any, **named: Any) -> tuple[Result, bytes]:
        done = real(self, *given, **named)
        read.append(done[0].read_rows)
        return done

    monkeypatch.setattr(ClickHouse, "_run", counted)
    check(etl)
    # A day has 1,440 rows in each table, and is read a dozen times; a table has 139 days.
    assert 12 * 1_440 <= sum(read) < days * 1_440 + 1_000


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "whole"),
    [
        ("select user_id, time, action from a.b", "select *, time as t from a.b"),
        (
            "select\n    u as user_id,\n    e.ts as time -- when\nfrom a.b as e\nwhere x",
            "select *, e.ts as t from a.b as e\nw",
        ),
        (
            "select f(a, 'from', b) as x, toDateTime64(ms / 1000, 3) as time from t",
            "select *, toDateTime64(ms / 1000, 3) as t f",
        ),
        ("select `time` from t final limit 1 by time, id", "select *, `time` as t from t final limit 1 by time, id"),
        ("select distinct user_id, time from t", None),
        ("with a as (select 1) select time from t", None),
        ("select max(time) as time from t group by user_id", None),
        ("select time from a union all select time from b", None),
        ("select time from (select distinct time from t)", None),
        ("select user_id, ts from t", None),
    ],
)
def test_all_columns_are_compared_where_rows_are_those_of_a_table(select: str, whole: str | None) -> None:
    found = measures.every_column(definition.Statement("feed_events", select, "", 1), "t")
    assert found is None if whole is None else found and found.startswith(whole)


def test_many_rows_are_compared_by_a_part_of_them(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    etl.feed(*(2 * [(user, "view", "12:00", *IOS) for user in range(1, 5001)]))
    etl.messages((1, 2, "12:00", *IOS))
    monkeypatch.setattr(measures, "HASHED_ROWS", 2_000)
    (copies,) = re.findall(r"exact copies: ([\d,]+) \(\d\d\.\d\d %\)", check(etl).text)
    assert int(copies.replace(",", "")) == pytest.approx(5_000, rel=0.1)


def test_rows_that_differ_only_in_other_columns_are_no_copies(etl: Etl, sources: Sources, tmp_path: Path) -> None:
    etl.create_source("feed_actions", FEED | {"event_id": "UInt64"})
    etl.write("feed_actions", [*FEED, "event_id"], [(1, "view", "12:00", *IOS, number) for number in range(10)])
    etl.messages((1, 2, "12:00", *IOS))
    assert "exact copies: 0 (0 %), by all columns of the table" in check(etl).text
    sources("from {source}.feed_actions", "from {source}.feed_actions\nwhere action in ('view', 'like')")
    assert "exact copies: 0 (0 %), by all columns of the table" in check(etl).text
    sources("from {source}.feed_actions", "from {source}.feed_actions\ngroup by all")
    assert "exact copies: 0 (0 %), by the columns that Pulse reads" in check(etl).text
    sources("    action,", "    lower(action) as named,\n    named as action,")
    assert check(etl).fault.endswith(
        "it reads user_id, time, action, os, gender, age, country, city, source, exp_group."
    )
