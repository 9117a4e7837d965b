"""Deliveries reach each chat once, are corrected in place, and are never repeated or silently lost, whatever fails.

The tests use the real client over HTTP with Telegram's stand-in, the ledger in the sandbox's ClickHouse, and real
processes that are really killed.
"""

import io
import logging
import multiprocessing
import os
import random
import re
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import work
from PIL import Image
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import PLAIN, Telegram

from pulse import clickhouse, schema
from pulse.delivery import ledger, sending, settling, unrecorded
from pulse.delivery.composing import MAX_PHOTO_BYTES
from pulse.delivery.message import Delivery, DeliveryError, Message, TelegramError
from pulse.delivery.pace import Limits
from pulse.delivery.rows import LedgerRow, Posted
from pulse.settings import SANDBOX_TELEGRAM_TOKEN, Settings

DAY = date(2026, 3, 16)
# Long enough for a busy machine, short enough to wait for. Rate limits are off; they have their own test.
FAST = Limits(
    lease=10, bid=4, connect=2, answer=3, request=4, to_chat=(999, 1.0), to_group=(999, 60.0), to_all=(999, 1.0)
)
# For waiting until a dead run's claim expires. Requests are short, so that a slow machine still begins them in time.
SHORT = replace(FAST, lease=7, bid=3, answer=2, request=2)
FORK = multiprocessing.get_context("fork")


def png(shade: int = 200, width: int = 60, height: int = 40) -> bytes:
    content = io.BytesIO()
    Image.new("L", (width, height), shade).save(content, "PNG")
    return content.getvalue()


def report(dau: int, photo: bytes | None = None) -> Message:
    """A report whose headline number is `dau`; its chart changes with it."""
    return Message(f"<b>DAU {dau:,}</b>", photo or png(dau % 256), {"DAU": dau, "CTR": "20.4%"})


@dataclass(frozen=True)
class Pulse:
    """Pulse's side: settings, ledger, and the deliveries of one report."""

    settings: Settings
    db: clickhouse.ClickHouse
    name: str
    limits: Limits = FAST

    def deliver(self, message: Message, chats: str | Sequence[str], **how: Any) -> list[Delivery]:
        given = {"settings": self.settings, "db": self.db, "limits": self.limits, "run": "test"}
        return sending.deliver(how.pop("name", self.name), DAY, message, chats, **(given | how))

    def fails(self, message: Message, chats: str | Sequence[str], **how: Any) -> DeliveryError:
        with pytest.raises(DeliveryError) as raised:
            self.deliver(message, chats, **how)
        return raised.value

    def pending(self) -> list[Delivery]:
        found = settling.pending(self.settings, self.db)
        return [each for each in found if each.report == self.name]

    def of_day(self) -> dict[str, Delivery]:
        found = settling.of_day(DAY, self.settings, self.db)
        return {each.chat: each for each in found if each.report == self.name}

    def dismiss(self, ref: str) -> Delivery:
        return settling.dismiss(ref, settings=self.settings, db=self.db)

    def arrived(self, ref: str, message: str | int = "") -> Delivery:
        return settling.arrived(ref, message, settings=self.settings, db=self.db)

    def resend(self, ref: str) -> Delivery:
        return settling.resend(ref, settings=self.settings, db=self.db)


@pytest.fixture(scope="session")
def db(clickhouse_server: Server) -> clickhouse.ClickHouse:
    found = clickhouse.connect(Settings(CLICKHOUSE_URL=clickhouse_server.url))
    schema.ensure(found)
    return found


@pytest.fixture
def pulse(
    db: clickhouse.ClickHouse, clickhouse_server: Server, chats: Telegram, request: pytest.FixtureRequest
) -> Pulse:
    settings = Settings(CLICKHOUSE_URL=clickhouse_server.url, TELEGRAM_API_URL=chats.server.url)
    return Pulse(settings, db, request.node.name)


# --- what happens when all is well ------------------------------------------------------------------------------------


