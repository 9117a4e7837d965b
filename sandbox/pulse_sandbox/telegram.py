"""A Telegram Bot API on loopback, for development and tests: what the bot sends appears on a chat page.

It speaks the documented shapes of the methods this project uses, with Telegram's limits and error texts, keeps every
message on disk, and makes the failures of the real service on demand. It proves our client, not Telegram. It answers
programs and its own chat page, and no other web page (`web`).

What it keeps in its data folder: `journal.jsonl` (append-only, one line per chat, message or change), `photos/`, and
`chat.html`, the chat page that opens without the server.

Beside the Bot API there is a small interface of its own, for tests and for playing with failures:
    GET    /sandbox                             what runs here: data folder and process
    GET    /sandbox/messages?chat=-1001         the messages as they stand now
    POST   /sandbox/chats    {id, title, type, topics: {thread: name}}
    POST   /sandbox/say      {chat, text}       a person writes to the bot (getUpdates gives it)
    POST   /sandbox/delete   {chat, message}    an administrator deletes a message
    POST   /sandbox/limits   {on}               keep Telegram's rate limits, or not (the default)
    POST   /sandbox/faults   {kind, chat, method, count, seconds, to, code, says}; GET lists those still to come,
                                                DELETE drops them
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from pulse import settings
from pulse_sandbox import chat_page, process
from pulse_sandbox.bot_api import MAX_REQUEST_BYTES, METHODS, Params, Refusal, Store, chat_of, write_whole
from pulse_sandbox.web import KeepPagesOut

PORT = urlsplit(settings.SANDBOX_TELEGRAM_API_URL).port or 18081


@dataclass(frozen=True)
class Server:
    """A stand-in that answers."""

    host: str
    port: int
    data: Path
    pid: int

    @property
    def url(self) -> str:
        """What TELEGRAM_API_URL is set to."""
        return f"http://{self.host}:{self.port}"

    @property
    def chat_page(self) -> str:
        """Where the messages are read."""
        return f"{self.url}/"


def serve(data: Path, port: int = PORT) -> None:
    """Serve the Bot API on loopback until stopped.

    Raises:
        SandboxError: the data folder cannot be used, another stand-in uses it, or the port is taken.
    """
    import uvicorn

    with process.taken("Telegram", data, port) as listening:
        store = Store(data)
        peers: dict[tuple[str, int], asyncio.Transport] = {}
        about = {
            "sandbox": "telegram",
            "port": listening.getsockname()[1],
            "data": str(data.resolve()),
            "pid": os.getpid(),
        }
        app = _application(store, peers, settings.load().zone, about)
        config = uvicorn.Config(
            app, http=partial(_Connection, peers), log_level="warning", lifespan="on", timeout_graceful_shutdown=1
        )
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def running(data: Path, port: int | None = None) -> Iterator[Server]:
    """A stand-in in a process of its own, on a free port unless one is given, for the length of the `with` block.

    Raises:
        SandboxError: it could not be started; the text says why.
    """
    with process.running("pulse_sandbox.telegram", data, port) as about:
        yield _server(about)


def answering(port: int) -> Server | None:
    """The stand-in that answers on this port, or None where there is none."""
    about = process.identity(port)
    return _server(about) if about and about.get("sandbox") == "telegram" else None


def _server(about: process.About) -> Server:
    return Server(process.HOST, about["port"], Path(about["data"]), about["pid"])


class _Connection(H11Protocol):
    """uvicorn's connection, known by the address of its peer so that a fault can cut it without an answer."""

    def __init__(self, peers: dict[tuple[str, int], asyncio.Transport], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._peers = peers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peers[transport.get_extra_info("peername")] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)


# --- faults and limits ------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[int, str]] = {
    "blocked": (403, "bot was blocked by the user"),
    "kicked": (403, "bot was kicked from the supergroup chat"),
    "not_started": (403, "bot can't initiate conversation with a user"),
    "conflict": (409, "terminated by other getUpdates request; make sure that only one bot instance is running"),
    "too_large": (413, "Request Entity Too Large"),
    "500": (500, "Internal Server Error"),
    "502": (502, "Bad Gateway"),
    "503": (503, "Service Unavailable"),
}
KINDS = {*REFUSALS, "429", "refused", "migrated", "lost_before", "lost_after", "slow", "garbage"}


@dataclass
class Fault:
    """A failure to come.

    `429` asks to wait `seconds`; `slow` answers that late; `lost_before` and `lost_after` cut the connection before or
    after the request was carried out; `migrated` moves the chat to the id `to`; `garbage` carries it out and answers
    with a page of HTML; `refused` answers with a `code` and what Telegram `says` with it; the others are answers of the
    Bot API, and with `processed` a 5xx was carried out all the same.
    """

    kind: str
    chat: int | None = None
    method: str | None = None
    count: int = 1
    seconds: float = 1
    to: int = 0
    code: int = 400
    says: str = ""
    processed: bool = False


