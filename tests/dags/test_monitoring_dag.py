"""The monitoring DAG over a planted outage: one alert, edited while the outage lasts, and a reply when it is over."""

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App
from telegram_chats import Telegram

from pulse import clickhouse, settings
from pulse.clickhouse import ClickHouse
from pulse.orchestration.dates import as_of

ZONE = ZoneInfo("Europe/Moscow")
DAY = date(2026, 10, 14)  # a Wednesday


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"{DAY} {clock}").replace(tzinfo=ZONE)


@pytest.fixture(scope="module")
def outside(
    airflow_database: None, clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClickHouse]:
    """An app that loses nearly all messages from 13:00 to 14:00, and what the DAG talks to. Yields the database."""
    fill(clickhouse_server, App(ZONE, "lossy_app", events_per_day=200_000), until=DAY + timedelta(days=1), days=22)
    ClickHouse(clickhouse_server.url, "lossy_app", ZONE).execute(
        "alter table lossy_app.message_actions delete "
        "where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)} "
        "and cityHash64(user_id, receiver_id, time) % 20 < 19 settings mutations_sync = 1",
        start=_at("13:00"),
        end=_at("14:00"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
        patch.setenv("PULSE_DATABASE", "monitored")
        patch.setenv("PULSE_SOURCE_DATABASE", "lossy_app")
        patch.setenv("PULSE_TIMEZONE", "Europe/Moscow")
        patch.setenv("PULSE_OUTPUT", str(tmp_path_factory.mktemp("archive")))
        patch.setenv("TELEGRAM_API_URL", chats.server.url)
        patch.setenv("TELEGRAM_ALERT_CHATS", chats.new_chat())
        yield clickhouse.connect()
    ClickHouse(clickhouse_server.url, "default", ZONE).execute("drop database lossy_app")


def _tick(clock: str, **parameters: Any) -> str:
    """Run the DAG as of a time of the day. Returns the run's state."""
    from airflow.dag_processing.dagbag import DagBag

    dag: Any = DagBag(dag_folder=str(settings.ROOT / "dags" / "monitoring.py")).dags["monitoring"]
    for task in dag.tasks:
        task.retries = 0
    dag.get_task("tell").look = False  # test_telling.py tests the look at other runs
    few = {"history_days": 21, "late_hours": 2.0, "useful_minutes": 10**9}
    dag.get_task("anomalies").parameters |= few | parameters
    # The notebook uses the form's `as_of`; reporting once a day goes by the run's own date.
    return str(dag.test(logical_date=_at(clock) - timedelta(hours=1), run_conf={"as_of": _at(clock).isoformat()}).state)


def test_an_outage_is_one_alert_that_is_edited_and_replied_to(outside: ClickHouse, chats: Telegram) -> None:
    on_call = settings.load().telegram_alert_chats
    assert _tick("13:20") == "success"
    (alert,) = chats.messages(on_call)
    assert alert["photo"]
    assert alert["text"].startswith("🔴 ")
    assert "since 13:00" in alert["text"]

    assert _tick("13:20") == "success"  # the same again: nothing new
    (same,) = chats.messages(on_call)
    assert same["text"] == alert["text"]

    assert _tick("13:50") == "success"
    (edited,) = chats.messages(on_call)
    assert edited["id"] == alert["id"]
    assert "to 13:45" in edited["text"]

    assert _tick("15:35", late_hours=3.0) == "success"
    over, reply = chats.messages(on_call)
    assert over["id"] == alert["id"]
    assert over["text"].startswith("🟢 Over: ")
    assert "from 13:00 to 14:" in over["text"]
    assert reply["reply_to"] == alert["id"]
    assert "again since 14:" in reply["text"]
    assert not alert.get("silent")
    assert reply["silent"]
    state = outside.read("select state, metric from incidents final")
    assert state.to_dict("records") == [{"state": "resolved", "metric": state["metric"][0]}]
    assert state["metric"][0] in ("messages_sent", "messenger_users")


def test_monitoring_runs_five_minutes_after_each_quarter_one_run_at_a_time() -> None:
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(dag_folder=str(settings.ROOT / "dags" / "monitoring.py")).dags["monitoring"]
    assert dag.timetable.expression == "5,20,35,50 * * * *"
    assert dag.max_active_runs == 1
    assert not dag.catchup


def test_as_of_is_the_intervals_end_in_local_time() -> None:
    from types import SimpleNamespace

    run = SimpleNamespace(data_interval_end=pendulum.datetime(2026, 10, 14, 10, 20))
    assert as_of(run, ZONE).isoformat() == "2026-10-14T13:20:00+03:00"


def test_monitoring_failures_are_reported_once_a_day(
    outside: ClickHouse, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_call = chats.new_chat()
    monkeypatch.setenv("TELEGRAM_ALERT_CHATS", on_call)
    assert _tick("13:20", late_hours=-1.0) == "failed"
    assert _tick("13:35", late_hours=-1.0) == "failed"
    (told,) = chats.messages(on_call)
    assert "The next run tries again" in told["text"]
    assert "monitoring.anomalies failed" in told["text"]
    assert "late_hours is -1.0; give" in told["text"]
    assert json.dumps(told)
