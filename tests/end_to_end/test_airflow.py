"""The DAGs and the archive in a real Airflow: its scheduler, executor, backfills, login, and pages in a browser."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App
from telegram_chats import Telegram

from pulse import settings
from pulse.archive import TEMPLATES, digest, index, manifest, proof
from pulse.clickhouse import ClickHouse

DAYS = 6


# A hook that Airflow calls: in runs named `killed…`, tasks are tried only once, except `tell`.
LAST_TRY = """
def task_instance_mutation_hook(task_instance, dag_run=None):
    if task_instance.run_id and task_instance.run_id.startswith("killed") and task_instance.task_id != "tell":
        task_instance.max_tries = 0
"""


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
    url: str

    @property
    def archive(self) -> Path:
        return self.home / "archive"

    @contextmanager
    def showing(self, archive: Path) -> Iterator[None]:
        """Let the pages show another archive, which works since the API server reads the settings for every page."""
        kept = self.archive.rename(self.home / "kept")
        self.archive.symlink_to(archive)
        try:
            yield
        finally:
            self.archive.unlink()
            kept.rename(self.archive)

    def command(self, *words: str) -> str:
        done = self.try_command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = ["pulse", "airflow", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def query(self, sql: str, *values: object) -> list[tuple[str, ...]]:
        """Query Airflow's database directly, since its command takes seconds each time."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def wait(self, done: Callable[[], bool], what: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{what} did not happen:\n{self.log()}"
            time.sleep(0.1)  # a task that a test wants to kill may run for only a second

    def switch_on(self, dag: str) -> None:
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as connection, connection:
            connection.execute("update dag set is_paused = 0 where dag_id = ?", (dag,))

    def states(self, kind: str) -> list[str]:
        return [row[0] for row in self.query("select state from dag_run where dag_id = 'etl' and run_type = ?", kind)]

    def log(self) -> str:
        text = (self.home / "standalone.log").read_text()[-6000:]
        return text + "\n".join(path.read_text()[-3000:] for path in sorted(self.home.glob("logs/dag_id=*/**/*.log")))


