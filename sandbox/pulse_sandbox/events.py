"""Demo events: the actions that users of an app would leave in ClickHouse. ClickHouse makes them by hashing.

The events resemble a real app. Nights are quiet and evenings busy; on weekends people rise later, read more and write
less. The app grows by 3 % a month, and no two days are quite alike. A few users do a lot, most do little, and they come
only on some days; some only read, some only write, some do neither. Actions come in visits of a few minutes; a like
follows a view of the same post, and new posts are seen most. People write to a few friends, to some more than to
others, and popular users receive most; many receivers are not active that day. Some users switch to a second phone
during the day. Some gave no age or gender, and a few fields hold strange values.

The events are reproducible. Every property is a hash of the seed and of what it belongs to: a user, a visit (day and
number), or an action (visit and position). So a day has the same events whoever makes it, alone or in a range, with
any number of threads, and a part of a day is the whole day up to a moment. A day is made in separate tables and put in
place in one step per table: readers see the old day or the new one, never half of it.

`events_app` knows the app's size and rhythm, `events_sql` has the statements.
"""

import fcntl
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pulse.clickhouse import ClickHouse
from pulse_sandbox import SandboxError, events_sql
from pulse_sandbox.clickhouse_stand_in import Server, answering
from pulse_sandbox.events_app import FEED, MESSAGES, App, moments


@dataclass(frozen=True)
class _Day:
    """A day that is there: up to which second since 1970, and how many rows it has."""

    made_until: int
    rows: int


def fill(server: Server, app: App, *, until: date | None = None, days: int = 35) -> int:
    """Make the events of whole days that are not there yet.

    Args:
        server: a running sandbox.
        app: the app whose events are made.
        until: the first day that is not made; today unless given.
        days: how many days to make before that day.

    Returns:
        The number of rows added; 0 if every day was there already.

    Raises:
        SandboxError: the server is not the sandbox, `days` is less than 1, or a day is not over.
    """
    today = datetime.now(app.zone).date()
    until = until or today
    if days < 1 or until > today:
        raise SandboxError(f"Expected one or more days that end by {today}, found {days} that end by {until}.")
    wanted = [until - timedelta(days=back) for back in range(days, 0, -1)]
    return _make(server, app, {day: app.bounds(day)[1] for day in wanted})


def make_until(server: Server, app: App, now: datetime) -> int:
    """Make today's events up to a moment, and the rest of yesterday's: what a live app would have by then.

    A later call adds what has happened since. After its end, the day is exactly as `fill` makes it.

    Returns:
        The number of rows added.

    Raises:
        SandboxError: the server is not the sandbox, or the moment has no time zone or is in the future.
    """
    if now.tzinfo is None or now.timestamp() > time.time():
        raise SandboxError(f"Expected a moment with a time zone that is not in the future, found {now}.")
    today = now.astimezone(app.zone).date()
    return _make(server, app, {today - timedelta(days=1): app.bounds(today)[0], today: int(now.timestamp())})


def _make(server: Server, app: App, wanted: dict[date, int]) -> int:
    """Make each day up to a second, unless it is there that far. Returns the number of rows added."""
    if answering(server.port) != server:
        raise SandboxError(
            f"Port {server.port} is not the sandbox on {server.data}; demo events are written only there."
        )
    db = ClickHouse(server.url, app.database, app.zone)
    with (server.data / "events.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # everybody who makes days uses the same staging tables
        _create_tables(db, server, app)
        there = _days_there(db, app)
        missing = {day: end for day, end in wanted.items() if day not in there or there[day].made_until < end}
        if not missing:
            return 0
        db.script(events_sql.MAKING, seed=app.seed, accounts=app.accounts, population=max(map(app.population, missing)))
        with ThreadPoolExecutor(2) as pool:  # one day alone does not use two cores
            rows = sum(pool.map(lambda day: _make_day(db, app, day, missing[day]), missing))
        db.script(events_sql.MADE)
    return rows - sum(there[day].rows for day in missing if day in there)


def _days_there(db: ClickHouse, app: App) -> dict[date, _Day]:
    frame = db.read(events_sql.DAYS_THERE, recipe=app.recipe)
    columns = (frame["day"].dt.date, frame["made_until"], frame["rows"])
    return {day: _Day(int(until), int(rows)) for day, until, rows in zip(*columns, strict=True)}


def _create_tables(db: ClickHouse, server: Server, app: App) -> None:
    """Create the database and its tables where they are missing."""
    first = ClickHouse(server.url, "default", app.zone)
    first.execute("create database if not exists {database:Identifier}", database=app.database)
    found = db.read(events_sql.MADE_FOR)
    if not found.empty and found.iloc[0].to_list() != [f"toDate(time, '{app.zone}')", "DateTime64(3)"]:
        # Made for another time zone, or before times had milliseconds: none of it can be kept.
        db.script(events_sql.DROP)
    db.script(events_sql.TABLES, zone=app.zone.key)


def _make_day(db: ClickHouse, app: App, day: date, end: int) -> int:
    """Make one day up to a second, and replace what was there. Returns its number of rows."""
    start, following = app.bounds(day)
    dice = random.Random(f"{app.seed} {day}")  # noqa: S311 (nothing here is secret)
    rows = []
    for kind, statement in ((FEED, events_sql.FEED_ACTIONS), (MESSAGES, events_sql.MESSAGE_ACTIONS)):
        noise = 1 + 0.06 * (dice.random() + dice.random() + dice.random() - 1.5)
        actions = app.events_per_day * kind.share * kind.week[day.weekday()] * app.growth(day) * noise
        made = db.execute(
            statement,
            kind=kind.name,
            seed=app.seed,
            day=day,
            day_number=(day - date(2020, 1, 1)).days,
            start=start,
            seconds=following - start,
            made_until=end,
            visits=2 * max(1, round(actions / 16)),
            moments=moments(app, day, kind, dice),
            pause=kind.pause,
            like_rate=dice.uniform(0.24, 0.26),
            accounts=app.accounts,
            population=app.population(day),
        )
        rows.append(made.written_rows)
    for table, count in zip(("feed_actions", "message_actions"), rows, strict=True):
        if count:
            db.replace_partition(table, [day], f"making_{table}")
        else:  # ClickHouse does not replace a partition by an empty one
            db.execute(events_sql.DROP_DAY, table=table, day=day)
    db.execute(events_sql.RECORD, day=day, recipe=app.recipe, made_until=end, feed_rows=rows[0], message_rows=rows[1])
    return sum(rows)