@dataclass
class Limits:
    """Telegram's rate limits: 1 message a second to a chat, 20 a minute to a group, 30 a second in all."""

    on: bool = False
    sent: dict[int | None, deque[float]] = field(default_factory=dict)

    def check(self, chat: int) -> None:
        """Count a message to be sent.

        Raises:
            Refusal: 429, with the seconds to wait.
        """
        if not self.on:
            return
        now = time.monotonic()
        windows: list[tuple[int | None, int, float]] = [(chat, 1, 1.0), (None, 30, 1.0)]
        if chat < 0:
            windows.append((chat, 20, 60.0))
        for key, allowed, seconds in windows:
            recent = [at for at in self.sent.get(key, ()) if at > now - seconds]
            if len(recent) >= allowed:
                wait = max(1, round(recent[0] + seconds - now + 0.5))
                raise Refusal(429, f"retry after {wait}", retry_after=wait)
        for key in (chat, None):
            self.sent.setdefault(key, deque(maxlen=30)).append(now)


@dataclass
class Faults:
    """The failures to come, first come first served."""

    pending: list[Fault] = field(default_factory=list)

    def take(self, method: str, chat: Any) -> Fault | None:
        """The failure meant for this request, if any, counted off."""
        for fault in self.pending:
            same_chat = fault.chat is None or str(fault.chat) == str(chat)
            if same_chat and fault.method in (None, method):
                fault.count -= 1
                if fault.count <= 0:
                    self.pending.remove(fault)
                return fault
        return None


# --- the server -------------------------------------------------------------------------------------------------------


class _Api:
    """The HTTP side of the Bot API: token, parameters, failures, answers."""

    def __init__(self, store: Store, peers: dict[tuple[str, int], asyncio.Transport]) -> None:
        self.store, self.peers, self.faults, self.limits = store, peers, Faults(), Limits()

    async def call(self, request: Request) -> Response:
        """Answer one request to `/bot<token>/<method>`."""
        try:
            method = self._method(request)
            params = await _params(request)
            fault = self.faults.take(method, params.get("chat_id"))
            if fault is None:
                return _done(self._carry_out(method, params))
            return await self._fail(request, fault, method, params)
        except Refusal as refusal:
            return _refused(refusal)

    def _method(self, request: Request) -> str:
        token, method = request.path_params["token"], request.path_params["method"].lower()
        if ":" not in token:
            raise Refusal(404, "Not Found")
        if token != settings.SANDBOX_TELEGRAM_TOKEN:
            raise Refusal(401, "Unauthorized")
        if method not in METHODS:
            raise Refusal(404, "Not Found: method not found")
        return method

    def _carry_out(self, method: str, params: Params) -> Any:
        chat = str(params.get("chat_id", ""))
        if method.startswith("send") and chat.lstrip("-").isdigit():
            self.limits.check(int(chat))
        moved = self.store.chats.get(int(chat), {}).get("moved_to") if chat.lstrip("-").isdigit() else None
        if moved:
            raise Refusal(400, "group chat was upgraded to a supergroup chat", migrate_to_chat_id=moved)
        return METHODS[method](self.store, params)

    async def _fail(self, request: Request, fault: Fault, method: str, params: Params) -> Response:
        if fault.kind == "429":
            wait = round(fault.seconds)
            raise Refusal(429, f"retry after {wait}", retry_after=wait)
        if fault.kind == "refused":
            raise Refusal(fault.code, fault.says)
        if fault.kind == "migrated":
            chat = chat_of(self.store, params)
            self.store.add_chat({**chat, "id": fault.to, "type": "supergroup"})
            self.store.add_chat({**chat, "moved_to": fault.to})
            return _done(self._carry_out(method, params))
        if fault.kind in REFUSALS:
            if fault.processed and REFUSALS[fault.kind][0] >= 500:
                self._carry_out(method, params)
            raise Refusal(*REFUSALS[fault.kind])
        if fault.kind == "lost_before":
            return self._cut(request)
        result = self._carry_out(method, params)
        if fault.kind == "lost_after":
            return self._cut(request)
        if fault.kind == "garbage":
            return Response("<html>Welcome to the airport's network</html>", media_type="text/html")
        await asyncio.sleep(fault.seconds)
        return _done(result)

    def _cut(self, request: Request) -> Response:
        """Drop the connection; the answer given here reaches nobody."""
        if request.client:
            self.peers[(request.client.host, request.client.port)].abort()
        return Response(status_code=500)


def _done(result: Any) -> Response:
    return JSONResponse({"ok": True, "result": result})


def _refused(refusal: Refusal) -> Response:
    answer: dict[str, Any] = {"ok": False, "error_code": refusal.code, "description": refusal.description}
    if refusal.parameters:
        answer["parameters"] = refusal.parameters
    return JSONResponse(answer, status_code=refusal.code)


