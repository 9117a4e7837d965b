"""Random days of an app, each from a seed: the same seed always makes the same day.

A day is as awkward as `spec.md` allows: it is in any time zone, and often near a change of its clocks. Ids are integers
of any width and sign, texts or UUIDs, and may have another type in each column. Attributes are texts, codes or enums,
and may be NULL, empty or 0; a country, city, source and group of an experiment are there or not. Times are in whole
seconds or down to nanoseconds, and their column may have its own time zone. Rows are duplicated; moments are just
before and after midnight, in 1970 and in 2106; tables have any sorting and partition key.

One case is left out, because the specification leaves it open: a user's latest two actions are at the same moment and
differ in attributes.
"""

import itertools
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from notebooks.recount import ATTRIBUTES, Row, shown

from notebooks.etl import LAYOUTS

SECOND = 10**9  # moments are whole nanoseconds since 1970
DAY = 24 * 3600 * SECOND

# Chosen for how they change their clocks, and for how far they are from UTC.
ZONES = (
    "Europe/Moscow",  # never changes
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # 2:30 behind UTC in summer
    "America/Havana",  # has two midnights in autumn
    "America/Santiago",  # one day in spring has no midnight; on one in autumn the hour before midnight comes twice
    "America/Nuuk",  # changes on Saturday evening
    "Africa/Cairo",  # like Santiago, but in the northern hemisphere
    "Africa/Casablanca",  # changes around Ramadan
    "Asia/Kathmandu",  # 5:45 ahead
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Chatham",  # 12:45 ahead, changes at 2:45
    "Pacific/Pago_Pago",  # the last to begin a day
    "Pacific/Kiritimati",  # the first to begin a day
    "Antarctica/Troll",  # changes by two hours
)
FIRST_DAY, DAYS = date(2023, 3, 1), 900

INTEGERS = {
    f"{sign}{bits}": (0, 2**bits - 1) if sign == "UInt" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("UInt", "Int")
    for bits in (8, 16, 32, 64, 128, 256)
}
USUAL = ["UInt8", "UInt16", "UInt32", "UInt64", "Int8", "Int16", "Int32", "Int64"]
NUMBERS = [0, 1, 2, 5, 7, -1, -2, -5, -7, 127, 128, 255, 256, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63, 2**64 - 1]
OTHERS = [
    ("country", "String"),
    ("latest", "UInt8"),
    ("attributes", "String"),
    ("event_date", "Date"),
    ("views", "Int8"),
]
WORDS = ["anna", "Anna", "anna ", "7", "007", "-7", "it's", 'say "hi"', "a\tb", "back\\slash", "\\N", "юзер", "🐈", "0"]
SYSTEMS = ["iOS", "Android", "android", "Android ", "it's", "a\tb", "back\\slash", "\\N", "{os:String}", "unknown", "0"]


@dataclass(frozen=True)
class Column:
    """A column's type, and the values that may be in it."""

    kind: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A table of the app: its columns' types, its layout on disk, and its rows, grouped into inserts."""

    columns: dict[str, str]
    layout: str
    inserts: list[list[Row]]

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for rows in self.inserts for row in rows]

    def only(self, keep: Callable[[Row], bool]) -> "Table":
        """Return the same table with only some of its rows."""
        return replace(self, inserts=[[row for row in rows if keep(row)] for rows in self.inserts])


@dataclass(frozen=True)
class RandomDay:
    """An app's raw rows, the day to compute from them, and the days to run the ETL for, including that day.

    A statement that groups by user handles `users_per_part` of them at a time.
    """

    seed: int
    timezone: str
    day: date
    runs: tuple[date, ...]
    lookback_days: int
    users_per_part: int
    feed: Table
    messages: Table
    optional: tuple[str, ...] = ()
    """The optional attributes that the source has."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that says when a day begins and ends."""
        return ZoneInfo(self.timezone)

    @property
    def size(self) -> int:
        """The number of rows in both tables."""
        return len(self.feed.rows) + len(self.messages.rows)

    def only(self, numbers: Collection[int]) -> "RandomDay":
        """Return the same day with only these rows, which are numbered from 0, those of the feed first."""
        count = itertools.count()
        feed = self.feed.only(lambda _: next(count) in numbers)
        return replace(self, feed=feed, messages=self.messages.only(lambda _: next(count) in numbers))

    def __str__(self) -> str:
        runs = ", ".join(map(str, self.runs))
        also = ", ".join(self.optional) or "nothing"
        lines = [
            f"{self.day} in {self.timezone}, lookback_days={self.lookback_days}, "
            f"{self.users_per_part:,} users at a time, run for {runs}, also split by {also}:"
        ]
        for name, table in (("feed_actions", self.feed), ("message_actions", self.messages)):
            kinds = ", ".join(f"{column} {kind}" for column, kind in table.columns.items())
            lines.append(f"{name} ({kinds}), laid out {table.layout}; written by insert")
            for number, rows in enumerate(table.inserts):
                for row in rows:
                    values = ", ".join(repr(value) for column, value in row.items() if column != "time")
                    lines.append(f"  {number}  {_clock(row['time'], self.zone)}  {values}")
        return "\n".join(lines)


