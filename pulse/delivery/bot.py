"""The bot: python-telegram-bot, wrapped so that it says exactly what became of a request and cannot leak the token.

Every request ends in a result or in one of four errors, which is all that a sender needs to know: `NotSent` (certainly
not carried out, may be repeated), `Refused` (certainly not carried out, repeating is useless), `Migrated` (repeat it
with another chat id) and `Unknown` (carried out or not).

The library puts the token into every address, and so into its logs and errors. Here it gets a placeholder, and only the
transport underneath, which logs nothing, replaces it by the token.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from telegram import Bot as Client
from telegram import InputMediaPhoto, LinkPreviewOptions, ReplyParameters
from telegram.error import ChatMigrated, TelegramError, TimedOut
from telegram.request import HTTPXRequest

from pulse.delivery.rows import Posted

PLACEHOLDER = "0:token"
DEFAULT_WAIT = 5.0

T = TypeVar("T")


class NotSent(Exception):  # noqa: N818
    """The request was certainly not carried out and may be repeated, after `wait` seconds if Telegram says how long."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):  # noqa: N818
    """Telegram certainly did not carry the request out, and will not; the text is Telegram's own."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Migrated(Exception):  # noqa: N818
    """The chat has another id now; the request was not carried out."""

    def __init__(self, chat: int) -> None:
        super().__init__(f"the group became the supergroup {chat}")
        self.chat = chat


class Unknown(Exception):  # noqa: N818
    """No usable answer: the request may have been carried out or not."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, between two pieces sent, for the answer, and for a request as a whole."""

    connect: float = 10.0
    write: float = 20.0
    read: float = 30.0
    whole: float = 60.0


@dataclass(frozen=True)
class Bot:
    """The methods that the project needs. A recipient is a chat id, or `id/thread` for a topic."""

    client: Client
    timeouts: Timeouts

    async def send(
        self,
        recipient: str,
        html: str,
        photo: bytes | None = None,
        silent: bool = False,
        reply_to: Posted | None = None,
    ) -> Posted:
        """Send a photo with a caption, or a text; as a reply to a message if that is in the same chat."""
        chat, thread = chat_and_topic(recipient)
        reply = None
        if reply_to and reply_to.id and reply_to.is_in(recipient):
            reply = ReplyParameters(reply_to.id, allow_sending_without_reply=True)
        where: dict[str, Any] = {"message_thread_id": thread, "disable_notification": silent, "reply_parameters": reply}
        if photo is None:
            preview = LinkPreviewOptions(is_disabled=True)
            call = self.client.send_message(chat, html, parse_mode="HTML", link_preview_options=preview, **where)
        else:
            call = self.client.send_photo(chat, photo, caption=html, parse_mode="HTML", **where)
        return Posted(recipient, (await self._outcome(call)).message_id)

    async def edit(self, posted: Posted, html: str, photo: bytes | None, had_photo: bool) -> None:
        """Replace the text of a message, and its photo if a new one is given."""
        message = posted.id
        chat, _ = chat_and_topic(posted.recipient)
        if photo is not None:
            media = InputMediaPhoto(photo, caption=html, parse_mode="HTML")
            call: Awaitable[Any] = self.client.edit_message_media(media, chat_id=chat, message_id=message)
        elif had_photo:
            call = self.client.edit_message_caption(chat, message, caption=html, parse_mode="HTML")
        else:
            preview = LinkPreviewOptions(is_disabled=True)
            call = self.client.edit_message_text(
                html, chat_id=chat, message_id=message, parse_mode="HTML", link_preview_options=preview
            )
        try:
            await self._outcome(call)
        except Refused as refusal:
            if "not modified" not in str(refusal).lower():
                raise

    async def name(self) -> str:
        """The bot's user name."""
        return str((await self._outcome(self.client.get_me())).username)

    async def type(self, recipient: str) -> None:
        """Tell a chat that the bot is typing, which needs the same rights as a message."""
        chat, thread = chat_and_topic(recipient)
        await self._outcome(self.client.send_chat_action(chat, "typing", message_thread_id=thread))

    async def title(self, recipient: str) -> str:
        """The name of a chat."""
        found = await self._outcome(self.client.get_chat(chat_and_topic(recipient)[0]))
        return str(found.effective_name)

    async def heard_from(self) -> list[tuple[str, str]]:
        """The chats that recently wrote to the bot, as recipients with their names."""
        found = {}
        for update in await self._outcome(self.client.get_updates()):
            message = update.effective_message
            if chat := update.effective_chat:
                topic = message.message_thread_id if message and message.is_topic_message else None
                found[f"{chat.id}/{topic}" if topic else str(chat.id)] = str(chat.effective_name)
        return list(found.items())

    async def _outcome(self, call: Awaitable[T]) -> T:
        """The result of a request, or one of the four errors, whose texts and causes hold no address."""
        try:
            async with asyncio.timeout(self.timeouts.whole):
                return await call
        except ChatMigrated as error:
            raise Migrated(error.new_chat_id) from None
        except _RefusedError as error:
            raise Refused(error.code, str(error)) from None
        except _NotSentError as error:
            raise NotSent(str(error), error.wait) from None
        except TelegramError as error:
            raise Unknown(self._reason(error)) from None
        except TimeoutError:
            raise Unknown(f"no answer within {self.timeouts.whole:g} s") from None
        except Exception as error:
            # Anything else goes wrong after the request has left, such as an answer that cannot be read.
            raise Unknown(f"an answer that is not the Bot API's ({type(error).__name__})") from None

    def _reason(self, error: TelegramError) -> str:
        """Why there is no usable answer. The library's own texts begin with the name of a class."""
        if isinstance(error, TimedOut):
            return f"no answer within {self.timeouts.read:g} s"
        if isinstance(error.__cause__, httpx.HTTPError):
            return "the connection broke before an answer came"
        return str(error)[:200]


