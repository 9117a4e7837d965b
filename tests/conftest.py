"""What the tests share: the real parts they run against."""

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
# As root it has no sandbox, and without a network it would go on asking its maker for updates.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
QUARTER, SHORT = 900, 5  # seconds

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else what the tests start would not hear Ctrl-C either


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "Scheduling | None":
    """A file's tests stay together, as `--dist loadfile` has it, and so do the files of `dashboards`.

    They share a Superset, which takes half a minute to set up.
    """
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "dashboards" if "/dashboards/" in file else file

    return Together(config, log)


@pytest.hookimpl(tryfirst=True)  # before the test's fixtures
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let no day, hour or bucket end in the middle of a test that asks for the time: it waits and begins after that.

    They all end on a quarter of an hour, in every time zone. A test that takes longer than five seconds says so with
    the marker `not_across`: how many seconds, and the local times that it may not run over.
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
    """The system's Chromium without a window: pages as people see them.

    For one module, since playwright's loop counts as running until it is closed: no test can call `asyncio.run`
    meanwhile, which is how messages are sent.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # what a page is to show may take a busy machine some seconds
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine; install the package chromium to see the pages tested")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()
