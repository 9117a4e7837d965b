"""The ledger of deliveries: who may send a message now, what was sent, and what nobody knows.

A delivery is one report of one event date to one chat. Telegram has no idempotency key, so the ledger decides. Table
`deliveries` is append-only: every attempt (a claim) leaves a row a step, and a delivery's state is read from the rows.

    bid ─▶ claimed ─▶ sent | failed | unknown ─▶ sent | failed, by the operator
      │                          └─▶ dismissed, by the operator
      └──▶ withdrawn

- `bid`: wants to be the one who sends; certainly nothing was sent.
- `claimed`: is the one who sends; a message may be on its way. A claim whose lease ran out (its process died) counts as
  unknown.
- `failed`: certainly nothing was sent, so the next run may send.
- `unknown`: the request left, no answer came. Never sent again blindly: somebody looks into the chat and settles it.
- `dismissed`: failed, and nobody is to look after it any more.

Which claim of a delivery came later is told by their steps, never by time, since a server's clock may be set back: who
wins has seen the steps of all who won before, and takes the next one.

An id belongs to the chat that numbered the message. A group that becomes a supergroup is another chat, with ids of its
own: what stands in the old one can no longer be edited, and what is to be said from then on is a new message.

How two runs at once are kept from both sending. ClickHouse has neither unique keys nor compare-and-set, and rows
become visible in another order than that of their time stamps, so "the earliest row wins" lets two win. What it does
have: once an insert has returned, every later read sees it. That is enough for mutual exclusion by Lamport's one-bit
algorithm. A run inserts its bid, then reads: seeing no other live bid or claim, it has won, because any other run
inserts its own bid before it reads, and so sees this one. Of several bids that see each other, the smallest id stays
and waits while the others withdraw; those then wait for the outcome and look again.

- Single server: the above holds for MergeTree as it is. Replicas: inserts ask for `insert_quorum` and reads for
  `select_sequential_consistency`, which make it hold there; a single server ignores both. `INSERT … SELECT` is
  never an asynchronous insert.
- A run that was suspended must not send on an old claim. Bids and claims hold for a limited time on the server's clock;
  the run measures on its own monotonic clock, from before the insert, that its time is not over right before every
  request. What remains is a process frozen for the whole margin between that look and its next system call.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pandas as pd
import tenacity

from pulse import PulseError
from pulse.clickhouse import ClickHouse, ClickHouseError

State = Literal["bid", "withdrawn", "claimed", "sent", "failed", "unknown", "dismissed"]
Action = Literal["send", "edit"]

# Waiting for another run: soon at first, since it is usually done in a moment.
FIRST_LOOK, LAST_LOOK = 0.05, 1.0
# A lease is used up to here only, since this process's clock and the server's may not run at the same speed.
CLOCK_MARGIN = 0.8
EPOCH = datetime.fromtimestamp(0, UTC)


class LedgerError(PulseError):
    """The ledger cannot be read or written, or does not know a reference."""


@dataclass(frozen=True)
class Key:
    """What is delivered at most once: one report of one event date to one chat (`id`, or `id/thread` for a topic)."""

    report: str
    event_date: date
    chat: str

    def __str__(self) -> str:
        return f"{self.report} of {self.event_date} to {self.chat}"


@dataclass(frozen=True)
class Posted:
    """A message, by its id in the chat that numbered it; in another chat the same id is another message."""

    recipient: str
    id: int

    def is_in(self, recipient: str) -> bool:
        """Whether it stands in this chat, in whichever of its topics."""
        return chat_of(self.recipient) == chat_of(recipient)


def chat_of(recipient: str) -> str:
    """The chat of a recipient; its topics share it."""
    return recipient.partition("/")[0]


@dataclass(frozen=True)
class Content:
    """What is to be sent, as far as the ledger remembers it.

    Args:
        hash: of all of it.
        numbers: the headline numbers by column, as English writes them.
        photo: whether there is one.
    """

    hash: str
    numbers: Mapping[str, str] = field(default_factory=dict)
    photo: bool = False


@dataclass(frozen=True)
class Row:
    """A step of a claim."""

    key: Key
    claim: str
    step: int
    state: State
    action: Action
    recipient: str  # the chat, or the one it migrated to
    content: Content
    message_id: int = 0  # 0: not known
    run: str = ""
    error: str = ""
    lease: float = 0.0  # seconds for which a bid or a claim holds
    at: datetime = EPOCH  # set by the server

    @property
    def posted(self) -> Posted:
        """The message it is about; with the id 0 where that is not known."""
        return Posted(self.recipient, self.message_id)

    def live(self, now: datetime) -> bool:
        """Whether somebody may be sending on it at this moment."""
        return self.state in ("bid", "claimed") and now < self.at + timedelta(seconds=self.lease)


@dataclass(frozen=True)
class Standing:
    """Where a delivery stands: read from its rows by `standing`."""

    rivals: tuple[Row, ...] = ()  # bids and claims that hold
    unknown: Row | None = None  # a message that may or may not have arrived
    first: Row | None = None  # the message as first published
    last: Row | None = None  # the message as last published
    failed: Row | None = None  # the latest attempt, if it failed
    published: tuple[Row, ...] = ()  # every attempt that put something into the chat, or may have
    turn: int = 0  # the step of the latest claim; whoever wins next takes the one after it

    @property
    def doubtful(self) -> bool:
        """Whether an attempt to edit the message since may have changed it."""
        return self.failed is not None and self.failed.action == "edit"

    def settles(self, content: Content) -> bool:
        """Whether there is nothing to do: the message stands as wanted, or nobody may send."""
        as_wanted = self.last is not None and self.last.content.hash == content.hash and not self.doubtful
        return self.unknown is not None or as_wanted


def standing(rows: Sequence[Row], now: datetime) -> Standing:
    """The state of one delivery.

    Args:
        rows: all its rows.
        now: the server's time, which decides what still holds.
    """
    latest: dict[str, Row] = {}
    turns: dict[str, int] = {}  # the step with which each claim won, also where only what came of it is at hand
    for row in sorted(rows, key=lambda row: (row.step, row.at)):
        latest[row.claim] = row
        if row.state not in ("bid", "withdrawn"):
            turns.setdefault(row.claim, row.step if row.state == "claimed" else row.step - 1)
    claims = sorted(latest.values(), key=lambda row: (turns.get(row.claim, 0), row.at, row.claim))
    lost = [row for row in claims if row.state == "unknown" or (row.state == "claimed" and not row.live(now))]
    # Editing twice is the same as editing once: an edit without an answer is no riddle, it is done again.
    unknown = [row for row in lost if row.action == "send"]
    sent = [row for row in claims if row.state == "sent"]
    ends = ("sent", "failed", "dismissed")
    ended = [row for row in claims if row.state in ends or (row in lost and row.action == "edit")]
    return Standing(
        rivals=tuple(row for row in claims if row.live(now)),
        unknown=unknown[-1] if unknown else None,
        first=next((row for row in reversed(sent) if row.action == "send"), None),
        last=sent[-1] if sent else None,
        failed=ended[-1] if ended and ended[-1].state != "sent" else None,
        published=tuple(row for row in claims if row.state == "sent" or row in lost),
        turn=max(turns.values(), default=0),
    )


@dataclass(frozen=True)
class Claim:
    """The right to send, for a limited time."""

    row: Row
    standing: Standing
    ends: float  # on this process's monotonic clock

    @property
    def left(self) -> float:
        """Seconds for which it is sure to hold; a request that might take longer must not begin."""
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
        """Become the one who sends, once nobody else is at it; or learn that there is nothing to do.

        Args:
            key: what is to be delivered.
            content: what it is to say.
            run: which run this is.
            recipient: where a new message goes, if not to the chat itself (see `homes`).

        Returns:
            The claim, to be ended by `end`; or where the delivery stands, when that settles it.

        Raises:
            LedgerError: the ledger cannot be read or written, or other runs keep at it; nothing was sent.
        """
        give_up = time.monotonic() + 3 * self.lease
        for pause in _pauses():
            if time.monotonic() > give_up:
                break
            here = standing(*await self._rows(key))
            if not here.rivals and here.settles(content):
                return here
            place, bid_step = recipient or key.chat, max(here.turn, 1)
            bid = Row(key, secrets.token_hex(5), bid_step, "bid", "send", place, content, run=run, lease=self.bid)
            if not here.rivals and (won := await self._contest(bid)):
                return won
            await asyncio.sleep(pause)
        raise LedgerError(f"Other runs have been at the delivery of {key} for {3 * self.lease:g} s.")

    async def _contest(self, mine: Row) -> Claim | None:
        """One round of the one-bit algorithm: a claim, or None after withdrawing."""
        bid_ends = time.monotonic() + self.bid * CLOCK_MARGIN
        try:
            await self._write(mine)
            here = await self._alone(mine, bid_ends)
            if here is None or here.settles(mine.content):
                await self._write(_next(mine, "withdrawn"))
                return None
            # What stands in a chat that was left behind cannot be edited: its id means nothing in the new one.
            if here.last and here.last.posted.is_in(mine.recipient):
                mine = replace(mine, action="edit", recipient=here.last.recipient, message_id=here.last.message_id)
            claim_ends = self._lease_from_now()
            mine = replace(mine, step=max(here.turn, mine.step) + 1, state="claimed", lease=self.lease)
            await self._write(mine)
            if time.monotonic() > bid_ends:
                # The bid may have run out before the claim was there, and another run may have won meanwhile.
                await self._write(_next(mine, "withdrawn"))
                return None
            return Claim(mine, here, claim_ends)
        except (asyncio.CancelledError, LedgerError):
            # A write given up on may still arrive; the higher step makes this row the last word all the same.
            self._try_to_write(_next(mine, "withdrawn"))
            raise

    async def _alone(self, mine: Row, until: float) -> Standing | None:
        """Wait while smaller bids are not in the way: the standing once no rival is left, None to withdraw."""
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
        """Where a delivery stands at this moment.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return standing(*await self._rows(key))

    async def end(self, claim: Claim, state: State, **outcome: object) -> Row:
        """Write down how a claim ended, repeatedly if need be: the message is out, and this is the only memory of it.

        Args:
            claim: what ends.
            state: sent, failed or unknown.
            outcome: what is known now: `message_id`, `recipient`, `content`, `error`.

        Raises:
            LedgerError: it could not be written; the delivery will count as unknown.
        """
        row = replace(_next(claim.row, state), lease=0.0, **outcome)  # type: ignore[arg-type]
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
        """Write down, if that can be done, that nobody knows how the claim ended: this process is being stopped."""
        self._try_to_write(replace(_next(claim.row, "unknown"), lease=0.0, error=error))

    def recent(self, seconds: float = 60.0) -> list[tuple[str, float]]:
        """Recipients of the last messages sent by anybody, each with its age in seconds."""
        sql = """
            select recipient, abs(toUnixTimestamp64Micro(now64(6)) - toUnixTimestamp64Micro(recorded_at)) / 1e6 as age
            from deliveries
            where state = 'sent' and age < {seconds:UInt32}
        """
        frame = self._read(sql, seconds=int(seconds))
        return list(zip(frame["recipient"], frame["age"].astype(float), strict=True))

    def homes(self) -> dict[str, str]:
        """The chats that migrated, each with where its messages go now. A chat does so once."""
        sql = """
            select chat, any(recipient) as home
            from deliveries
            where state in ('sent', 'failed', 'unknown') and recipient != chat
            group by chat
        """
        frame = self._read(sql)
        return dict(zip(frame["chat"], frame["home"], strict=True))

    def standings(self) -> dict[Key, Standing]:
        """The deliveries with an attempt that is under way, failed or unknown, or was once."""
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
        by_key: dict[Key, list[Row]] = {}
        for row in rows:
            by_key.setdefault(row.key, []).append(row)
        return {key: standing(found, now) for key, found in by_key.items()}

    def recipient(self, ref: str) -> str:
        """Where the message of a delivery whose end nobody knows went, or the last one of another.

        Raises:
            LedgerError: no such delivery, several, or somebody is sending it now.
        """
        key, here = self._named(ref)
        row = here.unknown or here.last
        return row.recipient if row else key.chat

    def settle(self, ref: str, state: Literal["sent", "failed"], error: str, posted: Posted | None = None) -> Row:
        """The operator's word on a delivery, which may be given by the first characters of its reference.

        Args:
            ref: of the delivery.
            state: `sent`: it arrived; `failed`: it is to be sent (again).
            error: who says so.
            posted: the message that arrived, where it is known; it may stand in the chat that this one has become.

        Raises:
            LedgerError: no such delivery, several, somebody is sending it now, or there is nothing to settle.
        """
        key, here = self._named(ref)
        if state == "sent" and here.unknown is None:
            raise LedgerError(f"The delivery of {key} is not unknown: there is nothing to settle.")
        # Sending anew forgets the message and its edits; what arrived was the unknown one.
        settled = [here.unknown] if here.unknown and state == "sent" else list(here.published)
        if not settled:
            raise LedgerError(f"The delivery of {key} was not sent; the next run sends it.")
        place = {"message_id": posted.id, "recipient": posted.recipient} if posted else {"message_id": 0}
        return self._say(settled, state, error, **place)

    def dismiss(self, ref: str, error: str) -> Row:
        """The operator's word that nobody is to look after a failed delivery any more.

        A later run of the report may send it all the same.

        Args:
            ref: of the delivery, or its first characters.
            error: who says so.

        Raises:
            LedgerError: no such delivery, several, somebody is sending it now, or it did not fail.
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
        """The delivery with a reference, which nobody is at."""
        found, _ = self._select("where startsWith(claim, {ref:String})", ref=ref)
        if len({row.claim for row in found}) != 1:
            many = "There are several deliveries" if found else "There is no delivery"
            raise LedgerError(
                f"{many} with the reference {ref!r}; `pulse deliveries` lists those to look after, "
                "`pulse deliveries --date yesterday` all of a day."
            )
        key = found[-1].key
        here = standing(*self._select(OF_KEY, **_of_key(key)))
        if here.rivals:
            until = max(row.at + timedelta(seconds=row.lease) for row in here.rivals)
            raise LedgerError(f"The delivery of {key} is under way; settle it after {until:%H:%M:%S} UTC.")
        return key, here

    def _say(self, settled: Sequence[Row], state: State, error: str, **outcome: object) -> Row:
        """Write the last word on some claims; the own end of one that is thought lost comes before it."""
        entries = [
            replace(row, step=row.step + 2, state=state, error=error, lease=0.0, **outcome)  # type: ignore[arg-type]
            for row in settled
        ]
        self._insert(entries)
        return replace(entries[-1], at=datetime.now(UTC))

    # --- rows -------------------------------------------------------------------------------------------------------

    async def _rows(self, key: Key) -> tuple[list[Row], datetime]:
        return await asyncio.to_thread(self._select, OF_KEY, **_of_key(key))

    async def _write(self, row: Row) -> None:
        await asyncio.to_thread(self._insert, [row])

    def _try_to_write(self, row: Row) -> None:
        # If it cannot be written, the lease will run out.
        with suppress(LedgerError):
            self._insert([row])

    def _select(self, which: str, **values: object) -> tuple[list[Row], datetime]:
        """Rows, and the server's time at which they were read."""
        frame = self._read(f"{SELECT} {which}", **values)
        records = frame.to_dict("records")
        return [_row(record) for record in records], _moment(records[0]["now"] if records else 0)

    def _read(self, sql: str, **values: object) -> pd.DataFrame:
        try:
            return self.db.read(f"{sql} settings select_sequential_consistency = 1", **values)
        except ClickHouseError as error:
            raise LedgerError(f"The ledger of deliveries cannot be read: {error}") from None

    def _insert(self, rows: Sequence[Row]) -> None:
        for row in rows:
            try:
                self.db.execute(INSERT, **_values(row))
            except ClickHouseError as error:
                raise LedgerError(f"The ledger of deliveries cannot be written: {error}") from None


