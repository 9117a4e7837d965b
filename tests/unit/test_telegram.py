"""The parts of sending that need no server: the meaning of the ledger's rows, the pace, chats, lengths."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from pulse.delivery.access import chat_list
from pulse.delivery.ledger import Claim, Ledger
from pulse.delivery.markup import cut, length
from pulse.delivery.message import TelegramError
from pulse.delivery.pace import Limits, Pace
from pulse.delivery.rows import Content, Key, LedgerRow
from pulse.delivery.standing import standing

KEY = Key("daily_report", date(2026, 3, 16), "-1")
NOON = datetime(2026, 3, 17, 12, tzinfo=UTC)
OLD, NEW = Content("old"), Content("new")


def row(claim: str, step: int, state: str, seconds: float, action: str = "send", content: Content = OLD) -> LedgerRow:
    """Return a row written this many seconds after noon; bids and claims hold for a minute."""
    at = NOON + timedelta(seconds=seconds)
    return LedgerRow(KEY, claim, step, state, action, "-1", content, message_id=5, lease=60, at=at)  # type: ignore[arg-type]


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_nothing_written_settles_nothing() -> None:
    assert not standing([], NOON).settles(OLD)


def test_a_bid_or_claim_holds_until_its_lease_is_over() -> None:
    for state in ("bid", "claimed"):
        rows = [row("a", 1, state, 0)]
        assert [rival.claim for rival in standing(rows, NOON + timedelta(seconds=59)).rivals] == ["a"]
        assert standing(rows, NOON + timedelta(seconds=60)).rivals == ()


def test_a_claim_without_an_end_is_unknown_but_a_bid_is_nothing() -> None:
    later = NOON + timedelta(hours=1)
    assert standing([row("a", 1, "bid", 0)], later).unknown is None
    lost = standing([row("a", 1, "bid", 0), row("a", 2, "claimed", 1)], later)
    assert lost.unknown is not None
    assert lost.settles(NEW)  # whatever is to be sent, nobody may send it


def test_an_attempt_that_failed_is_known_until_a_later_one_succeeds() -> None:
    failed = [row("a", 2, "claimed", 0), row("a", 3, "failed", 1)]
    assert standing(failed, NOON).failed == failed[1]
    later = [*failed, row("b", 4, "claimed", 2), row("b", 5, "sent", 3)]
    assert standing(later, NOON).failed is None
    assert standing([row("a", 2, "claimed", 0)], NOON).failed is None


def test_what_may_be_in_the_chat_is_what_was_sent_or_lost() -> None:
    rows = [
        row("a", 3, "sent", 0), row("b", 5, "failed", 10), row("c", 7, "unknown", 20), row("d", 9, "sent", 30, "edit"),
    ]  # fmt: skip
    assert [each.claim for each in standing(rows, NOON + timedelta(hours=1)).published] == ["a", "c", "d"]


def test_a_send_without_an_answer_is_unknown_and_an_edit_failed() -> None:
    sent = standing([row("a", 1, "unknown", 0)], NOON)
    assert (sent.unknown is not None, sent.failed) == (True, None)
    edited = standing([row("a", 1, "sent", 0), row("b", 2, "unknown", 1, "edit")], NOON)
    assert (edited.unknown, edited.failed is not None) == (None, True)


def test_the_next_winner_takes_the_turn_after_the_latest_claim() -> None:
    assert standing([], NOON).turn == 0
    assert standing([row("a", 4, "claimed", 0), row("b", 2, "claimed", 9)], NOON).turn == 4
    assert standing([row("a", 7, "sent", 0)], NOON).turn == 6  # its claim was the step before


def test_an_edit_without_an_end_is_done_again() -> None:
    rows = [row("a", 3, "sent", 0), row("b", 2, "claimed", 10, "edit", NEW)]
    here = standing(rows, NOON + timedelta(hours=1))
    assert here.unknown is None
    assert here.doubtful
    assert not here.settles(OLD)
    assert not here.settles(NEW)


def test_the_last_step_of_a_claim_counts_whenever_it_was_written() -> None:
    """A row whose writer has given up may still arrive after the row that replaced it."""
    here = standing([row("a", 3, "withdrawn", 1), row("a", 2, "claimed", 2)], NOON + timedelta(hours=1))
    assert here.unknown is None
    assert here.rivals == ()


def test_what_stands_in_the_chat_is_the_last_thing_sent() -> None:
    rows = [row("a", 3, "sent", 0), row("b", 3, "sent", 10, "edit", NEW)]
    here = standing(rows, NOON + timedelta(minutes=1))
    assert here.settles(NEW)
    assert not here.settles(OLD)
    assert here.first is not None
    assert here.first.content == OLD


def test_claims_come_in_the_order_of_their_steps_whatever_the_servers_clock_says() -> None:
    first = [row("b", 1, "bid", 7200), row("b", 2, "claimed", 7201), row("b", 3, "sent", 7202)]
    later = [row("a", 2, "bid", 0), row("a", 3, "claimed", 1, "edit"), row("a", 4, "sent", 2, "edit", NEW)]
    for rows in ([*first, *later], [*later, *first]):
        here = standing(rows, NOON + timedelta(minutes=5))
        assert here.last == later[-1]
        assert here.settles(NEW)
        assert not here.settles(OLD)
        assert here.turn == 3


def test_an_end_without_its_claim_has_its_place_among_the_others() -> None:
    """If a chat is configured by its new id, only those rows of an earlier claim are seen that went to the new id."""
    sent = row("a", 3, "sent", 0)
    assert standing([sent], NOON).turn == 2
    edited = [row("b", 3, "claimed", -5, "edit"), row("b", 4, "sent", -4, "edit", NEW)]
    assert standing([sent, *edited], NOON).last == edited[-1]


def test_the_operators_word_is_the_last() -> None:
    unknown = row("a", 3, "unknown", 0)
    assert standing([unknown], NOON).settles(NEW)
    assert standing([unknown, replace(unknown, step=4, state="sent")], NOON).settles(OLD)
    assert not standing([unknown, replace(unknown, step=4, state="failed")], NOON).settles(OLD)


@dataclass(frozen=True)
class Shuffled(Ledger):
    """A ledger in memory in which everything takes a random number of turns of the event loop.

    As in ClickHouse, a row gets its time before it becomes visible, so rows may appear in another order than that of
    their times. Once a write has returned, every later read sees it.
    """

    dice: random.Random = field(default_factory=random.Random)
    rows: list[LedgerRow] = field(default_factory=list)

    async def _turns(self) -> None:
        for _ in range(self.dice.choice([0, 1, 1, 2, 5])):
            await asyncio.sleep(0)

    async def _write(self, row: LedgerRow) -> None:
        await self._turns()
        stamped = replace(row, at=datetime.now(UTC))
        await self._turns()
        self.rows.append(stamped)
        await self._turns()

    async def _rows(self, key: Key) -> tuple[list[LedgerRow], datetime]:
        await self._turns()
        found = list(self.rows)
        await self._turns()
        return found, datetime.now(UTC)


@pytest.mark.parametrize("contents", [[OLD, OLD], [OLD, OLD, OLD, OLD], [OLD, NEW, OLD]])
def test_never_two_at_once_whatever_the_order_of_events(
    contents: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulse.delivery.ledger.FIRST_LOOK", 0)
    monkeypatch.setattr("pulse.delivery.ledger.LAST_LOOK", 0)

    async def contest(ledger: Shuffled) -> list[str]:
        sending: list[str] = []
        done: list[str] = []

        async def run(content: Content) -> None:
            claim = await ledger.claim(KEY, content, "")
            if isinstance(claim, Claim):
                assert sending == [], "two runs are sending at once"
                sending.append(claim.row.claim)
                await ledger._turns()
                await ledger._turns()
                sending.clear()
                done.append(claim.row.action)
                await ledger.end(claim, "sent", message_id=1)

        await asyncio.gather(*(run(content) for content in contents))
        return done

    for seed in range(300):
        done = asyncio.run(contest(Shuffled(db=None, dice=random.Random(seed))))  # type: ignore[arg-type]  # noqa: S311
        assert done.count("send") == 1, f"seed {seed}"
        assert done[0] == "send"


# --- the pace ---------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that moves on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def minutes(recipients: list[str], recent: list[tuple[str, float]] | None = None) -> list[float]:
    """Return when each message may be sent, in seconds from now."""
    clock = Clock()
    pace = Pace(Limits(), recent or [], clock, clock.sleep)

    async def go() -> list[float]:
        times = []
        for recipient in recipients:
            await pace.turn(recipient)
            times.append(round(clock.now - 1000, 3))
        return times

    return asyncio.run(go())


def test_a_chat_gets_a_message_a_second_and_its_topics_share_it() -> None:
    assert minutes(["5", "6", "5", "5"]) == [0, 0, 1, 2]
    assert minutes(["-7/1", "-7/2"]) == [0, 1]


def test_a_group_gets_twenty_messages_a_minute() -> None:
    assert minutes(["-7"] * 21)[-2:] == [19, 60]
    assert minutes(["7"] * 21)[-1] == 20  # a person is not a group


def test_all_chats_together_get_thirty_a_second() -> None:
    assert minutes([str(chat) for chat in range(31)])[-2:] == [0, 1]


def test_what_others_sent_counts() -> None:
    assert minutes(["5"], [("5", 0.4)]) == [0.6]
    assert minutes(["-7/2"], [("-7/1", 50.0 - n) for n in range(20)]) == [10]


# --- small parts ------------------------------------------------------------------------------------------------------


def test_chats_are_listed_once_each() -> None:
    assert chat_list(" -1001, 5/7,@news , -1001,") == ["-1001", "5/7", "@news"]
    assert chat_list(["-1"]) == ["-1"]
    assert chat_list("-1001/1, -1001, -1001/11") == ["-1001", "-1001/11"]  # the General topic is the group itself


@pytest.mark.parametrize("chats", ["", " , ", "team", "1/", "1/x", "--1"])
def test_what_is_not_a_chat_is_refused(chats: str) -> None:
    with pytest.raises(TelegramError):
        chat_list(chats)


@pytest.mark.parametrize(
    ("html", "size"), [("<b>1</b> &lt; 2 &amp; 3", 9), ("📈", 2), ('<a href="https://a.b/?x=1">DAU</a>', 3), ("", 0)]
)
def test_a_text_is_as_long_as_telegram_counts_it(html: str, size: int) -> None:
    assert length(html) == size


@pytest.mark.parametrize(
    ("html", "room", "shown"),
    [
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two…"),
        ("one two three", 8, "one two…"),
        ("onetwothree", 8, "onetwot…"),  # there is no better place
        ("one\ntwo three four", 15, "one\ntwo three…"),
        ("line one\nline two\nx", 18, "line one\nline two…"),
        ("<b>one <i>two three</i></b> four", 12, "<b>one <i>two…</i></b>"),
        ("a &lt;&amp;&lt; b", 6, "a &lt;&amp;&lt;…"),
        ("a&lt;&lt;&lt;", 3, "a&lt;…"),
        ("📈📈📈", 5, "📈📈…"),
        (
            '<a href="https://a.b/?x=1&amp;y=2">DAU and more</a> and',
            9,
            '<a href="https://a.b/?x=1&amp;y=2">DAU and…</a>',
        ),
    ],
)
def test_a_text_is_cut_at_a_line_or_a_word_and_never_in_markup(html: str, room: int, shown: str) -> None:
    assert cut(html, room) == shown
    assert length(shown) <= room
