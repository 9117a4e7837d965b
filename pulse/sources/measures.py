"""What the app's tables hold on a day, read through the statements of a `sources.sql` and without any table of ours.

Every query reads one day, or the last hours, as the pipeline's own do, so that a large table is not read as a whole.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd

from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.settings import day_bounds
from pulse.sources import Source, contract, views
from pulse.sources.definition import VIEWS, Statement
from pulse.sources.views import View

FEED, MESSAGES = VIEWS

RECENT = timedelta(hours=36)
"""How far back the latest event is looked for."""

BACK = timedelta(days=31)
"""How far back the last day with events is looked for."""

CLOCKS = timedelta(minutes=5)
"""How far apart the clocks of the app and of the server may be."""

HASHED_ROWS = 5_000_000
"""How many rows are compared with each other to find copies; of more, one in so many by the hash of the row."""

ANONYMOUS = ("", "0", "00000000-0000-0000-0000-000000000000")
"""What apps write instead of an id."""

OF_THE_DAY = "events.time >= {day_start:DateTime64(6)} and events.time < {day_end:DateTime64(6)}"


@dataclass(frozen=True)
class Column:
    """What a column of a statement holds on the day."""

    name: str
    type: str
    null: int
    empty: int
    """Texts without letters."""
    anonymous: int
    """Ids that stand for nobody: 0, an empty text, or a UUID of zeros."""


@dataclass(frozen=True)
class Copies:
    """Rows that are there more than once."""

    rows: int
    """How many rows could go without any row being lost."""
    whole: bool
    """Whether all columns of the table were compared; otherwise only those that the pipeline reads."""


@dataclass(frozen=True)
class Latest:
    """The latest events, as the server's clock sees them."""

    now: datetime
    event: datetime | None
    """None if there was none in the last hours."""
    future: int
    """Events that have not happened yet."""
    recent: int
    """Events of the last hours and of the future."""


