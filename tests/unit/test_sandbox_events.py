"""The demo events are reproducible, resemble those of a real app, and are written only into the sandbox."""

import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from pulse_sandbox import SandboxError, events_sql
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill, make_until
from pulse_sandbox.events_app import App

from pulse.clickhouse import ClickHouse

MOSCOW, BERLIN = ZoneInfo("Europe/Moscow"), ZoneInfo("Europe/Berlin")
LAST = date(2026, 11, 16)  # a Monday
DAYS = 28

VIEWS = """
create view feed as
select *, toDate(time, 'Europe/Moscow') as day, toHour(time, 'Europe/Moscow') as hour from feed_actions;

create view messages as
select *, toDate(time, 'Europe/Moscow') as day, toHour(time, 'Europe/Moscow') as hour from message_actions;
"""


@pytest.fixture(scope="module")
def month(clickhouse_server: Server) -> ClickHouse:
    """Four weeks of a small app, with views `feed` and `messages` that have the local day and hour."""
    app = App(MOSCOW, "events_month", events_per_day=20_000)
    rows = fill(clickhouse_server, app, until=LAST, days=DAYS)
    db = ClickHouse(clickhouse_server.url, app.database, MOSCOW)
    db.script(VIEWS)
    assert rows == db.value("select (select count() from feed) + (select count() from messages)")
    assert rows == pytest.approx(20_000 * DAYS, rel=0.03)
    return db


def one_day(server: Server, database: str, day: date, **other: int) -> tuple[ClickHouse, App]:
    """Fill a new database with one small day."""
    app = App(MOSCOW, database, events_per_day=2_000, **other)
    fill(server, app, until=day + timedelta(days=1), days=1)
    return ClickHouse(server.url, database, MOSCOW), app


def content(db: ClickHouse, day: date, zone: ZoneInfo = MOSCOW) -> pd.DataFrame:
    """Return the number of rows of each table, and a hash of them that does not depend on their order."""
    return db.read(
        """
        with actions as (
            select 'feed' as kind, time, cityHash64(tuple(*)) as hash from feed_actions
            union all
            select 'messages', time, cityHash64(tuple(*)) from message_actions
        )
        select kind, count() as rows, sum(hash) as hash
        from actions
        where toDate(time, {zone:String}) = {day:Date}
        group by kind
        order by kind
        """,
        day=day,
        zone=zone.key,
    )


# --- the same for the same seed and day ------------------------------------------------------------------------------


def test_a_day_is_the_same_alone_in_a_range_and_in_any_order(clickhouse_server: Server) -> None:
    day = date(2026, 11, 10)
    alone, _ = one_day(clickhouse_server, "events_alone", day)
    app = App(MOSCOW, "events_range", events_per_day=2_000)
    for days in (1, 3):  # first the 11th, then the 9th and the 10th as well
        assert fill(clickhouse_server, app, until=date(2026, 11, 12), days=days) > 0
    ranged = ClickHouse(clickhouse_server.url, "events_range", MOSCOW)
    pd.testing.assert_frame_equal(content(alone, day), content(ranged, day))
    assert content(alone, day).rows.min() > 100


