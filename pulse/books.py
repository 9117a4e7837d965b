"""What the books of a day say: its published tables beside what was published, beside each other and beside the source.

Each table is compared with what was published, whole; `daily_metrics` and `dimension_activity`, column by column, with
what `user_activity` adds up to and with what the source holds.

A source that holds other rows than when the day was published is no disagreement: that is late data, and is told as
such. The tables are then what the source held, and nothing is said of what it holds now.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd

from pulse import clickhouse, messages, publishing, settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import DIMENSIONS

# Slices of a dimension add up to these; distinct users do not add up, and received is counted otherwise there.
SUMS = ("views", "likes", "messages_sent")
COUNTS = ("views", "likes", "messages_received", "messages_sent")
PARTNERS = ("users_received", "users_sent")
MOST_SLICES = 5  # the slices of a table that a sentence names, where more are wrong
LATE_DAYS = 7  # how many days back the source is looked at again, when a day is reconciled

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


def source_disagreements(db: ClickHouse, config: settings.Settings, day: date, row: Numbers) -> Iterator[str]:
    """What the tables of a published day and the source do not agree on, a line each; for a day without late data.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    yield from _source(db, config, day, row)
    yield from _partners(db, config, day)


def is_recorded(db: ClickHouse, day: date) -> bool:
    """Whether it is known what the source held when the day was published."""
    published = publishing.publication(db, day)
    return published is not None and bool(published.feed_rows)


def differences(where: str, found: Numbers, row: Numbers) -> Iterator[str]:
    """The columns of a row of `daily_metrics` that are another number elsewhere, a line each."""
    for column, value in found.items():
        expected = row[column]
        same = value is None if expected is None else value is not None and math.isclose(value, expected, rel_tol=1e-9)
        if not same:
            yield f"{column} is {_shown(expected)} in daily_metrics, {_shown(value)} in {where}"


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
    published = publishing.publication(db, day)
    found = []
    if published is None:
        return []
    for view, source, then in (
        ("feed_events", "feed_actions", published.feed_rows),
        ("message_events", "message_actions", published.message_rows),
    ):
        now = _rows_by_hour(db, view, day, config) if then else []
        now += [0] * (len(then) - len(now))
        hours = tuple(hour for hour, (before, after) in enumerate(zip(then, now, strict=True)) if before != after)
        if hours:
            found.append(Late(day, source, sum(then), sum(now), hours))
    return found


def late_days(day: date, config: settings.Settings, days: int = LATE_DAYS) -> list[Late]:
    """`late_data` of a day and the days before it.

    Raises:
        ClickHouseError: as `late_data`.
    """
    return [late for back in range(days) for late in late_data(day - timedelta(days=back), config)]


def _rows_by_hour(db: ClickHouse, view: str, day: date, config: settings.Settings) -> list[int]:
    """The rows that a source holds, for each hour since the day began up to the last one with rows."""
    by_hour = """
    -- What a source holds, one row per hour since the day began
    select
        intDiv(dateDiff('second', {day_start:DateTime64(6)}, assumeNotNull(time)), 3600) as hour,
        count() as row_count
    from {view:Identifier}
    where time >= {day_start:DateTime64(6)} and time < {day_end:DateTime64(6)}
    group by hour
    """
    day_start, day_end = config.day_bounds(day)
    found = db.read(by_hour, view=view, day_start=day_start, day_end=day_end).set_index("hour")["row_count"]
    return [int(found.get(hour, 0)) for hour in range(int(found.index.max()) + 1)] if len(found) else []


def _changed(db: ClickHouse, day: date) -> Iterator[str]:
    """The tables that do not hold what was published."""
    published = publishing.publication(db, day)
    if published is None:
        return
    for table, then in published.contents.items():
        now = publishing.read_contents(db, f"{table}_loads", day, published.load, then.columns)
        if now.rows != then.rows:
            yield f"{table} has {now.rows:,} rows, {then.rows:,} were published"
        elif now != then:
            yield f"{table} was changed after it was published"


def _users(db: ClickHouse, day: date, row: Numbers) -> Iterator[str]:
    """The metrics that are not what the users add up to."""
    added_up = """
    -- The day's metrics from its users, one row
    select
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
    from user_activity as users
    where users.event_date = {day:Date}
    """
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


def _source(db: ClickHouse, config: settings.Settings, day: date, row: Numbers) -> Iterator[str]:
    """The metrics that are not what the source holds."""
    held = """
    -- What the source holds of the day, one row
    select
        sum(views) as views,
        sum(likes) as likes,
        sum(sent) as messages_sent,
        countIf(in_feed) as feed_users,
        countIf(not in_feed) as messenger_users,
        uniqExact(id) as app_users
    from (
        select
            toString(user_id) as id,
            true as in_feed,
            countIf(action = 'view') as views,
            countIf(action = 'like') as likes,
            0 as sent
        from feed_events
        where time >= {day_start:DateTime64(6)} and time < {day_end:DateTime64(6)}
        group by id
        union all
        select toString(user_id) as id, false as in_feed, 0 as views, 0 as likes, count() as sent
        from message_events
        where time >= {day_start:DateTime64(6)} and time < {day_end:DateTime64(6)}
        group by id
    )
    """
    day_start, day_end = config.day_bounds(day)
    found = db.read(held, day_start=day_start, day_end=day_end).loc[0]
    yield from differences("the source", {name: plain(value) for name, value in found.items()}, row)


def _partners(db: ClickHouse, config: settings.Settings, day: date) -> Iterator[str]:
    """The slices whose partners are not those that the source's messages make."""
    partners = f"""
    -- The partners of each slice as the source has them and as they are published, one row per slice that differs
    with pairs as (
        select distinct
            toString(user_id) as sender,
            toString(receiver_id) as receiver
        from message_events
        where time >= {{day_start:DateTime64(6)}} and time < {{day_end:DateTime64(6)}}
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
