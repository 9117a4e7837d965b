"""Failures of Telegram on demand, and its rate limits."""

import time
from collections import deque
from dataclasses import dataclass, field

from pulse_sandbox.bot_api import Refusal

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
    """A failure that will happen to a request.

    `429` asks the client to wait `seconds`; `slow` answers after that time; `lost_before` and `lost_after` cut the
    connection before or after the request is carried out; `migrated` moves the chat to the id `to`; `garbage` carries
    the request out and answers with a page of HTML; `refused` answers with `code` and the text that Telegram `says`.
    The others are error answers of the Bot API; with `processed`, a request with a 5xx answer is carried out.
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
    """Telegram's rate limits: 1 message a second to a chat, 20 a minute to a group, 30 a second in total."""

    on: bool = False
    sent: dict[int | None, deque[float]] = field(default_factory=dict)

    def check(self, chat: int) -> None:
        """Count a message that is about to be sent.

        Raises:
            Refusal: a limit is exceeded; the answer is 429 with the seconds to wait.
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
    """The failures that will happen, in their order."""

    pending: list[Fault] = field(default_factory=list)

    def take(self, method: str, chat: object) -> Fault | None:
        """Return the failure for this request, if there is one, and count it."""
        for fault in self.pending:
            same_chat = fault.chat is None or str(fault.chat) == str(chat)
            if same_chat and fault.method in (None, method):
                fault.count -= 1
                if fault.count <= 0:
                    self.pending.remove(fault)
                return fault
        return None
