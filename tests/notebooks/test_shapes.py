"""Sources of many shapes: each is computed right, or refused in one sentence.

Expected numbers are counted in Python.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import FEED, MESSAGES, OPTIONAL, Etl, Sources, assert_equal, split_by
from pulse import schema, settings
from pulse.execution.errors import CheckError
from pulse.publishing import agreement, late_data, loads, restating, slices
from pulse.reports.reconcile import reconcile
from pulse.sources import views
from pulse.sources.definition import SourceError

PROVE = pytest.mark.prove
DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)
HALF_HOUR = timedelta(minutes=30)

# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pytest.param("DateTime", marks=PROVE), "DateTime64(3)"])
@pytest.mark.parametrize(
    ("source_zone", "zone", "day"),
    [
        ("Europe/Moscow", "Europe/Moscow", DAY),
        ("Asia/Tokyo", "Europe/Moscow", DAY),
        ("Europe/Berlin", "Europe/Berlin", date(2025, 3, 30)),  # 23 hours
        ("Europe/Berlin", "Europe/Berlin", date(2025, 10, 26)),  # 25 hours, one of them twice
        ("America/New_York", "Europe/Moscow", date(2025, 3, 9)),
        ("Europe/Moscow", "UTC", DAY),
        ("UTC", "Asia/Kolkata", DAY),
    ],
)
def test_clock_times_without_a_zone_are_those_of_the_sources_zone(
    clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch, kind: str, source_zone: str, zone: str, day: date
) -> None:
    monkeypatch.setenv("PULSE_SOURCE_TIMEZONE", source_zone)
    there = ZoneInfo(source_zone)
    first = datetime(day.year, day.month, day.day) - timedelta(days=1)  # what a clock showed
    clocks = [first + number * HALF_HOUR for number in range(3 * 48)]
    # The clock never showed the times that were skipped.
    shown = [
        clock
        for clock in clocks
        if clock.replace(tzinfo=there).astimezone(UTC).astimezone(there).replace(tzinfo=None) == clock
    ]
    with Etl.fresh(clickhouse_server, day, zone) as etl:
        for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
            etl.create_source(table, columns | {"time": kind})
        # The server's own zone is UTC, so this stores what the clock showed.
        etl.write(
            "feed_actions",
            list(FEED),
            [(number, "view", f"{clock}+00:00", *IOS) for number, clock in enumerate(shown, 1)],
        )
        etl.write("message_actions", list(MESSAGES), [(1, 2, f"{clock}+00:00", *IOS) for clock in shown])
        etl.run()
        expected = [
            number
            for number, clock in enumerate(shown, 1)
            if clock.replace(tzinfo=there).astimezone(ZoneInfo(zone)).date() == day
        ]
        users = etl.users()
        assert users.index[users["views"] > 0].tolist() == expected
        assert etl.metrics()["messages_sent"] == len(expected)


def test_a_zone_in_the_columns_type_comes_before_the_setting(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_SOURCE_TIMEZONE", "Asia/Tokyo")
    etl.create_source("feed_actions", FEED | {"time": "DateTime('America/New_York')"})
    etl.create_source("message_actions", MESSAGES | {"time": "DateTime64(3, 'UTC')"})
    etl.feed((1, "view", "00:00", *IOS), (2, "like", "23:59", *IOS), (3, "view", "2025-03-11 23:59", *IOS))
    etl.messages((1, 2, "00:00", *IOS), (2, 3, "23:58", *IOS), (2, 1, "2025-03-13 00:00", *IOS))
    etl.run()
    assert_equal(etl.published(), etl.expected())


@pytest.mark.parametrize(
    ("kind", "unit", "read"),
    [
        ("UInt32", 1, None),
        ("Int32", 1, None),
        ("Int64", 1, "toDateTime(time)"),
        ("UInt64", 1_000, "toDateTime64(time / 1000, 3)"),
        ("Int64", 1_000_000, "toDateTime64(time / 1000000, 6)"),
    ],
)
def test_times_since_1970(etl: Etl, sources: Sources, kind: str, unit: int, read: str | None) -> None:
    moments = {1: "00:00:00", 2: "12:34:56.789", 3: "23:59:59.999", 4: "2025-03-11 23:59:59.999", 5: "2025-03-13 00:00"}
    for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
        etl.create_source(table, columns | {"time": kind})
    counted = {user: int(etl.moment(moment).timestamp() * unit) for user, moment in moments.items()}
    etl.source.write(
        [{"user_id": user, "action": "view", "time": since} for user, since in counted.items()], "feed_actions"
    )
    etl.source.write(
        [{"user_id": 1, "receiver_id": user, "time": since} for user, since in counted.items()], "message_actions"
    )
    if read:
        with pytest.raises(
            SourceError, match=r"line \d+: time of feed_events has the type U?Int64; if these are milli"
        ):
            etl.run()
        sources("    time,\n", f"    {read} as time,\n")
    etl.run()
    users = etl.users()
    assert users.index[users["views"] > 0].tolist() == [1, 2, 3]
    assert etl.metrics()["messages_sent"] == 3


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("receiver", ["reciever_id", "receiver_id"])
def test_the_course(etl: Etl, monkeypatch: pytest.MonkeyPatch, receiver: str) -> None:
    monkeypatch.setenv("PULSE_SOURCE", "course")
    others = {"country": "String", "city": "String", "source": "String", "exp_group": "Int8"}
    shared = {"age": "Int16"} | others
    own = FEED | {"post_id": "UInt32", "gender": "Int8"} | shared
    etl.create_source("feed_actions", own)
    messages = {receiver if name == "receiver_id" else name: kind for name, kind in MESSAGES.items()}
    etl.create_source("message_actions", messages | {"gender": "Int8"} | shared)
    etl.feed(
        (1, "view", "12:00", "iOS", 1, 20, "Russia", "Moscow", "ads", 0),
        (1, "like", "12:01", "iOS", 1, 20, "Russia", "Moscow", "ads", 0),
        (2, "view", "12:00", "Android", 0, 0, "Russia", "Tver", "organic", 4),
    )
    sent = (3, 1, "13:00", "Android", 0, 33, "Belarus", "", "organic", 0)
    etl.write("message_actions", [*messages, *others], [sent])
    etl.run()
    assert etl.attributes() == {
        1: ("iOS", "male", "20"),
        2: ("Android", "female", "unknown"),
        3: ("Android", "female", "33"),
    }
    metrics = etl.metrics()
    assert (metrics["views"], metrics["likes"], metrics["messages_sent"], metrics["messages_received"]) == (2, 1, 1, 1)
    assert etl.users()[list(others)].to_numpy().tolist() == [
        ["Russia", "Moscow", "ads", "0"],
        ["Russia", "Tver", "organic", "4"],
        ["Belarus", "unknown", "organic", "0"],
    ]
    slices = etl.slices()[["views", "likes", "messages_received", "messages_sent", "users_received", "users_sent"]]
    assert {name: row.tolist() for name, row in slices.iterrows() if name[0] in others} == {
        ("country", "Russia"): [2, 1, 1, 0, 1, 0],
        ("country", "Belarus"): [0, 0, 0, 1, 0, 1],
        ("city", "Moscow"): [1, 1, 1, 0, 1, 0],
        ("city", "Tver"): [1, 0, 0, 0, 0, 0],
        ("city", "unknown"): [0, 0, 0, 1, 0, 1],
        ("source", "ads"): [1, 1, 1, 0, 1, 0],
        ("source", "organic"): [1, 0, 0, 1, 0, 1],
        ("exp_group", "0"): [1, 1, 1, 1, 1, 1],
        ("exp_group", "4"): [1, 0, 0, 0, 0, 0],
    }
    ctr = etl.published().dimension_metrics.set_index(["dimension", "dimension_value"])["ctr"]
    assert ctr["country"].dropna().to_dict() == {"Russia": 0.5}


def test_a_table_of_the_course_that_lacks_a_column_is_named(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_SOURCE", "course")
    etl.create_source("feed_actions", FEED | OPTIONAL)
    etl.create_source("message_actions", {name: kind for name, kind in (MESSAGES | OPTIONAL).items() if name != "city"})
    with pytest.raises(SourceError, match=r"course.sql, line \d+: message_events cannot be read.*`city`"):
        etl.run()


# --- dimensions that a source may have -------------------------------------------------------------------------------


def having(etl: Etl, folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on the source has these further dimensions."""
    split_by(folder, names)
    monkeypatch.setenv("PULSE_SOURCE", str(folder))
    for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES)):
        etl.create_source(table, columns | OPTIONAL)


