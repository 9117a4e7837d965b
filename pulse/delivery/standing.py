"""Where a delivery stands, read from its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pulse.delivery.rows import Content, LedgerRow


@dataclass(frozen=True)
class Standing:
    """The state of one delivery.

    Args:
        rivals: bids and claims whose leases hold.
        unknown: the claim whose message may or may not have arrived.
        first: the row that sent the message that is in the chat.
        last: the row that last sent or edited it.
        failed: the latest attempt, if it failed.
        published: every attempt that changed the chat, or may have.
        turn: the step of the latest claim; the next winner takes the one after it.
    """

    rivals: tuple[LedgerRow, ...] = ()
    unknown: LedgerRow | None = None
    first: LedgerRow | None = None
    last: LedgerRow | None = None
    failed: LedgerRow | None = None
    published: tuple[LedgerRow, ...] = ()
    turn: int = 0

    @property
    def doubtful(self) -> bool:
        """Whether a later attempt to edit the message may have changed it."""
        return self.failed is not None and self.failed.action == "edit"

    def settles(self, content: Content) -> bool:
        """Whether there is nothing to do: the message is as wanted, or nobody may send."""
        as_wanted = self.last is not None and self.last.content.hash == content.hash and not self.doubtful
        return self.unknown is not None or as_wanted


def standing(rows: Sequence[LedgerRow], now: datetime) -> Standing:
    """The state of one delivery.

    Args:
        rows: all its rows.
        now: the server's time, by which leases expire.
    """
    turns = _turns(rows)
    claims = sorted(_last_steps(rows), key=lambda row: (turns.get(row.claim, 0), row.at, row.claim))
    sent = [row for row in claims if row.state == "sent"]
    lost = [row for row in claims if _is_lost(row, now)]
    # Edits are idempotent: an edit without an answer is simply done again, so only a sent message can be unknown.
    unknown = [row for row in lost if row.action == "send"]
    ended = [row for row in claims if _has_ended(row) or (row in lost and row.action == "edit")]
    return Standing(
        rivals=tuple(row for row in claims if row.live(now)),
        unknown=unknown[-1] if unknown else None,
        first=next((row for row in reversed(sent) if row.action == "send"), None),
        last=sent[-1] if sent else None,
        failed=ended[-1] if ended and ended[-1].state != "sent" else None,
        published=tuple(row for row in claims if row in sent or row in lost),
        turn=max(turns.values(), default=0),
    )


def _in_order(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    return sorted(rows, key=lambda row: (row.step, row.at))


def _last_steps(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """The last step of each claim."""
    return list({row.claim: row for row in _in_order(rows)}.values())


def _turns(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """The step with which each claim won; where only its end is at hand, the step before that."""
    turns: dict[str, int] = {}
    for row in _in_order(rows):
        if row.state not in ("bid", "withdrawn"):
            turns.setdefault(row.claim, row.step if row.state == "claimed" else row.step - 1)
    return turns


def _is_lost(row: LedgerRow, now: datetime) -> bool:
    """Whether nobody knows how a claim ended: its process says so, or its lease has expired."""
    return row.state == "unknown" or (row.state == "claimed" and not row.live(now))


def _has_ended(row: LedgerRow) -> bool:
    return row.state in ("sent", "failed", "dismissed")
