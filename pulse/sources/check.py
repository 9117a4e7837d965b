"""Whether the app's tables are as the pipeline needs them: what they hold on a day, shown and judged.

What is certainly wrong is a fault, with what to do about it. What may be as it should is a remark.
"""

import math
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd

from pulse.clickhouse import ClickHouse
from pulse.metrics import BY_COLUMN, DIMENSIONS
from pulse.sources import Source, contract, definition, measures, views
from pulse.sources.definition import SourceError, Statement
from pulse.sources.measures import FEED, MESSAGES, Column, Day, Latest

WIDTH = 100
"""The width of the text, in letters."""

LOST = 0.1
"""The share of rows without an id from which on the day is wrong, and not only a few broken events."""

COPIED = 0.2
"""The share of copies from which on rows were certainly delivered twice."""

SHARED_USERS = 100
"""With so many users in the feed and in the messenger, some should be in both."""

QUIET_ROWS = 1_000
"""With so many rows, a day's quietest hours say where night is."""

BARS = "▁▂▃▄▅▆▇█"
NAMES = {FEED: "feed", MESSAGES: "messages"}


class Check:
    """The check of a source for a day.

    Args:
        db: a server, with an account that may read the source.
        source: where the app's tables are.
        day: the day.
        zone_setting: the name of the setting with the zone of the source's clock times.
    """

    def __init__(self, db: ClickHouse, source: Source, day: date, zone_setting: str = "PULSE_SOURCE_TIMEZONE") -> None:
        self.db = ClickHouse(db.url, source.database, db.zone)  # the project's database need not exist yet
        self.source, self.day, self.zone_setting = source, day, zone_setting
        self.faults: list[str] = []
        self.remarks: list[str] = []

    def lines(self) -> Iterator[str]:
        """The text, line by line; `faults` and `remarks` are complete after the last one.

        Raises:
            SourceError: the source is not as its `sources.sql` says, or this account may not read it.
            ClickHouseError: no server answers, or a query failed.
        """
        statements = definition.load(self.source.shape)
        types = views.types_of(self.db, self.source, statements)
        if types is None:
            raise SourceError(
                f"This account may not read {self.source.database}; set CLICKHOUSE_URL to one that may for this "
                "command, a read-only one is enough."
            )
        self.held = Day(self.db, self.source, statements, types, self.day)
        for number, line in enumerate(self._text(statements)):
            yield from ([""] if line.startswith("#") and number else [])
            yield line.removeprefix("# ")[:WIDTH]

    def _text(self, statements: dict[str, Statement]) -> Iterator[str]:
        held = self.held
        yield f"# The source on {self.day:%A %d %B %Y}, as Pulse reads it"
        preset = "preset" if self.source.shape in definition.presets() else "definition"
        yield f"{preset:<12}{self.source.shape}, database {self.source.database}"
        yield f"{'days':<12}of {self.db.zone.key}; the server's zone is {held.server.key}"
        yield f"{'users':<12}{held.ids}, published as text"
        for view in statements:
            yield f"{'time':<12}{NAMES[view]}: {self._time(view)}"
        counts: dict[str, int] = {}
        for view, statement in statements.items():
            counts[view], columns = held.columns(view)
            yield f"# {view}: {counts[view]:,} rows"
            if not counts[view]:
                yield "none"
                self._nothing(view)
                continue
            self._written(statement)
            yield from _frame(held.rows(view))
            yield ""
            yield from _frame(pd.DataFrame([_shares(column, counts[view]) for column in columns]))
            self._lacking(statement, counts[view], columns)
            yield from self._copies(view, counts[view])
        yield from self._actions(statements[FEED]) if counts[FEED] else ()
        yield from self._hours([view for view in statements if counts[view]])
        yield "# The latest events"
        for view in statements:
            yield from self._latest(view, statements[view])
        if any(counts.values()):
            yield "# What the day would publish"
            yield from self._metrics()

    def _time(self, view: str) -> str:
        """How the times of a view are read."""
        whole, kind = self.held.types[view]["time"], contract.plain(self.held.types[view]["time"])
        if kind in ("UInt32", "Int32"):
            how = "seconds since 1970"
        elif "'" in kind:
            how = "the type names the zone"
        elif self.source.zone:
            how = f"clock times of {self.source.zone.key} ({self.zone_setting})"
        else:
            how = f"no zone in the type, so the server's, {self.held.server.key}"
        if "Nullable" in whole:
            how += "; rows without a time belong to no day"
        return f"{whole}, {how}"

    def _nothing(self, view: str) -> None:
        last = self.held.last_before(view)
        before = (
            f"the last before it are of {last:%Y-%m-%d %H:%M}"
            if last
            else f"nor in the {measures.BACK.days} days before it"
        )
        self.faults.append(
            f"There are no {NAMES[view]} rows on {self.day}, {before}: give a day that has some, or check the "
            "tables and times in the source's definition."
        )

    def _written(self, statement: Statement) -> None:
        """Remark how a statement itself may count rows more than once."""
        for table, engine in self.held.unmerged(statement):
            self.remarks.append(
                f"{table} is a {engine} and read without `final`: until its parts are merged, rows that were "
                f"replaced or cancelled count as well ({statement.place_of(table)})."
            )
        if measures.multiplies(statement):
            self.remarks.append(
                f"The rows of the {NAMES[statement.view]} are joined with another table: each counts as often as it "
                f"matches there, unless it is an `any left join` ({statement.place})."
            )

    def _lacking(self, statement: Statement, rows: int, columns: list[Column]) -> None:
        name, attributes = NAMES[statement.view], {dimension.column for dimension in DIMENSIONS}
        for column in columns:
            if column.name in attributes:
                if column.null + column.empty == rows:
                    self.remarks.append(
                        f"{column.name} is missing from every {name} row: all of it is published as unknown."
                    )
                continue
            if column.name == "action" or column.name == "time":
                continue
            if column.null:
                text = f"{_share(column.null, rows)} of the {name} rows have no {column.name}, and are left out"
                if column.null > LOST * rows:
                    self.faults.append(f"{text}: {statement.place_of(column.name)} probably reads the wrong column.")
                else:
                    self.remarks.append(f"{text}.")
            if column.anonymous:
                share = _share(column.anonymous, rows)
                text = f"{share} of the {name} rows have the {column.name} 0 or '', which count as one user"
                mend = f"select nullIf({column.name}, {_nobody(column)}) as {column.name} to leave them out"
                (self.faults if column.anonymous > LOST * rows else self.remarks).append(
                    f"{text}: {mend} ({statement.place_of(column.name)})."
                )

    def _copies(self, view: str, rows: int) -> Iterator[str]:
        copies = self.held.copies(view, rows)
        compared = "all columns of the table" if copies.whole else "the columns that Pulse reads"
        yield f"exact copies: {copies.rows:,} ({_share(copies.rows, rows)}), by {compared}"
        if copies.rows > COPIED * rows and copies.whole:
            self.faults.append(
                f"{_share(copies.rows, rows)} of the {NAMES[view]} rows are exact copies of others: they were loaded "
                "twice; read the table with `final` or `limit 1 by …` in the source's definition."
            )
        elif copies.rows:
            self.remarks.append(
                f"{_share(copies.rows, rows)} of the {NAMES[view]} rows are copies of others; all of them count. "
                "If they were delivered twice, read the table with `final` or `limit 1 by …`."
            )

    def _actions(self, statement: Statement) -> Iterator[str]:
        actions = self.held.actions()
        yield "# Feed actions"
        for name, count in actions.items():
            meant = name if name in ("view", "like") else "other: the user was active"
            yield f"{name[:40]:<42}{count:>14,}  {meant}"
        nearly = [name for name in actions if name not in ("view", "like") and name.strip().lower() in ("view", "like")]
        if nearly:
            self.faults.append(
                f"Feed actions are named {', '.join(map(repr, nearly))}, which is neither view nor like: name "
                f"them view and like in {statement.place_of('action')}, or something else."
            )
        missing = [name for name in ("view", "like") if name not in actions]
        if len(missing) == 2:
            named = ", ".join(map(repr, list(actions)[:6]))
            self.faults.append(
                f"None of the feed actions is a view or a like, they are {named}: give them the names view and like in "
                f"{statement.place_of('action')}."
            )
        elif missing:
            self.remarks.append(f"No feed action is named {missing[0]}, so the day has no {missing[0]}s.")

    def _hours(self, present: list[str]) -> Iterator[str]:
        found = {view: self.held.hours(view) for view in present}
        if not found:
            return
        yield "# Rows by hour"
        labels = [label for label, _ in next(iter(found.values()))]
        yield f"{'':<12}{''.join(f'{label[:2]:<3}' for label in labels[::3])}".rstrip()
        for view, hours in found.items():
            most = max(count for _, count in hours)
            bar = "".join(BARS[math.ceil(count / most * (len(BARS) - 1))] if count else " " for _, count in hours)
            yield f"{NAMES[view]:<12}{bar}"
            if empty := [label for label, count in hours if not count]:
                listed = ", ".join(empty[:6]) + (f" and {len(empty) - 6} more" if len(empty) > 6 else "")
                self.remarks.append(f"There are no {NAMES[view]} rows in the hours that begin at {listed}.")
            self._night(view, [count for _, count in hours])

    def _night(self, view: str, counts: list[int]) -> None:
        """Remark that night is not at night."""
        total = sum(counts)
        threes = [
            counts[hour] + counts[(hour + 1) % len(counts)] + counts[(hour + 2) % len(counts)] for hour in range(24)
        ]
        quietest = min(range(24), key=threes.__getitem__)
        if total >= QUIET_ROWS and threes[quietest] < 0.5 * total / 8 and 6 <= quietest <= 21:
            hours = f"from {quietest}:00 to {(quietest + 3) % 24}:00"
            self.remarks.append(
                f"The quietest hours of the {NAMES[view]} are {hours}: if your users sleep at night, the times are of "
                f"another zone ({self.zone_setting})."
            )

    def _latest(self, view: str, statement: Statement) -> Iterator[str]:
        latest = self.held.latest(view)
        if latest.event is None:
            hours = measures.RECENT // timedelta(hours=1)
            yield f"{NAMES[view]:<12}none in the last {hours} hours, so their clock cannot be compared with now"
            return
        local = latest.event.astimezone(self.db.zone)
        ahead = latest.event - latest.now
        distance = f"{_duration(abs(ahead))} {'from now' if ahead > timedelta(0) else 'ago'}"
        yield f"{NAMES[view]:<12}{local:%Y-%m-%d %H:%M:%S} in {self.db.zone.key}, {distance}"
        if latest.future:
            self.faults.append(self._from_the_future(statement, latest, ahead))

    def _from_the_future(self, statement: Statement, latest: Latest, ahead: timedelta) -> str:
        """What is wrong, and what would make the latest event fit."""
        found = (
            f"{latest.future:,} of the latest {latest.recent:,} {NAMES[statement.view]} rows are in the future, "
            f"by up to {_duration(ahead)}"
        )
        place = statement.place_of("time")
        hours = math.ceil((ahead - measures.CLOCKS) / timedelta(hours=1))
        if hours > 14:
            return f"{found}: some clocks are wrong; leave these rows out with `where` in {place}."
        kind = contract.plain(self.held.types[statement.view]["time"])
        if "'" in kind or not kind.startswith("DateTime"):
            return f"{found}: select `time - interval {hours} hour as time` in {place} if they are all ahead by that."
        zone = fitting_zone(self.source.zone or self.held.server, ahead, self.db.zone, latest.now)
        setting = f"{self.zone_setting}={zone}"
        return f"{found}: the app writes times of another zone's clocks. With {setting} the latest would fit now."

    def _metrics(self) -> Iterator[str]:
        found = self.held.metrics()
        for name, value in found.items():
            yield f"{name:<20}{_number(value, BY_COLUMN[name].unit):>14}"
        both = min(found["feed_users"] or 0, found["messenger_users"] or 0)
        if both >= SHARED_USERS and not found["both_users"]:
            self.remarks.append(
                "No user is both in the feed and in the messenger: check that user_id is the same id in both."
            )


