"""The tutorial's page about your own source, followed with each preset: from tables of its shape to a published day."""

import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from pulse.clickhouse import ClickHouse

PULSE = str(Path(sys.executable).parent / "pulse")
ZONE = ZoneInfo("Europe/Moscow")
USERS, DAYS = 120, 10
LETTERS = "abcdefghijklmnop"

Row = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """What a user did: a `view`, a `like`, or a `message` to somebody."""

    user: int
    action: str
    at: datetime
    receiver: int = 0

    @property
    def os(self) -> str:
        return "iOS" if self.user % 3 else "Android"

    @property
    def gender(self) -> int:
        return self.user % 2

    @property
    def age(self) -> int:
        return 14 + self.user % 40


def events() -> list[Event]:
    """Ten days of events up to now, with quiet nights; the same for the same moment."""
    chance, now = random.Random(7), datetime.now(UTC).replace(microsecond=0)  # noqa: S311
    found = []
    for minutes in range(0, DAYS * 1440, 2):
        at = now - timedelta(minutes=minutes)
        if at.astimezone(ZONE).hour in range(2, 6) and chance.random() < 0.8:
            continue
        user = chance.randrange(1, USERS)
        found.append(Event(user, chance.choices(["view", "like"], [4, 1])[0], at))
        if chance.random() < 0.3:
            found.append(Event(user, "message", at, chance.randrange(1, USERS)))
    return found


# --- tables of each shape -------------------------------------------------------------------------------------------


def app(db: ClickHouse, happened: list[Event]) -> None:
    shared = "time DateTime, os LowCardinality(String), gender LowCardinality(String), age UInt8"
    _feed_and_messages(db, happened, shared, "receiver_id", ["female", "male"])


def course(db: ClickHouse, happened: list[Event]) -> None:
    shared = (
        "time DateTime, os String, gender Int8, age Int16, country String, city String, source String, exp_group Int8"
    )
    _feed_and_messages(db, happened, shared, "reciever_id", [0, 1])


def _feed_and_messages(db: ClickHouse, happened: list[Event], shared: str, receiver: str, genders: list[Any]) -> None:
    for table, own in (
        ("feed_actions", "post_id UInt32, action LowCardinality(String)"),
        ("message_actions", f"{receiver} UInt32"),
    ):
        db.execute(f"create table {table} (user_id UInt32, {own}, {shared}) engine = MergeTree order by time")
    rows: dict[str, list[Row]] = {"feed_actions": [], "message_actions": []}
    for each in happened:
        row = {"user_id": each.user, "time": each.at, "os": each.os, "gender": genders[each.gender], "age": each.age}
        if each.action == "message":
            rows["message_actions"].append(row | {receiver: each.receiver})
        else:
            rows["feed_actions"].append(row | {"action": each.action, "post_id": 1})
    for table, listed in rows.items():
        db.write(listed, table)


def one_table(db: ClickHouse, happened: list[Event]) -> None:
    db.execute(
        "create table events (uuid UUID default generateUUIDv4(), event String, properties String, "
        "timestamp DateTime64(6, 'UTC'), distinct_id String) engine = MergeTree order by (event, timestamp)"
    )
    rows = []
    for each in happened:
        properties = {"$os": each.os, "gender": ["female", "male"][each.gender], "age": each.age}
        if each.action == "message":
            properties["receiver_id"] = _name(each.receiver)
        named = {"event": each.action, "properties": json.dumps(properties), "timestamp": each.at}
        rows.append(named | {"distinct_id": _name(each.user)})
    db.write(rows, "events")


def own(db: ClickHouse, happened: list[Event]) -> None:
    """No preset fits: other names, codes and times, in two tables of a company's own."""
    db.execute(
        "create table interactions (account Int64, kind String, created_at UInt64, platform String, sex UInt8) "
        "engine = MergeTree order by created_at"
    )
    db.execute(
        "create table chat (author Int64, addressee Int64, created_at UInt64, platform String, sex UInt8) "
        "engine = MergeTree order by created_at"
    )
    feed: list[Row] = []
    messages: list[Row] = []
    for each in happened:
        row = {"created_at": int(each.at.timestamp() * 1000), "platform": each.os, "sex": each.gender}
        if each.action == "message":
            messages.append(row | {"author": -each.user, "addressee": -each.receiver})
        else:
            kind = {"view": "impression", "like": "heart"}[each.action]
            feed.append(row | {"account": -each.user, "kind": kind})
    db.write(feed, "interactions")
    db.write(messages, "chat")


