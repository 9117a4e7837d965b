"""The daily report's DAG, run by Airflow in one process against the sandbox: late, then there, then corrected."""

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from telegram_chats import Telegram

from pulse import clickhouse, settings
from pulse.clickhouse import ClickHouse
from pulse.sandbox.clickhouse import Server

METRICS = {
    "feed_users": 10, "messenger_users": 6, "app_users": 12, "both_users": 4, "views": 200, "likes": 40, "ctr": 0.2,
    "messages_sent": 30, "messages_received": 20, "sent_per_received": 1.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def outside(
    clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClickHouse]:
    """Everything that the DAG talks to, by the settings that it reads; gives the database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
        patch.setenv("PULSE_DATABASE", "reported")
        patch.setenv("PULSE_OUTPUT", str(tmp_path_factory.mktemp("archive")))
        patch.setenv("TELEGRAM_API_URL", chats.server.url)
        patch.setenv("TELEGRAM_REPORT_CHATS", chats.new_chat())
        patch.setenv("TELEGRAM_ALERT_CHATS", chats.new_chat())
        subprocess.run(["airflow", "db", "migrate"], check=True, capture_output=True)
        yield clickhouse.connect()


def _run(day: date, *, wait: float = 0.5, wait_longer: float = 0.5) -> Any:
    """One run of the DAG for a day, whose waits are this many seconds."""
    from airflow.dag_processing.dagbag import DagBag

    dag: Any = DagBag(dag_folder=str(settings.ROOT / "dags" / "daily_report.py")).dags["daily_report"]
    for task in dag.tasks:
        task.retries = 0
    dag.get_task("wait_for_day").wait = timedelta(seconds=wait)
    dag.get_task("wait_longer").wait = timedelta(seconds=wait_longer)
    return dag.test(run_conf={"event_date": str(day)})


def _states(run: Any) -> dict[str, str]:
    return {instance.task_id: str(instance.state) for instance in run.get_task_instances()}


def test_late_is_said_once_failure_is_told_and_the_report_follows(outside: ClickHouse, chats: Telegram) -> None:
    day = settings.load().event_day("yesterday")
    readers, on_call = settings.load().telegram_report_chats, settings.load().telegram_alert_chats

    late = _run(day)
    assert str(late.state) == "failed"
    assert _states(late) == {
        "wait_for_day": "success",
        "late_notice": "success",
        "wait_longer": "failed",
        "daily_report": "upstream_failed",
        "deliver": "upstream_failed",
    }
    (notice,) = chats.messages(readers)
    assert "11:30" in notice["text"]
    (alarm,) = chats.messages(on_call)
    assert "daily_report.wait_longer failed" in alarm["text"]
    assert "was not published within" in alarm["text"]

    outside.write([{"event_date": day, **METRICS}], "daily_metrics")
    there = _run(day)
    assert str(there.state) == "success"
    assert _states(there) == {
        "wait_for_day": "success",
        "late_notice": "skipped",
        "wait_longer": "skipped",
        "daily_report": "success",
        "deliver": "success",
    }
    _, report = chats.messages(readers)
    assert report["photo"]
    assert "12" in report["text"]

    _run(day)  # the same numbers: nothing is sent
    assert len(chats.messages(readers)) == 2
    assert not chats.messages(readers)[1].get("edited")

    outside.execute("alter table reported.daily_metrics delete where 1 settings mutations_sync = 1")
    outside.write([{"event_date": day, **METRICS, "views": 250, "ctr": 0.16}], "daily_metrics")
    _run(day)
    _, corrected = chats.messages(readers)
    assert corrected["id"] == report["id"]
    assert "views 200 → 250, CTR 20.0% → 16.0%" in corrected["text"]


def test_by_hand_a_day_that_fails_ends_with_the_reason(outside: ClickHouse) -> None:
    command = ["pulse", "daily", "2020-01-01"]
    environment = {**os.environ, "PULSE_OUTPUT": "/proc/pulse"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-2:]  # one of each extract
    assert last[0].startswith("etl failed for 2020-01-01: The archive cannot keep /proc/pulse/etl/2020-01-01/")
    assert last[1].endswith("(No such file or directory); make room or make it writable, or set PULSE_OUTPUT.")


@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)])
def test_it_runs_at_eleven_local_time_over_a_clock_change(change: date) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    dag = DagBag(dag_folder=str(settings.ROOT / "dags" / "daily_report.py")).dags["daily_report"]
    berlin = ZoneInfo("Europe/Berlin")
    timetable = CronDataIntervalTimetable(dag.timetable.expression, timezone=pendulum.timezone("Europe/Berlin"))
    start = pendulum.instance(datetime.combine(change - timedelta(days=3), datetime.min.time(), tzinfo=UTC))
    restriction = TimeRestriction(earliest=start, latest=None, catchup=True)
    interval, ends = None, []
    for _ in range(6):
        interval = timetable.next_dagrun_info(
            last_automated_data_interval=interval, restriction=restriction
        ).data_interval
        ends.append(interval.end.astimezone(berlin))
    assert {end.strftime("%H:%M") for end in ends} == {"11:00"}
    assert [end.date() for end in ends] == [ends[0].date() + timedelta(days=n) for n in range(6)]


def test_the_chart_and_the_text_come_from_the_archived_notebook(outside: ClickHouse) -> None:
    kept = sorted(Path(settings.load().output).glob("daily_report/*/*/daily_report.*.ipynb"))
    assert kept
    from pulse import notebooks

    handed = notebooks.scraps(str(kept[-1]))
    assert handed["chart"].startswith(b"\x89PNG")
    assert "<b>" in handed["text"]
