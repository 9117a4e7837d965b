"""The DAGs that send, run by Airflow in one process with the sandbox: a report is late, then sent, then corrected."""

import asyncio
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from published import metrics_of, publish, slice_metrics_of, slices_of
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App
from telegram_chats import Telegram

from pulse import clickhouse, schema, settings
from pulse.archive import index, proof
from pulse.clickhouse import ClickHouse

METRICS = {
    "feed_users": 10, "messenger_users": 6, "app_users": 12, "both_users": 4, "views": 200, "likes": 40, "ctr": 0.2,
    "messages_sent": 30, "messages_received": 20, "sent_per_received": 1.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def outside(
    airflow_database: None, clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClickHouse]:
    """Set up everything that the DAG talks to, through its settings. Yields the database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
        patch.setenv("PULSE_DATABASE", "reported")
        patch.setenv("PULSE_SOURCE_DATABASE", "reported_app")
        patch.setenv("PULSE_OUTPUT", str(tmp_path_factory.mktemp("archive")))
        patch.setenv("PULSE_ARCHIVE_URL", "https://air.flow/archive/")
        patch.setenv("TELEGRAM_API_URL", chats.server.url)
        patch.setenv("TELEGRAM_REPORT_CHATS", chats.new_chat())
        patch.setenv("TELEGRAM_LIVE_CHATS", chats.new_chat())
        patch.setenv("TELEGRAM_ALERT_CHATS", chats.new_chat())
        yield clickhouse.connect()


def _dag(name: str) -> Any:
    """Load a DAG of the project, with its tasks' retries switched off."""
    from airflow.dag_processing.dagbag import DagBag

    dag: Any = DagBag(dag_folder=str(settings.ROOT / "dags" / f"{name}.py")).dags[name]
    for task in dag.tasks:
        task.retries = 0
    dag.get_task("tell").look = False  # test_telling.py tests the look at other runs
    return dag


def _run(day: date, *, wait: float = 0.5, wait_longer: float = 0.5) -> Any:
    """Run the daily report for a day, with its two waits limited to this many seconds."""
    dag = _dag("daily_report")
    dag.get_task("wait_for_day").wait = timedelta(seconds=wait)
    dag.get_task("wait_longer").wait = timedelta(seconds=wait_longer)
    return dag.test(run_conf={"event_date": str(day)})


def _publish(db: ClickHouse, day: date) -> None:
    """Publish a day whose tables agree: ten users in the feed, four of whom wrote messages, and two who only wrote."""
    users: list[dict[str, Any]] = [
        {"event_date": day, "user_id": str(user), "os": "unknown", "gender": "unknown", "age": "unknown"}
        | ({"feed_active": True, "views": 20, "likes": 4} if user < 10 else {})
        | ({"messages_sent": 5} if user >= 6 else {})
        for user in range(12)
    ]
    users[0]["messages_received"] = 20
    assert metrics_of(day, users) == {"event_date": day, **METRICS}
    publish(
        db,
        user_activity=users,
        dimension_activity=slices_of(users),
        dimension_metrics=slice_metrics_of(users),
        daily_metrics=[metrics_of(day, users)],
    )


def _states(run: Any) -> dict[str, str]:
    return {instance.task_id: str(instance.state) for instance in run.get_task_instances()}


def test_a_late_notice_is_sent_once_the_failure_reported_and_the_report_follows(
    outside: ClickHouse, chats: Telegram
) -> None:
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
        "reconcile": "upstream_failed",
        "tell": "success",
    }
    (notice,) = chats.messages(readers)
    assert "11:30" in notice["text"]
    (alarm,) = chats.messages(on_call)
    assert "daily_report.wait_longer failed" in alarm["text"]
    assert "was not published within" in alarm["text"]
    assert alarm["text"].splitlines()[-1].startswith("What to do: ")

    _publish(outside, day)
    there = _run(day)
    assert str(there.state) == "success"
    assert _states(there) == {
        "wait_for_day": "success",
        "late_notice": "skipped",
        "wait_longer": "skipped",
        "daily_report": "success",
        "deliver": "success",
        "reconcile": "success",
        "tell": "success",
    }
    _, report = chats.messages(readers)
    assert report["photo"]
    assert "12" in report["text"]
    (kept,) = Path(settings.load().output).glob("daily_report/*/*/daily_report.1.ipynb")
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert report["text"].splitlines()[-1] == f"run {sha256[:10]}"
    page = f"https://air.flow/archive/run/{kept.relative_to(settings.load().output)}".replace(".ipynb", ".html")
    assert report["entities"][-1]["url"] == page

    _run(day)  # the same numbers: nothing is sent
    assert len(chats.messages(readers)) == 2
    assert not chats.messages(readers)[1].get("edited")

    changed = (
        "alter table reported.daily_metrics_loads update views = 250, ctr = 0.16 where 1 settings mutations_sync = 1"
    )
    outside.execute(changed)
    corrected_run = _run(day)
    _, corrected = chats.messages(readers)
    assert corrected["id"] == report["id"]
    assert "views 200 → 250, CTR 20.0% → 16.0%" in corrected["text"]

    # The slices still have the old number; this is reported after the report was sent.
    assert _states(corrected_run)["reconcile"] == "failed"
    (disagreement,) = chats.messages(on_call)  # one message per event date, edited to say what is wrong now
    assert disagreement["id"] == alarm["id"]
    assert "daily_report.reconcile failed" in disagreement["text"]
    assert "views is 250 in daily_metrics, 200 in dimension_activity by os" in disagreement["text"]

    root = Path(settings.load().output)
    assert proof.verify(root, outside=proof.ledger(outside, root)).problems == []
    with index.opened(root) as opened:
        (first,) = opened.by_reference(sha256[:10])
        delivered = [(sent.did, sent.message_id) for each in opened.all() for sent in opened.delivered(each.path)]
        (shown,) = opened.delivered(first.path)
    assert (shown.report, shown.chat, shown.did, shown.message_id) == ("daily_report", readers, "sent", report["id"])
    assert sorted(delivered) == [("edited", report["id"]), ("nothing", report["id"]), ("sent", report["id"])]
    said = subprocess.run(["pulse", "archive", "show", sha256[:10]], capture_output=True, text=True, check=True).stdout
    assert f"Daily report of {day}, try 1 (daily_report)" in said
    assert f"daily_report to chat {readers}: sent" in said
    assert str(kept) in said


