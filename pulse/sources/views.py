"""The views through which the pipeline reads the app: the statements of a `sources.sql`, with what the pipeline adds.

ids         converted to the narrowest type that holds those of both views: joins need one type, and narrow integers
            are much faster than strings
time        an instant, whatever the column is
attributes  a hash of the action's attributes as this source has them
country …   optional columns that the source lacks are empty, and change no hash; the comment names those that it has
latest      orders actions by time and includes the attributes: the greatest value is the latest action, and of two
            actions at the same moment always the same one
row_hash    a hash of everything in the row that a number depends on, and `second_hash` another one, which no accident
            that misleads the first can mislead as well. Their sums over rows in any order are the fingerprint of those
            rows: see `pulse.publishing.late_data`
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pulse import metrics
from pulse.clickhouse import ClickHouse, ClickHouseError, quoted
from pulse.clickhouse.values import literal
from pulse.sources import Source, contract, definition
from pulse.sources.definition import SourceError, Statement

READS = "reads "
"""How the comment of a view begins; older views have other comments."""

WITH = " with "
"""What stands in the comment of a view before the optional columns that the source has."""

ACCESS_DENIED = 497
ANY_TYPES = {column.name: "String" for columns in contract.CONTRACT.values() for column in columns}

SINCE = datetime(2015, 1, 1, tzinfo=UTC)
"""A zone that has been the same number of hours from the server's since then is taken for one that always was. Then the
server finds a day's rows by the key of the table; where the distance changes, it reads the whole table."""


@dataclass(frozen=True)
class View:
    """A view of the source.

    Args:
        name: its name.
        reads: how the comment of such a view begins: which source it reads, how, and by which days.
        definition: a mark of what does not depend on the source's types: the statement, and what the pipeline adds.
        select: what it selects; None if the account may not ask which types the source has.
        optional: the optional columns that the source has.
    """

    name: str
    reads: str
    definition: str
    select: str | None
    optional: tuple[str, ...] = ()

    @property
    def comment(self) -> str:
        """Its comment, which identifies how it reads what: the mark of the definition, then that of the SELECT.

        It ends with the optional columns, by which they are known to accounts that may not read the source.
        """
        listed = f"{WITH}{', '.join(self.optional)}" if self.optional else ""
        return f"{self.reads}: {self.definition}-{_mark(self.select or '')}{listed}"

    def creation(self, create: str, security: str = "", name: str = "") -> str:
        """The statement that creates it.

        Args:
            create: its beginning, such as `create or replace view`.
            security: with whose rights it reads the source; those of whoever reads the view unless given.
            name: under which name, where not its own in the current database.
        """
        return f"{create} {name or self.name}{security} as\n{self.select}\ncomment {literal(self.comment)}"

    def is_of_this_installation(self, comment: str) -> bool:
        """Whether a view with such a comment reads the same source in the same zone, even if in another way."""
        return not comment.startswith(READS) or comment.rpartition(":")[0] == self.reads

    def is_as(self, comment: str) -> bool:
        """Whether a view with such a comment reads the source as this one does.

        Without the source's types only the definition can be compared. Views of before there was a mark of the
        definition have that of the SELECT alone.
        """
        reads, _, marks = comment.rpartition(":")
        definition, _, select = marks.strip().partition(WITH)[0].rpartition("-")
        if reads != self.reads:
            return False
        return definition == self.definition if self.select is None else select == _mark(self.select)


def read(db: ClickHouse, source: Source) -> list[View]:
    """The views of a source; without their SELECT if the account may not read the source itself.

    Raises:
        SourceError: the definition is not as the pipeline needs it.
        ClickHouseError: no server answers.
    """
    statements = definition.load(source.shape)
    types = types_of(db, source, statements)
    if types is None:
        reads = f"{READS}{source}, by days of {db.zone.key}"
        return [View(view, reads, _definition(statement, source), None) for view, statement in statements.items()]
    return made(db, source, statements, types, ZoneInfo(db.value("select timezone()")))


def dimensions(db: ClickHouse) -> list[str]:
    """The columns of the dimensions that the source has, as the views in the project's database say.

    Raises:
        ClickHouseError: no server answers.
    """
    comment = """
    -- How the source is read, one row if there is a view
    select comment
    from system.tables
    where database = currentDatabase() and name = {view:String}
    """
    marks = "".join(row["comment"] for row in db.rows(comment, view=db.full_name("feed_events"))).rpartition(":")[2]
    there = marks.partition(WITH)[2].split(", ")
    return [each.column for each in metrics.DIMENSIONS if not each.optional or each.column in there]


def made(
    db: ClickHouse,
    source: Source,
    statements: Mapping[str, Statement],
    types: Mapping[str, Mapping[str, str]],
    server: ZoneInfo,
) -> list[View]:
    """The views of these statements.

    Args:
        db: its zone says when days begin.
        source: where the app's tables are.
        statements: the statements, by view.
        types: the types of their columns, by view and name.
        server: the server's zone.
    """
    reads, ids = f"{READS}{source}, by days of {db.zone.key}", ids_of(types)
    return [
        View(
            view,
            reads,
            _definition(statement, source),
            _select(statement, source, types[view], ids, server),
            tuple(column.name for column in contract.present(view, types[view]) if column.optional),
        )
        for view, statement in statements.items()
    ]


