"""Sending: the only module through which messages leave, each of them recorded before and after in `pulse.deliveries`.

A report of an event date reaches each chat once. Running it again does nothing when it says the same, and edits the
message in place when it says something else, with a line that says so. What nobody knows (no answer came) is never sent
again: the operator looks into the chat and settles it, see `arrived` and `resend`.
"""

import asyncio
import hashlib
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from html import escape, unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

import tenacity

from pulse import PulseError, clickhouse, schema, wording
from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.delivery.ledger import Claim, Content, Key, Ledger, LedgerError, Posted, Row, Standing, chat_of
from pulse.settings import LANGUAGES, SANDBOX_TELEGRAM_API_URL, SANDBOX_TELEGRAM_TOKEN, Language, Settings, load

# The client takes a quarter of a second to import; who only reads the ledger should not wait for it.
if TYPE_CHECKING:
    from pulse.delivery.bot import Bot, Migrated, NotSent, Refused, Timeouts

T = TypeVar("T")

API_URL = "https://api.telegram.org"
MAX_TEXT, MAX_CAPTION = 4096, 1024  # UTF-16 code units, formatting not counted
MAX_PHOTO_BYTES = 10 * 1024 * 1024
SUPERGROUPS = -1_000_000_000_000  # their ids, and channels', are below
CORRECTION_ROOM = 150  # characters left for the line that tells of a correction, where a text has to be cut anyway


class TelegramError(PulseError):
    """A message cannot be sent as things are; the text says why and what to do."""


class DeliveryError(TelegramError):
    """Some chats did not get their message; the others did. `deliveries` holds all of them."""

    def __init__(self, text: str, deliveries: "Sequence[Delivery]") -> None:
        super().__init__(text)
        self.deliveries = list(deliveries)


@dataclass(frozen=True)
class Message:
    """A message as it is to stand in the chat.

    Args:
        text: Telegram's HTML; every value in it escaped with `html.escape`. With a photo at most 1,024 characters are
            shown, of which about 150 are best left for the line that tells of a correction; with more of them it goes
            without the photo. After 4,096 it is cut.
        photo: PNG or JPEG.
        numbers: the headline numbers, label to value as shown; a later run says which of them changed.
        columns: what those labels stand for, where that is something else than the label: a number is corrected only
            where both versions have it under the same column, whatever it is called.
        language: of the numbers, and of what is said about the message; the settings' where it is empty.
        silent: without a notification.
        reply_to: the report and event date whose message in the same chat this one answers.
        only_edits: where nothing stands in a chat yet, nothing is sent.
        ref: the archived run that the message comes from, told in its last line; another run with the same text and
            numbers says nothing new, so it is no reason to edit.
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
    """One message to one chat, and how it stands."""

    report: str
    event_date: date
    chat: str
    state: Literal["sent", "failed", "unknown", "claimed", "dismissed"]
    ref: str = ""  # for `pulse deliveries`
    did: Literal["sent", "edited", "nothing"] = "nothing"  # what this run did
    message_id: int = 0
    error: str = ""  # what happened and what to do; of a message that was sent, what is to be known about it
    run: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how many messages may go out.

    Within a lease a message is sent, retried and waited for; a process that died holds its claim for as long.
    """

    lease: float = 300.0
    bid: float = 30.0
    connect: float = 10.0
    answer: float = 30.0
    request: float = 60.0
    # Telegram's own: messages and seconds, to one chat, to one group, and in all.
    to_chat: tuple[int, float] = (1, 1.0)
    to_group: tuple[int, float] = (20, 60.0)
    to_all: tuple[int, float] = (30, 1.0)


# --- what a notebook hands on -----------------------------------------------------------------------------------------


def handed_on(handed: Mapping[str, Any], notebook: str) -> Message:
    """The message that a notebook handed on, by its scraps: `text`, `chart`, `numbers`, `metrics`, `language`.

    Raises:
        TelegramError: there is no text, or something is not of its kind; the text says what to do.
    """
    text, chart, language = handed.get("text"), handed.get("chart"), handed.get("language") or ""
    if not isinstance(text, str) or not text.strip():
        found = ", ".join(handed) or "nothing"
        raise TelegramError(
            f"{notebook} handed on no text (what it handed on: {found}): end the notebook with "
            "`notebooks.glue(text=…)`, run it again, then clear this task."
        )
    if chart is not None and not isinstance(chart, bytes):
        raise TelegramError(f"The chart that {notebook} handed on is not a figure: `notebooks.glue(chart=figure)`.")
    if language not in ("", *LANGUAGES):
        raise TelegramError(
            f"The language that {notebook} handed on is {language!r}; expected one of {list(LANGUAGES)}."
        )
    try:
        numbers = {str(label): number for label, number in _pairs(handed.get("numbers"))}
        columns = [str(column) for column, _ in _pairs(handed.get("metrics"))]
    except (TypeError, ValueError):
        raise TelegramError(
            f"The numbers that {notebook} handed on are not pairs: "
            "`notebooks.glue(numbers=[('DAU', 1100)], metrics=[('app_users', 'users')])`."
        ) from None
    known = dict(zip(numbers, columns, strict=True)) if len(numbers) == len(columns) else {}
    return Message(text, chart, numbers, known, language)