def random_day(seed: int) -> RandomDay:
    """Make the day that belongs to a seed."""
    dice = Random(seed)  # noqa: S311 (nothing here is secret)
    timezone = dice.choice(ZONES)
    zone = ZoneInfo(timezone)
    day = FIRST_DAY + timedelta(days=dice.randrange(DAYS))
    if dice.random() < 0.5 and (changes := _changes(zone, FIRST_DAY, DAYS)):
        day = _date(dice.choice(changes), zone) + timedelta(days=dice.choice((0, 0, 0, -1, 1)))
    before = day - timedelta(days=1)
    earlier = [day - timedelta(days=back) for back in dice.sample(range(1, 32), 3)]
    runs = dice.choice(((day,),) * 6 + ((day, day), (before, day), (before, day), (*earlier, day), (day, before)))
    lookback_days = dice.choice((30, 30, 30, 7, 1, 0, 31))
    users_per_part = dice.choice((2_500_000, 2_500_000, 2_500_000, 3))

    users, senders, receivers = _ids(dice)
    names = {"os": _text, "gender": dice.choice((_text, _code)), "age": _age}
    sides = (
        {"user_id": _some(dice, users), "action": _action(dice)},
        {"user_id": _some(dice, senders), "receiver_id": receivers},
    )
    moments = _moments(dice, zone, day, lookback_days)
    quiet = dice.random() < 0.04  # nobody does anything that day
    tables = []
    for side in sides:
        columns = side | {name: make(dice) for name, make in names.items()}
        tick, time_kind = _time(dice)
        rows = []
        for _ in range(dice.choice((0, 1, 5, 12, 12, 25, 40))):
            row = {name: dice.choice(column.values) for name, column in columns.items()}
            moment = dice.choice(moments)(dice) // tick * tick
            row["time"] = None if time_kind.startswith("Nullable") and dice.random() < 0.05 else moment
            if not (quiet and row["time"] is not None and _date(moment, zone) == day):
                rows += [row] * dice.choice((1, 1, 1, 1, 1, 1, 2, 3))
        dice.shuffle(rows)
        kinds = {name: column.kind for name, column in columns.items()} | {"time": time_kind}
        others = dict(dice.sample(OTHERS, dice.choice((0, 0, 2))))
        tables.append(Table(kinds | others, dice.choice(list(LAYOUTS)), _cut(dice, rows)))
    optional = _add_optional(Random(f"optional {seed}"), tables)  # noqa: S311
    tables = _without_open_questions(*tables)
    return RandomDay(seed, timezone, day, runs, lookback_days, users_per_part, *tables, optional)


def _add_optional(dice: Random, tables: list[Table]) -> tuple[str, ...]:
    """Give the rows of both tables some of the optional attributes, often none; return which."""
    makes = {"country": _text, "city": _city, "source": _text, "exp_group": _code}
    optional = tuple(name for name in makes if name in dice.sample(sorted(makes), dice.choice((0, 0, 1, 2, 4))))
    for table in tables:
        columns = {name: makes[name](dice) for name in optional}
        table.columns.update({name: column.kind for name, column in columns.items()})
        for row in {id(row): row for row in table.rows}.values():  # copies of a row are the same object
            row.update({name: dice.choice(column.values) for name, column in columns.items()})
    return optional


# --- what may be in a column -----------------------------------------------------------------------------------------