OWN = """\
create or replace view feed_events as
select
    account as user_id,
    toDateTime64(created_at / 1000, 3) as time,
    transform(kind, ['impression', 'heart'], ['view', 'like'], 'other') as action,
    platform as os,
    transform(toString(sex), ['0', '1'], ['female', 'male']) as gender,
    '' as age
from {source}.interactions;

create or replace view message_events as
select
    author as user_id,
    addressee as receiver_id,
    toDateTime64(created_at / 1000, 3) as time,
    platform as os,
    transform(toString(sex), ['0', '1'], ['female', 'male']) as gender,
    '' as age
from {source}.chat;
"""


def _name(number: int) -> str:
    return str(uuid.UUID(int=number))


SHAPES = {"app": app, "course": course, "events": one_table, "own": own}


# The presets are shapes that many other tests have.
@pytest.fixture(
    params=["own", *(pytest.param(shape, marks=pytest.mark.prove) for shape in ("app", "course", "events"))]
)
def company(
    request: pytest.FixtureRequest, clickhouse_server: Server, chats: Telegram, tmp_path: Path
) -> Iterator[tuple[dict[str, str], list[Event], ClickHouse]]:
    """A company with an app of some shape: the settings that it writes into `.env`, its events, and its database."""
    shape, name = request.param, f"company_{uuid.uuid4().hex[:6]}"
    outside, happened = ClickHouse(clickhouse_server.url, "default", ZONE), events()
    outside.execute(f"create database {name}_app")
    SHAPES[shape](ClickHouse(clickhouse_server.url, f"{name}_app", ZONE), happened)
    source = shape
    if shape == "own":
        source = str(tmp_path / "source")
        Path(source).mkdir()
        Path(source, "sources.sql").write_text(OWN)
    chat = chats.new_chat()
    given = {
        "CLICKHOUSE_URL": clickhouse_server.url,
        "PULSE_DATABASE": name,
        "PULSE_SOURCE": source,
        "PULSE_SOURCE_DATABASE": f"{name}_app",
        "PULSE_TIMEZONE": ZONE.key,
        "PULSE_OUTPUT": str(tmp_path / "archive"),
        "TELEGRAM_API_URL": chats.server.url,
        "TELEGRAM_REPORT_CHATS": chat,
        "TELEGRAM_LIVE_CHATS": chat,
        "TELEGRAM_ALERT_CHATS": chat,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
    }
    yield given, happened, ClickHouse(clickhouse_server.url, name, ZONE)
    for database in (name, f"{name}_app"):
        outside.execute("drop database if exists {name:Identifier}", name=database)


def say(given: dict[str, str], *words: str) -> str:
    """What a command says; it has to succeed."""
    done = subprocess.run([PULSE, *words], capture_output=True, text=True, env={**os.environ, **given}, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_shape_is_right_after_the_four_commands_of_the_page(
    company: tuple[dict[str, str], list[Event], ClickHouse],
) -> None:
    given, happened, db = company
    yesterday = datetime.now(ZONE).date() - timedelta(days=1)
    checked = say(given, "source", "check")
    assert "Nothing is wrong with the source on this day." in checked
    say(given, "backfill", str(yesterday), str(yesterday))
    assert "✗" not in say(given, "doctor")
    assert "daily_metrics" in say(given, "show")
    expected = metrics_of(happened, yesterday)
    (found,) = db.rows("select * from daily_metrics where event_date = {day:Date}", day=yesterday)
    assert {name: found[name] for name in expected} == expected
    by_os = db.read(
        "select dimension_value, app_users from dimension_metrics "
        "where event_date = {day:Date} and dimension = 'os' and app_users > 0",
        day=yesterday,
    )
    assert dict(zip(by_os["dimension_value"], by_os["app_users"], strict=True)) == users_by_os(happened, yesterday)
    shown = {line.split()[0]: line.split()[1] for line in checked.splitlines() if line.startswith(("views ", "likes "))}
    assert shown == {name: f"{expected[name]:,}" for name in ("views", "likes")}  # what the check promised


def of_day(happened: list[Event], day: date) -> list[Event]:
    return [each for each in happened if each.at.astimezone(ZONE).date() == day]


def metrics_of(happened: list[Event], day: date) -> dict[str, int]:
    """The day's metrics, counted in Python."""
    events = of_day(happened, day)
    feed = {each.user for each in events if each.action != "message"}
    wrote = {each.user for each in events if each.action == "message"}
    return {
        "feed_users": len(feed),
        "messenger_users": len(wrote),
        "app_users": len(feed | wrote),
        "both_users": len(feed & wrote),
        "views": sum(each.action == "view" for each in events),
        "likes": sum(each.action == "like" for each in events),
        "messages_sent": sum(each.action == "message" for each in events),
        "messages_received": sum(each.action == "message" and each.receiver in feed | wrote for each in events),
    }


def users_by_os(happened: list[Event], day: date) -> dict[str, int]:
    users = {each.user: each.os for each in of_day(happened, day)}
    return {name: sum(os == name for os in users.values()) for name in {*users.values()}}
