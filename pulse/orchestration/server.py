"""Airflow with all of its parts on this machine, watched: `pulse airflow`, which is what `make up` runs.

`airflow standalone` starts the same parts and goes on when one of them dies: a schedule that nobody keeps, and nobody
who says so. Here a part that ends is started again with a sentence, and where it keeps ending, the whole ends with one.
The API server comes first and answers before the scheduler starts a task that needs it. What the parts say goes to
files, so that the address and the password are the last thing on the screen.

Nothing listens but the API server, on this machine only: the log servers that Airflow opens to the network are for
reading logs of other machines, and stay off.
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
    """A cursor that takes the lock for writing before it opens a savepoint.

    A savepoint of SQLite begins by reading. If another process writes before the savepoint does, SQLite refuses the
    savepoint's write at once ("database is locked"), however long the connection would wait. Airflow creates the runs
    of a backfill in savepoints, beside a scheduler that writes all the time.
    """

    def execute(self, sql: str, *parameters: Any) -> Self:
        if sql.startswith("SAVEPOINT") and not self.connection.in_transaction:
            super().execute("BEGIN IMMEDIATE")
        return super().execute(sql, *parameters)


class _WritingConnection(sqlite3.Connection):
    def cursor(self, factory: Any = _WritingCursor) -> Any:
        return super().cursor(factory)


SQLITE = {"timeout": 60, "factory": _WritingConnection}
"""What Airflow hands to SQLite: to wait so many seconds for another process's write, and not to fail at once."""

PARTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
START_SECONDS, STOP_SECONDS = 180.0, 20.0
LAST_SECONDS = 3.0  # the API server's for the end: threads of its database outlive it
HUNG_SECONDS = 300.0  # a part that says nothing for so long is not busy, it hangs
MOST_ENDS, WITHIN_SECONDS = 5, 600.0  # a part that ends more often than that is not started again
CLEAN_SECONDS = 24 * 3600.0  # how often Airflow's database is cleaned
CLEAN_LOG = Path("logs", "parts", "clean.log")  # of the last cleaning, and when it was
MOST_LOG = 20_000_000  # bytes of what a part says, before it begins anew


class AirflowError(PulseError):
    """Airflow cannot be run here, or keeps ending."""


@dataclass
class _Part:
    """A part of Airflow: its process, and when it ended before."""

    name: str
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    ends: list[float] = field(default_factory=list)
    healthy: float = 0.0

    def start(self) -> None:
        with self.log.open("ab") as log:
            # In a process group of its own, so that what it started ends with it, even when it was killed.
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
        """The exit code, None while it runs."""
        return self.process.poll() if self.process else None

    def kill(self) -> None:
        """End it and all that it started, by force."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        """The last line that it said."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1].strip()[:300] if lines else "it said nothing"


def run(home: Path, say: Callable[[str], None]) -> None:
    """Run Airflow until SIGINT or SIGTERM.

    Args:
        home: AIRFLOW_HOME.
        say: tells the person at the screen.

    Raises:
        AirflowError: a part cannot be started, or keeps ending; all are stopped.
    """
    host, port = os.environ["AIRFLOW__API__HOST"], int(os.environ.get("AIRFLOW__API__PORT", "8080"))
    os.environ.setdefault("AIRFLOW__API__BASE_URL", f"http://{host}:{port}")
    _check_port(host, port)
    _airflow("db", "migrate")
    folder = home / "logs" / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    with _stopped_by_signal() as stop, ExitStack() as stack:
        parts = {name: _Part(name, folder / f"{name}.log") for name in PARTS}
        for part in parts.values():
            _begin_anew(part.log)
        stack.callback(_stop, parts, say)
        say(f"Airflow starts; what its parts say is in {folder}.")
        _Watch(parts, home, host, port, say, stop).until_stopped()


