"""What a statement of a `sources.sql` has to give: its columns, their types, and what they mean."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias

from pulse.metrics import DIMENSIONS
from pulse.sources.definition import SourceError, Statement

Kind: TypeAlias = Literal["id", "moment", "action", "attribute"]

INTEGER = re.compile(r"(U?)Int(8|16|32|64|128|256)")
WRAPPED = re.compile(r"^(?:Nullable|LowCardinality|SimpleAggregateFunction\(\w+, )\((.*)\)$")


@dataclass(frozen=True)
class Column:
    """A column of a source's statement."""

    name: str
    kind: Kind
    meaning: str
    optional: bool = False


_ATTRIBUTES = tuple(
    Column(each.column, "attribute", f"the user's {each.en} at that moment", each.optional) for each in DIMENSIONS
)
OPTIONAL = tuple(column.name for column in _ATTRIBUTES if column.optional)
"""The columns that a source may lack, which both of its statements then do."""

CONTRACT: Mapping[str, tuple[Column, ...]] = {
    "feed_events": (
        Column("user_id", "id", "who acted; rows without it are left out"),
        Column("time", "moment", "when"),
        Column("action", "action", "what: `view`, `like`, or something else"),
        *_ATTRIBUTES,
    ),
    "message_events": (
        Column("user_id", "id", "who sent it; rows without it are left out"),
        Column("receiver_id", "id", "to whom; rows without it are left out"),
        Column("time", "moment", "when"),
        *_ATTRIBUTES,
    ),
}
"""The columns of each view."""


def check(statement: Statement, types: Mapping[str, str]) -> None:
    """Check that a statement has the columns of its view, with types that the pipeline understands.

    Args:
        statement: the statement.
        types: its columns' types, as ClickHouse describes them.

    Raises:
        SourceError: a column is missing, is not one of the view's, or has a type that says nothing about its meaning.
    """
    columns = {column.name: column for column in CONTRACT[statement.view]}
    for name, column in columns.items():
        if name not in types and not column.optional:
            close = get_close_matches(name, types.keys() - columns.keys(), 1)
            meant = f"`{close[0]} as {name}`" if close else f"`… as {name}`"
            raise SourceError(
                f"{statement.place}: {statement.view} has no column {name} ({column.meaning}); select {meant}."
            )
    for name, kind in types.items():
        if name not in columns:
            close = get_close_matches(name, columns, 1)
            meant = f"did you mean {close[0]}?" if close else f"it reads {', '.join(columns)}."
            raise SourceError(
                f"{statement.place_of(name)}: the pipeline knows no column {name} of {statement.view}; {meant}"
            )
        if problem := _PROBLEMS[columns[name].kind](name, plain(kind)):
            raise SourceError(f"{statement.place_of(name)}: {name} of {statement.view} has the type {kind}; {problem}")


def check_together(statements: Mapping[str, Statement], types: Mapping[str, Mapping[str, str]]) -> None:
    """Check that the statements have the same optional columns.

    Otherwise a user would have a country after an action of the feed and none after a message, as if the users of each
    country came and went.

    Raises:
        SourceError: one statement has a column that the other lacks.
    """
    for name in OPTIONAL:
        lacking = [view for view in statements if name not in types[view]]
        if 0 < len(lacking) < len(statements):
            (has,) = set(statements) - set(lacking)
            raise SourceError(
                f"{statements[lacking[0]].place}: {has} has the column {name} and {lacking[0]} does not; select "
                f"`… as {name}` there too, or `'' as {name}` if it is unknown there."
            )


def present(view: str, types: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns of a view that a statement with these types has."""
    return tuple(column for column in CONTRACT[view] if column.name in types)


def plain(kind: str) -> str:
    """A ClickHouse type without Nullable and LowCardinality."""
    while match := WRAPPED.match(kind):
        kind = match[1]
    return kind


def id_type(kinds: Iterable[str]) -> str:
    """The narrowest type that holds the ids of all these ClickHouse types: an integer type, UUID or String."""
    found = {plain(kind) for kind in kinds}
    integers = [match for kind in found if (match := INTEGER.fullmatch(kind))]
    if len(integers) == len(found):
        bits = {sign: max([int(each[2]) for each in integers if each[1] == sign], default=0) for sign in ("U", "")}
        unsigned, signed = bits["U"], bits[""]
        if not signed:
            return f"UInt{unsigned}"
        both = max(signed, 2 * unsigned)
        return f"Int{both}" if both <= 256 else "String"
    return "UUID" if found == {"UUID"} else "String"


def _as_id(name: str, kind: str) -> str:
    if re.match(r"U?Int\d|String$|FixedString|UUID$|Enum", kind):
        return ""
    return (
        f"an id is an integer, a String or a UUID: select `toString({name}) as {name}` if each user has one spelling."
    )


def _as_moment(name: str, kind: str) -> str:
    if re.match(r"DateTime", kind) or kind in ("UInt32", "Int32"):
        return ""
    if kind in ("UInt64", "Int64"):
        return (
            f"if these are milliseconds since 1970, select `toDateTime64({name} / 1000, 3) as {name}`; microseconds: "
            f"`toDateTime64({name} / 1000000, 6)`; seconds: `toDateTime({name})`."
        )
    if kind == "String":
        return f"select `parseDateTime64BestEffort({name}, 3, 'UTC') as {name}` with the zone of these times."
    return "a moment is a DateTime, a DateTime64 or, in seconds since 1970, a UInt32."


def _as_action(name: str, kind: str) -> str:
    if re.match(r"String$|FixedString|Enum", kind):
        return ""
    named = f"transform(ifNull(toString({name}), ''), ['1', '2'], ['view', 'like'], 'other') as {name}"
    return f"an action is a String or an Enum: select `{named}` with your codes."


def _as_attribute(name: str, kind: str) -> str:
    if re.match(r"Array|Map|Tuple|Nested|JSON|Object|AggregateFunction|Dynamic|Variant", kind):
        return f"an attribute is a single value: select the part that is meant, as {name}."
    return ""


_PROBLEMS = {"id": _as_id, "moment": _as_moment, "action": _as_action, "attribute": _as_attribute}
