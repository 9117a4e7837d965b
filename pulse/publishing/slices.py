"""Whether the published slices of a day are what their users, and the messages of the source, make them."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from pulse import settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import BY_COLUMN, DIMENSIONS, columns
from pulse.publishing.late_data import OF_THE_DAY
from pulse.wording import DASH

# The counts of a slice, which are sums over its users, and its distinct partners, which are not.
COUNTS = tuple(column for column in columns("dimension_activity") if BY_COLUMN[column].unit == "count")
PARTNERS = ("users_received", "users_sent")
MOST_SLICES = 5  # slices that a sentence names when more of them are wrong

# The day's metrics computed from its users: the columns of one row over `users`.
METRICS_OF_USERS = """
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

# The names of a day's attributes, by their keys. Each view has keys of its own.
NAMES_OF_THE_DAY = f"""
    -- What each attributes key means, one row per key
    select attributes, os, gender, age, country, city, source, exp_group
    from feed_events
    where {OF_THE_DAY}
    limit 1 by attributes
    union all
    select attributes, os, gender, age, country, city, source, exp_group
    from message_events
    where {OF_THE_DAY}
    limit 1 by attributes
"""  # noqa: S608 (our own names)

# The end of both comparisons of slices: those that `published` and `expected` count differently.
DIFFERING = """
    select
        dimension,
        dimension_value,
        published.counts as found,
        expected.counts as expected
    from published
    full join expected using (dimension, dimension_value)
    where toString(published.counts) != toString(expected.counts)  -- a NULL is never unequal
    order by dimension, dimension_value
"""


def disagreements(db: ClickHouse, day: date, dimensions: Sequence[str]) -> Iterator[str]:
    """The slices of some dimensions that differ from what their users make them, one line for each difference.

    Raises:
        ClickHouseError: no server answers, or a table is not there.
    """
    yield from _counts(db, day, dimensions)
    yield from _metrics(db, day, dimensions)


def of_day(db: ClickHouse, day: date) -> list[str]:
    """The dimensions by which a published day is split: without the optional ones that its source did not have.

    Raises:
        ClickHouseError: no server answers, or a table is not there.
    """
    optional = [each.column for each in DIMENSIONS if each.optional]
    known = ", ".join(f"max(users.{name} != 'unknown') as {name}" for name in optional)
    found = f"""
    -- The dimensions that a day's slices or users show, one row
    select
        (select groupUniqArray(dimension) from dimension_activity where event_date = {{day:Date}}) as counted,
        (select groupUniqArray(dimension) from dimension_metrics where event_date = {{day:Date}}) as measured,
        {known}
    from user_activity as users
    where users.event_date = {{day:Date}}
    """  # noqa: S608 (the names are those of our own dimensions)
    (row,) = db.rows(found, day=day)
    there = {*row["counted"], *row["measured"], *(name for name in optional if row[name])}
    return [each.column for each in DIMENSIONS if not each.optional or each.column in there]


def _counts(db: ClickHouse, day: date, dimensions: Sequence[str]) -> Iterator[str]:
    """The slices that differ from the sums over their users."""
    slices = f"""
    -- Each count of each slice as its users make it and as it is published, one row per slice that differs
    with expected as (
        select
            slice.1 as dimension,
            slice.2 as dimension_value,
            ({_sums_of(COUNTS)}) as counts
        from user_activity
        array join [{named(dimensions)}] as slice
        where event_date = {{day:Date}}
        group by dimension, dimension_value
    ),

    published as (
        select
            dimension,
            dimension_value,
            ({_sums_of(COUNTS)}) as counts
        from dimension_activity
        where event_date = {{day:Date}}
        group by dimension, dimension_value
    )

    {DIFFERING}
    """  # noqa: S608 (the names are those of our own dimensions)
    yield from _slice_differences(db.rows(slices, day=day), COUNTS, "dimension_activity", "from user_activity")


def _metrics(db: ClickHouse, day: date, dimensions: Sequence[str]) -> Iterator[str]:
    """The slices whose metrics differ from those of their users."""
    metrics = columns("dimension_metrics")
    slices = f"""
    -- Each metric of each slice as its users make it and as it is published, one row per slice that differs
    with metrics as (
        select
            slice.1 as dimension,
            slice.2 as dimension_value,
            {METRICS_OF_USERS}
        from user_activity as users
        array join [{named(dimensions, "users.")}] as slice
        where users.event_date = {{day:Date}}
        group by dimension, dimension_value
    ),

    expected as (
        select dimension, dimension_value, ({", ".join(metrics)}) as counts
        from metrics
    ),

    published as (
        select dimension, dimension_value, ({", ".join(metrics)}) as counts
        from dimension_metrics
        where event_date = {{day:Date}}
    )

    {DIFFERING}
    """  # noqa: S608 (the names are those of our own metrics)
    yield from _slice_differences(db.rows(slices, day=day), metrics, "dimension_metrics", "from user_activity")


def partner_disagreements(
    db: ClickHouse, config: settings.Settings, day: date, dimensions: Sequence[str]
) -> Iterator[str]:
    """The slices of some dimensions whose distinct partners differ from those in the source's messages, a line each.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
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
            [{named(dimensions)}] as slices
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
    found = db.rows(partners, day=day, day_start=day_start, day_end=day_end)
    yield from _slice_differences(found, PARTNERS, "dimension_activity", "from the source")


def named(dimensions: Sequence[str], of: str = "") -> str:
    """Dimensions as pairs of name and value, for an array in SQL; `of` qualifies their columns."""
    return ", ".join(f"('{name}', toString({of}{name}))" for name in dimensions)


def of_names(dimensions: Sequence[str], names: str) -> str:
    """Dimensions as pairs of name and value, for an array in SQL, from a table with the columns of `NAMES_OF_THE_DAY`.

    What the source does not know is `unknown`, as in the published tables.
    """
    nothing = {"age": "'', '0'"}
    return ", ".join(
        f"('{name}', if({names}.{name} in ({nothing.get(name, repr(''))}), 'unknown', {names}.{name}))"
        for name in dimensions
    )


def shown(value: float | None) -> str:
    """A number in a sentence."""
    return DASH if value is None else f"{value:,.10g}"


def _sums_of(names: tuple[str, ...]) -> str:
    """The sums of columns, for a tuple in SQL."""
    return ", ".join(f"sum({name})" for name in names)


def _slice_differences(found: list[dict[str, Any]], columns: Sequence[str], table: str, how: str) -> Iterator[str]:
    for record in found[:MOST_SLICES]:
        for column, value, expected in zip(columns, record["found"], record["expected"], strict=True):
            if value != expected:
                yield (
                    f"{column} of {record['dimension']} {record['dimension_value']} is {shown(value)} "
                    f"in {table}, {shown(expected)} {how}"
                )
    if len(found) > MOST_SLICES:
        yield f"{len(found) - MOST_SLICES} more slices differ"