def _ids(dice: Random) -> list[Column]:
    """Return columns of ids for users of the feed, senders and receivers, with types of one family or of two."""
    family = dice.choices(("integers", "text", "uuid", "both"), (6, 2, 1, 1))[0]
    numbers = {0, 1, 2, *dice.sample(NUMBERS, 5)}
    if family == "integers":
        kinds = [dice.choice(USUAL if dice.random() < 0.9 else list(INTEGERS)) for _ in range(3)]
        if dice.random() < 0.3:
            kinds = [kinds[0]] * 3
        numbers |= {number for kind in kinds for number in INTEGERS[kind] if dice.random() < 0.5}
        numbers |= {-number for number in numbers if dice.random() < 0.3}
        columns = [_within(kind, numbers) for kind in kinds]
    elif family == "text":
        people = tuple(dice.sample(WORDS, 8))
        columns = [Column(dice.choice(("String", "LowCardinality(String)")), people) for _ in range(3)]
    elif family == "uuid":
        people = tuple(str(uuid.UUID(int=number)) for number in (0, *(dice.getrandbits(128) for _ in range(7))))
        columns = [Column("UUID", people)] * 3
    else:  # numbers in one table, and the same numbers as text in the other
        number = _within(dice.choice(USUAL), numbers)
        text = Column("String", (*map(str, sorted(numbers)), "anna", "007"))
        columns = dice.choice(([number, text, text], [text, number, number]))
    return [_nullable(dice, column, share=0.15) for column in columns]


