"""The engine of the sandbox's ClickHouse: chDB on one data folder, for many requests at once.

The engine runs as one user with two roles, and every connection begins with both. A connection for the reader drops to
the role `viewer` and to the settings of the user that `dashboards/reader.sql` creates in a real ClickHouse, `readonly =
2` among them: it has that user's grants and no others, and no table function that reaches outside. The engine enforces
both. Such a connection runs only single statements that the engine's own parser classifies as reading, so it cannot
take the other role back.

What nobody may do, whatever the role, is in `clickhouse_rights`.
"""

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_sandbox import SandboxError, clickhouse_connection
from pulse_sandbox.clickhouse_connection import Connection
from pulse_sandbox.clickhouse_query import Query, QueryError, Result, tsv
from pulse_sandbox.clickhouse_rights import documented_rights, keep_inside, literally, refuse_outside, write_config

TIMEZONE = "UTC"
"""The server's time zone, used for columns that name none."""

_WORKERS = 8  # how many statements run at once; the others wait

_OUTPUT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)
_SET = re.compile(rb"\s*(SET|USE)\b", re.IGNORECASE)


@dataclass
class _Session:
    connection: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)
    expires: float = float("inf")


class Engine:
    """chDB on one data folder. Each request has a connection, which is kept only for a session.

    Args:
        folder: the data folder, which is created if it is missing.
        databases: the project's database and the app's; both are created.
        reader: the user who may read what `dashboards/reader.sql` grants in the project's database.
        prefix: what the names of the project's tables begin with.

    Raises:
        SandboxError: the folder cannot be opened.
    """

    def __init__(self, folder: Path, databases: Sequence[str], reader: str, prefix: str = "") -> None:
        # The engine reads its time zone once, while it is loaded: so it is imported only now.
        os.environ["TZ"] = TIMEZONE
        time.tzset()
        import chdb

        self.version = chdb.engine_version
        self._chdb: Any = chdb  # it has no types
        self._path, self._reader = str(folder), reader
        grants, self._reader_settings = documented_rights(databases[0], prefix)
        self._workers = ThreadPoolExecutor(_WORKERS, "query")
        self._lock = threading.Lock()
        self._running: dict[str, Query] = {}
        self._stopping = False
        self._sessions: dict[tuple[str, str], _Session] = {}
        try:
            # The engine lives as long as it has a connection.
            self._keeper: Connection = self._chdb.connect(f"{folder}?config-file={write_config(folder, grants)}")
        except (RuntimeError, OSError) as error:
            raise SandboxError(
                f"The engine cannot open {folder}: {error} Give another folder, or remove this one."
            ) from None
        for database in databases:
            self._keeper.query(f"CREATE DATABASE IF NOT EXISTS `{database}` ENGINE = Atomic")

    def start(self, query: Query) -> Future[Result]:
        """Run a statement as soon as a worker is free.

        Returns:
            The result to come; a QueryError if the engine, or a rule of the sandbox, refuses the statement.
        """
        return self._workers.submit(self._run, query)

    def cancel(self, query: Query) -> None:
        """Stop a running statement if it only reads."""
        with self._lock:  # so that its worker does not begin another statement meanwhile
            if query.reads and self._running.get(query.id) is query:
                self._keeper.query(f"KILL QUERY WHERE has(thread_ids, {query.thread}) ASYNC")

    def cancel_all(self) -> None:
        """Cancel all running statements, wait up to a second for them to end, and start no others."""
        with self._lock:
            self._stopping = True
        deadline = time.monotonic() + 1
        while self._running and time.monotonic() < deadline:
            self._keeper.query("KILL QUERY WHERE 1 ASYNC")
            time.sleep(0.05)

    def close(self) -> bool:
        """Close the folder. Returns False, and closes nothing, if a statement is still running."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        if self._running:
            return False
        for session in self._sessions.values():
            session.connection.close()
        self._keeper.close()
        return True

    def _run(self, query: Query) -> Result:
        query.thread = threading.get_native_id()
        with self._lock:
            if self._stopping:
                raise QueryError(394, "QUERY_WAS_CANCELLED", "The sandbox stops.")
            if query.id in self._running:
                message = f"Query with id = {query.id} is already running."
                raise QueryError(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", message)
            self._running[query.id] = query
        try:
            with self._connection(query) as connection:
                return self._execute(connection, query)
        except RuntimeError as error:
            raise _as_a_server_says(QueryError.of(error)) from None
        finally:
            with self._lock:
                del self._running[query.id]

    @contextmanager
    def _connection(self, query: Query) -> Iterator[Connection]:
        if not query.session or query.tables:
            with closing(self._connect(query)) as connection:
                yield connection
            return
        session = self._session(query)
        try:
            yield session.connection
        finally:
            session.expires = time.monotonic() + query.session_seconds
            session.lock.release()

    def _connect(self, query: Query) -> Connection:
        if query.tables and query.user == self._reader:
            # The structure of a table is SQL, which would run with the owner's rights.
            raise QueryError(164, "READONLY", f"{query.user}: Cannot send external tables in readonly mode.")
        # chDB's shell accepts a bare expression as a statement; a server does not.
        connection: Connection = self._chdb.connect(f"{self._path}?implicit_select=0&allow_introspection_functions=0")
        for table in query.tables:
            refuse_outside(query.user, table.structure)
            clickhouse_connection.set_values(connection, literally(table.format, [table.data]))
            connection.query(f"CREATE TEMPORARY TABLE `{table.name}` ({table.structure})")
            clickhouse_connection.stream(connection, f"INSERT INTO `{table.name}`", table.format, [table.data])
        if query.user == self._reader:
            connection.query(f"SET ROLE viewer; SET {self._reader_settings}")
        return connection

    def _session(self, query: Query) -> _Session:
        """Return the session that a request names, locked for this request; close the sessions that have expired."""
        key = (query.user, query.session)
        with self._lock:
            now = time.monotonic()
            for old in [k for k, s in self._sessions.items() if s.expires < now and not s.lock.locked()]:
                self._sessions.pop(old).connection.close()
            session = self._sessions.get(key)
            if session is None:
                if query.session_must_exist:
                    raise QueryError(372, "SESSION_NOT_FOUND", f"Session {query.session} not found.")
                session = self._sessions[key] = _Session(self._connect(query))
            if not session.lock.acquire(blocking=False):
                raise QueryError(373, "SESSION_IS_LOCKED", f"Session {query.session} is locked by a concurrent client.")
            return session

    def _execute(self, connection: Connection, query: Query) -> Result:
        whole = query.sql + b" FORMAT " + query.insert_format.encode() if query.insert_format else query.sql
        report = connection._conn.classify_query(whole)
        kind = report["query_class"].name
        if report["statement_count"] != 1:
            # This raises the engine's syntax error. chDB itself would run the statements before the wrong one.
            connection.query("SELECT formatQuery({sql:String})", params={"sql": tsv(whole)})
            raise QueryError(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed).")
        self._check_rights(connection, query, kind, whole)
        query.reads = kind == "READ_ONLY"
        # What a client's SET or USE changes must stay changed.
        laid_down = {} if kind == "CONTROL" else query.settings
        if query.insert_format:  # values cannot be bound to a stream of data, but they can be set
            laid_down = laid_down | {f"param_{name}": value for name, value in query.params.items()}
            laid_down = laid_down | literally(query.insert_format, query.data)
        started = time.perf_counter()
        with clickhouse_connection.statement_settings(connection, laid_down, restore=bool(query.session)):
            if query.insert_format:
                rows, size = clickhouse_connection.insert(
                    connection, query.sql.decode(), query.insert_format, query.data
                )
                return Result(b"", query.output_format, _summary(started, written_rows=rows, written_bytes=size))
            result = connection.query(query.sql, query.output_format, params=query.params)
        summary = _summary(
            started,
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            result_rows=result.rows_read(),
            result_bytes=result.size(),
        )
        named = _OUTPUT.search(query.sql)
        return Result(result.bytes(), named[1].decode() if named else query.output_format, summary)

    def _check_rights(self, connection: Connection, query: Query, kind: str, whole: bytes) -> None:
        reader = query.user == self._reader
        may = kind == "READ_ONLY" or (not reader and kind == "CONTROL" and _SET.match(query.sql))
        if (query.read_only or reader) and not may:
            hint = "" if reader else " GET implies readonly; use POST for modifying queries."
            raise QueryError(164, "READONLY", f"{query.user}: Cannot execute query in readonly mode.{hint}")
        keep_inside(connection, query, whole)


def _as_a_server_says(error: QueryError) -> QueryError:
    """Report a missing table as a server does; the engine takes its name for a file's and refuses access."""
    if error.name == "ACCESS_DENIED" and "READ ON FILE" in str(error):
        return QueryError(60, "UNKNOWN_TABLE", "There is no such table in the current database.")
    return error


def _summary(started: float, **figures: int) -> dict[str, str]:
    names = "read_rows read_bytes written_rows written_bytes total_rows_to_read result_rows result_bytes"
    elapsed = {"elapsed_ns": str(int((time.perf_counter() - started) * 1e9))}
    return {name: str(figures.get(name, 0)) for name in names.split()} | elapsed
