"""Sources as analytics tools and other apps leave them: the same small day in each, with the same numbers in the end.

Ada views and likes, Bob views and writes to Dan, Cid writes to Ada. Dan only receives. Each does something a moment
before or after the day, too.
"""

# ruff: noqa: S608 (statements of our own)

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import accounts
import pytest
from pulse_sandbox import clickhouse_stand_in, process
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import FEED, Etl, Sources
from pulse import schema, settings
from pulse.sources import definition, views
from pulse.sources.definition import SourceError

DAY = date(2025, 3, 12)


@dataclass(frozen=True)
class Event:
    """What somebody did."""

    who: int
    what: str
    when: str
    whom: int = 0
    number: int = 0


ADA, BOB, CID, DAN = 1, 2, 3, 4
ABOUT = {ADA: ("iOS", "female", 25), BOB: ("Android", "male", 40), CID: ("iOS", "male", 0), DAN: ("", "", 0)}
EVENTS = [
    Event(ADA, "view", "2025-03-12 00:00:00"),
    Event(ADA, "like", "2025-03-12 12:00:00"),
    Event(BOB, "view", "2025-03-12 23:59:59"),
    Event(BOB, "message", "2025-03-12 13:00:00", DAN),
    Event(CID, "message", "2025-03-12 12:30:00", ADA),
    Event(ADA, "view", "2025-03-11 23:59:59"),
    Event(BOB, "like", "2025-03-13 00:00:00"),
    Event(CID, "message", "2025-03-13 00:00:00", BOB),
]


@dataclass(frozen=True)
class Shape:
    """How a source holds that day.

    Args:
        tables: the columns of each table, or everything after its name if it has an engine of its own.
        rows: the rows that an event is, each with its table.
        feed: the SELECT of the feed actions.
        messages: the SELECT of the messages.
        user: how the source names a user; by number unless given.
        zone: the setting PULSE_SOURCE_TIMEZONE.
        known: what the source says of users; without the ages, for instance.
    """

    tables: dict[str, str]
    rows: Callable[[Event], list[tuple[str, dict[str, Any]]]]
    feed: str
    messages: str
    user: Callable[[int], str] = str
    zone: str = ""
    known: dict[int, tuple[str, str, str]] = field(
        default_factory=lambda: {
            ADA: ("iOS", "female", "25"),
            BOB: ("Android", "male", "40"),
            CID: ("iOS", "male", "unknown"),
        }
    )


def at(event: Event) -> datetime:
    """The instant of an event."""
    return datetime.fromisoformat(f"{event.when}+03:00")


def name(user: int) -> str:
    """A user's id as text."""
    return f"user-{user}"


def uuid(user: int) -> str:
    """A user's id as a UUID."""
    return f"6ba7b810-9dad-11d1-80b4-00c04fd430{user:02}"


def about(user: int) -> dict[str, Any]:
    """What the app knows of a user, by the usual names."""
    return dict(zip(("os", "gender", "age"), ABOUT[user], strict=True))


def each(table: str, row: Callable[[Event], dict[str, Any]]) -> Callable[[Event], list[tuple[str, dict[str, Any]]]]:
    """Every event is one row of one table."""
    return lambda event: [(table, row(event))]


def json_text(event: Event) -> str:
    """What belongs to an event, as JSON."""
    os, gender, age = ABOUT[event.who]
    to = f', "to": "{name(event.whom)}"' if event.whom else ""
    return f'{{"os": "{os}", "gender": "{gender}", "age": {age}{to}}}'


def extracted(column: str, *names: str) -> str:
    """Attributes from JSON in a String."""
    return ", ".join(f"JSONExtractString({column}, '{each}') as {each}" for each in names)


THREE = ("os", "gender", "age")

