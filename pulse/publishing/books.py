"""What the books of a day say: its published tables beside what was published, beside each other and beside the source.

Each table is compared with what was published, whole. Column by column, `daily_metrics` and `dimension_activity` are
compared with what `user_activity` adds up to, and `user_activity` and `daily_metrics` with what the source holds, user
by user; so are the partners of slices. Not compared with the source are the attributes of users who only received that
day: what an earlier day said of them is the transform's to look up, and load's to check.

A source that holds other rows than when the day was extracted is no disagreement: that is late data, and is told as
such. What is made from it is then not compared with it; what is made from the other source is.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd

from pulse import clickhouse, messages, settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import DIMENSIONS
from pulse.publishing import loads
from pulse.publishing.loads import Held

# Slices of a dimension add up to these; distinct users do not add up, and received is counted otherwise there.
SUMS = ("views", "likes", "messages_sent")
COUNTS = ("views", "likes", "messages_received", "messages_sent")
PARTNERS = ("users_received", "users_sent")
MOST_SLICES = 5  # the slices of a table that a sentence names, where more are wrong
LATE_DAYS = 7  # how many days, from the day back, the source is looked at again when a day is reconciled

FEED, MESSAGES = "feed_actions", "message_actions"
"""The sources, by the words of the specification."""
SOURCES = (FEED, MESSAGES)

# What each column is made from: of `user_activity`, and of `daily_metrics`.
USERS_FROM = {
    "user_id": SOURCES,
    "os": SOURCES,
    "gender": SOURCES,
    "age": SOURCES,
    "views": (FEED,),
    "likes": (FEED,),
    "messages_received": (MESSAGES,),
    "messages_sent": (MESSAGES,),
    "users_received": (MESSAGES,),
    "users_sent": (MESSAGES,),
    "feed_active": (FEED,),
}
METRICS_FROM = {
    "feed_users": (FEED,),
    "messenger_users": (MESSAGES,),
    "app_users": SOURCES,
    "both_users": SOURCES,
    "views": (FEED,),
    "likes": (FEED,),
    "ctr": (FEED,),
    "messages_sent": (MESSAGES,),
    "messages_received": SOURCES,
    "sent_per_received": SOURCES,
}

# The day's metrics as its users add up to them: columns of one row over `users`.
METRICS = """
        countIf(users.feed_active) as feed_users,
        countIf(users.messages_sent > 0) as messenger_users,
        countIf(users.feed_active or users.messages_sent > 0) as app_users,
        countIf(users.feed_active and users.messages_sent > 0) as both_users,
        sum(users.views) as views,
        sum(users.likes) as likes,
        if(views = 0, null, likes / views) as ctr,
        sum(users.messages_sent) as messages_sent,
        sumIf(users.messages_received, users.feed_active or users.messages_sent > 0) as messages_received,
        if(messages_received = 0, null, messages_sent / messages_received) as sent_per_received
"""
OF_THE_DAY = "time >= {day_start:DateTime64(6)} and time < {day_end:DateTime64(6)}"

# The slices that `published` and `expected` count differently: how both comparisons of slices end.
DIFFERING = """
    select
        dimension,
        dimension_value,
        published.counts as found,
        expected.counts as expected
    from published
    full join expected using (dimension, dimension_value)
    where published.counts != expected.counts
    order by dimension, dimension_value
"""

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Late:
    """A source's rows of a published day: how many it holds now, and held when the day was published."""

    event_date: date
    source: str
    """`feed_actions` or `message_actions`, by the words of the specification."""
    published: int
    now: int
    hours: tuple[int, ...]
    """The hours since the day began whose rows are more or fewer."""

    def __str__(self) -> str:
        hours = f"hour {self.hours[0]}" if len(self.hours) == 1 else f"hours {self.hours[0]} to {self.hours[-1]}"
        more = f"{abs(self.now - self.published):,} {'more' if self.now > self.published else 'fewer'}"
        return (
            f"{self.source} holds {more if self.now != self.published else 'other'} rows of {self.event_date} than "
            f"when it was published, in {hours} of the day; `pulse daily {self.event_date}` publishes the day anew"
        )