@pytest.fixture(scope="module")
def airflow(clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A real Airflow on a free port. Only its own connection has the right address; the environment has a wrong one."""
    home = tmp_path_factory.mktemp("airflow")
    config = settings.load()
    fill(clickhouse_server, App(config.zone, "scheduled_app", events_per_day=8_000), days=DAYS)
    yesterday = config.event_day("yesterday")
    api, readers = _free_port(), chats.new_chat()
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",  # so no DAG runs during a test of another
        "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": clickhouse_server.url,
        "CLICKHOUSE_URL": "http://nobody:nothing-here@127.0.0.1:9",
        "PULSE_DATABASE": "scheduled",
        "PULSE_SOURCE_DATABASE": "scheduled_app",
        "PULSE_OUTPUT": str(home / "archive"),
        "PULSE_ARCHIVE_URL": f"http://127.0.0.1:{api}/archive",
        "TELEGRAM_API_URL": chats.server.url,
        "TELEGRAM_REPORT_CHATS": readers,
        "TELEGRAM_LIVE_CHATS": chats.new_chat(),
        "TELEGRAM_ALERT_CHATS": chats.new_chat(),
    }
    (home / "config").mkdir()
    (home / "config" / "airflow_local_settings.py").write_text(LAST_TRY)
    db = ClickHouse(clickhouse_server.url, "scheduled", config.zone)
    with (home / "standalone.log").open("w") as log:
        process = subprocess.Popen(["pulse", "airflow"], env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{api}"
            yield Airflow(home, environment, db, "scheduled_app", yesterday, chats, readers, url)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.fixture(scope="module")
def scheduled(airflow: Airflow) -> Airflow:
    """Wait until the scheduler's own run of `etl` is over."""

    def known() -> bool:
        if not (airflow.home / "airflow.db").exists():
            return False
        try:
            return bool(airflow.query("select 1 from dag where dag_id = 'etl'"))
        except sqlite3.OperationalError:  # the tables are still being made
            return False

    airflow.wait(known, "the DAG etl", 300)
    airflow.switch_on("etl")
    airflow.wait(
        lambda: any(state in ("success", "failed") for state in airflow.states("scheduled")), "a scheduled run of etl"
    )
    return airflow


@pytest.mark.not_across("05:00", seconds=120)  # another run begins then
def test_the_scheduler_runs_the_last_interval_by_itself(scheduled: Airflow) -> None:
    assert scheduled.states("scheduled") == ["success"]
    published = scheduled.db.read("select toString(event_date) as day from daily_metrics")["day"].tolist()
    # Before 05:00, the last interval ended yesterday and covered the day before.
    assert published in ([str(scheduled.yesterday)], [str(scheduled.yesterday - timedelta(days=1))])


def test_the_password_is_the_last_line_of_a_short_output(scheduled: Airflow) -> None:
    said = (scheduled.home / "standalone.log").read_text()
    *_, address, password = said.splitlines()
    assert address == f"Airflow is at {scheduled.url}"
    assert re.fullmatch(r"Password for user 'admin': \S{8,}", password)
    assert len(said) < 2000


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


def test_every_notebook_is_archived_with_its_real_outcome(scheduled: Airflow) -> None:
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
    given = {path.stem: nbformat.read(path, 4).metadata["pulse"]["parameters"] for path in kept}
    whole = {"feed": given["extract_feed.1"]["run"], "messages": given["extract_messages.1"]["run"]}
    assert given["transform.1"]["extracts"] == given["load.1"]["extracts"] == whole
    assert given["load.1"]["run"] == given["transform.1"]["run"]


def test_what_a_notebook_prints_is_in_the_tasks_log(scheduled: Airflow) -> None:
    log = next(scheduled.home.glob("logs/dag_id=etl/run_id=scheduled*/task_id=extract_feed/attempt=1.log")).read_text()
    printed = next(line for line in log.splitlines() if "rows written" in line)
    assert log.index(printed) < log.index("extract_feed succeeded in")
    assert "Passed unknown parameter" not in log


@pytest.mark.parametrize(("ago", "days"), [(1, 1), pytest.param(3, 2, marks=pytest.mark.prove)])
def test_a_report_waits_without_a_slot_until_a_reverse_backfill_publishes_its_day(
    scheduled: Airflow, ago: int, days: int
) -> None:
    newest = date.fromisoformat(scheduled.db.value("select toString(max(event_date)) from daily_metrics"))
    first = newest - timedelta(days=ago)
    last = first + timedelta(days=days - 1)
    scheduled.switch_on("daily_report")
    run, conf = f"early_{days}", json.dumps({"event_date": str(first)})
    scheduled.command("dags", "trigger", "daily_report", "--run-id", run, "--conf", conf)
    gate = "select state from task_instance where run_id = ? and task_id = 'wait_for_day'"
    scheduled.wait(lambda: scheduled.query(gate, run) == [("deferred",)], "the gate")
    before = len(scheduled.states("backfill"))
    scheduled.command(
        "backfill", "create", "--dag-id", "etl", "--from-date", str(first), "--to-date", f"{last}T23:59:59",
        "--max-active-runs", "2", "--run-backwards", "--reprocess-behavior", "completed",
    )  # fmt: skip

    def over() -> bool:
        states = scheduled.states("backfill")
        return len(states) >= before + days and all(state in ("success", "failed") for state in states)

    scheduled.wait(over, "the backfill")
    assert set(scheduled.states("backfill")) == {"success"}
    for each in {first, last}:
        _is_what_happened(scheduled, str(each))

    report = "select state from dag_run where run_id = ?"
    scheduled.wait(lambda: scheduled.query(report, run) in ([("success",)], [("failed",)]), "the report's run")
    assert scheduled.query(report, run) == [("success",)], scheduled.log()
    (sent,) = [each for each in scheduled.chats.messages(scheduled.readers) if f"{first:%-d %B %Y}" in each["text"]]
    assert sent["photo"]
    users = scheduled.db.value("select app_users from daily_metrics where event_date = {day:Date}", day=first)
    assert f"{users:,}" in sent["text"]


@pytest.mark.prove
def test_a_day_from_the_trigger_form_is_computed_again(scheduled: Airflow) -> None:
    day = str(scheduled.db.value("select toString(max(event_date)) from daily_metrics"))
    published = "select * from dimension_activity where event_date = {day:Date} order by all"
    before = scheduled.db.read(published, day=day)
    scheduled.command("dags", "trigger", "etl", "--conf", json.dumps({"event_date": day}))
    scheduled.wait(lambda: scheduled.states("manual") in (["success"], ["failed"]), "the triggered run")
    assert scheduled.states("manual") == ["success"]
    assert scheduled.db.read(published, day=day).equals(before)
    _is_what_happened(scheduled, day)


@pytest.mark.prove  # dags/test_restating_dag.py runs each of these DAGs in one process
def test_the_scheduler_computes_a_changed_day_again_and_corrects_its_message(scheduled: Airflow) -> None:
    day = date.fromisoformat(scheduled.db.value("select toString(max(event_date)) from daily_metrics"))
    conf = {"event_date": str(day)}

    def run(dag: str, name: str, **more: object) -> None:
        scheduled.command("dags", "trigger", dag, "--run-id", name, "--conf", json.dumps({**conf, **more}))
        ended = "select state from dag_run where run_id = ? and state in ('success', 'failed')"
        scheduled.wait(lambda: bool(scheduled.query(ended, name)), f"the end of {name}")
        assert scheduled.query(ended, name) == [("success",)], scheduled.log()

    def again() -> list[tuple[str, ...]]:
        asked = "select dag_id, state, conf from dag_run where run_id like 'restate__%' order by dag_id"
        return scheduled.query(asked)

    for dag in ("daily_report", "restate"):
        scheduled.switch_on(dag)
    run("daily_report", "before")
    run("restate", "quiet_night", days=2)
    assert again() == []

    actions = f"{scheduled.source}.feed_actions"
    of_the_day = "toDate(time, {zone:String}) = {day:Date} and os = 'Android' and toHour(time, {zone:String}) >= 21"
    scheduled.db.execute(
        f"insert into {actions} select * replace (time + 1 as time) from {actions} where {of_the_day}",  # noqa: S608
        zone=scheduled.db.zone.key,
        day=day,
    )
    run("restate", "night", days=2)
    assert [(dag, state) for dag, state, _ in again()] == [("daily_report", "success"), ("etl", "success")]
    assert all(str(day) in conf for _, _, conf in again())
    (corrected,) = [each for each in scheduled.chats.messages(scheduled.readers) if f"{day:%-d %B %Y}" in each["text"]]
    assert corrected["edited"]
    assert re.search(r"The source has changed since: \+[\d.]+%: late Android events of 21:00–", corrected["text"])
    _is_what_happened(scheduled, str(day))
    run("restate", "night_after", days=2)
    assert len(again()) == 2


def test_the_trigger_form_refuses_a_future_day(scheduled: Airflow) -> None:
    ahead = str(scheduled.yesterday + timedelta(days=30))
    conf = json.dumps({"event_date": ahead})
    done = scheduled.try_command("dags", "trigger", "etl", "--run-id", "ahead", "--conf", conf)
    assert done.returncode != 0
    assert f"'{ahead}' is not a 'day that has ended'" in done.stdout + done.stderr
    assert scheduled.query("select state from dag_run where run_id = 'ahead'") == []


@pytest.mark.prove  # test_telling.py tests it without a server
def test_an_unknown_parameter_is_refused_in_the_last_lines_of_the_log(scheduled: Airflow) -> None:
    conf = json.dumps({"event_dat": str(scheduled.yesterday)})
    scheduled.command("dags", "trigger", "etl", "--run-id", "wrong", "--conf", conf)

    def over() -> bool:
        return scheduled.query("select state from dag_run where run_id = 'wrong'") == [("failed",)]

    scheduled.wait(over, "the run with a wrong key")
    log = next(scheduled.home.glob("logs/dag_id=etl/run_id=wrong/task_id=extract_feed/attempt=1.log")).read_text()
    assert "etl has no parameter 'event_dat': did you mean 'event_date'?" in "".join(log.splitlines()[-3:])
    tries = scheduled.query("select try_number from task_instance where run_id = 'wrong' and task_id = 'extract_feed'")
    assert tries == [(1,)]  # trying again would not help


def _kill_in_the_last_try(airflow: Airflow, dag: str, task: str, conf: dict[str, str]) -> str:
    """Trigger a run, kill one of its tasks with SIGKILL, and wait for the run to end. Returns the run's id."""
    run = f"killed_{dag}"
    airflow.switch_on(dag)
    airflow.command("dags", "trigger", dag, "--run-id", run, "--conf", json.dumps(conf))
    running = "select pid from task_instance where run_id = ? and task_id = ? and state = 'running' and pid is not null"
    airflow.wait(lambda: bool(airflow.query(running, run, task)), f"{task} of {run}")
    if notebook := NOTEBOOKS.get(task):
        begun = f"{dag}/*/*{run}*/{notebook}.1.ipynb"
        airflow.wait(lambda: bool(list(airflow.archive.glob(begun))), f"the notebook of {run}")
    ((pid,),) = airflow.query(running, run, task)
    os.kill(int(pid), signal.SIGKILL)
    ended = "select state from dag_run where run_id = ? and state in ('success', 'failed')"
    airflow.wait(lambda: bool(airflow.query(ended, run)), f"the end of {run}")
    assert airflow.query(ended, run) == [("failed",)]
    assert airflow.query("select try_number from task_instance where run_id = ? and task_id = ?", run, task) == [(1,)]
    return run


NOTEBOOKS = {name: name for name in ("extract_feed", "daily_report", "live_metrics", "anomalies")}
"""The tasks that run a notebook, with its name."""


def _is_told(airflow: Airflow, dag: str, task: str, run: str) -> None:
    """Check that the alert chat got one message, and that the archive lists the attempt as killed, not as running."""
    on_call = airflow.environment["TELEGRAM_ALERT_CHATS"]
    told = [text for text in airflow.chats.texts(on_call) if text.startswith(f"{dag}.{task} failed")]
    assert len(told) == 1
    assert "killed before it could say why" in told[0]
    if notebook := NOTEBOOKS.get(task):
        (kept,) = airflow.archive.glob(f"{dag}/*/*{run}*/{notebook}.1.ipynb")
        assert nbformat.read(kept, as_version=4).metadata["pulse"]["outcome"] == "killed"
    assert proof.verify(airflow.archive).problems == []


def test_a_task_killed_in_its_last_try_is_reported(scheduled: Airflow) -> None:
    day = str(scheduled.yesterday - timedelta(days=3))
    run = _kill_in_the_last_try(scheduled, "etl", "extract_feed", {"event_date": day})
    _is_told(scheduled, "etl", "extract_feed", run)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("dag", "task"),
    [
        ("daily_report", "daily_report"),
        ("live_metrics", "live_metrics"),
        ("monitoring", "anomalies"),
        ("retention", "verify"),
    ],
)
def test_a_task_of_any_dag_killed_in_its_last_try_is_reported(scheduled: Airflow, dag: str, task: str) -> None:
    published = str(scheduled.db.value("select toString(max(event_date)) from daily_metrics"))
    run = _kill_in_the_last_try(scheduled, dag, task, {"event_date": published} if dag == "daily_report" else {})
    _is_told(scheduled, dag, task, run)


