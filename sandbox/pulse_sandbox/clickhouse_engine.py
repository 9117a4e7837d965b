"""The engine of the sandbox's ClickHouse: chDB on one data folder, for many requests at once.

Users. The engine runs as one user with two roles, and a connection has both. One for the reader drops to the role
`viewer` and to the settings, `readonly = 2` among them, of the user that `dashboards/reader.sql` makes in a ClickHouse
of one's own: its grants and no others, and no table function that reaches outside. Both are enforced by the engine. It
runs only single statements that the engine's own parser classifies as reading, so it cannot take the other role back.

Nobody reaches outside: neither role may read or write files, addresses or other servers, in functions or in tables
(`_OWNER`). What no grant covers here, such as the function `file`, is refused by name in the statement as the engine
itself writes it back (`_OUTSIDE`), in the names that are bound to it, and in the expressions among an INSERT's values.
"""

import json
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

from pulse.settings import ROOT
from pulse_sandbox import SandboxError

READER = ROOT / "dashboards" / "reader.sql"
TIMEZONE = "UTC"  # the server's, in which columns without one are read
_WORKERS = 8  # statements at once; the others wait for a place
_CHUNK = 1 << 20

_USERS = """<clickhouse>
  <profiles><default>
    <max_threads>{threads}</max_threads><max_memory_usage>{query_memory}</max_memory_usage>
  </default></profiles>
  <roles>
    <owner><grants>{owner}</grants></owner>
    <viewer><grants>{viewer}</grants></viewer>
  </roles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT owner</query><query>GRANT viewer</query></grants>
  </default></users>
  <quotas><default></default></quotas>
</clickhouse>
"""
# Everything but sources (files, addresses, other servers), backups and users.
_ENGINES = """MergeTree ReplacingMergeTree SummingMergeTree AggregatingMergeTree CollapsingMergeTree
    VersionedCollapsingMergeTree Memory Log TinyLog StripeLog Null Set Join Buffer Merge Dictionary GenerateRandom View
    MaterializedView"""
_OWNER = (
    "GRANT SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, KILL QUERY, SYSTEM, dictGet, "
    "INTROSPECTION, SET DEFINER ON *.*",
    *(f"GRANT TABLE ENGINE ON {engine}" for engine in _ENGINES.split()),
)
_CONFIG = """<clickhouse>
  <users_config>{users}</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <access_control_improvements><table_engines_require_grant>true</table_engines_require_grant></access_control_improvements>
</clickhouse>
"""


class QueryError(Exception):
    """An error as ClickHouse tells it: `Code: 62. DB::Exception: … (SYNTAX_ERROR)`."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code, self.name = code, name

    @classmethod
    def of(cls, error: Exception) -> "QueryError":
        """The engine's error without the repetitions that chDB wraps around it."""
        text = str(error)
        found = re.search(r"(?s)Code: (\d+)\. DB::Exception: (?:Code: \d+\. DB::Exception: )*(.*)", text)
        if not found:
            return cls(1001, "STD_EXCEPTION", text)
        message = re.split(r" \([A-Z][A-Z0-9_]{3,}\)(?= \(version |\.? ?\(|$)", found[2].strip())[0]
        names = re.findall(r"\(([A-Z][A-Z0-9_]{3,})\)", found[2])
        return cls(int(found[1]), names[-1] if names else "UNKNOWN_EXCEPTION", message)


