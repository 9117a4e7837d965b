"""`pulse airflow` watches what it starts, prints little, listens on this machine only, and stops all of it."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from pulse import settings
from pulse.orchestration.server import CLEAN_LOG
from pulse.publishing.keeping import LOG_DAYS

own_airflow = pytest.mark.prove  # it takes half a minute to start; in `make test`, test_airflow.py starts one


@dataclass
class Watched:
    home: Path
    port: int
    process: "subprocess.Popen[bytes]"

    def said(self) -> str:
        return (self.home / "said.log").read_text()

    def health(self) -> dict[str, dict[str, str]]:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/api/v2/monitor/health", timeout=5) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}

    def wait(self, done: Callable[[], bool], what: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{what} did not happen:\n{self.said()[-4000:]}"
            assert self.process.poll() is None, self.said()[-4000:]
            time.sleep(0.3)

    def parts(self) -> dict[str, int]:
        """Returns the parts' processes, found by the file that each writes to, since Airflow changes their titles."""
        lines = subprocess.run(["ps", "-eo", "pid,ppid,stat"], capture_output=True, text=True).stdout.splitlines()[1:]
        children = [int(pid) for pid, above, state in map(str.split, lines) if int(above) == self.process.pid]
        return {name: pid for pid in children if (name := _writes_to(pid))}


def _writes_to(pid: int) -> str:
    try:
        path = Path(os.readlink(f"/proc/{pid}/fd/1"))
    except OSError:
        return ""
    return path.stem if path.parent.name == "parts" and path.stem != "clean" else ""


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _group(leader: int) -> set[int]:
    """Returns the processes of a group that have not ended."""
    lines = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True).stdout.splitlines()[1:]
    return {int(pid) for pid, group, state in map(str.split, lines) if int(group) == leader and state[0] != "Z"}


@contextmanager
def _running(home: Path) -> Iterator[Watched]:
    """Run `pulse airflow` with its DAGs paused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    ours = {"AIRFLOW_HOME": str(home), "AIRFLOW__API__PORT": str(port), "PULSE_OUTPUT": str(home / "archive")}
    switched_off = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"}
    with (home / "said.log").open("wb") as log:
        process = subprocess.Popen(
            ["pulse", "airflow"], env={**own, **ours, **switched_off}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield Watched(home, port, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A `pulse airflow` that is up."""
    with _running(tmp_path_factory.mktemp("watched")) as started:
        started.wait(lambda: "Password for" in started.said(), "the start")
        yield started


@own_airflow
def test_the_password_is_the_last_line_of_a_short_output(watched: Watched) -> None:
    *_, address, password = watched.said().splitlines()
    assert address == f"Airflow is at http://127.0.0.1:{watched.port}"
    assert re.fullmatch(r"Password for user 'admin': \S{8,}", password)
    assert len(watched.said()) < 2000
    assert watched.health()["scheduler"]["status"] == "healthy"


