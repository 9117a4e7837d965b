"""The sandbox's ClickHouse: the chDB engine behind ClickHouse's HTTP interface, on loopback.

    python -m pulse.sandbox.clickhouse --data DIR --port PORT

One process owns a data folder and serves it until SIGTERM. Every answer carries the header `X-Pulse-Sandbox`, and
`GET /sandbox` tells the process and its folder, so that nobody takes a real ClickHouse for a sandbox.

Users. The engine runs as one user with two roles. `pulse` holds both. A connection for `reader` drops to the role
`viewer` (SELECT on the project's database; no table function that reaches outside) and to `readonly = 2`, both enforced
by the engine, and runs only single statements that the engine's own parser classifies as reading, so it cannot take the
other role back. What no grant covers here, the functions that read this machine's files or this process's objects, is
refused by name in the statement as the engine itself writes it back (`_OUTSIDE`).

Differences from a real server: results are sent when complete, so an error never arrives with status 200; a statement's
id is not the engine's own (`system.processes` shows another); `currentUser()` is always `default`; a read is cancelled
when its client goes away; there is no native-protocol compression (`compress=1`), no br and no query log.
"""

import argparse
import asyncio
import contextlib
import fcntl
import gzip
import hmac
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pulse import PulseError, settings
from pulse.sandbox import SandboxError

HOST = "127.0.0.1"
READER, READER_PASSWORD = "reader", "sandbox-reader"
MARK = "X-Pulse-Sandbox"

_SANDBOX = urlsplit(settings.SANDBOX_CLICKHOUSE_URL)
_PASSWORDS = {_SANDBOX.username or "": _SANDBOX.password or "", READER: READER_PASSWORD}
_WORKERS = 8  # statements at once; the others wait for a place
_START, _STOP = 60.0, 10.0  # seconds to wait for a start and for a stop
_SESSION_SECONDS, _SESSION_LIMIT = 60.0, 3600.0  # as the real server's defaults
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Server:
    """A running sandbox."""

    host: str
    port: int
    data: Path
    pid: int

    @property
    def url(self) -> str:
        """Its address for the user who may do everything."""
        return f"http://{_SANDBOX.username}:{_SANDBOX.password}@{self.host}:{self.port}"

    @property
    def reader_url(self) -> str:
        """Its address for the user who may only read the project's database."""
        return f"http://{READER}:{READER_PASSWORD}@{self.host}:{self.port}"


# --- starting and finding one ----------------------------------------------------------------------------------------


def answering(port: int) -> Server | None:
    """The sandbox on this port of this machine; None when nothing, or something else, is there."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/sandbox")
        answer = connection.getresponse()
        if answer.status != 200 or not answer.headers.get(MARK):
            return None
        about = json.loads(answer.read())
        return Server(about["host"], about["port"], Path(about["data"]), about["pid"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


@contextlib.contextmanager
def running(data: Path, port: int | None = None) -> Iterator[Server]:
    """Run a sandbox in a process of its own, on a free port if none is given; it stops with the block.

    Raises:
        SandboxError: the port or the folder is in use, the folder is not writable, or the process did not start.
    """
    command = [sys.executable, "-m", "pulse.sandbox.clickhouse", "--data", str(data), "--port", str(port or 0)]
    with tempfile.TemporaryFile() as complaints:
        # Its standard input is a pipe from here: however this process dies, the sandbox sees the end of it.
        process = subprocess.Popen(
            [*command, "--until-stdin-closes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
        )
        try:
            yield _started(process, complaints, data)
        finally:
            _stop(process)


def _started(process: subprocess.Popen[bytes], complaints: IO[bytes], data: Path) -> Server:
    """Wait for the line by which the process says that it is ready."""
    assert process.stdout is not None
    late = threading.Timer(_START, process.kill)
    late.start()
    line = process.stdout.readline()
    late.cancel()
    if line:
        about = json.loads(line)
        return Server(about["host"], about["port"], Path(about["data"]), about["pid"])
    code = process.wait()
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()
    if code == 1 and len(said) == 1:
        raise SandboxError(said[0])
    raise SandboxError(
        f"The sandbox's ClickHouse did not start on {data} (exit code {code}: {said[-1] if said else 'no message'}); "
        "run `python -m pulse.sandbox.clickhouse --data …` to see why."
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


# --- statements ------------------------------------------------------------------------------------------------------


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

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse's server gives to this error."""
        return _STATUS.get(self.name, 500)