def _definition(statement: Statement, source: Source) -> str:
    """The mark of what a view reads, whatever the types."""
    return _mark(_select(statement, source, ANY_TYPES, "String", ZoneInfo("UTC")))


def types_of(db: ClickHouse, source: Source, statements: Mapping[str, Statement]) -> dict[str, dict[str, str]] | None:
    """The checked types of each statement's columns, by view; None if the account may not read the source.

    Raises:
        SourceError: a statement does not have the columns of its view, or has an optional one that the other lacks.
        ClickHouseError: no server answers.
    """
    try:
        types = {view: _types(db, source, statement) for view, statement in statements.items()}
    except ClickHouseError as error:
        if error.code != ACCESS_DENIED:
            raise
        return None
    for view, statement in statements.items():
        contract.check(statement, types[view])
    contract.check_together(statements, types)
    return types


def ids_of(types: Mapping[str, Mapping[str, str]]) -> str:
    """The type that holds the ids of both views."""
    return contract.id_type(
        types[view][name] for view in types for name in ("user_id", "receiver_id") if name in types[view]
    )


def _mark(select: str) -> str:
    return hashlib.sha256(select.encode()).hexdigest()[:12]


def _types(db: ClickHouse, source: Source, statement: Statement) -> dict[str, str]:
    try:
        described = db.read(f"describe table ({in_database(statement, source)})")
    except ClickHouseError as error:
        if error.code in (None, ACCESS_DENIED):
            raise
        unknown = re.search(r"[`'](?:\w+\.)?(\w+)[`']", str(error))
        place = statement.place_of(unknown[1]) if unknown else statement.place
        raise SourceError(f"{place}: {statement.view} cannot be read. {error}") from None
    return dict(zip(described["name"], described["type"], strict=True))


def in_database(statement: Statement, source: Source) -> str:
    """The SELECT of a statement over the app's database."""
    return statement.select.replace("{source}", quoted(source.database))  # ClickHouse cannot bind the name here


def _select(statement: Statement, source: Source, types: Mapping[str, str], ids: str, server: ZoneInfo) -> str:
    """The SELECT of a view."""
    columns = contract.CONTRACT[statement.view]
    at = moment("actions.time", contract.plain(types["time"]), source.zone, server)
    attributes = [column.name for column in contract.present(statement.view, types) if column.kind == "attribute"]
    hashes = "".join(f",\n        ifNull(cityHash64(actions.{name}), 0)" for name in attributes)
    lines = []
    for column in columns:
        name = f"actions.{column.name}"
        if column.name not in types:
            lines.append(f"'' as {column.name}")
        elif column.kind == "id":
            # An integer that does not fit, since the source's type became wider, is an error and not another user.
            cast = (
                f"accurateCast(assumeNotNull({name}), '{ids}')" if "Int" in ids else f"to{ids}(assumeNotNull({name}))"
            )
            lines.append(f"{cast} as {column.name}")
        elif column.kind == "moment":
            lines.append(f"{at} as time")
        elif column.kind == "action":
            # An Enum that lacks a name cannot be compared with it.
            enum = contract.plain(types[column.name]).startswith("Enum")
            lines.append(f"{f'toString({name})' if enum else name} as {column.name}")
        else:
            lines.append(f"ifNull(toString({name}), '') as {column.name}")
    lines.append(f"cityHash64(\n        '{statement.view.removesuffix('_events')}'{hashes}\n    ) as attributes")
    since_1970 = f"toUnixTimestamp64Nano(toDateTime64(assumeNotNull({at}), 9))"
    lines.append(f"bitShiftLeft(toUInt128({since_1970}), 64) + attributes as latest")
    # The user, what was done or to whom, and in `latest` the moment and the attributes.
    what = "ifNull(cityHash64(action), 0)" if statement.view == "feed_events" else "receiver_id"
    lines += [f"cityHash64(user_id, {what}, latest) as row_hash", f"xxHash64(user_id, {what}, latest) as second_hash"]
    there = " and ".join(f"actions.{column.name} is not null" for column in columns if column.kind == "id")
    listed = ",\n    ".join(lines)
    return f"select\n    {listed}\nfrom (\n{in_database(statement, source)}\n) as actions\nwhere {there}"


def moment(column: str, kind: str, zone: ZoneInfo | None, server: ZoneInfo) -> str:
    """The instant that a column of this type means."""
    if kind in ("UInt32", "Int32"):
        return f"toDateTime({column})"
    if zone is None or "'" in kind:  # the type names its zone
        return column
    seconds = _constant_distance(zone, server)
    if seconds is not None:
        return f"{column} - {seconds}" if seconds else column
    clock = column if server.key == "UTC" else f"fromUTCTimestamp({column}, '{server.key}')"
    return f"toUTCTimestamp({clock}, '{zone.key}')"


def _constant_distance(zone: ZoneInfo, server: ZoneInfo) -> int | None:
    """How many seconds a zone's clocks are ahead of the server's, if that has not changed since `SINCE`."""
    days = (datetime.now(UTC) + timedelta(days=800) - SINCE).days
    moments = (SINCE + timedelta(days=number) for number in range(0, days))
    found = {
        int((moment.astimezone(zone).utcoffset() - moment.astimezone(server).utcoffset()).total_seconds())  # type: ignore[operator]
        for moment in moments
    }
    return found.pop() if len(found) == 1 else None