class _Stop:
    """Whether somebody wants the end."""

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
    """Starts the parts, and starts again what ends."""

    parts: dict[str, _Part]
    home: Path
    host: str
    port: int
    say: Callable[[str], None]
    stop: _Stop
    cleaning: "subprocess.Popen[bytes] | None" = None

    def until_stopped(self) -> None:
        """Start all, say where Airflow is once it is there, and watch."""
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
                late = f"Airflow's {name} was not ready within {START_SECONDS:g} s"
                raise AirflowError(f"{late}; {part.log} says why ({part.last_words()}).")
            time.sleep(0.3)

    def _start_again(self) -> None:
        for part in self.parts.values():
            code = part.ended()
            if code is None:
                continue
            now = time.monotonic()
            part.ends = [at for at in part.ends if now - at < WITHIN_SECONDS] + [now]
            # A killed one had nothing to say of it.
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}: {part.last_words()}"
            how = f"Airflow's {part.name} ended ({why})"
            if len(part.ends) > MOST_ENDS:
                raise AirflowError(f"{how} for the {len(part.ends)}th time, so all of it is stopped; see {part.log}.")
            self.say(f"{how}; it is started again.")
            part.kill()
            part.start()

    def _end_what_hangs(self) -> None:
        unhealthy = self._unhealthy()
        for part in self.parts.values():
            if part.name not in unhealthy:
                part.healthy = time.monotonic()
            elif time.monotonic() - part.healthy > HUNG_SECONDS and part.process:
                self.say(f"Airflow's {part.name} has said nothing for {HUNG_SECONDS:g} s; it is ended.")
                part.kill()

    def _unhealthy(self) -> set[str]:
        """The parts that are not as they should be, by what the API server says of them."""
        health = self._ask("/api/v2/monitor/health")
        if not health:
            return set(self.parts)
        names = {"scheduler": "scheduler", "dag_processor": "dag-processor", "triggerer": "triggerer"}
        return {name for key, name in names.items() if (health.get(key) or {}).get("status") != "healthy"}

    def _clean(self) -> None:
        """Have Airflow's database forget what is older than it keeps, once a day, however often Airflow is started."""
        if self.cleaning and self.cleaning.poll() is None:
            return
        log = self.home / CLEAN_LOG
        if self.cleaning and self.cleaning.poll():
            self.say(f"Airflow's database was not cleaned; {log} says why.")
        self.cleaning = None
        for part in self.parts.values():
            if part.log.stat().st_size > MOST_LOG:
                _begin_anew(part.log)
        if not log.exists():
            log.touch()  # a new database holds nothing old
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
    """Begin to clean Airflow's database of what is older than `LOG_DAYS`, with Airflow's own command."""
    before = datetime.now(UTC) - timedelta(days=LOG_DAYS)
    command = ["airflow", "db", "clean", "--clean-before-timestamp", before.isoformat(), "--skip-archive", "--yes"]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _end_with_parent() -> None:
    """Have Linux end this process, as by SIGTERM, when the one that started it is gone, even killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _airflow(*words: str) -> None:
    done = subprocess.run(["airflow", *words], capture_output=True, text=True)
    if done.returncode:
        raise AirflowError(f"Airflow's database cannot be set up:\n{done.stdout}{done.stderr}")


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AirflowError(
                f"Airflow cannot listen on {host}:{port} ({error.strerror}): stop what uses it, or set "
                "AIRFLOW__API__PORT to another."
            ) from None


def _begin_anew(log: Path) -> None:
    """Keep what a part said until now beside its log, which begins anew; a part goes on writing at its beginning."""
    if log.exists():
        shutil.copyfile(log, log.with_suffix(".before.log"))
        os.truncate(log, 0)


def _stop(parts: dict[str, _Part], say: Callable[[str], None]) -> None:
    """End all parts: asked first, then by force; the API server last, to which tasks that end say so."""
    others = [part for part in parts.values() if part.process and part.name != "api-server"]
    if any(part.ended() is None for part in parts.values() if part.process):
        say("Airflow stops.")
    _end(others, STOP_SECONDS)
    _end([part for part in parts.values() if part.process and part not in others], LAST_SECONDS)


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
