"""Fixtures for the tests of the notebooks: an app for each test on the session's real server, and the ETL over it."""

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import Etl, Sources
from pulse import schema


@pytest.fixture
def etl(clickhouse_server: Server) -> Iterator[Etl]:
    """An app without events, and the pipeline that reads it; its day is a Wednesday."""
    with Etl.fresh(clickhouse_server, date(2025, 3, 12)) as app:
        yield app


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Returns a function that replaces a text in `sources.sql`, as somebody with a different source would."""
    folder = tmp_path / "pulse"
    shutil.copytree(schema.FOLDER / "migrations", folder / "migrations")
    for name in ("schema.sql", "sources.sql"):
        shutil.copy(schema.FOLDER / name, folder)
    monkeypatch.setattr(schema, "FOLDER", folder)

    def change(old: str, new: str) -> None:
        path = folder / "sources.sql"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change