_STATUS = {
    name: status
    for status, names in {
        400: """BAD_ARGUMENTS CANNOT_COMPILE_REGEXP CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE TYPE_MISMATCH
            CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER CANNOT_PARSE_UUID
            CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING CANNOT_PARSE_IPV4 CANNOT_PARSE_IPV6 DUPLICATE_COLUMN ILLEGAL_COLUMN
            CANNOT_PARSE_INPUT_ASSERTION_FAILED UNKNOWN_ELEMENT_IN_AST UNKNOWN_TYPE_OF_AST_NODE THERE_IS_NO_COLUMN
            TOO_DEEP_AST TOO_BIG_AST UNEXPECTED_AST_STRUCTURE SYNTAX_ERROR INCORRECT_DATA
            VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE""",
        401: "REQUIRED_PASSWORD",
        403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE ACCESS_DENIED",
        404: """UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE UNKNOWN_DATABASE
            UNKNOWN_SETTING UNKNOWN_DIRECTION_OF_SORTING UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT
            UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY UNKNOWN_ROLE""",
        408: "TIMEOUT_EXCEEDED",
        413: "QUERY_IS_TOO_LARGE",
        501: "NOT_IMPLEMENTED",
        503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
    }.items()
    for name in names.split()
}

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


def quote(value: str) -> str:
    """A string literal of ClickHouse."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass
class Query:
    """One request, as the engine needs it."""

    user: str
    sql: bytes
    data: list[bytes] = field(default_factory=list)
    insert_format: str = ""
    output_format: str = "TabSeparated"
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    tables: list[tuple[str, str, str, bytes]] = field(default_factory=list)  # name, structure, format, data
    read_only: bool = False
    session: str = ""
    session_must_exist: bool = False
    session_timeout: float = _SESSION_SECONDS  # 0: closed after this statement
    encoding: str = ""  # of the answer
    id: str = ""
    thread: int = 0  # the worker that runs it, once one does
    reads: bool = False  # it only reads, so nothing is lost when it is cancelled


@dataclass
class Result:
    body: bytes | memoryview
    format: str
    summary: dict[str, str]
    owner: Any = None  # keeps the engine's buffer behind `body` alive


# --- the engine ------------------------------------------------------------------------------------------------------

_USERS = """<clickhouse>
  <profiles><default>
    <max_threads>{threads}</max_threads><max_memory_usage>{query_memory}</max_memory_usage>
  </default></profiles>
  <roles>
    <owner><grants><query>GRANT ALL ON *.* WITH GRANT OPTION</query></grants></owner>
    <viewer><grants><query>GRANT SELECT ON {database}.*</query></grants></viewer>
  </roles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT owner</query><query>GRANT viewer</query></grants>
  </default></users>
  <quotas><default></default></quotas>
</clickhouse>
"""
_CONFIG = """<clickhouse>
  <users_config>{users}</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