def test_a_day_is_the_same_on_one_thread(clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    day = date(2026, 11, 10)
    expected, _ = one_day(clickhouse_server, "events_threads", day)
    for name in ("FEED_ACTIONS", "MESSAGE_ACTIONS"):
        statement = getattr(events_sql, name) + "settings max_threads = 1, max_block_size = 100"
        monkeypatch.setattr(events_sql, name, statement)
    found, _ = one_day(clickhouse_server, "events_thread", day)
    pd.testing.assert_frame_equal(content(expected, day), content(found, day))


def test_another_seed_replaces_the_events(clickhouse_server: Server) -> None:
    day = date(2026, 11, 10)
    db, _ = one_day(clickhouse_server, "events_seed", day)
    first = content(db, day)
    one_day(clickhouse_server, "events_seed", day, seed=2)
    assert (content(db, day).hash != first.hash).all()
    assert content(db, day).rows.sum() == pytest.approx(first.rows.sum(), rel=0.2)


def test_a_complete_day_is_not_made_again_but_one_that_lost_rows_is(clickhouse_server: Server) -> None:
    day = date(2026, 11, 10)
    db, app = one_day(clickhouse_server, "events_twice", day)
    whole = content(db, day)
    until = day + timedelta(days=1)
    assert fill(clickhouse_server, app, until=until, days=1) == 0
    db.execute("alter table feed_actions drop partition '2026-11-10'")
    assert fill(clickhouse_server, app, until=until, days=1) > 0
    pd.testing.assert_frame_equal(content(db, day), whole)


def test_a_day_grows_until_it_is_the_whole_day(clickhouse_server: Server) -> None:
    day = date(2026, 11, 10)
    whole = content(one_day(clickhouse_server, "events_whole", day)[0], day)
    app = App(MOSCOW, "events_live", events_per_day=2_000)
    db = ClickHouse(clickhouse_server.url, app.database, MOSCOW)
    morning, evening = (datetime(2026, 11, 10, hour, 30, tzinfo=MOSCOW) for hour in (9, 18))

    midnight = make_until(clickhouse_server, app, datetime(2026, 11, 10, tzinfo=MOSCOW))
    assert midnight == content(db, day - timedelta(days=1)).rows.sum()  # yesterday, and nothing of today
    assert make_until(clickhouse_server, app, morning) == content(db, day).rows.sum()
    assert db.value("select max(time) from feed_actions") < morning
    until_morning = content(db, day)

    assert make_until(clickhouse_server, app, morning) == 0
    assert make_until(clickhouse_server, app, evening) == (content(db, day).rows - until_morning.rows).sum() > 0
    assert make_until(clickhouse_server, app, morning) == 0  # events are never removed again

    make_until(clickhouse_server, app, datetime(2026, 11, 11, tzinfo=MOSCOW))
    pd.testing.assert_frame_equal(content(db, day), whole)


# --- like a real app -------------------------------------------------------------------------------------------------


def test_nights_are_quiet_and_evenings_busy(month: ClickHouse) -> None:
    for table, evening in (("feed", 20), ("messages", 19)):
        hours = month.read("select hour, count() as rows from {t:Identifier} group by hour", t=table).set_index("hour")
        assert hours.rows.idxmin() in (3, 4, 5)
        assert hours.rows.idxmax() in (evening - 1, evening, evening + 1)
        assert hours.rows.max() > 7 * hours.rows.min()


def test_on_weekends_people_read_more_write_less_and_rise_later(month: ClickHouse) -> None:
    week = """
    select
        toDayOfWeek(day) > 5 as weekend,
        count() / uniqExact(day) as rows,
        countIf(hour between 6 and 9) / count() as morning
    from {t:Identifier} group by weekend order by weekend
    """
    feed, messages = month.read(week, t="feed"), month.read(week, t="messages")
    assert feed.rows[1] / feed.rows[0] == pytest.approx(1.09, abs=0.05)
    assert messages.rows[1] / messages.rows[0] == pytest.approx(0.85, abs=0.05)
    assert feed.morning[1] < 0.95 * feed.morning[0]
    assert messages.morning[1] < 0.95 * messages.morning[0]


def test_the_app_grows_by_about_three_percent_a_month(clickhouse_server: Server) -> None:
    app = App(MOSCOW, "events_growth", events_per_day=2_000)
    week = {month: fill(clickhouse_server, app, until=date(2026, month, 12), days=7) for month in (1, 11)}
    assert week[11] / week[1] == pytest.approx(1.01 / 0.71, rel=0.05)
    assert app.growth(date(1990, 1, 1)) > 0


def test_days_differ_and_the_click_rate_is_about_a_fifth(month: ClickHouse) -> None:
    days = month.read("select day, countIf(action = 'like') / countIf(action = 'view') as ctr from feed group by day")
    assert days.ctr.mean() == pytest.approx(0.2, abs=0.01)
    assert 0.003 < days.ctr.std() < 0.015
    slices = month.read(
        "select os, countIf(action = 'like') / countIf(action = 'view') as ctr from feed group by os"
    ).set_index("os")
    assert slices.ctr["iOS"] > slices.ctr["Android"]


def test_a_like_follows_a_view_of_the_post(month: ClickHouse) -> None:
    orphans = month.value(
        """
        select countIf(likes > views) / count()
        from (
            select countIf(action = 'view') as views, countIf(action = 'like') as likes
            from feed group by day, user_id, post_id
        )
        """
    )
    assert orphans == 0


def test_a_few_users_do_much_and_not_everyone_comes_every_day(month: ClickHouse) -> None:
    users = month.read("select user_id, count() as rows, uniqExact(day) as days from feed group by user_id")
    top = users.rows.nlargest(len(users) // 100).sum() / users.rows.sum()
    assert 0.15 < top < 0.40
    assert users.days.min() < 3 < DAYS - 1 <= users.days.max()
    assert 0.2 < users.days.mean() / DAYS < 0.6
    received = month.read("select receiver_id, count() as rows from messages group by receiver_id").rows
    assert 0.12 < received.nlargest(len(received) // 100).sum() / received.sum() < 0.40


def test_some_only_read_some_only_write_some_do_both(month: ClickHouse) -> None:
    found = month.read(
        """
        select countIf(f and not m) / count() as reads, countIf(m and not f) / count() as writes
        from (
            select max(source = 1) as f, max(source = 2) as m
            from (select user_id, 1 as source from feed union all select user_id, 2 from messages) group by user_id
        )
        """
    ).loc[0]
    assert 0.3 < found.reads < 0.6
    assert 0.1 < found.writes < 0.3
    assert found.reads + found.writes < 0.8


def test_people_write_to_a_few_friends_and_some_are_absent(month: ClickHouse) -> None:
    senders = month.read(
        "select user_id, count() as sent, uniqExact(receiver_id) as receivers from messages group by user_id"
    )
    assert senders.sent.sum() > 4 * senders.receivers.sum()
    found = month.read(
        """
        with active as (select day, user_id from feed union distinct select day, user_id from messages)
        select
            count() / countIf((day, receiver_id) in active) as sent_by_received,
            uniqExactIf(receiver_id, receiver_id not in (select user_id from active)) / uniqExact(receiver_id) as never,
            countIf(user_id = receiver_id) / count() as oneself
        from messages
        """
    ).loc[0]
    assert 1.05 < found.sent_by_received < 1.4
    assert 0.01 < found.never < 0.1
    assert 0.0005 < found.oneself < 0.01


def test_users_keep_their_attributes_except_for_a_second_phone(month: ClickHouse) -> None:
    users = month.read(
        """
        with actions as (
            select user_id, day, os, gender, age, city from feed
            union all select user_id, day, os, gender, age, city from messages
        )
        select
            user_id,
            uniqExact((gender, age, city)) as people,
            uniqExact(os) as phones
        from actions group by user_id
        """
    )
    assert (users.people == 1).all()
    assert 0.01 < (users.phones == 2).mean() < 0.08
    assert users.phones.max() == 2
    assert (
        month.value("select count() from (select user_id from feed group by user_id, day having uniqExact(os) > 1)") > 0
    )


def test_a_few_attributes_are_missing_or_odd(month: ClickHouse) -> None:
    found = month.read(
        """
        select
            countIf(age is null) / count() as no_age,
            countIf(age = 0) / count() as zero_age,
            countIf(gender is null) / count() as no_gender,
            countIf(gender = '') / count() as empty_gender,
            countIf(match(os || city || source, '["\\\\\\\\{<\\t\\n]') or length(city) > 100) / count() as odd,
            minIf(age, age > 0) as youngest,
            max(age) as oldest
        from (select any(age) as age, any(gender) as gender, any(os) as os, any(city) as city, any(source) as source
              from feed group by user_id)
        """
    ).loc[0]
    for share in (found.no_age, found.zero_age, found.no_gender, found.empty_gender, found.odd):
        assert 0 < share < 0.04
    assert 13 <= found.youngest < 20
    assert 60 < found.oldest < 90


def test_times_have_evenly_spread_milliseconds(month: ClickHouse) -> None:
    spread = (
        "select uniqExact(part) as parts, avg(part) as mean from (select toUnixTimestamp64Milli(time) % 1000 as part"
    )
    for table in ("feed", "messages"):
        found = month.read(f"{spread} from {{t:Identifier}})", t=table).loc[0]
        assert found.parts == 1000
        assert found["mean"] == pytest.approx(499.5, abs=5)


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_a_day_of_23_or_25_hours_is_that_long(clickhouse_server: Server, day: date, hours: int) -> None:
    app = App(BERLIN, f"events_{hours}", events_per_day=20_000)
    fill(clickhouse_server, app, until=day + timedelta(days=1), days=1)
    db = ClickHouse(clickhouse_server.url, app.database, BERLIN)
    found = db.read(
        """
        select
            toUnixTimestamp(toStartOfHour(time)) as hour,
            toHour(any(time), 'Europe/Berlin') as clock,
            count() as rows
        from feed_actions group by hour order by hour
        """
    )
    wall = [hour for hour in range(24) if not (hours == 23 and hour == 2)]
    assert sorted(found.clock) == sorted(wall + ([2] if hours == 25 else []))
    assert found.hour.iloc[-1] - found.hour.iloc[0] == (hours - 1) * 3600
    assert found.set_index("clock").rows.idxmax() in (19, 20, 21)
    assert content(db, day, BERLIN).rows.sum() == db.value(
        "select (select count() from feed_actions) + (select count() from message_actions)"
    )


def test_another_time_zone_starts_with_new_tables(clickhouse_server: Server) -> None:
    day = date(2026, 11, 10)
    db, app = one_day(clickhouse_server, "events_zone", day)
    fill(clickhouse_server, App(BERLIN, app.database, events_per_day=2_000), until=day + timedelta(days=1), days=1)
    span = db.read("select min(time) as first, max(time) as last from feed_actions").loc[0]
    assert span["first"].tz_convert(BERLIN).date() == span["last"].tz_convert(BERLIN).date() == day


def test_tables_without_milliseconds_are_replaced(clickhouse_server: Server) -> None:
    day = date(2026, 11, 10)
    db, app = one_day(clickhouse_server, "events_before", day)
    whole = content(db, day)
    for table in ("feed_actions", "message_actions"):
        db.execute(
            "create or replace table {table:Identifier} engine = MergeTree partition by toDate(time, 'Europe/Moscow')"
            " order by (time, user_id) as select * replace (toDateTime(time) as time) from {table:Identifier}",
            table=table,
        )
    assert (content(db, day).hash != whole.hash).all()
    assert fill(clickhouse_server, app, until=day + timedelta(days=1), days=1) == whole.rows.sum()
    pd.testing.assert_frame_equal(content(db, day), whole)


# --- only in the sandbox ---------------------------------------------------------------------------------------------


@pytest.fixture
def another_server() -> Iterator[tuple[Server, list[str]]]:
    """A server that answers like ClickHouse, and the requests that it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"Ok.\n")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Server("127.0.0.1", server.server_port, Path("/nowhere"), 1), asked
        server.shutdown()


def test_a_server_that_is_not_the_sandbox_is_refused(another_server: tuple[Server, list[str]]) -> None:
    server, asked = another_server
    with pytest.raises(SandboxError, match="is not the sandbox"):
        fill(server, App(MOSCOW))
    with pytest.raises(SandboxError, match="is not the sandbox"):
        make_until(server, App(MOSCOW), datetime.now(MOSCOW))
    assert set(asked) == {"GET /sandbox"}


def test_a_missing_server_is_refused() -> None:
    with pytest.raises(SandboxError, match="is not the sandbox"):
        fill(Server("127.0.0.1", 1, Path("/nowhere"), 1), App(MOSCOW))


def test_impossible_requests_are_refused_in_a_sentence(clickhouse_server: Server) -> None:
    tomorrow = datetime.now(MOSCOW) + timedelta(days=1)
    with pytest.raises(SandboxError, match="one or more days"):
        fill(clickhouse_server, App(MOSCOW), days=0)
    with pytest.raises(SandboxError, match="days that end by"):
        fill(clickhouse_server, App(MOSCOW), until=tomorrow.date())
    with pytest.raises(SandboxError, match="not in the future"):
        make_until(clickhouse_server, App(MOSCOW), tomorrow)
    with pytest.raises(SandboxError, match="with a time zone"):
        make_until(clickhouse_server, App(MOSCOW), datetime(2026, 11, 10))
    with pytest.raises(SandboxError, match="events_per_day=0"):
        App(MOSCOW, events_per_day=0)
