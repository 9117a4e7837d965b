"""Which days of a source may have changed since the last look: those of which a part on disk came or went.

ClickHouse never changes a part: an insert, a merge, a deletion or an update makes a new one. So as long as the parts
that hold a day's rows are the same, the day is unchanged, and need not be read. Clocks play no role in this.

Which days a part has rows of is asked of the view's own SELECT, with all other parts left out of its table. So it holds
for any `sources.sql`, whatever its time is made of and however the table is partitioned; `min_time` and `max_time` of
`system.parts` would not do, since a table may be partitioned by the time of arrival. Parts that are gone count with the
days that they had at the last look.

It cannot be told where the view is more than the rows of tables with parts: a join, a subquery, FINAL, a dictionary,
another server, an engine without parts; or where the account does not see the parts. Then every day may have changed.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from pulse import settings
from pulse.clickhouse import ClickHouse, ClickHouseError, quoted
from pulse.clickhouse.values import literal
from pulse.publishing.late_data import VIEW_OF

MOST_STATEMENTS = 50  # that ask parts for their days; then those of which neighbours share a few days are asked apart
ROW_BY_ROW = frozenset(("Expression", "Filter", "ReadFromMergeTree", "ReadNothing", "Union"))
"""The steps of a plan that make each row from one row of a table."""

BEYOND_ROWS = re.compile(
    r"\bfinal\b|\b(dict\w+|joinGet\w*|regionTo\w+|now|now64|today|yesterday|rand\w*|generate\w+)(?=\s*\()",
    re.IGNORECASE,
)
"""Words in a view that may make its rows depend on more than the table's own: dictionaries, other rows, the clock."""


@dataclass(frozen=True)
class Part:
    """A part on disk."""

    database: str
    table: str
    uuid: str
    partition: str
    name: str
    hash: str
    copy: int
    """Which of the parts of the table with this hash it is."""

    @property
    def key(self) -> str:
        """What it holds: equal for parts with equal rows. Its name would not do: every mutation renames all parts."""
        return f"{self.database}.{self.table} {self.uuid} {self.partition} {self.hash or self.name} {self.copy}"

    @property
    def is_patch(self) -> bool:
        """Whether it changes rows of other parts when they are read."""
        return self.partition.startswith("patch-")


@dataclass(frozen=True)
class View:
    """A view of the source.

    Args:
        comment: identifies how it reads what.
        select: its SELECT, as ClickHouse writes it back.
        tables: the database and the name of each table that it reads.
        why: why its parts do not tell whether its rows have changed; empty if they do.
    """

    comment: str
    select: str
    tables: list[tuple[str, str]] = field(default_factory=list)
    why: str = ""

    def of_parts(self, parts: Collection[Part]) -> str:
        """Its SELECT for the rows of some parts of one table alone. Where that cannot be run, the server says so."""
        select = self.select
        for table in self.tables:
            names = [literal(part.name) for part in parts if (part.database, part.table) == table] or ["''"]
            rows = f"select * from {quoted('.'.join(table))} where _part in ({', '.join(names)})"  # noqa: S608 (our own)
            select = f"({rows})".join(_mention(table).split(select))
        return select


@dataclass(frozen=True)
class Look:
    """What a look at the parts of a source found.

    Args:
        source: `feed_actions` or `message_actions`.
        changed: the days of which a part came or went since the last look; None if any day may have changed.
        why: why that cannot be told, or what is the reason to read everything; empty if it can be told.
        view: which view was looked at, by its comment.
        first: the first day that was looked at.
        days: the days of each part, by its key; empty if it cannot be told.
    """

    source: str
    changed: frozenset[date] | None
    why: str
    view: str = ""
    first: date = date.min
    days: dict[str, list[str]] = field(default_factory=dict)

    def may_have_changed(self, day: date) -> bool:
        """Whether a day may have changed since the last look."""
        return self.changed is None or day in self.changed


def look(db: ClickHouse, config: settings.Settings, source: str, first: date) -> Look:
    """Look at the parts of a source. Only `keep` records what was found.

    Args:
        db: where the views of the sources are.
        config: when the days begin.
        source: `feed_actions` or `message_actions`.
        first: the first day that matters.

    Raises:
        ClickHouseError: no server answers.
    """
    try:
        view = _view(db, VIEW_OF[source])
        if view.why:
            return Look(source, None, view.why)
        parts = _parts(db, view)
        if unseen := set(view.tables) - {(part.database, part.table) for part in parts}:
            return Look(source, None, f"no parts of {', '.join(map('.'.join, sorted(unseen)))} are to be seen")
        before = _recorded(db, source)
        known: dict[str, list[str]] = before.get("days", {})
        if before.get("view") != view.comment or before.get("first", "9999") > str(first):
            known = {}
        now = {part.key: part for part in parts}
        added = [part for key, part in now.items() if key not in known]
        gone = [key for key in known if key not in now]
        came = _days_of(db, config, view, first, added)
    except ClickHouseError as error:
        if error.code is None:
            raise
        return Look(source, None, f"the server does not say ({error})")
    days = {key: came.get(key, known.get(key, [])) for key in now}
    why, changed = "", None
    if not known:
        why = "it is the first look at this view"
    elif any(part.is_patch for part in added) or any(" patch-" in key for key in gone):
        why = "rows were changed by patches"
    else:
        touched = {day for key in gone for day in known[key]} | {day for each in came.values() for day in each}
        changed = frozenset(map(date.fromisoformat, touched))
    return Look(source, changed, why, view.comment, first, days)


