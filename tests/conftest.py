"""Fixtures for all tests: the servers and the browser that they run against."""

import shutil
import signal
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from time import sleep
from typing import TYPE_CHECKING

import pytest
from pulse_sandbox import clickhouse_stand_in, telegram_stand_in
from telegram_chats import Telegram

from pulse import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# As root Chromium has no sandbox, and without a network it would keep asking for updates.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
QUARTER, SHORT = 900, 5  # seconds

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else processes that tests start would ignore Ctrl-C, too


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "Scheduling | None":
    """Keep the tests of a file on one worker, as `--dist loadfile` does, and all files of `dashboards` as well.

    The files of `dashboards` share a Superset, which takes half a minute to set up.
    """
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "dashboards" if "/dashboards/" in file else file

    return Together(config, log)


@pytest.hookimpl(tryfirst=True)  # runs before the test's fixtures
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Wait before a test if a day, hour or bucket is about to end, so that none ends while the test runs.

    They all end on a quarter of an hour, in every time zone. A test that takes longer than five seconds has the marker
    `not_across`, with the seconds that it takes and the local times that it must not run across.
    """
    now = datetime.now(settings.load().zone)
    left = QUARTER - now.timestamp() % QUARTER
    waits = [left] if left < SHORT else []
    for marker in item.iter_markers("not_across"):
        for clock in marker.args:
            day = now.date() + timedelta(days=now.time() >= time.fromisoformat(clock))
            end = datetime.combine(day, time.fromisoformat(clock), now.tzinfo)
            left = end.timestamp() - now.timestamp()
            waits += [left] if left < marker.kwargs["seconds"] else []
    if waits:
        sleep(max(waits) + 0.1)


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clickhouse_stand_in.Server]:
    """The sandbox's ClickHouse on a free port, with a data folder of its own."""
    with clickhouse_stand_in.running(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def telegram_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[telegram_stand_in.Server]:
    """Telegram's stand-in on a free port, with a data folder of its own."""
    with telegram_stand_in.running(tmp_path_factory.mktemp("telegram")) as server:
        yield server


@pytest.fixture(scope="session")
def chats(telegram_server: telegram_stand_in.Server) -> Telegram:
    """The stand-in's chats."""
    return Telegram(telegram_server)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The system's Chromium without a window, which shows pages as people see them.

    It is open for one module only: until it is closed, playwright's event loop counts as running, and no test can call
    `asyncio.run`, which is how messages are sent.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # a page may take some seconds on a busy machine
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine; install the package chromium to see the pages tested")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()
