"""Restating: which published days are to be computed again because their source has changed since.

Every night the published days of a window are compared with their fingerprints (`pulse.publishing.late_data`). Days
of which no part on disk has changed since the last night (`pulse.publishing.source_parts`) are not read. The metrics of
a day whose fingerprint differs are computed from the source and compared with the published ones:

    restated    a metric of `daily_metrics` changed by more than the tolerance, as a share of itself; or more than that
                share of the day's views, likes or messages now belongs to other slices of a dimension
    kept        the source changed, but no number by more than that; it stays recorded, and is told as late data

Nothing here computes a day again or changes what is published: the DAG `restate` runs the DAG `etl` for that.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

import pandas as pd

from pulse import settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import BY_COLUMN, DIMENSIONS, METRICS, columns
from pulse.publishing import loads
from pulse.publishing import slices as slices_of
from pulse.publishing.late_data import OF_THE_DAY, VIEW_OF, Late
from pulse.publishing.loads import Publication
from pulse.publishing.source_parts import Look
from pulse.sources import views

Kind = Literal["late", "deleted", "doubled", "changed"]
Outcome = Literal["unchanged", "kept", "restated"]

MOST_OF = 2 / 3
"""The share of what changed that a slice, or copies of rows, must have to be named as the reason."""

NOTABLY_MORE = 1.25
"""How many times its share of the day a slice's share of what changed must be. A slice that is nearly the whole day
explains nothing."""

SUMS = tuple(metric.column for metric in METRICS if metric.additive)

COUNTED = ("feed_users", "messenger_users", "both_users", "messages_received", *SUMS)
"""What is counted of the users of each slice; the other metrics are made of these."""


@dataclass(frozen=True)
class SourceChange:
    """How one source of a day has changed since the day was published."""

    source: str
    kind: Kind
    published: int
    """How many rows it held when the day was extracted."""
    now: int
    hours: list[list[str]]
    """The times in which rows changed, local, as pairs such as 21:00 and 23:00."""
    slice: list[str] = field(default_factory=list)
    """The dimension and the value to which most of what changed belongs; empty if there is none."""


@dataclass(frozen=True)
class Change:
    """How a published day differs from what its source would make of it now."""

    event_date: date
    load: str
    run: str
    outcome: Outcome
    sources: list[SourceChange]
    metrics: dict[str, list[float | None]]
    """The metrics of `daily_metrics` that differ: the published number, and that of the source."""
    moved: dict[str, float]
    """By dimension: which share of the day's views, likes or messages, whichever is largest, is in other slices."""

    @property
    def size(self) -> float:
        """The largest change, as a share; infinite where a number came or went."""
        return max([*(relative(*pair) for pair in self.metrics.values()), *self.moved.values()], default=0.0)

    @property
    def as_json(self) -> str:
        """What changed, as `comparisons` keeps it."""
        said = {"sources": [asdict(each) for each in self.sources], "metrics": self.metrics, "slices": self.moved}
        return json.dumps(said)


def sources_in(change: str) -> list[SourceChange]:
    """The changed sources in a `change` of table `comparisons`."""
    return [SourceChange(**each) for each in json.loads(change)["sources"]] if change else []


def relative(then: float | None, now: float | None) -> float:
    """A change as a share of the number before; infinite where a number came or went, or grew from 0."""
    if then is None or now is None or then == 0:
        return 0.0 if then == now else math.inf
    return abs(now - then) / abs(then)


def due(db: ClickHouse, published: Mapping[date, Publication], looks: Collection[Look]) -> list[date]:
    """The days to compare: those of which parts have changed, and those not known to be as published.

    Raises:
        ClickHouseError: no server answers.
    """
    last = """
    -- The last comparison of each day, one row per day
    select event_date, load, outcome
    from comparisons
    where event_date in {days:Array(Date)}
    order by event_date, compared_at desc
    limit 1 by event_date
    """
    rows = db.rows(last, days=list(published))
    as_published = {row["event_date"].date(): row["load"] for row in rows if row["outcome"] == "unchanged"}
    return [
        day
        for day, each in published.items()
        if as_published.get(day) != each.load or any(look.may_have_changed(day) for look in looks)
    ]