@asynccontextmanager
async def connected(api: str, token: str, timeouts: Timeouts) -> AsyncIterator[Bot]:
    """The bot, for the duration of a `with` block. Connecting sends nothing."""
    request = _Request(api, token, timeouts)
    client = Client(PLACEHOLDER, base_url=f"{api.rstrip('/')}/bot", request=request, get_updates_request=request)
    try:
        yield Bot(client, timeouts)
    finally:
        await request.shutdown()


def chat_and_topic(recipient: str) -> tuple[int | str, int | None]:
    """The chat and the topic of a recipient, as the Bot API wants them."""
    chat, _, thread = recipient.partition("/")
    return (chat if chat.startswith("@") else int(chat)), int(thread) if thread else None


class _NotSentError(TelegramError):
    """No connection was made, or Telegram asked to wait."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _RefusedError(TelegramError):
    """An answer that means no, in Telegram's words; the library's own errors reword it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Request(HTTPXRequest):
    """The library's requests, with errors kept apart that the library lumps together."""

    def __init__(self, api: str, token: str, timeouts: Timeouts) -> None:
        super().__init__(
            connect_timeout=timeouts.connect,
            read_timeout=timeouts.read,
            write_timeout=timeouts.write,
            media_write_timeout=timeouts.write,
            pool_timeout=timeouts.connect,
            httpx_kwargs={"transport": _Transport(token, api)},
        )
        self._host = urlsplit(api).hostname

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        try:
            code, payload = await super().do_request(*args, **kwargs)
        except TelegramError as error:
            cause = error.__cause__
            if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
                reason = f"no connection to {self._host} ({type(cause).__name__}: {cause})"
                raise _NotSentError(f"{reason}, check the network and TELEGRAM_API_URL") from None
            raise
        if code in (420, 429):
            wait = _seconds_asked(payload)
            raise _NotSentError(f"Telegram asks to wait {wait:g} s", wait)
        if 300 <= code < 500 and not _new_chat(payload):
            raise _RefusedError(code, _description(payload) or f"HTTP status {code}")
        if code < 300 and "result" not in _answer(payload):
            # Raised before the library sees the answer and logs all of it as an error.
            raise TelegramError("an answer that is not the Bot API's")
        return code, payload


class _Transport(httpx.AsyncHTTPTransport):
    """Puts the token where the placeholder is, below everything that logs or reports an address."""

    def __init__(self, token: str, api: str) -> None:
        # A new connection for each message: on an idle one that the server has just closed, a message that was never
        # sent would count as unknown.
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0), proxy=_proxy(api))
        self._token = token

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.replace(f"/bot{PLACEHOLDER}/".encode(), f"/bot{self._token}/".encode())
        url = request.url.copy_with(raw_path=path)
        extensions = request.extensions
        sent = httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)
        return await super().handle_async_request(sent)


def _proxy(api: str) -> str | None:
    """The proxy that the environment names for this address; httpx ignores it when given a transport."""
    parts = urlsplit(api)
    host = parts.hostname or ""
    if host in ("127.0.0.1", "localhost", "::1") or proxy_bypass(host):
        return None
    found = getproxies()
    return found.get(parts.scheme) or found.get("all")


def _answer(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds_asked(payload: bytes) -> float:
    """Seconds to wait: from the answer, or from names such as `FLOOD_WAIT_15` and `SLOWMODE_WAIT_15`."""
    try:
        return float(_parameters(payload)["retry_after"])
    except (KeyError, TypeError, ValueError):
        named = re.search(r"_WAIT_(\d+)", _description(payload))
        return float(named[1]) if named else DEFAULT_WAIT


def _new_chat(payload: bytes) -> bool:
    """Whether the answer says that the chat has another id now."""
    return bool(_parameters(payload).get("migrate_to_chat_id"))


def _parameters(payload: bytes) -> dict[str, Any]:
    found = _answer(payload).get("parameters")
    return found if isinstance(found, dict) else {}


def _description(payload: bytes) -> str:
    """What Telegram says, without the name of the status code."""
    said = str(_answer(payload).get("description") or "")[:300]
    return re.sub(r"^(Bad Request|Forbidden|Conflict): ", "", said)