@own_airflow
def test_only_the_api_server_listens_and_only_on_this_machine(watched: Watched) -> None:
    groups = {pid: _group(pid) for pid in watched.parts().values()}
    ours = set().union(*groups.values())
    listening = set()
    for line in subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines():
        pids = {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
        if pids & ours:
            listening.add(line.split()[3])
    assert listening == {f"127.0.0.1:{watched.port}"}


@own_airflow
def test_there_are_no_more_workers_than_a_laptop_needs(watched: Watched) -> None:
    workers = [words for words in map(_words, _group(watched.parts()["scheduler"])) if "LocalExecutor" in words[0]]
    assert len(workers) == 4


@own_airflow
def test_the_database_waits_for_another_writer(watched: Watched) -> None:
    before = watched.parts()["scheduler"]
    beats = "select latest_heartbeat from job where job_type = 'SchedulerJob' and state = 'running'"
    with closing(sqlite3.connect(watched.home / "airflow.db", timeout=30, isolation_level=None)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
        connection.execute("begin immediate")
        time.sleep(8)  # SQLite's default timeout is five seconds
        connection.execute("rollback")
        (last,) = connection.execute(beats).fetchone()
        watched.wait(lambda: connection.execute(beats).fetchone() != (last,), "another beat of the scheduler", 60)
    assert watched.parts()["scheduler"] == before
    assert "ended" not in watched.said()


@own_airflow
def test_old_rows_are_removed_from_airflows_database(watched: Watched) -> None:
    insert = "insert into log (dttm, event, owner) values (?, 'seen', ?)"
    with closing(sqlite3.connect(watched.home / "airflow.db", timeout=60)) as connection:
        for days in (LOG_DAYS + 2, LOG_DAYS - 2):
            connection.execute(insert, (str(datetime.now(UTC) - timedelta(days=days)), str(days)))
        connection.commit()
        cleaned = watched.home / CLEAN_LOG
        cleaned.touch()
        os.utime(cleaned, times=(time.time() - 3 * 86_400,) * 2)
        left = "select owner from log where event = 'seen'"
        watched.wait(lambda: len(connection.execute(left).fetchall()) < 2, "the cleaning", 120)
        assert connection.execute(left).fetchall() == [(str(LOG_DAYS - 2),)]
    assert "not cleaned" not in watched.said()


@own_airflow
def test_a_part_that_dies_is_restarted_and_its_child_processes_are_gone(watched: Watched) -> None:
    before = watched.parts()
    assert sorted(before) == ["api-server", "dag-processor", "scheduler", "triggerer"]
    for name, pid in before.items():
        left = _group(pid)
        os.kill(pid, signal.SIGKILL)
        watched.wait(lambda: watched.parts().get(name, pid) != pid, f"the restart of {name}", 60)  # noqa: B023
        assert f"Airflow's {name} ended (killed by SIGKILL) and is started again." in watched.said()
        watched.wait(lambda: not left & _group(pid), f"the end of what {name} had started", 20)  # noqa: B023
    watched.wait(
        lambda: (
            all(part.get("status") == "healthy" for part in watched.health().values() if part.get("status"))
            and bool(watched.health())
        ),
        "health",
    )


@own_airflow
def test_a_part_that_hangs_is_killed_and_restarted(watched: Watched) -> None:
    before = watched.parts()["scheduler"]
    os.kill(before, signal.SIGSTOP)
    watched.wait(lambda: watched.parts().get("scheduler", before) != before, "another scheduler", 500)
    assert "Airflow's scheduler has been unhealthy for 300 s and is killed.\n" in watched.said()
    assert "Airflow's scheduler ended (killed by SIGKILL) and is started again.\n" in watched.said()
    watched.wait(lambda: watched.health().get("scheduler", {}).get("status") == "healthy", "its health", 60)


@own_airflow
def test_a_port_in_use_is_reported_in_one_sentence(watched: Watched, tmp_path: Path) -> None:
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__API__PORT": str(watched.port)}
    done = subprocess.run(["pulse", "airflow"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == (
        f"Airflow cannot listen on 127.0.0.1:{watched.port} (Address already in use): stop the program that uses it, "
        "or set AIRFLOW__API__PORT to another port.\n"
    )


@own_airflow
def test_sigterm_stops_all_parts(watched: Watched) -> None:
    groups = set(watched.parts().values())
    watched.process.terminate()
    assert watched.process.wait(60) == 0
    assert all(not _group(group) for group in groups)
    assert watched.said().splitlines()[-1] == "Airflow is stopping."


@own_airflow
def test_no_part_survives_when_pulse_airflow_is_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    with _running(tmp_path_factory.mktemp("killed")) as started:
        started.wait(lambda: "api-server" in started.parts(), "the API server")
        groups = set(started.parts().values())
        started.process.kill()
        started.process.wait()
        deadline = time.monotonic() + 60
        while any(map(_group, groups)):
            assert time.monotonic() < deadline
            time.sleep(0.3)


@contextmanager
def only_its_command(folder: Path, others: str, seconds: int = 0) -> Iterator[dict[str, str]]:
    """Fake the `airflow` command: its API server answers after `seconds`, and its other parts run `others`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = folder / "bin" / "airflow"
    command.parent.mkdir()
    command.write_text(
        "#!/bin/sh\ncase $1 in db) exit 0;; api-server) "
        f"sleep {seconds}; date +%s.%N > {folder}/answers; exec python3 -c 'import http.server, io\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        ' def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"{\\"version\\": 1}")\n'
        f'http.server.HTTPServer(("127.0.0.1", {port}), H).serve_forever()\';; '
        f"*) {others};; esac\n"
    )
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    yield {**os.environ, "PATH": path, "AIRFLOW_HOME": str(folder), "AIRFLOW__API__PORT": str(port)}


def test_a_part_that_keeps_ending_stops_all_parts_with_a_sentence(tmp_path: Path) -> None:
    """For example, when the scheduler cannot read its database."""
    with only_its_command(tmp_path, "echo 'database is locked' >&2; exit 1") as environment:
        done = subprocess.run(["pulse", "airflow"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.search(
        r"^Airflow's \S+ ended \(exit code 1: database is locked\) for the 6th time, so all parts are stopped; see /",
        done.stderr,
    )
    assert len(done.stderr.splitlines()) == 1


def test_parts_start_after_the_api_answers_and_a_busy_api_fails_no_task(tmp_path: Path) -> None:
    others = f"date +%s.%N > {tmp_path}/$1; env > {tmp_path}/$1.env; exit 1"
    with only_its_command(tmp_path, others, seconds=3) as environment:
        for name in [*environment]:
            if "EXECUTION_API" in name:
                del environment[name]  # set for the tests' own Airflow
        subprocess.run(["pulse", "airflow"], env=environment, capture_output=True, timeout=120)
    answers = float((tmp_path / "answers").read_text())
    for part in ("scheduler", "dag-processor", "triggerer"):
        assert float((tmp_path / part).read_text()) > answers
        said = dict(line.partition("=")[::2] for line in (tmp_path / f"{part}.env").read_text().splitlines())
        assert int(said["AIRFLOW__WORKERS__EXECUTION_API_RETRIES"]) > 5  # Airflow's default is 5
        assert float(said["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"]) > 5.0


def test_sigterm_to_the_sandbox_ends_the_processes_it_started(tmp_path: Path) -> None:
    own = {
        "CLICKHOUSE_URL": "http://somebody:nothing-here@127.0.0.1:9",
        "TELEGRAM_BOT_TOKEN": "123:an-own-bot-an-own-bot",
    }
    mark = tmp_path / "mark"
    program = f"trap 'echo ended > {mark}; exit 3' TERM; echo ready > {mark}; while true; do sleep 0.1; done"
    process = subprocess.Popen(
        ["pulse", "sandbox", "run", "--", "sh", "-c", program], env={**os.environ, **own}, cwd=settings.ROOT
    )
    deadline = time.monotonic() + 60
    while not mark.exists() or not mark.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 3
    assert mark.read_text() == "ended\n"