# --- the archive, as people use it -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(scheduled: Airflow, browser: Browser) -> Iterator[Page]:
    """A browser page that is logged in to Airflow."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{scheduled.url}/archive/index.html?dag=etl")
    assert "/auth/login" in page.url  # nobody sees the archive without the login
    (password,) = json.loads((scheduled.home / "simple_auth_manager_passwords.json.generated").read_text()).values()
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(f"{scheduled.url}/archive/index.html?dag=etl")
    yield page
    page.close()


@pytest.mark.prove
def test_airflows_pages_show_the_projects_time_zone_until_a_reader_chooses_another(
    scheduled: Airflow, page: Page
) -> None:
    page.goto(f"{scheduled.url}/dags/etl/runs")
    assert page.evaluate("localStorage.getItem('timezone')") == f'"{settings.load().timezone}"'
    began = scheduled.query("select start_date from dag_run where run_type = 'scheduled' and dag_id = 'etl'")[0][0]
    local = datetime.fromisoformat(began[:19]).replace(tzinfo=UTC).astimezone(settings.load().zone)
    page.get_by_text(f"{local:%Y-%m-%d %H:%M:%S}").first.wait_for()
    page.evaluate("localStorage.setItem('timezone', '\"UTC\"')")
    page.goto(f"{scheduled.url}/dags/etl/runs")
    assert page.evaluate("localStorage.getItem('timezone')") == '"UTC"'
    page.evaluate(f"localStorage.setItem('timezone', '\"{settings.load().timezone}\"')")


def _raw(airflow: Airflow, path: str, page: "Page | None" = None, accept: str = "*/*") -> tuple[int, str]:
    """Request a path without a client normalizing it, with the page's login if given. Returns the status and body."""
    headers = {"Accept": accept}
    if page:
        headers["Cookie"] = "; ".join(f"{each['name']}={each['value']}" for each in page.context.cookies())
    connection = http.client.HTTPConnection(airflow.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _loads(airflow: Airflow) -> list[str]:
    """Returns the archived loads, earliest event date first."""
    return sorted(path.relative_to(airflow.archive).as_posix() for path in airflow.archive.glob("etl/*/*/load.1.ipynb"))


def test_nobody_sees_the_archive_without_a_login(scheduled: Airflow) -> None:
    place = _loads(scheduled)[0]
    for path in ("", "index.html", f"run/{place}", f"notebook/{place}", "compare.html", "task?dag=etl&run_id=x&task=y"):
        status, said = _raw(scheduled, f"/archive/{path}")
        assert (status, said) == (401, "Not authenticated")
        assert _raw(scheduled, f"/archive/{path}", accept="text/html")[0] == 307
    for token in ("nonsense", ""):
        connection = http.client.HTTPConnection(scheduled.url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/archive/index.html", headers={"Authorization": f"Bearer {token}"})
        assert connection.getresponse().status in (401, 403)
        connection.close()


def test_a_days_load_can_be_found_opened_and_compared_with_the_day_before(scheduled: Airflow, page: Page) -> None:
    before, place = _loads(scheduled)[-2:]
    day, day_before = place.split("/")[1], before.split("/")[1]
    page.goto(scheduled.url)
    page.get_by_role("link", name="Archive").click()
    archive = page.frame_locator("iframe")
    archive.get_by_label("Notebook").select_option("load")
    archive.get_by_label("Event date from").fill(day)
    archive.get_by_role("button", name="Show").click()
    archive.get_by_text("1 run", exact=True).wait_for()
    archive.get_by_role("link", name="Load").click()
    archive.get_by_role("heading", name="Check: the totals agree").wait_for()

    numbers = {
        date: scheduled.db.read("select * from daily_metrics where event_date = {day:Date}", day=date).loc[0]
        for date in (day, day_before)
    }
    told = archive.get_by_label("key numbers").inner_text()
    for name in ("app_users", "views", "messages_sent"):
        assert re.search(rf"{numbers[day][name]:,}\s+{name}", told)
    expect(archive.get_by_text("as kept")).to_be_visible()
    commit = nbformat.read(scheduled.archive / place, as_version=4).metadata["pulse"]["commit"]
    expect(archive.get_by_text(commit)).to_be_visible()
    expect(archive.locator("article table").first).to_be_visible()
    expect(archive.locator("article .highlight").first).to_be_hidden()  # code is folded
    archive.locator("article summary").first.click()
    expect(archive.get_by_text("an ISO date such as").first).to_be_visible()

    archive.get_by_role("link", name="Compare with").click()
    verdict = archive.locator(".verdict").inner_text()
    assert verdict.startswith("Same as ")
    assert f"event_date {day_before} → {day}" in verdict
    for name in ("app_users", "views", "messages_sent"):
        was, now = int(numbers[day_before][name]), int(numbers[day][name])
        cells = archive.locator("table.numbers tr", has_text=name).locator("td").all_inner_texts()
        change = [f"{now - was:+,}", f"{100 * (now - was) / was:+.1f}%"] if now != was else ["same", ""]
        shown = [f"{was:,}", f"{now:,}", *change]
        assert cells == [text.replace("-", "−") for text in shown]
    expect(archive.get_by_text("The same in every cell.")).to_be_visible()


def test_a_task_links_to_its_notebook_and_a_message_to_its_run(scheduled: Airflow, page: Page) -> None:
    ((run_id,),) = scheduled.query("select run_id from dag_run where dag_id = 'etl' and run_type = 'scheduled'")
    page.goto(f"{scheduled.url}/dags/etl/runs/{quote(run_id)}/tasks/load/details")
    page.get_by_role("link", name="Executed notebook").click()
    page.get_by_role("heading", name="Check: the totals agree").wait_for()
    expect(page.get_by_text(run_id)).to_be_visible()

    # Between 05:00 and 11:00 the scheduler's own report is about the same day; the one that was first sent the message.
    (early,) = scheduled.archive.glob("daily_report/*/early_1_*/daily_report.1.ipynb")
    day = early.parent.parent.name
    reports = [digest(path.read_bytes())[:10] for path in early.parent.parent.glob("*/daily_report.1.ipynb")]
    messages = scheduled.chats.messages(scheduled.readers)
    (sent,) = [each for each in messages if any(report in each["text"] for report in reports)]
    page.goto(sent["entities"][-1]["url"])
    expect(page.get_by_role("heading", name="Daily report").first).to_be_visible()
    expect(page.get_by_text(f"message {sent['id']}")).to_be_visible()
    assert page.locator("article img").first.evaluate("image => image.naturalWidth") > 500
    assert day in page.title()

    # One click leads to the run that published its numbers, another to its extract, and another back.
    published = page.get_by_label("made from").get_by_role("link", name="Load").first
    published.click()
    page.get_by_role("heading", name="Check: the totals agree").wait_for()
    assert day in page.title()
    expect(page.get_by_label("used by").get_by_role("link", name="Daily report").first).to_be_visible()
    page.get_by_role("link", name="Extract the feed").click()
    expect(page.get_by_role("heading", name="Extract the feed").first).to_be_visible()
    page.get_by_label("used by").get_by_role("link", name="Daily report").first.click()
    expect(page.get_by_role("heading", name="Daily report").first).to_be_visible()


HOSTILE = """<script>document.title='owned'</script><img src=x onerror="document.title='owned'">
<svg onload="document.title='owned'"></svg><iframe srcdoc="<script>parent.document.title='owned'</script>"></iframe>
<a href="javascript:document.title='owned'">a link</a><form action="/auth/logout"><button>Log in again</button></form>
<style>.page-top { display:none }</style><div class="page-top head" style="position:fixed;inset:0">over all of it</div>
<img src="https://evil.example/pixel.png"><link rel=stylesheet href="https://evil.example/a.css"><base href="https://evil.example">
<meta http-equiv=refresh content="0;url=https://evil.example"><object data="https://evil.example/o"></object>
<table><tr><td background="https://evil.example/b.png">a table</td></tr></table>"""


HARMFUL = "iframe, object, embed, base, meta[http-equiv=refresh], link[rel=stylesheet]"


def test_a_hostile_notebook_can_do_nothing_in_its_page(scheduled: Airflow, page: Page, tmp_path: Path) -> None:
    """It has scripts, frames, forms, styles and external pictures wherever a notebook can have them."""
    node = nbformat.read(scheduled.archive / _loads(scheduled)[0], as_version=4)
    data = {
        "text/html": HOSTILE, "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'>{HOSTILE}</svg>",
        "application/javascript": "document.title='owned'", "text/markdown": HOSTILE, "text/latex": HOSTILE,
    }  # fmt: skip
    shown = [nbformat.v4.new_output("display_data", {kind: content}) for kind, content in data.items()]
    shown += [
        nbformat.v4.new_output("stream", text=HOSTILE),
        nbformat.v4.new_output("error", ename="E", evalue=HOSTILE, traceback=[HOSTILE]),
        nbformat.v4.new_output("display_data", {"image/png": 'x"><script>document.title="owned"</script>'}),
        nbformat.v4.new_output("display_data", {"application/scrapbook.scrap.json+json": {"name": HOSTILE, "data": 1}}),
    ]
    node.cells = [
        nbformat.v4.new_markdown_cell(f"# {HOSTILE}"),
        nbformat.v4.new_raw_cell(HOSTILE),
        nbformat.v4.new_code_cell(HOSTILE, outputs=shown),
    ]
    node.metadata["pulse"].update(
        outcome="succeeded", parameters={HOSTILE: HOSTILE}, commit=HOSTILE, host=HOSTILE, started_by=HOSTILE,
        error={"cell": HOSTILE, "message": HOSTILE}, queries=[{"query_id": HOSTILE, "seconds": HOSTILE}],
    )  # fmt: skip
    paths = ["hostile/2026-11-01/run/hostile.1.ipynb", "hostile/2026-11-02/run/hostile.1.ipynb"]
    for place in paths:
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(nbformat.writes(node))
        ended = {**manifest.ending("succeeded", (tmp_path / place).read_bytes()), "path": place}
        manifest.append(tmp_path, {"what": "begun", "path": place}, ended)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    pair = "&".join(f"{side}={place}" for side, place in zip(("left", "right"), paths, strict=True))
    addresses = [f"run/{paths[0].removesuffix('.ipynb')}.html", f"compare.html?{pair}", "index.html?dag=hostile"]
    with scheduled.showing(tmp_path):
        for address in addresses:
            page.goto(f"{scheduled.url}/archive/{address}")
            page.wait_for_timeout(200)
            assert "owned" not in page.title().split("<")[0]
            assert page.evaluate("document.title") != "owned"
            expect(page.locator(HARMFUL)).to_have_count(0)
            assert page.locator("script").all_text_contents() == [(TEMPLATES / "keys.js").read_text()]
            expect(page.locator("style")).to_have_count(1)
            forms = page.locator("form").evaluate_all("forms => forms.map(form => form.className)")
            assert set(forms) <= {"filter", "compare-with"}
            expect(page.locator(".page-top")).to_be_visible()
    assert [url for url in asked if not url.startswith((scheduled.url, "data:"))] == []
    with pytest.raises(Exception, match="Content Security Policy"):
        page.add_script_tag(content="document.title = 'owned'")


def test_no_address_reaches_a_file_outside_the_archive(scheduled: Airflow, page: Page) -> None:
    secret = scheduled.home / "outside.1.ipynb"
    secret.write_text(json.dumps({**nbformat.v4.new_notebook(), "secret": "outside the archive"}))
    ups = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "....//", "%252e%252e%252f", "..%00/", "etl/../../"]
    names = [f"{up}outside.1.ipynb" for up in ups]
    names += [quote(str(secret), safe=""), f"/{secret}", "manifest.jsonl", "index.sqlite", "etl", ""]
    for name in names:
        both = f"compare.html?left={name}&right={name}"
        for address in (f"run/{name}", f"run/{name}.html", f"notebook/{name}", both):
            status, said = _raw(scheduled, f"/archive/{address}", page)
            assert (status, "Not found" in said, "outside the archive" in said) == (404, True, False), address
    for number in ("9" * 20, "9" * 5000, "-1", "x"):
        assert _raw(scheduled, f"/archive/index.html?page={number}", page)[0] == 200
    place = _loads(scheduled)[0]
    assert json.loads(_raw(scheduled, f"/archive/notebook/{place}", page)[1])["nbformat"] == 4  # one inside is served


def test_the_page_of_a_changed_notebook_says_that_it_was_changed(scheduled: Airflow, page: Page) -> None:
    place = _loads(scheduled)[0]
    verify = ["pulse", "archive", "verify"]
    done = subprocess.run(verify, env=scheduled.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    path = scheduled.archive / place
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"app_users"', b'"app users"'))
    try:
        page.goto(f"{scheduled.url}/archive/run/{place.removesuffix('.ipynb')}.html")
        expect(page.get_by_text("Changed since it was kept: do not trust it.")).to_be_visible()
        done = subprocess.run(verify, env=scheduled.environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"{place}: changed (it ended on " in done.stderr
    finally:
        path.write_bytes(kept)


def test_long_lists_of_runs_are_split_into_pages(scheduled: Airflow, page: Page, tmp_path: Path) -> None:
    fill = [sys.executable, "-m", "benchmarks.archive", "--runs", "1000", "--into", str(tmp_path / "many")]
    subprocess.run(fill, cwd=settings.ROOT, check=True)
    assert index.rebuild(tmp_path / "many") == 1_000
    with scheduled.showing(tmp_path / "many"):
        for address in ("index.html", "index.html?outcome=not+succeeded", "index.html?text=far+below&page=1"):
            page.goto(f"{scheduled.url}/archive/{address}")
            assert page.locator(".run").count() > 5
        page.goto(f"{scheduled.url}/archive/index.html")
        expect(page.get_by_text("1,000 runs")).to_be_visible()
        page.get_by_role("link", name="earlier").press("Enter")  # see test_archive_site.py
        expect(page.get_by_text("page 2 of 5", exact=True)).to_be_visible()


@pytest.mark.prove
def test_the_static_site_opens_from_disk_and_its_filters_work(
    scheduled: Airflow, browser: Browser, tmp_path: Path
) -> None:
    # Copy it first, since the scheduler keeps writing to it.
    shutil.copytree(scheduled.archive, tmp_path / "archive", ignore=shutil.ignore_patterns(".*", "index.sqlite*"))
    copied = {**scheduled.environment, "PULSE_OUTPUT": str(tmp_path / "archive")}
    write = ["pulse", "archive", "site", str(tmp_path / "site")]
    subprocess.run(write, env=copied, check=True)
    page = browser.new_page()
    page.goto((tmp_path / "site" / "index.html").as_uri())
    count = len(list((tmp_path / "archive").rglob("*.ipynb")))
    shown = page.locator(".run:visible")
    assert shown.count() >= count
    days = [place.split("/")[1] for place in _loads(scheduled)]
    loads = days.count(days[-1])  # two if another test computed the day again
    page.get_by_label("Notebook").select_option("load")
    page.get_by_label("Event date from").fill(days[-1])
    page.get_by_text("1 run" if loads == 1 else f"{loads} runs", exact=True).wait_for()
    expect(shown).to_have_count(loads)
    shown.first.get_by_role("link", name="Load").click()
    expect(page.get_by_role("heading", name="Check: the totals agree")).to_be_visible()
    page.get_by_role("link", name="Compare with").click()
    assert page.locator(".verdict").inner_text().startswith("Same as ")
    page.get_by_role("link", name="Archive").click()
    expect(page).to_have_title("Archive")
    page.close()
    again = subprocess.run(write, env=copied, capture_output=True, text=True)
    assert ", 0 of them new or changed:" in again.stdout
    wrong = subprocess.run(["pulse", "archive", "site", str(scheduled.home)], capture_output=True, text=True)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)


def _is_what_happened(airflow: Airflow, day: str) -> None:
    """Check that the published day matches the source, counted in another way."""
    start, end = settings.day_bounds(date.fromisoformat(day), airflow.db.zone)
    source = airflow.db.read(
        """
        select
            (select uniqExact(user_id) from {app:Identifier}.feed_actions
                where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}) as feed_users,
            (select countIf(action = 'like') from {app:Identifier}.feed_actions
                where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}) as likes,
            (select count() from {app:Identifier}.message_actions
                where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}) as messages_sent
        """,
        app=airflow.source,
        start=start,
        end=end,
    ).loc[0]
    published = airflow.db.read("select * from daily_metrics where event_date = {day:Date}", day=day)
    assert len(published) == 1
    for name in source.index:
        assert published[name].iloc[0] == source[name] > 0