def _some(dice: Random, column: Column) -> Column:
    """Return the column with two thirds of its values; the other users only receive messages."""
    return replace(column, values=tuple(dice.sample(column.values, max(1, 2 * len(column.values) // 3))))


def _within(kind: str, numbers: set[int]) -> Column:
    least, greatest = INTEGERS[kind]
    return Column(kind, tuple(sorted(number for number in numbers if least <= number <= greatest)))


def _action(dice: Random) -> Column:
    kinds = ("String", "LowCardinality(String)", "Enum8('view' = 1, 'like' = 2, 'share' = -3)")
    column = Column(dice.choice(kinds), ("view", "view", "view", "like", "like", "share"))
    return _nullable(dice, column, share=0.2)


def _text(dice: Random) -> Column:
    """Return a column of names, as text or as an enum with numbers of its own; an unknown name may be empty."""
    names = dice.sample(SYSTEMS, dice.choice((2, 4, 6)))
    if dice.random() < 0.35:
        numbers = dice.sample(range(-100, 100), len(names) + 1)
        listed = ", ".join(
            f"{_quoted(name)} = {number}" for name, number in zip((*names, ""), sorted(numbers), strict=True)
        )
        return _nullable(dice, Column(f"{dice.choice(('Enum8', 'Enum16'))}({listed})", (*names, "")), share=0.4)
    column = Column(dice.choice(("String", "LowCardinality(String)")), (*names, ""))
    return _nullable(dice, column, share=0.6)


def _code(dice: Random) -> Column:
    """Return a column of genders, coded as numbers or as texts of numbers."""
    kind = dice.choice(("UInt8", "Int8", "Int32", "String", "LowCardinality(String)"))
    return _nullable(dice, Column(kind, ("0", "1") if "String" in kind else (0, 1)), share=0.5)


def _city(dice: Random) -> Column:
    """Return a column of cities, of which nearly every row has another one."""
    return _nullable(dice, Column("String", ("", *(f"Новый город {number}" for number in range(500)))), share=0.3)


def _age(dice: Random) -> Column:
    ages = (0, 1, 25, 25, 40, 127)
    options = [Column(kind, ages) for kind in ("UInt8", "Int8", "Int16", "UInt32", "Int64", "UInt64")]
    options += [Column(kind, ("", *map(str, ages))) for kind in ("String", "LowCardinality(String)")]
    return _nullable(dice, dice.choice(options), share=0.6)


def _nullable(dice: Random, column: Column, share: float) -> Column:
    if dice.random() >= share:
        return column
    if column.kind.startswith("LowCardinality("):
        inner = column.kind.removeprefix("LowCardinality(").removesuffix(")")
        return Column(f"LowCardinality(Nullable({inner}))", (*column.values, None))
    return Column(f"Nullable({column.kind})", (*column.values, None))


def _time(dice: Random) -> tuple[int, str]:
    """Return the precision of a column of times, in nanoseconds, and its type."""
    zone = dice.choice(("", "", "UTC", *ZONES))
    if dice.random() < 0.3:
        tick, kind = SECOND, f"DateTime('{zone}')" if zone else "DateTime"
    else:
        digits = dice.choice((0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 9))
        tick, kind = 10 ** (9 - digits), f"DateTime64({digits}, '{zone}')" if zone else f"DateTime64({digits})"
    return tick, f"Nullable({kind})" if dice.random() < 0.1 else kind


# --- when ------------------------------------------------------------------------------------------------------------


def _moments(dice: Random, zone: ZoneInfo, day: date, lookback_days: int) -> list[Callable[[Random], int]]:
    """Return functions that draw a moment, likelier ones more often: most draw one on the day, many one at an edge."""
    start, end, earliest, before = (
        _first_moment(each, zone)
        for each in (day, day + timedelta(days=1), day - timedelta(days=lookback_days), day - timedelta(days=1))
    )
    edges = [start, end, start, end, earliest, *_changes(zone, day - timedelta(days=1), 3)]
    far = [1, 1_000, 10**6, 999 * 10**6, SECOND, 1800 * SECOND, 3600 * SECOND]
    busy = start + dice.randrange(end - start)  # a moment at which a lot happens

    def on_the_day(dice: Random) -> int:
        return start + dice.randrange(end - start)

    def at_an_edge(dice: Random) -> int:
        return dice.choice(edges) + dice.choice((-1, 0, 1)) * dice.choice(far)

    def at_once(dice: Random) -> int:
        return busy + dice.choice((0, 1, 10, 100, 900, 10**3, 10**6, SECOND))

    def before_it(dice: Random) -> int:
        return earliest - DAY + dice.randrange(start - earliest + DAY)

    def nearby(dice: Random) -> int:
        return before + dice.randrange(end - before + DAY)

    def at_no_time(dice: Random) -> int:
        return dice.choice((0, (2**32 - 1) * SECOND))

    usual = [on_the_day] * 10 + [at_an_edge] * 8 + [at_once] * 4 + [before_it] * 6 + [nearby] * 2
    return [*usual, at_no_time]


def _changes(zone: ZoneInfo, first: date, days: int) -> list[int]:
    """Return the moments at which the zone's clocks change within this number of days."""
    moment = _first_moment(first, UTC)
    found = []
    for start in range(moment, moment + days * DAY, DAY):
        low, high = start // SECOND, (start + DAY) // SECOND
        if _offset(low, zone) != _offset(high, zone):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(middle, zone) == _offset(low, zone) else (low, middle)
            found.append(high * SECOND)
    return found


def _offset(second: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(second, zone).utcoffset()


def _first_moment(day: date, zone: Any) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * SECOND


def _date(moment: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment // SECOND, zone).date()


def _clock(moment: int | None, zone: ZoneInfo) -> str:
    """Return a moment as a person would look it up: the local time and its offset."""
    if moment is None:
        return "NULL"
    local = datetime.fromtimestamp(moment // SECOND, zone)
    return f"{local:%Y-%m-%d %H:%M:%S}.{moment % SECOND:09d} {local:%z}"


# --- rows ------------------------------------------------------------------------------------------------------------


def _cut(dice: Random, rows: list[Row]) -> list[list[Row]]:
    """Split the rows into a few inserts, each of which makes its own parts."""
    places = sorted(dice.randrange(len(rows) + 1) for _ in range(dice.choice((0, 0, 1, 3))))
    return [rows[start:end] for start, end in zip([0, *places], [*places, len(rows)], strict=True) if start < end]


def _without_open_questions(feed: Table, messages: Table) -> tuple[Table, Table]:
    """Leave out rows whose attributes differ from an earlier row of the same user and moment: which counts is open."""
    first: dict[tuple[Any, int], tuple[str, ...]] = {}

    def keep(row: Row) -> bool:
        attributes = tuple(shown(name, row[name]) for name in ATTRIBUTES if name in row)
        return row["time"] is None or first.setdefault((str(row["user_id"]), row["time"]), attributes) == attributes

    return feed.only(keep), messages.only(keep)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\t", "\\t") + "'"