COLUMNS = (
    "report, event_date, chat, claim, step, state, action, recipient, content_hash, numbers, with_photo, message_id, "
    "run, error, lease"
)
SELECT = (
    f"select {COLUMNS}, toUnixTimestamp64Micro(recorded_at) as at, toUnixTimestamp64Micro(now64(6)) as now "  # noqa: S608
    "from deliveries"
)
# Acknowledged only when it can be read: the algorithm rests on it.
INSERT = f"""
    insert into deliveries ({COLUMNS})
    settings insert_quorum = 'auto', insert_quorum_parallel = 0
    select
        {{report:String}}, {{event_date:Date}}, {{chat:String}}, {{claim:String}}, {{step:UInt16}}, {{state:String}},
        {{action:String}}, {{recipient:String}}, {{content_hash:String}}, {{numbers:String}}, {{with_photo:Bool}},
        {{message_id:Int64}}, {{run:String}}, {{error:String}}, {{lease:Float64}}
"""
# A migrated chat may since have been configured under its new id: its deliveries are the same ones.
OF_KEY = """
    where report = {report:String} and event_date = {event_date:Date}
        and (chat = {chat:String} or recipient = {chat:String})
"""


def _next(row: Row, state: State) -> Row:
    """The step of a claim after this one."""
    return replace(row, step=row.step + 1, state=state)