def _pairs(handed: Any) -> Sequence[tuple[Any, Any]]:
    found = list((handed.items() if isinstance(handed, Mapping) else handed) or [])
    return [(name, value) for name, value in found]


def alerts_handed_on(handed: Mapping[str, Any], notebook: str) -> list[dict[str, Any]]:
    """The alerts that a notebook handed on, as `pulse.monitoring.incidents.alerts` makes them.

    Raises:
        TelegramError: there is no list of them.
    """
    found = handed.get("alerts")
    if not isinstance(found, list):
        raise TelegramError(
            f"{notebook} handed on no list of alerts (what it handed on: {', '.join(handed) or 'nothing'}): end the "
            "notebook with `notebooks.glue(alerts=[…])`, run it again, then clear this task."
        )
    return found


def alert(told: Mapping[str, Any], handed: Mapping[str, Any]) -> Message:
    """The message of an alert, its chart out of what the notebook handed on beside it.

    Raises:
        TelegramError: something of it is missing.
    """
    try:
        _, day = told["report"], date.fromisoformat(told["event_date"])
        return Message(
            str(told["text"]),
            handed[told["chart"]] if told["chart"] else None,
            silent=bool(told["silent"]),
            reply_to=(told["reply_to"], day) if told["reply_to"] else None,
            only_edits=bool(told["only_edits"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        which = told.get("report", told) if isinstance(told, Mapping) else told
        raise TelegramError(
            f"The alert {which!r} is not as pulse.monitoring.incidents.alerts makes them: {error!r}."
        ) from None


# --- delivering -------------------------------------------------------------------------------------------------------


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
    """Bring a report to its chats: send it, correct what stands there, or do nothing where it stands already.

    Args:
        report: its name; with the event date and the chat it makes the key of a delivery. What is sent several times a
            day has the hour in its name, unless it is to be one message that is kept up to date.
        event_date: the day it is about.
        message: what it says.
        chats: `id` or `id/thread`, as a list or separated by commas.
        run: which run this is, for the ledger.
        settings: read from the environment unless given.
        db: where the ledger is; the settings' ClickHouse unless given.
        limits: of time and rate.

    Returns:
        One delivery a chat, in the order of the chats, every one of them `sent`.

    Raises:
        TelegramError: nothing was sent: no chat, a wrong one, no text, a malformed token or address.
        LedgerError: nothing was sent: the ledger cannot be read.
        DeliveryError: every chat was tried, and some did not get it; the text names each with what to do.
    """
    settings, limits = settings or load(), limits or Limits()
    recipients = chat_list(chats)
    _check_text(message)
    _access(settings)
    desk = _Desk(report, event_date, message, run, settings, _ledger(settings, db, limits), limits)
    deliveries = asyncio.run(desk.deliver_to(recipients))
    missing = [each for each in deliveries if each.state != "sent"]
    if missing:
        what = f"{len(missing)} of {len(deliveries)} chats did not get {report} of {event_date}."
        raise DeliveryError("\n".join([what, *(f"{each.chat}: {each.error}" for each in missing)]), deliveries)
    return deliveries


def chat_list(chats: str | Sequence[str]) -> list[str]:
    """Chats as `id`, `id/thread` or `@channel`, without repetitions.

    The General topic, which links call `id/1`, has no thread of its own: it is the group itself.

    Raises:
        TelegramError: there is none, or one that is none of these.
    """
    listed = chats.split(",") if isinstance(chats, str) else chats
    found = list(dict.fromkeys(re.sub(r"/0*1$", "", chat.strip()) for chat in listed if chat.strip()))
    if not found:
        raise TelegramError("There is no chat to send to: set TELEGRAM_REPORT_CHATS, _LIVE_CHATS or _ALERT_CHATS.")
    for chat in found:
        if not re.fullmatch(r"(-?\d+|@\w+)(/\d+)?", chat):
            raise TelegramError(
                f"{chat!r} is not a chat: expected an id such as -1001234567890, or id/thread for a topic."
            )
    return found


@dataclass(frozen=True)
class _Outcome:
    """What an attempt left in the chat."""

    posted: Posted
    photo: bool
    remark: str = ""


@dataclass(frozen=True)
class _Desk:
    """One report of one event date on its way to its chats."""

    report: str
    event_date: date
    message: Message
    run: str
    settings: Settings
    ledger: Ledger
    limits: Limits

    async def deliver_to(self, chats: Sequence[str]) -> list[Delivery]:
        """Serve all chats at once; no chat waits for another, and none fails because of another."""
        from pulse.delivery.bot import connected

        pace = Pace(self.limits, self.ledger.recent())
        homes = self.ledger.homes()
        async with connected(*_access(self.settings), _timeouts(self.limits)) as bot:
            ends = await asyncio.gather(
                *(self._deliver(bot, pace, chat, homes.get(chat, chat)) for chat in chats), return_exceptions=True
            )
        # What goes wrong with one chat is in its delivery; an exception is a mistake in here, told once all are served.
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return [end for end in ends if isinstance(end, Delivery)]

    async def _deliver(self, bot: "Bot", pace: "Pace", chat: str, recipient: str) -> Delivery:
        """Serve a chat, in whatever chat it has become meanwhile."""
        key = Key(self.report, self.event_date, chat)
        gone: list[str] = []  # the chats that turned out to have moved on
        while True:
            try:
                if self.message.only_edits and (await self.ledger.look(key)).last is None:
                    return Delivery(*_fields(key), "sent", run=self.run)
                reply_to = await self._replied(chat)
                await pace.turn(recipient)
                claim = await self.ledger.claim(key, self._content(), self.run, recipient)
            except LedgerError as error:
                return Delivery(*_fields(key), "failed", error=f"nothing was sent: {error}", run=self.run)
            if isinstance(claim, Standing):
                row = claim.unknown or claim.last
                assert row is not None
                return _row_delivery(row, unknown=row is claim.unknown)
            try:
                done, home = await self._carry_out(bot, claim, reply_to)
            except asyncio.CancelledError:
                self.ledger.abandon(claim, "the run was stopped while it was sending")
                raise
            gone.append(claim.row.recipient)
            if home is None or home in gone or done.state != "failed":
                return done
            recipient = home

    async def _carry_out(self, bot: "Bot", claim: Claim, reply_to: Posted | None) -> tuple[Delivery, str | None]:
        """Do what was claimed and write down how it ended; beside it where the chat is now, if it has moved on.

        Nothing is sent there on this claim: ids, the chart, even what is to be said may be others in another chat.
        """
        from pulse.delivery.bot import Migrated, NotSent, Refused, Unknown

        editing = claim.row.action == "edit"
        try:
            outcome = await self._publish(bot, claim, reply_to)
        except Migrated as error:
            _, slash, thread = claim.row.recipient.partition("/")
            home = f"{error.chat}{slash}{thread}"
            return await self._ended(claim, "failed", error=_failure(error), recipient=home), home
        except (NotSent, Refused) as error:
            return await self._ended(claim, "failed", error=_failure(error, claim.row.claim)), None
        except Unknown as error:
            if editing:
                # Telegram shows the earlier message or the new one; the next run makes sure of it.
                sentence = f"the message may still show the earlier numbers ({error}): run it again"
                return await self._ended(claim, "failed", error=sentence), None
            return await self._ended(claim, "unknown", error=str(error)), None
        shown = replace(claim.row.content, photo=outcome.photo)
        posted = outcome.posted
        place = {"message_id": posted.id, "recipient": posted.recipient}
        return await self._ended(claim, "sent", error=outcome.remark, content=shown, **place), None

    async def _ended(self, claim: Claim, state: Literal["sent", "failed", "unknown"], **outcome: Any) -> Delivery:
        did: Literal["sent", "edited", "nothing"] = "nothing"
        if state == "sent":
            did = "edited" if claim.row.action == "edit" else "sent"
        try:
            row = await self.ledger.end(claim, state, **outcome)
        except LedgerError as error:
            # Left as it is, the claim will count as unknown.
            words = {
                "sent": f"it was sent: `pulse deliveries arrived {{ref}} --message {outcome.get('message_id', 0)}`",
                "failed": "nothing was sent: `pulse deliveries resend {ref}`",
                "unknown": _riddle(claim.row),
            }
            sentence = f"{words[state].format(ref=claim.row.claim)}, once ClickHouse takes it again ({error})"
            return Delivery(*_fields(claim.row.key), "unknown", claim.row.claim, did, error=sentence, run=self.run)
        return replace(_row_delivery(row), did=did)

    async def _publish(self, bot: "Bot", claim: Claim, reply_to: Posted | None) -> _Outcome:
        """Send or edit, without the photo where Telegram will not have it."""
        from pulse.delivery.bot import Refused

        photo, missing = self._photo(claim)
        remarks = [f"without the photo: {missing}"] if missing else []
        if chat_of(claim.row.recipient) != chat_of(claim.row.key.chat):
            remarks.append(f"the chat is {claim.row.recipient} now: put that in the place of {claim.row.key.chat}")
        while True:
            html = self._html(claim, photo is not None, missing)
            try:
                posted = await self._request(bot, claim, html, photo, reply_to)
                return _Outcome(posted, _had_photo(claim) or photo is not None, "; ".join(remarks))
            except Refused as refusal:
                if photo is None or not _is_about_photo(refusal):
                    raise
                # What Telegram says is for the operator; readers are told that it is so.
                photo, missing = None, self._words("refused")
                remarks.insert(0, f"without the photo: {refusal}")

    async def _request(
        self, bot: "Bot", claim: Claim, html: str, photo: bytes | None, reply_to: Posted | None
    ) -> Posted:
        """One request, repeated while that is safe and the claim holds; gives the message."""
        from pulse.delivery.bot import NotSent, Refused, Unknown

        editing, posted = claim.row.action == "edit", claim.row.posted
        if editing and not posted.id:
            raise Refused(400, "message to edit not found")

        async def request() -> Posted:
            if claim.left < self.limits.request:
                raise NotSent("this run was held up for too long")
            if not editing:
                return await bot.send(claim.row.recipient, html, photo, self.message.silent, reply_to)
            await bot.edit(posted, html, photo, _had_photo(claim))
            return posted

        # Editing twice is the same as editing once, so an edit may be repeated even when no answer came.
        return await _repeated(request, (NotSent, Unknown) if editing else (NotSent,), claim, self.limits)

    async def _replied(self, chat: str) -> Posted | None:
        if self.message.reply_to is None:
            return None
        here = await self.ledger.look(Key(*self.message.reply_to, chat))
        return here.last.posted if here.last else None

    @property
    def _language(self) -> Language:
        return self.message.language or self.settings.language

    def _content(self) -> Content:
        shown = {label: self._shown(value) for label, value in self.message.numbers.items()}
        digest = hashlib.sha256(json.dumps([self.message.text, shown], ensure_ascii=False).encode())
        digest.update(self.message.photo or b"")
        numbers = {self.message.columns.get(label, label): value for label, value in shown.items()}
        return Content(digest.hexdigest()[:32], numbers, self.message.photo is not None)

    def _photo(self, claim: Claim) -> tuple[bytes | None, str]:
        """The photo to send, or None and the reason why the one there is cannot be sent."""
        photo = self.message.photo
        if photo is None:
            return None, self._words("no new photo") if _had_photo(claim) else ""
        if length(self.message.text) > MAX_CAPTION:
            return None, self._words("long")
        if len(photo) > MAX_PHOTO_BYTES:
            return None, self._words("big")
        return photo, ""

    def _html(self, claim: Claim, photo: bool, missing: str) -> str:
        """The text with what is to be said about it: corrected, without its photo or with the old one, of which run."""
        limit = MAX_CAPTION if photo or _had_photo(claim) else MAX_TEXT
        notes = []
        if missing:
            notes.append(self._words("old photo" if _had_photo(claim) else "no photo", reason=missing))
        room = limit - sum(map(length, notes)) - 4
        text = self.message.text
        if length(text) > limit - sum(length(note) + 1 for note in notes) - bool(notes):
            spared = (length(self._source()) + 1 if self.message.ref else 0) + (
                CORRECTION_ROOM if claim.standing.last else 0
            )
            text = cut(text, room - spared)
        if claim.standing.last:
            notes.insert(0, self._correction(claim.standing, room - length(text)))
        marked = [f"<i>{escape(note, quote=False)}</i>" for note in notes if note]
        html = "\n".join([text, "", *marked]) if marked else text
        source = f"{html}{'' if marked else chr(10)}\n{self._source()}"
        return source if self.message.ref and length(source) <= limit else html

    def _source(self) -> str:
        """`run 3f9c2a71b0`: for copying, or as a link."""
        ref, word = escape(self.message.ref), self._words("run")
        if self.message.link:
            return f'<a href="{escape(self.message.link)}">{word} {ref}</a>'
        return f"{word} <code>{ref}</code>"

    def _correction(self, standing: Standing, room: int) -> str:
        """`corrected 12:40: DAU 15,210 → 15,384`, against what was first published: editing notifies nobody.

        What was corrected and is again as it was first is said too: `taken back 13:10: DAU 15,384 → 15,210`.
        """
        now = datetime.now(self.settings.zone)
        first = standing.first or standing.last
        assert first is not None
        same_day = first.at.astimezone(self.settings.zone).date() == now.date()
        moment = f"{now:%H:%M}" if same_day else f"{now:%Y-%m-%d %H:%M}"
        corrected, taken_back = self._changes(first, standing)
        more = [self._words("also taken back", change=change) if corrected else change for change in taken_back]
        changes, how = [*corrected, *more], "corrected" if corrected else "taken back"
        for kept in range(len(changes), 0, -1):
            left_out = len(changes) - kept
            listed = [*changes[:kept], *([self._words("more", count=str(left_out))] if left_out else [])]
            line = self._words(how, time=moment, changes=", ".join(listed))
            if length(escape(line)) <= room:
                return line
        line = self._words("updated", time=moment)
        return line if length(line) <= room else ""

    def _changes(self, first: Row, standing: Standing) -> tuple[list[str], list[str]]:
        """What is not as it was first published; and what is again, after it was something else."""
        names = {self.message.columns.get(label, label): label for label in self.message.numbers}
        before, after = first.content.numbers, self._content().numbers
        since = [row.content.numbers for row in standing.published[standing.published.index(first) + 1 :]]
        corrected, taken_back = [], []
        for column in (column for column in after if column in before):
            meanwhile = [each[column] for each in since if each.get(column, after[column]) != after[column]]
            if before[column] != after[column]:
                corrected.append(self._change(names[column], before[column], after[column]))
            elif meanwhile:
                taken_back.append(self._change(names[column], meanwhile[-1], after[column]))
        return corrected, taken_back

    def _change(self, name: str, before: str, after: str) -> str:
        shown = [wording.localized(number, self._language) for number in (before, after)]
        return f"{name} {' → '.join(shown)}"

    def _words(self, name: str, **values: str) -> str:
        return wording.word(name, self._language, **values)

    def _shown(self, value: str | float | None) -> str:
        """A number as English writes it, whatever the language of the message."""
        if value is None:
            return wording.DASH
        if isinstance(value, str):
            return wording.neutral(value, self._language)
        return f"{value:,.2f}" if isinstance(value, float) and not value.is_integer() else f"{value:,.0f}"


async def _repeated(
    request: Callable[[], Awaitable[int]], safe: tuple[type[Exception], ...], claim: Claim, limits: Limits
) -> int:
    """Make a request until it succeeds, fails for good, or another one would outlast the claim."""

    def wait(state: tenacity.RetryCallState) -> float:
        asked = getattr(state.outcome and state.outcome.exception(), "wait", None)
        # Waiting exactly as told would make every run that was told the same come back at the same moment.
        jitter = random.uniform(0, 0.5)  # noqa: S311
        return float(asked) + jitter if asked is not None else min(0.25 * 2**state.attempt_number, 30.0) + jitter

    def stop(state: tenacity.RetryCallState) -> bool:
        return claim.left - state.upcoming_sleep < limits.request

    attempts = tenacity.AsyncRetrying(retry=tenacity.retry_if_exception_type(safe), wait=wait, stop=stop, reraise=True)
    return await attempts(request)


class Pace:
    """Keeps Telegram's rate limits; what other processes sent in the last minute counts too."""

    def __init__(
        self,
        limits: Limits,
        recent: Sequence[tuple[str, float]] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Begin with messages sent before, each as its recipient and its age in seconds."""
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


# --- settling, for the operator ---------------------------------------------------------------------------------------


def pending(settings: Settings | None = None, db: ClickHouse | None = None) -> list[Delivery]:
    """The deliveries that need somebody: unknown, failed, or claimed at this moment; latest first.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = []
    for standing in _ledger(settings, db).standings().values():
        row = standing.unknown or _claimed(standing) or standing.failed
        if row and row.state != "dismissed":
            found.append(_row_delivery(row, unknown=row is standing.unknown))
    return sorted(found, key=lambda each: (each.event_date, str(each.at)), reverse=True)


def of_day(event_date: date, settings: Settings | None = None, db: ClickHouse | None = None) -> list[Delivery]:
    """All deliveries of an event date, as they stand, by report and chat.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = []
    for standing in _ledger(settings, db).of_day(event_date).values():
        if row := standing.unknown or _claimed(standing) or standing.failed or standing.last:
            found.append(_row_delivery(row, unknown=row is standing.unknown))
    return sorted(found, key=lambda each: (each.report, each.chat))


def _claimed(standing: Standing) -> Row | None:
    return next((row for row in standing.rivals if row.state == "claimed"), None)


def arrived(
    ref: str, message: str | int = "", *, settings: Settings | None = None, db: ClickHouse | None = None
) -> Delivery:
    """Settle an unknown delivery: the message is in the chat.

    Args:
        ref: the delivery's reference, or its first characters.
        message: the message's id or its link (in Telegram: Copy Message Link); without it the message stands, but
            cannot be corrected later.
        settings: read from the environment unless given.
        db: where the ledger is.

    Raises:
        LedgerError: no such delivery, or there is nothing to settle.
        TelegramError: the message is neither an id nor a link, or stands in another chat.
    """
    ledger, said = _ledger(settings, db), str(message).strip()
    posted = None
    if said:
        recipient = ledger.recipient(ref)
        posted = Posted(recipient, int(said)) if said.isdecimal() else _linked(said, recipient)
    return _row_delivery(ledger.settle(ref, "sent", "the operator saw it", posted))


def _linked(link: str, recipient: str) -> Posted:
    """The message of a link that Telegram copied, which must be one of the chat in question."""
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
    """Take a failed delivery off the list: nobody is to look after it any more.

    Raises:
        LedgerError: no such delivery, or it did not fail.
    """
    return _row_delivery(_ledger(settings, db).dismiss(ref, "dismissed by the operator"))


def resend(ref: str, *, settings: Settings | None = None, db: ClickHouse | None = None) -> Delivery:
    """Settle an unknown delivery, or take back a sent one: the next run of its report sends it as a new message.

    Raises:
        LedgerError: no such delivery, or it was not sent in the first place.
    """
    return _row_delivery(_ledger(settings, db).settle(ref, "failed", "to be sent again, as the operator decided"))


# --- setting up -------------------------------------------------------------------------------------------------------


def check(chat: str, settings: Settings | None = None) -> str:
    """Send a test message to a chat; gives a sentence that says where it arrived.

    Raises:
        TelegramError: it did not arrive; the text says what is wrong and what to do.
    """
    settings, recipient = settings or load(), chat_list([chat])[0]

    async def test(bot: "Bot") -> str:
        name = await bot.name()
        await bot.send(recipient, wording.word("test", settings.language), silent=True)
        return f"The test message arrived in “{await bot.title(recipient)}” ({recipient}) from @{name}."

    return asyncio.run(_ask(settings, test, recipient))


def heard_from(settings: Settings | None = None) -> list[tuple[str, str]]:
    """The chats that lately wrote to the bot, as `id` or `id/thread` with their names: to find a chat's id.

    Raises:
        TelegramError: Telegram cannot be asked.
    """
    return asyncio.run(_ask(settings or load(), lambda bot: bot.heard_from(), "the bot's chats"))


def send_unrecorded(text: str, chats: str | Sequence[str], settings: Settings | None = None) -> None:
    """Send a text without the ledger, each chat once: for saying that the ledger itself cannot be reached.

    Whoever calls this remembers that it was said; what nobody knows (no answer came) is not tried again.

    Raises:
        TelegramError: some chats certainly did not get it; the others did.
    """
    from pulse.delivery.bot import Migrated, NotSent, Refused, Unknown, connected

    settings, recipients = settings or load(), chat_list(chats)

    async def send() -> list[str]:
        missing = []
        async with connected(*_access(settings), _timeouts(Limits())) as bot:
            for recipient in recipients:
                try:
                    await bot.send(recipient, text)
                except (NotSent, Refused, Migrated) as error:
                    missing.append(f"{recipient}: {_failure(error)}")
                except Unknown:
                    continue
        return missing

    if missing := asyncio.run(send()):
        raise TelegramError("\n".join(missing))


async def _ask(settings: Settings, question: "Callable[[Bot], Awaitable[T]]", recipient: str) -> T:
    """Ask the Bot API once: no ledger, no retries."""
    from pulse.delivery.bot import Migrated, NotSent, Refused, Unknown, connected

    try:
        async with connected(*_access(settings), _timeouts(Limits())) as bot:
            return await question(bot)
    except (NotSent, Refused, Migrated) as error:
        raise TelegramError(f"{recipient}: {_failure(error)}") from None
    except Unknown as error:
        raise TelegramError(f"{recipient}: no answer from Telegram ({error}); look whether it arrived.") from None


# --- words and small parts --------------------------------------------------------------------------------------------

# What Telegram says, and what to do about it; the first that occurs counts.
RESEND = "`pulse deliveries resend {ref}` and another run send it anew"
TAKE_OUT = "take the chat out of the setting"
LET_IN = (
    "check the id, and let the bot in: a person presses Start in a chat with it, a group adds it as a member "
    "(`pulse telegram chats` lists the chats it has heard from)"
)
RIGHTS = "allow the bot to send messages and photos there"
ADMINISTRATOR = "make the bot an administrator there who may post messages"
ADVICE = {
    "unauthorized": "set TELEGRAM_BOT_TOKEN to the token that @BotFather gave",
    "chat not found": LET_IN,
    "peer_id_invalid": LET_IN,
    "initiate conversation": "the person has to press Start in a chat with the bot first",
    "messages to bots": f"it is a bot's id, and bots do not hear bots: {TAKE_OUT}",
    "blocked": f"the person has to unblock the bot, or {TAKE_OUT}",
    "deactivated": f"the account or group is gone, {TAKE_OUT}",
    "kicked": f"add the bot to the group again, or {TAKE_OUT}",
    "group chat was deleted": f"the group is gone, {TAKE_OUT}",
    "participant": f"add the bot to the group or channel, or {TAKE_OUT}",
    "caption_too_long": "shorten the text",
    "not a member": f"add the bot to the group or channel, or {TAKE_OUT}",
    "channel_private": f"add the bot to the group or channel again, or {TAKE_OUT}",
    "upgraded to a supergroup": "the group has another id now, which `pulse telegram chats` lists once somebody writes",
    "administrator rights": ADMINISTRATOR,
    "chat_admin_required": ADMINISTRATOR,
    "chat_restricted": f"an administrator has to lift the bot's restrictions in this chat, or {TAKE_OUT}",
    "not enough rights": RIGHTS,
    "no rights": RIGHTS,
    "forbidden": RIGHTS,
    "thread not found": "there is no such topic, check the part after the slash",
    "topic_": "the topic is closed or gone, check the part after the slash",
    "message to edit not found": f"the message is gone, {RESEND}",
    "message_id_invalid": f"the message is gone, {RESEND}",
    "can't be edited": RESEND,
    "message_edit_time_expired": RESEND,
    "can't parse entities": "the text is not Telegram's HTML, escape the values in it with html.escape",
    "too long": "shorten the text",
    "message_too_long": "shorten the text",
}
BY_CODE = {
    404: "check TELEGRAM_BOT_TOKEN and TELEGRAM_API_URL",
    406: "Telegram does not take this from the bot: see what @BotFather says of it, and whether the chat lets it write",
    409: "another program uses this bot's getUpdates, stop it",
    413: "the message is too large, make the photo smaller",
}
ABOUT_PHOTO = ("photo", "image", "too big", "request entity too large")


def _failure(error: "NotSent | Refused | Migrated", ref: str = "") -> str:
    """What went wrong and what to do, of an attempt that certainly sent nothing; `ref` is the delivery's."""
    from pulse.delivery.bot import Migrated, Refused

    reason = str(error).rstrip(".")
    if isinstance(error, Migrated):
        return f"nothing was sent: {reason}; put {error.chat} in the place of the old id."
    if isinstance(error, Refused):
        said = reason.lower()
        advice = next((advice for key, advice in ADVICE.items() if key in said), BY_CODE.get(error.code, ""))
        if ref and advice.endswith(TAKE_OUT):
            advice += " and then off the list: `pulse deliveries dismiss {ref}`"
        return f"Telegram refused: {reason} ({error.code}){': ' + advice.format(ref=ref) if advice else ''}."
    return f"nothing was sent: {reason}; run it again later."


def _riddle(row: Row) -> str:
    """What nobody knows, and the two ways out."""
    reason = row.error or "the run that sent it ended in the middle"
    return (
        f"it is not known whether the message arrived ({reason}): look into the chat, then "
        f"`pulse deliveries arrived {row.claim}` if it is there, or `pulse deliveries resend {row.claim}` if it is not."
    )


def _is_about_photo(refusal: "Refused") -> bool:
    return any(word in str(refusal).lower() for word in ABOUT_PHOTO)


def _row_delivery(row: Row, unknown: bool = False) -> Delivery:
    """A row as the outside sees it; `unknown` where its lease has run out."""
    state: Any = "unknown" if unknown else row.state
    error = _riddle(row) if state == "unknown" else row.error
    return Delivery(*_fields(row.key), state, row.claim, "nothing", row.message_id, error, row.run, row.at)


def _fields(key: Key) -> tuple[str, date, str]:
    return key.report, key.event_date, key.chat


def _had_photo(claim: Claim) -> bool:
    """Whether the message that is to be edited has a photo."""
    return claim.row.action == "edit" and claim.standing.last is not None and claim.standing.last.content.photo


def _check_text(message: Message) -> None:
    if not message.text.strip():
        raise TelegramError("The message has no text.")


def _access(settings: Settings) -> tuple[str, str]:
    """The Bot API's address and the token; the sandbox's where no token is set."""
    token = settings.telegram_bot_token.get_secret_value()
    api = settings.telegram_api_url or (SANDBOX_TELEGRAM_API_URL if token == SANDBOX_TELEGRAM_TOKEN else API_URL)
    # Both go into an address: a malformed one would be refused with a riddle, or not at all.
    if not re.fullmatch(r"\d+:[A-Za-z0-9_-]{20,}", token):
        raise TelegramError("TELEGRAM_BOT_TOKEN is not a bot's token: expected digits, a colon and letters.")
    if urlsplit(api).scheme not in ("http", "https") or not urlsplit(api).hostname:
        raise TelegramError("TELEGRAM_API_URL is not an address: expected http(s)://host, or nothing for Telegram.")
    return api, token


def _timeouts(limits: Limits) -> "Timeouts":
    from pulse.delivery.bot import Timeouts

    return Timeouts(connect=limits.connect, write=limits.answer, read=limits.answer, whole=limits.request)


def _ledger(settings: Settings | None, db: ClickHouse | None, limits: Limits | None = None) -> Ledger:
    limits = limits or Limits()
    if db is None:
        db = clickhouse.connect(settings)
        try:
            # A notice may be the first thing ever to be sent, or say that the tables are too old to run on.
            schema.create_missing(db)
        except ClickHouseError as error:
            raise LedgerError(f"The ledger of deliveries cannot be kept: {error}") from None
    return Ledger(db, limits.lease, limits.bid)


def length(html: str) -> int:
    """The length of a text as Telegram counts it: without formatting, in UTF-16 code units."""
    return len(unescape(re.sub(r"<[^>]*>", "", html)).encode("utf-16-le")) // 2


def cut(html: str, room: int) -> str:
    """A text that is too long, up to the end of a line or a word, with an ellipsis; never within markup.

    Args:
        html: Telegram's HTML.
        room: how long it may be at most, as Telegram counts.

    Returns:
        The text itself where it fits.
    """
    if length(html) <= room:
        return html
    text = unescape(re.sub(r"<[^>]*>", "", html))
    size, end = 0, 0
    for character in text:
        size += 2 if ord(character) > 0xFFFF else 1
        if size > room - 1:
            break
        end += 1
    for boundary in ("\n", " "):
        place = text.rfind(boundary, 0, end + 1)
        if place > end // 2:
            end = place
            break
    cutting = _Cut(end)
    cutting.feed(html)
    cutting.close()
    return cutting.result()


class _Cut(HTMLParser):
    """Copies HTML up to a number of visible characters, then closes what is open."""

    def __init__(self, left: int) -> None:
        super().__init__(convert_charrefs=False)
        self._left, self._full = left, False
        self._copied: list[str] = []
        self._open: list[str] = []

    def result(self) -> str:
        return "".join([*self._copied, "…", *(f"</{tag}>" for tag in reversed(self._open))])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._full:
            self._copied.append(self.get_starttag_text() or "")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._full and tag in self._open:
            self._copied.append(f"</{tag}>")
            self._open.remove(tag)

    def handle_data(self, data: str) -> None:
        for character in data:
            self._take(character, 1)

    def handle_entityref(self, name: str) -> None:
        self._take(f"&{name};", len(unescape(f"&{name};")))

    def handle_charref(self, name: str) -> None:
        self._take(f"&#{name};", 1)

    def _take(self, what: str, size: int) -> None:
        self._full = self._full or size > self._left
        if not self._full:
            self._copied.append(what)
            self._left -= size