def disagreements(db: ClickHouse, day: date, row: Numbers) -> Iterator[str]:
    """What the tables of a published day do not agree on, a line each.

    Args:
        db: where they are.
        day: the day.
        row: its row of `daily_metrics`, by column.

    Raises:
        ClickHouseError: no server answers, or a table is not there.
    """
    yield from _changed(db, day)
    yield from _users(db, day, row)
    yield from _slices(db, day, row)
    yield from _slices_of_users(db, day)


def source_disagreements(
    db: ClickHouse, config: settings.Settings, day: date, row: Numbers, sources: Collection[str]
) -> Iterator[str]:
    """What the tables of a published day and the source do not agree on, a line each.

    Args:
        db: where the tables are.
        config: where the source is read from, and when the day begins.
        day: the day.
        row: its row of `daily_metrics`, by column.
        sources: those of `SOURCES` that hold what they held when the day was extracted.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    if sources:
        yield from _source(db, config, day, row, sources)
    if MESSAGES in sources:
        yield from _partners(db, config, day)


def is_recorded(db: ClickHouse, day: date) -> bool:
    """Whether it is known what the source held when the day was published."""
    published = loads.publication(db, day)
    return published is not None and bool(published.feed.rows)


def differences(where: str, found: Numbers, row: Numbers) -> Iterator[str]:
    """The numbers of a day, its slices' among them, that are others elsewhere, a line each."""
    for column, value in found.items():
        expected = row.get(column)
        same = value is None if expected is None else value is not None and math.isclose(value, expected, rel_tol=1e-9)
        if not same:
            table = "daily_metrics" if column in METRICS_FROM else "dimension_activity"
            yield f"{column} is {_shown(expected)} in {table}, {_shown(value)} in {where}"


def plain(value: Any) -> float | None:
    """A cell of a frame as a number, None where there is none."""
    return None if value is None or math.isnan(value) else value


def _shown(value: float | None) -> str:
    return messages.DASH if value is None else f"{value:,.10g}"


def late_data(day: date, config: settings.Settings) -> list[Late]:
    """The sources that hold other rows of a day than when it was published, as far as that was recorded.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    db = clickhouse.connect(config)
    published = loads.publication(db, day)
    found = []
    if published is None:
        return []
    for source, then in ((FEED, published.feed), (MESSAGES, published.messages)):
        if not then.rows:
            continue
        now = _held(db, source, day, config)
        hours = tuple(hour for hour in range(max(len(then.rows), len(now.rows))) if _differs(then, now, hour))
        if hours:
            found.append(Late(day, source, sum(then.rows), sum(now.rows), hours))
    return found


def late_days(day: date, config: settings.Settings, days: int = LATE_DAYS) -> list[Late]:
    """`late_data` of a day and the days before it.

    Raises:
        ClickHouseError: as `late_data`.
    """
    return [late for back in range(days) for late in late_data(day - timedelta(days=back), config)]


def _differs(then: Held, now: Held, hour: int) -> bool:
    """Whether a source holds other rows of an hour; hashes are compared where they were recorded."""
    pairs = [(then.rows, now.rows)] + ([(then.hashes, now.hashes)] if then.hashes else [])
    return any(_at(before, hour) != _at(after, hour) for before, after in pairs)


def _at(values: list[int], hour: int) -> int:
    return values[hour] if hour < len(values) else 0


def _held(db: ClickHouse, source: str, day: date, config: settings.Settings) -> Held:
    """What a source holds, up to the last hour with rows: over the day's own bounds, hashed as the extracts hash it."""
    view, what = {
        FEED: ("feed_events", "ifNull(cityHash64(action), 0)"),
        MESSAGES: ("message_events", "receiver_id"),
    }[source]
    by_hour = f"""
    -- What a source holds, one row per hour since the day began
    select
        intDiv(dateDiff('second', {{day_start:DateTime64(6)}}, assumeNotNull(time)), 3600) as hour,
        count() as row_count,
        sum(cityHash64(user_id, {what}, latest)) as hash
    from {view}
    where {OF_THE_DAY}
    group by hour
    """  # noqa: S608 (our own names)
    day_start, day_end = config.day_bounds(day)
    found = db.read(by_hour, day_start=day_start, day_end=day_end).set_index("hour")
    if found.empty:
        return Held([], [])
    found = found.reindex(range(int(found.index.max()) + 1), fill_value=0)
    return Held(found["row_count"].tolist(), found["hash"].tolist())