def _pauses() -> Iterator[float]:
    """Seconds between looks at what another run is doing, without end."""
    pause = FIRST_LOOK
    while True:
        yield pause
        pause = min(pause * 1.5, LAST_LOOK)


def _of_key(key: Key) -> dict[str, object]:
    return {"report": key.report, "event_date": key.event_date, "chat": key.chat}


def _values(row: Row) -> dict[str, object]:
    content = row.content
    what = {"content_hash": content.hash, "numbers": json.dumps(dict(content.numbers), ensure_ascii=False)}
    how = {"step": row.step, "state": row.state, "action": row.action, "recipient": row.recipient, "lease": row.lease}
    end = {"message_id": row.message_id, "run": row.run, "error": row.error[:1000], "with_photo": content.photo}
    return {**_of_key(row.key), "claim": row.claim, **how, **what, **end}


def _row(record: Mapping[str, Any]) -> Row:
    day = record["event_date"]
    return Row(
        key=Key(record["report"], day.date() if isinstance(day, datetime) else day, record["chat"]),
        claim=record["claim"],
        step=int(record["step"]),
        state=record["state"],
        action=record["action"],
        recipient=record["recipient"],
        content=Content(record["content_hash"], json.loads(record["numbers"] or "{}"), bool(record["with_photo"])),
        message_id=int(record["message_id"]),
        run=record["run"],
        error=record["error"],
        lease=float(record["lease"]),
        at=_moment(record["at"]),
    )


def _moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=int(micros))