def test_without_them_there_are_no_slices_of_them(etl: Etl) -> None:
    etl.feed((1, "view", "12:00", *IOS))
    etl.messages((1, 2, "12:00", *IOS))
    etl.run()
    for table in ("dimension_activity", "dimension_metrics"):
        found = etl.db.read(f"select distinct dimension from {table} order by dimension")  # noqa: S608
        assert found["dimension"].tolist() == ["age", "gender", "os"]
    assert set(etl.users()[list(OPTIONAL)].to_numpy().ravel()) == {"unknown"}
    assert views.dimensions(etl.db) == ["os", "gender", "age"]


def test_users_who_only_received_have_their_earlier_ones(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the source for days that were never published, and from what was published for others."""
    having(etl, tmp_path, monkeypatch, *OPTIONAL)
    etl.feed(
        (1, "view", "12:00", *IOS, "RU", "Moscow", "ads", 0), (2, "view", "2025-03-10 12:00", *IOS, "KZ", "Almaty")
    )
    etl.feed((3, "view", "2025-03-11 12:00", *IOS, "BY", "Minsk", "organic", 2))
    etl.messages(*((1, user, "12:00", *IOS, "RU", "Moscow", "ads", 0) for user in (2, 3, 4)))
    etl.messages((3, 1, "2025-03-11 12:00", *IOS, "BY", "Minsk", "organic", 2))
    etl.run("2025-03-11")
    etl.run()
    assert_equal(etl.published(), etl.expected(optional=OPTIONAL))
    assert etl.users()["country"].to_dict() == {1: "RU", 2: "KZ", 3: "BY", 4: "unknown"}


@pytest.mark.parametrize("users", [1200, pytest.param(6000, marks=pytest.mark.prove)])
def test_many_cities(etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: int) -> None:
    """Nearly every user is in a city of their own, so there are nearly as many combinations of attributes as users."""
    having(etl, tmp_path, monkeypatch, *OPTIONAL)
    dice = Random(7)  # noqa: S311
    where = [f"city {number}" for number in range(users // 2)]
    who = {
        user: (*dice.choice([IOS, ANDROID]), "RU", dice.choice(where), dice.choice(["ads", ""]), user % 3)
        for user in range(1, users + 1)
    }
    etl.feed(*((user, "view", f"{user % 24:02}:00", *what) for user, what in who.items()))
    etl.messages(*((user, dice.randrange(1, users + 1), "12:00", *what) for user, what in who.items()))
    with monkeypatch.context() as patch:
        patch.setattr(loads, "USERS_PER_PART", 0.4 * users)
        etl.run()
    found, expected = etl.published(), etl.expected(optional=OPTIONAL)
    assert (expected.dimension_activity["dimension"] == "city").sum() > 0.4 * users
    assert_equal(found, expected)
    compared = ["user_activity", "dimension_activity", "dimension_metrics", "the source"]
    assert reconcile(DAY, settings.load(**etl.environment, PULSE_OUTPUT="/nonexistent")) == compared


def test_a_source_that_gets_a_dimension_or_loses_it_keeps_what_is_published(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its earlier days agree with themselves, and none is restated for that: a night would restate all of them."""
    etl.create_source("feed_actions", FEED | OPTIONAL)
    etl.create_source("message_actions", MESSAGES | OPTIONAL)
    days = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    for day in days:
        etl.feed((1, "view", f"{day} 12:00", *IOS, "RU"), (2, "view", f"{day} 13:00", *ANDROID, "KZ"))
        etl.messages((1, 2, f"{day} 12:00", *IOS, "RU"))
    etl.run(days[0])
    split_by(tmp_path, ["country"])
    monkeypatch.setenv("PULSE_SOURCE", str(tmp_path))
    schema.upgrade(etl.db, etl.reads, other_source=True)
    etl.run(days[1])
    monkeypatch.delenv("PULSE_SOURCE")
    split = {day: set(etl.slices(day).index.get_level_values("dimension")) for day in days[:2]}
    assert split == {days[0]: {"os", "gender", "age"}, days[1]: {"os", "gender", "age", "country"}}
    for shape in (str(tmp_path), "app"):
        monkeypatch.setenv("PULSE_SOURCE", shape)
        schema.upgrade(etl.db, etl.reads, other_source=True)
        config = settings.load(**etl.environment, PULSE_OUTPUT="/nonexistent")
        for day in days[:2]:
            published = loads.publication(etl.db, day)
            assert published is not None
            changed = restating.judge(etl.db, config, published, late_data.late_data(day, config), 0.001)
            assert (changed.outcome, changed.size) == ("kept", 0), (shape, day)
            row = etl.metrics(day)
            assert list(agreement.disagreements(etl.db, day, row)) == []
    etl.run(days[2])
    assert set(etl.slices(days[2]).index.get_level_values("dimension")) == {"os", "gender", "age"}


@pytest.mark.parametrize("kept", [[], ["city"]])
def test_nobody_has_a_dimension_that_the_source_has_lost(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]
) -> None:
    """Also those who only receive messages, and had it in what was published before."""
    having(etl, tmp_path, monkeypatch, "country", "city")
    etl.feed((2, "view", "2025-03-11 12:00", *IOS, "RU", "Tver"), (1, "view", "12:00", *IOS, "RU", "Tver"))
    etl.messages(*((1, 2, f"{day} 12:00", *IOS, "RU", "Tver") for day in ("2025-03-11", DAY)))
    etl.run("2025-03-11")
    split_by(tmp_path, kept)
    schema.upgrade(etl.db, etl.reads, other_source=True)
    etl.run()
    assert_equal(etl.published(), etl.expected(optional=kept))
    assert list(slices.disagreements(etl.db, DAY, slices.of_day(etl.db, DAY))) == []