def test_a_late_report_follows_as_soon_as_the_day_is_published(
    outside: ClickHouse, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, readers = settings.load().event_day("yesterday") - timedelta(days=30), chats.new_chat()
    monkeypatch.setenv("TELEGRAM_REPORT_CHATS", readers)

    def publish_after_the_notice() -> None:
        while not chats.texts(readers):
            time.sleep(0.1)
        _publish(outside, day)

    threading.Thread(target=publish_after_the_notice, daemon=True).start()
    run = _run(day, wait_longer=120)
    assert _states(run) == {
        "wait_for_day": "success",
        "late_notice": "success",
        "wait_longer": "success",
        "daily_report": "success",
        "deliver": "success",
        "reconcile": "success",
        "tell": "success",
    }
    notice, report = chats.texts(readers)
    assert f"The report for {day:%-d %B} is late" in notice
    assert report.startswith(f"{day:%A %-d %B %Y}\n")


def test_live_metrics_are_one_message_a_day_that_is_kept_up_to_date(
    outside: ClickHouse, clickhouse_server: Server, chats: Telegram
) -> None:
    config = settings.load()
    fill(clickhouse_server, App(config.zone, "reported_app", events_per_day=2_000), days=9)
    day, dag = config.event_day("yesterday"), _dag("live_metrics")
    views = """
    select countIf(action = 'view') from reported_app.feed_actions
    where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}
    """
    for hour in (14, 15):
        end = datetime.combine(day, clock(hour), config.zone)
        assert dag.test(logical_date=end + timedelta(minutes=1)).state == "success"
        (message,) = chats.messages(config.telegram_live_chats)
        assert message["text"].startswith(f"{day:%A %-d %B}, by {hour}:00\nvs ")
        seen = outside.value(views, start=config.day_bounds(day)[0], end=end)
        assert re.search(rf"^views {seen:,} ", message["text"], re.MULTILINE)
    assert message["edited"]


@pytest.mark.prove
def test_pulse_daily_ends_with_the_reason_when_the_day_fails(outside: ClickHouse) -> None:
    command = ["pulse", "daily", "2020-01-01"]
    environment = {**os.environ, "PULSE_OUTPUT": "/proc/pulse"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-2:]  # one line per extract
    assert last[0].startswith("etl failed for 2020-01-01: The archive cannot keep /proc/pulse/etl/2020-01-01/")
    assert last[1].endswith("(No such file or directory); make room or make it writable, or set PULSE_OUTPUT.")


def test_the_failure_notice_names_the_failed_notebook(outside: ClickHouse, chats: Telegram) -> None:
    on_call = settings.load().telegram_alert_chats
    before = len(chats.messages(on_call))
    day = settings.load().event_day("yesterday") - timedelta(days=2)
    publish(outside, daily_metrics=[{"event_date": day, **METRICS}] * 2)
    assert str(_run(day).state) == "failed"
    (alarm,) = chats.messages(on_call)[before:]
    assert "daily_metrics has a day more than once" in alarm["text"]
    (kept,) = Path(settings.load().output).glob(f"daily_report/{day}/*/*.ipynb")
    assert alarm["text"].splitlines()[-1] == f"run {hashlib.sha256(kept.read_bytes()).hexdigest()[:10]}"


@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)])
def test_the_report_runs_at_eleven_local_time_when_clocks_change(change: date) -> None:
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
    from pulse.execution import store

    handed = store.scraps(str(kept[-1]))
    assert handed["chart"].startswith(b"\x89PNG")
    assert "<b>" in handed["text"]


def test_a_trigger_with_a_silent_server_does_not_block_other_triggers(
    outside: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.triggers.base import TriggerEvent

    from pulse.orchestration.waiting import DayPublished

    day = settings.load().event_day("yesterday") - timedelta(days=200)
    schema.ensure(outside)
    _publish(outside, day)
    monkeypatch.setattr(clickhouse, "PROBE_SECONDS", 5)
    monkeypatch.setattr(clickhouse, "GRACE_SECONDS", 0)
    real = os.environ["CLICKHOUSE_URL"]

    async def first_event(until: datetime) -> TriggerEvent:
        return await anext(DayPublished(str(day), until.isoformat(), seconds=0.1).run())

    async def beside_each_other(silent: socket.socket) -> None:
        monkeypatch.setenv("CLICKHOUSE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        stuck = asyncio.create_task(first_event(datetime.now(UTC)))
        connection, _ = await asyncio.to_thread(silent.accept)  # the trigger has sent its request
        monkeypatch.setenv("CLICKHOUSE_URL", real)
        assert (await first_event(datetime.now(UTC) + timedelta(minutes=5))).payload is True
        assert not stuck.done()
        assert (await stuck).payload is False  # it has given up
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(beside_each_other(silent))