def judge(
    db: ClickHouse, config: settings.Settings, published: Publication, late: Sequence[Late], tolerance: float
) -> Change:
    """How a day whose fingerprint differs would come out now, and whether it is to be restated.

    Args:
        db: where the published tables and the views of the sources are.
        config: when the day begins.
        published: the current publication.
        late: how the sources differ from it.
        tolerance: the change up to which a day is kept, as a share.

    Raises:
        ClickHouseError: no server answers, or a source cannot be read.
    """
    day = published.event_date
    # A dimension that the source has got, or lost, since then does not change what was published by the others.
    has = views.dimensions(db)
    dimensions = [name for name in slices_of.of_day(db, day) if name in has]
    metrics_now, slices_now = _from_the_source(db, config, day, dimensions)
    metrics_then, slices_then = _published(db, day, dimensions)
    names = columns("daily_metrics")
    differ = {
        name: [metrics_then.get(name), metrics_now[name]]
        for name in names
        if relative(metrics_then.get(name), metrics_now[name]) > 1e-9
    }
    changed = slices_now.sub(slices_then.astype("float64"), fill_value=0)
    moved = {}
    for dimension, each in changed.groupby(level="dimension"):
        shares = [float(each[name].abs().max()) / (metrics_then.get(name) or math.nan) for name in SUMS]
        if share := max((share for share in shares if share > 0), default=0.0):
            moved[str(dimension)] = share
    sources = [_source_change(db, config, each, changed, slices_then) for each in late]
    change = Change(day, published.load, published.run, "kept", sources, differ, moved)
    outcome: Outcome = "restated" if change.size > tolerance else "kept"
    return Change(day, published.load, published.run, outcome, sources, differ, moved)


def record(db: ClickHouse, published: Collection[Publication], changes: Collection[Change]) -> None:
    """Record how days were compared; those of which nothing is given are as published.

    Raises:
        ClickHouseError: no server answers.
    """
    by_day = {each.event_date: each for each in changes}
    rows = []
    for each in published:
        change = by_day.get(each.event_date)
        said = {"outcome": change.outcome, "change": change.as_json} if change else {"outcome": "unchanged"}
        rows.append({"event_date": each.event_date, "load": each.load, "change": "", **said})
    db.write(rows, "comparisons")


def reasons(db: ClickHouse, day: date) -> dict[str, str]:
    """Why the loads of a day differ from those that replaced them: the `change`, by the replaced load.

    Raises:
        ClickHouseError: no server answers.
    """
    found = """
    -- What had changed when a load was last compared with its source, one row per load of a day
    select load, argMax(change, compared_at) as change
    from comparisons
    where event_date = {day:Date}
    group by load
    """
    return {row["load"]: row["change"] for row in db.rows(found, day=day) if row["change"]}


def reason(db: ClickHouse, day: date, load: str) -> list[SourceChange]:
    """Why a load of a day replaced the one before; empty if it is the first, or nobody knows.

    Raises:
        ClickHouseError: no server answers.
    """
    return reason_for(db, day, loads.replaced(db, day, load))


def reason_for(db: ClickHouse, day: date, replaced: loads.Published | None) -> list[SourceChange]:
    """Why a publication of a day was replaced; empty if there was none, or nobody knows.

    Raises:
        ClickHouseError: no server answers.
    """
    return sources_in(reasons(db, day).get(replaced.load, "")) if replaced else []


# --- the numbers ------------------------------------------------------------------------------------------------------


