"""A changed day is computed again through the real DAGs, and its message in the chat is corrected in place."""

import os
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from notebooks.etl import Etl
from pulse import settings
from pulse.archive import index

DAY = date(2025, 3, 12)
DAYS = [DAY - timedelta(days=2), DAY - timedelta(days=1), DAY]
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)


@pytest.fixture
def app(
    airflow_database: None,
    clickhouse_server: Server,
    chats: Telegram,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[Etl]:
    """Three published days; the last one has been reported."""
    with Etl.fresh(clickhouse_server, DAY) as etl:
        for name, value in etl.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PULSE_OUTPUT", str(tmp_path / "archive"))
        monkeypatch.setenv("TELEGRAM_API_URL", chats.server.url)
        monkeypatch.setenv("TELEGRAM_REPORT_CHATS", chats.new_chat())
        monkeypatch.setenv("TELEGRAM_ALERT_CHATS", chats.new_chat())
        for day in DAYS:
            etl.feed(*[(user, "view", f"{day} 10:15", *(IOS if user % 2 else ANDROID)) for user in range(2000)])
            etl.messages((1, 2, f"{day} 12:00", *IOS))
            etl.run(day)
        yield etl


def dag_of(name: str) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    dag: Any = DagBag(dag_folder=str(settings.ROOT / "dags" / f"{name}.py")).dags[name]
    for task in dag.tasks:
        task.retries = 0
    dag.get_task("tell").look = False
    return dag


def run(name: str, **conf: Any) -> Any:
    """Run a DAG for a day in this process."""
    done = dag_of(name).test(run_conf=conf)
    assert str(done.state) == "success", name
    return done


def night() -> list[tuple[str, str, dict[str, Any]]]:
    """Run the night's DAG, which has other DAGs run; returns these runs: the DAG, the id and the conf of each."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    dag = dag_of("restate")
    for task in ("again.etl", "again.daily_report"):
        dag.get_task(task).wait_for_completion = False  # no scheduler here would run them
    done = dag.test(run_conf={"event_date": str(DAY)})
    assert str(done.state) == "success"
    with create_session() as session:
        runs = session.query(DagRun).filter(DagRun.run_id.like(f"restate__%{done.run_id}"))
        return sorted((each.dag_id, each.run_id, each.conf) for each in runs)


def test_a_changed_day_is_computed_again_and_its_message_corrected_in_place(app: Etl, chats: Telegram) -> None:
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    readers, on_call = settings.load().telegram_report_chats, settings.load().telegram_alert_chats
    active = {**os.environ, "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
    subprocess.run(["airflow", "dags", "reserialize"], check=True, capture_output=True, env=active)
    with create_session() as session:  # an earlier test may have made them
        session.query(DagModel).update({"is_paused": False})
    run("daily_report", event_date=str(DAY))
    (report,) = chats.messages(readers)
    assert night() == []

    app.feed(*[(user, "view", f"{DAY} {hour}:30", *ANDROID) for user in range(0, 26, 2) for hour in (21, 22)])
    app.feed(*[(user, "view", f"{DAYS[1]} 21:30", *ANDROID) for user in range(0, 20, 2)])
    app.feed((3, "view", f"{DAYS[0]} 23:30", *IOS))  # one of 2,000
    found = night()
    assert [(dag, conf) for dag, _, conf in found] == [
        ("daily_report", {"event_date": str(DAYS[1]), "only_correct": True}),
        ("daily_report", {"event_date": str(DAY), "only_correct": True}),
        ("etl", {"event_date": str(DAYS[1])}),
        ("etl", {"event_date": str(DAY)}),
    ]
    (kept,) = chats.messages(on_call)  # nobody computes this day again, so somebody is told
    assert kept["text"].startswith("Late data for 10 March. ")
    assert "feed_actions +1." in kept["text"]

    for dag in ("etl", "daily_report"):
        for _, _, conf in [each for each in found if each[0] == dag]:
            run(dag, **conf)
    (corrected,) = chats.messages(readers)  # the day before was never reported, and is not now
    assert corrected["id"] == report["id"]
    assert corrected["edited"]
    assert "The source has changed since: +1.3%: late Android events of 21:00–23:00." in corrected["text"]
    assert "views 2,000 → 2,026" in corrected["text"]
    assert corrected["photo"]
    assert night() == []
    assert len(chats.messages(on_call)) == 1

    root = Path(settings.load().output)
    with index.opened(root) as opened:
        (second,) = [each for each in opened.all() if each.notebook == "load" and each.event_date == str(DAY)]
        assert opened.replaces(second) == []  # the first run was not archived, as tests run it
    run("etl", event_date=str(DAY))
    with index.opened(root) as opened:
        found = [each for each in opened.all() if each.notebook == "load" and each.event_date == str(DAY)]
        (third,) = [each for each in found if each.path != second.path]
        assert [each.path for each in opened.replaces(third)] == [second.path]
        assert [each.path for each in opened.replaced_by(second)] == [third.path]