def test_a_report_is_one_photo_with_a_caption(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    (delivery,) = pulse.deliver(report(15_210), chat)
    assert (delivery.state, delivery.did) == ("sent", "sent")
    (message,) = chats.messages(chat)
    assert message["text"] == "DAU 15,210"
    assert message["entities"] == [{"type": "bold", "offset": 0, "length": 10}]
    assert (message["photo"]["width"], message["id"]) == (60, delivery.message_id)
    assert pulse.pending() == []


@pytest.mark.parametrize(
    ("language", "link", "line", "kind"),
    [
        ("en", "", "run 3f9c2a71b0", "code"),
        ("ru", "https://air.flow/archive/run/a.html", "запуск 3f9c2a71b0", "text_link"),
    ],
)
def test_a_message_names_its_run_in_the_last_line(
    pulse: Pulse, chats: Telegram, language: str, link: str, line: str, kind: str
) -> None:
    pulse = replace(pulse, settings=pulse.settings.model_copy(update={"language": language}))
    chat = chats.new_chat()
    pulse.deliver(replace(report(1), ref="3f9c2a71b0", link=link), chat)
    (message,) = chats.messages(chat)
    assert message["text"] == f"DAU 1\n\n{line}"
    assert message["entities"][-1]["type"] == kind
    assert message["entities"][-1].get("url", "") == link


def test_a_run_with_the_same_numbers_does_nothing_and_one_with_others_is_named(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    pulse.deliver(replace(report(1), ref="aaaaaaaaaa"), chat)
    (again,) = pulse.deliver(replace(report(1), ref="bbbbbbbbbb"), chat)
    assert again.did == "nothing"
    assert chats.texts(chat)[0].endswith("\n\nrun aaaaaaaaaa")
    pulse.deliver(replace(report(2), ref="cccccccccc"), chat)
    first, empty, corrected, run = chats.texts(chat)[0].splitlines()
    assert (first, empty, run) == ("DAU 2", "", "run cccccccccc")
    assert corrected.startswith("corrected ")


@pytest.mark.parametrize(("size", "named"), [(1008, True), (1009, False), (1024, False)])
def test_a_caption_without_room_goes_without_the_run(pulse: Pulse, chats: Telegram, size: int, named: bool) -> None:
    chat = chats.new_chat()
    pulse.deliver(Message("x" * size, png(), ref="3f9c2a71b0"), chat)
    (message,) = chats.messages(chat)
    assert message["photo"]
    assert message["text"].endswith("run 3f9c2a71b0") == named


def test_one_chat_is_served_with_a_second_of_work(pulse: Pulse, chats: Telegram) -> None:
    pulse.deliver(report(1), chats.new_chat())  # warm-up
    before = work.done()
    pulse.deliver(report(1), chats.new_chat())
    assert work.done() - before < 1


def test_the_same_report_again_does_nothing(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    first = pulse.deliver(report(15_210), chat)
    again = pulse.deliver(report(15_210), chat)
    assert [each.did for each in again] == ["nothing"]
    assert again[0].message_id == first[0].message_id
    assert chats.messages(chat)[0]["edited"] is None
    assert len(chats.messages(chat)) == 1


@pytest.mark.parametrize(
    ("language", "line"), [("en", "corrected {}: DAU 15,210 → 15,384"), ("ru", "исправлено {}: DAU 15 210 → 15 384")]
)
def test_other_numbers_correct_the_message_in_place_and_say_so(
    pulse: Pulse, chats: Telegram, language: str, line: str
) -> None:
    pulse = replace(pulse, settings=pulse.settings.model_copy(update={"language": language}))
    chat = chats.new_chat()
    pulse.deliver(report(15_210), chat)
    (delivery,) = pulse.deliver(report(15_384), chat)
    assert delivery.did == "edited"
    (message,) = chats.messages(chat)
    assert message["edited"]
    first, _, last = message["text"].splitlines()
    assert first == "DAU 15,384"
    assert re.fullmatch(line.format(r"\d\d:\d\d"), last.replace("\N{NO-BREAK SPACE}", " "))


def test_corrections_are_told_against_what_was_first_published(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    for dau in (15_210, 15_384, 15_390):
        pulse.deliver(report(dau), chat)
    assert "DAU 15,210 → 15,390" in chats.texts(chat)[0]
    pulse.deliver(report(15_210), chat)
    assert re.search(r"\ntaken back \d\d:\d\d: DAU 15,390 → 15,210$", chats.texts(chat)[0])


def headline(language: str, dau: str, likes: str, name: str = "likes", **more: str) -> Message:
    """A report of two or more numbers, each identified by its column."""
    numbers = {"DAU" if language == "en" else "DAU (лента)": dau, name: likes, **more}
    columns = dict(zip(numbers, ["feed_users", "likes", *more], strict=True))
    return Message(f"{language} {numbers}", None, numbers, columns, language)  # type: ignore[arg-type]


GAP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("then", "said"),
    [
        # Another language, the same numbers: nothing was corrected.
        (headline("ru", f"2{GAP}258", f"1{GAP}000,5%", "лайки"), "обновлено {}"),
        # Another language and another number: only that number is corrected, in the format of that language.
        (headline("ru", f"2{GAP}260", f"1{GAP}000,5%", "лайки"), f"исправлено {{}}: DAU (лента) 2{GAP}258 → 2{GAP}260"),
        # A metric has another name.
        (headline("en", "2,258", "1,000.5%", "loves"), "updated {}"),
        (headline("en", "2,258", "1,000.7%", "loves"), "corrected {}: loves 1,000.5% → 1,000.7%"),
        # A metric is new: it has no earlier number that could have been wrong.
        (headline("en", "2,258", "1,000.5%", views="10,763"), "updated {}"),
    ],
)
def test_only_what_both_versions_have_is_a_correction(pulse: Pulse, chats: Telegram, then: Message, said: str) -> None:
    chat = chats.new_chat()
    pulse.deliver(headline("en", "2,258", "1,000.5%"), chat)
    pulse.deliver(then, chat)
    assert re.fullmatch(re.escape(said).replace(r"\{\}", r"\d\d:\d\d"), chats.texts(chat)[0].splitlines()[-1])


def test_what_was_corrected_and_is_again_as_it_was_is_said(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    for dau, likes in (("1,000", "50"), ("1,100", "60"), ("1,200", "50"), ("1,000", "50"), ("1,000", "51")):
        pulse.deliver(headline("en", dau, likes), chat)
        said = re.sub(r"\d\d:\d\d", "-", chats.texts(chat)[0].splitlines()[-1])
        assert {
            ("1,100", "60"): said == "corrected -: DAU 1,000 → 1,100, likes 50 → 60",
            ("1,200", "50"): said == "corrected -: DAU 1,000 → 1,200, taken back: likes 60 → 50",
            ("1,000", "50"): said.startswith(("en", "taken back -: DAU 1,200 → 1,000, likes 60 → 50")),
            ("1,000", "51"): said == "corrected -: likes 50 → 51, taken back: DAU 1,200 → 1,000",
        }[dau, likes], said
    pulse.deliver(headline("ru", f"1{GAP}000", "50", "лайки"), chat)
    assert re.search(
        rf"\nисправление отменено \d\d:\d\d: DAU \(лента\) 1{GAP}200 → 1{GAP}000, лайки 51 → 50$", chats.texts(chat)[0]
    )


def test_a_correction_with_many_numbers_keeps_to_the_caption(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    for version in (1, 2):
        numbers = {f"Metric number {n}": n * version for n in range(1, 60)}
        pulse.deliver(Message(f"{version}" + "x" * 800, png(), numbers), chat)
    last = chats.texts(chat)[0].splitlines()[-1]
    assert re.search(r"Metric number 1 1 → 2, .*, and \d+ more$", last)


def test_chats_and_topics_get_their_own_messages(pulse: Pulse, chats: Telegram) -> None:
    group, person = chats.new_chat(t5="Daily", t6="Alerts"), chats.new_chat("private")
    pulse.deliver(report(1), f"{group}/5, {group}/6 ,{person}")
    assert sorted(message["thread"] for message in chats.messages(group)) == [5, 6]
    assert len(chats.messages(person)) == 1


def test_twenty_chats_of_which_one_fails(pulse: Pulse, chats: Telegram) -> None:
    many = [chats.new_chat() for _ in range(20)]
    chats.fault("kicked", many[7])
    error = pulse.fails(report(1), many)
    assert str(error).startswith(f"1 of 20 chats did not get {pulse.name} of 2026-03-16.\n{many[7]}: ")
    assert "add the bot to the group again" in str(error)
    assert [len(chats.messages(chat)) for chat in many] == [1] * 7 + [0] + [1] * 12
    assert [each.state for each in error.deliveries] == ["sent"] * 7 + ["failed"] + ["sent"] * 12
    assert [each.did for each in pulse.deliver(report(1), many)] == ["nothing"] * 7 + ["sent"] + ["nothing"] * 12


def test_an_answer_to_an_earlier_message(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    (began,) = pulse.deliver(Message("likes fell"), chat)
    pulse.deliver(Message("it is over", silent=True, reply_to=(pulse.name, DAY)), chat, name=f"{pulse.name} over")
    assert chats.messages(chat)[1]["reply_to"] == began.message_id
    assert chats.messages(chat)[1]["silent"]


def test_text_and_photo_change_into_each_other(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    pulse.deliver(Message("one"), chat)
    pulse.deliver(Message("two", png()), chat)
    assert chats.messages(chat)[0]["photo"]
    pulse.deliver(Message("three"), chat)
    (message,) = chats.messages(chat)
    assert message["text"].startswith("three\n")
    assert "The chart above is the earlier one (there is no new one)." in message["text"]


# --- each way in which Telegram fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "there"), [("lost_before", 0), ("lost_after", 1), ("500", 0), ("502", 0), ("garbage", 1)]
)
def test_without_an_answer_nobody_knows_and_nothing_is_sent_again(
    pulse: Pulse, chats: Telegram, kind: str, there: int
) -> None:
    chat = chats.new_chat()
    chats.fault(kind, chat)
    for _ in range(2):  # the second time nothing fails, and still nothing is sent
        error = pulse.fails(report(1), chat)
        (delivery,) = error.deliveries
        assert delivery.state == "unknown"
        assert f"pulse deliveries arrived {delivery.ref}" in str(error)
        assert f"pulse deliveries resend {delivery.ref}" in str(error)
        assert len(chats.messages(chat)) == there
    assert [(each.state, each.ref) for each in pulse.pending()] == [("unknown", delivery.ref)]


def test_an_answer_that_comes_too_late_is_unknown(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    chats.fault("slow", chat, seconds=2)
    error = pulse.fails(report(1), chat, limits=replace(FAST, answer=0.5))
    assert error.deliveries[0].state == "unknown"
    assert "no answer within 0.5 s" in str(error)
    assert len(chats.messages(chat)) == 1


def test_the_operator_saw_it(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    chats.fault("lost_after", chat)
    (unknown,) = pulse.fails(report(1), chat).deliveries
    link = f"https://t.me/c/{chat.removeprefix('-100')}/{chats.messages(chat)[0]['id']}"
    assert pulse.arrived(unknown.ref[:6], link).state == "sent"
    assert pulse.pending() == []
    assert pulse.deliver(report(1), chat)[0].did == "nothing"
    assert pulse.deliver(report(2), chat)[0].did == "edited"
    assert "DAU 1 → 2" in chats.texts(chat)[0]


def test_the_operator_did_not_see_it(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    chats.fault("lost_before", chat)
    (unknown,) = pulse.fails(report(1), chat).deliveries
    assert pulse.resend(unknown.ref).state == "failed"
    assert pulse.deliver(report(1), chat)[0].did == "sent"
    assert chats.texts(chat) == ["DAU 1"]
    assert pulse.pending() == []


def test_settling_what_is_not_unknown_is_refused(pulse: Pulse, chats: Telegram) -> None:
    (sent,) = pulse.deliver(report(1), chats.new_chat())
    with pytest.raises(ledger.LedgerError, match="not unknown"):
        pulse.arrived(sent.ref)
    with pytest.raises(ledger.LedgerError, match="There is no delivery with the reference 'zzz'"):
        pulse.resend("zzz")
    with pytest.raises(ledger.LedgerError, match="There are several deliveries with the reference ''"):
        pulse.resend("")


def test_a_sent_message_is_listed_with_the_reference_that_resend_needs(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    (sent,) = pulse.deliver(report(1), chat)
    assert pulse.of_day()[chat].ref == sent.ref
    pulse.resend(pulse.of_day()[chat].ref)
    assert pulse.of_day()[chat].state == "failed"
    assert pulse.deliver(report(1), chat)[0].did == "sent"
    assert chats.texts(chat) == ["DAU 1", "DAU 1"]


def test_a_failed_delivery_is_dismissed(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    for _ in range(2):
        chats.fault("kicked", chat)
        error = pulse.fails(report(1), chat)
    (failed,) = error.deliveries
    assert (
        f"take the chat out of the setting and then take it off the list: `pulse deliveries dismiss {failed.ref}`"
        in str(error)
    )
    assert [each.ref for each in pulse.pending()] == [failed.ref]
    assert pulse.dismiss(failed.ref[:6]).state == "dismissed"
    assert pulse.pending() == []
    assert pulse.of_day()[chat].state == "dismissed"
    with pytest.raises(ledger.LedgerError, match="did not fail"):
        pulse.dismiss(failed.ref)
    # The chat was put into the settings again.
    assert pulse.deliver(report(1), chat)[0].did == "sent"
    with pytest.raises(ledger.LedgerError, match="did not fail"):
        pulse.dismiss(failed.ref)


def test_a_dismissed_edit_is_still_made_up_for(pulse: Pulse, chats: Telegram) -> None:
    """It is unknown what the message says now, so a rerun with the first numbers edits it again."""
    chat = chats.new_chat()
    pulse.deliver(report(1), chat)
    chats.fault("500", chat, processed=True)
    chats.fault("500", chat, count=99)
    (failed,) = pulse.fails(report(2), chat).deliveries
    chats.no_more_faults()
    pulse.dismiss(failed.ref)
    assert pulse.pending() == []
    assert pulse.deliver(report(1), chat)[0].did == "edited"
    assert chats.texts(chat)[0].startswith("DAU 1\n")


def test_what_nobody_knows_is_not_dismissed(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    chats.fault("lost_before", chat)
    (unknown,) = pulse.fails(report(1), chat).deliveries
    with pytest.raises(ledger.LedgerError, match=r"Nobody knows whether the delivery of .* settle it by"):
        pulse.dismiss(unknown.ref)
    pulse.resend(unknown.ref)
    pulse.dismiss(unknown.ref)
    assert pulse.pending() == []


def test_a_server_whose_clock_is_set_back_changes_nothing(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    pulse.deliver(report(1), chat)
    # Everything written so far gets a time in the future.
    table, here = f"{pulse.db.database}.deliveries", f"report = '{pulse.name}'"
    pulse.db.execute(
        f"alter table {table} update recorded_at = recorded_at + 7200 where {here} settings mutations_sync = 2"
    )
    ahead = "select count() from deliveries where report = {name:String} and recorded_at > now() + 3600"
    assert pulse.db.value(ahead, name=pulse.name) == 3
    began = time.monotonic()
    assert pulse.deliver(report(2), chat)[0].did == "edited"
    assert pulse.deliver(report(1), chat)[0].did == "edited"
    assert chats.texts(chat)[0].startswith("DAU 1\n")
    assert pulse.deliver(report(1), chat)[0].did == "nothing"
    assert time.monotonic() - began < 60  # the chat's rate limit does not wait for the future either


@pytest.mark.parametrize(
    "flood", [{"kind": "429", "seconds": 2}, {"kind": "refused", "code": 420, "says": "FLOOD_WAIT_2"}]
)
def test_a_flood_is_waited_out_as_told(pulse: Pulse, chats: Telegram, flood: dict[str, Any]) -> None:
    chat = chats.new_chat()
    chats.fault(**flood, chat=chat)
    began = time.monotonic()
    assert pulse.deliver(report(1), chat)[0].did == "sent"
    assert time.monotonic() - began >= 2
    assert len(chats.messages(chat)) == 1


def test_a_flood_that_outlasts_the_claim_fails_without_waiting(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    chats.fault("429", chat, seconds=900)
    began = time.monotonic()
    error = pulse.fails(report(1), chat)
    assert time.monotonic() - began < 60  # even on a busy machine, since nothing was waited for
    assert error.deliveries[0].state == "failed"
    assert "Telegram asks to wait 900 s" in str(error)
    assert pulse.deliver(report(1), chat)[0].did == "sent"


def test_a_refused_connection_is_tried_again(pulse: Pulse, chats: Telegram) -> None:
    """The port opens only after a second. Nothing was sent before that, so it is safe to try again."""
    chat = chats.new_chat()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    settings = pulse.settings.model_copy(update={"telegram_api_url": f"http://127.0.0.1:{port}"})
    forward = FORK.Process(target=_forward, args=(port, chats.server.port, 1.0), daemon=True)
    forward.start()
    try:
        assert pulse.deliver(report(1), chat, settings=settings)[0].did == "sent"
    finally:
        forward.kill()
    assert len(chats.messages(chat)) == 1


def _forward(port: int, target: int, after: float) -> None:
    """Listen on a port after a delay, and forward one request of each connection."""
    time.sleep(after)
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            inner, _ = listening.accept()
            outer = socket.create_connection(("127.0.0.1", target))
            inner.settimeout(0.3)
            try:
                while data := inner.recv(1 << 20):
                    outer.sendall(data)
            except TimeoutError:
                inner.sendall(outer.recv(1 << 20))
            inner.close()
            outer.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_what_cannot_be_reached_fails_and_certainly_sent_nothing(pulse: Pulse, chats: Telegram, url: str) -> None:
    chat = chats.new_chat()
    settings = pulse.settings.model_copy(update={"telegram_api_url": url})
    error = pulse.fails(report(1), chat, settings=settings, limits=replace(FAST, lease=3, request=1))
    assert f"nothing was sent: no connection to {urlsplit(url).hostname} (" in str(error)
    assert "check the network and TELEGRAM_API_URL" in str(error)
    assert pulse.deliver(report(1), chat)[0].did == "sent"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("blocked", "unblock the bot"),
        ("kicked", "add the bot to the group again"),
        ("not_started", "press Start"),
        ("conflict", "another program uses this bot's getUpdates"),
    ],
)
def test_a_refusal_fails_at_once_and_says_what_to_do(pulse: Pulse, chats: Telegram, kind: str, advice: str) -> None:
    chat = chats.new_chat()
    chats.fault(kind, chat)
    began = time.monotonic()
    error = pulse.fails(report(1), chat)
    assert time.monotonic() - began < 60  # even on a busy machine, since nothing was waited for
    assert error.deliveries[0].state == "failed"
    assert advice in str(error)
    assert [each.state for each in pulse.pending()] == ["failed"]
    assert pulse.deliver(report(1), chat)[0].did == "sent"
    assert pulse.pending() == []


@pytest.mark.parametrize(
    ("code", "says", "advice"),
    [
        (400, "need administrator rights in the channel chat", "make the bot an administrator there"),
        (400, "CHAT_ADMIN_REQUIRED", "make the bot an administrator there"),
        (400, "CHAT_RESTRICTED", "an administrator has to lift the bot's restrictions"),
        (400, "CHAT_WRITE_FORBIDDEN", "allow the bot to send messages"),
        (400, "PEER_ID_INVALID", "check the id, and let the bot in"),
        (400, "MESSAGE_ID_INVALID", "the message is gone, `pulse deliveries resend "),
        (403, "CHANNEL_PRIVATE", "add the bot to the group or channel again"),
        (406, "NOT_ACCEPTABLE", "Telegram refuses this from the bot: check its status with @BotFather"),
    ],
)
def test_what_telegram_says_is_quoted_as_it_is_with_what_to_do(
    pulse: Pulse, chats: Telegram, code: int, says: str, advice: str
) -> None:
    chat = chats.new_chat()
    chats.fault("refused", chat, code=code, says=says)
    error = str(pulse.fails(report(1), chat))
    assert f"Telegram refused: {says} ({code}): {advice}" in error


def test_an_unknown_chat_topic_or_token_says_what_to_do(pulse: Pulse, chats: Telegram) -> None:
    assert "presses Start" in str(pulse.fails(report(1), "-404"))
    assert "no such topic" in str(pulse.fails(report(1), f"{chats.new_chat()}/9"))
    wrong = pulse.settings.model_copy(update={"telegram_bot_token": _secret("1:" + "x" * 35)})
    assert "the token that @BotFather gave" in str(pulse.fails(report(1), chats.new_chat(), settings=wrong))
    malformed = pulse.settings.model_copy(update={"telegram_bot_token": _secret("secret")})
    with pytest.raises(TelegramError, match="TELEGRAM_BOT_TOKEN is not a bot's token"):
        pulse.deliver(report(1), chats.new_chat(), settings=malformed)


def _secret(value: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(value)


def test_malformed_html_says_to_escape(pulse: Pulse, chats: Telegram) -> None:
    assert "html.escape" in str(pulse.fails(Message("1 < 2"), chats.new_chat()))


def test_a_migrated_chat_is_followed_and_remembered(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat("group")
    new = f"-100{chat[1:]}"
    chats.fault("migrated", chat, to=int(new))
    (delivery,) = pulse.deliver(report(1), chat)
    assert (delivery.did, len(chats.messages(chat)), len(chats.messages(new))) == ("sent", 0, 1)
    assert pulse.deliver(report(2), chat)[0].did == "edited"
    pulse.deliver(report(1), chat, name=f"{pulse.name} next")
    assert len(chats.messages(new)) == 2
    # With the corrected setting, it is still the same delivery.
    assert pulse.deliver(report(2), new)[0].did == "nothing"
    assert f"the chat is {new} now: put that in place of {chat}" in pulse.of_day()[chat].error


def _other_message(chats: Telegram, chat: str, last: int) -> None:
    """Fill a chat with other messages until one has this id."""
    bot = f"{chats.server.url}/bot{SANDBOX_TELEGRAM_TOKEN}/sendMessage"
    while httpx.post(bot, json={"chat_id": int(chat), "text": "theirs"}, **PLAIN).json()["result"]["message_id"] < last:
        pass


@pytest.mark.parametrize("known", [False, True])
def test_a_correction_touches_no_other_message_of_the_supergroup(pulse: Pulse, chats: Telegram, known: bool) -> None:
    """In the supergroup that a group becomes, the old message's id belongs to another message."""
    chat = chats.new_chat("group")
    new = _new_id(chat)
    (sent,) = pulse.deliver(report(1), chat)
    chats.fault("migrated", chat, to=int(new))
    if known:
        pulse.deliver(Message("another"), chat, name=f"{pulse.name} another")
    else:
        httpx.post(f"{chats.server.url}/bot{SANDBOX_TELEGRAM_TOKEN}/getChat", json={"chat_id": int(chat)}, **PLAIN)
    _other_message(chats, new, sent.message_id)
    before = chats.texts(new)
    (delivery,) = pulse.deliver(report(2), chat)
    assert (delivery.did, delivery.state) == ("sent", "sent")
    *others, corrected = chats.texts(new)
    assert others == before
    assert re.fullmatch(r"DAU 2\n\ncorrected \d\d:\d\d: DAU 1 → 2", corrected)
    assert chats.texts(chat) == ["DAU 1"]  # messages in the old group cannot be edited
    assert pulse.pending() == []
    # From then on, corrections edit the new message.
    assert pulse.deliver(report(3), chat)[0].did == "edited"
    assert chats.texts(new)[-1].startswith("DAU 3\n")
    assert len(chats.texts(new)) == len(before) + 1


def test_an_answer_never_goes_to_another_message_of_the_supergroup(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat("group")
    new = _new_id(chat)
    (began,) = pulse.deliver(Message("likes fell"), chat)
    chats.fault("migrated", chat, to=int(new))
    httpx.post(f"{chats.server.url}/bot{SANDBOX_TELEGRAM_TOKEN}/getChat", json={"chat_id": int(chat)}, **PLAIN)
    _other_message(chats, new, began.message_id)
    pulse.deliver(Message("it is over", reply_to=(pulse.name, DAY)), chat, name=f"{pulse.name} over")
    assert chats.messages(new)[-1]["text"] == "it is over"
    assert chats.messages(new)[-1]["reply_to"] is None


def test_an_unknown_message_may_be_found_in_the_supergroup(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat("group")
    new = _new_id(chat)
    chats.fault("lost_before", chat)
    (unknown,) = pulse.fails(report(1), chat).deliveries
    chats.fault("migrated", chat, to=int(new))
    (posted,) = pulse.deliver(report(1), chat, name=f"{pulse.name} other")
    link = f"https://t.me/c/{new.removeprefix('-100')}/{posted.message_id}"
    with pytest.raises(TelegramError, match="is a message in chat -100"):
        pulse.arrived(posted.ref, link.replace("/c/1", "/c/9"))
    pulse.arrived(unknown.ref, link)
    assert pulse.deliver(report(2), chat)[0].did == "edited"
    assert len(chats.messages(new)) == 1


@pytest.mark.parametrize(
    ("recipient", "link", "posted"),
    [
        ("-1001234567890", "https://t.me/c/1234567890/7", ("-1001234567890", 7)),
        ("-1001234567890/5", "https://t.me/c/1234567890/5/7?single", ("-1001234567890/5", 7)),
        ("@news", "https://t.me/News/7", ("@news", 7)),
        ("-1001234567890", "t.me/news/7/", ("-1001234567890", 7)),  # only Telegram knows whose public name it is
        ("-4001", "https://t.me/c/1234567890/7", ("-1001234567890", 7)),  # the group became that supergroup
        ("-1001234567890", "https://t.me/c/1234567891/7", None),
        ("@news", "https://t.me/olds/7", None),
        ("42", "https://t.me/c/1234567890/7", None),
        ("42", "https://t.me/news/7", None),
        ("42", "https://example.com/7", None),
        ("42", "seven", None),
    ],
)
def test_a_link_belongs_to_its_chat(recipient: str, link: str, posted: tuple[str, int] | None) -> None:
    if posted:
        assert settling._linked(link, recipient) == Posted(*posted)
    else:
        with pytest.raises(TelegramError):
            settling._linked(link, recipient)


@pytest.mark.parametrize(
    ("photo", "reason", "remark"),
    [
        (png(width=2100, height=100), "Telegram did not take it", "PHOTO_INVALID_DIMENSIONS"),
        (b"not a picture", "Telegram did not take it", "IMAGE_PROCESS_FAILED"),
        (png() + bytes(MAX_PHOTO_BYTES), "it is larger than 10 MB", "it is larger than 10 MB"),
    ],
)
def test_without_a_photo_that_telegram_takes_the_text_goes_alone_and_says_so(
    pulse: Pulse, chats: Telegram, photo: bytes, reason: str, remark: str
) -> None:
    chat = chats.new_chat()
    pulse.deliver(report(1, photo), chat)
    (message,) = chats.messages(chat)
    assert message["photo"] is None
    assert message["text"] == f"DAU 1\n\nThe chart could not be attached ({reason})."
    (again,) = pulse.deliver(report(1, photo), chat)
    assert (again.did, again.error) == ("nothing", f"without the photo: {remark}")


def test_a_text_too_long_for_a_caption_goes_without_the_photo(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    pulse.deliver(Message("x" * 1100, png()), chat)
    assert "the text is too long for a caption" in chats.texts(chat)[0]


def test_a_text_that_is_too_long_is_cut_at_a_line_and_never_in_markup(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    lines = [f"<b>{n:04}</b> a &lt; b" for n in range(400)]  # 10 characters each, plus a line break
    pulse.deliver(Message("\n".join(lines), ref="3f9c2a71b0"), chat)
    (message,) = chats.messages(chat)
    assert len(message["text"]) <= 4096
    *shown, last, empty, run = message["text"].split("\n")
    assert shown == [f"{n:04} a < b" for n in range(369)]
    assert (last, empty, run) == ("0369 a < b…", "", "run 3f9c2a71b0")
    assert len([each for each in message["entities"] if each["type"] == "bold"]) == 370


def test_a_caption_that_is_too_long_is_cut_where_the_photo_stays(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    pulse.deliver(Message("short", png(), {"DAU": 1}), chat)
    (delivery,) = pulse.deliver(Message("word " * 400, png(), {"DAU": 2}), chat)
    assert delivery.did == "edited"
    (message,) = chats.messages(chat)
    text, _, corrected, photo = message["text"].split("\n")
    assert text.endswith("word word…")
    assert corrected.endswith("DAU 1 → 2")
    assert photo == "The chart above is the earlier one (the text is too long for a caption)."
    assert len(message["text"]) <= 1024


@pytest.mark.parametrize("kind", ["lost_before", "lost_after", "500", "429"])
def test_an_edit_is_repeated_since_that_does_no_harm(pulse: Pulse, chats: Telegram, kind: str) -> None:
    chat = chats.new_chat()
    pulse.deliver(report(1), chat)
    chats.fault(kind, chat)
    assert pulse.deliver(report(2), chat)[0].did == "edited"
    assert chats.texts(chat)[0].startswith("DAU 2")
    assert len(chats.messages(chat)) == 1


def test_an_edit_that_failed_is_made_up_for_even_by_the_earlier_numbers(pulse: Pulse, chats: Telegram) -> None:
    """The edit arrived despite the error: a rerun with the first numbers must not treat the message as unchanged."""
    chat = chats.new_chat()
    pulse.deliver(report(1), chat)
    chats.fault("500", chat, processed=True)
    chats.fault("500", chat, count=99)
    assert "run it again" in str(pulse.fails(report(2), chat))
    chats.no_more_faults()
    assert pulse.deliver(report(1), chat)[0].did == "edited"
    assert chats.texts(chat)[0].startswith("DAU 1\n")


def test_a_message_deleted_in_the_chat_is_not_posted_anew_unasked(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    (sent,) = pulse.deliver(report(1), chat)
    chats.post("delete", chat=int(chat), message=sent.message_id)
    error = pulse.fails(report(2), chat)
    ref = error.deliveries[0].ref
    assert f"pulse deliveries resend {ref}" in str(error)
    pulse.resend(ref)
    assert pulse.deliver(report(2), chat)[0].did == "sent"
    assert chats.texts(chat) == ["DAU 2"]


def test_rate_limits_are_kept(pulse: Pulse, chats: Telegram) -> None:
    chats.post("limits", on=True)
    try:
        group = chats.new_chat(t5="a", t6="b", t7="c")
        patient = replace(Limits(), lease=30, request=4)
        began = time.monotonic()
        pulse.deliver(report(1), [f"{group}/{topic}" for topic in (5, 6, 7)], limits=patient)
        # Another run right after it counts the message that was just sent.
        pulse.deliver(report(1), f"{group}/5", name="another", limits=patient)
        assert time.monotonic() - began >= 3
        assert len(chats.messages(group)) == 4
    finally:
        chats.post("limits", on=False)


# --- the token --------------------------------------------------------------------------------------------------------


def test_the_token_is_in_no_log_and_no_error(
    pulse: Pulse, chats: Telegram, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for kind in ("blocked", "500", "lost_before", "garbage", "429", "conflict"):
        chat = chats.new_chat()
        chats.fault(kind, chat, seconds=900)
        said += _whole_story(lambda chat=chat: pulse.deliver(report(1), chat))
    unreachable = pulse.settings.model_copy(update={"telegram_api_url": "http://127.0.0.1:9"})
    short = replace(FAST, lease=2, request=1)
    said += _whole_story(lambda: pulse.deliver(report(1), "-5", settings=unreachable, limits=short))
    said += _whole_story(lambda: unrecorded.check("-404", pulse.settings))
    text = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert "sendPhoto" in caplog.text  # the client's own log was captured
    for secret in (SANDBOX_TELEGRAM_TOKEN, SANDBOX_TELEGRAM_TOKEN.partition(":")[2]):
        assert secret not in text


def _whole_story(attempt: Callable[[], object]) -> list[str]:
    """Returns all that an error can show: its text, its repr, and the traceback with all causes and contexts."""
    with pytest.raises(TelegramError) as raised:
        attempt()
    error: BaseException | None = raised.value
    told = ["".join(traceback.format_exception(raised.value))]
    while error is not None:
        told += [repr(error), str(error.args), str(vars(error))]
        error = error.__cause__ or error.__context__
    return told


# --- setting up -------------------------------------------------------------------------------------------------------


def test_a_check_says_where_the_test_message_arrived_or_why_not(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    assert unrecorded.check(chat, pulse.settings) == (
        f"The test message arrived in “Chat {chat}” ({chat}) from @pulse_sandbox_bot."
    )
    with pytest.raises(TelegramError, match="-404: Telegram refused: chat not found"):
        unrecorded.check("-404", pulse.settings)


def test_a_check_of_a_group_that_became_a_supergroup_names_the_new_id(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat("group")
    new = _new_id(chat)
    chats.fault("migrated", chat, to=int(new))
    with pytest.raises(TelegramError) as raised:
        unrecorded.check(chat, pulse.settings)
    assert str(raised.value) == (
        f"{chat}: nothing was sent: the group became the supergroup {new}; put {new} in place of the old id."
    )
    assert chats.messages(chat) + chats.messages(new) == []


def test_a_chat_that_wrote_to_the_bot_is_found(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat("private")
    chats.post("say", chat=int(chat), text="/start")
    assert (chat, f"Chat {chat}") in unrecorded.heard_from(pulse.settings)


# --- crashes: processes killed with SIGKILL ---------------------------------------------------------------------------

# Where a run is killed: before and after each of its steps in the ledger, and before and after the request.
POINTS = [f"{moment} {step}" for step in ("bid", "claimed", "request", "outcome") for moment in ("before", "after")]


def _run(pulse: Pulse, message: Message, chats: Sequence[str], point: str = "", skip: int = 0) -> None:
    """Deliver, in a process of its own that is killed at a point after having passed it `skip` times."""
    from pulse.delivery import bot

    # Do not keep the signal handler inherited from the tests' process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    left = [skip]

    def pass_by(moment: str, step: str) -> None:
        if point == f"{moment} {step}":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    insert, send, edit = ledger.Ledger._insert, bot.Bot.send, bot.Bot.edit

    def watched_insert(self: ledger.Ledger, rows: Sequence[LedgerRow]) -> None:
        step = rows[0].state if rows[0].state in ("bid", "claimed", "withdrawn") else "outcome"
        pass_by("before", step)
        insert(self, rows)
        pass_by("after", step)

    async def watched_send(self: bot.Bot, *args: Any, **kwargs: Any) -> int:
        pass_by("before", "request")
        found = await send(self, *args, **kwargs)
        pass_by("after", "request")
        return found

    async def watched_edit(self: bot.Bot, *args: Any, **kwargs: Any) -> None:
        pass_by("before", "request")
        await edit(self, *args, **kwargs)
        pass_by("after", "request")

    ledger.Ledger._insert, bot.Bot.send, bot.Bot.edit = watched_insert, watched_send, watched_edit  # type: ignore[method-assign]
    try:
        pulse.deliver(message, chats)
    except DeliveryError:
        os._exit(3)
    except BaseException:
        traceback.print_exc()
        os._exit(4)
    os._exit(0)


def _started(pulse: Pulse, message: Message, chats: Sequence[str], point: str = "", skip: int = 0) -> Any:
    process = FORK.Process(target=_run, args=(pulse, message, chats, point, skip))
    process.start()
    return process


def _ended(*processes: Any) -> list[int]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def test_a_run_killed_anywhere_neither_repeats_nor_loses_the_message(pulse: Pulse, chats: Telegram) -> None:
    pulse = replace(pulse, limits=SHORT)
    killed = {point: chats.new_chat() for point in POINTS}
    for point, chat in killed.items():  # kill all of them first, so that their leases expire together
        assert _ended(_started(pulse, report(1), [chat], point)) == [-signal.SIGKILL], point
    for point, chat in killed.items():
        there = len(chats.messages(chat))
        assert there == (point in ("after request", "before outcome", "after outcome")), point
        in_the_dark = point in ("after claimed", "before request", "after request", "before outcome")
        if not in_the_dark:
            assert pulse.deliver(report(1), chat)[0].state == "sent", point
            assert len(chats.messages(chat)) == 1, point
            continue
        # The dead run's claim holds until its lease expires; after that, the outcome is unknown.
        (unknown,) = pulse.fails(report(1), chat).deliveries
        assert unknown.state == "unknown", point
        assert "the run that sent it was cut off" in unknown.error, point
        assert len(chats.messages(chat)) == there, point


def test_a_run_killed_while_editing_is_made_up_for(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    pulse = replace(pulse, limits=SHORT)
    pulse.deliver(report(1), chat)
    assert _ended(_started(pulse, report(2), [chat], "after request")) == [-signal.SIGKILL]
    assert pulse.deliver(report(1), chat)[0].did == "edited"
    assert chats.texts(chat)[0].startswith("DAU 1\n")
    assert len(chats.messages(chat)) == 1


# --- concurrent runs --------------------------------------------------------------------------------------------------


def test_two_runs_at_once_send_one_message(pulse: Pulse, chats: Telegram) -> None:
    for _ in range(5):
        chat = chats.new_chat()
        assert _ended(*(_started(pulse, report(1), [chat]) for _ in range(2))) == [0, 0]
        assert len(chats.messages(chat)) == 1


def test_eight_runs_at_once_over_four_chats_send_four_messages(pulse: Pulse, chats: Telegram) -> None:
    many = [chats.new_chat() for _ in range(4)]
    assert _ended(*(_started(pulse, report(1), many) for _ in range(8))) == [0] * 8
    assert [len(chats.messages(chat)) for chat in many] == [1] * 4
    assert pulse.pending() == []


def test_runs_at_once_with_different_numbers_leave_one_message_with_one_of_them(pulse: Pulse, chats: Telegram) -> None:
    chat = chats.new_chat()
    assert set(_ended(*(_started(pulse, report(dau), [chat]) for dau in (1, 2, 3)))) == {0}
    (message,) = chats.messages(chat)
    shown = int(re.match(r"DAU (\d)", message["text"])[1])  # type: ignore[index]
    assert pulse.deliver(report(shown), chat)[0].did == "nothing"


# --- random trouble ---------------------------------------------------------------------------------------------------

BATCH, AT_ONCE, SEED = 10, 5, 20260316
FAULTS = [
    "429",
    "500",
    "502",
    "lost_before",
    "lost_after",
    "slow",
    "garbage",
    "blocked",
    "kicked",
    "too_large",
    "migrated",
]


def _new_id(chat: str) -> str:
    return f"-100{chat[1:]}"


def _play(pulse: Pulse, chats: Telegram, many: Sequence[str], seed: int) -> None:
    """Deliver to a batch of chats once or twice: random numbers, faults in half the chats, crashes, concurrent runs."""
    dice = random.Random(seed)  # noqa: S311
    for _ in range(dice.choice([1, 2])):
        for chat in many:
            if dice.random() < 0.5:
                kind = dice.choice(FAULTS)
                twice = dice.choice([1, 1, 2])
                chats.fault(kind, chat, count=twice, seconds=1, to=int(_new_id(chat)), processed=dice.random() < 0.5)
        runs = []
        for _ in range(dice.choice([1, 1, 1, 2])):
            point, skip = (dice.choice(POINTS), dice.randrange(BATCH)) if dice.random() < 0.6 else ("", 0)
            runs.append(_started(pulse, report(dice.choice([1, 2, 3])), many, point, skip))
        _ended(*runs)


@pytest.mark.parametrize("number", [25, pytest.param(200, marks=pytest.mark.prove)])
def test_whatever_happens_no_report_arrives_twice_and_none_is_lost(pulse: Pulse, chats: Telegram, number: int) -> None:
    """Under random trouble, each delivery arrives once in its chat, or is listed as unknown or failed."""
    print(f"seed {SEED}")
    pulse = replace(pulse, limits=replace(FAST, lease=5, bid=5, answer=1, request=2))
    many = [chats.new_chat("group") for _ in range(number)]
    batches = [many[first : first + BATCH] for first in range(0, number, BATCH)]
    players = [FORK.Process(target=_play, args=(pulse, chats, batch, SEED + n)) for n, batch in enumerate(batches)]
    for n, player in enumerate(players):
        if n >= AT_ONCE:
            _ended(players[n - AT_ONCE])
        player.start()
    assert set(_ended(*players)) == {0}
    chats.no_more_faults()

    def there(chat: str) -> list[dict[str, Any]]:
        return chats.messages(chat) + chats.messages(_new_id(chat))

    # Once the trouble is over, reruns put right everything that can be known.
    calm = replace(pulse, limits=replace(FAST, lease=120, bid=60, answer=20, request=30))

    def put_right() -> dict[str, str]:
        states = {}
        for first in range(0, number, 100):  # a run has limited time for each chat
            try:
                ended = calm.deliver(report(7), many[first : first + 100])
            except DeliveryError as error:
                ended = error.deliveries
            states |= {each.chat: each.state for each in ended}
        return states

    states = put_right()
    for chat in many:
        found = there(chat)
        if len(found) > 1:
            # The group migrated after the message was sent. The message in the old group cannot be edited, so the
            # correction is sent once, to the new group.
            old, new = chats.messages(chat), chats.messages(_new_id(chat))
            assert (len(old), len(new)) == (1, 1), f"{chat} got its report {len(found)} times"
            assert re.search(r"^(corrected|taken back|updated) ", new[0]["text"], re.MULTILINE)
        if states[chat] == "sent":
            assert found[-1]["text"].split("\n")[0] == "DAU 7"
    assert set(states.values()) == {"sent", "unknown"}
    shown = pulse.pending()
    assert {each.chat: each.state for each in shown} == {chat: s for chat, s in states.items() if s != "sent"}
    assert 0 < len(shown) < number  # some ran into trouble, but not all

    # The operator looks into the chats and reports what is there; after that, every chat has its report once.
    for each in shown:
        found = there(each.chat)
        if found:
            pulse.arrived(each.ref, _as_seen(chats, each.chat))
        else:
            pulse.resend(each.ref)
    assert set(put_right().values()) == {"sent"}
    for chat in many:
        assert there(chat)[-1]["text"].split("\n")[0] == "DAU 7"
        assert max(len(chats.messages(chat)), len(chats.messages(_new_id(chat)))) == 1
    assert pulse.pending() == []


def _as_seen(chats: Telegram, chat: str) -> str | int:
    """Returns what the operator has of the message: its link in a supergroup, its id in a group, which has no links."""
    if there := chats.messages(_new_id(chat)):
        return f"https://t.me/c/{_new_id(chat).removeprefix('-100')}/{there[0]['id']}"
    return int(chats.messages(chat)[0]["id"])
