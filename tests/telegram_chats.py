"""Telegram's stand-in as a test uses it."""

import itertools
from typing import Any

import httpx
from pulse_sandbox import telegram_stand_in

# Over loopback there is no certificate to check; loading those of the system takes longer than the request.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False}


class Telegram:
    """Chats of a test's own, failures, and a look at what arrived."""

    def __init__(self, server: telegram_stand_in.Server) -> None:
        self.server = server
        self._ids = itertools.count(1_000_010_001)

    def new_chat(self, kind: str = "supergroup", **topics: str) -> str:
        """A chat that no other test uses, with an id as its kind has it; topics as `t5="Alerts"`."""
        number = next(self._ids)
        chat = {"private": str(number), "group": f"-{number}"}.get(kind, f"-100{number}")
        named = {thread.removeprefix("t"): name for thread, name in topics.items()}
        self.post("chats", id=int(chat), type=kind, topics=named)
        return chat

    def fault(self, kind: str, chat: str | None = None, **how: Any) -> None:
        """The next request for the chat fails."""
        self.post("faults", kind=kind, chat=chat and int(chat), **how)

    def messages(self, chat: str) -> list[dict[str, Any]]:
        """What stands in a chat."""
        url = f"{self.server.url}/sandbox/messages"
        found: list[dict[str, Any]] = httpx.get(url, params={"chat": chat}, **PLAIN).json()
        return found

    def texts(self, chat: str) -> list[str]:
        """The words that stand in a chat."""
        return [message["text"] for message in self.messages(chat)]

    def post(self, what: str, **body: Any) -> None:
        """Use the stand-in's own interface."""
        httpx.post(f"{self.server.url}/sandbox/{what}", json=body, **PLAIN).raise_for_status()

    def no_more_faults(self) -> None:
        """Drop the failures that have not struck."""
        httpx.delete(f"{self.server.url}/sandbox/faults", **PLAIN).raise_for_status()
