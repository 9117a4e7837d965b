"""Runs a stand-in as a separate process: starts it, waits until it is ready, and stops it.

A stand-in's module runs with `python -m <module> --data D` (`main`). It reserves its folder and a port (`taken`): the
one given with `--port P`, else the one that it had last time, or a free one if that is taken. It writes the port into
its folder, where others find it (`settings.last_port`). When it is ready, it prints one line of JSON about itself
(`announce`). If it cannot start, it prints one sentence to stderr and exits with 2. With `--until-stdin-closes` it
stops as soon as the process that started it has gone (`stop_with_parent`).
"""

import argparse
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.request import ProxyHandler, build_opener

from pulse import PulseError, settings
from pulse_sandbox import SandboxError

HOST = "127.0.0.1"
START_SECONDS, STOP_SECONDS = 60.0, 10.0

About = dict[str, Any]


@contextmanager
def running(module: str, data: Path, port: int | None = None) -> Iterator[About]:
    """Run a stand-in for the length of the `with` block, whose value is what the stand-in announced.

    Raises:
        SandboxError: it did not start; the text is the sentence that it printed.
    """
    with started(module, [sys.executable, "-m", module], data, port) as about:
        yield about


@contextmanager
def started(
    name: str, program: list[str], data: Path, port: int | None, seconds: float = START_SECONDS
) -> Iterator[About]:
    """Like `running`, for any program that follows the same rules and is ready within some seconds."""
    command = [*program, "--data", str(data), "--until-stdin-closes"]
    if port is not None:
        command += ["--port", str(port)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=complaints) as process,
    ):
        try:
            yield _announced(name, process, complaints, seconds)
        finally:
            _stop(process)


def identity(port: int) -> About | None:
    """What the stand-in on this port says about itself at `/sandbox`; None if nothing or something else answers."""
    # Requests to a loopback address must not go through a proxy from the environment.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/sandbox", timeout=5) as answer:
            found = json.load(answer)
    except (OSError, HTTPException, ValueError):
        return None
    return found if isinstance(found, dict) else None


# --- in the stand-in's own process -----------------------------------------------------------------------------------


def main(module: str, serve: Callable[[Path, int | None], None]) -> int:
    """The command line of a stand-in: serve until stopped. Returns 2, after a sentence, if it cannot start."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="A stand-in, on loopback.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder; created if missing")
    parser.add_argument("--port", type=int, help="on loopback (0: a free one; default: as last time, or a free one)")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the starting process is gone")
    options = parser.parse_args()
    if options.until_stdin_closes:
        stop_with_parent()
    try:
        serve(options.data, options.port)
    except PulseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


@contextmanager
def taken(name: str, data: Path, port: int | None) -> Iterator[socket.socket]:
    """Reserve the data folder and the port for this process, so that of two that start at once one fails here.

    The operating system frees both however the process ends. The value of the `with` block is the listening socket.

    Raises:
        SandboxError: the folder or the port is in use, or cannot be used.
    """
    with _locked(name, data), _listening(name, data, port) as listener:
        (data / "port").write_text(f"{listener.getsockname()[1]}")
        yield listener


def announce(about: About) -> None:
    """Tell the process that started this one that the stand-in is ready."""
    print(json.dumps(about), flush=True)


def stop_with_parent() -> None:
    """Send SIGTERM to this process once its standard input closes, which happens when its parent has gone."""

    def wait() -> None:
        # sys.stdin has a lock: if this thread held it at exit, the interpreter would abort.
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _locked(name: str, data: Path) -> Iterator[None]:
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("a+")
    except OSError as error:
        text = (
            f"The {name} sandbox cannot write to {data} ({error.strerror}): make it writable, or give another folder."
        )
        raise SandboxError(text) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read() or "unknown"
            text = f"Another {name} sandbox uses {data} (process {holder}): stop it, or give another folder."
            raise SandboxError(text) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _listening(name: str, data: Path, port: int | None) -> socket.socket:
    if port is None:
        try:
            return _listener(settings.last_port(data))
        except (OSError, OverflowError):
            return _listener(0)
    try:
        return _listener(port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"The {name} sandbox cannot listen on port {port} ({reason}): stop what uses it, or give another port."
        raise SandboxError(text) from None


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


# --- in the process that starts it -----------------------------------------------------------------------------------


def _announced(name: str, process: subprocess.Popen[bytes], complaints: IO[bytes], seconds: float) -> About:
    assert process.stdout is not None
    late = threading.Timer(seconds, process.kill)
    late.start()
    line = process.stdout.readline()
    late.cancel()
    if line:
        return dict(json.loads(line))
    code = process.wait()
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()
    if code == 2 and said:
        raise SandboxError(said[-1])
    reason = said[-1] if said else "it said nothing"
    raise SandboxError(f"{name} did not start (exit code {code}: {reason}); run it by itself to see why.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
