"""The benchmark's data, and two other ways to the tables that the ETL notebooks make: by hand and pandas.

    python -m benchmarks.ways URL DATABASE DAY ZONE plain|hashed

runs the pandas way. It prints one line of JSON: seconds, peak memory in bytes, and the rows of `dimension_activity`.
"""

# ruff: noqa: S608 (what is formatted into SQL stands in this module)
import json
import resource
import sys
import time
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from pulse_sandbox.events_sql import TABLES

from pulse.clickhouse import ClickHouse
from pulse.settings import day_bounds

DIMENSIONS = ("os", "gender", "age")

# --- the data --------------------------------------------------------------------------------------------------------

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

# Who acts: the lower an account's number, the more often. One of every 20 accounts never acts, but receives messages.
EVENTS = """
    events as (
        select
            cityHash64({kind:String}, number) as dice,
            toUInt64(pow(dice / 18446744073709551616., 2) * {users:UInt64}) as place,
            toUInt64(place - if(place % 20 = 19, 7, 0)) as who,
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


def make_day(url: str, database: str, day: date, zone: ZoneInfo, feed: int, messages: int, users: int) -> None:
    """Create the app's tables with one day of events."""
    ClickHouse(url, "default", zone).execute("create database if not exists {database:Identifier}", database=database)
    db = ClickHouse(url, database, zone)
    db.script(TABLES, zone=zone.key)
    start, end = day_bounds(day, zone)
    common = {"users": users, "start": int(start.timestamp()), "seconds": int((end - start).total_seconds())}
    db.execute(USERS, **common)
    db.execute(FEED, **common, kind="feed", rows=feed)
    db.execute(MESSAGES, **common, kind="message", rows=messages)
    db.execute("drop table making_users")


# --- by hand ---------------------------------------------------------------------------------------------------------

# An action's second of the day in the high bits, a hash of its attributes in the low ones: the maximum is the latest
# action with its attributes. This needs whole seconds and a day that begins at a known second; the notebooks do not.
ACTIONS = """
    bitXor(
        ifNull(cityHash64(os), 1),
        bitXor(bitRotateLeft(ifNull(cityHash64(gender), 2), 1), bitRotateLeft(ifNull(cityHash64(age), 3), 2))
    ) as hash,
    bitShiftRight(hash, 17) as attributes,
    bitShiftLeft(toUInt64(toUnixTimestamp(time) - {start:UInt32}), 47) + attributes as latest
"""
OF_THE_DAY = "time >= toDateTime64({start:UInt32}, 6) and time < toDateTime64({end:UInt32}, 6)"
NAMED = """
    named as (
        select
            users.user_id as user_id, views, likes, received, sent, senders, receivers, feed_active,
            os, gender, age, code
        from hand_users as users
        left join hand_earlier as earlier using (user_id)
        left join hand_names as names on names.attributes = greatest(users.attributes, earlier.found.1)
    )"""
BEFORE_IT = "time >= toDateTime64({start:UInt32} - 30 * 86400, 6) and time < toDateTime64({start:UInt32}, 6)"