def _from_the_source(
    db: ClickHouse, config: settings.Settings, day: date, dimensions: Sequence[str]
) -> tuple[dict[str, float | None], pd.DataFrame]:
    """The day's metrics as the source makes them now; and the sums of slices, by dimension and value."""
    in_part = "({parts:UInt32} = 1 or cityHash64(user_id) % {parts:UInt32} = {part:UInt32})"
    found_now = f"""
    -- What the source makes of a day now, exactly, one row per dimension, value and part of the users; and one for the
    -- whole day, without a dimension
    with actions as (
        select
            user_id,
            countIf(action = 'view') as views,
            countIf(action = 'like') as likes,
            0 as messages_received,
            0 as messages_sent,
            true as feed_active,
            max(latest) as latest
        from feed_events
        where {OF_THE_DAY} and {in_part}
        group by user_id
        union all
        select user_id, 0, 0, 0, count(), false, max(latest)
        from message_events
        where {OF_THE_DAY} and {in_part}
        group by user_id
        union all
        select receiver_id, 0, 0, count(), 0, false, 0
        from message_events
        where {OF_THE_DAY} and {in_part.replace("user_id", "receiver_id")}
        group by receiver_id
    ),

    users as (
        select
            user_id,
            sum(actions.views) as views,
            sum(actions.likes) as likes,
            sum(actions.messages_received) as messages_received,
            sum(actions.messages_sent) as messages_sent,
            max(actions.feed_active) as feed_active,
            toUInt64(max(actions.latest)) as attributes
        from actions
        group by user_id
    ),

    by_key as (
        select
            users.attributes as attributes,
            countIf(users.feed_active) as feed_users,
            countIf(users.messages_sent > 0) as messenger_users,
            countIf(users.feed_active and users.messages_sent > 0) as both_users,
            sum(users.views) as views,
            sum(users.likes) as likes,
            sum(users.messages_sent) as messages_sent,
            sumIf(users.messages_received, users.feed_active or users.messages_sent > 0) as messages_received
        from users
        group by attributes
    ),

    names as ({slices_of.NAMES_OF_THE_DAY})

    select
        slice.1 as dimension,
        slice.2 as dimension_value,
        {", ".join(f"sum(by_key.{name}) as {name}" for name in COUNTED)}
    from by_key
    left join names using (attributes)
    array join [('', ''), {slices_of.of_names(dimensions, "names")}] as slice
    group by dimension, dimension_value
    """  # noqa: S608 (our own names)
    day_start, day_end = config.day_bounds(day)
    given = {"day_start": day_start, "day_end": day_end}
    users = db.value(
        f"""
        -- The users of a day, approximately
        select uniq(user_id)
        from (
            select user_id from feed_events where {OF_THE_DAY}
            union all
            select arrayJoin([user_id, receiver_id]) from message_events where {OF_THE_DAY}
        )
        """,  # noqa: S608 (our own names)
        **given,
    )
    found = loads.read_parts(db, found_now, parts=loads.parts(users), **given)
    slices = found.groupby(["dimension", "dimension_value"]).sum().astype("float64")
    whole = slices[slices.index.get_level_values("dimension") == ""].sum()
    totals = {str(name): float(value) for name, value in whole.items()}
    totals["app_users"] = totals["feed_users"] + totals["messenger_users"] - totals["both_users"]
    metrics: dict[str, float | None] = {**totals}
    for name in columns("daily_metrics"):
        if per := BY_COLUMN[name].per:
            metrics[name] = totals[BY_COLUMN[name].of] / totals[per] if totals[per] else None
    return metrics, slices.loc[slices.index.get_level_values("dimension") != "", list(SUMS)]


