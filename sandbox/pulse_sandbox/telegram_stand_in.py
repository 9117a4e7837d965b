"""A Telegram Bot API on loopback, for development and tests: what the bot sends appears on a chat page.

It implements the methods that this project uses as the Bot API documents them, with Telegram's limits and error texts.
It keeps every message on disk and fails on demand as the real service can. It tests our client, not Telegram. It
answers programs and its own chat page, but no other web page (see `web`).

Its data folder has `journal.jsonl` (append-only, one line per chat, message or change), `photos/`, and `chat.html`, a
copy of the chat page that opens without the server.

Beside the Bot API it has a small interface of its own, for tests and experiments:
    GET    /sandbox                             what runs here: data folder and process
    GET    /sandbox/messages?chat=-1001         the messages as they are now
    POST   /sandbox/chats    {id, title, type, topics: {thread: name}}
    POST   /sandbox/say      {chat, text}       a person writes to the bot (getUpdates returns it)
    POST   /sandbox/delete   {chat, message}    an administrator deletes a message
    POST   /sandbox/limits   {on}               enforce Telegram's rate limits, or not (the default)
    POST   /sandbox/faults   {kind, chat, method, count, seconds, to, code, says}; GET lists those still to come,
                                                DELETE drops them
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pulse import settings
from pulse_sandbox import process


@dataclass(frozen=True)
class Server:
    """A running stand-in."""

    host: str
    port: int
    data: Path
    pid: int

    @property
    def url(self) -> str:
        """The value for TELEGRAM_API_URL."""
        return f"http://{self.host}:{self.port}"

    @property
    def chat_page(self) -> str:
        """The address of the chat page."""
        return f"{self.url}/"


def serve(data: Path, port: int | None = None) -> None:
    """Serve the Bot API on loopback until stopped.

    Raises:
        SandboxError: the data folder cannot be used, another stand-in uses it, or the port is taken.
    """
    # Imported here because only the process that serves needs them, and they load slowly.
    import uvicorn

    from pulse_sandbox import telegram_http
    from pulse_sandbox.chat_store import Store

    with process.taken("Telegram", data, port) as listening:
        store = Store(data)
        peers: telegram_http.Peers = {}
        about = {
            "sandbox": "telegram",
            "port": listening.getsockname()[1],
            "data": str(data.resolve()),
            "pid": os.getpid(),
        }
        app = telegram_http.application(store, peers, settings.load().zone, about)
        config = uvicorn.Config(
            app,
            http=telegram_http.connections(peers),
            log_level="warning",
            lifespan="on",
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def running(data: Path, port: int | None = None) -> Iterator[Server]:
    """Run a stand-in in a separate process for the length of the `with` block.

    It listens on the port given, else on the one that it had last time, or on a free one if that is taken.

    Raises:
        SandboxError: it could not be started; the text says why.
    """
    with process.running("pulse_sandbox.telegram_stand_in", data, port) as about:
        yield _server(about)


def answering(port: int) -> Server | None:
    """Return the stand-in on this port of this machine, or None if nothing or something else answers there."""
    about = process.identity(port)
    return _server(about) if about and about.get("sandbox") == "telegram" else None


def serving(data: Path) -> Server | None:
    """Return the stand-in that serves this data folder now, or None."""
    server = answering(settings.last_port(data))
    return server if server and server.data == data.resolve() else None


def _server(about: process.About) -> Server:
    return Server(process.HOST, about["port"], Path(about["data"]), about["pid"])


if __name__ == "__main__":
    sys.exit(process.main("pulse_sandbox.telegram_stand_in", serve))