</clickhouse>
"""
# Functions that reach out of the engine and that no grant covers in chDB; and names that arrive as parameters.
_OUTSIDE = re.compile(r"\b(file|python|arrowstream)\b|:\s*Identifier\b", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_OUTPUT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)
_BLANK = re.compile(rb"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)


class Session:
    """One engine connection, and what the requests have laid over its own settings.

    Settings in a URL hold for their request only. They are taken back when the next request differs, since most clients
    send the same ones every time.
    """

    def __init__(self, connection: Any, kept: bool = False) -> None:
        self.connection = connection
        self.kept = kept
        self.lock = threading.Lock()
        self.expires = float("inf")
        self._own: dict[str, str] = {}
        self._laid: dict[str, str] = {}

    def lay(self, wanted: dict[str, str]) -> None:
        """Make these settings hold, and no others laid before; `database` is one to the engine."""
        if wanted == self._laid:
            return
        if self.kept:
            self._own |= self._read([name for name in {*wanted, "database"} if name not in self._own])
        back = {name: self._own[name] for name in self._laid if name not in wanted and name in self._own}
        values = back | {name: quote(value) for name, value in wanted.items() if name != "database"}
        self._laid |= wanted | {
            "database": ""
        }  # should one of them be refused: equal to nothing that may be wanted next
        if values:
            self.connection.query("SET " + ", ".join(f"{name} = {value}" for name, value in values.items()))
        if "database" in wanted:
            self.connection.query("USE {name:Identifier}", params={"name": wanted["database"]})
        self._laid = dict(wanted)

    def forget(self) -> None:
        """Before a SET or USE by the client: take everything back, and read the values anew next time."""
        self.lay({})
        self._own = {}

    def _read(self, names: list[str]) -> dict[str, str]:
        if not names:
            return {}
        sql = "SELECT name, value, changed FROM system.settings WHERE has({names:Array(String)}, name)"
        listed = "[" + ",".join(quote(name) for name in names) + "]"
        rows = json.loads(self.connection.query(sql, "JSONCompact", params={"names": listed}).bytes())["data"]
        return {name: quote(value) if changed else "DEFAULT" for name, value, changed in rows}


class Engine:
    """chDB on one data folder, for many threads: a connection per request, kept only for a session."""

    def __init__(self, folder: Path, databases: Sequence[str], timezone: str) -> None:
        os.environ["TZ"] = timezone  # the engine's own time zone; it reads it once
        time.tzset()
        import chdb

        self.timezone, self.version = timezone, chdb.engine_version
        self._chdb, self._path = chdb, str(folder)
        self._lock = threading.Lock()
        self._running: dict[str, Query] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        config = _write_config(folder, databases[0])
        # The engine lives as long as one connection does.
        self._keeper = chdb.connect(f"{folder}?config-file={config}")
        for database in databases:
            self._keeper.query(f"CREATE DATABASE IF NOT EXISTS `{database}` ENGINE = Atomic")

    def admit(self, query: Query) -> None:
        """Take note of a statement before it waits for a worker."""
        with self._lock:
            if query.id in self._running:
                message = f"Query with id = {query.id} is already running."
                raise QueryError(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", message)
            self._running[query.id] = query

    def run(self, query: Query) -> Result:
        """Run an admitted statement to its end (in a worker thread).

        Raises:
            QueryError: the engine, or a rule of this module, refuses it.
        """
        try:
            with self._session(query) as session:
                return self._execute(session, query)
        except RuntimeError as error:
            raise QueryError.of(error) from None
        finally:
            self.dismiss(query)

    def dismiss(self, query: Query) -> None:
        """Forget a statement that has ended or never began."""
        with self._lock:
            self._running.pop(query.id, None)

    def cancel(self, query: Query) -> None:
        """Stop a statement if it only reads. The lock keeps its worker from going on to another one meanwhile."""
        with self._lock:
            if query.reads and self._running.get(query.id) is query:
                self._keeper.query(f"KILL QUERY WHERE has(thread_ids, {query.thread}) ASYNC")

    def cancel_all(self) -> None:
        """Cancel what runs, and wait a moment for it to end."""
        deadline = time.monotonic() + 1
        while self._running and time.monotonic() < deadline:
            self._keeper.query("KILL QUERY WHERE 1 ASYNC")
            time.sleep(0.05)

    def stop(self) -> bool:
        """Close; False, with nothing done, when a statement is still running."""
        if self._running:
            return False
        for session in self._sessions.values():
            session.connection.close()
        self._keeper.close()
        return True

    @contextlib.contextmanager
    def _session(self, query: Query) -> Iterator[Session]:
        if not query.session or query.tables:
            session = Session(self._connect(query))
            try:
                yield session
            finally:
                session.connection.close()
            return
        session = self._kept(query)
        try:
            yield session
        finally:
            session.expires = time.monotonic() + query.session_timeout
            session.lock.release()

    def _kept(self, query: Query) -> Session:
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
                session = self._sessions[key] = Session(self._connect(query), kept=True)
            if not session.lock.acquire(blocking=False):
                message = f"Session {query.session} is locked by a concurrent client."
                raise QueryError(373, "SESSION_IS_LOCKED", message)
            session.expires = float("inf")
            return session

    def _connect(self, query: Query) -> Any:
        # A server reads no bare expressions as statements; chDB's shell does.
        connection = self._chdb.connect(f"{self._path}?implicit_select=0&allow_introspection_functions=0")
        for name, structure, form, data in query.tables:
            connection.query(f"CREATE TEMPORARY TABLE `{name}` ({structure})")
            _insert(connection, f"INSERT INTO `{name}`", form, [data])
        if query.user == READER:
            connection.query("SET ROLE viewer; SET readonly = 2")
        return connection

    def _execute(self, session: Session, query: Query) -> Result:
        connection, sql = session.connection, query.sql
        query.thread = threading.get_native_id()
        if _BLANK.fullmatch(sql):
            raise QueryError(62, "SYNTAX_ERROR", "Syntax error: Empty query.")
        whole = sql + b" FORMAT " + query.insert_format.encode() if query.insert_format else sql
        report = connection._conn.classify_query(whole)
        kind = report["query_class"].name
        if report["statement_count"] != 1:
            self._complain(connection, whole)
        query.reads = kind == "READ_ONLY"
        self._check_rights(connection, query, kind)
        if kind == "CONTROL":
            session.forget()
        else:
            session.lay(query.settings)
        started = time.perf_counter()
        if query.insert_format:
            rows, size = self._insert(connection, query)
            return Result(b"", query.output_format, _summary(started, written_rows=rows, written_bytes=size))
        result = connection.query(sql, query.output_format, params=query.params)
        summary = _summary(
            started,
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            result_rows=result.rows_read(),
            result_bytes=result.size(),
        )
        named = _OUTPUT.search(sql)
        form = named[1].decode() if named else query.output_format
        body, owner = _body(result, query.encoding)
        return Result(body, form, summary, owner)

    def _insert(self, connection: Any, query: Query) -> tuple[int, int]:
        if not query.params:
            return _insert(connection, query.sql.decode(), query.insert_format, query.data)
        values = ", ".join(f"param_{name} = {quote(value)}" for name, value in query.params.items())
        connection.query(f"SET {values}")
        try:
            return _insert(connection, query.sql.decode(), query.insert_format, query.data)
        finally:
            connection.query("SELECT 1", params={"none": ""})  # parameters of a query replace those set before

    def _complain(self, connection: Any, sql: bytes) -> None:
        """Raise the engine's syntax error. chDB itself would run the statements before the wrong one."""
        connection.query("SELECT formatQuery({sql:String})", params={"sql": _tsv(sql)})
        raise QueryError(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed).")

    def _check_rights(self, connection: Any, query: Query, kind: str) -> None:
        may = kind == "READ_ONLY" or (query.user != READER and kind == "CONTROL" and _SET.match(query.sql))
        if (query.read_only or query.user == READER) and not may:
            message = f"{query.user}: Cannot execute query in readonly mode."
            if query.user != READER:
                message += (
                    " For queries over HTTP, method GET implies readonly. "
                    "You should use method POST for modifying queries."
                )
            raise QueryError(164, "READONLY", message)
        if query.user != READER:
            return
        answer = connection.query("SELECT formatQuery({sql:String})", "RawBLOB", params={"sql": _tsv(query.sql)})
        written = _LITERAL.sub("''", bytes(answer.bytes()).decode(errors="replace"))
        if found := _OUTSIDE.search(written):
            raise QueryError(497, "ACCESS_DENIED", f"{READER}: Not enough privileges to use `{found[0]}`.")