async def _params(request: Request) -> Params:
    """The parameters, whichever of the documented ways they came: query, form, multipart or JSON; files as bytes."""
    if int(request.headers.get("content-length") or 0) > MAX_REQUEST_BYTES:
        async for _ in request.stream():
            pass
        raise Refusal(413, "Request Entity Too Large")
    params: Params = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/json"):
        sent = await request.json()
        return params | {name: v if isinstance(v, str) else json.dumps(v) for name, v in sent.items()}
    async with request.form() as form:
        for name, value in form.items():
            params[name] = await value.read() if isinstance(value, UploadFile) else value
    return params


def _application(
    store: Store, peers: dict[tuple[str, int], asyncio.Transport], zone: ZoneInfo, about: process.About
) -> Starlette:
    api = _Api(store, peers)
    page_file = store.data / "chat.html"

    async def keep_page() -> None:
        """Write `chat.html` soon after each change; several changes at once make one file."""
        written = -1
        while True:
            if written != store.version:
                written = store.version
                write_whole(page_file, store.page(zone, live=False).encode())
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> Any:
        keeping = asyncio.create_task(keep_page())
        process.announce(about)
        yield
        keeping.cancel()
        write_whole(page_file, store.page(zone, live=False).encode())

    async def page(_request: Request) -> Response:
        headers = {"Content-Security-Policy": chat_page.policy(live=True), "X-Content-Type-Options": "nosniff"}
        return Response(store.page(zone, live=True), media_type="text/html", headers=headers)

    async def script(_request: Request) -> Response:
        return Response(chat_page.SCRIPT, media_type="text/javascript")

    async def version(_request: Request) -> Response:
        return PlainTextResponse(str(store.version))

    async def photo(request: Request) -> Response:
        path = store.data / "photos" / Path(request.path_params["name"]).name
        return FileResponse(path) if path.is_file() else Response(status_code=404)

    async def identity(_request: Request) -> Response:
        return JSONResponse(about)

    async def messages(request: Request) -> Response:
        wanted = request.query_params.get("chat")
        found = [one for chat, each in store.messages.items() if wanted in (None, str(chat)) for one in each.values()]
        return JSONResponse(found)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/live.js", script),
            Route("/version", version),
            Route("/photos/{name}", photo),
            Route("/sandbox", identity),
            Route("/sandbox/messages", messages),
            Route("/sandbox/chats", _told(partial(_add_chat, store)), methods=["POST"]),
            Route("/sandbox/say", _told(partial(_say, store)), methods=["POST"]),
            Route("/sandbox/delete", _told(partial(_delete, store)), methods=["POST"]),
            Route("/sandbox/limits", _told(partial(_limit, api)), methods=["POST"]),
            Route("/sandbox/faults", _told(partial(_fault, api)), methods=["GET", "POST", "DELETE"]),
            Route("/bot{token}/{method}", api.call, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(KeepPagesOut, pages=("/",))],
        lifespan=lifespan,
    )


def _told(handle: Callable[[str, dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    """A route of the sandbox's own interface: JSON in, JSON out, a wrong value is a 400 that says so."""

    async def answer(request: Request) -> Response:
        try:
            body = await request.json() if request.method == "POST" else {}
            return JSONResponse(handle(request.method, body))
        except (ValueError, KeyError, TypeError) as error:
            return PlainTextResponse(f"{type(error).__name__}: {error}", status_code=400)

    return answer


def _add_chat(store: Store, _method: str, body: dict[str, Any]) -> Any:
    chat = {"id": int(body["id"]), "title": str(body.get("title") or f"Chat {body['id']}")}
    kind = body.get("type") or ("supergroup" if chat["id"] < 0 else "private")
    store.add_chat({**chat, "type": kind, "topics": {str(k): str(v) for k, v in (body.get("topics") or {}).items()}})
    return store.chats[chat["id"]]


def _say(store: Store, _method: str, body: dict[str, Any]) -> Any:
    return store.add(store.chats[int(body["chat"])]["id"], text=str(body["text"]), person=True, **{"from": "You"})


def _delete(store: Store, _method: str, body: dict[str, Any]) -> Any:
    store.delete(int(body["chat"]), int(body["message"]))
    return True


def _limit(api: _Api, _method: str, body: dict[str, Any]) -> Any:
    api.limits = Limits(on=bool(body["on"]))
    return True


def _fault(api: _Api, method: str, body: dict[str, Any]) -> Any:
    if method == "DELETE":
        api.faults.pending.clear()
    if method == "POST":
        fault = Fault(**body)
        if fault.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(sorted(KINDS))}")
        fault.method = fault.method and fault.method.lower()
        api.faults.pending.append(fault)
    return [vars(fault) for fault in api.faults.pending]


if __name__ == "__main__":
    sys.exit(process.main("pulse_sandbox.telegram", serve, PORT))