def fitting_zone(zone: ZoneInfo, ahead: timedelta, preferred: ZoneInfo, now: datetime) -> str:
    """A zone in which the latest event happened within the last hour, if it seems to happen in the future.

    Args:
        zone: the zone in which the times are read.
        ahead: how far in the future the latest event is then.
        preferred: the zone that is meant if it fits.
        now: when.
    """
    least = (now.astimezone(zone).utcoffset() or timedelta(0)) + ahead - measures.CLOCKS
    usual = ("UTC", "Europe/London", "Europe/Berlin", "Europe/Moscow", "Asia/Kolkata", "Asia/Tokyo", "America/New_York")
    for name in (preferred.key, *usual):
        offset = now.astimezone(ZoneInfo(name)).utcoffset() or timedelta(0)
        if least <= offset < least + timedelta(hours=1):
            return name
    whole = math.ceil(least / timedelta(hours=1))
    return f"Etc/GMT{-whole:+d}" if -14 <= -whole <= 12 else "UTC"


def _nobody(column: Column) -> str:
    return "0" if "Int" in column.type else "''"


def _shares(column: Column, rows: int) -> dict[str, str]:
    nobody = _share(column.anonymous, rows) if column.name in ("user_id", "receiver_id") else ""
    return {
        "column": column.name,
        "type": column.type,
        "NULL": _share(column.null, rows),
        "empty": _share(column.empty, rows),
        "0 or ''": nobody,
    }


def _share(part: int, whole: int) -> str:
    return "0 %" if not part else f"{max(part / whole, 0.0001):.2%}".replace("%", " %")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return {"share": f"{value:.1%}", "ratio": f"{value:.2f}"}.get(unit, f"{value:,.10g}")


def _duration(time: timedelta) -> str:
    minutes = int(time / timedelta(minutes=1))
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"


def _frame(frame: pd.DataFrame) -> list[str]:
    """A frame as lines; the longest cells are cut until the lines are short enough."""
    cells = [
        [*map(str, frame.columns)],
        *(["NULL" if pd.isna(cell) else str(cell) for cell in row] for row in frame.values),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    return [
        "  ".join(
            (cell if len(cell) <= width else f"{cell[: width - 1]}…").ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
