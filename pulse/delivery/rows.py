"""The rows of table `deliveries`: one for each step of a claim, appended and never changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

State = Literal["bid", "withdrawn", "claimed", "sent", "failed", "unknown", "dismissed"]
Action = Literal["send", "edit"]

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Key:
    """What is delivered at most once: one report of one event date to one chat (`id`, or `id/thread` for a topic)."""

    report: str
    event_date: date
    chat: str

    @property
    def fields(self) -> tuple[str, date, str]:
        """The report, the event date and the chat."""
        return self.report, self.event_date, self.chat

    def __str__(self) -> str:
        return f"{self.report} of {self.event_date} to {self.chat}"


@dataclass(frozen=True)
class Posted:
    """A message: its id, and the chat that gave it. In another chat the same id is another message."""

    recipient: str
    id: int

    def is_in(self, recipient: str) -> bool:
        """Whether it is in this chat, in any of its topics."""
        return chat_of(self.recipient) == chat_of(recipient)


def chat_of(recipient: str) -> str:
    """The chat of a recipient, without its topic."""
    return recipient.partition("/")[0]


@dataclass(frozen=True)
class Content:
    """What a claim is to send, as far as the ledger records it.

    Args:
        hash: of the text, the numbers and the photo.
        numbers: the headline numbers by column, as English writes them.
        photo: whether there is a photo.
    """

    hash: str
    numbers: Mapping[str, str] = field(default_factory=dict)
    photo: bool = False


@dataclass(frozen=True)
class LedgerRow:
    """One step of a claim."""

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
        """The message that the claim is about; its id is 0 where it is not known."""
        return Posted(self.recipient, self.message_id)

    def live(self, now: datetime) -> bool:
        """Whether its lease holds, so that somebody may be sending right now."""
        return self.state in ("bid", "claimed") and now < self.at + timedelta(seconds=self.lease)


COLUMNS = (
    "report, event_date, chat, claim, step, state, action, recipient, content_hash, numbers, with_photo, message_id, "
    "run, error, lease"
)
SELECT = (
    f"select {COLUMNS}, toUnixTimestamp64Micro(recorded_at) as at, toUnixTimestamp64Micro(now64(6)) as now "  # noqa: S608
    "from deliveries"
)
# Acknowledged only once it can be read, which the algorithm relies on.
INSERT = f"""
    insert into deliveries ({COLUMNS})
    settings insert_quorum = 'auto', insert_quorum_parallel = 0
    select
        {{report:String}}, {{event_date:Date}}, {{chat:String}}, {{claim:String}}, {{step:UInt16}}, {{state:String}},
        {{action:String}}, {{recipient:String}}, {{content_hash:String}}, {{numbers:String}}, {{with_photo:Bool}},
        {{message_id:Int64}}, {{run:String}}, {{error:String}}, {{lease:Float64}}
"""
# A chat that migrated may be configured under its new id by now: its deliveries are still the same.
OF_KEY = """
    where report = {report:String} and event_date = {event_date:Date}
        and (chat = {chat:String} or recipient = {chat:String})
"""


def next_step(row: LedgerRow, state: State) -> LedgerRow:
    """The next step of the claim."""
    return replace(row, step=row.step + 1, state=state)


def key_values(key: Key) -> dict[str, object]:
    return {"report": key.report, "event_date": key.event_date, "chat": key.chat}


def row_values(row: LedgerRow) -> dict[str, object]:
    content = row.content
    what = {"content_hash": content.hash, "numbers": json.dumps(dict(content.numbers), ensure_ascii=False)}
    how = {"step": row.step, "state": row.state, "action": row.action, "recipient": row.recipient, "lease": row.lease}
    end = {"message_id": row.message_id, "run": row.run, "error": row.error[:1000], "with_photo": content.photo}
    return {**key_values(row.key), "claim": row.claim, **how, **what, **end}


def from_record(record: Mapping[str, Any]) -> LedgerRow:
    day = record["event_date"]
    return LedgerRow(
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
        at=moment(record["at"]),
    )


def moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=int(micros))
