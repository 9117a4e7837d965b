"""Sending: the only way a message reaches a chat, recorded in table `deliveries` before and after.

A report of an event date reaches each chat once. Delivering it again does nothing when it says the same, and edits the
message in place when it says something else, with a line that says what was corrected. When Telegram gave no answer,
nobody knows whether a message arrived, and it is never sent again: the operator looks into the chat and settles it
(`pulse.delivery.settling`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

import tenacity

from pulse.clickhouse import ClickHouse
from pulse.delivery.access import bot_access, chat_list
from pulse.delivery.bot import Bot, Migrated, NotSent, Refused, Unknown, connected
from pulse.delivery.composing import Composer, had_photo
from pulse.delivery.ledger import Claim, Ledger, LedgerError, open_ledger
from pulse.delivery.message import Delivery, DeliveryError, Message, TelegramError, what_to_settle
from pulse.delivery.pace import Limits, Pace
from pulse.delivery.refusals import failure, is_about_photo
from pulse.delivery.rows import Key, Posted, chat_of
from pulse.delivery.standing import Standing
from pulse.settings import Settings, load


def deliver(
    report: str,
    event_date: date,
    message: Message,
    chats: str | Sequence[str],
    *,
    run: str = "",
    settings: Settings | None = None,
    db: ClickHouse | None = None,
    limits: Limits | None = None,
) -> list[Delivery]:
    """Bring a report to its chats: send it, correct the message that is there, or do nothing where it is up to date.

    Args:
        report: its name; together with the event date and the chat it is the key of a delivery. A report that goes out
            several times a day has the hour in its name, unless it is one message that is kept up to date.
        event_date: the day that it is about.
        message: what to say.
        chats: `id` or `id/thread`, as a list or separated by commas.
        run: which run this is, for the ledger.
        settings: read from the environment unless given.
        db: where the ledger is; the settings' ClickHouse unless given.
        limits: of time and rate.

    Returns:
        One delivery for each chat, in the order of the chats, all of them `sent`.

    Raises:
        TelegramError: nothing was sent: there is no chat or no text, or a chat, the token or the address is malformed.
        LedgerError: nothing was sent: the ledger cannot be read.
        DeliveryError: every chat was tried and some did not get it; the text names each with what to do.
    """
    settings, limits = settings or load(), limits or Limits()
    recipients = chat_list(chats)
    if not message.text.strip():
        raise TelegramError("The message has no text.")
    composer = Composer(message, message.language or settings.language, settings.zone)
    ledger = open_ledger(settings, db, limits.lease, limits.bid)
    dispatch = _Dispatch(report, event_date, message, run, bot_access(settings), ledger, limits, composer)
    deliveries = asyncio.run(dispatch.deliver_to(recipients))
    missing = [each for each in deliveries if each.state != "sent"]
    if missing:
        what = f"{len(missing)} of {len(deliveries)} chats did not get {report} of {event_date}."
        raise DeliveryError("\n".join([what, *(f"{each.chat}: {each.error}" for each in missing)]), deliveries)
    return deliveries


@dataclass(frozen=True)
class _Outcome:
    """What is in the chat after an attempt."""

    posted: Posted
    photo: bool
    remark: str = ""


@dataclass(frozen=True)
class _Dispatch:
    """One report of one event date on its way to its chats."""

    report: str
    event_date: date
    message: Message
    run: str
    access: tuple[str, str]  # the Bot API's address and the token
    ledger: Ledger
    limits: Limits
    composer: Composer

    async def deliver_to(self, chats: Sequence[str]) -> list[Delivery]:
        """Serve all chats at once: no chat waits for another, and none fails because of another."""
        pace = Pace(self.limits, self.ledger.recent())
        homes = self.ledger.homes()
        async with connected(*self.access, self.limits.timeouts) as bot:
            ends = await asyncio.gather(
                *(self._deliver(bot, pace, chat, homes.get(chat, chat)) for chat in chats), return_exceptions=True
            )
        # What goes wrong with one chat is in its delivery. An exception is a bug, raised once all are served.
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return [end for end in ends if isinstance(end, Delivery)]

    async def _deliver(self, bot: Bot, pace: Pace, chat: str, recipient: str) -> Delivery:
        """Serve one chat, following it where Telegram has migrated it to another id."""
        key = Key(self.report, self.event_date, chat)
        left: list[str] = []  # the ids that the chat turned out to have left
        while True:
            try:
                if self.message.only_edits and (await self.ledger.look(key)).last is None:
                    return Delivery(*key.fields, "sent", run=self.run)
                reply_to = await self._replied(chat)
                await pace.turn(recipient)
                claim = await self.ledger.claim(key, self.composer.content(), self.run, recipient)
            except LedgerError as error:
                return Delivery(*key.fields, "failed", error=f"nothing was sent: {error}", run=self.run)
            if isinstance(claim, Standing):
                row = claim.unknown or claim.last
                assert row is not None
                return Delivery.of(row, unknown=row is claim.unknown)
            try:
                done, home = await self._carry_out(bot, claim, reply_to)
            except asyncio.CancelledError:
                self.ledger.abandon(claim, "the run was stopped while it was sending")
                raise
            left.append(claim.row.recipient)
            if home is None or home in left or done.state != "failed":
                return done
            recipient = home

    async def _carry_out(self, bot: Bot, claim: Claim, reply_to: Posted | None) -> tuple[Delivery, str | None]:
        """Send or edit what was claimed and record how it ended.

        Returns:
            The delivery, and the chat's new id if Telegram says that it has migrated. Nothing is sent to the new id on
            this claim: message ids, and so whether to send or to edit, are different there.
        """
        editing = claim.row.action == "edit"
        try:
            outcome = await self._publish(bot, claim, reply_to)
        except Migrated as error:
            _, slash, thread = claim.row.recipient.partition("/")
            home = f"{error.chat}{slash}{thread}"
            return await self._ended(claim, "failed", error=failure(error), recipient=home), home
        except (NotSent, Refused) as error:
            return await self._ended(claim, "failed", error=failure(error, claim.row.claim)), None
        except Unknown as error:
            if editing:
                # The chat shows the earlier version or the new one; the next run edits it again.
                sentence = f"the message may still show the earlier numbers ({error}): run it again"
                return await self._ended(claim, "failed", error=sentence), None
            return await self._ended(claim, "unknown", error=str(error)), None
        shown = replace(claim.row.content, photo=outcome.photo)
        posted = outcome.posted
        arrived = {"message_id": posted.id, "recipient": posted.recipient}
        return await self._ended(claim, "sent", error=outcome.remark, content=shown, **arrived), None

    async def _ended(self, claim: Claim, state: Literal["sent", "failed", "unknown"], **outcome: Any) -> Delivery:
        did: Literal["sent", "edited", "nothing"] = "nothing"
        if state == "sent":
            did = "edited" if claim.row.action == "edit" else "sent"
        try:
            row = await self.ledger.end(claim, state, **outcome)
        except LedgerError as error:
            # The claim has no end in the ledger, so it will count as unknown.
            words = {
                "sent": f"it was sent: `pulse deliveries arrived {{ref}} --message {outcome.get('message_id', 0)}`",
                "failed": "nothing was sent: `pulse deliveries resend {ref}`",
                "unknown": what_to_settle(claim.row),
            }
            sentence = f"{words[state].format(ref=claim.row.claim)}, once ClickHouse takes it again ({error})"
            return Delivery(*claim.row.key.fields, "unknown", claim.row.claim, did, error=sentence, run=self.run)
        return replace(Delivery.of(row), did=did)

    async def _publish(self, bot: Bot, claim: Claim, reply_to: Posted | None) -> _Outcome:
        """Send or edit, without the photo where Telegram refuses it."""
        photo, missing = self.composer.photo(claim)
        remarks = [f"without the photo: {missing}"] if missing else []
        if chat_of(claim.row.recipient) != chat_of(claim.row.key.chat):
            remarks.append(f"the chat is {claim.row.recipient} now: put that in place of {claim.row.key.chat}")
        while True:
            html = self.composer.html(claim, photo is not None, missing)
            try:
                posted = await self._request(bot, claim, html, photo, reply_to)
                return _Outcome(posted, had_photo(claim) or photo is not None, "; ".join(remarks))
            except Refused as refusal:
                if photo is None or not is_about_photo(refusal):
                    raise
                # The operator gets Telegram's words; readers only learn that the chart is missing.
                photo, missing = None, self.composer.words("refused")
                remarks.insert(0, f"without the photo: {refusal}")

    async def _request(self, bot: Bot, claim: Claim, html: str, photo: bytes | None, reply_to: Posted | None) -> Posted:
        """Make one request, and repeat it while that is safe and the claim holds; returns the message."""
        editing, posted = claim.row.action == "edit", claim.row.posted
        if editing and not posted.id:
            raise Refused(400, "message to edit not found")

        async def request() -> Posted:
            if claim.left < self.limits.request:
                raise NotSent("this run was held up too long")
            if not editing:
                return await bot.send(claim.row.recipient, html, photo, self.message.silent, reply_to)
            await bot.edit(posted, html, photo, had_photo(claim))
            return posted

        # Edits are idempotent, so an edit may be repeated even when no answer came.
        return await _repeated(request, (NotSent, Unknown) if editing else (NotSent,), claim, self.limits)

    async def _replied(self, chat: str) -> Posted | None:
        if self.message.reply_to is None:
            return None
        here = await self.ledger.look(Key(*self.message.reply_to, chat))
        return here.last.posted if here.last else None


async def _repeated(
    request: Callable[[], Awaitable[Posted]], safe: tuple[type[Exception], ...], claim: Claim, limits: Limits
) -> Posted:
    """Repeat a request until it succeeds, fails for good, or the next try could outlast the claim."""

    def wait(state: tenacity.RetryCallState) -> float:
        asked = getattr(state.outcome and state.outcome.exception(), "wait", None)
        # Jitter: runs that were told to wait equally long should not all come back at the same moment.
        jitter = random.uniform(0, 0.5)  # noqa: S311
        return float(asked) + jitter if asked is not None else min(0.25 * 2**state.attempt_number, 30.0) + jitter

    def stop(state: tenacity.RetryCallState) -> bool:
        return claim.left - state.upcoming_sleep < limits.request

    attempts = tenacity.AsyncRetrying(retry=tenacity.retry_if_exception_type(safe), wait=wait, stop=stop, reraise=True)
    return await attempts(request)