class Day:
    """The source on a day.

    Args:
        db: a server; its database has to exist and is not read.
        source: where the app's tables are.
        statements: its statements.
        types: their columns' types.
        day: the day, in the zone of `db`.
    """

    def __init__(
        self,
        db: ClickHouse,
        source: Source,
        statements: Mapping[str, Statement],
        types: Mapping[str, Mapping[str, str]],
        day: date,
    ) -> None:
        self.db, self.source, self.statements, self.types = db, source, statements, types
        self.server = ZoneInfo(db.value("select timezone()"))
        self.ids = views.ids_of(types)
        self.views: dict[str, View] = {
            view.name: view for view in views.made(db, source, statements, types, self.server)
        }
        self.start, self.end = day_bounds(day, db.zone)
        self.bounds = {"day_start": self.start, "day_end": self.end}

    def rows(self, view: str, count: int = 10) -> pd.DataFrame:
        """Some rows of the day as the pipeline reads them, with local times."""
        listed = ",\n    ".join(
            "toString(toDateTime64(events.time, 3, {zone:String})) as time"
            if name == "time"
            else f"events.{name} as {name}"
            for name in (column.name for column in contract.present(view, self.types[view]))
        )
        some = f"""
        -- Some rows of the day, as the pipeline reads them
        select {listed}
        from {self._read(view)}
        where {OF_THE_DAY}
        limit {{count:UInt8}}
        """  # noqa: S608 (our own columns)
        return self.db.read(some, **self.bounds, zone=self.db.zone.key, count=count)

    def columns(self, view: str) -> tuple[int, list[Column]]:
        """How many rows of the day there are, and how many of them lack something, by column."""
        names = [column.name for column in contract.present(view, self.types[view])]
        listed = "".join(
            f",\n    countIf(isNull(events.{name})) as null_{name}"
            f",\n    countIf(ifNull(toString(events.{name}), '-') = '') as empty_{name}"
            f",\n    countIf(ifNull(toString(events.{name}), '-') in {ANONYMOUS}) as anonymous_{name}"
            for name in names
        )
        lacking = f"""
        -- What the day's rows lack, one row
        select count() as row_count{listed}
        from ({self._raw(view)}) as events
        where {self._raw_day(view)}
        """  # noqa: S608 (our own columns)
        (found,) = self.db.rows(lacking, **self.bounds)
        return int(found["row_count"]), [
            Column(
                name, self.types[view][name], *(int(found[f"{what}_{name}"]) for what in ("null", "empty", "anonymous"))
            )
            for name in names
        ]

    def hours(self, view: str) -> list[tuple[str, int]]:
        """The local hours of the day, 23 to 25 of them, and how many rows each has."""
        by_hour = f"""
        -- The day's rows by hour since it began, one row per hour with rows
        select
            intDiv(
                toUnixTimestamp64Micro(toDateTime64(events.time, 6))
                - toUnixTimestamp64Micro({{day_start:DateTime64(6)}}),
                3600000000
            ) as hour,
            count() as row_count
        from {self._read(view)}
        where {OF_THE_DAY}
        group by hour
        """  # noqa: S608 (our own view)
        found = {int(row["hour"]): int(row["row_count"]) for row in self.db.rows(by_hour, **self.bounds)}
        starts = pd.date_range(self.start, self.end, freq="h", inclusive="left")
        return [(f"{start:%H:%M}", found.get(number, 0)) for number, start in enumerate(starts)]

    def actions(self) -> dict[str, int]:
        """The names of the day's feed actions and how often each occurs, at most fifteen, the most frequent first."""
        names = f"""
        -- What the day's feed actions are called, one row per name
        select ifNull(toString(events.action), 'NULL') as name, count() as row_count
        from {self._read(FEED)}
        where {OF_THE_DAY}
        group by name
        order by row_count desc, name
        limit 15
        """  # noqa: S608 (our own view)
        return {row["name"]: int(row["row_count"]) for row in self.db.rows(names, **self.bounds)}

    def metrics(self) -> dict[str, float | None]:
        """What the day would publish, by the columns of `daily_metrics`, counted straight from the source."""
        counted = f"""
        -- The day's metrics, one row
        with feed as (select events.user_id, events.action from {self._read(FEED)} where {OF_THE_DAY}),

        sent as (select events.user_id, events.receiver_id from {self._read(MESSAGES)} where {OF_THE_DAY})

        select
            (select uniqExact(feed.user_id) from feed) as feed_users,
            (select uniqExact(sent.user_id) from sent) as messenger_users,
            (
                select uniqExact(users.user_id)
                from (select feed.user_id from feed union all select sent.user_id from sent) as users
            ) as app_users,
            feed_users + messenger_users - app_users as both_users,
            (select countIf(feed.action = 'view') from feed) as views,
            (select countIf(feed.action = 'like') from feed) as likes,
            if(views = 0, null, likes / views) as ctr,
            (select count() from sent) as messages_sent,
            (
                select count()
                from sent
                where sent.receiver_id in (select feed.user_id from feed union all select sent.user_id from sent)
            ) as messages_received,
            if(messages_received = 0, null, messages_sent / messages_received) as sent_per_received
        """  # noqa: S608 (our own views)
        (row,) = self.db.rows(counted, **self.bounds)
        return {name: None if pd.isna(value) else value for name, value in row.items()}

    def latest(self, view: str) -> Latest:
        """The latest of the last hours' events."""
        now = datetime.fromtimestamp(int(self.db.value("select toUnixTimestamp(now())")), UTC)
        newest = f"""
        -- The events of the last hours, one row
        select
            count() as recent,
            countIf(events.time > {{later:DateTime64(6)}}) as future,
            intDiv(toUnixTimestamp64Micro(toDateTime64(max(events.time), 6)), 1000000) as event
        from {self._read(view)}
        where events.time >= {{since:DateTime64(6)}}
        """  # noqa: S608 (our own view)
        (found,) = self.db.rows(newest, since=now - RECENT, later=now + CLOCKS)
        event = datetime.fromtimestamp(int(found["event"]), UTC) if found["recent"] else None
        return Latest(now, event, int(found["future"]), int(found["recent"]))

    def last_before(self, view: str) -> datetime | None:
        """The last event before the day, if there was one in the month before it."""
        newest = f"""
        -- The last event of the month before the day, one row
        select
            count() as row_count,
            intDiv(toUnixTimestamp64Micro(toDateTime64(max(events.time), 6)), 1000000) as event
        from {self._read(view)}
        where events.time >= {{since:DateTime64(6)}} and events.time < {{day_start:DateTime64(6)}}
        """  # noqa: S608 (our own view)
        (found,) = self.db.rows(newest, since=self.start - BACK, day_start=self.start)
        return datetime.fromtimestamp(int(found["event"]), self.db.zone) if found["row_count"] else None

    def copies(self, view: str, row_count: int) -> Copies:
        """How many rows of the day are exact copies of others; an estimate if there are very many rows."""
        whole = every_column(self.statements[view], "pulse_time")
        if whole:
            read = views.in_database(Statement(view, whole, "", 0), self.source)
            moment = views.moment("events.pulse_time", self._time(view), self.source.zone, self.server)
            try:
                return Copies(self._copies(read, "tuple(* except pulse_time)", moment, row_count), whole=True)
            except ClickHouseError as error:  # such as an alias that the statement uses, or a type without a hash
                if error.code is None:
                    raise
        listed = ", ".join(f"toString(events.{column.name})" for column in contract.present(view, self.types[view]))
        return Copies(self._copies(self._raw(view), f"tuple({listed})", self._moment(view), row_count), whole=False)

    def unmerged(self, statement: Statement) -> list[tuple[str, str]]:
        """The tables of a statement that replace or cancel rows when they merge but are read without `final`."""
        read = re.findall(r"\{source\}\.`?(\w+)`?((?:\s+as\s+\w+)?\s+final\b)?", statement.select, re.IGNORECASE)
        plain = sorted({table for table, final in read if not final})
        engines = """
        -- The engines of some tables, one row each
        select name, engine
        from system.tables
        where database = {database:String} and name in {tables:Array(String)} and match(engine, 'Replacing|Collapsing')
        order by name
        """
        found = self.db.read(engines, database=self.source.database, tables=plain)
        grouped = re.search(r"\bgroup\s+by\b|\blimit\s+1\s+by\b", statement.select, re.IGNORECASE)
        return [] if grouped else list(found.itertuples(index=False, name=None))

    def _copies(self, read: str, columns: str, moment: str, row_count: int) -> int:
        parts = 1 + row_count // HASHED_ROWS
        counted = f"""
        -- The rows without which nothing would be lost
        select sum(copies.row_count - 1)
        from (
            select count() as row_count
            from ({read}) as events
            where
                {moment} >= {{day_start:DateTime64(6)}} and {moment} < {{day_end:DateTime64(6)}}
                and ({{parts:UInt32}} = 1 or cityHash64({columns}) % {{parts:UInt32}} = 0)
            group by sipHash128({columns})
            having row_count > 1
        ) as copies
        """  # noqa: S608 (the user's own statement)
        return parts * int(self.db.value(counted, **self.bounds, parts=parts) or 0)

    def _time(self, view: str) -> str:
        return contract.plain(self.types[view]["time"])

    def _moment(self, view: str) -> str:
        return views.moment("events.time", self._time(view), self.source.zone, self.server)

    def _raw_day(self, view: str) -> str:
        return OF_THE_DAY.replace("events.time", self._moment(view))

    def _raw(self, view: str) -> str:
        return views.in_database(self.statements[view], self.source)

    def _read(self, view: str) -> str:
        return f"({self.views[view].select}) as events"


