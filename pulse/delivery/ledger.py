"""The ledger of deliveries: who may send a message now, what was sent, and what nobody knows.

A delivery is one report of one event date to one chat. Telegram's Bot API has no idempotency key, so the ledger decides
who sends. Table `deliveries` is append-only: every attempt is a claim that leaves a row for each of its steps, and the
state of a delivery is read from these rows.

    bid ─▶ claimed ─▶ sent | failed | unknown ─▶ sent | failed, by the operator
      │                          └─▶ dismissed, by the operator
      └──▶ withdrawn

- `bid`: asks for the right to send; certainly nothing was sent.
- `claimed`: has the right to send; a message may be on its way. When the lease of a claim expires because its process
  died, the claim counts as unknown.
- `failed`: certainly nothing was sent, so the next run may send.
- `unknown`: the request left and no answer came. It is never sent again automatically: the operator looks into the chat
  and settles it.
- `dismissed`: failed, and the operator took it off the list.

Claims of a delivery are ordered by their steps, not by time, since a server's clock may be set back: a winner has seen
the steps of all earlier winners and takes the next one.

A message id belongs to the chat that gave it. A group that becomes a supergroup is another chat with ids of its own, so
the message in the old chat can no longer be edited, and the next version is sent as a new message.

How two concurrent runs are kept from both sending. ClickHouse has neither unique keys nor compare-and-set, and rows do
not become visible in the order of their time stamps, so "the earliest row wins" would let two runs win. What ClickHouse
does guarantee: once an insert has returned, every later read sees it. That is enough for mutual exclusion by Lamport's
one-bit algorithm. A run inserts its bid, then reads. If it sees no other live bid or claim, it has won, because any
other run inserts its own bid before it reads, and will see this one. Of several bids that see each other, the smallest
id stays and waits; the others withdraw, wait for the outcome and look again.

- On a single server this holds for MergeTree as it is. On replicas, inserts ask for `insert_quorum` and reads for
  `select_sequential_consistency`, which make it hold there; a single server ignores both. `INSERT … SELECT` is never an
  asynchronous insert.
- A run that was suspended must not send on an expired claim. Leases are counted on the server's clock; the run measures
  on its own monotonic clock, starting before the insert, and checks the time left right before every request. What
  remains is a process that is frozen for the whole margin between that check and its next system call.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import pandas as pd
import tenacity

from pulse import PulseError, clickhouse, schema
from pulse.clickhouse import ClickHouse, ClickHouseError, records
from pulse.delivery.rows import (
    INSERT,
    OF_KEY,
    SELECT,
    Content,
    Key,
    LedgerRow,
    Posted,
    State,
    from_record,
    key_values,
    moment,
    next_step,
    row_values,
)
from pulse.delivery.standing import Standing, standing
from pulse.settings import Settings

# Seconds between looks at another run: short at first, since it is usually done in a moment.
FIRST_LOOK, LAST_LOOK = 0.05, 1.0
# The part of a lease that is used, since this process's clock and the server's may run at different speeds.
CLOCK_MARGIN = 0.8


class LedgerError(PulseError):
    """The ledger cannot be read or written, or does not contain a reference."""


@dataclass(frozen=True)
class Claim:
    """The right to send, for a limited time."""

    row: LedgerRow
    standing: Standing
    ends: float  # on this process's monotonic clock

    @property
    def left(self) -> float:
        """Seconds for which the claim certainly holds; a request that might take longer must not begin."""
        return self.ends - time.monotonic()


@dataclass(frozen=True)
class Ledger:
    """Table `deliveries` in the project's database.

    Args:
        db: where it is.
        lease: seconds for which a claim holds; after that its message is unknown.
        bid: seconds for which a bid holds.
    """

    db: ClickHouse
    lease: float = 300.0
    bid: float = 30.0

    async def claim(self, key: Key, content: Content, run: str, recipient: str = "") -> Claim | Standing:
        """Win the right to send, once no other run has it; or find out that there is nothing to do.

        Args:
            key: what to deliver.
            content: what to say.
            run: which run this is.
            recipient: where a new message goes, if not to the chat itself (see `homes`).

        Returns:
            The claim, which `end` ends; or the state of the delivery, where that leaves nothing to do.

        Raises:
            LedgerError: the ledger cannot be read or written, or other runs hold it too long; nothing was sent.
        """
        give_up = time.monotonic() + 3 * self.lease
        for pause in _pauses():
            if time.monotonic() > give_up:
                break
            here = standing(*await self._rows(key))
            if not here.rivals and here.settles(content):
                return here
            where, bid_step = recipient or key.chat, max(here.turn, 1)
            bid = LedgerRow(key, secrets.token_hex(5), bid_step, "bid", "send", where, content, run=run, lease=self.bid)
            if not here.rivals and (won := await self._contest(bid)):
                return won
            await asyncio.sleep(pause)
        raise LedgerError(f"Other runs have been busy with the delivery of {key} for {3 * self.lease:g} s.")

    async def _contest(self, mine: LedgerRow) -> Claim | None:
        """One round of the one-bit algorithm: returns the claim, or None after withdrawing."""
        bid_ends = time.monotonic() + self.bid * CLOCK_MARGIN
        try:
            await self._write(mine)
            here = await self._alone(mine, bid_ends)
            if here is None or here.settles(mine.content):
                await self._write(next_step(mine, "withdrawn"))
                return None
            # A message in the chat from before a migration cannot be edited: its id means nothing in the new chat.
            if here.last and here.last.posted.is_in(mine.recipient):
                mine = replace(mine, action="edit", recipient=here.last.recipient, message_id=here.last.message_id)
            claim_ends = self._lease_from_now()
            mine = replace(mine, step=max(here.turn, mine.step) + 1, state="claimed", lease=self.lease)
            await self._write(mine)
            if time.monotonic() > bid_ends:
                # The bid may have expired before the claim was written, and another run may have won meanwhile.
                await self._write(next_step(mine, "withdrawn"))
                return None
            return Claim(mine, here, claim_ends)
        except (asyncio.CancelledError, LedgerError):
            # The write that failed may still arrive; the higher step of this row makes it the last word anyway.
            self._try_to_write(next_step(mine, "withdrawn"))
            raise

    async def _alone(self, mine: LedgerRow, until: float) -> Standing | None:
        """Wait until no rival is left, then return the standing; None where a claim or a smaller bid is there."""
        for pause in _pauses():
            if time.monotonic() > until:
                break
            here = standing(*await self._rows(mine.key))
            rivals = [row for row in here.rivals if row.claim != mine.claim]
            if not rivals:
                return replace(here, rivals=())
            if any(row.state == "claimed" or row.claim < mine.claim for row in rivals):
                return None
            await asyncio.sleep(pause)
        return None

    def _lease_from_now(self) -> float:
        return time.monotonic() + self.lease * CLOCK_MARGIN

    async def look(self, key: Key) -> Standing:
        """The state of a delivery right now.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return standing(*await self._rows(key))

    async def end(self, claim: Claim, state: State, **outcome: object) -> LedgerRow:
        """Record how a claim ended, with retries: the message is out, and this is the only record of it.

        Args:
            claim: the claim that ends.
            state: sent, failed or unknown.
            outcome: what is known by now: `message_id`, `recipient`, `content`, `error`.

        Raises:
            LedgerError: it could not be written; the delivery will count as unknown.
        """
        row = replace(next_step(claim.row, state), lease=0.0, **outcome)  # type: ignore[arg-type]
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(LedgerError),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
            stop=tenacity.stop_after_delay(min(30.0, self.lease / 2)),
            reraise=True,
        ):
            with attempt:
                await self._write(row)
        return replace(row, at=datetime.now(UTC))

    def abandon(self, claim: Claim, error: str) -> None:
        """Record, if possible, that nobody knows how the claim ended: this process is being stopped."""
        self._try_to_write(replace(next_step(claim.row, "unknown"), lease=0.0, error=error))

    def recent(self, seconds: float = 60.0) -> list[tuple[str, float]]:
        """The recipients of the last messages sent by any run, each with its age in seconds."""
        sql = """
            select recipient, abs(toUnixTimestamp64Micro(now64(6)) - toUnixTimestamp64Micro(recorded_at)) / 1e6 as age
            from deliveries
            where state = 'sent' and age < {seconds:UInt32}
        """
        frame = self._read(sql, seconds=int(seconds))
        return list(zip(frame["recipient"], frame["age"].astype(float), strict=True))

    def homes(self) -> dict[str, str]:
        """The chats that migrated, each with the chat where its messages go now. A chat migrates only once."""
        sql = """
            select chat, any(recipient) as home
            from deliveries
            where state in ('sent', 'failed', 'unknown') and recipient != chat
            group by chat
        """
        frame = self._read(sql)
        return dict(zip(frame["chat"], frame["home"], strict=True))

    def standings(self) -> dict[Key, Standing]:
        """The deliveries that have, or once had, an attempt that is under way, failed or unknown."""
        return self._standings("""
            where (report, event_date, chat) in (
                select report, event_date, chat
                from deliveries
                group by report, event_date, chat, claim
                having argMax(state, (step, recorded_at)) in ('claimed', 'failed', 'unknown')
            )
        """)

    def of_day(self, event_date: date) -> dict[Key, Standing]:
        """All deliveries of an event date."""
        return self._standings("where event_date = {event_date:Date}", event_date=event_date)

    def _standings(self, which: str, **values: object) -> dict[Key, Standing]:
        rows, now = self._select(which, **values)
        by_key: dict[Key, list[LedgerRow]] = {}
        for row in rows:
            by_key.setdefault(row.key, []).append(row)
        return {key: standing(found, now) for key, found in by_key.items()}

    def recipient(self, ref: str) -> str:
        """Where the unknown message of a delivery went; without one, where its last message went.

        Raises:
            LedgerError: there is no such delivery, there are several, or it is being sent right now.
        """
        key, here = self._named(ref)
        row = here.unknown or here.last
        return row.recipient if row else key.chat

    def settle(self, ref: str, state: Literal["sent", "failed"], error: str, posted: Posted | None = None) -> LedgerRow:
        """Record what the operator says about a delivery.

        Args:
            ref: the delivery's reference, or its first characters.
            state: `sent`: it arrived; `failed`: send it (again).
            error: who says so.
            posted: the message that arrived, if it is known; it may be in the chat that this one migrated to.

        Raises:
            LedgerError: there is no such delivery, there are several, it is being sent right now, or it is not unknown.
        """
        key, here = self._named(ref)
        if state == "sent" and here.unknown is None:
            raise LedgerError(f"The delivery of {key} is not unknown: there is nothing to settle.")
        # Sending again forgets the message and all its edits; the message that arrived is the unknown one only.
        settled = [here.unknown] if here.unknown and state == "sent" else list(here.published)
        if not settled:
            raise LedgerError(f"The delivery of {key} was not sent; the next run sends it.")
        arrived = {"message_id": posted.id, "recipient": posted.recipient} if posted else {"message_id": 0}
        return self._say(settled, state, error, **arrived)

    def dismiss(self, ref: str, error: str) -> LedgerRow:
        """Record that the operator took a failed delivery off the list.

        A later run of the report may still send it.

        Args:
            ref: the delivery's reference, or its first characters.
            error: who says so.

        Raises:
            LedgerError: there is no such delivery, there are several, it is being sent right now, or it did not fail.
        """
        key, here = self._named(ref)
        if here.unknown:
            raise LedgerError(
                f"Nobody knows whether the delivery of {key} arrived: settle it by `pulse deliveries arrived {ref}` or "
                f"`pulse deliveries resend {ref}` first."
            )
        if here.failed is None or here.failed.state == "dismissed":
            raise LedgerError(f"The delivery of {key} did not fail: there is nothing to dismiss.")
        return self._say([here.failed], "dismissed", error)

    def _named(self, ref: str) -> tuple[Key, Standing]:
        """The delivery with a reference, and its state; no run is sending it."""
        found, _ = self._select("where startsWith(claim, {ref:String})", ref=ref)
        if len({row.claim for row in found}) != 1:
            many = "There are several deliveries" if found else "There is no delivery"
            raise LedgerError(
                f"{many} with the reference {ref!r}; `pulse deliveries` lists those that need attention, "
                "`pulse deliveries --date yesterday` all deliveries of a day."
            )
        key = found[-1].key
        here = standing(*self._select(OF_KEY, **key_values(key)))
        if here.rivals:
            until = max(row.at + timedelta(seconds=row.lease) for row in here.rivals)
            raise LedgerError(f"The delivery of {key} is under way; settle it after {until:%H:%M:%S} UTC.")
        return key, here

    def _say(self, settled: Sequence[LedgerRow], state: State, error: str, **outcome: object) -> LedgerRow:
        """Append the last row of some claims. The end that a lost claim may still write itself has a lower step."""
        entries = [
            replace(row, step=row.step + 2, state=state, error=error, lease=0.0, **outcome)  # type: ignore[arg-type]
            for row in settled
        ]
        self._insert(entries)
        return replace(entries[-1], at=datetime.now(UTC))

    # --- rows -------------------------------------------------------------------------------------------------------

    async def _rows(self, key: Key) -> tuple[list[LedgerRow], datetime]:
        return await asyncio.to_thread(self._select, OF_KEY, **key_values(key))

    async def _write(self, row: LedgerRow) -> None:
        await asyncio.to_thread(self._insert, [row])

    def _try_to_write(self, row: LedgerRow) -> None:
        # If it cannot be written, the lease expires.
        with suppress(LedgerError):
            self._insert([row])

    def _select(self, which: str, **values: object) -> tuple[list[LedgerRow], datetime]:
        """The rows, and the server's time when they were read."""
        found = records(self._read(f"{SELECT} {which}", **values))
        return [from_record(record) for record in found], moment(found[0]["now"] if found else 0)

    def _read(self, sql: str, **values: object) -> pd.DataFrame:
        try:
            return self.db.read(f"{sql} settings select_sequential_consistency = 1", **values)
        except ClickHouseError as error:
            raise LedgerError(f"The ledger of deliveries cannot be read: {error}") from None

    def _insert(self, rows: Sequence[LedgerRow]) -> None:
        for row in rows:
            try:
                self.db.execute(INSERT, **row_values(row))
            except ClickHouseError as error:
                raise LedgerError(f"The ledger of deliveries cannot be written: {error}") from None


def open_ledger(settings: Settings | None, db: ClickHouse | None, lease: float = 300.0, bid: float = 30.0) -> Ledger:
    """The ledger in the project's database.

    Args:
        settings: read from the environment unless given.
        db: where the ledger is; the settings' ClickHouse unless given.
        lease: seconds for which a claim holds.
        bid: seconds for which a bid holds.

    Raises:
        LedgerError: its table cannot be created.
    """
    if db is None:
        db = clickhouse.connect(settings)
        try:
            # A notice may be the first thing ever to be sent, or say that the tables are too old to run on.
            schema.create_missing(db)
        except ClickHouseError as error:
            raise LedgerError(f"The ledger of deliveries cannot be kept: {error}") from None
    return Ledger(db, lease, bid)


def _pauses() -> Iterator[float]:
    """Seconds between looks at another run, endlessly."""
    pause = FIRST_LOOK
    while True:
        yield pause
        pause = min(pause * 1.5, LAST_LOOK)