# No staging between source and users, a narrow hash to find the latest attributes with, and one pass for the distinct
# counts of all dimensions: the slices that each partner meets as a set of small numbers, then the partners per slice.
BY_HAND = f"""
-- One row per user, with the partners
create or replace table hand_users
engine = MergeTree
order by user_id
as
with
    feed as (
        select user_id, countIf(action = 'view') as views, countIf(action = 'like') as likes, max(latest) as latest
        from (select *, {ACTIONS} from {{source:Identifier}}.feed_actions where {OF_THE_DAY})
        group by user_id
    ),
    sent as (
        select user_id, count() as messages, groupUniqArray(receiver_id) as receivers, max(latest) as latest
        from (select *, {ACTIONS} from {{source:Identifier}}.message_actions where {OF_THE_DAY})
        group by user_id
    ),
    received as (
        select receiver as user_id, count() as messages, groupUniqArray(sender) as senders
        from (
            select receiver_id as receiver, user_id as sender
            from {{source:Identifier}}.message_actions
            where {OF_THE_DAY}
        )
        group by receiver
    ),
    messages as (
        select user_id, sent.messages as sent, received.messages as received, senders, receivers, latest
        from sent
        full join received using (user_id)
    )
select
    user_id,
    bitAnd(greatest(feed.latest, messages.latest), 0x7fffffffffff) as attributes,
    views,
    likes,
    received,
    sent,
    senders,
    receivers,
    feed.latest > 0 as feed_active
from messages
full join feed using (user_id);

-- The latest earlier attributes of users who only received messages
create or replace table hand_earlier
engine = MergeTree
order by user_id
as
with
    passive as (select user_id from hand_users where attributes = 0),
    actions as (
        select user_id, time, os, gender, age
        from {{source:Identifier}}.feed_actions
        where {BEFORE_IT} and user_id in (passive)
        union all
        select user_id, time, os, gender, age
        from {{source:Identifier}}.message_actions
        where {BEFORE_IT} and user_id in (passive)
    )
select
    user_id,
    argMax((attributes, os, gender, age), (time, attributes)) as found
from (select *, {ACTIONS} from actions)
group by user_id;

-- The names of the attributes, one row per key, and all three as one number of 16 bits each
create or replace table hand_names
engine = MergeTree
order by attributes
as
with
    seen as (
        select os, gender, age, {ACTIONS}
        from {{source:Identifier}}.feed_actions
        where {OF_THE_DAY}
        union all
        select os, gender, age, {ACTIONS}
        from {{source:Identifier}}.message_actions
        where {OF_THE_DAY}
    ),
    spelled as (
        select attributes, any(os) as os, any(gender) as gender, any(age) as age
        from seen
        group by attributes
        union all
        select found.1 as attributes, any(found.2), any(found.3), any(found.4)
        from hand_earlier
        group by attributes
        union all
        select 0, '', null, null
    ),
    named as (
        select
            attributes,
            if(any(os) = '', 'unknown', any(os)) as os,
            if(ifNull(any(gender), '') = '', 'unknown', assumeNotNull(any(gender))) as gender,
            if(ifNull(any(age), 0) = 0, 'unknown', toString(assumeNotNull(any(age)))) as age
        from spelled
        group by attributes
    )
select
    *,
    dense_rank() over (order by os)
        + bitShiftLeft(dense_rank() over (order by gender), 16)
        + bitShiftLeft(dense_rank() over (order by age), 32) as code
from named;

create or replace table hand_user_activity engine = MergeTree order by user_id empty as select * from user_activity;

-- The target's shape, one row per user
insert into hand_user_activity
with {NAMED}
select
    {{day:Date}}, toString(user_id), os, gender, age, views, likes, received, sent, length(senders), length(receivers),
    feed_active
from named;

create or replace table hand_dimension_activity engine = MergeTree order by (dimension, dimension_value) empty
as select * from dimension_activity;

-- One row per dimension and value
insert into hand_dimension_activity
with {NAMED},
    [bitAnd(code, 0xffff), bitAnd(code, 0xffff0000), bitAnd(code, 0xffff00000000)] as slices_of_code,
    by_code as (
        select code, sum(views) as views, sum(likes) as likes, sum(received) as received, sum(sent) as sent
        from named
        group by code
    ),
    sums as (
        select
            arrayJoin(slices_of_code) as slice,
            sum(views) as views,
            sum(likes) as likes,
            sum(received) as received,
            sum(sent) as sent
        from by_code
        group by slice
    ),
    seen as (
        select groupUniqArray(code) as codes, true as wrote
        from (select code, arrayJoin(senders) as partner from named)
        group by partner
        union all
        select groupUniqArray(code) as codes, false as wrote
        from (select code, arrayJoin(receivers) as partner from named)
        group by partner
    ),
    partners as (
        select
            arrayJoin(arrayConcat(
                arrayDistinct(arrayMap(code -> bitAnd(code, 0xffff), codes)),
                arrayDistinct(arrayMap(code -> bitAnd(code, 0xffff0000), codes)),
                arrayDistinct(arrayMap(code -> bitAnd(code, 0xffff00000000), codes))
            )) as slice,
            countIf(wrote) as users_received,
            countIf(not wrote) as users_sent
        from seen
        group by slice
    ),
    values as (
        select distinct 'os' as dimension, os as value, bitAnd(code, 0xffff) as slice from hand_names
        union all
        select distinct 'gender', gender, bitAnd(code, 0xffff0000) from hand_names
        union all
        select distinct 'age', age, bitAnd(code, 0xffff00000000) from hand_names
    )
select {{day:Date}}, dimension, value, views, likes, received, sent, users_received, users_sent
from values
inner join sums using (slice)
left join partners using (slice);

create or replace table hand_daily_metrics engine = MergeTree order by event_date empty as select * from daily_metrics;

-- One row
insert into hand_daily_metrics
with
    totals as (
        select
            countIf(feed_active) as feed_users,
            countIf(messages_sent > 0) as messenger_users,
            countIf(feed_active or messages_sent > 0) as app_users,
            countIf(feed_active and messages_sent > 0) as both_users,
            sum(views) as views,
            sum(likes) as likes,
            sum(messages_sent) as sent,
            sumIf(messages_received, feed_active or messages_sent > 0) as received
        from hand_user_activity
    )
select
    {{day:Date}}, feed_users, messenger_users, app_users, both_users, views, likes,
    if(views = 0, null, likes / views), sent, received, if(received = 0, null, sent / received)
from totals;
"""


