"""The benchmark's data: a day of events, the history before it, and the same day as other apps would have it."""

# ruff: noqa: S608 (what is formatted into SQL stands in this module)
from collections.abc import Iterator
from datetime import date, timedelta
from time import sleep
from zoneinfo import ZoneInfo

from pulse_sandbox.events_sql import TABLES

from pulse.clickhouse import ClickHouse
from pulse.settings import day_bounds

HISTORY_DAYS = 30
"""As far back as the transform looks."""

USERS = """
-- Accounts, one row each
create or replace table making_users
engine = MergeTree
order by number
as with
    cityHash64('user', number) as dice,
    (what, sides) -> cityHash64(dice, what) % sides as roll
select
    number,
    toUInt32(1 + number * 2654435761 % (4 * {users:UInt64})) as user_id,  -- a prime: no two get the same
    if(roll('os', 100) < 42, 'iOS', 'Android')::LowCardinality(String) as os,
    if(roll('phones', 100) < 4, if(os = 'iOS', 'Android', 'iOS'), os)::LowCardinality(String) as second_os,
    multiIf(roll('gender', 100) < 1, null, roll('gender', 100) < 2, '', roll('gender', 100) < 52, 'female', 'male')
        ::LowCardinality(Nullable(String)) as gender,
    multiIf(roll('age', 100) < 1, null, roll('age', 100) < 2, 0, 14 + roll('youth', 16) + roll('adult', 50))
        ::Nullable(UInt8) as age,
    cityHash64(dice, 'switch') % {seconds:UInt32} as switch  -- when the second phone is taken up
from numbers_mt({users:UInt64})
"""

# Who acts: the lower an account's number, the more often. One of every 20 accounts does not act that day, but receives
# messages.
EVENTS = """
    events as (
        select
            cityHash64({kind:String}, number) as dice,
            toUInt64(pow(dice / 18446744073709551616., 2) * {users:UInt64}) as place,
            toUInt64(place - if(place % 20 = {idle:UInt8} and place > 0, 1, 0)) as who,
            cityHash64(dice, 'second') % {seconds:UInt32} as second
        from numbers_mt({rows:UInt64})
    )
"""

FEED = f"""
-- Feed actions, one row each
insert into feed_actions (user_id, post_id, action, time, os, gender, age)
with
{EVENTS}
select
    user_id,
    cityHash64(dice, 'post') % 50000 as post_id,
    if(cityHash64(dice, 'like') % 5 = 0, 'like', 'view') as action,
    toDateTime({{start:UInt32}} + second) as time,
    if(second < switch, os, second_os) as os,
    gender,
    age
from events
inner join making_users as users on users.number = events.who
"""

MESSAGES = f"""
-- Messages, one row each: to one of up to 15 friends
insert into message_actions (user_id, receiver_id, time, os, gender, age)
with
{EVENTS},
    letters as (
        select
            *,
            cityHash64(dice, 'friend') % (1 + cityHash64(who, 'friends') % 15) as friend,
            toUInt64(pow(cityHash64(who, friend) / 18446744073709551616., 2) * {{users:UInt64}}) as partner
        from events
    )
select
    user_id,
    toUInt32(1 + partner * 2654435761 % (4 * {{users:UInt64}})) as receiver_id,
    toDateTime({{start:UInt32}} + second) as time,
    if(second < switch, os, second_os) as os,
    gender,
    age
from letters
inner join making_users as users on users.number = letters.who
"""


# A day as it would have been published, made from another: each user acted, but for one in twenty.
PUBLISHED = """
insert into user_activity_loads
select * replace (
    'history' as load,
    {day:Date} as event_date,
    0 as messages_sent,
    cityHash64(user_id, {day:Date}) % 20 != 0 as feed_active
)
from user_activity_loads as made
where (made.event_date, made.load) in (select event_date, load from published_loads where event_date = {like:Date})
"""

