"""A client with which tests use Telegram's stand-in."""

import itertools
from typing import Any

import httpx
from pulse_sandbox import telegram_stand_in

# Over loopback there is no certificate to check; loading the system's takes longer than the request.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}


class Telegram:
    """Creates chats for a test, makes requests fail, and reads what arrived."""

    def __init__(self, server: telegram_stand_in.Server) -> None:
        self.server = server
        self._ids = itertools.count(1_000_010_001)

    def new_chat(self, kind: str = "supergroup", **topics: str) -> str:
        """Create a chat for one test, with topics such as `t5="Alerts"`. Returns its id, as Telegram writes it."""
        number = next(self._ids)
        chat = {"private": str(number), "group": f"-{number}"}.get(kind, f"-100{number}")
        named = {thread.removeprefix("t"): name for thread, name in topics.items()}
        self.post("chats", id=int(chat), type=kind, topics=named)
        return chat

    def fault(self, kind: str, chat: str | None = None, **how: Any) -> None:
        """Make the next request for the chat fail."""
        self.post("faults", kind=kind, chat=chat and int(chat), **how)

    def messages(self, chat: str) -> list[dict[str, Any]]:
        """Returns the messages in a chat."""
        url = f"{self.server.url}/sandbox/messages"
        found: list[dict[str, Any]] = httpx.get(url, params={"chat": chat}, **PLAIN).json()
        return found

    def texts(self, chat: str) -> list[str]:
        """Returns the texts of the messages in a chat."""
        return [message["text"] for message in self.messages(chat)]

    def post(self, what: str, **body: Any) -> None:
        """Call the stand-in's own interface."""
        httpx.post(f"{self.server.url}/sandbox/{what}", json=body, **PLAIN).raise_for_status()

    def no_more_faults(self) -> None:
        """Remove the failures that have not happened yet."""
        httpx.delete(f"{self.server.url}/sandbox/faults", **PLAIN).raise_for_status()
