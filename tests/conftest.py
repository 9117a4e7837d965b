"""What the tests share: the real parts they run against."""

from collections.abc import Iterator

import pytest
from telegram_chats import Telegram

from pulse.sandbox import clickhouse, telegram


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clickhouse.Server]:
    """The sandbox's ClickHouse on a free port, with a data folder of its own."""
    with clickhouse.running(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def telegram_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[telegram.Server]:
    """Telegram's stand-in on a free port, with a data folder of its own."""
    with telegram.running(tmp_path_factory.mktemp("telegram")) as server:
        yield server


@pytest.fixture(scope="session")
def chats(telegram_server: telegram.Server) -> Telegram:
    """The stand-in's chats."""
    return Telegram(telegram_server)
