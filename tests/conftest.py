"""What the tests share: the real parts they run against."""

from collections.abc import Iterator

import pytest

from pulse.sandbox import clickhouse


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clickhouse.Server]:
    """The sandbox's ClickHouse on a free port, with a data folder of its own."""
    with clickhouse.running(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        yield server