def _changed(db: ClickHouse, day: date) -> Iterator[str]:
    """The tables that do not hold what was published."""
    published = loads.publication(db, day)
    if published is None:
        return
    for table, then in published.contents.items():
        now = loads.read_contents(db, f"{table}_loads", day, published.load, then.columns)
        if now.rows != then.rows:
            yield f"{table} has {now.rows:,} rows, {then.rows:,} were published"
        elif now != then:
            yield f"{table} was changed after it was published"


def _users(db: ClickHouse, day: date, row: Numbers) -> Iterator[str]:
    """The metrics that are not what the users add up to."""
    added_up = f"""
    -- The day's metrics from its users, one row
    select {METRICS}
    from user_activity as users
    where users.event_date = {{day:Date}}
    """  # noqa: S608 (our own columns)
    found = db.read(added_up, day=day).loc[0]
    yield from differences("user_activity", {name: plain(value) for name, value in found.items()}, row)


def _slices(db: ClickHouse, day: date, row: Numbers) -> Iterator[str]:
    """The metrics that are not what the slices of a dimension add up to."""
    sums = """
    -- The totals of a day, one row per dimension
    select dimension, sum(views) as views, sum(likes) as likes, sum(messages_sent) as messages_sent
    from dimension_activity
    where event_date = {day:Date}
    group by dimension
    order by dimension
    """
    found = {record["dimension"]: record for record in db.read(sums, day=day).to_dict("records")}
    for dimension in DIMENSIONS:
        totals = found.get(dimension, dict.fromkeys(SUMS, 0))
        yield from differences(f"dimension_activity by {dimension}", {name: totals[name] for name in SUMS}, row)


def _slices_of_users(db: ClickHouse, day: date) -> Iterator[str]:
    """The slices that are not what their users add up to."""
    slices = f"""
    -- Each count of each slice as its users make it and as it is published, one row per slice that differs
    with expected as (
        select
            slice.1 as dimension,
            slice.2 as dimension_value,
            (sum(views), sum(likes), sum(messages_received), sum(messages_sent)) as counts
        from user_activity
        array join [{_named_dimensions()}] as slice
        where event_date = {{day:Date}}
        group by dimension, dimension_value
    ),

    published as (
        select
            dimension,
            dimension_value,
            (sum(views), sum(likes), sum(messages_received), sum(messages_sent)) as counts
        from dimension_activity
        where event_date = {{day:Date}}
        group by dimension, dimension_value
    )

    {DIFFERING}
    """  # noqa: S608 (the names are those of our own dimensions)
    yield from _slice_differences(db.read(slices, day=day), COUNTS, "from user_activity")