def by_hand(db: ClickHouse, source: str, day: date) -> float:
    """Create the three tables as `hand_…`. Returns the server's seconds."""
    start, end = (int(moment.timestamp()) for moment in day_bounds(day, db.zone))
    statements = [text for text in BY_HAND.split(";\n") if text.strip()]
    return sum(db.execute(text, source=source, day=day, start=start, end=end).seconds for text in statements)


# --- pandas ----------------------------------------------------------------------------------------------------------


def in_pandas(url: str, database: str, day: date, zone: ZoneInfo, hashed: bool) -> Any:
    """`dimension_activity` of a day whose users have no earlier one, from both tables as frames.

    Args:
        hashed: leave the strings in ClickHouse. pandahouse decodes each string in Python, so reading is several times
            as fast if the frames hold a hash of the attributes and one small frame maps the hash to them.
    """
    import pandahouse
    import pandas as pd

    start, end = (int(moment.timestamp()) for moment in day_bounds(day, zone))
    when = f"where time >= toDateTime64({start}, 6) and time < toDateTime64({end}, 6)"

    def read(sql: str) -> Any:
        return pandahouse.read_clickhouse(sql, connection={"host": url, "database": database})

    second = f"toUInt32(toUnixTimestamp(time) - {start}) as second"
    strings = "os::String as os, ifNull(gender::Nullable(String), '') as gender, ifNull(toString(age), '') as age"
    attributes = "cityHash64((os, gender, age)) as attributes" if hashed else strings
    liked = "toUInt8(action::String = 'like') as liked"
    feed = read(f"select user_id, {liked}, {second}, {attributes} from {{db}}.feed_actions {when}")
    messages = read(f"select user_id, receiver_id, {second}, {attributes} from {{db}}.message_actions {when}")
    if hashed:
        actions = " union all ".join(
            f"select os, gender, age, {attributes} from {{db}}.{table} {when}"
            for table in ("feed_actions", "message_actions")
        )
        names = read(
            f"""
            select
                attributes,
                any(actions.os::String) as os,
                any(ifNull(actions.gender::Nullable(String), '')) as gender,
                ifNull(toString(any(actions.age)), '') as age
            from ({actions}) as actions
            group by attributes
            """
        )
        numbers = pd.Series(names.index, index=names["attributes"])
        for frame in (feed, messages):
            frame["number"] = numbers.reindex(frame.pop("attributes")).to_numpy()
    else:
        names = _number(feed, messages)

    # The latest attributes: the maximum of one integer made of the second of the day and the attributes' number.
    for frame in (feed, messages):
        frame["latest"] = frame.pop("second").astype("int64") * len(names) + frame.pop("number")
    by_user, by_sender = feed.groupby("user_id", sort=False), messages.groupby("user_id", sort=False)
    acted = by_user["liked"].agg(["sum", "size"])
    latest = pd.concat([by_user["latest"].max(), by_sender["latest"].max()]).groupby(level=0).max()
    users = pd.DataFrame(
        {
            "views": acted["size"] - acted["sum"],
            "likes": acted["sum"],
            "messages_received": messages["receiver_id"].value_counts(sort=False),
            "messages_sent": by_sender.size(),
            "number": latest % len(names),
        }
    )
    named = names[list(DIMENSIONS)].replace({"": "unknown", "0": "unknown"})
    for dimension in DIMENSIONS:
        values = pd.Categorical(named[dimension], categories=sorted({"unknown", *named[dimension]}))
        users[dimension] = pd.Series(values).reindex(users["number"]).fillna("unknown").to_numpy()
        users[dimension] = users[dimension].astype("category")
    users = users.drop(columns="number").fillna({name: 0 for name in users.columns if name not in DIMENSIONS})

    pairs = messages[["user_id", "receiver_id"]].drop_duplicates()
    return pd.concat([_slices(users, pairs, dimension) for dimension in DIMENSIONS], ignore_index=True)


