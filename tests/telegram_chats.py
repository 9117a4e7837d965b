"""Helps tests to use Telegram's stand-in."""

import itertools
from typing import Any

import httpx
from pulse_sandbox import telegram_stand_in

# Over loopback there are no certificates to check, and loading the system's takes longer than the request.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}


class Telegram:
    """Creates chats for a test, causes failures, and returns what arrived."""

    def __init__(self, server: telegram_stand_in.Server) -> None:
        self.server = server
        self._ids = itertools.count(1_000_010_001)

    def new_chat(self, kind: str = "supergroup", **topics: str) -> str:
        """Create a chat that no other test uses, with an id of the form that its kind has; topics as `t5="Alerts"`."""
        number = next(self._ids)
        chat = {"private": str(number), "group": f"-{number}"}.get(kind, f"-100{number}")
        named = {thread.removeprefix("t"): name for thread, name in topics.items()}
        self.post("chats", id=int(chat), type=kind, topics=named)
        return chat

    def fault(self, kind: str, chat: str | None = None, **how: Any) -> None:
        """Make the next request for the chat fail."""
        self.post("faults", kind=kind, chat=chat and int(chat), **how)

    def messages(self, chat: str) -> list[dict[str, Any]]:
        """Return the messages in a chat."""
        url = f"{self.server.url}/sandbox/messages"
        found: list[dict[str, Any]] = httpx.get(url, params={"chat": chat}, **PLAIN).json()
        return found

    def texts(self, chat: str) -> list[str]:
        """Return the texts of the messages in a chat."""
        return [message["text"] for message in self.messages(chat)]

    def post(self, what: str, **body: Any) -> None:
        """Call the stand-in's own interface."""
        httpx.post(f"{self.server.url}/sandbox/{what}", json=body, **PLAIN).raise_for_status()

    def no_more_faults(self) -> None:
        """Cancel the failures that have not happened yet."""
        httpx.delete(f"{self.server.url}/sandbox/faults", **PLAIN).raise_for_status()
