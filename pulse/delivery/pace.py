"""Telegram's rate limits, and how long things may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pulse.delivery.bot import Timeouts
from pulse.delivery.rows import chat_of


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how many messages may go out.

    The lease covers sending a message with all retries; a process that died holds its claim until the lease expires.
    """

    lease: float = 300.0
    bid: float = 30.0
    connect: float = 10.0
    answer: float = 30.0
    request: float = 60.0
    # Telegram's limits, each as messages and seconds: to one chat, to one group, and in total.
    to_chat: tuple[int, float] = (1, 1.0)
    to_group: tuple[int, float] = (20, 60.0)
    to_all: tuple[int, float] = (30, 1.0)

    @property
    def timeouts(self) -> Timeouts:
        """Those of one request."""
        return Timeouts(connect=self.connect, write=self.answer, read=self.answer, whole=self.request)


class Pace:
    """Keeps Telegram's rate limits, counting what other processes sent in the last minute too."""

    def __init__(
        self,
        limits: Limits,
        recent: Sequence[tuple[str, float]] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Start with the messages sent so far, each as its recipient and its age in seconds."""
        self._limits, self._clock, self._sleep = limits, clock, sleep
        self._sent: list[tuple[str, float]] = sorted(
            ((chat_of(recipient), clock() - age) for recipient, age in recent), key=lambda each: each[1]
        )

    async def turn(self, recipient: str) -> None:
        """Wait until a message may go to this recipient, and count it."""
        chat = chat_of(recipient)
        while (wait := self._wait(chat)) > 0:
            await self._sleep(wait)
        self._sent.append((chat, self._clock()))

    def _wait(self, chat: str) -> float:
        limits = [(self._limits.to_all, None), (self._limits.to_chat, chat)]
        if chat.startswith(("-", "@")):
            limits.append((self._limits.to_group, chat))
        return max(self._until_free(count, seconds, only) for (count, seconds), only in limits)

    def _until_free(self, count: int, seconds: float, only: str | None) -> float:
        now = self._clock()
        recent = [at for chat, at in self._sent if only in (None, chat) and at > now - seconds]
        return recent[-count] + seconds - now if len(recent) >= count else 0.0
