"""The HTTP side of Telegram's stand-in: the Bot API, the chat page, and an interface for tests."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
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
from pulse_sandbox.bot_api import MAX_REQUEST_BYTES, METHODS, Params, Refusal, chat_of
from pulse_sandbox.chat_store import Store, write_whole
from pulse_sandbox.telegram_faults import KINDS, REFUSALS, Fault, Faults, Limits
from pulse_sandbox.web import KeepPagesOut

Peers = dict[tuple[str, int], asyncio.Transport]
"""The open connections by their clients' addresses."""


class Connection(H11Protocol):
    """uvicorn's connection, registered by the address of its client, so that a fault can cut it without an answer."""

    peers: Peers

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        super().connection_made(transport)
        self.peers[transport.get_extra_info("peername")] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.peers.pop(self.transport.get_extra_info("peername"), None)
        super().connection_lost(exc)


def connections(registered: Peers) -> type[Connection]:
    """The class of connections that register themselves there."""

    class Registered(Connection):
        peers = registered

    return Registered


class _Api:
    """The HTTP side of the Bot API: token, parameters, failures, answers."""

    def __init__(self, store: Store, peers: Peers) -> None:
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
        token, method = str(request.path_params["token"]), str(request.path_params["method"]).lower()
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
        """Drop the connection. The response that is returned here reaches nobody."""
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
    """Read the parameters from the query, form, multipart or JSON; files are bytes."""
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


def application(store: Store, peers: Peers, zone: ZoneInfo, about: process.About) -> Starlette:
    """The application: the Bot API, the chat page, and the interface for tests.

    Args:
        store: the chats and messages.
        peers: the open connections (see `connections`).
        zone: the time zone of the chat page.
        about: what the server announces of itself.
    """
    api = _Api(store, peers)
    page_file = store.data / "chat.html"

    async def keep_page() -> None:
        """Write `chat.html` soon after each change; changes in quick succession are written once."""
        written = -1
        while True:
            if written != store.version:
                written = store.version
                write_whole(page_file, store.page(zone, live=False).encode())
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
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
            Route("/sandbox/chats", _json_route(partial(_add_chat, store)), methods=["POST"]),
            Route("/sandbox/say", _json_route(partial(_say, store)), methods=["POST"]),
            Route("/sandbox/delete", _json_route(partial(_delete, store)), methods=["POST"]),
            Route("/sandbox/limits", _json_route(partial(_limit, api)), methods=["POST"]),
            Route("/sandbox/faults", _json_route(partial(_fault, api)), methods=["GET", "POST", "DELETE"]),
            Route("/bot{token}/{method}", api.call, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(KeepPagesOut, pages=("/",))],
        lifespan=lifespan,
    )


def _json_route(handle: Callable[[str, dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    """A route of the sandbox's own interface: JSON in, JSON out; a wrong value is answered with 400 and the reason."""

    async def answer(request: Request) -> Response:
        try:
            body = await request.json() if request.method == "POST" else {}
            return JSONResponse(handle(request.method, body))
        except (ValueError, KeyError, TypeError) as error:
            return PlainTextResponse(f"{type(error).__name__}: {error}", status_code=400)

    return answer


def _add_chat(store: Store, _method: str, body: dict[str, Any]) -> Any:
    chat, title = int(body["id"]), str(body.get("title") or f"Chat {body['id']}")
    kind = body.get("type") or ("supergroup" if chat < 0 else "private")
    topics = {str(thread): str(name) for thread, name in (body.get("topics") or {}).items()}
    store.add_chat({"id": chat, "title": title, "type": kind, "topics": topics})
    return store.chats[chat]


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
