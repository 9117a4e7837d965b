"""The sandbox's ClickHouse: the chDB engine behind ClickHouse's HTTP interface, on loopback.

    python -m pulse_sandbox.clickhouse --data DIR --port PORT

One process owns a data folder and serves it until SIGTERM. Every answer carries the header `X-Pulse-Sandbox`, and
`GET /sandbox` tells the process and its folder, so that nobody takes a real ClickHouse for a sandbox.

Differences from a real server: results are sent when complete, so an error never arrives with status 200; the server's
time zone is UTC; a statement's id is not the engine's own (`system.processes` shows another); `currentUser()` is always
`default`; a read is cancelled when its client goes away; answers are compressed with gzip or not at all; there is no
native-protocol compression (`compress=1`) and no query log.

This module starts, finds and stops it; `clickhouse_http` reads requests and writes answers; `clickhouse_engine` runs
the statements and keeps the reader to what it may do.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pulse import settings
from pulse_sandbox import process

_SANDBOX, _READER = urlsplit(settings.SANDBOX_CLICKHOUSE_URL), urlsplit(settings.SANDBOX_READER_URL)
_OWNER, _OWNER_PASSWORD = _SANDBOX.username or "", _SANDBOX.password or ""
READER, READER_PASSWORD = _READER.username or "", _READER.password or ""
PORT = _SANDBOX.port or 18123


@dataclass(frozen=True)
class Server:
    """A running sandbox."""

    host: str
    port: int
    data: Path
    pid: int

    @property
    def url(self) -> str:
        """Its address for the user who may do everything."""
        return f"http://{_OWNER}:{_OWNER_PASSWORD}@{self.host}:{self.port}"

    @property
    def reader_url(self) -> str:
        """Its address for the user who may only read the project's database."""
        return f"http://{READER}:{READER_PASSWORD}@{self.host}:{self.port}"


def answering(port: int) -> Server | None:
    """The sandbox on this port of this machine; None when nothing, or something else, is there."""
    about = process.identity(port)
    return _server(about) if about and about.get("sandbox") == "clickhouse" else None


@contextmanager
def running(data: Path, port: int | None = None) -> Iterator[Server]:
    """Run a sandbox in a process of its own, on a free port if none is given; it stops with the block.

    Raises:
        SandboxError: the port or the folder is in use, the folder is not writable, or the process did not start.
    """
    with process.running("pulse_sandbox.clickhouse", data, port) as about:
        yield _server(about)


def _server(about: process.About) -> Server:
    return Server(about["host"], about["port"], Path(about["data"]), about["pid"])


def serve(data: Path, port: int = PORT) -> None:
    """Serve a data folder on loopback until SIGTERM or SIGINT (so: in the main thread of a process of its own).

    Raises:
        SandboxError: the port or the folder is in use, the folder is not writable, or the engine cannot open it.
    """
    chosen = settings.load()
    with process.taken("ClickHouse", data, port) as listener:
        # Only the process that serves pays for loading these.
        from pulse_sandbox import clickhouse_http
        from pulse_sandbox.clickhouse_engine import Engine

        folder = data.resolve()
        address = {"host": process.HOST, "port": listener.getsockname()[1]}
        about = {"sandbox": "clickhouse", **address, "data": str(folder), "pid": os.getpid()}
        engine = Engine(folder / "engine", (chosen.database, chosen.source_database), reader=READER)
        passwords = {_OWNER: _OWNER_PASSWORD, READER: READER_PASSWORD}
        clickhouse_http.serve(engine, passwords, about, listener)
        if not engine.close():
            os._exit(0)  # a statement that cannot be interrupted; the data is safe, as it is from a kill


if __name__ == "__main__":
    sys.exit(process.main("pulse_sandbox.clickhouse", serve, PORT))
