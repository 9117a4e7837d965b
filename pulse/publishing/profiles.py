"""Profiles: what the source held of a day, kept in `day_profiles`.

The profile of the day that is being computed is made from the run's own staging tables. Of an earlier day that was
never computed, it is made from the source, once. Both ways give the same numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd

from pulse import sources
from pulse.clickhouse import ClickHouse
from pulse.metrics import FEED, MESSAGES, columns
from pulse.publishing.late_data import OF_THE_DAY
from pulse.publishing.plausible import TOP, WEEKS, Profile
from pulse.publishing.slices import METRICS_OF_USERS, NAMES_OF_THE_DAY, named, of_names
from pulse.settings import Settings
from pulse.sources import views

HOUR = timedelta(hours=1)


def of_run(
    db: ClickHouse,
    config: Settings,
    day: date,
    staging: Mapping[str, str],
    metrics: pd.Series,
    dimensions: Sequence[str],
) -> Profile:
    """The profile of a day from the staging tables of its run.

    Args:
        db: where they are.
        config: when the day begins.
        day: the day.
        staging: the names of `feed_hours`, `message_hours`, `feed_users`, `message_senders` and `attributes`.
        metrics: the day's row of `daily_metrics`.
        dimensions: those that the source has.

    Raises:
        ClickHouseError: a table is not there, or no server answers.
    """
    users = f"""
    -- The users of both sources by value, and those with an odd number of rows, one row per source, dimension and
    -- value, and one per source without a dimension; and the sources' rows, one row per source and hour
    with by_key as (
        select
            {{feed:String}} as source,
            toUInt64(latest) as attributes,
            count() as users,
            countIf(actions % 2 = 1) as odd
        from {{feed_users:Identifier}}
        group by attributes
        union all
        select {{messages:String}}, toUInt64(latest) as attributes, count(), countIf(messages_sent % 2 = 1)
        from {{message_senders:Identifier}}
        group by attributes
    )

    select of_values.source, of_values.dimension, of_values.dimension_value, of_values.users, of_values.odd
    from (
        select
            by_key.source as source,
            value.1 as dimension,
            value.2 as dimension_value,
            sum(by_key.users) as users,
            sum(by_key.odd) as odd
        from by_key
        inner join {{attributes:Identifier}} as names using (attributes)
        array join [('', ''), {named(dimensions, "names.")}] as value
        group by by_key.source, dimension, dimension_value
        {_LARGEST}
    ) as of_values
    union all
    select {{feed:String}}, 'hour', toString(hour), row_count, 0 from {{feed_hours:Identifier}}
    union all
    select {{messages:String}}, 'hour', toString(hour), row_count, 0 from {{message_hours:Identifier}}
    """  # noqa: S608 (the names are those of our own dimensions)
    found = db.read(users, **staging, feed=FEED, messages=MESSAGES)
    hours = found[found["dimension"] == "hour"].astype({"dimension_value": int})
    whole = found[found["dimension"] == ""].set_index("source")["odd"]
    return Profile(
        day,
        _plain(metrics.to_dict()),
        _by_hour(hours[["source", "dimension_value", "users"]], config, day),
        {source: int(whole.get(source, 0)) for source in (FEED, MESSAGES)},
        _by_slice(found.loc[~found["dimension"].isin(["", "hour"]), _SLICE].itertuples(index=False, name=None)),
    )


def of_source(db: ClickHouse, config: Settings, day: date) -> Profile:
    """The profile of a day from the source itself.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    hours = f"""
    -- The rows of both sources, one row per source and hour with rows
    select {{feed:String}} as source, {_HOUR} as hour, count() as row_count
    from feed_events
    where {OF_THE_DAY}
    group by hour
    union all
    select {{messages:String}}, {_HOUR} as hour, count()
    from message_events
    where {OF_THE_DAY}
    group by hour
    """  # noqa: S608 (our own names)
    metrics = f"""
    -- The day's metrics, and of both sources the users with an odd number of rows, one row
    with halves as (
        select
            user_id,
            countIf(action = 'view') as views,
            countIf(action = 'like') as likes,
            0 as messages_received,
            0 as messages_sent,
            true as feed_active,
            count() % 2 as feed_odd
        from feed_events
        where {OF_THE_DAY}
        group by user_id
        union all
        select user_id, 0, 0, 0, count(), false, 0
        from message_events
        where {OF_THE_DAY}
        group by user_id
        union all
        select receiver_id, 0, 0, count(), 0, false, 0
        from message_events
        where {OF_THE_DAY}
        group by receiver_id
    ),

    users as (
        select
            user_id,
            sum(views) as views,
            sum(likes) as likes,
            sum(messages_received) as messages_received,
            sum(messages_sent) as messages_sent,
            max(feed_active) as feed_active,
            sum(feed_odd) as feed_odd
        from halves
        group by user_id
    )

    select {METRICS_OF_USERS},
        sum(users.feed_odd) as feed_odd,
        countIf(users.messages_sent % 2 = 1) as message_odd
    from users
    """  # noqa: S608 (our own names)
    users = f"""
    -- The users of both sources by value, one row per source, dimension and value
    with actors as (
        select {{feed:String}} as source, user_id, toUInt64(max(latest)) as attributes
        from feed_events
        where {OF_THE_DAY}
        group by user_id
        union all
        select {{messages:String}}, user_id, toUInt64(max(latest))
        from message_events
        where {OF_THE_DAY}
        group by user_id
    ),

    by_key as (
        select actors.source as of_source, attributes, count() as users
        from actors
        group by of_source, attributes
    ),

    names as ({NAMES_OF_THE_DAY})

    select by_key.of_source as source, value.1 as dimension, value.2 as dimension_value, sum(by_key.users) as users
    from by_key
    inner join names using (attributes)
    array join [{of_names(views.dimensions(db), "names")}] as value
    group by by_key.of_source, dimension, dimension_value
    {_LARGEST}
    """  # noqa: S608 (our own names)
    day_start, day_end = config.day_bounds(day)
    given = {"day_start": day_start, "day_end": day_end, "feed": FEED, "messages": MESSAGES}
    (found,) = db.rows(metrics, **given)
    return Profile(
        day,
        _plain({name: found[name] for name in columns("daily_metrics")}),
        _by_hour(db.read(hours, **given), config, day),
        {FEED: int(found["feed_odd"]), MESSAGES: int(found["message_odd"])},
        _by_slice(db.read(users, **given)[_SLICE].itertuples(index=False, name=None)),
    )


