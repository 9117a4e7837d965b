"""Runs and watches all parts of Airflow on this machine: `pulse airflow`, which `make up` runs.

`airflow standalone` starts the same parts, but goes on silently without a scheduler if that dies. Here a part that ends
is started again, with a sentence on the screen; if it keeps ending, everything is stopped, with a sentence. The API
server starts first and answers before the scheduler starts tasks that need it. The output of the parts goes to files,
so that the address and the password stay the last thing on the screen.

Only the API server listens, and on this machine only. Airflow's log servers, which would listen on all interfaces so
that other machines can read the logs, are off.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from pulse import PulseError
from pulse.publishing.keeping import LOG_DAYS


class _WritingCursor(sqlite3.Cursor):
    """A cursor that takes the write lock before it opens a savepoint.

    In SQLite, a savepoint begins with a read lock. If another process writes before the savepoint does, SQLite refuses
    the savepoint's write at once ("database is locked"), however long the connection's timeout is. Airflow creates the
    runs of a backfill in savepoints, while the scheduler writes all the time.
    """

    def execute(self, sql: str, *parameters: Any) -> Self:
        if sql.startswith("SAVEPOINT") and not self.connection.in_transaction:
            super().execute("BEGIN IMMEDIATE")
        return super().execute(sql, *parameters)


class _WritingConnection(sqlite3.Connection):
    def cursor(self, factory: Any = _WritingCursor) -> Any:
        return super().cursor(factory)


SQLITE = {"timeout": 60, "factory": _WritingConnection}
"""The arguments of Airflow's SQLite connections: wait up to 60 seconds for another process's write."""

PARTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
"""Each part, and the command of Airflow that runs it."""

PORTS = range(8080, 8180)
"""Where Airflow's API server listens unless a port was set: on the first of these that is free."""

START_SECONDS = 180.0
"""How long Airflow may take to be ready."""

STOP_SECONDS = 20.0
"""How long parts may take to end before they are killed."""

API_STOP_SECONDS = 3.0
"""The same for the API server, which threads of its database keep running."""

HUNG_SECONDS = 300.0
"""A part that has been unhealthy for this long hangs."""

MOST_ENDS, WITHIN_SECONDS = 5, 600.0
"""If a part ends more often than this within this time, everything is stopped."""

CLEAN_SECONDS = 24 * 3600.0
"""How often Airflow's database is cleaned."""

CLEAN_LOG = Path("logs", "parts", "clean.log")
"""The log of the last cleaning. Its modification time says when that was."""

MOST_LOG = 20_000_000
"""The size in bytes at which a part's log is rotated."""


class AirflowError(PulseError):
    """Airflow cannot run here, or keeps ending."""