CLAUSES = ("distinct", "group by", "having", "union", "intersect", "except", "array join", "window", "qualify", "with")
"""With one of these a statement's rows are not those of a table."""


def multiplies(statement: Statement) -> bool:
    """Whether a statement joins tables so that a row may come more than once."""
    joins = re.findall(r"(\w+\s+)?(\w+\s+)?join\b", _outermost(statement.select), re.IGNORECASE)
    once = {"any", "semi", "anti", "asof", "array"}
    return any(once.isdisjoint(word.strip().lower() for word in words) for words in joins)


def every_column(statement: Statement, moment: str) -> str | None:
    """The statement with all columns of its tables instead of those it lists, and its time under another name.

    None if its rows are not the rows of a table.
    """
    text = re.sub(r"--[^\n]*|/\*.*?\*/", lambda found: " " * len(found[0]), statement.select, flags=re.DOTALL)
    flat = _outermost(text)
    begins, ends = re.match(r"\s*select\b", flat, re.IGNORECASE), re.search(r"\bfrom\b", flat, re.IGNORECASE)
    if not begins or not ends or any(re.search(rf"\b{each}\b".replace(" ", r"\s+"), flat, re.I) for each in CLAUSES):
        return None
    if text[ends.end() :].lstrip().startswith("("):  # a query of its own
        return None
    position, items = begins.end(), []
    for comma in [*(found.start() for found in re.finditer(",", flat[: ends.start()])), ends.start()]:
        items.append(text[position:comma].strip())
        position = comma + 1
    for item in items:
        if named := re.fullmatch(r"(.*?)\s+as\s+`?time`?|((?:\w+\.)?`?time`?)", item, re.DOTALL | re.IGNORECASE):
            return f"select *, {named[1] or named[2]} as {moment} {text[ends.start() :]}"
    return None


def _outermost(text: str) -> str:
    """A text of the same length in which everything in quotes and brackets is blank."""
    flat = re.sub(r"'(?:[^'\\]|\\.)*'|`[^`]*`|\"[^\"]*\"", lambda found: "_" * len(found[0]), text)
    depth, kept = 0, []
    for letter in flat:
        depth -= letter in ")]"
        kept.append(letter if depth == 0 and letter not in ")]" else " ")
        depth += letter in "(["
    return "".join(kept)