_SET = re.compile(rb"\s*(SET|USE)\b", re.IGNORECASE)


def _write_config(folder: Path, database: str) -> Path:
    """The engine's configuration, beside its data. Memory is bounded so that a demo cannot take the machine down."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    users, config = folder / "users.xml", folder / "config.xml"
    values = {"threads": os.cpu_count() or 1, "query_memory": memory * 2 // 5, "database": database}
    users.write_text(_USERS.format(**values))
    config.write_text(_CONFIG.format(users=users, memory=memory // 2))
    return config


def _insert(connection: Any, sql: str, form: str, data: list[bytes]) -> tuple[int, int]:
    with connection.send_insert(sql, form) as stream:
        for piece in data:
            for start in range(0, len(piece), _CHUNK):
                stream.append(piece[start : start + _CHUNK])
        done = stream.finish()
    return done.rows_written, done.bytes_written


def _body(result: Any, encoding: str) -> tuple[bytes | memoryview, Any]:
    if not result.size():
        return b"", None
    view = memoryview(result.get_memview().view())
    return (_compress(view, encoding), None) if encoding else (view, result)


def _summary(started: float, **figures: int) -> dict[str, str]:
    names = (
        "read_rows",
        "read_bytes",
        "written_rows",
        "written_bytes",
        "total_rows_to_read",
        "result_rows",
        "result_bytes",
    )
    elapsed = {"elapsed_ns": str(int((time.perf_counter() - started) * 1e9))}
    return {name: str(figures.get(name, 0)) for name in names} | elapsed


def _tsv(text: bytes) -> str:
    """A parameter's value is in the escaped form of TabSeparated."""
    plain = text.decode(errors="replace")
    return (
        plain.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )


def _compress(body: memoryview, encoding: str) -> bytes:
    import lz4.frame
    import zstandard

    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=1).compress(body)
    if encoding == "lz4":
        return lz4.frame.compress(body)
    return gzip.compress(body, 1) if encoding == "gzip" else zlib.compress(body, 1)


def _decompress(body: bytes, encoding: str) -> bytes:
    import lz4.frame
    import zstandard

    if encoding not in ("gzip", "deflate", "lz4", "zstd"):
        raise QueryError(48, "NOT_IMPLEMENTED", f"Unknown compression method {encoding}.")
    try:
        if encoding == "zstd":
            return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
        if encoding == "lz4":
            return lz4.frame.decompress(body)
        return gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
    except (zstandard.ZstdError, RuntimeError, OSError, EOFError, zlib.error) as error:
        raise QueryError(271, "CANNOT_DECOMPRESS", f"Cannot decompress the request's body: {error}.") from None


# --- the HTTP interface ----------------------------------------------------------------------------------------------

# What clients send beside settings; none of it may reach SET.
_RESERVED = set(
    """query query_id database default_format session_id session_check session_timeout user password quota_key role
    compress decompress buffer_size wait_end_of_query stacktrace client_protocol_version enable_http_compression
    http_zlib_compression_level send_progress_in_http_headers http_headers_progress_interval_ms readonly close_session
    cancel_http_readonly_queries_on_client_close""".split()  # noqa: SIM905
)
_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
}
_NAME = re.compile(r"[A-Za-z_]\w*")


def _app(engine: Engine, server: Server, pool: ThreadPoolExecutor) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    about = {"sandbox": "pulse", "host": server.host, "port": server.port, "data": str(server.data), "pid": server.pid}
    common = {
        MARK: str(server.pid),
        "X-ClickHouse-Server-Display-Name": "pulse-sandbox",
        "X-ClickHouse-Timezone": engine.timezone,
    }

    async def ping(_: Request) -> Response:
        return Response("Ok.\n", media_type="text/html", headers=common)

    async def sandbox(_: Request) -> Response:
        return JSONResponse(about, headers=common)

    async def handle(request: Request) -> Response:
        if request.method != "POST" and not request.url.query:
            return await ping(request)
        headers = dict(common)
        try:
            query = await _read(request)
            headers["X-ClickHouse-Query-Id"] = query.id
            engine.admit(query)
            result = await _run(request, query)
        except QueryError as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            text = f"{error} (version {engine.version} (official build))\n"
            return Response(text, error.status, headers, "text/plain")
        headers["X-ClickHouse-Format"] = result.format
        headers["X-ClickHouse-Summary"] = json.dumps(result.summary, separators=(",", ":"))
        headers["Content-Type"] = _TYPES.get(result.format, "text/plain; charset=UTF-8")
        headers["Content-Length"] = str(len(result.body))
        if zone := query.settings.get("session_timezone"):
            headers["X-ClickHouse-Timezone"] = zone
        if query.encoding and result.body:
            headers["Content-Encoding"] = query.encoding
        if len(result.body) <= _CHUNK:
            return Response(bytes(result.body), headers=headers)
        return StreamingResponse(_pieces(result), headers=headers)

    async def _run(request: Request, query: Query) -> Result:
        """The statement in a worker; a client that goes away cancels one that has not begun or only reads."""
        future = pool.submit(engine.run, query)
        result = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                if future.cancel():
                    engine.dismiss(query)
                else:
                    await asyncio.to_thread(engine.cancel, query)
            return await result
        finally:
            gone.cancel()

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/sandbox", sandbox),
            Route("/", handle, methods=["GET", "HEAD", "POST"]),
        ]
    )


