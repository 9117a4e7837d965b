"""The daily DAG run by a real Airflow: its scheduler, its LocalExecutor, its backfill command, the sandbox's events."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import nbformat
import pytest
from telegram_chats import Telegram

from pulse import settings
from pulse.clickhouse import ClickHouse
from pulse.sandbox.clickhouse import Server
from pulse.sandbox.events import App, fill

DAYS = 6


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Airflow:
    home: Path
    environment: dict[str, str]
    db: ClickHouse
    source: str
    yesterday: date
    chats: Telegram
    readers: str

    def command(self, *words: str) -> str:
        done = subprocess.run(["airflow", *words], env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def query(self, sql: str, *values: object) -> list[tuple[str, ...]]:
        """Airflow's own record, read from its database: its command takes seconds for every look."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def wait(self, done: Callable[[], bool], what: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{what} did not happen:\n{self.log()}"
            time.sleep(0.5)

    def states(self, kind: str) -> list[str]:
        return [row[0] for row in self.query("select state from dag_run where dag_id = 'etl' and run_type = ?", kind)]

    def log(self) -> str:
        text = (self.home / "standalone.log").read_text()[-6000:]
        return text + "\n".join(path.read_text()[-3000:] for path in sorted(self.home.glob("logs/dag_id=*/**/*.log")))


