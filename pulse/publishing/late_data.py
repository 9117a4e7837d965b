"""Late data: whether the source still holds the rows that a day was published from.

Every extract counts and hashes the source's rows hour by hour, and the publication keeps what it found. Counting again
later shows which hours gained rows, lost rows or were changed in place.
"""

from dataclasses import dataclass
from datetime import date, timedelta

from pulse import clickhouse, settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import FEED, MESSAGES
from pulse.publishing import loads
from pulse.publishing.loads import Held

LATE_DAYS = 7  # how many days back the source is counted again when a day is reconciled
OF_THE_DAY = "time >= {day_start:DateTime64(6)} and time < {day_end:DateTime64(6)}"


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
    """Whether the rows of an hour have changed: their number, or their hash where it was recorded."""
    pairs = [(then.rows, now.rows)] + ([(then.hashes, now.hashes)] if then.hashes else [])
    return any(_at(before, hour) != _at(after, hour) for before, after in pairs)


def _at(values: list[int], hour: int) -> int:
    return values[hour] if hour < len(values) else 0


def _held(db: ClickHouse, source: str, day: date, config: settings.Settings) -> Held:
    """The rows of a day that a source holds, by hour up to the last one with rows, hashed as the extracts hash them."""
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
