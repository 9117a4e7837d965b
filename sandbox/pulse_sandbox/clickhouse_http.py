"""ClickHouse's HTTP interface for the sandbox's engine."""

import asyncio
import gzip
import hmac
import json
import re
import signal
import socket
import uuid
from base64 import b64decode
from contextlib import suppress
from functools import partial
from typing import Any

import lz4.frame  # type: ignore[import-untyped]  # it has no types
import uvicorn
import zstandard
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pulse_sandbox.clickhouse_engine import TIMEZONE, Engine
from pulse_sandbox.clickhouse_query import Query, QueryError, Result, Table, split_insert
from pulse_sandbox.process import About, announce
from pulse_sandbox.web import REFUSAL, KeepPagesOut

MARK = "X-Pulse-Sandbox"
_SESSION_SECONDS, _SESSION_LIMIT = 60, 3600  # the real server's defaults

# Parameters of a request that are not settings, and must not reach SET.
_RESERVED = set(
    """query query_id database default_format session_id session_check session_timeout user password quota_key role
    compress decompress buffer_size wait_end_of_query stacktrace client_protocol_version enable_http_compression
    http_zlib_compression_level send_progress_in_http_headers http_headers_progress_interval_ms readonly close_session
    cancel_http_readonly_queries_on_client_close""".split()  # noqa: SIM905
)
# The HTTP statuses that the real server uses for errors; all other errors have status 500.
_STATUS = {
    400: re.compile(
        "SYNTAX_ERROR|BAD_ARGUMENTS|CANNOT_PARSE_.*|TYPE_MISMATCH|ILLEGAL_COLUMN|INCORRECT_DATA|DUPLICATE_.*"
    ),
    403: re.compile("ACCESS_DENIED|AUTHENTICATION_FAILED|SET_NON_GRANTED_ROLE"),
    404: re.compile("UNKNOWN_(TABLE|DATABASE|IDENTIFIER|FUNCTION|AGGREGATE_FUNCTION|TYPE|SETTING|FORMAT|STORAGE|ROLE)"),
    408: re.compile("TIMEOUT_EXCEEDED"),
    501: re.compile("NOT_IMPLEMENTED"),
}
_TYPES = {
    "TabSeparated": "text/tab-separated-values",
    "CSV": "text/csv",
    "JSON": "application/json",
    "JSONCompact": "application/json",
    "JSONEachRow": "application/x-ndjson",
    "Native": "application/octet-stream",
}
_UNPACK = {
    "gzip": gzip.decompress,
    "lz4": lz4.frame.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
}
_NAME = re.compile(r"[A-Za-z_]\w*")


def serve(engine: Engine, passwords: dict[str, str], about: About, listener: socket.socket) -> None:
    """Answer on the listening socket until SIGTERM or SIGINT; then cancel the running statements.

    Args:
        engine: runs the statements.
        passwords: the users' passwords by name.
        about: what the server announces of itself.
        listener: the listening socket.
    """

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Cancelled first, so that the server need not wait for connections.
            await asyncio.to_thread(engine.cancel_all)
            await super().shutdown(sockets)

    common = [(MARK, str(about["pid"])), ("X-ClickHouse-Server-Display-Name", "pulse-sandbox")]
    app = _application(engine, passwords, about)
    config = uvicorn.Config(
        app, log_level="error", lifespan="off", timeout_graceful_shutdown=1, server_header=False, headers=common
    )
    server = Server(config)
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # uvicorn replaces these, and raises the signal again when it has stopped
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    announce(about)
    server.run(sockets=[listener])


def _application(engine: Engine, passwords: dict[str, str], about: About) -> Starlette:
    async def ping(_: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def sandbox(_: Request) -> Response:
        return JSONResponse(about)

    def failure(error: QueryError, headers: dict[str, str]) -> Response:
        status = next((status for status, names in _STATUS.items() if names.fullmatch(error.name)), 500)
        headers = headers | {"X-ClickHouse-Exception-Code": str(error.code)}
        return PlainTextResponse(f"{error} (version {engine.version} (official build))\n", status, headers)

    async def statement(request: Request) -> Response:
        if request.method != "POST" and not request.url.query:
            return await ping(request)
        headers = {"X-ClickHouse-Timezone": TIMEZONE}
        try:
            query = await _read(request, passwords)
            headers["X-ClickHouse-Query-Id"] = query.id
            result = await _run(request, engine, query)
        except QueryError as error:
            return failure(error, headers)
        headers["X-ClickHouse-Format"] = result.format
        headers["X-ClickHouse-Summary"] = json.dumps(result.summary, separators=(",", ":"))
        if zone := query.settings.get("session_timezone"):
            headers["X-ClickHouse-Timezone"] = zone
        body = result.body
        asked = request.query_params.get("enable_http_compression") == "1"
        if asked and body and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(gzip.compress, body, 1)
        return Response(body, headers=headers, media_type=_TYPES.get(result.format, "text/plain"))

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/sandbox", sandbox),
            Route("/", statement, methods=["GET", "HEAD", "POST"]),
        ],
        middleware=[Middleware(KeepPagesOut, refuse=partial(failure, QueryError(497, "ACCESS_DENIED", REFUSAL), {}))],
    )


