"""The ETL computes what the specification defines: checked by hand on small days, with pandas on realistic ones."""

import dataclasses
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
import pandas as pd
import pytest
from notebooks.looks import assert_worth_keeping
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App

from notebooks.etl import (
    ATTRIBUTES,
    FEED,
    FOLDER,
    GENDER,
    LAYOUTS,
    MESSAGES,
    NAMED_GENDER,
    SHAPES,
    STEPS,
    Etl,
    Sources,
    assert_equal,
)
from pulse import schema
from pulse.clickhouse import ClickHouseError
from pulse.execution.errors import CheckError, NotebookError
from pulse.metrics import Dimension
from pulse.settings import SettingsError
from pulse.sources.definition import SourceError

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)
PROVE = pytest.mark.prove  # more cases of kinds that the random days have, too

# --- the shape -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", SHAPES)
def test_a_table_has_these_columns_in_this_order(story: Etl, table: str) -> None:
    columns = story.db.read(f"describe table {table}")
    assert list(zip(columns["name"], columns["type"], strict=True)) == list(SHAPES[table].items())


# --- one day by hand -------------------------------------------------------------------------------------------------

ANNA, BORIS, CLARA, DENIS, ELENA, FEDOR, GLEB, HELEN = range(1, 9)


@pytest.fixture(scope="module")
def story(clickhouse_server: Server) -> Iterator[Etl]:
    """A computed day in the life of eight users."""
    with Etl.fresh(clickhouse_server, DAY) as etl:
        etl.feed(
            # Anna reads on one phone, and writes from another one in the evening.
            (ANNA, "view", "09:00", "iOS", "female", 25),
            (ANNA, "view", "09:05", "iOS", "female", 25),
            (ANNA, "like", "09:06", "iOS", "female", 25),
            # Boris does it the other way round: he writes first, and then reads.
            (BORIS, "view", "22:00", "iOS", "male", 40),
            # Clara acted the day before, but not that day. Helen acted twice, the second time without a gender.
            (CLARA, "view", "2025-03-11 10:00", "iOS", "female", 31),
            (HELEN, "view", "2025-03-09 10:00", "Android", "female", 19),
            (HELEN, "like", "2025-03-10 10:00", "Android", None, 20),
            # Fedor neither viewed nor liked, but he was active.
            (FEDOR, "share", "12:00", "Android", "male", 25),
            (FEDOR, "hide", "12:01", "Android", "male", 25),
        )
        etl.messages(
            (ANNA, BORIS, "21:00", "Android", "female", 25),
            (ANNA, BORIS, "21:01", "Android", "female", 25),
            (ANNA, CLARA, "21:02", "Android", "female", 25),
            (BORIS, BORIS, "08:00", "Android", "male", 40),  # a note to himself
            (CLARA, ANNA, "2025-03-10 10:00", "Android", "female", 30),  # earlier than her view
            # Denis told the app nothing about himself.
            (DENIS, BORIS, "10:00", None, "", 0),
            (DENIS, CLARA, "10:01", None, "", 0),
            (DENIS, ELENA, "10:02", None, "", 0),
            (DENIS, GLEB, "10:03", None, "", 0),  # who has never acted
            (DENIS, HELEN, "10:04", None, "", 0),
            (ELENA, ANNA, "2025-02-09 10:00", "iOS", "female", 50),  # 31 days before
        )
        etl.run()
        yield etl


def test_the_day_is_as_pandas_computes_it(story: Etl) -> None:
    assert_equal(story.published(), story.expected())


def test_a_user_has_the_attributes_of_the_latest_action_in_either_source(story: Etl) -> None:
    assert story.attributes()[ANNA] == ("Android", "female", "25")
    assert story.attributes()[BORIS] == ("iOS", "male", "40")


def test_a_user_who_only_received_has_the_latest_earlier_attributes(story: Etl) -> None:
    assert story.attributes()[CLARA] == ("iOS", "female", "31")


def test_what_the_latest_earlier_action_does_not_say_is_unknown(story: Etl) -> None:
    assert story.attributes()[HELEN] == ("Android", "unknown", "20")


def test_null_empty_and_zero_are_unknown(story: Etl) -> None:
    assert story.attributes()[DENIS] == ("unknown", "unknown", "unknown")


def test_a_user_whom_the_window_does_not_reach_or_who_never_acted_is_unknown(story: Etl) -> None:
    assert story.attributes()[ELENA] == ("unknown", "unknown", "unknown")
    assert story.attributes()[GLEB] == ("unknown", "unknown", "unknown")


def test_each_user_is_there_once_with_what_they_did(story: Etl) -> None:
    users = story.users()[[*SLICE, "feed_active"]]
    assert dict(zip(users.index, users.itertuples(index=False, name=None), strict=True)) == {
        # views, likes, messages received and sent, users received and sent, in the feed
        ANNA: (2, 1, 0, 3, 0, 2, True),
        BORIS: (1, 0, 4, 1, 3, 1, True),  # from Anna twice, from Denis, from himself
        CLARA: (0, 0, 2, 0, 2, 0, False),
        DENIS: (0, 0, 0, 5, 0, 5, False),
        ELENA: (0, 0, 1, 0, 1, 0, False),
        FEDOR: (0, 0, 0, 0, 0, 0, True),
        GLEB: (0, 0, 1, 0, 1, 0, False),
        HELEN: (0, 0, 1, 0, 1, 0, False),
    }


SLICE = ["views", "likes", "messages_received", "messages_sent", "users_received", "users_sent"]


def test_a_sender_who_wrote_to_two_users_of_a_slice_counts_once_for_it(story: Etl) -> None:
    # Boris and Clara got six messages, from Anna, Denis and Boris himself. Adding up their senders would give five.
    assert story.slices().loc[("os", "iOS"), SLICE].tolist() == [1, 0, 6, 1, 3, 1]


def test_a_receiver_from_two_users_of_a_slice_counts_once_for_it(story: Etl) -> None:
    # Anna and Clara are female. They sent three messages, two of them to Boris, who counts once.
    assert story.slices().loc[("gender", "female"), SLICE].tolist() == [2, 1, 2, 3, 2, 2]
    # Denis wrote five messages. The other two users with an unknown os, Elena and Gleb, got one of them each.
    assert story.slices().loc[("os", "unknown"), SLICE].tolist() == [0, 0, 2, 5, 1, 5]


def test_what_the_users_of_a_slice_did_is_added_up(story: Etl) -> None:
    assert story.slices().loc[("age", "25"), SLICE].tolist() == [2, 1, 0, 3, 0, 2]  # Anna; Fedor adds nothing


def test_there_is_a_row_for_every_value_that_a_user_of_the_day_has_and_no_other(story: Etl) -> None:
    assert set(story.slices().index) == {
        *(("os", value) for value in ("iOS", "Android", "unknown")),
        *(("gender", value) for value in ("female", "male", "unknown")),
        *(("age", value) for value in ("20", "25", "31", "40", "unknown")),
    }


def test_the_slices_of_each_dimension_add_up_to_the_same(story: Etl) -> None:
    counts = story.slices()[["views", "likes", "messages_received", "messages_sent"]].groupby("dimension").sum()
    assert counts.drop_duplicates().to_numpy().tolist() == [[3, 1, 9, 9]]


