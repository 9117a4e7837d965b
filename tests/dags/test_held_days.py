"""A held day in the real DAG: the alert chat is told once, the load waits for a person, and the report says why."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App
from telegram_chats import Telegram

from notebooks.etl import Etl
from pulse import PulseError, schema, settings
from pulse.orchestration import commands
from pulse.orchestration.holding import FROM_NOW_ON, KEEP
from pulse.orchestration.sending import LateNoticeOperator
from pulse.orchestration.waiting import is_published
from pulse.publishing import holds
from pulse.reports import commands as report_commands

DAY = date(2025, 3, 12)
BEFORE = DAY - timedelta(days=1)


@pytest.fixture(scope="module")
def app(
    airflow_database: None, clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Etl]:
    """Three weeks of the sandbox's app that lose iOS on the last two days."""
    with pytest.MonkeyPatch.context() as patch, Etl.fresh(clickhouse_server, DAY) as etl:
        for name, value in etl.environment.items():
            patch.setenv(name, value)
        patch.setenv("PULSE_OUTPUT", str(tmp_path_factory.mktemp("archive")))
        patch.setenv("TELEGRAM_API_URL", chats.server.url)
        made = App(etl.zone, etl.source.database, events_per_day=10_000)
        fill(clickhouse_server, made, until=DAY + timedelta(days=1), days=22)
        for table in ("feed_actions", "message_actions"):
            for day in (BEFORE, DAY):
                etl.source.execute(f"create or replace table planted as {table}")
                etl.source.execute(
                    f"insert into planted select * from {table} where toDate(time, 'Europe/Moscow') = {{day:Date}} "  # noqa: S608
                    "and (os is null or os != 'iOS')",
                    day=day,
                )
                etl.source.replace_partition(table, [day], "planted")
        schema.ensure(etl.db)
        yield etl


@pytest.fixture
def on_call(app: Etl, chats: Telegram, monkeypatch: pytest.MonkeyPatch) -> str:
    """The alert chat of one test, in which nothing is held yet."""
    chat = chats.new_chat()
    monkeypatch.setenv("TELEGRAM_ALERT_CHATS", chat)
    for table in ("day_holds", "publications"):
        app.db.execute(f"truncate table {table}")
    return chat


def etl_dag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(settings.ROOT / "dags" / "etl.py")).dags["etl"]


def run(day: date = DAY, wait: bool = True, patience: timedelta | None = None) -> dict[str, str]:
    """Run the ETL's DAG. Returns the tasks' states; the run itself succeeded."""
    dag = etl_dag()
    for task in dag.tasks:
        task.retries = 0
    dag.get_task("tell").look = False
    release = dag.get_task("release")
    release.wait, release.patience = wait, patience or release.patience
    done = dag.test(run_conf={"event_date": str(day)})
    assert str(done.state) == "success"
    return {each.task_id: str(each.state) for each in done.get_task_instances()}


