"""Fixtures for the tests of the notebooks: an app for each test on the session's real server, and the ETL over it."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import Etl, Sources
from pulse.sources import definition


@pytest.fixture
def etl(clickhouse_server: Server) -> Iterator[Etl]:
    """An app without events, and the pipeline that reads it; its day is a Wednesday."""
    with Etl.fresh(clickhouse_server, date(2025, 3, 12)) as app:
        yield app


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Returns a function that makes the preset `app`, with a text replaced, the user's own `sources.sql`."""
    text = (definition.PRESETS / "app.sql").read_text()

    def change(old: str, new: str) -> None:
        assert old in text
        (tmp_path / definition.FILE).write_text(text.replace(old, new))
        monkeypatch.setenv("PULSE_SOURCE", str(tmp_path))

    return change