def test_the_days_metrics(story: Etl) -> None:
    assert story.metrics() == {
        "event_date": pd.Timestamp(DAY),
        "feed_users": 3,  # Anna, Boris, Fedor
        "messenger_users": 3,  # Anna, Boris, Denis
        "app_users": 4,
        "both_users": 2,
        "views": 3,
        "likes": 1,
        "ctr": 1 / 3,
        "messages_sent": 9,
        "messages_received": 4,  # by Boris; the other receivers were not active
        "sent_per_received": 9 / 4,
    }


# --- days like real ones ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(clickhouse_server: Server) -> Iterator[Etl]:
    """Three weeks of a small app, not computed yet."""
    with Etl.fresh(clickhouse_server, DAY) as etl:
        for table in ("feed_actions", "message_actions"):
            etl.source.execute(f"drop table {table}")
        app = App(etl.zone, etl.source.database, events_per_day=6_000, users=4_000)
        fill(clickhouse_server, app, until=DAY + timedelta(days=3), days=21)
        yield etl


def test_demo_days_in_any_order_are_as_pandas_computes_them(demo: Etl) -> None:
    days = [DAY, DAY - timedelta(days=1), DAY + timedelta(days=1)]
    for day in days:
        demo.run(day)
    for day in days:
        expected = demo.expected(day)
        assert len(expected.user_activity) > 150
        assert (expected.user_activity["os"] == "unknown").any()
        assert_equal(demo.published(day), expected)