def keep(db: ClickHouse, looks: Collection[Look]) -> None:
    """Record what was found, once the days that may have changed have been compared.

    Raises:
        ClickHouseError: no server answers; the next look then compares the same days again.
    """
    rows = [
        {"source": each.source, "state": json.dumps({"view": each.view, "first": str(each.first), "days": each.days})}
        for each in looks
    ]
    db.write(rows, "source_parts")


def _recorded(db: ClickHouse, source: str) -> dict[str, Any]:
    newest = """
    -- What the last look recorded, at most one row
    select state
    from source_parts
    where source = {source:String}
    order by recorded_at desc
    limit 1
    """
    return dict(json.loads(db.value(newest, source=source) or "{}"))


def _view(db: ClickHouse, name: str) -> View:
    """What a view reads, or why that cannot be told."""
    made = """
    -- What the view is, one row
    select comment, as_select
    from system.tables
    where database = {database:String} and name = {name:String}
    """
    (found,) = db.rows(made, database=db.database, name=db.full_name(name))
    select = found["as_select"]
    if beyond := BEYOND_ROWS.search(select):
        return View(found["comment"], select, why=f"{name} uses {beyond[0]}")
    plan = db.read(f"explain json = 1 select * from {name}")  # noqa: S608 (our own view)
    steps = list(_steps(json.loads("\n".join(plan.iloc[:, 0]))[0]["Plan"]))
    if others := {kind for kind, _ in steps} - ROW_BY_ROW:
        why = f"{name} is more than rows of tables: {', '.join(sorted(others))}"
        return View(found["comment"], select, why=why)
    read = sorted({what for kind, what in steps if kind == "ReadFromMergeTree"})
    tables = [(database, table) for database, _, table in (each.partition(".") for each in read)]
    if hidden := [".".join(table) for table in tables if not _mention(table).search(select)]:
        return View(found["comment"], select, why=f"{', '.join(hidden)} is read through another view, which may change")
    return View(found["comment"], select, tables, "" if tables else f"{name} has no rows")


def _mention(table: tuple[str, str]) -> re.Pattern[str]:
    """Where a SELECT, as ClickHouse writes it back, reads a table."""
    database, name = map(re.escape, table)
    return re.compile(rf"(?<![\w.`'])`?{database}`?\.`?{name}`?(?![\w.`'])")


def _parts(db: ClickHouse, view: View) -> list[Part]:
    active = """
    -- The parts of tables, one row each
    select
        parts.database as database,
        parts.table as table,
        toString(tables.uuid) as uuid,
        parts.partition_id as partition,
        parts.name as name,
        parts.hash_of_all_files as hash,
        row_number() over (partition by database, table, partition, hash order by name) as copy
    from system.parts as parts
    inner join system.tables as tables on tables.database = parts.database and tables.name = parts.table
    where parts.active and concat(parts.database, '.', parts.table) in {tables:Array(String)}
    order by database, table, partition, name
    """
    return [Part(**row) for row in db.rows(active, tables=[".".join(table) for table in view.tables])]


def _steps(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The kind and the description of each step of a plan."""
    yield str(plan["Node Type"]), str(plan.get("Description", ""))
    for each in plan.get("Plans", []):
        yield from _steps(each)


def _days_of(
    db: ClickHouse, config: settings.Settings, view: View, first: date, parts: Collection[Part]
) -> dict[str, list[str]]:
    """The days from the first on of which parts have rows, by key; parts of one partition are asked together."""
    days = """
    -- The days of some parts, one row per day
    select distinct toString(toDate(assumeNotNull(seen.time), {zone:String})) as day
    from (<select>) as seen
    where seen.time >= {start:DateTime64(6)} and seen.time < {start:DateTime64(6)} + interval 400 day
    """
    start = datetime.combine(first, time(), config.zone)
    groups: dict[tuple[str, str, str], list[Part]] = {}
    for part in parts:
        if not part.is_patch:
            groups.setdefault((part.database, part.table, part.partition), []).append(part)
    found: dict[str, list[str]] = {}
    waiting = _neighbours(list(map(groups.__getitem__, sorted(groups))))
    while waiting:
        partitions = waiting.pop()
        together = [part for each in partitions for part in each]
        asked = db.read(days.replace("<select>", view.of_parts(together)), zone=config.timezone, start=start)
        if len(partitions) > 1 and 0 < len(asked) <= len(partitions):  # they seem to be partitioned by time
            waiting += [[each] for each in partitions]
            continue
        found |= {part.key: sorted(asked["day"]) for part in together}
    return found


def _neighbours(partitions: list[list[Part]]) -> list[list[list[Part]]]:
    """The partitions, neighbours put together where there are too many for a statement each."""
    size = max(1, -(-len(partitions) // MOST_STATEMENTS))
    return [partitions[begin : begin + size] for begin in range(0, len(partitions), size)]