def keep(db: ClickHouse, config: Settings, profiles: Sequence[Profile]) -> None:
    """Write profiles; each replaces an earlier one of its day.

    Raises:
        ClickHouseError: they cannot be written.
    """
    rows = [
        {
            "source": _source(config),
            "event_date": each.event_date,
            "feed_rows": each.hours[FEED],
            "message_rows": each.hours[MESSAGES],
            "metrics": list(each.metrics.items()),
            "odd_users": list(each.odd.items()),
            "slices": [
                (source, dimension, value, users)
                for (source, dimension), values in each.slices.items()
                for value, users in values.items()
            ],
        }
        for each in profiles
    ]
    db.write(rows, "day_profiles")


def before(db: ClickHouse, config: Settings, day: date) -> list[Profile]:
    """The profiles of the same weekday in the `WEEKS` before a day, as far as the source has them, the latest first.

    Those that are missing are made and kept. Of days without rows nothing is kept: the source may get their rows later.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    days = [day - timedelta(weeks=back) for back in range(1, WEEKS + 1)]
    found = {each.event_date: each for each in _kept(db, config, days)}
    missing = [each for each in days if each not in found]
    if missing:
        there = _with_rows(db, config, missing)
        made = [of_source(db, config, each) for each in missing if each in there]
        keep(db, config, made)
        found |= {each.event_date: each for each in made}
    return [found[each] for each in days if each in found]


def _kept(db: ClickHouse, config: Settings, days: Sequence[date]) -> list[Profile]:
    kept = """
    -- The profiles of some days of a source, one row each
    select toString(event_date) as day, feed_rows, message_rows, metrics, odd_users, slices
    from day_profiles final
    where source = {source:String} and event_date in {days:Array(Date)}
    """
    profiles = []
    for row in db.rows(kept, source=_source(config), days=list(days)):
        hours = {FEED: row["feed_rows"], MESSAGES: row["message_rows"]}
        odd = {source: int(users) for source, users in row["odd_users"]}
        profiles.append(
            Profile(date.fromisoformat(row["day"]), dict(row["metrics"]), hours, odd, _by_slice(row["slices"]))
        )
    return profiles


def _with_rows(db: ClickHouse, config: Settings, days: Sequence[date]) -> set[date]:
    """Those of some days of which the source holds anything: of each it reads no more than a first row."""
    bounds = [config.day_bounds(day) for day in days]
    if not _with_first_rows(db, [(min(bounds)[0], max(bounds)[1])]):  # as before the app began: asked in one step
        return set()
    return {days[number] for number in _with_first_rows(db, bounds)}


def _with_first_rows(db: ClickHouse, times: Sequence[tuple[datetime, datetime]]) -> set[int]:
    """The numbers of those of some times, each from one moment up to another, in which a source has a row."""
    first = " union all ".join(
        f"(select {number} as number from {view} where time >= {{start_{number}:DateTime64(6)}} "  # noqa: S608
        f"and time < {{end_{number}:DateTime64(6)}} limit 1)"
        for number in range(len(times))
        for view in ("feed_events", "message_events")
    )
    given: dict[str, Any] = {}
    for number, (start, end) in enumerate(times):
        given |= {f"start_{number}": start, f"end_{number}": end}
    return {int(number) for number in db.read(first, **given)["number"]}


def _by_hour(found: pd.DataFrame, config: Settings, day: date) -> dict[str, list[int]]:
    start, end = (moment.timestamp() for moment in config.day_bounds(day))
    length = -int((start - end) // HOUR.total_seconds())  # of a day that ends within an hour, that hour too
    counted = {source: [0] * length for source in (FEED, MESSAGES)}
    for source, hour, rows in found.itertuples(index=False):
        counted[source][hour] = int(rows)
    return counted


def _by_slice(found: Iterable[tuple[Any, ...]]) -> dict[tuple[str, str], dict[str, int]]:
    """The users by value, for each source and dimension, from rows with the columns of `_SLICE`."""
    slices: dict[tuple[str, str], dict[str, int]] = {}
    for source, dimension, value, users in found:
        slices.setdefault((source, dimension), {})[value] = int(users)
    return slices


def _plain(row: Mapping[Any, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in columns("daily_metrics") if not pd.isna(row[name])}


def _source(config: Settings) -> str:
    """How the source is read: profiles of another one say nothing about it."""
    return f"{sources.chosen(config)}, by days of {config.timezone}"


_SLICE = ["source", "dimension", "dimension_value", "users"]

_LARGEST = f"""
    order by users desc, dimension_value
    limit {TOP} by source, dimension
"""
"""Of each dimension the largest values; of equal ones, the first by name."""

_HOUR = (
    "intDiv(toUnixTimestamp64Micro(toDateTime64(assumeNotNull(time), 6)) "
    "- toUnixTimestamp64Micro({day_start:DateTime64(6)}), 3600000000)"
)