async def _run(request: Request, engine: Engine, query: Query) -> Result:
    """Run a statement. If its client disconnects, a statement that has not begun or only reads is cancelled."""
    started = engine.start(query)
    result, gone = asyncio.wrap_future(started), asyncio.ensure_future(request.receive())
    either: set[asyncio.Future[Any]] = {result, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if started.cancel():
        raise QueryError(394, "QUERY_WAS_CANCELLED", "The client has gone away.")
    while not result.done():  # repeated, because the engine may not have begun at the first request to cancel
        await asyncio.to_thread(engine.cancel, query)
        await asyncio.wait({result}, timeout=0.1)
    return await result


async def _read(request: Request, passwords: dict[str, str]) -> Query:
    """Read a request: the statement, its data, its values and its settings.

    Raises:
        QueryError: the request is not allowed or not understood.
    """
    params = dict(request.query_params)
    user = _user(request, params, passwords)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        body, tables = b"", await _tables(request, params)
    else:
        body, tables = await _body(request), []
    if params.get("compress", "0") != "0" or params.get("decompress", "0") != "0":
        raise QueryError(48, "NOT_IMPLEMENTED", "The sandbox has no native compression; use Content-Encoding.")
    names = {f"{table.name}_{part}" for table in tables for part in ("structure", "types", "format")}
    settings = {name: value for name, value in params.items() if name not in _RESERVED | names}
    values = {name[6:]: settings.pop(name) for name in list(settings) if name.startswith("param_")}
    for name in [*settings, *values]:
        if not _NAME.fullmatch(name):
            raise QueryError(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'.")
    if database := params.get("database") or request.headers.get("x-clickhouse-database"):
        settings["database"] = database
    sql, insert_format, data = _split(params.get("query", "").encode(), body)
    return Query(
        user=user,
        id=params.get("query_id") or str(uuid.uuid4()),
        sql=sql,
        data=data,
        insert_format=insert_format,
        output_format=request.headers.get("x-clickhouse-format") or params.get("default_format") or "TabSeparated",
        params=values,
        settings=settings,
        tables=tables,
        read_only=request.method != "POST" or params.get("readonly", "0") != "0",
        session=params.get("session_id", ""),
        session_must_exist=params.get("session_check") == "1",
        session_seconds=_session_seconds(params.get("session_timeout", str(_SESSION_SECONDS))),
    )


def _user(request: Request, params: dict[str, str], passwords: dict[str, str]) -> str:
    headers = request.headers
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    user, password = "default", ""
    if request.method == "POST":  # Redash sends them so; an address alone, as in an image, must not be enough
        user, password = params.get("user", user), params.get("password", password)
    elif "user" in params or "password" in params:
        message = "Send user and password in headers: the address of a GET may come from any web page."
        raise QueryError(516, "AUTHENTICATION_FAILED", message)
    if scheme.lower() == "basic":
        with suppress(ValueError):
            user, _, password = b64decode(credentials).decode().partition(":")
    elif "x-clickhouse-user" in headers:
        user, password = headers["x-clickhouse-user"], headers.get("x-clickhouse-key", "")
    if user in passwords and hmac.compare_digest(passwords[user].encode(), password.encode()):
        return user
    message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
    raise QueryError(516, "AUTHENTICATION_FAILED", message)


async def _body(request: Request) -> bytes:
    body, encoding = await request.body(), request.headers.get("content-encoding", "")
    if not encoding:
        return body
    if encoding not in _UNPACK:
        raise QueryError(48, "NOT_IMPLEMENTED", f"Unknown compression method {encoding}.")
    try:
        return await asyncio.to_thread(_UNPACK[encoding], body)
    except Exception as error:  # each of the three libraries raises its own errors
        raise QueryError(271, "CANNOT_DECOMPRESS", f"Cannot decompress the request's body: {error}.") from None


async def _tables(request: Request, params: dict[str, str]) -> list[Table]:
    """Read the external tables of a form, and add its plain fields to the parameters."""
    async with request.form() as form:
        files = {name: await value.read() for name, value in form.items() if not isinstance(value, str)}
        params.update((name, value) for name, value in form.items() if isinstance(value, str))
    tables = []
    for name, data in files.items():
        if not _NAME.fullmatch(name):
            raise QueryError(36, "BAD_ARGUMENTS", f"Wrong name of an external table: {name}.")
        types = [f"_{n} {kind}" for n, kind in enumerate(params.get(f"{name}_types", "").split(","), 1)]
        structure = params.get(f"{name}_structure") or ", ".join(types)
        tables.append(Table(name, structure, params.get(f"{name}_format", "TabSeparated"), data))
    return tables


def _split(text: bytes, body: bytes) -> tuple[bytes, str, list[bytes]]:
    """Return the statement, the format of its data and the data, wherever they are in the request."""
    if found := split_insert(text):
        sql, insert_format, start = found
        return sql, insert_format, [start + b"\n" + body] if start.strip() else [body]
    whole = b"\n".join(part for part in (text, body) if part)
    if found := split_insert(whole):
        return found[0], found[1], [found[2]]
    return whole, "", []


def _session_seconds(value: str) -> int:
    if not value.isdecimal() or int(value) > _SESSION_LIMIT:
        raise QueryError(374, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: '{value}'.")
    return int(value)