@dataclass
class _Part:
    """A part of Airflow: its process, when it ended in the past, and when it was last healthy (monotonic times)."""

    name: str
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    ends: list[float] = field(default_factory=list)
    healthy: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            # In its own process group, so that its child processes can be killed even after it was.
            self.process = subprocess.Popen(
                ["airflow", *PARTS[self.name]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_end_with_parent,
            )
        self.healthy = time.monotonic()

    def ended(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll() if self.process else None

    def kill(self) -> None:
        """Kill it and its child processes."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1].strip()[:300] if lines else "its log is empty"


def run(home: Path, say: Callable[[str], None]) -> None:
    """Run Airflow until SIGINT or SIGTERM.

    Args:
        home: Airflow's home folder.
        say: shows a sentence on the screen.

    Raises:
        AirflowError: a part cannot be started or keeps ending; all parts are stopped.
    """
    host = os.environ["AIRFLOW__API__HOST"]
    with ExitStack() as stack:
        port = stack.enter_context(_port(host, os.environ.get("AIRFLOW__API__PORT")))
        os.environ["AIRFLOW__API__PORT"] = f"{port}"
        os.environ.setdefault("AIRFLOW__API__BASE_URL", f"http://{host}:{port}")
        home.mkdir(parents=True, exist_ok=True)
        (home / "port").write_text(f"{port}")  # for `pulse doctor`
        _airflow("db", "migrate")
        folder = home / "logs" / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        stop = stack.enter_context(_stopped_by_signal())
        parts = {name: _Part(name, folder / f"{name}.log") for name in PARTS}
        for part in parts.values():
            _rotate(part.log)
        stack.callback(_stop, parts, say)
        say(f"Airflow is starting; the logs of its parts are in {folder}.")
        _Watch(parts, home, host, port, say, stop).until_stopped()


class _Stop:
    """Whether a signal asked to stop."""

    asked = False

    def __call__(self, *_: Any) -> None:
        self.asked = True


@contextmanager
def _stopped_by_signal() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Watch:
    """Starts the parts, and restarts those that end or hang."""

    parts: dict[str, _Part]
    home: Path
    host: str
    port: int
    say: Callable[[str], None]
    stop: _Stop
    cleaning: "subprocess.Popen[bytes] | None" = None

    def until_stopped(self) -> None:
        """Start all parts, show the address when they are ready, and watch them."""
        self.parts["api-server"].start()
        self._wait(lambda: bool(self._ask("/api/v2/version")), "api-server")
        for name, part in self.parts.items():
            if name != "api-server" and not self.stop.asked:
                part.start()
        self._wait(lambda: not self._unhealthy(), "scheduler")
        if not self.stop.asked:
            self.say(self._where())
        looked = time.monotonic()
        while not self.stop.asked:
            self._start_again()
            if time.monotonic() - looked > 30:
                looked = time.monotonic()
                self._end_what_hangs()
                self._clean()
            time.sleep(0.3)

    def _wait(self, done: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.stop.asked and not done():
            self._start_again()
            if time.monotonic() > deadline:
                part = self.parts[name]
                raise AirflowError(
                    f"Airflow's {name} was not ready within {START_SECONDS:g} s; see {part.log} ({part.last_words()})."
                )
            time.sleep(0.3)

    def _start_again(self) -> None:
        for part in self.parts.values():
            code = part.ended()
            if code is None:
                continue
            now = time.monotonic()
            part.ends = [at for at in part.ends if now - at < WITHIN_SECONDS] + [now]
            # The log of a killed part does not say why it ended.
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}: {part.last_words()}"
            how = f"Airflow's {part.name} ended ({why})"
            if len(part.ends) > MOST_ENDS:
                raise AirflowError(f"{how} for the {len(part.ends)}th time, so all parts are stopped; see {part.log}.")
            self.say(f"{how} and is started again.")
            part.kill()
            part.start()

    def _end_what_hangs(self) -> None:
        unhealthy = self._unhealthy()
        for part in self.parts.values():
            if part.name not in unhealthy:
                part.healthy = time.monotonic()
            elif time.monotonic() - part.healthy > HUNG_SECONDS and part.process:
                self.say(f"Airflow's {part.name} has been unhealthy for {HUNG_SECONDS:g} s and is killed.")
                part.kill()

    def _unhealthy(self) -> set[str]:
        """The parts that are not healthy, as the API server reports."""
        health = self._ask("/api/v2/monitor/health")
        if not health:
            return set(self.parts)
        names = {"scheduler": "scheduler", "dag_processor": "dag-processor", "triggerer": "triggerer"}
        return {name for key, name in names.items() if (health.get(key) or {}).get("status") != "healthy"}

    def _clean(self) -> None:
        """Rotate the logs of the parts that have grown too long and, once a day, remove old rows from the database."""
        if self.cleaning and self.cleaning.poll() is None:
            return
        log = self.home / CLEAN_LOG
        if self.cleaning and self.cleaning.poll():
            self.say(f"Airflow's database was not cleaned; see {log}.")
        self.cleaning = None
        for part in self.parts.values():
            if part.log.stat().st_size > MOST_LOG:
                _rotate(part.log)
        if not log.exists():
            log.touch()  # a new database has no old rows
        if time.time() - log.stat().st_mtime > CLEAN_SECONDS:
            self.cleaning = clean(log)

    def _where(self) -> str:
        passwords = self.home / "simple_auth_manager_passwords.json.generated"
        where = f"Airflow is at http://{self.host}:{self.port}"
        with suppress(OSError, ValueError):
            who = json.loads(passwords.read_text())
            return "\n".join([where, *(f"Password for user '{user}': {word}" for user, word in who.items())])
        return where

    def _ask(self, path: str) -> dict[str, Any]:
        connection = HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request("GET", path)
            found = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return found if isinstance(found, dict) else {}


def clean(log: Path) -> "subprocess.Popen[bytes]":
    """Start Airflow's command that removes rows older than `LOG_DAYS` from its database. Returns its process."""
    before = datetime.now(UTC) - timedelta(days=LOG_DAYS)
    command = ["airflow", "db", "clean", "--clean-before-timestamp", before.isoformat(), "--skip-archive", "--yes"]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _end_with_parent() -> None:
    """Make Linux send SIGTERM to this process when its parent is gone, even if the parent was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _airflow(*words: str) -> None:
    done = subprocess.run(["airflow", *words], capture_output=True, text=True)
    if done.returncode:
        raise AirflowError(f"Airflow's database cannot be set up:\n{done.stdout}{done.stderr}")


@contextmanager
def _port(host: str, given: str | None) -> Iterator[int]:
    """Reserve the API server's port for the length of the `with` block: the one given, else the first free one.

    The API server binds it only seconds later. The UDP port of the same number, which nothing uses and only one process
    can bind, keeps it from another `pulse airflow` until then.

    Raises:
        AirflowError: the port that was given is taken, or is not a port.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as claim:
        for port in [given] if given else PORTS:
            try:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((host, int(port)))
                    probe.listen()
                claim.bind((host, int(port)))
                break
            except (OSError, OverflowError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
        else:
            raise AirflowError(
                f"Airflow cannot listen on {host}:{port} ({reason}): stop the program that uses it, or set "
                "AIRFLOW__API__PORT to another port."
            )
        yield int(port)


def _rotate(log: Path) -> None:
    """Move a log's content to a second file. A part that is running continues to write at the beginning of the log."""
    if log.exists():
        shutil.copyfile(log, log.with_suffix(".before.log"))
        os.truncate(log, 0)


def _stop(parts: dict[str, _Part], say: Callable[[str], None]) -> None:
    """Stop all parts with SIGTERM, then SIGKILL; the API server comes last, because ending tasks report to it."""
    others = [part for part in parts.values() if part.process and part.name != "api-server"]
    if any(part.ended() is None for part in parts.values() if part.process):
        say("Airflow is stopping.")
    _end(others, STOP_SECONDS)
    _end([part for part in parts.values() if part.process and part not in others], API_STOP_SECONDS)


def _end(parts: list[_Part], seconds: float) -> None:
    for part in parts:
        if part.ended() is None and part.process:
            part.process.terminate()
    deadline = time.monotonic() + seconds
    for part in parts:
        with suppress(subprocess.TimeoutExpired):
            if part.process:
                part.process.wait(max(0.1, deadline - time.monotonic()))
        part.kill()
