"""Late data: whether the source still holds the rows that a day was published from.

Every extract counts and hashes the source's rows hour by hour, and the publication keeps what it found: the fingerprint
of the day. Taking it again later shows which hours gained rows, lost rows or were changed in place.

A fingerprint is, for each source and hour, the number of rows and two sums of independent hashes of the rows, which the
views define (`row_hash` and `second_hash`, see `pulse.sources.views`). A hash covers the user, the action or the
receiver, the moment to the nanosecond and the attributes, as the source spells them. Sums do not depend on the order of
the rows, and a row that is there twice counts twice, which it would not in an XOR. Two values that swap between rows
change both rows' hashes. Two different sets of rows have equal sums by chance once in 2^64 times for each sum.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from pulse import clickhouse, settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import FEED, MESSAGES, SOURCES
from pulse.publishing import loads
from pulse.publishing.loads import Held, Publication

LATE_DAYS = 7  # how many days back the source is counted again when a day is reconciled
OF_THE_DAY = "time >= {day_start:DateTime64(6)} and time < {day_end:DateTime64(6)}"
VIEW_OF = {FEED: "feed_events", MESSAGES: "message_events"}
"""The view through which each source is read."""


@dataclass(frozen=True)
class Late:
    """How the rows that a source holds of a published day have changed since."""

    event_date: date
    source: str
    """`feed_actions` or `message_actions`."""
    published: int
    """How many rows it held when the day was extracted."""
    now: int
    """How many it holds now."""
    hours: tuple[int, ...]
    """The hours since the day began in which rows changed."""
    more: tuple[int, ...]
    """How many rows each of these hours has gained; negative where it lost rows, 0 where rows were changed in place."""

    def __str__(self) -> str:
        hours = f"hour {self.hours[0]}" if len(self.hours) == 1 else f"hours {self.hours[0]} to {self.hours[-1]}"
        more = f"{abs(self.now - self.published):,} {'more' if self.now > self.published else 'fewer'}"
        return (
            f"{self.source} holds {more if self.now != self.published else 'other'} rows of {self.event_date} than "
            f"when it was published, in {hours} of the day; `pulse daily {self.event_date}` publishes the day again"
        )


def late_data(day: date, config: settings.Settings) -> list[Late]:
    """The sources whose rows of a day have changed since the day was published, where the publication recorded them.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    return late_days(day, config, days=1)


def late_days(day: date, config: settings.Settings, days: int = LATE_DAYS) -> list[Late]:
    """`late_data` of a day and the days before it, the latest first.

    Raises:
        ClickHouseError: as `late_data`.
    """
    db = clickhouse.connect(config)
    published = loads.publications(db, day - timedelta(days=days - 1), day)
    found = changes(db, config, list(published.values()))
    return [late for day in sorted(found, reverse=True) for late in found[day]]


def changes(db: ClickHouse, config: settings.Settings, published: Collection[Publication]) -> dict[date, list[Late]]:
    """How the sources differ from what these publications recorded, by day; nothing of a day that did not change.

    Args:
        db: where the views of the sources are.
        config: when the days begin.
        published: the current publications of the days.

    Raises:
        ClickHouseError: no server answers, or a source cannot be read.
    """
    found: dict[date, list[Late]] = {}
    for source in SOURCES:
        then = {each.event_date: _recorded(each, source) for each in published}
        then = {day: each for day, each in then.items() if each.rows}
        now = held(db, config, source, then)
        for day, each in then.items():
            if late := _late(day, source, each, now[day]):
                found.setdefault(day, []).append(late)
    return found


def held(db: ClickHouse, config: settings.Settings, source: str, days: Collection[date]) -> dict[date, Held]:
    """The fingerprints of days as a source holds them now; days that follow each other are read by one statement.

    Args:
        db: where the views of the sources are.
        config: when the days begin.
        source: `feed_actions` or `message_actions`.
        days: which days.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    by_hour = f"""
    -- What a source holds, one row per day and hour since the day began
    with moments as (
        select
            toUnixTimestamp64Micro(toDateTime64(assumeNotNull(time), 6)) as moment,
            roundDown(moment, {{starts:Array(Int64)}}) as day_start,
            row_hash,
            second_hash
        from {VIEW_OF[source]}
        where {OF_THE_DAY}
    )

    select
        day_start,
        intDiv(moment - day_start, 3600000000) as hour,
        count() as row_count,
        sum(row_hash) as hash,
        sum(second_hash) as second
    from moments
    group by day_start, hour
    """  # noqa: S608 (our own names)
    found: dict[date, Held] = {}
    for run in _runs(days):
        bounds = {day: config.day_bounds(day) for day in run}
        starts = {day: round(start.timestamp()) * 1_000_000 for day, (start, _) in bounds.items()}
        window = {"day_start": bounds[run[0]][0], "day_end": bounds[run[-1]][1]}
        rows = db.read(by_hour, starts=list(starts.values()), **window)
        for day, start in starts.items():
            hours = rows[rows["day_start"] == start].set_index("hour")
            hours = hours.reindex(range(0 if hours.empty else int(hours.index.max()) + 1), fill_value=0)
            found[day] = Held(*(hours[column].tolist() for column in ("row_count", "hash", "second")))
    return found


def _runs(days: Collection[date]) -> Iterator[list[date]]:
    """The days in order, in runs of days that follow each other."""
    run: list[date] = []
    for day in sorted(days):
        if run and day != run[-1] + timedelta(days=1):
            yield run
            run = []
        run.append(day)
    if run:
        yield run


def _recorded(published: Publication, source: str) -> Held:
    return {FEED: published.feed, MESSAGES: published.messages}[source]


def _late(day: date, source: str, then: Held, now: Held) -> Late | None:
    hours = tuple(hour for hour in range(max(len(then.rows), len(now.rows))) if _differs(then, now, hour))
    if not hours:
        return None
    more = tuple(_at(now.rows, hour) - _at(then.rows, hour) for hour in hours)
    return Late(day, source, sum(then.rows), sum(now.rows), hours, more)


def _differs(then: Held, now: Held, hour: int) -> bool:
    """Whether the rows of an hour have changed: their number, or a sum of their hashes where it was recorded."""
    pairs = [(then.rows, now.rows)]
    pairs += [(then.hashes, now.hashes)] if then.hashes else []
    pairs += [(then.second, now.second)] if then.second else []
    return any(_at(before, hour) != _at(after, hour) for before, after in pairs)


def _at(values: list[int], hour: int) -> int:
    return values[hour] if hour < len(values) else 0
