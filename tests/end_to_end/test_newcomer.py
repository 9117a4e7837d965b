"""Every command in the README and the documentation works in a fresh copy of the project with a clean environment."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from newcomer import Home

from pulse import settings

ROOT = settings.ROOT
PAGES = [
    ROOT / "README.md",
    ROOT / "README.ru.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not {"generated", "_build"} & {*page.parts}),
]


def _commands() -> list[str]:
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def _for_a_day(command: str, day: str) -> str:
    """A command of a page, for another day: pages name several, and the sandbox's last one is as good for all."""
    return re.sub(r"\d{4}-\d\d-\d\d|DAY", day, command)


# Commands that never end by themselves, or that are tested elsewhere: where each of them is tested.
ELSEWHERE = {
    "make test": "this run",
    "make run": "test_make_run_shows_yesterday",
    "pulse sandbox run -- pulse daily": "test_make_run_shows_yesterday",  # `make run` runs it
    "make up": "test_make_up_serves_airflow_and_todays_events_arrive",  # and `pulse airflow`: test_airflow_watched.py
    "make notebook": "test_make_notebook_serves_the_notebooks",
    "make superset": "test_make_superset_serves_the_dashboard",
    "make bench": "test_make_bench_measures",
    "make docs": "unit/test_docs.py",
    "pulse dashboards superset": "dashboards/test_superset.py",
    "pulse dashboards redash": "dashboards/test_redash.py",
    "pulse airflow backfill": "test_airflow.py",
    "pulse archive show": "dags/test_sending.py",
    "pre-commit install": "test_the_hooks_pass",
}


def _is_run(command: str) -> bool:
    return not command.startswith(tuple(ELSEWHERE)) and command != "make lint"


@pytest.mark.not_across("00:00", seconds=180)  # otherwise the sandbox is filled up to a different yesterday
def test_make_run_shows_yesterday(home: Home) -> None:
    said = home.type("make run", 600)
    yesterday = settings.load().event_day("yesterday")
    assert f"daily_metrics, {yesterday:%A %d %B %Y}" in said
    assert "Android" in said
    assert max(len(line) for line in said.splitlines() if line.startswith(" ")) < 160  # a long value is cut
    assert "succeeded" in said
    assert "Traceback" not in said
    kept = list((home.root / "output" / "etl" / str(yesterday)).glob("*/*.1.ipynb"))
    assert len(kept) == 4
    assert str(home.root / "output") in said
    page = home.root / ".sandbox" / "telegram" / "chat.html"
    assert str(page) in said
    report = page.read_text()
    assert f"{yesterday:%A} {yesterday.day} {yesterday:%B %Y}</b>" in report
    last_week, before = yesterday - timedelta(days=7), yesterday - timedelta(days=1)
    assert f"vs {last_week:%a} {last_week.day} · {before:%a} {before.day}\n" in report  # so there is a week to compare
    assert "No data" not in report
    assert list(page.parent.glob("photos/*.png"))