def _number(*frames: Any) -> Any:
    """Replace the attributes in the frames by a number. Returns the attributes of each number, one row each."""
    import pandas as pd

    categories = [sorted({value for frame in frames for value in frame[name].unique()}) for name in DIMENSIONS]
    for frame in frames:
        frame["number"] = 0
        for name, values in zip(DIMENSIONS, categories, strict=True):
            codes = pd.Categorical(frame.pop(name), categories=values).codes
            frame["number"] = frame["number"] * len(values) + codes
    return pd.MultiIndex.from_product(categories, names=DIMENSIONS).to_frame(index=False)


def _slices(users: Any, pairs: Any, dimension: str) -> Any:
    """The rows of `dimension_activity` for one dimension."""
    import pandas as pd

    of_user = users[dimension]

    def distinct(whose: str, partner: str) -> Any:
        seen = pd.DataFrame({"slice": of_user.reindex(pairs[whose]).to_numpy(), "partner": pairs[partner].to_numpy()})
        return seen.drop_duplicates().groupby("slice").size()

    slices = users.groupby(dimension, observed=True)[["views", "likes", "messages_received", "messages_sent"]].sum()
    slices["users_received"] = distinct("receiver_id", "user_id")
    slices["users_sent"] = distinct("user_id", "receiver_id")
    slices.index = slices.index.astype(str)
    slices = slices.fillna(0).astype("int64").rename_axis("dimension_value").reset_index()
    slices.insert(0, "dimension", dimension)
    return slices


def main() -> None:
    """Run the pandas way in a process of its own, so that the process's peak memory is the way's."""
    import pandahouse  # noqa: F401 (imported here so that the import is not timed)

    url, database, day, zone, way = sys.argv[1:]
    started = time.perf_counter()
    slices = in_pandas(url, database, date.fromisoformat(day), ZoneInfo(zone), hashed=way == "hashed")
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "memory": memory, "rows": slices.to_dict("records")}))


if __name__ == "__main__":
    main()