def _source(
    db: ClickHouse, config: settings.Settings, day: date, row: Numbers, sources: Collection[str]
) -> Iterator[str]:
    """The users, column by column, and the metrics that are not what the source holds."""
    columns = [column for column, made_from in USERS_FROM.items() if set(made_from) <= set(sources)]
    differ = {column: f"published.{column} != users.{column}" for column in columns}
    differ["user_id"] = "not (published.there and users.there)"
    for attribute in set(columns) & set(DIMENSIONS):  # who only received has those of an earlier day
        differ[attribute] = f"users.acted and {differ[attribute]}"
    counted = "".join(
        f",\n        countIf({differ[column]}) as differ_{column},"
        f"\n        anyIf(if(users.there, users.id, published.id), {differ[column]}) as such_{column}"
        for column in columns
    )
    held = f"""
    -- The day's metrics as the source makes them, and how many users it makes otherwise, by column; one row
    with halves as (
        select
            user_id,
            countIf(action = 'view') as views,
            countIf(action = 'like') as likes,
            0 as messages_received,
            0 as messages_sent,
            0 as users_received,
            0 as users_sent,
            true as feed_active,
            max(latest) as latest
        from feed_events
        where {OF_THE_DAY}
        group by user_id
        union all
        select user_id, 0, 0, 0, count(), 0, uniqExact(receiver_id), false, max(latest)
        from message_events
        where {OF_THE_DAY}
        group by user_id
        union all
        select receiver_id, 0, 0, count(), 0, uniqExact(user_id), 0, false, 0
        from message_events
        where {OF_THE_DAY}
        group by receiver_id
    ),

    whole as (
        select
            toString(user_id) as id,
            sum(views) as views,
            sum(likes) as likes,
            sum(messages_received) as messages_received,
            sum(messages_sent) as messages_sent,
            sum(users_received) as users_received,
            sum(users_sent) as users_sent,
            max(feed_active) as feed_active,
            max(latest) as last,
            toUInt64(last) as attributes
        from halves
        group by user_id
    ),

    names as (
        select attributes, os, gender, age
        from (
            select attributes, os, gender, age from feed_events where {OF_THE_DAY} limit 1 by attributes
            union all
            select attributes, os, gender, age from message_events where {OF_THE_DAY} limit 1 by attributes
        )
        limit 1 by attributes
    ),

    users as (
        select
            whole.* except attributes,
            true as there,
            last > 0 as acted,
            if(names.os = '', 'unknown', names.os) as os,
            if(names.gender = '', 'unknown', names.gender) as gender,
            if(names.age in ('', '0'), 'unknown', names.age) as age
        from whole
        left join names using (attributes)
    ),

    published as (
        select *, user_id as id, true as there
        from user_activity
        where event_date = {{day:Date}}
    )

    select {METRICS}{counted}
    from users
    full join published on published.id = users.id
    settings join_algorithm = 'full_sorting_merge'
    """  # noqa: S608 (our own columns)
    day_start, day_end = config.day_bounds(day)
    found = db.read(held, day=day, day_start=day_start, day_end=day_end).loc[0]
    metrics = {name: plain(found[name]) for name, made_from in METRICS_FROM.items() if set(made_from) <= set(sources)}
    yield from differences("the source", metrics, row)
    for column in columns:
        if number := int(found[f"differ_{column}"]):
            who = f"{number:,} user{'s' * (number > 1)}, such as {found[f'such_{column}']}"
            yield f"{column} differs between user_activity and the source for {who}"


def _partners(db: ClickHouse, config: settings.Settings, day: date) -> Iterator[str]:
    """The slices whose partners are not those that the source's messages make."""
    partners = f"""
    -- The partners of each slice as the source has them and as they are published, one row per slice that differs
    with pairs as (
        select distinct
            toString(user_id) as sender,
            toString(receiver_id) as receiver
        from message_events
        where {OF_THE_DAY}
    ),

    users as (
        select
            user_id,
            [{_named_dimensions()}] as slices
        from user_activity
        where event_date = {{day:Date}}
    ),

    met as (
        select arrayJoin(users.slices) as slice, pairs.sender as sender, null as receiver
        from pairs
        inner join users on users.user_id = pairs.receiver
        union all
        select arrayJoin(users.slices) as slice, null as sender, pairs.receiver as receiver
        from pairs
        inner join users on users.user_id = pairs.sender
    ),

    expected as (
        select
            slice.1 as dimension,
            slice.2 as dimension_value,
            (uniqExact(sender), uniqExact(receiver)) as counts
        from met
        group by dimension, dimension_value
    ),

    published as (
        select dimension, dimension_value, (sum(users_received), sum(users_sent)) as counts
        from dimension_activity
        where event_date = {{day:Date}}
        group by dimension, dimension_value
    )

    {DIFFERING}
    """  # noqa: S608 (the names are those of our own dimensions)
    day_start, day_end = config.day_bounds(day)
    found = db.read(partners, day=day, day_start=day_start, day_end=day_end)
    yield from _slice_differences(found, PARTNERS, "from the source")


def _named_dimensions() -> str:
    """The dimensions as pairs of name and value, for an array in SQL."""
    return ", ".join(f"('{dimension}', toString({dimension}))" for dimension in DIMENSIONS)


def _slice_differences(found: pd.DataFrame, columns: tuple[str, ...], how: str) -> Iterator[str]:
    for record in found.head(MOST_SLICES).to_dict("records"):
        for column, value, expected in zip(columns, record["found"], record["expected"], strict=True):
            if value != expected:
                yield (
                    f"{column} of {record['dimension']} {record['dimension_value']} is {value:,} "
                    f"in dimension_activity, {expected:,} {how}"
                )
    if len(found) > MOST_SLICES:
        yield f"{len(found) - MOST_SLICES} more slices differ"