@pytest.mark.parametrize("service", ["clickhouse", "telegram"])
def test_a_chosen_port_in_use_is_reported_in_one_sentence(home: Home, service: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = f"pulse sandbox run --{service}-port {port} -- true"
        own = "" if service == "clickhouse" else "CLICKHOUSE_URL=http://somebody:nothing-here@127.0.0.1:9 "
        said = home.type(f". .venv/bin/activate && ! {own}{command}")
    name = {"clickhouse": "ClickHouse", "telegram": "Telegram"}[service]
    assert said == (
        f"The {name} sandbox cannot listen on port {port} (Address already in use): "
        "stop what uses it, or give another port.\n"
    )


class TestPages:
    """The commands on the pages, run beside the sandbox as the pages say, with an event date that the sandbox has."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def sandbox(cls, home: Home) -> Iterator[None]:
        """Keep the sandbox running, so that no command has to start it."""
        process = home.start(". .venv/bin/activate && pulse sandbox run -- sleep 1000")
        _wait(lambda: "Telegram chat is at" in home.said(), home)
        yield
        _stop(process)

    @pytest.mark.parametrize("command", dict.fromkeys(_for_a_day(line, "DAY") for line in _commands() if _is_run(line)))
    def test_a_command_works(self, home: Home, command: str) -> None:
        command = _for_a_day(command, str(settings.load().event_day("yesterday")))
        said = home.type(command if command.startswith("make") else f". .venv/bin/activate && {command}")
        assert said or " > " in command

    def test_every_day_that_the_sandbox_has_is_published_in_the_end(self, home: Home) -> None:
        db = home.clickhouse
        _wait(lambda: db.value("select count() from daily_metrics") >= 34, home, 300)


@pytest.mark.prove  # the third Airflow that the tests start
def test_make_up_serves_airflow_and_todays_events_arrive(home: Home) -> None:
    process = home.start("make up")
    try:
        _wait(lambda: "Password for" in home.said(), home)
        *_, address, password = home.said().splitlines()  # the last thing that it prints
        port = int(re.fullmatch(r"Airflow is at http://127\.0\.0\.1:(\d+)", address)[1])  # type: ignore[index]
        assert re.fullmatch(r"Password for user 'admin': \S+", password)
        health = "/api/v2/monitor/health"
        _wait(lambda: _get(port, health).get("scheduler", {}).get("status") == "healthy", home)
        db = home.clickhouse
        today = datetime.now(db.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        arrived = "select count() from app.feed_actions where time >= {today:DateTime64(6)}"
        _wait(lambda: db.value(arrived, today=today) > 0, home)
    finally:
        _stop(process)


def test_make_notebook_serves_the_notebooks(home: Home) -> None:
    process = home.start("BROWSER=true make notebook")
    try:
        address = re.compile(r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab\?")
        _wait(lambda: bool(address.search(home.said())), home)
        port = int(address.search(home.said())[1])  # type: ignore[index]
        _wait(lambda: bool(_get(port, "/api").get("version")), home)
    finally:
        _stop(process)


@pytest.mark.prove  # the third Superset that the tests start
def test_make_superset_serves_the_dashboard(home: Home) -> None:
    process = home.start("make superset")
    try:
        told = re.compile(r"The dashboard is at http://127\.0\.0\.1:(\d+)/superset/dashboard/pulse/ .*password (\S+)\)")
        _wait(lambda: bool(told.search(home.said())), home, 300)
        port, password = told.search(home.said()).groups()  # type: ignore[union-attr]
        assert _get(int(port), "/version")["version_string"].startswith("6.")
        kept = home.root / ".superset" / "admin_password"
        assert kept.read_text() == password
        assert kept.stat().st_mode & 0o077 == 0
    finally:
        _stop(process)


@pytest.mark.prove
@pytest.mark.timeout(1500)  # `sizes` runs 96 notebooks, each in a process of its own
@pytest.mark.parametrize(
    ("benchmark", "measured"),
    [
        ("etl --scale 0.01 --rounds 1", "results of all ways"),
        ("sizes --scale 0.001", "ids as text"),
        ("backfill --days 2", "… with pulse backfill"),
        ("anomalies --scale 0.03", "false alarms per metric-week"),
        ("monitoring --scale 0.02", "a whole run like every other"),
    ],
)
def test_make_bench_measures(home: Home, benchmark: str, measured: str) -> None:
    assert measured in home.type(f"make install && . .venv/bin/activate && python -m benchmarks.{benchmark}", 1200)


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    assert len(_commands()) >= 10
    tests = settings.ROOT / "tests"
    for where in ELSEWHERE.values():
        assert (
            where == "this run"
            or list(tests.rglob(where))
            or [path for path in tests.rglob("test_*.py") if f"def {where}(" in path.read_text()]
        ), f"there is no test {where}"


def _get(port: int, path: str) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()


def _wait(done, home: Home, seconds: float = 180) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, home.said()[-4000:]
        time.sleep(0.5)


def _stop(process: "subprocess.Popen[str]") -> None:
    """Press Ctrl-C as a reader of the README would: the signal goes to the process group that `start` made."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
