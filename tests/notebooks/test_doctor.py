"""The doctor: each thing that is wrong is one line that says what to do, and nothing else is said to be wrong."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from notebooks.etl import FEED, Etl
from pulse import schema, settings, sources
from pulse.doctor import Finding, examination, machine, warehouse
from pulse.doctor.examination import examine
from pulse.orchestration.housekeeping import DoctorOperator

PULSE = str(Path(sys.executable).parent / "pulse")
ZONE = "Europe/Moscow"


@pytest.fixture
def installation(
    clickhouse_server: Server, chats: Telegram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Etl]:
    """An installation that is well: an app whose events go on until now, its tables, an archive and a chat."""
    with Etl.fresh(clickhouse_server, date.today(), ZONE) as etl:
        events_until(etl, datetime.now(UTC))
        schema.ensure(etl.db, etl.reads)
        chat = chats.new_chat()
        for name, value in {
            **etl.environment,
            "PULSE_OUTPUT": str(tmp_path / "archive"),
            "TELEGRAM_API_URL": chats.server.url,
            "TELEGRAM_REPORT_CHATS": chat,
            "TELEGRAM_LIVE_CHATS": chat,
            "TELEGRAM_ALERT_CHATS": chat,
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
        yield etl


def events_until(etl: Etl, end: datetime) -> None:
    """Give the app an event for each hour of three days, the last one at `end`."""
    moments = [end.replace(microsecond=0) - timedelta(hours=number) for number in range(72)]
    etl.source.execute("truncate table feed_actions")
    etl.source.execute("truncate table message_actions")
    etl.source.write([{"user_id": 1, "action": "view", "time": each} for each in moments], "feed_actions")
    etl.source.write([{"user_id": 1, "receiver_id": 2, "time": each} for each in moments], "message_actions")


def looked_at(**environment: str) -> dict[str, Finding]:
    """Everything that was found, by what it is about."""
    return {each.what: each for each in examine(settings.load(**environment))}


def faults(**environment: str) -> dict[str, str]:
    """What needs attention, by what it is about."""
    return {each.what: each.said for each in looked_at(**environment).values() if each.state == "fault"}


def test_an_installation_that_is_well_has_no_fault(installation: Etl) -> None:
    found = looked_at()
    assert {each.what: each.said for each in found.values() if each.state == "fault"} == {}
    names = [
        "Pulse",
        "packages",
        "archive",
        "ClickHouse",
        "clock",
        "time zone",
        "ClickHouse's disk",
        "rights",
        "tables",
    ]
    names += ["source", "feed_events", "message_events", "chat", "deliveries"]
    assert [name for name in names if found[name].state != "fine"] == []
    assert "users are UInt32, published as text" in found["source"].said
    assert found["chat"].said.endswith("report, live, alert")
    for tool in ("Superset", "Redash", "Airflow"):  # not set up here
        assert found[tool].state == "note"


def test_the_command_is_quick_needs_no_airflow_and_shows_no_secret(installation: Etl) -> None:
    began = time.monotonic()
    done = subprocess.run([PULSE, "doctor"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 30  # 3 s on a machine that has nothing else to do
    assert not set("✗") & set(done.stdout)
    secret = "sandbox-only-but-wrong"  # noqa: S105
    url = installation.server.url.replace("sandbox-only", secret)
    wrong = {**os.environ, "CLICKHOUSE_URL": url}
    done = subprocess.run([PULSE, "doctor"], capture_output=True, text=True, timeout=60, env=wrong)
    assert done.returncode == 1
    assert "✗ ClickHouse" in done.stdout
    assert "Check the user and the password in CLICKHOUSE_URL." in done.stdout
    assert done.stderr.strip().endswith("see the lines with ✗.")
    assert secret not in done.stdout + done.stderr


def test_a_server_that_does_not_answer_is_told_once(installation: Etl) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = faults(CLICKHOUSE_URL=f"http://pulse:hush-hush@127.0.0.1:{taken.getsockname()[1]}")
    (said,) = found.values()
    assert said.startswith("No ClickHouse server answers at http://127.0.0.1:")


def test_a_server_that_says_nothing_does_not_hold_up_the_others(installation: Etl) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        url = f"http://pulse:hush-hush@127.0.0.1:{silent.getsockname()[1]}"
        found = examine(settings.load(CLICKHOUSE_URL=url), seconds=3)
    assert time.monotonic() - began < 10
    said = {each.what: each for each in found}
    assert said["ClickHouse"].said.startswith("no answer within 3 s")
    assert said["chat"].state == "fine"


def test_rights_that_are_lacking_are_named(installation: Etl) -> None:
    reader = installation.server.reader_url
    found = faults(CLICKHOUSE_URL=reader, PULSE_DATABASE="pulse")
    assert {"rights"} <= set(found), found
    assert "create" in found["rights"]


def test_tables_of_another_version_are_told_with_the_command(installation: Etl) -> None:
    installation.db.execute("truncate table schema_versions")
    installation.db.write([{"version": schema.newest() - 1, "name": "older"}], "schema_versions")
    newest = schema.newest()
    assert faults()["tables"].startswith(f"version {newest - 1} of {newest}; `pulse upgrade` will do: version {newest}")


def test_types_that_changed_and_columns_that_are_gone_are_told(installation: Etl) -> None:
    installation.create_source("feed_actions", FEED | {"user_id": "Int64"})
    found = faults()
    assert "`pulse upgrade` will do: view feed_events" in found["tables"]
    installation.create_source("feed_actions", {name: kind for name, kind in FEED.items() if name != "os"})
    assert "app.sql, line" in faults()["source"]


@pytest.mark.parametrize(
    ("zone", "server_ahead", "said"),
    [
        ("Europe/Moscow", 3, "with Europe/Moscow it would fit"),
        ("Asia/Kolkata", 5.5, "with Asia/Kolkata it would fit"),
        ("UTC", 3, "with Europe/Moscow it would fit"),
    ],
)
def test_clock_times_of_another_zone_are_seen(installation: Etl, zone: str, server_ahead: float, said: str) -> None:
    """The app writes the time that its clocks show into a column without a zone, on a server in UTC."""
    events_until(installation, datetime.now(UTC) + timedelta(hours=server_ahead))
    found = faults(PULSE_TIMEZONE=zone)
    assert said in found["feed_events"]
    assert said in found["message_events"]
    if zone != "UTC":
        schema.upgrade(installation.db, settings_source(zone), other_source=True)
        assert not {"feed_events", "message_events"} & set(faults(PULSE_TIMEZONE=zone, PULSE_SOURCE_TIMEZONE=zone))


def settings_source(zone: str) -> "schema.Source":
    return sources.chosen(settings.load(PULSE_TIMEZONE=zone, PULSE_SOURCE_TIMEZONE=zone))


def test_a_source_that_fell_silent_is_told(installation: Etl) -> None:
    events_until(installation, datetime.now(UTC) - timedelta(hours=30))
    assert "ask the owner of the app's loader" in faults()["feed_events"]
    installation.source.execute("truncate table message_actions")
    assert faults()["message_events"].startswith("no event in the last two days")


def test_a_day_that_is_missing_is_told(installation: Etl) -> None:
    yesterday = datetime.now(ZoneInfo(ZONE)).date() - timedelta(days=1)
    for back in (3, 1):
        row = {"event_date": str(yesterday - timedelta(days=back)), "step": 1, "load": "a"}
        installation.db.write([row], "publications")
    found = looked_at()["published days"]
    assert found.state == "fault"
    assert found.said.startswith(f"{yesterday - timedelta(days=2)} is not published; `pulse daily")


def test_a_chat_that_the_bot_may_not_write_to_is_told(installation: Etl, chats: Telegram) -> None:
    closed, topic = chats.new_chat(), chats.new_chat(t5="Alerts")
    chats.fault("kicked", closed)
    found = [
        each
        for each in examine(settings.load(TELEGRAM_LIVE_CHATS=f"{topic}/5", TELEGRAM_ALERT_CHATS=f"{topic}/6"))
        if each.what == "chat"
    ]
    assert [each.state for each in found] == ["fine", "fine", "fault"]
    assert "message thread not found" in found[2].said or "topic" in found[2].said
    assert found[2].said.endswith("It is for: alert")


def test_packages_that_were_not_tested_are_named(installation: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_installed", lambda name: "0.1" if name == "pandas" else machine.version(name))
    found = looked_at()["packages"]
    assert found.state == "note"
    assert found.said.startswith("not those that were tested: pandas 0.1 (==")


def test_an_archive_that_cannot_be_written_is_told(installation: Etl, tmp_path: Path) -> None:
    taken = tmp_path / "a file"
    taken.write_text("")
    assert "cannot be written" in faults(PULSE_OUTPUT=str(taken))["archive"]


def test_an_airflow_that_is_down_or_ill_is_told(
    installation: Etl, httpserver_health: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", httpserver_health)
    assert faults()["Airflow"].startswith(f"at {httpserver_health}, not healthy: scheduler;")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://127.0.0.1:9")
    assert faults()["Airflow"].startswith("nobody answers at http://127.0.0.1:9")


@pytest.fixture
def httpserver_health() -> Iterator[str]:
    """An address that answers as Airflow's health page does when the scheduler is dead."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = {"metadatabase": "healthy", "scheduler": "unhealthy", "triggerer": "healthy"}
            body = json.dumps({name: {"status": status} for name, status in parts.items()}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("language", ["en", "ru"])
def test_at_night_the_alert_chat_is_told_once(
    installation: Etl, chats: Telegram, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setenv("PULSE_LANGUAGE", language)
    chat = settings.load().telegram_alert_chats
    task = DoctorOperator(task_id="doctor", event_date=str(installation.day), chats="alert")
    context = {"dag_run": SimpleNamespace(run_id="scheduled__1")}
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "")
    before = [line for line in task.execute(context) if not line.startswith("Airflow")]
    assert before == []
    events_until(installation, datetime.now(UTC) + timedelta(hours=3))
    task.execute(context)
    task.execute(context)
    (text,) = [each for each in chats.texts(chat) if "feed_events" in each]
    assert (
        text.splitlines()[0]
        == {
            "en": "🩺 The nightly check found what needs attention:",
            "ru": "🩺 Ночная проверка: требует внимания",
        }[language]
    )
    assert "PULSE_SOURCE_TIMEZONE" in text


def test_a_check_that_breaks_is_a_line_of_its_own(installation: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: settings.Settings) -> Iterator[Finding]:
        raise ZeroDivisionError("by nought")
        yield

    monkeypatch.setattr(examination, "CHECKS", (examination.Check("source", broken), *warehouse.CHECKS[:1]))
    found = looked_at()
    assert found["source"].said == "could not be looked at (ZeroDivisionError: by nought)"
    assert found["ClickHouse"].state == "fine"