@dataclass(frozen=True)
class Table:
    """A temporary table that comes with a request."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass
class Query:
    """One statement with what a request lays down for it."""

    user: str
    id: str
    sql: bytes
    data: list[bytes]
    insert_format: str  # of `data`; empty when there is none
    output_format: str
    params: dict[str, str]
    settings: dict[str, str]  # for this statement only; `database` is one to the engine
    tables: list[Table]
    read_only: bool
    session: str
    session_must_exist: bool
    session_seconds: int  # 0: closed after this statement
    thread: int = 0  # the worker that runs it, once one does
    reads: bool = False  # it only reads, so nothing is lost when it is cancelled


@dataclass(frozen=True)
class Result:
    """What a statement gave, and the figures of the header X-ClickHouse-Summary."""

    body: bytes
    format: str
    summary: dict[str, str]


@dataclass
class _Session:
    connection: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    expires: float = float("inf")


class Engine:
    """chDB on one data folder: a connection per request, kept only for a session.

    Args:
        folder: created if missing.
        databases: the project's and the app's, which exist from the start.
        reader: the user who may read what `dashboards/reader.sql` grants in the first of them.

    Raises:
        SandboxError: the folder cannot be opened.
    """

    def __init__(self, folder: Path, databases: Sequence[str], reader: str) -> None:
        os.environ["TZ"] = TIMEZONE  # the engine reads it once, when it is loaded
        time.tzset()
        import chdb

        self.version = chdb.engine_version
        self._chdb, self._path, self._reader = chdb, str(folder), reader
        grants, self._reader_settings = _documented(databases[0])
        self._workers = ThreadPoolExecutor(_WORKERS, "query")
        self._lock = threading.Lock()
        self._running: dict[str, Query] = {}
        self._stopping = False
        self._sessions: dict[tuple[str, str], _Session] = {}
        try:
            # The engine lives as long as one connection does.
            self._keeper = chdb.connect(f"{folder}?config-file={_write_config(folder, grants)}")
        except (RuntimeError, OSError) as error:
            raise SandboxError(
                f"The engine cannot open {folder}: {error} Give another folder, or remove this one."
            ) from None
        for database in databases:
            self._keeper.query(f"CREATE DATABASE IF NOT EXISTS `{database}` ENGINE = Atomic")

    def start(self, query: Query) -> "Future[Result]":
        """Run a statement as soon as a worker is free; a QueryError when the engine, or a rule here, refuses it."""
        return self._workers.submit(self._run, query)

    def cancel(self, query: Query) -> None:
        """Stop a running statement if it only reads."""
        with self._lock:  # keeps its worker from going on to another one meanwhile
            if query.reads and self._running.get(query.id) is query:
                self._keeper.query(f"KILL QUERY WHERE has(thread_ids, {query.thread}) ASYNC")

    def cancel_all(self) -> None:
        """Cancel what runs, wait a moment for it to end, and begin nothing more."""
        with self._lock:
            self._stopping = True
        deadline = time.monotonic() + 1
        while self._running and time.monotonic() < deadline:
            self._keeper.query("KILL QUERY WHERE 1 ASYNC")
            time.sleep(0.05)

    def close(self) -> bool:
        """Close the folder; False, with nothing closed, when a statement is still running."""
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
    def _connection(self, query: Query) -> Iterator[Any]:
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

    def _connect(self, query: Query) -> Any:
        if query.tables and query.user == self._reader:
            # Their structure is a piece of SQL, which would run with the rights of the owner.
            raise QueryError(164, "READONLY", f"{query.user}: Cannot send external tables in readonly mode.")
        # A server reads no bare expressions as statements; chDB's shell does.
        connection = self._chdb.connect(f"{self._path}?implicit_select=0&allow_introspection_functions=0")
        for table in query.tables:
            _refuse_outside(query.user, table.structure)
            _set(connection, _literally(table.format, [table.data]))
            connection.query(f"CREATE TEMPORARY TABLE `{table.name}` ({table.structure})")
            _stream(connection, f"INSERT INTO `{table.name}`", table.format, [table.data])
        if query.user == self._reader:
            connection.query(f"SET ROLE viewer; SET {self._reader_settings}")
        return connection

    def _session(self, query: Query) -> _Session:
        """The session a request names, locked for it; sessions whose time is over are closed on the way."""
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

    def _execute(self, connection: Any, query: Query) -> Result:
        whole = query.sql + b" FORMAT " + query.insert_format.encode() if query.insert_format else query.sql
        report = connection._conn.classify_query(whole)
        kind = report["query_class"].name
        if report["statement_count"] != 1:
            # The engine's syntax error. Were the statements run, chDB would do those before the wrong one.
            connection.query("SELECT formatQuery({sql:String})", params={"sql": _tsv(whole)})
            raise QueryError(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed).")
        self._check_rights(connection, query, kind, whole)
        query.reads = kind == "READ_ONLY"
        # What a SET or USE by the client changes is not to be taken back after it.
        laid = {} if kind == "CONTROL" else query.settings
        if query.insert_format:  # a stream of data takes no values to bind; they may be set
            laid = laid | {f"param_{name}": value for name, value in query.params.items()}
            laid = laid | _literally(query.insert_format, query.data)
        started = time.perf_counter()
        with _settings(connection, laid, restore=bool(query.session)):
            if query.insert_format:
                rows, size = _insert(connection, query.sql.decode(), query.insert_format, query.data)
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

    def _check_rights(self, connection: Any, query: Query, kind: str, whole: bytes) -> None:
        reader = query.user == self._reader
        may = kind == "READ_ONLY" or (not reader and kind == "CONTROL" and _SET.match(query.sql))
        if (query.read_only or reader) and not may:
            hint = "" if reader else " GET implies readonly; use POST for modifying queries."
            raise QueryError(164, "READONLY", f"{query.user}: Cannot execute query in readonly mode.{hint}")
        self._keep_inside(connection, query, whole)

    def _keep_inside(self, connection: Any, query: Query, whole: bytes) -> None:
        """Refuse what reaches outside, however it is spelled and wherever in the request it stands."""
        texts = [*query.settings, *(query.params.get(name.decode(), "") for name in _BOUND.findall(whole))]
        raw = whole.decode(errors="replace")
        if _SUSPECT.search(raw):  # else there is nothing to find, and nothing to ask the engine
            answer = connection.query("SELECT formatQuery({sql:String})", "RawBLOB", params={"sql": _tsv(whole)})
            written = answer.bytes().decode(errors="replace")
            texts.append(_QUOTED.sub(lambda found: "''" if found[0][0] == "'" else found[0], written))
        for text in texts:
            _refuse_outside(query.user, text)


def _as_a_server_says(error: QueryError) -> QueryError:
    """The engine takes a table that is not there for the name of a file, and says that it may not be read."""
    if error.name == "ACCESS_DENIED" and "READ ON FILE" in str(error):
        return QueryError(60, "UNKNOWN_TABLE", "There is no such table in the current database.")
    return error


def _literally(form: str, data: list[bytes]) -> dict[str, str]:
    """The settings under which an INSERT's values are no expressions, where they may hold one that reaches outside."""
    if form.lower() != "values" or not any(_SUSPECT.search(piece.decode(errors="replace")) for piece in data):
        return {}
    names = ("interpret_expressions", "deduce_templates_of_expressions")
    return {f"input_format_values_{name}": "0" for name in names}


