"""A newcomer's copy of the project."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pulse import clickhouse as clickhouse_client
from pulse import settings


@dataclass
class Home:
    """A fresh copy of the project, and the environment of a user who has just logged in."""

    root: Path
    environment: dict[str, str]

    def type(self, command: str, seconds: float = 300) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=seconds
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def start(self, command: str) -> "subprocess.Popen[str]":
        log = (self.root / "started.log").open("w")
        return subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.root,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def said(self) -> str:
        return (self.root / "started.log").read_text()

    @property
    def clickhouse(self) -> clickhouse_client.ClickHouse:
        """The ClickHouse of the sandbox that was started, where it says that it is."""
        port = re.search(r"ClickHouse answers on port (\d+);", self.said())[1]  # type: ignore[index]
        address = f"http://{settings.SANDBOX_OWNER}@127.0.0.1:{port}"
        return clickhouse_client.connect(settings.load(CLICKHOUSE_URL=address))