@pytest.fixture(scope="module")
def airflow(clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A real Airflow on free ports, with the connection as Airflow's own and a wrong address in the environment."""
    home = tmp_path_factory.mktemp("airflow")
    config = settings.load()
    fill(clickhouse_server, App(config.zone, "scheduled_app", events_per_day=8_000), days=DAYS)
    yesterday = config.event_day("yesterday")
    api, logs, readers = _free_port(), _free_port(), chats.new_chat()
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{api}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # as `pulse` sets it
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
        "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": clickhouse_server.url,
        "CLICKHOUSE_URL": "http://nobody:nothing-here@127.0.0.1:9",
        "PULSE_DATABASE": "scheduled",
        "PULSE_SOURCE_DATABASE": "scheduled_app",
        "PULSE_OUTPUT": str(home / "archive"),
        "TELEGRAM_API_URL": chats.server.url,
        "TELEGRAM_REPORT_CHATS": readers,
        "TELEGRAM_LIVE_CHATS": chats.new_chat(),
        "TELEGRAM_ALERT_CHATS": chats.new_chat(),
    }
    db = ClickHouse(clickhouse_server.url, "scheduled", config.zone)
    with (home / "standalone.log").open("w") as log:
        process = subprocess.Popen(
            ["airflow", "standalone"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield Airflow(home, environment, db, "scheduled_app", yesterday, chats, readers)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


@pytest.fixture(scope="module")
def scheduled(airflow: Airflow) -> Airflow:
    """The run that the scheduler makes by itself is over."""

    def over() -> bool:
        if not (airflow.home / "airflow.db").exists():
            return False
        try:
            return any(state in ("success", "failed") for state in airflow.states("scheduled"))
        except sqlite3.OperationalError:  # the tables are still being made
            return False

    airflow.wait(over, "a scheduled run of etl")
    return airflow


@pytest.mark.not_across("05:00", seconds=120)  # when another run begins
def test_the_scheduler_runs_the_last_interval_by_itself(scheduled: Airflow) -> None:
    assert scheduled.states("scheduled") == ["success"]
    published = scheduled.db.read("select toString(event_date) as day from daily_metrics")["day"].tolist()
    # Before 05:00 the last interval ended yesterday, and was about the day before.
    assert published in ([str(scheduled.yesterday)], [str(scheduled.yesterday - timedelta(days=1))])


def test_the_extracts_ran_side_by_side(scheduled: Airflow) -> None:
    times = {
        task: (start, end)
        for task, start, end in scheduled.query(
            "select task_id, start_date, end_date from task_instance where dag_id = 'etl' and task_id like 'extract_%'"
        )
    }
    (feed_start, feed_end), (messages_start, messages_end) = times["extract_feed"], times["extract_messages"]
    assert feed_start < messages_end
    assert messages_start < feed_end


def test_every_notebook_is_archived_with_the_truth(scheduled: Airflow) -> None:
    kept = sorted((scheduled.home / "archive" / "etl").glob("*/scheduled_*/*.ipynb"))
    assert [path.name for path in kept] == [
        "extract_feed.1.ipynb", "extract_messages.1.ipynb", "load.1.ipynb", "transform.1.ipynb",
    ]  # fmt: skip
    for path in kept:
        about = nbformat.read(path, as_version=4).metadata["pulse"]
        assert (about["outcome"], about["dag"], about["try"]) == ("succeeded", "etl", 1)
        assert about["run_id"].startswith("scheduled__")
        assert about["parameters"]["event_date"] == path.parent.parent.name
        assert len(about["queries"]) >= 3
        assert "sandbox-only" not in path.read_text()


def test_a_backfill_backwards_publishes_every_day(scheduled: Airflow) -> None:
    first, last = scheduled.yesterday - timedelta(days=4), scheduled.yesterday - timedelta(days=2)
    scheduled.command(
        "backfill", "create", "--dag-id", "etl", "--from-date", str(first), "--to-date", f"{last}T23:59:59",
        "--max-active-runs", "2", "--run-backwards", "--reprocess-behavior", "completed",
    )  # fmt: skip

    def over() -> bool:
        states = scheduled.states("backfill")
        return len(states) >= 2 and all(state in ("success", "failed") for state in states)

    scheduled.wait(over, "the backfill")
    assert set(scheduled.states("backfill")) == {"success"}
    wanted = [str(first + timedelta(days=n)) for n in range(3)]
    for day in wanted:
        _is_what_happened(scheduled, day)


def test_a_day_from_the_trigger_form_is_computed_again(scheduled: Airflow) -> None:
    day = str(scheduled.yesterday - timedelta(days=3))
    published = "select * from dimension_activity where event_date = {day:Date} order by all"
    before = scheduled.db.read(published, day=day)
    scheduled.command("dags", "trigger", "etl", "--conf", json.dumps({"event_date": day}))
    scheduled.wait(lambda: scheduled.states("manual") in (["success"], ["failed"]), "the triggered run")
    assert scheduled.states("manual") == ["success"]
    assert scheduled.db.read(published, day=day).equals(before)
    _is_what_happened(scheduled, day)


def test_the_report_waits_in_no_slot_and_goes_out_once_the_day_is_there(scheduled: Airflow) -> None:
    day = scheduled.yesterday - timedelta(days=5)
    conf = json.dumps({"event_date": str(day)})
    scheduled.command("dags", "trigger", "daily_report", "--run-id", "early", "--conf", conf)
    gate = "select state from task_instance where run_id = 'early' and task_id = 'wait_for_day'"
    scheduled.wait(lambda: scheduled.query(gate) == [("deferred",)], "the gate")
    scheduled.command("dags", "trigger", "etl", "--run-id", "late", "--conf", conf)
    ends = [("success",)], [("failed",)]
    scheduled.wait(
        lambda: scheduled.query("select state from dag_run where run_id = 'early'") in ends, "the report's run"
    )
    assert scheduled.query("select state from dag_run where run_id = 'early'") == [("success",)], scheduled.log()
    (sent,) = [each for each in scheduled.chats.messages(scheduled.readers) if f"{day:%-d %B %Y}" in each["text"]]
    assert sent["photo"]
    users = scheduled.db.value("select app_users from daily_metrics where event_date = {day:Date}", day=day)
    assert f"{users:,}" in sent["text"]


def test_a_failed_notebook_says_why_in_the_last_lines_of_its_log(scheduled: Airflow) -> None:
    ahead = str(scheduled.yesterday + timedelta(days=30))
    scheduled.command("dags", "trigger", "etl", "--run-id", "ahead", "--conf", json.dumps({"event_date": ahead}))

    def over() -> bool:
        return scheduled.query("select state from dag_run where run_id = 'ahead'") == [("failed",)]

    scheduled.wait(over, "the run of a day to come")
    log = next(scheduled.home.glob("logs/dag_id=etl/run_id=ahead/task_id=extract_feed/attempt=1.log")).read_text()
    assert f"{ahead} has not ended yet in" in "".join(log.splitlines()[-3:])
    tries = scheduled.query("select try_number from task_instance where run_id = 'ahead' and task_id = 'extract_feed'")
    assert tries == [(1,)]  # trying again would not help


def _is_what_happened(airflow: Airflow, day: str) -> None:
    """The published day has what the source says, counted in another way."""
    start, end = settings.day_bounds(date.fromisoformat(day), airflow.db.zone)
    source = airflow.db.read(
        """
        select
            (select uniqExact(user_id) from {app:Identifier}.feed_actions
                where time >= {start:DateTime} and time < {end:DateTime}) as feed_users,
            (select countIf(action = 'like') from {app:Identifier}.feed_actions
                where time >= {start:DateTime} and time < {end:DateTime}) as likes,
            (select count() from {app:Identifier}.message_actions
                where time >= {start:DateTime} and time < {end:DateTime}) as messages_sent
        """,
        app=airflow.source,
        start=start,
        end=end,
    ).loc[0]
    published = airflow.db.read("select * from daily_metrics where event_date = {day:Date}", day=day)
    assert len(published) == 1
    for name in source.index:
        assert published[name].iloc[0] == source[name] > 0