def _refuse_outside(user: str, text: str) -> None:
    found = _OUTSIDE.search(text)
    if found or _ESCAPED.search(text):
        what = f"use `{found[0].split()[-1]}`: it reaches out of the sandbox" if found else "write names with \\"
        raise QueryError(497, "ACCESS_DENIED", f"{user}: Not enough privileges to {what}.")


# What reaches out of the engine and no grant covers in chDB: functions and clauses that read or write files, settings
# whose values are expressions, paths or addresses, and where dictionaries, databases and tables may come from.
_WORDS = (
    r"file|python|arrowstream|executable|catboostEvaluate|infile|outfile|dialect|additional_\w*filters?|format_schema\w*"
    r"|format_template\w*|format_avro_schema_registry_url|parallel_replicas_custom_key\w*"
    r"|input_format_values_\w+"
)
_PLACES = (
    r"disk\s*\(|create\s+database\b.*\bengine\s*=\s*(?!atomic|memory)\w+|attach\b.*\bfrom\b"
    r"|dictionary\b.*\bsource\s*\(\s*(?!null\b|clickhouse\s*\((?!.*\bhost\b))\w+"
)
_OUTSIDE = re.compile(rf"\b(?:(?:{_WORDS})\b|{_PLACES})", re.IGNORECASE | re.DOTALL)
_SUSPECT = re.compile(rf"\\|{_WORDS}|disk|engine|attach|source", re.IGNORECASE)  # what may be one, before it is read
_BOUND = re.compile(rb"\{\s*(\w+)\s*:\s*Identifier\s*\}", re.IGNORECASE)  # names that come as parameters
_ESCAPED = re.compile(r"\\")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
_OUTPUT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)
_SET = re.compile(rb"\s*(SET|USE)\b", re.IGNORECASE)


def _documented(database: str) -> tuple[list[str], str]:
    """What `dashboards/reader.sql` grants the reader, for this database; and its settings."""
    text = READER.read_text()
    granted = re.findall(r"^grant (\w+) on pulse\.(\w+) to pulse_reader;", text, re.MULTILINE)
    laid_down = re.search(r"^settings (.+);", text, re.MULTILINE)
    if not granted or not laid_down:
        raise SandboxError(
            f"{READER} has no grants or no settings in the form that the sandbox reads; see its history."
        )
    return [f"GRANT {right} ON `{database}`.{table}" for right, table in granted], laid_down[1]