def later(chats: Telegram, chat: str, do: Callable[[], object]) -> threading.Thread:
    """Do something once a chat was told that the day is held, which is when people can answer."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not chats.messages(chat) and time.monotonic() < until:
            time.sleep(0.2)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_ordinary_day_skips_the_release_and_is_published(app: Etl, on_call: str, chats: Telegram) -> None:
    day = DAY - timedelta(days=2)
    states = run(day)
    assert (states["transform"], states["release"], states["load"]) == ("success", "skipped", "success")
    assert is_published(str(day))
    assert chats.messages(on_call) == []


def test_a_held_day_waits_until_it_is_released_from_the_shell(app: Etl, on_call: str, chats: Telegram) -> None:
    def release() -> None:
        report_commands.release(str(DAY), because="iOS is <off>", by="anna", from_now_on=False)

    thread = later(chats, on_call, release)
    states = run()
    thread.join()
    assert (states["release"], states["load"]) == ("success", "success")
    assert is_published(str(DAY))
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("12 March was held: its data was far from that of the same weekdays before.\nos iOS")
    assert "\nReleased by anna: iOS is <off>" in told["text"]


def test_a_held_day_that_nobody_releases_is_not_published_and_stays_held(
    app: Etl, on_call: str, chats: Telegram
) -> None:
    states = run(patience=timedelta(seconds=1))
    assert (states["release"], states["load"], states["refresh_dashboards"]) == ("success", "skipped", "skipped")
    assert not is_published(str(DAY))
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("12 March is held, not published: its data is far from that of the same weekdays")
    assert "os iOS in feed_actions: 0 users, expected about " in told["text"]
    assert "pulse release 2025-03-12" in told["text"]
    run(wait=False)
    assert len(chats.messages(on_call)) == 1


def test_an_answer_in_airflows_form_releases_the_day_or_keeps_it(
    app: Etl, on_call: str, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_LANGUAGE", "ru")
    run(wait=False)
    task = etl_dag().get_task("release")
    task.event_date = str(DAY)
    context: dict[str, Any] = {
        "ti": SimpleNamespace(map_index=-1, xcom_push=lambda *_, **__: None),
        "task": task,
        "dag_run": SimpleNamespace(run_id="scheduled__1", conf={}),
    }
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.resume(context, {"chosen_options": [KEEP], "params_input": {}, "responded_by_user": {"name": "boris"}})
    assert list(skipped.value.tasks) == ["load"]
    assert [each.event_date for each in holds.held(app.db)] == [DAY]
    answer = {"chosen_options": [FROM_NOW_ON], "params_input": {"because": "сняли с продажи"}}
    task.resume(context, {**answer, "responded_by_user": {"id": "1", "name": "boris"}})
    assert holds.held(app.db) == []
    last = holds.last(app.db, DAY)
    assert last is not None
    assert (last.state, last.said_by, last.from_now_on) == ("released", "boris", True)
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("12 марта: публикация была приостановлена")
    assert "os iOS в feed_actions: пользователей 0, ожидалось около " in told["text"]
    assert "Публикацию разрешил(а) boris: сняли с продажи" in told["text"]


def test_the_notice_at_half_past_eleven_says_that_the_day_is_held_and_why(
    app: Etl, on_call: str, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import time as clock

    run(wait=False)
    for language, said in (
        (
            "en",
            "The report for 12 March is late: the day is held, because its data is unusual (os iOS in feed_actions: ",
        ),
        ("ru", "Отчёт за 12 марта задерживается: данные за день необычны (os iOS в feed_actions: пользователей 0, "),
    ):
        chat = chats.new_chat()
        monkeypatch.setenv("TELEGRAM_REPORT_CHATS", chat)
        monkeypatch.setenv("PULSE_LANGUAGE", language)
        notice = LateNoticeOperator(task_id="late_notice", event_date=str(DAY), deadline=clock(11, 30), chats="report")
        notice.execute({"dag_run": SimpleNamespace(run_id="scheduled__1")})
        (told,) = chats.messages(chat)
        assert told["text"].startswith(said)


def test_a_backfill_goes_on_after_a_held_day_and_lists_it_at_the_end(
    app: Etl, on_call: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    first = DAY - timedelta(days=2)
    with pytest.raises(PulseError) as raised:
        commands.backfill(str(first), str(DAY))
    assert [line[:40] for line in str(raised.value).splitlines()] == [
        f"{day} is held, not published, because"[:40] for day in (BEFORE, DAY)
    ]
    said = capsys.readouterr().out
    for line in (f"{first} is published, 1 of 3", f"{BEFORE} is held, 2 of 3", f"{DAY} is held, 3 of 3"):
        assert f"{line}\n" in said
    report_commands.release("", because="", by="")
    listed = capsys.readouterr().out
    assert listed.count(" is held, not published, because it is far from the same weekdays before: os iOS") == 2
    report_commands.release(str(DAY), because="", by="anna")
    with pytest.raises(PulseError, match=r"^2025-03-11 is held, not published.*`pulse daily 2025-03-11`\.$"):
        commands.daily(str(BEFORE))