def _published(db: ClickHouse, day: date, dimensions: Sequence[str]) -> tuple[dict[str, float | None], pd.DataFrame]:
    """The published metrics of a day; and the sums of slices, by dimension and value."""
    found = db.rows("select * from daily_metrics where event_date = {day:Date}", day=day)
    row = found[0] if found else {}
    metrics = {name: None if pd.isna(value) else float(value) for name, value in row.items() if name in BY_COLUMN}
    slices = f"""
    -- The sums of the published slices, one row per dimension and value
    select dimension, dimension_value, {", ".join(SUMS)}
    from dimension_activity
    where event_date = {{day:Date}} and dimension in {{dimensions:Array(String)}}
    """  # noqa: S608 (our own columns)
    return metrics, db.read(slices, day=day, dimensions=dimensions).set_index(["dimension", "dimension_value"])


# --- the reason -------------------------------------------------------------------------------------------------------


def _source_change(
    db: ClickHouse, config: settings.Settings, late: Late, changed: pd.DataFrame, then: pd.DataFrame
) -> SourceChange:
    gained, lost = sum(max(0, each) for each in late.more), sum(max(0, -each) for each in late.more)
    kind: Kind = "changed"
    if gained and not lost:
        kind = "doubled" if _copies(db, config, late) >= MOST_OF * gained else "late"
    elif lost and not gained:
        kind = "deleted"
    names = [name for name in SUMS if BY_COLUMN[name].sources == (late.source,)]
    explains = _slice(changed[names].abs().sum(axis=1), then[names].sum(axis=1))
    return SourceChange(late.source, kind, late.published, late.now, _times(config, late), explains)


def _copies(db: ClickHouse, config: settings.Settings, late: Late) -> float:
    """How many rows of the changed hours are copies of others, beyond what is usual in the day's other hours."""
    copies = f"""
    -- The rows of a day, and those that are copies of another, one row per hour
    select
        intDiv(dateDiff('second', {{day_start:DateTime64(6)}}, assumeNotNull(time)), 3600) as hour,
        count() as row_count,
        row_count - uniqExact(row_hash) as copies
    from {VIEW_OF[late.source]}
    where {OF_THE_DAY}
    group by hour
    """  # noqa: S608 (our own names)
    day_start, day_end = config.day_bounds(late.event_date)
    found = db.read(copies, day_start=day_start, day_end=day_end).set_index("hour").astype("float64")
    here = found.index.isin(late.hours)
    others, changed = found[~here].sum(), found[here].sum()
    usual = others["copies"] / others["row_count"] if others["row_count"] else 0.0
    return float(changed["copies"] - usual * (changed["row_count"] - sum(late.more)))


def _slice(changed: "pd.Series[float]", then: "pd.Series[float]") -> list[str]:
    """The dimension and value to which most of what changed belongs, if that is notably more than its usual share."""
    best: tuple[float, list[str]] = (0.0, [])
    for dimension in (each.column for each in DIMENSIONS):
        each = changed[changed.index.get_level_values("dimension") == dimension]
        if not each.sum():
            continue
        value: Any = each.idxmax()
        share = float(each.max() / each.sum())
        day = then[then.index.get_level_values("dimension") == dimension]
        usual = float(day.get(value, 0.0) / day.sum()) if day.sum() else 0.0
        if share >= MOST_OF and share > NOTABLY_MORE * usual and share > best[0]:
            best = (share, [dimension, str(value[1])])
    return best[1]


def _times(config: settings.Settings, late: Late) -> list[list[str]]:
    """The local times in which rows changed, hours that follow each other put together."""
    start, end = config.day_bounds(late.event_date)
    runs: list[list[int]] = []
    for hour in late.hours:
        if runs and runs[-1][1] == hour:
            runs[-1][1] = hour + 1
        else:
            runs.append([hour, hour + 1])

    def clock(hour: int) -> str:
        moment = datetime.fromtimestamp(start.timestamp() + hour * 3600, config.zone)
        return "24:00" if moment >= end else f"{moment:%H:%M}"

    return [[clock(first), clock(last)] for first, last in runs]


def window(last: date, days: int) -> tuple[date, date]:
    """The first and the last day of a window."""
    return last - timedelta(days=days - 1), last