def _write_config(folder: Path, grants: Sequence[str]) -> Path:
    """The engine's configuration, beside its data. Memory is bounded so that a demo cannot take the machine down."""
    folder.mkdir(exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    users, config = folder / "users.xml", folder / "config.xml"
    values = {"threads": os.cpu_count() or 1, "query_memory": memory * 2 // 5}
    values["owner"] = "".join(f"<query>{grant}</query>" for grant in _OWNER)
    values["viewer"] = "".join(f"<query>{grant}</query>" for grant in grants)
    users.write_text(_USERS.format(**values))
    config.write_text(_CONFIG.format(users=users, memory=memory // 2))
    return config


@contextmanager
def _settings(connection: Any, wanted: dict[str, str], *, restore: bool) -> Iterator[None]:
    """Settings for the length of the block; `restore` for a connection that others will use after it."""
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
        if "database" in wanted:  # first: the values bound to a query replace those that were set
            connection.query("USE {name:Identifier}", params={"name": wanted["database"]})
        _set(connection, {name: quote(value) for name, value in wanted.items() if name != "database"})
        yield
    finally:
        _set(connection, before)


def _set(connection: Any, values: dict[str, str]) -> None:
    if values:
        connection.query("SET " + ", ".join(f"{name} = {value}" for name, value in values.items()))


def _insert(connection: Any, sql: str, form: str, data: list[bytes]) -> tuple[int, int]:
    """Insert what a client sent, all of it or with the engine's error.

    chDB's stream answers success, and drops the rows, when the table itself refuses them: too many partitions, a
    constraint, a materialized view. So the stream fills a table in memory, and a statement of its own, whose errors
    are told, copies that one.
    """
    # Not as a bound value: those replace the values that were set for the statement.
    written = connection.query(f"SELECT formatQuerySingleLine({quote(f'{sql} FORMAT Null')})", "RawBLOB")
    into = _INTO.match(written.bytes().decode())
    if not into:
        return _stream(connection, sql, form, data)
    connection.query(f"CREATE TEMPORARY TABLE {_SENT} ({_columns(connection, into['table'])})")
    try:
        columns, settings = into["columns"] or "", into["settings"] or ""
        rows, _ = _stream(connection, f"INSERT INTO {_SENT} {columns} {settings}", form, data)
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


def _columns(connection: Any, table: str) -> str:
    """A table's columns as CREATE takes them, without its constraints, keys and codecs."""
    rows = json.loads(connection.query(f"DESCRIBE TABLE {table}", "JSONCompact").bytes())["data"]
    return ", ".join(f"{quote(name, '`')} {kind} {default} {value}" for name, kind, default, value, *_ in rows)


def _stream(connection: Any, sql: str, form: str, data: list[bytes]) -> tuple[int, int]:
    with connection.send_insert(sql, form) as stream:
        for piece in data:
            for start in range(0, len(piece), _CHUNK):
                stream.append(piece[start : start + _CHUNK])
        done = stream.finish()
    return done.rows_written, done.bytes_written


def _summary(started: float, **figures: int) -> dict[str, str]:
    names = "read_rows read_bytes written_rows written_bytes total_rows_to_read result_rows result_bytes"
    elapsed = {"elapsed_ns": str(int((time.perf_counter() - started) * 1e9))}
    return {name: str(figures.get(name, 0)) for name in names.split()} | elapsed


def _tsv(text: bytes) -> str:
    """A parameter's value is in the escaped form of TabSeparated."""
    escaped = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
    return text.decode(errors="replace").translate(escaped)


def quote(value: str, mark: str = "'") -> str:
    """A string literal of ClickHouse; with a backtick for a mark, a name."""
    return mark + value.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark


# --- the data of an INSERT -------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    rb"\s+|--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|(?P<word>[A-Za-z_]\w*)|.",
    re.DOTALL,
)
_FORMAT = re.compile(rb"\s+(\w+)[ \t\f]*(?:\r?\n)?")


def split_insert(sql: bytes) -> tuple[bytes, str, bytes] | None:
    """An INSERT with data as statement, format and data; None for anything else.

    The engine is given the data apart, because within a statement it ends the data at the first empty line.
    """
    depth, first, before = 0, True, b""
    for token in _TOKEN.finditer(sql):
        text, word = token[0], (token["word"] or b"").upper()
        if text.isspace() or text.startswith((b"--", b"/*")):
            continue
        if first and word != b"INSERT":
            return None
        first = False
        depth += (text == b"(") - (text == b")")
        if depth == 0 and before != b".":
            if word == b"VALUES":
                return sql[: token.start()], "Values", sql[token.end() :]
            if word == b"FORMAT" and (name := _FORMAT.match(sql, token.end())):
                return sql[: token.start()], name[1].decode(), sql[name.end() :]
            if word in (b"SELECT", b"WITH", b"FROM", b"WATCH"):
                return None
        before = text
    return None
