"""The chats and messages of Telegram's stand-in: a journal on disk, and its latest state in memory."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

from pulse import settings
from pulse_sandbox import chat_page

BOT = {
    "id": int(settings.SANDBOX_TELEGRAM_TOKEN.partition(":")[0]),
    "is_bot": True,
    "first_name": "Pulse",
    "username": "pulse_sandbox_bot",
}
FIRST_CHAT = {"id": int(settings.SANDBOX_CHAT), "title": "Pulse reports", "type": "supergroup"}
FIRST_TOPICS = {"2": "Daily report", "3": "Live metrics", "4": "Alerts"}


class Store:
    """Chats and messages: a journal on disk, and its latest state in memory.

    A change is on disk before the request is answered. If a crash cut off a line, its request was never answered, so
    the line is dropped at the next start.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.chats: dict[int, dict[str, Any]] = {}
        self.messages: dict[int, dict[int, dict[str, Any]]] = {}
        self.last_id: dict[int, int] = {}
        self.updates: list[dict[str, Any]] = []
        self.version = 0
        (data / "photos").mkdir(exist_ok=True)
        self._journal = self._replayed(data / "journal.jsonl")
        if not self.chats:
            self.add_chat({**FIRST_CHAT, "topics": FIRST_TOPICS})

    def _replayed(self, path: Path) -> IO[bytes]:
        journal = path.open("a+b")
        journal.seek(0)
        whole = 0
        for line in journal:
            if not line.endswith(b"\n"):
                break
            self._apply(json.loads(line))
            whole += len(line)
        journal.truncate(whole)
        return journal

    def _apply(self, entry: dict[str, Any]) -> None:
        self.version += 1
        value = entry["value"]
        if entry["what"] == "chat":
            self.chats[value["id"]] = value
            self.messages.setdefault(value["id"], {})
        elif entry["what"] == "message":
            self.messages[value["chat"]][value["id"]] = value
            # As in Telegram, the id of a deleted message is never used again.
            self.last_id[value["chat"]] = max(value["id"], self.last_id.get(value["chat"], 0))
            if value["person"] and not value["edited"]:
                self.updates.append(value)
        elif entry["what"] == "deleted":
            self.messages[value["chat"]].pop(value["id"], None)

    def _record(self, what: str, value: dict[str, Any]) -> None:
        entry = {"at": round(time.time(), 3), "what": what, "value": value}
        self._journal.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._apply(entry)

    def add_chat(self, chat: dict[str, Any]) -> None:
        """Add a chat the bot is in, or replace its title and topics."""
        self._record("chat", chat)

    def add(self, chat: int, **message: Any) -> dict[str, Any]:
        """Store a new message under the next id of its chat."""
        blank: dict[str, Any] = {
            "thread": None,
            "text": "",
            "entities": [],
            "photo": None,
            "silent": False,
            "reply_to": None,
        }
        who = {"from": BOT["first_name"], "person": False, "edited": None}
        new = {"chat": chat, "id": self.last_id.get(chat, 0) + 1, "date": int(time.time()), **who, **blank, **message}
        self._record("message", new)
        return new

    def change(self, message: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Store an edit; the earlier version stays in the journal."""
        changed = {**message, **changes, "edited": int(time.time())}
        self._record("message", changed)
        return changed

    def delete(self, chat: int, message: int) -> None:
        """Forget a message; it stays in the journal."""
        self._record("deleted", {"chat": chat, "id": message})

    def keep_photo(self, content: bytes, suffix: str) -> str:
        """Put a photo on disk, whole or not at all. Returns its file name, which is the same for the same content."""
        name = hashlib.sha256(content).hexdigest()[:24] + suffix
        path = self.data / "photos" / name
        if not path.exists():
            write_whole(path, content)
        return name

    def page(self, zone: ZoneInfo, live: bool) -> str:
        """The chat page as HTML; `live` adds the script that renews it."""
        messages = {chat: [found[key] for key in sorted(found)] for chat, found in self.messages.items()}
        return chat_page.page(list(self.chats.values()), messages, zone, live)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    partial_file = path.with_name(f"{path.name}.partial")
    with partial_file.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial_file.replace(path)