# The same events with other types: the name, and what to replace in the tables' columns.
VARIANTS = {
    "ids of 64 bits": ("toUInt64({}) * 4294967311", "time"),
    "ids as text": ("concat('user-', toString({}))", "time"),
    "whole seconds": ("{}", "toDateTime(time)"),
    "microseconds": ("{}", "addMicroseconds(toDateTime64(time, 6), cityHash64(time, user_id) % 1000)"),
}
# The same events on disk in other ways: the partition key and the sorting key.
LAYOUTS = {
    "sorted by user": ("", "(user_id, time)"),
    "by month, by hour and user": ("partition by toYYYYMM(time)", "(toStartOfHour(time), user_id)"),
    "unsorted": ("", "tuple()"),
}


def make_day(url: str, database: str, day: date, zone: ZoneInfo, feed: int, messages: int, users: int) -> None:
    """Create the app's tables with one day of events."""
    ClickHouse(url, "default", zone).execute("create database if not exists {database:Identifier}", database=database)
    db = ClickHouse(url, database, zone)
    db.script(TABLES, zone=zone.key)
    db.execute(USERS, users=users, **_seconds(day, zone))
    _make_events(db, day, zone, feed, messages, users, idle=19)
    _settle(db)


def make_history(url: str, database: str, day: date, zone: ZoneInfo, feed: int, messages: int, users: int) -> None:
    """Add the days before a day that `make_day` made, each with this many events."""
    db = ClickHouse(url, database, zone)
    for back in range(1, HISTORY_DAYS + 1):
        _make_events(db, day - timedelta(days=back), zone, feed, messages, users, idle=back % 19)
    _settle(db)


def publish_history(db: ClickHouse, day: date) -> None:
    """Publish the days before a published day, with as many users as it has; only what the transform reads of them."""
    for back in range(1, HISTORY_DAYS + 1):
        before = day - timedelta(days=back)
        copied = db.execute(PUBLISHED, day=before, like=day)
        assert copied.written_rows, f"no user of {day} was copied to {before}"
        row = {
            "event_date": before,
            "step": 1,
            "load": "history",
            "run": "history",
            "extracted_at": 0,
            "contents": "{}",
        }
        db.write([row], "publications")
    _settle(db)


def other_apps(url: str, database: str, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    """The day of a database as other apps would have it, one after the other: what is different, and the database.

    Each is dropped when the next one is asked for.
    """
    outside = ClickHouse(url, "default", zone)
    apps = {name: ("partition by toDate(time)", "(time, user_id)", *types) for name, types in VARIANTS.items()}
    apps |= {name: (*layout, "{}", "time") for name, layout in LAYOUTS.items()}
    for number, (name, (partition, key, an_id, time)) in enumerate(apps.items()):
        other = f"{database}_{number}"
        outside.execute("create database {other:Identifier}", other=other)
        for table, ids in (("feed_actions", ["user_id"]), ("message_actions", ["user_id", "receiver_id"])):
            replaced = ", ".join([*(f"{an_id.format(column)} as {column}" for column in ids), f"{time} as time"])
            ClickHouse(url, other, zone).execute(
                f"create table {table} engine = MergeTree {partition} order by {key} "
                f"as select * replace ({replaced}) from {database}.{table}"
            )
        _settle(outside)
        yield name, other
        outside.execute("drop database {other:Identifier}", other=other)


def _make_events(db: ClickHouse, day: date, zone: ZoneInfo, feed: int, messages: int, users: int, idle: int) -> None:
    common = {"users": users, "idle": idle, **_seconds(day, zone)}
    db.execute(FEED, **common, kind=f"feed{day}", rows=feed)
    db.execute(MESSAGES, **common, kind=f"message{day}", rows=messages)


def _settle(db: ClickHouse) -> None:
    """Wait until the server has merged what was inserted, as a real one has long before the morning."""
    while db.value("select count() from system.merges"):
        sleep(0.2)


def _seconds(day: date, zone: ZoneInfo) -> dict[str, int]:
    start, end = day_bounds(day, zone)
    return {"start": int(start.timestamp()), "seconds": int((end - start).total_seconds())}