@pytest.fixture(scope="module")
def archive(demo: Etl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four notebooks, executed by papermill for the demo's last day."""
    folder = tmp_path_factory.mktemp("archive")
    demo.run_with_papermill(folder, DAY + timedelta(days=2), run="papermill", lookback_days=7)
    return folder


def test_papermill_gives_the_same(demo: Etl, archive: Path) -> None:
    for step in STEPS:
        assert_worth_keeping(archive / f"{step}.ipynb")
    day = DAY + timedelta(days=2)
    assert_equal(demo.published(day), demo.expected(day, lookback_days=7))


def test_each_executed_notebook_hands_on_what_it_counted(demo: Etl, archive: Path) -> None:
    expected = demo.expected(DAY + timedelta(days=2), lookback_days=7)
    users, metrics = expected.user_activity, expected.daily_metrics.iloc[0]
    messages_sent = users["messages_sent"].sum()
    assert {step: glued(archive / f"{step}.ipynb") for step in STEPS} == {
        "extract_feed": {
            "feed_users": users["feed_active"].sum(),
            "views": users["views"].sum(),
            "likes": users["likes"].sum(),
        },
        "extract_messages": {
            "senders": (users["messages_sent"] > 0).sum(),
            "receivers": (users["messages_received"] > 0).sum(),
            "messages_sent": messages_sent,
        },
        "transform": {
            "app_users": metrics["app_users"],
            "views": metrics["views"],
            "likes": metrics["likes"],
            "messages_sent": messages_sent,
            "held": False,
            "lifted": False,
        },
        "load": {
            "rows": len(expected.dimension_activity),
            "app_users": metrics["app_users"],
            "views": metrics["views"],
            "messages_sent": messages_sent,
        },
    }


def glued(path: Path) -> dict[str, Any]:
    """Return the values that an executed notebook glued, by name."""
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    scraps = [output.get("data", {}).get("application/scrapbook.scrap.json+json") for output in outputs]
    return {scrap["name"]: scrap["data"] for scrap in scraps if scrap}


# --- whose attributes ------------------------------------------------------------------------------------------------


def test_of_two_actions_at_the_same_moment_the_same_one_wins_with_all_its_attributes(etl: Etl) -> None:
    """It does not matter which was written first, whether it was that day or earlier, or when the day is computed."""
    etl.feed((1, "view", "12:00", *IOS), (2, "view", "12:00", *ANDROID))
    etl.messages((1, 1, "12:00", *ANDROID), (2, 2, "12:00", *IOS))
    etl.feed((3, "view", "12:00", *IOS), (3, "view", "12:00", *ANDROID))
    etl.feed((4, "view", "12:00", *ANDROID), (4, "view", "12:00", *IOS))
    etl.feed((5, "view", "2025-03-11 12:00", *IOS), (6, "view", "2025-03-11 12:00", *ANDROID))
    etl.messages((5, 1, "2025-03-11 12:00", *ANDROID), (6, 1, "2025-03-11 12:00", *IOS))
    etl.messages((1, 5, "11:00", *IOS), (1, 6, "11:00", *IOS))
    etl.run()
    winners = etl.attributes()
    assert set(winners.values()) <= {("iOS", "female", "25"), ("Android", "male", "40")}
    assert winners[3] == winners[4]  # both in one source, written in the other order
    assert (winners[5], winners[6]) == (winners[1], winners[2])  # the same two actions, the day before
    etl.run(run="again")
    assert etl.attributes() == winners


def test_attributes_that_differ_in_one_place_only_are_kept_apart(etl: Etl) -> None:
    spelled = [(os, gender, age) for os in (None, "", "iOS") for gender in (None, "", "iOS") for age in (None, 0, 1)]
    etl.feed(*((user, "view", "12:00", *attributes) for user, attributes in enumerate(spelled)))
    etl.messages((99, 99, "12:00"))
    etl.run()
    assert_equal(etl.published(), etl.expected())
    assert len(etl.published().user_activity.value_counts(["os", "gender", "age"])) == 2 * 2 * 2


# User 1 writes to the others, who do nothing that day. This is what they did on other days.
LOOKBACK = {
    2: [("view", "2025-03-11 23:59:59", "yesterday")],
    3: [("view", "2025-03-11 10:00", "in the feed"), ("message", "2025-03-11 11:00", "in the messenger")],
    4: [("message", "2025-03-10 10:00", "in the messenger"), ("view", "2025-03-10 11:00", "in the feed")],
    5: [("view", "2025-02-10 00:00:00", "30 days before")],
    6: [("view", "2025-02-09 23:59:59", "31 days before")],
    7: [("view", "2025-03-13 00:00:00", "the day after")],
    8: [("view", "2025-03-11 10:00", "before"), ("message", "2025-03-13 10:00", "after")],
}


@pytest.mark.parametrize(
    ("lookback_days", "found"),
    [
        (30, ["yesterday", "in the messenger", "in the feed", "30 days before", "unknown", "unknown", "before"]),
        (31, ["yesterday", "in the messenger", "in the feed", "30 days before", "31 days before", "unknown", "before"]),
        pytest.param(
            1, ["yesterday", "in the messenger", "unknown", "unknown", "unknown", "unknown", "before"], marks=PROVE
        ),
        pytest.param(0, ["unknown"] * 7, marks=PROVE),
    ],
)
def test_earlier_attributes_come_from_whole_days_before(etl: Etl, lookback_days: int, found: list[str]) -> None:
    for user, actions in LOOKBACK.items():
        etl.messages((1, user, "12:00", *IOS))
        for action, moment, phone in actions:
            if action == "message":
                etl.messages((user, 1, moment, phone))
            else:
                etl.feed((user, action, moment, phone))
    etl.run(lookback_days=lookback_days, allow_empty=True)
    assert [etl.attributes()[user][0] for user in LOOKBACK] == found
    assert_equal(etl.published(), etl.expected(lookback_days=lookback_days))


def test_whoever_acted_that_day_is_not_looked_up(etl: Etl) -> None:
    etl.feed((1, "view", "2025-03-11 12:00", *IOS), (1, "view", "12:00", None, None, None))
    etl.messages((2, 2, "2025-03-11 12:00", *IOS), (2, 1, "12:00", None, "male", None))
    etl.run()
    assert etl.attributes() == {1: ("unknown", "unknown", "unknown"), 2: ("unknown", "male", "unknown")}


def test_earlier_attributes_are_those_that_were_published(etl: Etl) -> None:
    """Late rows of an earlier day count once that day is published again, here as in its own numbers."""
    before = DAY - timedelta(days=1)
    etl.feed((2, "view", f"{before} 10:00", *IOS), (3, "view", f"{DAY - timedelta(days=2)} 10:00", *IOS))
    etl.messages((1, 2, "12:00", *IOS), (1, 3, "12:00", *IOS), (4, 1, f"{before} 12:00", *ANDROID))
    etl.run(before)
    etl.feed((2, "view", f"{before} 11:00", *ANDROID), (3, "view", f"{before} 11:00", *ANDROID))
    etl.run(allow_empty=True)
    phones = {user: os for user, (os, _, _) in etl.attributes().items()}
    assert phones == {1: "iOS", 2: "iOS", 3: "iOS"}  # that of 3 is from a day that was never published
    etl.run(before)
    etl.run(allow_empty=True)
    phones = {user: os for user, (os, _, _) in etl.attributes().items()}
    assert phones == {1: "iOS", 2: "Android", 3: "Android"}
    assert_equal(etl.published(), etl.expected())


# --- nothing there ---------------------------------------------------------------------------------------------------


def test_nobody_viewed_so_there_is_no_ctr_and_nobody_was_there_to_receive(etl: Etl) -> None:
    etl.feed((1, "like", "12:00", *IOS))
    etl.messages((2, 3, "12:00", *IOS))
    etl.run()
    metrics = etl.metrics()
    assert (metrics["views"], metrics["likes"], metrics["ctr"]) == (0, 1, None)
    assert etl.db.value("select ctr is null and sent_per_received is null from daily_metrics") == 1  # not inf, not nan
    assert (metrics["messages_sent"], metrics["messages_received"], metrics["sent_per_received"]) == (1, 0, None)


def test_an_empty_messenger_where_that_is_allowed(etl: Etl) -> None:
    etl.feed((1, "view", "12:00", *IOS), (1, "like", "12:01", *IOS), (2, "view", "12:00", *ANDROID))
    etl.run(allow_empty=True)
    assert_equal(etl.published(), etl.expected())
    assert etl.slices().loc[("os", "iOS"), SLICE].tolist() == [1, 1, 0, 0, 0, 0]
    assert etl.metrics()["messenger_users"] == 0


def test_an_empty_feed_where_that_is_allowed(etl: Etl) -> None:
    etl.messages((1, 2, "12:00", *IOS), (2, 1, "12:01", *ANDROID))
    etl.run(allow_empty=True)
    assert_equal(etl.published(), etl.expected())
    assert (etl.metrics()["feed_users"], etl.metrics()["app_users"], etl.metrics()["sent_per_received"]) == (0, 2, 1)


NO_FEED = (
    "No feed actions on 2025-03-12 in {database}.feed_actions; wait for the source and run again, or set allow_empty"
)
NO_MESSAGES = (
    "No messages on 2025-03-12 in {database}.message_actions; wait for the source and run again, or set allow_empty"
)


@pytest.mark.parametrize(
    ("table", "step", "sentence"),
    [("feed_actions", "extract_feed", NO_FEED), ("message_actions", "extract_messages", NO_MESSAGES)],
)
def test_an_empty_source_stops_its_extract_and_what_was_published_stays(
    etl: Etl, table: str, step: str, sentence: str
) -> None:
    etl.feed((1, "view", "12:00", *IOS))
    etl.messages((1, 2, "12:00", *IOS))
    etl.run()
    before = etl.everything()
    etl.source.execute(f"truncate table {table}")
    with pytest.raises(CheckError) as caught:
        etl.run(steps=[step])
    assert str(caught.value).startswith(sentence.format(database=etl.source.database))
    pd.testing.assert_frame_equal(etl.everything(), before)


def test_papermill_fails_with_the_sentence_too(etl: Etl, tmp_path: Path) -> None:
    with pytest.raises(NotebookError) as caught:
        etl.run_with_papermill(tmp_path, steps=["extract_feed"])
    assert NO_FEED.format(database=etl.source.database) in str(caught.value)


# --- where a day begins and ends -------------------------------------------------------------------------------------


def test_a_day_is_from_midnight_to_midnight_on_the_local_clock(etl: Etl) -> None:
    etl.feed(
        (1, "view", "2025-03-11 23:59:59", *IOS),
        (2, "view", "2025-03-12 00:00:00", *IOS),
        (3, "view", "2025-03-12 23:59:59", *IOS),
        (4, "view", "2025-03-13 00:00:00", *IOS),
    )
    etl.messages(
        (5, 1, "2025-03-11 23:59:59", *IOS),
        (6, 1, "2025-03-12 00:00:00", *IOS),
        (7, 1, "2025-03-12 23:59:59", *IOS),
        (8, 1, "2025-03-13 00:00:00", *IOS),
    )
    etl.run()
    assert set(etl.attributes()) == {1, 2, 3, 6, 7}
    assert etl.metrics()["app_users"] == 4


@pytest.mark.parametrize(
    ("timezone", "day", "hours"),
    [
        pytest.param(*("Europe/Moscow", date(2025, 3, 12), 24), marks=PROVE),
        pytest.param(*("Europe/Berlin", date(2026, 3, 29), 23), marks=PROVE),
        pytest.param(*("Europe/Berlin", date(2025, 10, 26), 25), marks=PROVE),
        ("Africa/Cairo", date(2025, 4, 25), 23),  # it begins at one o'clock: the clocks go forward at midnight
        pytest.param(*("America/Havana", date(2025, 11, 2), 25), marks=PROVE),  # it has two midnights
        pytest.param(*("Asia/Kathmandu", date(2025, 3, 12), 24), marks=PROVE),  # 5:45 ahead of UTC
    ],
)
def test_a_day_has_as_many_hours_as_on_the_local_clock(etl: Etl, timezone: str, day: date, hours: int) -> None:
    etl = dataclasses.replace(etl, timezone=timezone, day=day)
    first = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    quarters = [str(first + timedelta(minutes=15 * number)) for number in range(3 * 24 * 4)]
    etl.feed(*((1, "view", quarter, *IOS) for quarter in quarters))
    etl.messages(*((1, 2, quarter, *IOS) for quarter in quarters))
    etl.run()
    assert (etl.metrics()["views"], etl.metrics()["messages_sent"]) == (4 * hours, 4 * hours)
    assert_equal(etl.published(), etl.expected())


def test_the_hour_that_comes_twice_counts_twice(etl: Etl) -> None:
    etl = dataclasses.replace(etl, timezone="Europe/Berlin", day=date(2025, 10, 26))
    etl.feed(
        (1, "view", "2025-10-26 02:30:00+02:00", *IOS),
        (1, "view", "2025-10-26 02:30:00+01:00", *ANDROID),  # an hour later, at the same local time
    )
    etl.run(allow_empty=True)
    assert etl.metrics()["views"] == 2
    assert etl.attributes()[1] == ("Android", "male", "40")


# In one of these two zones the date is always another than in UTC.
@pytest.mark.parametrize("timezone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_yesterday_is_the_day_before_in_the_configured_time_zone(clickhouse_server: Server, timezone: str) -> None:
    yesterday = datetime.now(ZoneInfo(timezone)).date() - timedelta(days=1)
    with Etl.fresh(clickhouse_server, yesterday, timezone) as local:
        local.feed((1, "view", "00:00:00", *IOS), (1, "like", "23:59:59", *IOS))
        local.run("yesterday", allow_empty=True)
        assert local.metrics()["likes"] >= 1
        assert_equal(local.published(), local.expected())


YESTERDAY_OR_EARLIER = r"has not ended yet in Europe/Moscow; give \d{4}-\d\d-\d\d or earlier\.$"


@pytest.mark.parametrize("step", STEPS)
def test_a_bad_date_stops_in_one_sentence(etl: Etl, step: str) -> None:
    today = datetime.now(etl.zone).date()
    for text, sentence in [
        ("2026-13-45", r"^'2026-13-45' is not a date; give one such as \d{4}-\d\d-\d\d, or yesterday\.$"),
        ("ystrday", "^'ystrday' is not a date; "),
        ("", "^'' is not a date; "),
        (str(today), f"^{today} {YESTERDAY_OR_EARLIER}"),
        (str(today + timedelta(days=1)), f"^{today + timedelta(days=1)} {YESTERDAY_OR_EARLIER}"),
    ]:
        with pytest.raises(SettingsError, match=sentence):
            etl.run(text, steps=[step])


# --- sources as they really are --------------------------------------------------------------------------------------

OS_ENUM = "Enum8('iOS' = 1, 'Android' = 2)"
GENDER_ENUM = "Enum8('female' = 0, 'male' = 1)"


@pytest.mark.parametrize(
    ("feed", "messages"),
    [
        pytest.param({"user_id": "UInt64"}, {"user_id": "UInt8", "receiver_id": "UInt16"}, id="widths", marks=PROVE),
        pytest.param({"user_id": "Int32"}, {"user_id": "Int64", "receiver_id": "Int32"}, id="signed", marks=PROVE),
        pytest.param(
            {"user_id": "Nullable(Int64)", "action": "Nullable(String)", "time": "Nullable(DateTime)"},
            {"user_id": "Nullable(UInt32)", "receiver_id": "Nullable(UInt64)", "time": "Nullable(DateTime)"},
            id="nullable",
        ),
        pytest.param({"action": "Enum8('view' = 1, 'like' = 2)"}, {}, id="action enum", marks=PROVE),
        pytest.param({"action": "Enum16('like' = -1, 'view' = 300, 'share' = 2)"}, {}, id="action enum16", marks=PROVE),
        pytest.param({"action": "LowCardinality(Nullable(String))"}, {}, id="action low cardinality", marks=PROVE),
        pytest.param(
            {"os": "String", "gender": "Nullable(String)"}, {"os": "LowCardinality(String)"}, id="strings", marks=PROVE
        ),
        pytest.param({"os": OS_ENUM}, {"os": OS_ENUM}, id="enums", marks=PROVE),
        pytest.param({"os": f"Nullable({OS_ENUM})"}, {}, id="nullable enum", marks=PROVE),
        pytest.param({"gender": GENDER_ENUM}, {"gender": "String"}, id="gender enum", marks=PROVE),
        pytest.param({"age": "Int16"}, {"age": "Nullable(Int16)"}, id="age signed", marks=PROVE),
        pytest.param({"age": "UInt64"}, {"age": "String"}, id="age text", marks=PROVE),
        pytest.param({"time": "DateTime64(3)"}, {"time": "DateTime64(6, 'UTC')"}, id="fractions", marks=PROVE),
        pytest.param({"time": "DateTime('Asia/Tokyo')"}, {"time": "DateTime64(3, 'America/New_York')"}, id="zones"),
    ],
)
def test_the_types_of_the_source_make_no_difference(etl: Etl, feed: dict[str, str], messages: dict[str, str]) -> None:
    etl.create_source("feed_actions", FEED | feed)
    etl.create_source("message_actions", MESSAGES | messages)
    etl.feed(
        (1, "view", "2025-03-12 00:00:00", *IOS),
        (1, "like", "12:00", *IOS),
        (2, "view", "2025-03-12 23:59:59", *ANDROID),
        (3, "view", "2025-03-11 23:59:59", *ANDROID),
        (4, "view", "2025-03-11 12:00", *IOS),
        (4, "view", "2025-03-13 00:00:00", *IOS),
    )
    etl.messages(
        (1, 2, "2025-03-12 00:00:00", *IOS),
        (2, 3, "12:00", *ANDROID),
        (2, 4, "2025-03-12 23:59:59", *ANDROID),
        (5, 4, "12:00", *IOS),
        (6, 4, "12:00", *ANDROID),
        (3, 1, "2025-03-13 00:00:00", *ANDROID),
    )
    etl.run()
    female, male = ("iOS", "female", "25"), ("Android", "male", "40")
    assert etl.attributes() == {1: female, 2: male, 3: male, 4: female, 5: female, 6: male}
    assert (
        etl.slices()[SLICE].loc[[("os", "iOS"), ("gender", "female"), ("age", "25")]].to_numpy().tolist()
        == [
            [1, 1, 3, 2, 3, 2]  # 4 received from 2, 5 and 6; 1 sent to 2, and 5 to 4
        ]
        * 3
    )
    assert (
        etl.slices()[SLICE].loc[[("os", "Android"), ("gender", "male"), ("age", "40")]].to_numpy().tolist()
        == [
            [1, 0, 2, 3, 2, 2]  # 2 received from 1, and 3 from 2; 2 sent to 3 and 4, and 6 to 4
        ]
        * 3
    )
    assert etl.metrics()["views"] == 2


def test_the_largest_user_ids_are_not_rounded(etl: Etl) -> None:
    largest = 2**64 - 1
    etl.create_source("feed_actions", FEED | {"user_id": "UInt64"})
    etl.create_source("message_actions", MESSAGES | {"user_id": "UInt64", "receiver_id": "UInt64"})
    etl.feed((largest, "view", "12:00", *IOS), (0, "view", "12:00", *ANDROID))
    etl.messages((largest - 1, largest, "12:00", *IOS))
    etl.run()
    assert list(etl.attributes()) == [0, largest - 1, largest]
    assert_equal(etl.published(), etl.expected())


UUIDS = ["61f0c404-5cb3-11e7-907b-a6006ad3dba0", "00000000-0000-0000-0000-000000000005"]


@pytest.mark.parametrize(
    ("feed", "sender", "receiver", "ids"),
    [
        pytest.param(*("Int8", "Int8", "Int8", [-5, 5, -128]), marks=PROVE),
        pytest.param(*("Int32", "UInt32", "Int16", [-5, 5, 7]), marks=PROVE),
        pytest.param(*("Int64", "UInt64", "Nullable(Int64)", [-(2**63), 5, 2**63 - 1]), marks=PROVE),
        pytest.param(*("UInt8", "UInt256", "UInt16", [0, 5, 255]), marks=PROVE),
        pytest.param(*("Int256", "Int128", "Int64", [-(2**63), -5, 5]), marks=PROVE),
        ("Int256", "UInt256", "Int64", [-5, 5, 2**62]),
        pytest.param(*("String", "String", "LowCardinality(String)", ["-5", "5", "Ünal \t'"]), marks=PROVE),
        ("String", "UInt32", "UInt32", ["4", "5", "05"]),
        pytest.param(*("UUID", "UUID", "UUID", [*UUIDS, "ffffffff-ffff-ffff-ffff-ffffffffffff"]), marks=PROVE),
        pytest.param(*("Nullable(UUID)", "String", "String", UUIDS), marks=PROVE),
    ],
)
def test_no_two_users_become_one_and_none_two_whatever_their_ids_are(
    etl: Etl, feed: str, sender: str, receiver: str, ids: list[Any]
) -> None:
    """The n-th user views n times. The first two whose ids fit the senders' type write to the second of the two."""
    etl.create_source("feed_actions", FEED | {"user_id": feed})
    etl.create_source("message_actions", MESSAGES | {"user_id": sender, "receiver_id": receiver})
    etl.feed(*((each, "view", "12:00", *IOS) for place, each in enumerate(ids, 1) for _ in range(place)))
    writers = [each for each in ids if not ("UInt" in sender and str(each).startswith(("-", "0")))][:2]
    etl.messages(*((each, writers[-1], "12:00", *IOS) for each in writers))
    etl.run()
    users = etl.published().user_activity.set_index("user_id")
    assert users["views"].to_dict() == {str(each): place for place, each in enumerate(ids, 1)}
    assert users["messages_sent"].to_dict() == {str(each): int(each in writers) for each in ids}
    assert users.loc[str(writers[-1]), "users_received"] == len(writers)
    assert etl.metrics()["app_users"] == len(ids)


def test_an_id_that_is_no_id_is_refused(etl: Etl) -> None:
    etl.create_source("feed_actions", FEED | {"user_id": "Float64"})
    with pytest.raises(
        SourceError, match=r"app\.sql, line \d+: user_id of feed_events has the type Float64; an id is an"
    ):
        etl.run(steps=["extract_feed"])


@pytest.mark.parametrize("digits", [pytest.param(3, marks=PROVE), 6, pytest.param(9, marks=PROVE)])
def test_later_within_the_same_second_is_later(etl: Etl, digits: int) -> None:
    earlier, later = (f"2025-03-12T09:00:00.{fraction[:digits]}Z" for fraction in ("123123123", "124124124"))
    if digits == 9:
        later = earlier.replace("123Z", "124Z")  # one nanosecond later
    for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
        etl.create_source(table, columns | {"time": f"DateTime64({digits})"})
    action, message = dict(zip(ATTRIBUTES, IOS, strict=True)), dict(zip(ATTRIBUTES, ANDROID, strict=True))
    feed = [{"user_id": user, "action": "view", "time": time} for user, time in ((1, earlier), (2, later))]
    etl.source.write([row | action for row in feed], "feed_actions")
    sent = [{"user_id": user, "receiver_id": user, "time": time} for user, time in ((1, later), (2, earlier))]
    etl.source.write([row | message for row in sent], "message_actions")
    etl.run()
    assert list(etl.attributes().values()) == [("Android", "male", "40"), ("iOS", "female", "25")]


def test_times_that_mean_nothing_are_on_no_day(etl: Etl) -> None:
    for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
        etl.create_source(table, columns | {"time": "DateTime64(3)"})
    years = [f"{year}-03-12T09:00:00Z" for year in (1900, 1970, 2025, 2106, 2299)]
    feed = [{"user_id": user, "action": "view", "time": time} for user, time in enumerate(years)]
    etl.source.write(feed, "feed_actions")
    etl.source.write(
        [{"user_id": user, "receiver_id": 1, "time": time} for user, time in enumerate(years)], "message_actions"
    )
    etl.run()
    assert etl.metrics()["app_users"] == 1
    assert (etl.metrics()["views"], etl.metrics()["messages_sent"]) == (1, 1)


@pytest.mark.parametrize(
    "layout",
    [pytest.param(layout, marks=PROVE if layout not in ("by day and user", "time") else ()) for layout in LAYOUTS],
)
def test_the_last_moment_of_a_day_is_in_it_however_the_source_lies_on_disk(etl: Etl, layout: str) -> None:
    """A part or granule that begins in the day's last second is not mistaken for one of the next day."""
    for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
        etl.create_source(table, columns | {"time": "DateTime64(6)"}, layout)
    moments = ["2025-03-11 23:59:59.999999", "00:00", "23:59:59.000001", "23:59:59.999999", "2025-03-13 00:00"]
    for user, moment in enumerate(moments):  # each insert makes its own part
        etl.feed((user, "view", moment, *IOS))
        etl.messages((user, 10 + user, moment, *IOS))
    etl.run()
    assert list(etl.attributes()) == [1, 2, 3, 11, 12, 13]
    assert_equal(etl.published(), etl.expected())


def test_rows_that_do_not_say_who_are_left_out(etl: Etl) -> None:
    etl.create_source("feed_actions", FEED | {"user_id": "Nullable(UInt32)", "action": "Nullable(String)"})
    etl.create_source("message_actions", MESSAGES | {"user_id": "Nullable(UInt32)", "receiver_id": "Nullable(UInt32)"})
    etl.feed((None, "view", "12:00", *IOS), (1, "view", "12:00", *IOS), (2, None, "12:00", *ANDROID))
    etl.messages((None, 1, "12:00", *IOS), (1, None, "12:00", *ANDROID), (1, 2, "12:00", *IOS))
    etl.run()
    assert_equal(etl.published(), etl.expected())
    metrics = etl.metrics()
    assert (metrics["feed_users"], metrics["views"], metrics["messages_sent"]) == (2, 1, 1)  # the action of 2 is NULL


@pytest.mark.parametrize(
    "kind", ["Nullable(Int8)", *(pytest.param(kind, marks=PROVE) for kind in ("UInt8", "LowCardinality(String)"))]
)
def test_a_coded_gender_gets_its_name_from_sources_sql(etl: Etl, kind: str, sources: Sources) -> None:
    etl.create_source("feed_actions", FEED | {"gender": kind})
    etl.feed((1, "view", "12:00", "iOS", 0), (2, "view", "12:00", "iOS", 1), (3, "view", "12:00", "iOS", 2))
    etl.run(allow_empty=True)
    assert [gender for _, gender, _ in etl.attributes().values()] == ["0", "1", "2"]
    sources(GENDER, NAMED_GENDER)
    with pytest.raises(schema.SchemaError, match=r"feed_events .* reads .* run `pulse upgrade --other-source`"):
        etl.run(allow_empty=True)
    schema.upgrade(etl.db, etl.reads, other_source=True)
    etl.run(allow_empty=True)
    assert [gender for _, gender, _ in etl.attributes().values()] == ["female", "male", "2"]


def test_a_gender_coded_in_one_source_and_named_in_the_other(etl: Etl, sources: Sources) -> None:
    etl.create_source("feed_actions", FEED | {"gender": "UInt8"})
    etl.create_source("message_actions", MESSAGES | {"gender": "Enum8('male' = 0, 'female' = 1)"})
    etl.feed((1, "view", "12:00", "iOS", 0, 30), (2, "view", "12:00", "iOS", 1, 30))
    etl.messages((3, 3, "12:00", "iOS", "female", 30), (4, 4, "12:00", "iOS", "male", 30))
    sources(GENDER, NAMED_GENDER)
    etl.run()
    genders = {user: gender for user, (_, gender, _) in etl.attributes().items()}
    assert genders == {1: "female", 2: "male", 3: "female", 4: "male"}


def test_an_enum_that_the_two_sources_number_differently(etl: Etl) -> None:
    etl.create_source("feed_actions", FEED | {"os": "Enum8('iOS' = 1, 'Android' = 2)"})
    etl.create_source("message_actions", MESSAGES | {"os": "Enum8('Android' = 1, 'iOS' = 2)"})
    etl.feed((1, "view", "12:00", "iOS", "male", 30), (2, "view", "12:00", "Android", "male", 30))
    etl.messages((3, 3, "12:00", "iOS", "male", 30), (4, 4, "12:00", "Android", "male", 30))
    etl.run()
    assert [os for os, _, _ in etl.attributes().values()] == ["iOS", "Android", "iOS", "Android"]


AWKWARD = [
    "it's", 'say "hi"', "a\tb", "back\\slash", "\\N", "{brace}", "{os:String}", "%s", "🐈‍⬛", "Android\n14", "\r", "\0",
    " ", "NULL", "Android ", "android", "İstanbul", "long " * 100, "<b>&amp;</b>", "'; drop table feed_actions; --",
]  # fmt: skip


def test_awkward_names_come_through_unchanged(etl: Etl) -> None:
    etl.feed(*((user, "view", "12:00", os, os, 30) for user, os in enumerate(AWKWARD)))
    etl.messages(
        *((user, 100 + user, "2025-03-11 12:00", os) for user, os in enumerate(AWKWARD, 100)), (0, 100, "12:00")
    )
    etl.messages((0, 0, "12:00:01", AWKWARD[0], AWKWARD[0], 30))
    etl.run()
    assert [os for os, _, _ in etl.attributes().values()] == [*AWKWARD, AWKWARD[0]]
    assert_equal(etl.published(), etl.expected())


def test_other_columns_are_ignored_whatever_they_are_called(etl: Etl) -> None:
    kinds = {"country": "String", "exp_group": "UInt8", "awkward {name}": "Array(String)", "views": "Nullable(Float32)"}
    ours = {"attributes": "UInt8", "latest": "DateTime", "partner": "UInt64", "day": "Date", "event_date": "Date"}
    other = kinds | ours
    etl.create_source("feed_actions", other | FEED | {"receiver_id": "UInt32"})
    etl.create_source("message_actions", MESSAGES | other | {"action": "String"})
    etl.feed((1, "view", "12:00", *IOS), (1, "like", "12:01", *ANDROID), (2, "view", "2025-03-11 12:00", *IOS))
    etl.messages((1, 2, "12:02", *IOS))
    etl.run()
    assert_equal(etl.published(), etl.expected())
    assert etl.attributes() == {1: ("iOS", "female", "25"), 2: ("iOS", "female", "25")}


@pytest.mark.parametrize("table", ["feed_actions", "message_actions"])
def test_a_source_table_that_is_missing_is_named(etl: Etl, table: str) -> None:
    etl.source.execute(f"drop table {table}")
    for step in STEPS:
        with pytest.raises(SourceError, match=rf"\b{table}\b.*Check PULSE_SOURCE_DATABASE"):
            etl.run(steps=[step])


def test_a_source_database_that_is_missing_is_named(etl: Etl) -> None:
    etl.source.execute("drop database {name:Identifier}", name=etl.source.database)
    with pytest.raises(SourceError, match=rf"\b{etl.source.database}\b.*Check PULSE_SOURCE_DATABASE"):
        etl.run(steps=["extract_feed"])


@pytest.mark.parametrize(
    ("table", "column"), [*(("feed_actions", name) for name in FEED), *(("message_actions", name) for name in MESSAGES)]
)
def test_a_source_column_that_is_missing_is_named(etl: Etl, table: str, column: str) -> None:
    columns = dict(FEED if table == "feed_actions" else MESSAGES)
    del columns[column]
    etl.create_source(table, columns)
    with pytest.raises(SourceError, match=rf"\b{column}\b.*[Cc]heck that the source tables have the columns"):
        etl.run(steps=["extract_feed" if table == "feed_actions" else "extract_messages"])


# --- again, in any order, at the same time ---------------------------------------------------------------------------


def write_three_days(etl: Etl) -> list[date]:
    """Write three days. On each, another one of users 0 to 2 acts in the feed, and user 9 writes to all three."""
    days = [etl.day - timedelta(days=1), etl.day, etl.day + timedelta(days=1)]
    for number, day in enumerate(days):
        etl.feed((number, "view", f"{day} 10:00", *IOS), (9, "like", f"{day} 11:00", f"phone {number}"))
        etl.messages(*((9, receiver, f"{day} 12:00", *ANDROID) for receiver in range(3)))
    return days


@PROVE
def test_a_rerun_gives_the_same_rows_and_each_once(etl: Etl) -> None:
    days = write_three_days(etl)
    for day in days:
        etl.run(day)
    before = etl.everything()
    for day in days:
        etl.run(day, run="again")
    pd.testing.assert_frame_equal(etl.everything(), before)
    for day in days:
        assert_equal(etl.published(day), etl.expected(day))


@PROVE
def test_the_order_of_days_makes_no_difference(clickhouse_server: Server) -> None:
    contents = []
    for order in ([0, 1, 2], [2, 0, 1]):
        with Etl.fresh(clickhouse_server, DAY) as etl:
            days = write_three_days(etl)
            for number in order:
                etl.run(days[number])
            contents.append(etl.everything())
    pd.testing.assert_frame_equal(*contents)


def test_a_rerun_replaces_the_day_and_no_other(etl: Etl) -> None:
    yesterday, day, tomorrow = write_three_days(etl)
    for each in (yesterday, day, tomorrow):
        etl.run(each)
    others = [etl.published(yesterday), etl.published(tomorrow)]
    delete_feed_of(etl, 1)
    etl.feed((8, "view", "10:00", "Symbian", "male", 70))
    etl.run(day)
    assert "Symbian" in etl.slices(day).loc["os"].index
    assert etl.users(day).loc[1, "views"] == 0
    assert_equal(etl.published(day), etl.expected(day))
    for each, before in zip((yesterday, tomorrow), others, strict=True):
        assert_equal(etl.published(each), before)


def delete_feed_of(etl: Etl, user: int) -> None:
    """Delete a user's feed actions from the source."""
    # The statement names the database, because chDB looks for the table of a `delete` in another one.
    statement = "delete from {database:Identifier}.feed_actions where user_id = {user:UInt64}"
    etl.source.execute(statement, database=etl.source.database, user=user)


def test_a_user_who_was_there_by_mistake_is_gone_after_the_rerun(etl: Etl) -> None:
    etl.feed((1, "view", "12:00", *IOS), (2, "view", "12:00", *ANDROID))
    etl.run(allow_empty=True)
    delete_feed_of(etl, 2)
    etl.run(allow_empty=True)
    assert list(etl.attributes()) == [1]
    assert set(etl.slices().loc["os"].index) == {"iOS"}


def test_two_runs_of_a_day_whose_steps_alternate_do_not_mix(etl: Etl) -> None:
    """Each run publishes what it extracted, as a whole; the run that extracted last stays published."""
    etl.feed((1, "view", "10:00", *IOS))
    etl.messages((1, 2, "10:00", *IOS))
    extracts = STEPS[:2]
    etl.run(steps=extracts, run="early")
    early = etl.expected()
    etl.feed((3, "like", "11:00", *ANDROID))
    etl.messages((3, 1, "11:00", *ANDROID))
    etl.run(steps=extracts, run="late")
    late = etl.expected()
    etl.run(steps=["transform"], run="late")
    etl.run(steps=["transform"], run="early")
    etl.run(steps=["load"], run="early")
    assert_equal(etl.published(), early)
    etl.run(steps=["load"], run="late")
    assert_equal(etl.published(), late)


@PROVE
def test_runs_in_two_processes_at_once(etl: Etl) -> None:
    """The first two runs are for the same day and find no project tables; the others are for the days around it."""
    yesterday, today, tomorrow = write_three_days(etl)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        each = [today, today, yesterday, tomorrow]
        for done in [pool.submit(etl.run, each[number], run=f"run_{number}") for number in range(4)]:
            done.result()
    for day in {*each}:
        assert_equal(etl.published(day), etl.expected(day))
    assert {name.partition("__")[2] for name in etl.staging()} == {f"run_{number}" for number in range(4)}


# --- failures --------------------------------------------------------------------------------------------------------

AGAIN_WITHOUT_COUNTS = "select * replace (0 as views, 0 as likes, 0 as messages_received, 0 as messages_sent)"
DIFFERENT_TOTALS = "The totals of 2025-03-12 differ between users and slices; nothing is published"
WRONG_USERS = "Users of 2025-03-12 are not what was extracted, by their {}"
WRONG_SLICES = "Slices of 2025-03-12 are not what their users did; nothing is published"
WRONG_SLICE_METRICS = "The metrics of slices of 2025-03-12 are not what their users did; nothing is published"
WRONG_METRICS = "The metrics of 2025-03-12 are not what was extracted; nothing is published"
MORE_THAN_ONCE = "Rows of 2025-03-12 are there more than once; nothing is published"

# What may be wrong with the staged tables of a run, and what `load` says then.
WRONG = {
    "a user is there twice": (
        f"insert into user_activity__wrong {AGAIN_WITHOUT_COUNTS} from user_activity__wrong limit 1",
        MORE_THAN_ONCE,
    ),
    "a slice is there twice": (
        f"insert into dimension_activity__wrong {AGAIN_WITHOUT_COUNTS} from dimension_activity__wrong limit 1",
        MORE_THAN_ONCE,
    ),
    "the metrics are there twice": (
        "insert into daily_metrics__wrong select * from daily_metrics__wrong",
        MORE_THAN_ONCE,
    ),
    "a user has more views than were extracted": (
        "alter table {database}.user_activity__wrong update views = views + 1 where user_id = '1'"
        " settings mutations_sync = 1",
        DIFFERENT_TOTALS,
    ),
    "a slice has fewer messages": (
        "alter table {database}.dimension_activity__wrong update messages_sent = 0 where dimension_value = 'iOS'"
        " settings mutations_sync = 1",
        DIFFERENT_TOTALS,
    ),
    "a slice is missing": (
        "alter table {database}.dimension_activity__wrong delete where dimension_value = 'iOS'"
        " settings mutations_sync = 1",
        DIFFERENT_TOTALS,
    ),
    "a dimension is missing": (
        "alter table {database}.dimension_activity__wrong delete where dimension = 'age' settings mutations_sync = 1",
        DIFFERENT_TOTALS,
    ),
    "a slice has a partner more": (
        "alter table {database}.dimension_activity__wrong update users_received = users_received + 1"
        " where dimension_value = 'iOS' settings mutations_sync = 1",
        WRONG_SLICES,
    ),
    "a slice has another's partners": (
        "alter table {database}.dimension_activity__wrong update users_sent = 2 where dimension_value = '25'"
        " settings mutations_sync = 1",
        WRONG_SLICES,
    ),
    "a slice is there that nobody is in": (
        "insert into dimension_activity__wrong select * replace ('Symbian' as dimension_value, 0 as views, 0 as likes,"
        " 0 as messages_received, 0 as messages_sent, 0 as users_received, 0 as users_sent)"
        " from dimension_activity__wrong where dimension = 'os' limit 1",
        WRONG_SLICES,
    ),
    **{
        f"a slice has another's {column}": (
            "alter table {database}.dimension_activity__wrong update "
            + f"{column} = {column} + if(dimension_value = 'iOS', 1, -1) where dimension = 'os'"
            " settings mutations_sync = 1",
            WRONG_SLICES,
        )
        for column, kind in SHAPES["dimension_activity"].items()
        if kind == "UInt64"
    },
    **{
        f"a slice has another {column}": (
            "alter table {database}.dimension_metrics__wrong update "
            + f"{column} = {'1' if kind == 'UInt64' else '0.25'} + ifNull({column}, 0) where dimension_value = 'iOS'"
            " settings mutations_sync = 1",
            WRONG_SLICE_METRICS,
        )
        for column, kind in SHAPES["dimension_metrics"].items()
        if kind in ("UInt64", "Nullable(Float64)")
    },
    "a slice has no metrics": (
        "alter table {database}.dimension_metrics__wrong delete where dimension_value = '25'"
        " settings mutations_sync = 1",
        WRONG_SLICE_METRICS,
    ),
    "a slice has metrics twice": (
        "insert into dimension_metrics__wrong select * from dimension_metrics__wrong limit 1",
        MORE_THAN_ONCE,
    ),
    "users of all slices were lost": (
        "alter table {database}.users__wrong update feed_active = false where true settings mutations_sync = 1",
        "The slices of 2025-03-12 do not add up to the day's metrics; nothing is published",
    ),
    **{
        f"a user has another's {column}": (
            "alter table {database}.user_activity__wrong update "
            + f"{column} = {column} + if(user_id = '1', 1, -1) where user_id in ('1', '2') settings mutations_sync = 1",
            WRONG_USERS.format(column),
        )
        for column, kind in SHAPES["user_activity"].items()
        if kind == "UInt64"
    },
    **{
        f"a user's {column} is another": (
            "alter table {database}.user_activity__wrong update "
            + f"{column} = {'not feed_active' if kind == 'Bool' else repr('Symbian')} where user_id = '1'"
            " settings mutations_sync = 1",
            WRONG_USERS.format(column),
        )
        for column, kind in SHAPES["user_activity"].items()
        if kind not in ("UInt64", "Date") and column != "user_id"
    },
    "a user is there who did nothing": (
        "insert into user_activity__wrong select * replace ('new' as user_id, 0 as views, 0 as likes,"
        " 0 as messages_received, 0 as messages_sent) from user_activity__wrong limit 1",
        WRONG_USERS.format("user_id"),
    ),
    "what its attributes are called was changed after its users were": (
        "alter table {database}.attributes__wrong update age = '26' where age = '25' settings mutations_sync = 1",
        WRONG_USERS.format("age"),
    ),
    **{
        f"the metrics have another {column}": (
            "alter table {database}.daily_metrics__wrong update " + f"{column} = {column} + 1 where true"
            " settings mutations_sync = 1",
            WRONG_METRICS,
        )
        for column in SHAPES["daily_metrics"]
        if column != "event_date"
    },
    "a ratio is missing": (
        "alter table {database}.daily_metrics__wrong update ctr = null where true settings mutations_sync = 1",
        WRONG_METRICS,
    ),
    "a part of it was computed again": (
        "insert into user_activity__wrong select * replace ('other' as load, 'new' as user_id, 0 as views, 0 as likes,"
        " 0 as messages_received, 0 as messages_sent) from user_activity__wrong limit 1",
        "hold 2 loads where one was expected",
    ),
    "a row is of another day": (
        "insert into user_activity__wrong select * replace (event_date + 1 as event_date) from user_activity__wrong",
        "where 2025-03-12 was expected; run extract and transform for 2025-03-12 first",
    ),
    "the slices are of another day": (
        "insert into dimension_activity__wrong select * replace (event_date - 1 as event_date)"
        " from dimension_activity__wrong",
        "where 2025-03-12 was expected; run extract and transform for 2025-03-12 first",
    ),
    "the metrics are empty": (
        "truncate table daily_metrics__wrong",
        "daily_metrics__wrong holds nothing where 2025-03-12 was expected",
    ),
    "the users are gone": ("drop table user_activity__wrong", "user_activity__wrong"),
}


@pytest.fixture(scope="module")
def standing(clickhouse_server: Server) -> Iterator[tuple[Etl, pd.DataFrame]]:
    """A published day, and what its tables held. Since then, the source has got more rows for that day."""
    with Etl.fresh(clickhouse_server, DAY) as etl:
        etl.feed((1, "view", "10:00", *IOS), (2, "view", "10:00", *ANDROID))
        etl.messages((1, 2, "10:00", *IOS), (2, 1, "10:00", *ANDROID))
        etl.run()
        etl.feed((3, "like", "11:00", *IOS))
        etl.run(steps=STEPS[:2], run="wrong")
        yield etl, etl.everything()


def _what_is_wrong() -> Iterator[Any]:
    """The faults; of those that a fault of each column has, one without the marker `prove`."""
    known, columns = set(), {column for shape in SHAPES.values() for column in shape}
    for what in WRONG:
        kind = " ".join(word for word in what.split() if word not in columns)
        yield pytest.param(what, marks=[pytest.mark.prove] if kind in known else [])
        known.add(kind)


@pytest.mark.parametrize("what", list(_what_is_wrong()))
def test_load_publishes_nothing_where(standing: tuple[Etl, pd.DataFrame], what: str) -> None:
    etl, before = standing
    statement, sentence = WRONG[what]
    etl.run(steps=["transform"], run="wrong")
    # The engine finds the table of a mutation only by its full name.
    etl.db.execute(statement.replace("{database}.", f"{etl.db.database}.{etl.db.prefix}"))
    with pytest.raises((CheckError, ClickHouseError)) as caught:
        etl.run(steps=["load"], run="wrong")
    assert sentence in str(caught.value)
    pd.testing.assert_frame_equal(etl.everything(), before)


def test_load_publishes_nothing_where_what_was_extracted_is_gone(standing: tuple[Etl, pd.DataFrame]) -> None:
    etl, before = standing
    etl.run(steps=STEPS[:3], run="gone")
    etl.db.execute("drop table feed_users__gone")
    with pytest.raises(CheckError, match="feed_users__gone of run gone are not there; run extract and transform"):
        etl.run(steps=["load"], run="gone")
    pd.testing.assert_frame_equal(etl.everything(), before)


def test_load_refuses_another_day_than_the_staged_one(standing: tuple[Etl, pd.DataFrame]) -> None:
    etl, before = standing
    etl.run(steps=STEPS[:3], run="other_day")
    for day in (DAY - timedelta(days=1), DAY + timedelta(days=1)):
        with pytest.raises(CheckError, match=f"user_activity__other_day holds {DAY} where {day} was expected"):
            etl.run(day, steps=["load"], run="other_day")
    pd.testing.assert_frame_equal(etl.everything(), before)


def test_transform_without_its_extracts_publishes_nothing(standing: tuple[Etl, pd.DataFrame]) -> None:
    etl, before = standing
    for missing in STEPS[:2]:
        run = f"without_{missing}"
        etl.run(steps=[step for step in STEPS[:2] if step != missing], run=run)
        tables = {
            "extract_feed": ["feed_attributes", "feed_users"],
            "extract_messages": ["message_attributes", "message_receivers", "message_senders"],
        }[missing]
        gone = ", ".join(f"{table}__{run}" for table in tables)
        sentence = rf"^{gone} are not there; run both extracts for {DAY} first"
        with pytest.raises(CheckError, match=sentence):
            etl.run(steps=STEPS[2:], run=run)
    with pytest.raises(CheckError, match=r"^lookback_days is -1; give 0 to 366$"):
        etl.run(lookback_days=-1, run="negative")
    pd.testing.assert_frame_equal(etl.everything(), before)


def test_a_column_that_was_added_anywhere_shifts_no_number(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS), (1, "like", "10:00", *IOS), (2, "view", "10:00", *ANDROID))
    etl.messages((1, 2, "10:00", *IOS))
    schema.ensure(etl.db)
    for table, after in (
        ("user_activity", "likes"),
        ("dimension_activity", "likes"),
        ("dimension_metrics", "likes"),
        ("daily_metrics", "event_date"),
    ):
        etl.db.execute(f"alter table {table}_loads add column reposts UInt64 after {after}")
    etl.run()
    assert_equal(etl.published(), etl.expected())


@pytest.mark.parametrize("dimensions", [("os", "gender"), ("os", "gender", "age", "generation")])
def test_load_checks_whatever_dimensions_there_are(
    etl: Etl, dimensions: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dimension less, and one more. The test changes only what the README says to change for that."""
    age = "toLowCardinality(if(any(age) in ('', '0'), 'unknown', any(age))) as age"
    generation = "if(age = 'unknown', age, if(toUInt8OrZero(age) < 30, 'young', 'old')) as generation"
    for step in STEPS:
        node = nbformat.read(FOLDER / f"{step}.ipynb", as_version=4)
        for cell in node.cells:
            cell.source = cell.source.replace(age, f"{age},\n    {generation}")
        nbformat.write(node, tmp_path / f"{step}.ipynb")
    listed = tuple(Dimension(name, name, name) for name in dimensions)
    monkeypatch.setattr("pulse.metrics.DIMENSIONS", listed)
    etl = dataclasses.replace(etl, folder=tmp_path)
    etl.feed((1, "view", "10:00", *IOS), (1, "like", "10:00", *IOS), (2, "view", "10:00", *ANDROID))
    etl.messages((1, 2, "10:00", *IOS), (3, 1, "10:00"))
    etl.run()
    slices = etl.slices()
    assert set(slices.index.get_level_values("dimension")) == set(dimensions)
    if "generation" in dimensions:
        assert slices.loc["generation", "views"].to_dict() == {"young": 1, "old": 1, "unknown": 0}
    etl.run(steps=STEPS[:3])
    etl.db.execute(
        "alter table {database:Identifier}.dimension_activity__by_hand update users_sent = 7"
        " where dimension = {dimension:String} settings mutations_sync = 1",
        database=etl.db.database,
        dimension=dimensions[-1],
    )
    with pytest.raises(CheckError, match=WRONG_SLICES):
        etl.run(steps=["load"])


def test_a_run_that_failed_is_repaired_by_repeating_it(etl: Etl) -> None:
    etl.feed((1, "view", "10:00", *IOS))
    etl.messages((1, 2, "10:00", *IOS))
    etl.run(steps=STEPS[:3])
    etl.db.execute("truncate table dimension_activity__by_hand")
    with pytest.raises(CheckError):
        etl.run(steps=["load"])
    assert etl.everything()["rows"].tolist() == [0, 0, 0, 0]
    etl.run()
    assert_equal(etl.published(), etl.expected())
