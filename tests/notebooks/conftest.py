"""What the notebooks' tests share: an app of their own on the session's real server, and the ETL over it."""

from collections.abc import Iterator
from datetime import date

import pytest

from notebooks.etl import Etl
from pulse.sandbox.clickhouse import Server


@pytest.fixture
def etl(clickhouse_server: Server) -> Iterator[Etl]:
    """An app without events, and the pipeline that reads it; its day is a Wednesday."""
    with Etl.fresh(clickhouse_server, date(2025, 3, 12)) as app:
        yield app
