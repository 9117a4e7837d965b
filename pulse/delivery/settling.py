"""Settling: the deliveries that need the operator, and the operator's word on them."""

import re
from datetime import date

from pulse.clickhouse import ClickHouse
from pulse.delivery.ledger import open_ledger
from pulse.delivery.message import Delivery, TelegramError
from pulse.delivery.rows import LedgerRow, Posted
from pulse.delivery.standing import Standing
from pulse.settings import Settings

SUPERGROUPS = -1_000_000_000_000  # supergroups and channels have ids below this


def pending(settings: Settings | None = None, db: ClickHouse | None = None) -> list[Delivery]:
    """The deliveries that need attention: unknown, failed, or being sent right now; the latest first.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = []
    for standing in open_ledger(settings, db).standings().values():
        row = standing.unknown or _claimed(standing) or standing.failed
        if row and row.state != "dismissed":
            found.append(Delivery.of(row, unknown=row is standing.unknown))
    return sorted(found, key=lambda each: (each.event_date, str(each.at)), reverse=True)


def of_day(event_date: date, settings: Settings | None = None, db: ClickHouse | None = None) -> list[Delivery]:
    """All deliveries of an event date with their states, by report and chat.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = []
    for standing in open_ledger(settings, db).of_day(event_date).values():
        if row := standing.unknown or _claimed(standing) or standing.failed or standing.last:
            found.append(Delivery.of(row, unknown=row is standing.unknown))
    return sorted(found, key=lambda each: (each.report, each.chat))


def _claimed(standing: Standing) -> LedgerRow | None:
    return next((row for row in standing.rivals if row.state == "claimed"), None)


def arrived(
    ref: str, message: str | int = "", *, settings: Settings | None = None, db: ClickHouse | None = None
) -> Delivery:
    """Settle an unknown delivery: the message is in the chat.

    Args:
        ref: the delivery's reference, or its first characters.
        message: the message's id or its link (in Telegram: Copy Message Link); without it, the message
            counts as arrived but cannot be corrected later.
        settings: read from the environment unless given.
        db: where the ledger is.

    Raises:
        LedgerError: no such delivery, or there is nothing to settle.
        TelegramError: the message is neither an id nor a link, or is in another chat.
    """
    ledger, said = open_ledger(settings, db), str(message).strip()
    posted = None
    if said:
        recipient = ledger.recipient(ref)
        posted = Posted(recipient, int(said)) if said.isdecimal() else _linked(said, recipient)
    return Delivery.of(ledger.settle(ref, "sent", "the operator saw it", posted))


def _linked(link: str, recipient: str) -> Posted:
    """The message of a link as Telegram copies it; it has to be in the chat that the delivery went to."""
    found = re.search(r"(?:^|/)t\.me/(?:c/(?P<group>\d+)|(?P<name>\w+))(?:/\d+)?/(?P<id>\d+)/?(?:\?.*)?$", link)
    if not found:
        raise TelegramError(f"{link!r} is not a message: expected its id, or its link as Telegram copies it.")
    chat, slash, thread = recipient.partition("/")
    there = f"-100{found['group']}" if found["group"] else f"@{found['name']}"
    if there.lower() == chat.lower() or (chat.startswith("@") != there.startswith("@") and not chat.isdecimal()):
        return Posted(recipient, int(found["id"]))  # a public name and an id may well be the same chat
    if chat.startswith("-") and int(chat) > SUPERGROUPS and there.startswith("-"):
        return Posted(f"{there}{slash}{thread}", int(found["id"]))  # the supergroup that the group has become
    raise TelegramError(f"{link} is a message in chat {there}; this delivery went to chat {chat}.")


def dismiss(ref: str, *, settings: Settings | None = None, db: ClickHouse | None = None) -> Delivery:
    """Take a failed delivery off the list.

    Raises:
        LedgerError: no such delivery, or it did not fail.
    """
    return Delivery.of(open_ledger(settings, db).dismiss(ref, "dismissed by the operator"))


def resend(ref: str, *, settings: Settings | None = None, db: ClickHouse | None = None) -> Delivery:
    """Settle an unknown delivery, or forget a sent one: the next run of its report sends it as a new message.

    Raises:
        LedgerError: no such delivery, or it was not sent in the first place.
    """
    return Delivery.of(open_ledger(settings, db).settle(ref, "failed", "to be sent again, as the operator decided"))
