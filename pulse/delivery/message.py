"""What is delivered: a message, and the record of one delivery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from pulse import PulseError
from pulse.delivery.rows import LedgerRow, State
from pulse.settings import Language


class TelegramError(PulseError):
    """A message cannot be sent as things are; the text says why and what to do."""


class DeliveryError(TelegramError):
    """Some chats did not get their message, the others did: see `deliveries`."""

    def __init__(self, text: str, deliveries: "Sequence[Delivery]") -> None:
        super().__init__(text)
        self.deliveries = list(deliveries)


@dataclass(frozen=True)
class Message:
    """A message as the chat should show it.

    Args:
        text: Telegram's HTML; escape every value in it with `html.escape`. Under a photo Telegram shows at most 1,024
            characters, of which about 150 should be left for a line about corrections; a longer text goes without the
            photo. Beyond 4,096 characters it is cut.
        photo: PNG or JPEG.
        numbers: the headline numbers, label to value as shown; a later run says which of them it corrected.
        columns: the column behind each label, where the label is not the column. A number counts as corrected only
            where both versions have it under the same column, whatever the label.
        language: of the numbers, and of what is said about the message; the settings' where empty.
        silent: deliver without a notification.
        reply_to: the report and event date whose message in the same chat this one replies to.
        only_edits: send nothing where the chat has no message of this delivery yet.
        ref: the reference of the archived run that the message comes from, shown in its last line. Another run with the
            same text and numbers has nothing new to say, so a new reference alone is no reason to edit.
        link: where that run can be looked at.
    """

    text: str
    photo: bytes | None = None
    numbers: Mapping[str, str | float | None] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    language: Language | Literal[""] = ""
    silent: bool = False
    reply_to: tuple[str, date] | None = None
    only_edits: bool = False
    ref: str = ""
    link: str = ""


@dataclass(frozen=True)
class Delivery:
    """One message to one chat, and its state."""

    report: str
    event_date: date
    chat: str
    state: State
    ref: str = ""  # for `pulse deliveries`
    did: Literal["sent", "edited", "nothing"] = "nothing"  # what this run did
    message_id: int = 0
    error: str = ""  # what happened and what to do; of a sent message, what the operator should know about it
    run: str = ""
    at: datetime | None = None

    @classmethod
    def of(cls, row: LedgerRow, *, unknown: bool = False) -> "Delivery":
        """The delivery of a row of the ledger; `unknown` where the row's lease has expired."""
        state: State = "unknown" if unknown else row.state
        error = what_to_settle(row) if state == "unknown" else row.error
        return cls(*row.key.fields, state, row.claim, "nothing", row.message_id, error, row.run, row.at)


def what_to_settle(row: LedgerRow) -> str:
    """That nobody knows whether a message arrived, and what the operator can do."""
    reason = row.error or "the run that sent it was cut off"
    return (
        f"nobody knows whether the message arrived ({reason}): look into the chat, then "
        f"`pulse deliveries arrived {row.claim}` if it is there, or `pulse deliveries resend {row.claim}` if it is not."
    )
