"""The sandbox's ClickHouse: the chDB engine behind ClickHouse's HTTP interface, on loopback.

    python -m pulse_sandbox.clickhouse_stand_in --data DIR

One process owns a data folder and serves it until SIGTERM. Every answer has the header `X-Pulse-Sandbox`, and
`GET /sandbox` names the process and its folder, so that no program mistakes a real ClickHouse for a sandbox.

It differs from a real server in a few ways: a result is sent when it is complete, so an error never arrives with status
200; the server's time zone is UTC; `system.processes` shows other statement ids than the client chose; `currentUser()`
is always `default`; a read is cancelled when its client disconnects; answers are compressed with gzip or not at all;
there is no native compression (`compress=1`) and no query log.

This module starts, finds and stops the server; `clickhouse_http` reads requests and writes answers;
`clickhouse_engine` runs the statements.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pulse import settings
from pulse_sandbox import process

_OWNER, _, _OWNER_PASSWORD = settings.SANDBOX_OWNER.partition(":")
READER, _, READER_PASSWORD = settings.SANDBOX_READER.partition(":")


@dataclass(frozen=True)
class Server:
    """A running sandbox."""

    host: str
    port: int
    data: Path
    pid: int

    @property
    def url(self) -> str:
        """The address for the user who may do everything."""
        return f"http://{_OWNER}:{_OWNER_PASSWORD}@{self.host}:{self.port}"

    @property
    def reader_url(self) -> str:
        """The address for the user who may only read the project's database."""
        return f"http://{READER}:{READER_PASSWORD}@{self.host}:{self.port}"


def answering(port: int) -> Server | None:
    """Return the sandbox on this port of this machine, or None if nothing or something else answers there."""
    about = process.identity(port)
    return _server(about) if about and about.get("sandbox") == "clickhouse" else None


@contextmanager
def running(data: Path, port: int | None = None) -> Iterator[Server]:
    """Run a sandbox in a separate process for the length of the `with` block.

    It listens on the port given, else on the one that it had last time, or on a free one if that is taken.

    Raises:
        SandboxError: the port or the folder is in use, the folder is not writable, or the process did not start.
    """
    with process.running("pulse_sandbox.clickhouse_stand_in", data, port) as about:
        yield _server(about)


def serving(data: Path) -> Server | None:
    """Return the sandbox that serves this data folder now, or None."""
    server = answering(settings.last_port(data))
    return server if server and server.data == data.resolve() else None


def _server(about: process.About) -> Server:
    return Server(about["host"], about["port"], Path(about["data"]), about["pid"])


def serve(data: Path, port: int | None = None) -> None:
    """Serve a data folder on loopback until SIGTERM or SIGINT. Call it in the main thread of a separate process.

    Raises:
        SandboxError: the port or the folder is in use, the folder is not writable, or the engine cannot open it.
    """
    chosen = settings.load()
    with process.taken("ClickHouse", data, port) as listener:
        # Imported here because only the process that serves needs them, and they load slowly.
        from pulse_sandbox import clickhouse_http
        from pulse_sandbox.clickhouse_engine import Engine

        folder = data.resolve()
        address = {"host": process.HOST, "port": listener.getsockname()[1]}
        about = {"sandbox": "clickhouse", **address, "data": str(folder), "pid": os.getpid()}
        databases = (chosen.database, chosen.source_database)
        engine = Engine(folder / "engine", databases, reader=READER, prefix=chosen.table_prefix)
        passwords = {_OWNER: _OWNER_PASSWORD, READER: READER_PASSWORD}
        clickhouse_http.serve(engine, passwords, about, listener)
        if not engine.close():
            os._exit(0)  # a statement cannot be interrupted; the data survives this as it survives a kill


if __name__ == "__main__":
    sys.exit(process.main("pulse_sandbox.clickhouse_stand_in", serve))
