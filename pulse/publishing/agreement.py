"""Whether the tables of a published day agree with each other, with what was published, and with the source.

Each table is compared as a whole with the hash that was published. Then column by column: `daily_metrics`,
`dimension_activity` and `dimension_metrics` with the sums of `user_activity`; `user_activity` and `daily_metrics` with
the source, user by user; and so are the partners of slices. The attributes of users who only received messages that day
are not compared with the source, since they come from earlier days: the transform looks them up and load checks them.

A source whose rows changed after the extract is not a disagreement: that is late data (`pulse.publishing.late_data`).
Columns that are made from such a source are not compared with it; those made from the other source are.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from pulse import settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import BY_COLUMN, DIMENSIONS, FEED, MESSAGES, METRICS, SOURCES, columns
from pulse.publishing import loads, slices
from pulse.publishing.late_data import OF_THE_DAY
from pulse.publishing.slices import METRICS_OF_USERS, NAMES_OF_THE_DAY, shown

# What the slices of a dimension add up to.
SUMS = tuple(metric.column for metric in METRICS if metric.additive)

# The sources that each column of `user_activity` is computed from.
USERS_FROM = {
    **dict.fromkeys(("user_id", *(dimension.column for dimension in DIMENSIONS)), SOURCES),
    **{name: (FEED,) if BY_COLUMN[name].part == "feed" else (MESSAGES,) for name in columns("user_activity")},
    "feed_active": (FEED,),
}

Numbers = Mapping[str, float | None]


def disagreements(db: ClickHouse, day: date, row: Numbers) -> Iterator[str]:
    """How the tables of a published day differ from each other, one line for each difference.

    Args:
        db: where the tables are.
        day: the day.
        row: its row of `daily_metrics`, by column.

    Raises:
        ClickHouseError: no server answers, or a table is not there.
    """
    yield from _changed(db, day)
    yield from _users(db, day, row)
    dimensions = slices.of_day(db, day)
    yield from _slices(db, day, row, dimensions)
    yield from slices.disagreements(db, day, dimensions)


def source_disagreements(
    db: ClickHouse, config: settings.Settings, day: date, row: Numbers, sources: Collection[str]
) -> Iterator[str]:
    """How the tables of a published day differ from the source, one line for each difference.

    Args:
        db: where the tables are.
        config: where the source is, and when the day begins.
        day: the day.
        row: its row of `daily_metrics`, by column.
        sources: those of `SOURCES` that still hold the rows of the extract.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    if sources:
        dimensions = slices.of_day(db, day)
        yield from _source(db, config, day, row, sources, dimensions)
        if MESSAGES in sources:
            yield from slices.partner_disagreements(db, config, day, dimensions)


def is_recorded(db: ClickHouse, day: date) -> bool:
    """Whether the publication recorded the source's rows."""
    published = loads.publication(db, day)
    return published is not None and bool(published.feed.rows)


def differences(where: str, found: Numbers, row: Numbers) -> Iterator[str]:
    """The numbers of a day, or of its slices, that differ somewhere else, one line for each.

    Args:
        where: what `found` comes from.
        found: the numbers there, by column.
        row: the published numbers, by column.
    """
    for column, value in found.items():
        expected = row.get(column)
        same = value is None if expected is None else value is not None and math.isclose(value, expected, rel_tol=1e-9)
        if not same:
            table = "daily_metrics" if column in columns("daily_metrics") else "dimension_activity"
            yield f"{column} is {shown(expected)} in {table}, {shown(value)} in {where}"


def plain(value: Any) -> float | None:
    """A cell as a number; None where it is NULL or NaN."""
    return None if value is None or math.isnan(value) else value


def _changed(db: ClickHouse, day: date) -> Iterator[str]:
    """The tables that no longer hold what was published."""
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
    """The metrics that differ from the sums over users."""
    added_up = f"""
    -- The day's metrics from its users, one row
    select {METRICS_OF_USERS}
    from user_activity as users
    where users.event_date = {{day:Date}}
    """  # noqa: S608 (our own columns)
    (found,) = db.rows(added_up, day=day)
    yield from differences("user_activity", {name: plain(value) for name, value in found.items()}, row)


def _slices(db: ClickHouse, day: date, row: Numbers, dimensions: Sequence[str]) -> Iterator[str]:
    """The metrics that differ from the sums over the slices of a dimension."""
    sums = """
    -- The totals of a day, one row per dimension
    select dimension, sum(views) as views, sum(likes) as likes, sum(messages_sent) as messages_sent
    from dimension_activity
    where event_date = {day:Date}
    group by dimension
    order by dimension
    """
    found = {record["dimension"]: record for record in db.rows(sums, day=day)}
    for dimension in dimensions:
        totals = found.get(dimension, dict.fromkeys(SUMS, 0))
        yield from differences(f"dimension_activity by {dimension}", {name: totals[name] for name in SUMS}, row)


def _source(
    db: ClickHouse,
    config: settings.Settings,
    day: date,
    row: Numbers,
    sources: Collection[str],
    dimensions: Sequence[str],
) -> Iterator[str]:
    """The columns of users, and the metrics, that differ from the source."""
    # Without the dimensions that the source did not have yet when the day was published.
    absent = {dimension.column for dimension in DIMENSIONS} - {*dimensions}
    compared = [
        column for column, made_from in USERS_FROM.items() if set(made_from) <= set(sources) and column not in absent
    ]
    differ = {column: f"published.{column} != users.{column}" for column in compared}
    differ["user_id"] = "not (published.there and users.there)"
    for attribute in set(compared) & {
        dimension.column for dimension in DIMENSIONS
    }:  # users who only received have those of an earlier day
        differ[attribute] = f"users.acted and {differ[attribute]}"
    counted = "".join(
        f",\n        countIf({differ[column]}) as differ_{column},"
        f"\n        anyIf(if(users.there, users.id, published.id), {differ[column]}) as such_{column}"
        for column in compared
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

    names as ({NAMES_OF_THE_DAY}),

    users as (
        select
            whole.* except attributes,
            true as there,
            last > 0 as acted,
            if(names.os = '', 'unknown', names.os) as os,
            if(names.gender = '', 'unknown', names.gender) as gender,
            if(names.age in ('', '0'), 'unknown', names.age) as age,
            if(names.country = '', 'unknown', names.country) as country,
            if(names.city = '', 'unknown', names.city) as city,
            if(names.source = '', 'unknown', names.source) as source,
            if(names.exp_group = '', 'unknown', names.exp_group) as exp_group
        from whole
        left join names using (attributes)
    ),

    published as (
        select *, user_id as id, true as there
        from user_activity
        where event_date = {{day:Date}}
    )

    select {METRICS_OF_USERS}{counted}
    from users
    full join published on published.id = users.id
    settings join_algorithm = 'full_sorting_merge'
    """  # noqa: S608 (our own columns)
    day_start, day_end = config.day_bounds(day)
    (found,) = db.rows(held, day=day, day_start=day_start, day_end=day_end)
    metrics = {
        name: plain(found[name]) for name in columns("daily_metrics") if set(BY_COLUMN[name].sources) <= set(sources)
    }
    yield from differences("the source", metrics, row)
    for column in compared:
        if number := int(found[f"differ_{column}"]):
            who = f"{number:,} user{'s' * (number > 1)}, such as {found[f'such_{column}']}"
            yield f"{column} differs between user_activity and the source for {who}"