SHAPES = {
    # Segment's warehouses: a table for each kind of event; user_id is empty before the login
    "segment": Shape(
        {
            table: "id String, anonymous_id String, user_id Nullable(String), timestamp DateTime64(3, 'UTC'), "
            f"received_at DateTime64(3, 'UTC'), context_os_name LowCardinality(Nullable(String)){more}"
            for table, more in (
                ("post_viewed", ""),
                ("post_liked", ""),
                ("message_sent", ", receiver Nullable(String)"),
            )
        },
        lambda event: [
            (
                {"view": "post_viewed", "like": "post_liked", "message": "message_sent"}[event.what],
                {"anonymous_id": "a", "user_id": name(event.who), "timestamp": at(event)}
                | {"context_os_name": ABOUT[event.who][0]}
                | ({"receiver": name(event.whom)} if event.whom else {}),
            )
        ],
        "select coalesce(user_id, anonymous_id) as user_id, timestamp as time, 'view' as action, "
        "context_os_name as os, '' as gender, '' as age from {source}.post_viewed union all "
        "select coalesce(user_id, anonymous_id), timestamp, 'like', context_os_name, '', '' from {source}.post_liked",
        "select user_id, receiver as receiver_id, timestamp as time, context_os_name as os, '' as gender, '' as age "
        "from {source}.message_sent",
        name,
        known={
            ADA: ("iOS", "unknown", "unknown"),
            BOB: ("Android", "unknown", "unknown"),
            CID: ("iOS", "unknown", "unknown"),
        },
    ),
    # Amplitude's export: times of UTC without a zone, signed ids, properties as JSON in a String
    "amplitude": Shape(
        {
            "event": "amplitude_id Int64, event_type LowCardinality(String), event_time DateTime64(6), "
            "platform String, event_properties String, user_properties String, _insert_id String"
        },
        each(
            "event",
            lambda event: {
                "amplitude_id": -event.who,
                "event_type": event.what,
                "event_time": at(event),
                "platform": ABOUT[event.who][0],
                "event_properties": f'{{"to": {-event.whom}}}',
                "user_properties": json_text(event),
            },
        ),
        "select amplitude_id as user_id, event_time as time, event_type as action, platform as os, "
        f"{extracted('user_properties', 'gender', 'age')} from {{source}}.event where event_type in ('view', 'like')",
        "select amplitude_id as user_id, JSONExtractInt(event_properties, 'to') as receiver_id, event_time as time, "
        f"platform as os, {extracted('user_properties', 'gender', 'age')} "
        "from {source}.event where event_type = 'message'",
        lambda user: str(-user),
        "UTC",
    ),
    # Mixpanel's export: seconds in 64 bits, everything in a JSON column, and rows that come twice
    "mixpanel": Shape(
        {"export": "event String, time UInt64, distinct_id String, insert_id String, properties JSON"},
        lambda event: (
            2
            * [
                (
                    "export",
                    {
                        "event": event.what,
                        "time": int(at(event).timestamp()),
                        "distinct_id": name(event.who),
                        "insert_id": f"{event}",
                        "properties": about(event.who) | {"to": name(event.whom)},
                    },
                )
            ]
        ),
        "select distinct_id as user_id, toDateTime(e.time) as time, event as action, properties.os::String as os, "
        "properties.gender::String as gender, properties.age::String as age from {source}.export as e "
        "where event in ('view', 'like') limit 1 by time, insert_id",
        "select distinct_id as user_id, properties.to::String as receiver_id, toDateTime(e.time) as time, "
        "properties.os::String as os, properties.gender::String as gender, properties.age::String as age "
        "from {source}.export as e where event = 'message' limit 1 by time, insert_id",
        name,
    ),
    # Snowplow's wide table: three times, two ids, the event's own part as JSON
    "snowplow": Shape(
        {
            "events": "collector_tstamp DateTime64(3), derived_tstamp Nullable(DateTime64(3)), "
            "user_id Nullable(String), domain_userid Nullable(String), "
            "event_name LowCardinality(Nullable(String)), os_family Nullable(String), "
            "unstruct_event Nullable(String)"
        },
        each(
            "events",
            lambda event: {
                "derived_tstamp": at(event),
                "domain_userid": name(event.who),
                "event_name": f"post_{event.what}",
                "os_family": ABOUT[event.who][0],
                "unstruct_event": json_text(event),
            },
        ),
        "select coalesce(user_id, domain_userid) as user_id, derived_tstamp as time, "
        "replaceOne(event_name, 'post_', '') as action, os_family as os, "
        "JSONExtractString(ifNull(unstruct_event, ''), 'gender') as gender, "
        "JSONExtractString(ifNull(unstruct_event, ''), 'age') as age "
        "from {source}.events where event_name in ('post_view', 'post_like')",
        "select coalesce(user_id, domain_userid) as user_id, "
        "nullIf(JSONExtractString(ifNull(unstruct_event, ''), 'to'), '') as receiver_id, "
        "derived_tstamp as time, os_family as os, JSONExtractString(ifNull(unstruct_event, ''), 'gender') as gender, "
        "JSONExtractString(ifNull(unstruct_event, ''), 'age') as age "
        "from {source}.events where event_name = 'post_message'",
        name,
    ),
    # AppMetrica's logs: unsigned ids of 64 bits, seconds in 32 bits, the system in lower case
    "appmetrica": Shape(
        {
            "events": "appmetrica_device_id UInt64, profile_id String, event_name String, event_timestamp UInt32, "
            "event_datetime DateTime, event_json String, os_name LowCardinality(String)"
        },
        each(
            "events",
            lambda event: {
                "appmetrica_device_id": 2**64 - event.who,
                "event_name": event.what,
                "event_timestamp": int(at(event).timestamp()),
                "event_json": f'{{"to": {2**64 - event.whom}}}' if event.whom else json_text(event),
                "os_name": ABOUT[event.who][0].lower(),
            },
        ),
        "select appmetrica_device_id as user_id, event_timestamp as time, event_name as action, "
        f"transform(os_name, ['ios', 'android'], ['iOS', 'Android']) as os, {extracted('event_json', 'gender', 'age')} "
        "from {source}.events where event_name != 'message'",
        "select appmetrica_device_id as user_id, JSONExtractUInt(event_json, 'to') as receiver_id, "
        "event_timestamp as time, "
        "transform(os_name, ['ios', 'android'], ['iOS', 'Android']) as os, '' as gender, '' as age "
        "from {source}.events where event_name = 'message'",
        lambda user: str(2**64 - user),
        known={ADA: ("iOS", "female", "25"), BOB: ("Android", "male", "40"), CID: ("iOS", "unknown", "unknown")},
    ),
    # Plausible's: what belongs to an event in two arrays
    "plausible": Shape(
        {
            "events_v2": "user_id UInt64, name LowCardinality(String), timestamp DateTime CODEC(Delta(4), LZ4), "
            "operating_system LowCardinality(String), `meta.key` Array(String), `meta.value` Array(String)"
        },
        each(
            "events_v2",
            lambda event: {
                "user_id": event.who,
                "name": event.what,
                "timestamp": at(event),
                "operating_system": ABOUT[event.who][0],
                "meta.key": ["to", "gender", "age"],
                "meta.value": [str(event.whom), *map(str, ABOUT[event.who][1:])],
            },
        ),
        "select user_id, timestamp as time, name as action, operating_system as os, "
        "meta.value[indexOf(meta.key, 'gender')] as gender, meta.value[indexOf(meta.key, 'age')] as age "
        "from {source}.events_v2 where name != 'message'",
        "select user_id, toUInt64OrNull(meta.value[indexOf(meta.key, 'to')]) as receiver_id, timestamp as time, "
        "operating_system as os, meta.value[indexOf(meta.key, 'gender')] as gender, "
        "meta.value[indexOf(meta.key, 'age')] as age from {source}.events_v2 where name = 'message'",
    ),
    "properties in a Map": Shape(
        {
            "log": "who UUID, what LowCardinality(String), at DateTime64(6), "
            "properties Map(LowCardinality(String), String)"
        },
        each(
            "log",
            lambda event: {
                "who": uuid(event.who),
                "what": event.what,
                "at": at(event),
                "properties": {key: str(value) for key, value in about(event.who).items()} | {"to": uuid(event.whom)},
            },
        ),
        "select who as user_id, at as time, what as action, properties['os'] as os, properties['gender'] as gender, "
        "properties['age'] as age from {source}.log where what != 'message'",
        "select who as user_id, toUUIDOrNull(properties['to']) as receiver_id, at as time, properties['os'] as os, "
        "properties['gender'] as gender, properties['age'] as age from {source}.log where what = 'message'",
        uuid,
    ),
    "everything Nullable, LowCardinality or Enum": Shape(
        {
            "log": "who LowCardinality(Nullable(String)), whom LowCardinality(Nullable(String)), "
            "what Nullable(Enum16('view' = 1, 'like' = -2, 'message' = 3)), at Nullable(DateTime64(3)), "
            "os Enum8('iOS' = 1, 'Android' = 2, '' = 3), gender Nullable(FixedString(6)), "
            "age LowCardinality(Nullable(String))"
        },
        each(
            "log",
            lambda event: (
                {"who": name(event.who), "whom": name(event.whom), "what": event.what, "at": at(event)}
                | about(event.who)
                | {"age": str(ABOUT[event.who][2]) or None}
            ),
        ),
        "select who as user_id, at as time, what as action, os, gender, age from {source}.log where what != 'message'",
        "select who as user_id, whom as receiver_id, at as time, os, gender, age "
        "from {source}.log where what = 'message'",
        name,
    ),
    "attributes in a table of users": Shape(
        {
            "actions": "user_id UInt32, kind UInt8, at DateTime, receiver_id UInt32",
            "users": "(id UInt32, platform String, sex Nullable(UInt8), born UInt16, version UInt32) "
            "engine = ReplacingMergeTree(version) order by id",
        },
        lambda event: [
            (
                "actions",
                {
                    "user_id": event.who,
                    "kind": ("view", "like", "message").index(event.what) + 1,
                    "at": at(event),
                    "receiver_id": event.whom,
                },
            ),
            (
                "users",
                {
                    "id": event.who,
                    "platform": ABOUT[event.who][0],
                    "sex": int(ABOUT[event.who][1] == "male"),
                    "born": 2025 - ABOUT[event.who][2] if ABOUT[event.who][2] else 0,
                    "version": 1,
                },
            ),
        ],
        "select actions.user_id as user_id, actions.at as time, "
        "transform(kind, [1, 2], ['view', 'like'], 'other') as action, users.platform as os, "
        "transform(ifNull(toString(users.sex), ''), ['0', '1'], ['female', 'male']) as gender, "
        "if(users.born = 0, 0, toYear(actions.at) - users.born) as age "
        "from {source}.actions as actions any left join {source}.users as users on users.id = actions.user_id "
        "where actions.kind in (1, 2)",
        "select actions.user_id as user_id, actions.receiver_id as receiver_id, actions.at as time, "
        "users.platform as os, transform(ifNull(toString(users.sex), ''), ['0', '1'], ['female', 'male']) as gender, "
        "if(users.born = 0, 0, toYear(actions.at) - users.born) as age "
        "from {source}.actions as actions any left join {source}.users as users on users.id = actions.user_id "
        "where actions.kind = 3",
    ),
    "times as text, a column for each action": Shape(
        {
            "log": "user String, day Date, clock String, is_like Bool, to Nullable(String), deleted UInt8, "
            "os String, gender String, age Float32"
        },
        lambda event: [
            (
                "log",
                {
                    "user": name(event.who),
                    "day": event.when[:10],
                    "clock": event.when[11:],
                    "is_like": event.what == "like",
                    "to": name(event.whom) if event.whom else None,
                    "deleted": deleted,
                }
                | about(event.who),
            )
            for deleted in (0, 1)
        ],
        "select user as user_id, parseDateTimeBestEffort(concat(toString(day), ' ', clock), 'Europe/Moscow') as time, "
        "if(is_like, 'like', 'view') as action, os, gender, toUInt8(age) as age "
        "from {source}.log where isNull(to) and not deleted",
        "select user as user_id, to as receiver_id, "
        "parseDateTimeBestEffort(concat(toString(day), ' ', clock), 'Europe/Moscow') as time, os, gender, "
        "toUInt8(age) as age from {source}.log where isNotNull(to) and not deleted",
        name,
    ),
    "counted rows and several receivers": Shape(
        {
            "actions": "user_id UInt64, at DateTime, what String, times UInt32, os String, gender String, age UInt8",
            "letters": "sender UInt64, receivers Array(UInt64), at DateTime, os String, gender String, age UInt8",
        },
        lambda event: [
            ("letters", {"sender": event.who, "receivers": [event.whom], "at": at(event)} | about(event.who))
            if event.what == "message"
            else ("actions", {"user_id": event.who, "at": at(event), "what": event.what, "times": 1} | about(event.who))
        ],
        "select user_id, at as time, what as action, os, gender, age "
        "from {source}.actions array join range(times) as each",
        "select sender as user_id, arrayJoin(receivers) as receiver_id, at as time, os, gender, age "
        "from {source}.letters",
    ),
    "times of a zone with half an hour": Shape(
        {
            "log": "who Int32, whom Int32, what String, at DateTime64(9, 'Asia/Kolkata'), "
            "os String, gender String, age Int8"
        },
        each(
            "log",
            lambda event: (
                {"who": event.who, "whom": event.whom, "what": event.what, "at": at(event)} | about(event.who)
            ),
        ),
        "select who as user_id, at as time, what as action, os, gender, age from {source}.log where what != 'message'",
        "select who as user_id, whom as receiver_id, at as time, os, gender, age "
        "from {source}.log where what = 'message'",
    ),
}


