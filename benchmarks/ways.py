"""Two other ways to the tables that the ETL notebooks make: by hand and pandas.

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

from pulse.clickhouse import ClickHouse, statements
from pulse.settings import day_bounds

DIMENSIONS = ("os", "gender", "age")

# --- by hand ---------------------------------------------------------------------------------------------------------

# Nothing is counted or checked, and no statement is run in parts. The slices in which each partner was met are the bits
# of one number, which holds 256 of them; the notebooks take any number.
BY_HAND = """
-- One row per user of the feed
create or replace table hand_feed engine = MergeTree order by tuple()
as
select user_id, countIf(action = 'view') as views, countIf(action = 'like') as likes, max(latest) as latest
from feed_events
where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}
group by user_id;

-- One row per sender
create or replace table hand_sent engine = MergeTree order by tuple()
as
select user_id, count() as messages_sent, groupUniqArray(receiver_id) as receivers, max(latest) as latest
from message_events
where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}
group by user_id;

-- One row per receiver
create or replace table hand_received engine = MergeTree order by tuple()
as
with
    messages as (
        select receiver_id as receiver, user_id as sender
        from message_events
        where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}
    )
select receiver as user_id, count() as messages_received, groupUniqArray(sender) as senders
from messages
group by user_id;

-- One row per user
create or replace table hand_users engine = MergeTree order by user_id
as
with
    parts as (
        select user_id, latest, views, likes, 0 as received, 0 as sent, 0 as senders, 0 as receivers, true as in_feed
        from hand_feed
        union all
        select user_id, latest, 0, 0, 0, messages_sent, 0, length(receivers), false from hand_sent
        union all
        select user_id, 0, 0, 0, messages_received, 0, length(senders), 0, false from hand_received
    )
select
    user_id,
    toUInt64(max(latest)) as attributes,
    sum(views) as views,
    sum(likes) as likes,
    sum(received) as messages_received,
    sum(sent) as messages_sent,
    sum(senders) as users_received,
    sum(receivers) as users_sent,
    max(in_feed) as feed_active
from parts
group by user_id;

-- The attributes that users who only received messages were last published with
create or replace table hand_earlier engine = MergeTree order by tuple()
as
with
    passive as (select user_id, toString(user_id) as id from hand_users where attributes = 0),
    found as (
        select user_activity.user_id as id, argMax((os, gender, age), event_date) as named
        from user_activity_loads as user_activity
        prewhere cityHash64(user_activity.user_id) in (select cityHash64(id) from passive)
        where
            _partition_value in (
                select (event_date, load) from published_loads
                where event_date >= {day:Date} - 30 and event_date < {day:Date}
            )
            and (feed_active or messages_sent > 0)
        group by id
    )
select passive.user_id as user_id, cityHash64(named) as attributes, named
from passive
inner join found using (id);

-- The names of the attributes, one row per key, with the slices as the bits of one number
create or replace table hand_names engine = MergeTree order by tuple()
as
with
    seen as (select any(user_id) from hand_users group by attributes),
    spelled as (
        select attributes, os, gender, age
        from feed_events
        where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)} and user_id in (seen)
        limit 1 by attributes
        union all
        select attributes, os, gender, age
        from message_events
        where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)} and user_id in (seen)
        limit 1 by attributes
        union all
        select attributes, any(named.1), any(named.2), any(named.3) from hand_earlier group by attributes
        union all
        select 0, '', '', ''
    ),
    named as (
        select
            attributes,
            if(any(os) = '', 'unknown', any(os)) as os,
            if(any(gender) = '', 'unknown', any(gender)) as gender,
            if(any(age) in ('', '0'), 'unknown', any(age)) as age
        from spelled
        group by attributes
    ),
    numbered as (
        select
            *,
            dense_rank() over (order by os) as os_number,
            dense_rank() over (order by gender) as gender_number,
            dense_rank() over (order by age) as age_number
        from named
    )
select
    attributes,
    os,
    gender,
    age,
    [
        os_number,
        max(os_number) over () + gender_number,
        max(os_number) over () + max(gender_number) over () + age_number
    ] as slices,
    arrayReduce('groupBitOr', arrayMap(slice -> bitShiftLeft(toUInt256(1), slice - 1), slices)) as mask
from numbered;

create or replace table hand_user_activity engine = MergeTree order by user_id empty as select * from user_activity;

-- The target's shape, one row per user
insert into hand_user_activity
select
    {day:Date}, toString(users.user_id), os, gender, age, 'unknown', 'unknown', 'unknown', 'unknown', views, likes,
    messages_received, messages_sent, users_received, users_sent, feed_active
from hand_users as users
left join hand_earlier as earlier using (user_id)
left join hand_names as names on names.attributes = greatest(users.attributes, earlier.attributes);

create or replace table hand_dimension_activity engine = MergeTree order by (dimension, dimension_value) empty
as select * from dimension_activity;

-- One row per dimension and value
insert into hand_dimension_activity
with
    known as (
        select users.* except attributes, greatest(users.attributes, earlier.attributes) as attributes
        from hand_users as users
        left join hand_earlier as earlier using (user_id)
    ),
    masks as (
        select known.user_id as user_id, mask
        from known
        left join hand_names as names on names.attributes = known.attributes
    ),
    met as (
        select groupBitOr(mask) as mask, 1 as received, 0 as sent
        from (select mask, arrayJoin(senders) as partner from hand_received inner join masks using (user_id))
        group by partner
        union all
        select groupBitOr(mask) as mask, 0 as received, 1 as sent
        from (select mask, arrayJoin(receivers) as partner from hand_sent inner join masks using (user_id))
        group by partner
    ),
    words as (
        select place, word, sum(received) as received, sum(sent) as sent
        from met
        array join
            [
                toUInt64(mask), toUInt64(bitShiftRight(mask, 64)), toUInt64(bitShiftRight(mask, 128)),
                toUInt64(bitShiftRight(mask, 192))
            ] as word,
            [1, 65, 129, 193] as place
        where word != 0
        group by place, word
    ),
    partners as (
        select
            toUInt64(place + arrayJoin(bitPositionsToArray(word))) as slice,
            sum(received) as users_received,
            sum(sent) as users_sent
        from words
        group by slice
    ),
    by_attributes as (
        select
            attributes,
            sum(views) as views,
            sum(likes) as likes,
            sum(messages_received) as received,
            sum(messages_sent) as sent
        from known
        group by attributes
    ),
    sums as (
        select
            dimension,
            value,
            any(slice) as slice,
            sum(views) as views,
            sum(likes) as likes,
            sum(received) as received,
            sum(sent) as sent
        from by_attributes
        inner join hand_names using (attributes)
        array join ['os', 'gender', 'age'] as dimension, [os, gender, age] as value, slices as slice
        group by dimension, value
    )
select {day:Date}, dimension, value, views, likes, received, sent, users_received, users_sent
from sums
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
    {day:Date}, feed_users, messenger_users, app_users, both_users, views, likes,
    if(views = 0, null, likes / views), sent, received, if(received = 0, null, sent / received)
from totals;
"""


def by_hand(db: ClickHouse, day: date) -> float:
    """Create the three tables as `hand_…`, from the views of a project. Returns the server's seconds."""
    start, end = day_bounds(day, db.zone)
    return sum(db.execute(text, day=day, start=start, end=end).seconds for text in statements(BY_HAND))


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