async def _pieces(result: Result) -> Any:
    for start in range(0, len(result.body), _CHUNK):
        yield result.body[start : start + _CHUNK]


async def _read(request: Any) -> Query:
    """A request as a statement, its data, values and settings.

    Raises:
        QueryError: it is not allowed, or not understood.
    """
    params, tables = dict(request.query_params), []
    _check_origin(request)
    user = _user(request, params)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        body, tables = b"", await _form(request, params)
    else:
        body = await request.body()
        if encoding := request.headers.get("content-encoding", ""):
            body = await asyncio.to_thread(_decompress, body, encoding)
    if params.get("compress", "0") != "0" or params.get("decompress", "0") != "0":
        raise QueryError(48, "NOT_IMPLEMENTED", "The sandbox has no native compression; use Content-Encoding.")
    names = {f"{name}_{part}" for name, *_ in tables for part in ("structure", "types", "format")}
    settings = {name: value for name, value in params.items() if name not in _RESERVED | names}
    values = {name[6:]: settings.pop(name) for name in list(settings) if name.startswith("param_")}
    for name in [*settings, *values]:
        if not _NAME.fullmatch(name):
            raise QueryError(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'.")
    database = params.get("database") or request.headers.get("x-clickhouse-database")
    if database:
        settings["database"] = database
    sql, form, data = _split(params.get("query", "").encode(), body)
    return Query(
        user=user,
        sql=sql,
        data=data,
        insert_format=form,
        output_format=request.headers.get("x-clickhouse-format") or params.get("default_format") or "TabSeparated",
        params=values,
        settings=settings,
        tables=tables,
        read_only=request.method != "POST" or params.get("readonly", "0") != "0",
        session=params.get("session_id", ""),
        session_must_exist=params.get("session_check") == "1",
        session_timeout=0 if params.get("close_session") == "1" else _timeout(params.get("session_timeout")),
        encoding=_encoding(request, params),
        id=params.get("query_id") or str(uuid.uuid4()),
    )


def _check_origin(request: Any) -> None:
    """Refuse web pages: the password is public, and a page that the developer visits may send a form to loopback."""
    host = request.headers.get("host", "").rsplit(":", 1)[0]
    if "origin" in request.headers or host not in (HOST, "localhost", "[::1]"):
        raise QueryError(497, "ACCESS_DENIED", "The sandbox answers programs on this machine, not web pages.")


def _user(request: Any, params: dict[str, str]) -> str:
    headers = request.headers
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    user, password = params.get("user", "default"), params.get("password", "")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            user, _, password = b64decode(credentials).decode().partition(":")
    elif "x-clickhouse-user" in headers:
        user, password = headers["x-clickhouse-user"], headers.get("x-clickhouse-key", "")
    if user in _PASSWORDS and hmac.compare_digest(_PASSWORDS[user].encode(), password.encode()):
        return user
    message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
    raise QueryError(516, "AUTHENTICATION_FAILED", message)


async def _form(request: Any, params: dict[str, str]) -> list[tuple[str, str, str, bytes]]:
    """The external tables of a form; its plain fields join the parameters."""
    tables = []
    async with request.form() as form:
        files = {name: await value.read() for name, value in form.items() if not isinstance(value, str)}
        params.update((name, value) for name, value in form.items() if isinstance(value, str))
    for name, data in files.items():
        types = [f"_{n} {kind}" for n, kind in enumerate(params.get(f"{name}_types", "").split(","), 1)]
        structure = params.get(f"{name}_structure") or ", ".join(types)
        if not _NAME.fullmatch(name):
            raise QueryError(36, "BAD_ARGUMENTS", f"Wrong name of an external table: {name}.")
        tables.append((name, structure, params.get(f"{name}_format", "TabSeparated"), data))
    return tables


def _split(text: bytes, body: bytes) -> tuple[bytes, str, list[bytes]]:
    """The statement, the format of its data, and the data, wherever the request carries them."""
    if text and (found := split_insert(text)):
        sql, form, start = found
        return sql, form, [start + b"\n" + body] if start.strip() else [body]
    whole = text + b"\n" + body if text and body else text or body
    if found := split_insert(whole):
        return found[0], found[1], [found[2]]
    return whole, "", []


def _timeout(value: str | None) -> float:
    if value is None:
        return _SESSION_SECONDS
    if not value.isdecimal() or float(value) > _SESSION_LIMIT:
        raise QueryError(374, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: '{value}'.")
    return float(value)


def _encoding(request: Any, params: dict[str, str]) -> str:
    if params.get("enable_http_compression", "0") in ("0", "false"):
        return ""
    accepted = {name.partition(";")[0].strip() for name in request.headers.get("accept-encoding", "").split(",")}
    return next((name for name in ("zstd", "lz4", "gzip", "deflate") if name in accepted), "")


# --- serving ---------------------------------------------------------------------------------------------------------


def serve(
    data: Path,
    port: int = _SANDBOX.port or 0,
    timezone: str = "UTC",
    databases: Sequence[str] | None = None,
    *,
    announce: bool = False,
) -> None:
    """Serve a data folder on loopback until SIGTERM or SIGINT (so: in the main thread of a process of its own).

    Args:
        data: the folder; created if missing.
        port: 0 takes a free one.
        timezone: the server's time zone, in which columns without one are read.
        databases: the project's and the app's, which exist from the start; the settings' if not given.
        announce: print one line of JSON (host, port, data, pid) when ready.

    Raises:
        SandboxError: the port or the folder is in use, or the folder is not writable.
    """
    import uvicorn

    if databases is None:
        chosen = settings.load()
        databases = (chosen.database, chosen.source_database)
    listener = _listen(port)
    data = data.resolve()
    lock = _lock(data)  # noqa: F841 (held until the process ends)
    server = Server(HOST, listener.getsockname()[1], data, os.getpid())
    try:
        engine = Engine(data / "engine", databases, timezone)
    except RuntimeError as error:
        raise SandboxError(f"The engine cannot open {data}: {error} Give another folder, or remove this one.") from None
    pool = ThreadPoolExecutor(_WORKERS, "query")
    web = _server(uvicorn, _app(engine, server, pool), engine)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn takes them over, and raises them again when it has ended
        signal.signal(number, lambda *_: setattr(web, "should_exit", True))
    if announce:
        line = {"host": server.host, "port": server.port, "data": str(server.data), "pid": server.pid}
        print(json.dumps(line), flush=True)
    web.run(sockets=[listener])
    pool.shutdown(wait=False, cancel_futures=True)
    if not engine.stop():
        os._exit(0)  # a statement that cannot be interrupted; the data is safe, as it is from a kill


def _server(uvicorn: Any, app: Any, engine: Engine) -> Any:
    class Web(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # First what runs, so that no connection is waited for.
            await asyncio.to_thread(engine.cancel_all)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1, server_header=False
    )
    return Web(config)


def _listen(port: int) -> socket.socket:
    """The port, listening: of two that start at once, one fails here."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise SandboxError(
            f"Port {port} of {HOST} is not free ({error.strerror}); stop what uses it, or choose another port."
        ) from None
    return listener


def _lock(data: Path) -> IO[str]:
    """The folder's lock, which the system releases however the process ends."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "engine").mkdir(exist_ok=True)
        lock = open(data / "sandbox.lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise SandboxError(
            f"The folder {data} is not writable ({error.strerror}); give one that this user may write to."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise SandboxError(
            f"The folder {data} is in use by another sandbox (process {holder}); stop that one, or give another folder."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def main() -> None:
    """The command line of the sandbox's process."""
    parser = argparse.ArgumentParser(prog="python -m pulse.sandbox.clickhouse", description="The sandbox's ClickHouse.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--port", type=int, default=_SANDBOX.port, help="on loopback; 0 takes a free one")
    parser.add_argument("--timezone", default="UTC", help="the server's time zone")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the starting process is gone")
    options = parser.parse_args()
    if options.until_stdin_closes:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        serve(options.data, options.port, options.timezone, announce=True)
    except PulseError as error:
        sys.exit(str(error))


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin: its lock would be held when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