def test_a_slice_of_a_dimension_that_is_gone_is_noticed(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all of them are gone."""
    having(etl, tmp_path, monkeypatch, "country")
    etl.feed((1, "view", "12:00", *IOS, "RU"))
    etl.messages((1, 2, "12:00", *IOS, "RU"))
    etl.run()
    assert list(slices.disagreements(etl.db, DAY, slices.of_day(etl.db, DAY))) == []
    etl.db.execute("truncate table dimension_activity_loads")
    told = list(slices.disagreements(etl.db, DAY, slices.of_day(etl.db, DAY)))
    assert "views of country RU is 0 in dimension_activity, 1 from user_activity" in told


@pytest.mark.parametrize("kind", ["String", "UUID"])
def test_one_table_of_events(etl: Etl, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PULSE_SOURCE", "events")
    etl.source.execute(
        "create table events (uuid UUID, event LowCardinality(String), properties String, "
        f"timestamp DateTime64(6, 'UTC'), distinct_id {kind}) "
        "engine = MergeTree partition by toYYYYMM(timestamp) order by (event, timestamp)"
    )
    ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
    ios = '{"$os":"iOS","gender":"male","age":20}'
    android = f'{{"$os":"Android","gender":"female","receiver_id":"{ids[3]}"}}'
    at = etl.moment
    rows: list[tuple[str, str, str, datetime]] = [
        (ids[0], "view", ios, at("00:00")),
        (ids[0], "like", ios, at("00:00:01")),
        (ids[1], "view", android, at("23:59:59.999999")),
        (ids[1], "message", android, at("12:00")),
        (ids[2], "$pageview", ios, at("12:00")),
        (ids[2], "view", ios, at("2025-03-13 00:00")),
    ]
    named = ("distinct_id", "event", "properties", "timestamp")
    etl.source.write([dict(zip(named, row, strict=True)) for row in rows], "events")
    etl.run()
    users = etl.published().user_activity.set_index("user_id")
    assert users.index.tolist() == [ids[0], ids[1], ids[3]]
    assert users.loc[ids[0], ["os", "gender", "age", "views", "likes"]].tolist() == ["iOS", "male", "20", 1, 1]
    assert users.loc[ids[1], ["os", "gender", "age", "messages_sent"]].tolist() == ["Android", "female", "unknown", 1]
    assert users.loc[ids[3], "messages_received"] == 1


# --- names -----------------------------------------------------------------------------------------------------------


def test_actions_with_other_names_stop_the_day(etl: Etl, sources: Sources) -> None:
    etl.create_source("feed_actions", FEED | {"action": "Enum8('impression' = 1, 'heart' = 2, 'share' = 3)"})
    etl.feed(*((user, "impression", "12:00", *IOS) for user in range(1, 4)), (1, "heart", "12:01", *IOS))
    etl.messages((1, 2, "12:00", *IOS))
    said = "None of the 4 feed actions on 2025-03-12 is a view or a like, they are 'impression', 'heart'; give them the"
    with pytest.raises(CheckError, match=said):
        etl.run()
    sources("    action,", "    transform(toString(action), ['impression', 'heart'], ['view', 'like']) as action,")
    schema.upgrade(etl.db, etl.reads, other_source=True)
    etl.run()
    assert (etl.metrics()["views"], etl.metrics()["likes"]) == (3, 1)


# --- rows that are there more than once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "read"),
    [
        ("ReplacingMergeTree order by (time, event_id)", "from {source}.feed_actions final"),
        ("MergeTree order by time", "from {source}.feed_actions\nlimit 1 by time, event_id"),
        ("CollapsingMergeTree(sign) order by (time, event_id)", "from {source}.feed_actions final"),
        (
            "CollapsingMergeTree(sign) order by (time, event_id)",
            "from {source}.feed_actions\ngroup by user_id, time, action, os, gender, age, event_id\n"
            "having sum(sign) > 0",
        ),
    ],
)
def test_rows_that_were_delivered_twice_count_once(etl: Etl, sources: Sources, engine: str, read: str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in (FEED | {"event_id": "UInt64", "sign": "Int8"}).items())
    etl.source.execute(f"create or replace table feed_actions ({columns}) engine = {engine}")
    etl.source.execute(
        f"system stop merges {etl.source.database}.feed_actions"
    )  # the copies stay, each in a part of its own
    named = [*FEED, "event_id", "sign"]
    events = [
        (1, "view", "12:00", *IOS, 1),
        (1, "view", "12:00", *IOS, 2),  # another view at the same moment
        (1, "like", "12:01", *IOS, 3),
        (2, "view", "23:59:59", *ANDROID, 4),
        (2, "view", "2025-03-13 00:00", *ANDROID, 5),
    ]
    etl.write("feed_actions", named, [(*event, 1) for event in events])
    twice = [(*event, 1) for event in (events[0], events[2], events[4])]
    cancelled = (3, "view", "12:00", *IOS, 6)
    if "sign" in engine:
        twice = [(*events[0], -1), (*events[0], 1), (*cancelled, 1), (*cancelled, -1)]
    etl.write("feed_actions", named, twice)
    etl.messages((1, 2, "12:00", *IOS))
    etl.run()
    assert etl.metrics()["views"] > 3 or "sign" in engine
    sources("from {source}.feed_actions", read)
    schema.upgrade(etl.db, etl.reads, other_source=True)
    etl.run()
    metrics = etl.metrics()
    assert (metrics["views"], metrics["likes"], metrics["feed_users"]) == (3, 1, 2)