def own(folder: Path, monkeypatch: pytest.MonkeyPatch, feed: str, messages: str) -> None:
    """A source of the user's own."""
    statements = (
        f"create or replace view {view} as\n{sql};\n"
        for view, sql in (("feed_events", feed), ("message_events", messages))
    )
    (folder / definition.FILE).write_text("\n".join(statements))
    monkeypatch.setenv("PULSE_SOURCE", str(folder))


def filled(etl: Etl, shape: Shape) -> None:
    """Write the day as the shape has it."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for event in EVENTS:
        for table, row in shape.rows(event):
            rows.setdefault(table, []).append(row)
    for table, columns in shape.tables.items():
        defined = columns if columns.startswith("(") else f"({columns}) engine = MergeTree order by tuple()"
        etl.source.execute(f"create table {table} {defined}")
        etl.source.write(rows[table], table)


def check_day(etl: Etl, user: Callable[[int], str], known: dict[int, tuple[str, str, str]]) -> None:
    """Compare what is published with what happened, counted by hand."""
    etl.run()
    users = etl.published().user_activity.set_index("user_id")
    counts = ["views", "likes", "messages_sent", "messages_received", "users_sent", "users_received"]
    assert {id_: tuple(row) for id_, row in users[counts].iterrows()} == {
        user(ADA): (1, 1, 0, 1, 0, 1),
        user(BOB): (1, 0, 1, 0, 1, 0),
        user(CID): (0, 0, 1, 0, 1, 0),
        user(DAN): (0, 0, 0, 1, 0, 1),
    }
    for who, attributes in known.items():
        assert tuple(users.loc[user(who), list(THREE)]) == attributes
    metrics = etl.metrics()
    counted = ("feed_users", "messenger_users", "app_users", "both_users", "views", "likes")
    assert [metrics[each] for each in counted] == [2, 2, 3, 1, 2, 1]
    assert (metrics["messages_sent"], metrics["messages_received"]) == (2, 1)


@pytest.mark.parametrize("named", SHAPES)
def test_the_same_day_in_any_shape_has_the_same_numbers(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    shape = SHAPES[named]
    filled(etl, shape)
    monkeypatch.setenv("PULSE_SOURCE_TIMEZONE", shape.zone)
    own(tmp_path, monkeypatch, shape.feed, shape.messages)
    check_day(etl, shape.user, shape.known)


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may read from other servers: it has a cluster, and a named collection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{settings.ROOT / 'tests'}:{settings.ROOT}")
        folder = tmp_path_factory.mktemp("cluster")
        (folder / accounts.CLUSTER).touch()
        with process.running(accounts.MODULE, folder) as about:
            yield clickhouse_stand_in._server(about)


ELSEWHERE = {
    "Distributed": "{source}.TABLE_everywhere",
    "cluster": "cluster('company', {source}.TABLE)",
    "remote": "remote('127.0.0.1', {source}.TABLE)",
    "remote with a named collection": "remote(app_server, database = 'DATABASE', table = 'TABLE')",
}


@pytest.mark.parametrize("read", ELSEWHERE)
def test_a_source_that_is_reached_as_if_it_were_elsewhere(
    cluster: Server, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """The engine reads from itself, but through all that reads from another server: only the connection is missing."""
    with Etl.fresh(cluster, DAY) as etl:
        for table in ("feed_actions", "message_actions"):
            etl.source.execute(
                f"create table {table}_everywhere as {table} "
                f"engine = Distributed(company, {etl.source.database}, {table}, cityHash64(user_id))"
            )
        etl.feed(*((event.who, event.what, event.when, *ABOUT[event.who]) for event in EVENTS if not event.whom))
        etl.messages(*((event.who, event.whom, event.when, *ABOUT[event.who]) for event in EVENTS if event.whom))
        named = ELSEWHERE[read].replace("DATABASE", etl.source.database)
        listed = "time, os, gender, age"
        own(
            tmp_path,
            monkeypatch,
            f"select user_id, action, {listed} from {named.replace('TABLE', 'feed_actions')}",
            f"select user_id, receiver_id, {listed} from {named.replace('TABLE', 'message_actions')}",
        )
        check_day(etl, str, {ADA: ("iOS", "female", "25"), CID: ("iOS", "male", "unknown")})


def test_a_server_that_does_not_answer_is_said_without_its_password(
    cluster: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Etl.fresh(cluster, DAY) as etl:
        listed = (
            "time, os, gender, age from remoteSecure('127.0.0.1:9', {source}, feed_actions, 'pulse', 'not-for-you')"
        )
        own(
            tmp_path,
            monkeypatch,
            f"select user_id, action, {listed}",
            f"select user_id, user_id as receiver_id, {listed}",
        )
        with pytest.raises(SourceError, match=r"line 2: feed_events cannot be read\. .* \(127\.0\.0\.1:9\)") as refused:
            etl.run()
        assert "not-for-you" not in str(refused.value)


# --- what cannot be right is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "feed", "said"),
    [
        (
            "u Float64, t DateTime, a String",
            "u as user_id, t as time, a as action",
            "an id is an integer, a String or a",
        ),
        ("u Decimal(20, 0), t DateTime, a String", "u as user_id, t as time, a as action", "an id is an integer, a St"),
        (
            "u UInt8, t Date, a String",
            "u as user_id, t as time, a as action",
            "a moment is a DateTime, a DateTime64 or",
        ),
        (
            "u UInt8, t Int64, a String",
            "u as user_id, t as time, a as action",
            "if these are milliseconds since 1970, se",
        ),
        (
            "u UInt8, t Float64, a String",
            "u as user_id, t as time, a as action",
            "a moment is a DateTime, a DateTime64",
        ),
        (
            "u UInt8, t DateTime, a UInt8",
            "u as user_id, t as time, a as action",
            "an action is a String or an Enum: select",
        ),
        (
            "u UInt8, t DateTime, a Array(String)",
            "u as user_id, t as time, a as action",
            "an action is a String or an E",
        ),
        (
            "u UInt8, t DateTime, a JSON",
            "u as user_id, t as time, a.name as action",
            "an action is a String or an Enum: s",
        ),
        (
            "u Array(UInt8), t DateTime, a String",
            "u as user_id, t as time, a as action",
            "an id is an integer, a String",
        ),
    ],
)
def test_a_type_that_says_nothing_about_the_meaning_is_refused(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str, feed: str, said: str
) -> None:
    etl.source.execute(f"create table log ({columns}) engine = MergeTree order by tuple()")
    own(
        tmp_path,
        monkeypatch,
        f"select {feed}, '' as os, '' as gender, '' as age from {{source}}.log",
        "select user_id, receiver_id, time, os, gender, age from {source}.message_actions",
    )
    with pytest.raises(SourceError, match=said):
        views.read(etl.db, etl.reads) if schema.create_missing(etl.db) else None


@pytest.mark.parametrize("column", ["properties JSON", "properties Map(String, String)", "properties Array(String)"])
def test_attributes_as_a_whole_are_refused(
    etl: Etl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    etl.source.execute(
        f"create table log (u UInt8, t DateTime, a String, {column}) engine = MergeTree order by tuple()"
    )
    own(
        tmp_path,
        monkeypatch,
        "select u as user_id, t as time, a as action, properties as os, '' as gender, '' as age from {source}.log",
        "select user_id, receiver_id, time, os, gender, age from {source}.message_actions",
    )
    with pytest.raises(
        SourceError, match=r"os of feed_events has the type .* an attribute is a single value: select the"
    ):
        schema.ensure(etl.db, etl.reads)


def test_users_without_a_row_in_the_table_of_users_are_unknown(
    etl: Etl, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `join_use_nulls` they would have zeros, which mean something: here, female."""
    etl.source.execute("create table users (id UInt32, sex UInt8) engine = MergeTree order by id")
    etl.source.execute("insert into users values (1, 0), (2, 1)")
    etl.feed(*((user, "view", "12:00", "iOS", "nobody knows", 5) for user in (1, 2, 3)))
    etl.messages((1, 2, "11:00", "iOS", "male", 5))
    sources(
        "    gender,\n    age\nfrom {source}.feed_actions",
        """\
    transform(ifNull(toString(users.sex), ''), ['0', '1'], ['female', 'male']) as gender,
    age
from {source}.feed_actions as feed
any left join {source}.users as users on users.id = feed.user_id
settings join_use_nulls = 1""",
    )
    etl.run()
    assert [gender for _, gender, _ in etl.attributes().values()] == ["female", "male", "unknown"]


def test_actions_of_a_fixed_length_are_the_same_actions(etl: Etl) -> None:
    etl.create_source("feed_actions", FEED | {"action": "FixedString(8)"})
    etl.feed((1, "view", "12:00", "iOS", "male", 5), (1, "like", "12:01", "iOS", "male", 5))
    etl.messages((1, 2, "12:00", "iOS", "male", 5))
    etl.run()
    assert (etl.metrics()["views"], etl.metrics()["likes"]) == (1, 1)
