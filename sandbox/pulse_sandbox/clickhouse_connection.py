"""One connection of chDB: the settings of a statement, and the data of an INSERT."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from pulse_sandbox.clickhouse_query import QueryError, quote

_CHUNK = 1 << 20  # bytes


class Answer(Protocol):
    """What chDB returns for a statement."""

    def bytes(self) -> bytes:
        """The result in the format that was asked for."""
        ...

    def size(self) -> int:
        """The size of the result in bytes."""
        ...

    def rows_read(self) -> int:
        """The number of rows in the result."""
        ...

    def storage_rows_read(self) -> int:
        """The number of rows read from tables."""
        ...

    def storage_bytes_read(self) -> int:
        """The number of bytes read from tables."""
        ...

    def rows_written(self) -> int:
        """The number of rows written."""
        ...

    def bytes_written(self) -> int:
        """The number of bytes written."""
        ...


class Connection(Protocol):
    """A connection of chDB, which has no types of its own."""

    _conn: Any

    def query(self, query: str | bytes, format: str = ..., params: Mapping[str, str] | None = ...) -> Answer:  # noqa: A002
        """Run one statement."""
        ...

    def send_insert(self, query: str, format: str) -> AbstractContextManager[Any]:  # noqa: A002
        """Open a stream for the data of an INSERT."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@contextmanager
def statement_settings(connection: Connection, wanted: Mapping[str, str], *, restore: bool) -> Iterator[None]:
    """Apply settings for the length of the block.

    Args:
        connection: the connection.
        wanted: the settings by name; `database` is one of them here.
        restore: whether to put the earlier settings back, which a connection needs that is used again.
    """
    if not wanted:
        yield
        return
    before = {}
    if restore:
        sql = "SELECT name, value, changed FROM system.settings WHERE has({names:Array(String)}, name)"
        names = "[" + ",".join(quote(name) for name in wanted) + "]"
        rows = json.loads(connection.query(sql, "JSONCompact", params={"names": names}).bytes())["data"]
        before = {name: quote(value) if changed else "DEFAULT" for name, value, changed in rows}
    try:
        if "database" in wanted:  # first, because values bound to a query replace those that were set
            connection.query("USE {name:Identifier}", params={"name": wanted["database"]})
        set_values(connection, {name: quote(value) for name, value in wanted.items() if name != "database"})
        yield
    finally:
        set_values(connection, before)


def set_values(connection: Connection, values: Mapping[str, str]) -> None:
    """Set settings to values that are already written as SQL."""
    if values:
        connection.query("SET " + ", ".join(f"{name} = {value}" for name, value in values.items()))


def insert(connection: Connection, sql: str, data_format: str, data: Sequence[bytes]) -> tuple[int, int]:
    """Insert the data that a client sent: all of it, or nothing and the engine's error.

    If the table itself refuses rows (too many partitions, a constraint, a materialized view), chDB's stream drops them
    and reports success. So the stream fills a table in memory, and a second statement, whose errors are reported,
    copies its rows.

    Returns:
        The rows and the bytes written.
    """
    # The statement is quoted and not bound: bound values would replace those that were set for the INSERT.
    written = connection.query(f"SELECT formatQuerySingleLine({quote(f'{sql} FORMAT Null')})", "RawBLOB")
    into = _INTO.match(written.bytes().decode())
    if not into:
        return stream(connection, sql, data_format, data)
    connection.query(f"CREATE TEMPORARY TABLE {_SENT} ({_columns(connection, into['table'])})")
    try:
        columns, settings = into["columns"] or "", into["settings"] or ""
        rows, _ = stream(connection, f"INSERT INTO {_SENT} {columns} {settings}", data_format, data)
        if int(connection.query(f"SELECT count() FROM {_SENT}").bytes()) != rows:  # noqa: S608
            raise QueryError(1002, "UNKNOWN_EXCEPTION", f"The engine lost rows of the insert into {into['table']}.")
        copy = f"INSERT INTO {into['table']} {columns} {settings} SELECT {columns[1:-1] or '*'} FROM {_SENT}"  # noqa: S608
        done = connection.query(copy)
        return done.rows_written(), done.bytes_written()
    finally:
        connection.query(f"DROP TEMPORARY TABLE {_SENT}")


_SENT = "sent_by_the_client"
_NAME = r"(?:`(?:[^`\\]|\\.)*`|\{[^}]*\}|\w+)"
_INTO = re.compile(
    rf"INSERT INTO (?!FUNCTION\b)(?P<table>{_NAME}(?:\.{_NAME})?)"
    r"(?: (?P<columns>\(.*?\)))?(?: (?P<settings>SETTINGS .*))? FORMAT Null$"
)


def _columns(connection: Connection, table: str) -> str:
    """A table's columns as CREATE takes them, without its constraints, keys and codecs."""
    rows = json.loads(connection.query(f"DESCRIBE TABLE {table}", "JSONCompact").bytes())["data"]
    return ", ".join(f"{quote(name, '`')} {kind} {default} {value}" for name, kind, default, value, *_ in rows)


def stream(connection: Connection, sql: str, data_format: str, data: Sequence[bytes]) -> tuple[int, int]:
    """Insert data through chDB's stream.

    Returns:
        The rows and the bytes written.
    """
    with connection.send_insert(sql, data_format) as target:
        for piece in data:
            for start in range(0, len(piece), _CHUNK):
                target.append(piece[start : start + _CHUNK])
        done = target.finish()
    return done.rows_written, done.bytes_written
