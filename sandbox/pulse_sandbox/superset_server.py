"""Runs a real Superset on this machine, in the environment that `make superset` builds for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pulse import settings
from pulse_sandbox import SandboxError, process

HOME = settings.ROOT / ".superset"
_SECONDS = 300.0  # how long a start may take; the first one creates every table


@dataclass(frozen=True)
class Server:
    """A running Superset and its administrator."""

    url: str
    user: str
    password_file: Path
    new: bool  # whether this start set it up

    @property
    def password(self) -> str:
        """The administrator's password."""
        return self.password_file.read_text()


@contextmanager
def running(data: Path = HOME, port: int | None = None) -> Iterator[Server]:
    """Run Superset for the length of the `with` block; `data` keeps all it has.

    It listens on the port given, else on the one that it had last time, or on a free one if that is taken.

    Raises:
        SandboxError: its environment is missing, the port is in use, or it did not start.
    """
    python = HOME / "venv" / "bin" / "python"
    if not python.exists():
        raise SandboxError("Superset is not installed on this machine; run `make superset`.")
    program = [str(python), str(settings.ROOT / "dashboards" / "superset" / "serve.py")]
    with process.started("Superset", program, data, port, _SECONDS) as about:
        yield Server(about["url"], about["admin"], Path(about["password"]), about["new"])
