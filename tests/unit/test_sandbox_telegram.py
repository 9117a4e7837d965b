"""Telegram's stand-in: documented results, limits and errors; messages that survive a crash; a harmless page."""

import asyncio
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import work
from PIL import Image
from pulse_sandbox import SandboxError, telegram_stand_in
from pulse_sandbox.bot_api import MAX_PHOTO_BYTES
from pulse_sandbox.chat_store import Store
from pulse_sandbox.entities import EntityError, parse, render

from pulse.settings import SANDBOX_TELEGRAM_TOKEN

CHAT = -1001


def png(width: int = 40, height: int = 30) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[telegram_stand_in.Server]:
    with telegram_stand_in.running(tmp_path_factory.mktemp("telegram")) as found:
        yield found


def post(server: telegram_stand_in.Server, path: str, **body: Any) -> Any:
    return httpx.post(server.url + path, json=body, trust_env=False).raise_for_status().json()


def get(server: telegram_stand_in.Server, path: str, **headers: str) -> httpx.Response:
    return httpx.get(server.url + path, headers=headers, trust_env=False)


def call(server: telegram_stand_in.Server, method: str, token: str = SANDBOX_TELEGRAM_TOKEN, **params: Any) -> Any:
    """Call the Bot API and return its answer, whatever the status."""
    answer = httpx.post(f"{server.url}/bot{token}/{method}", json=params, trust_env=False)
    found = answer.json()
    assert found["ok"] == answer.is_success
    assert found.get("error_code", 200) == answer.status_code
    return found


def ask(server: telegram_stand_in.Server, question: Callable[[Any], Any]) -> Any:
    """Ask a question with the project's own client."""
    from telegram import Bot

    async def asked() -> Any:
        async with Bot(SANDBOX_TELEGRAM_TOKEN, base_url=f"{server.url}/bot") as bot:
            return await question(bot)

    return asyncio.run(asked())


# --- formatting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "text", "entities"),
    [
        ("a &lt; b &amp;&#33; &laquo;", "a < b &! &laquo;", []),
        ("📈 <b>up</b>", "📈 up", [("bold", 3, 2)]),  # a character outside the basic plane counts twice
        ("<b>a<i>b</i></b>", "ab", [("bold", 0, 2), ("italic", 1, 1)]),
        ("  <code>x</code>\n\n", "x", [("code", 0, 1)]),
        ('<a href="https://a.b/?x=1&amp;y=2">c</a>', "c", [("text_link", 0, 1)]),
        ("see https://a.b/c.", "see https://a.b/c.", [("url", 4, 13)]),
        ("<pre>1 2</pre>", "1 2", [("pre", 0, 3)]),
    ],
)
def test_html_becomes_text_and_entities(markup: str, text: str, entities: list[tuple[str, int, int]]) -> None:
    found, marks = parse(markup)
    assert found == text
    assert [(mark["type"], mark["offset"], mark["length"]) for mark in marks] == entities


@pytest.mark.parametrize(
    ("markup", "error"),
    [
        ("1 < 2", 'Unsupported start tag "" at byte offset 2'),
        ("ж <div>", 'Unsupported start tag "div" at byte offset 3'),
        ("<b>x", 'Can\'t find end tag corresponding to start tag "b"'),
        ("<b>x</i>", 'Unmatched end tag at byte offset 4, expected "</b>", found "</i>"'),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("<b", "Unclosed start tag at byte offset 0"),
    ],
)
def test_malformed_html_is_refused_in_telegrams_words(markup: str, error: str) -> None:
    with pytest.raises(EntityError) as raised:
        parse(markup)
    assert str(raised.value) == error


def test_rendering_escapes_everything_except_the_entities() -> None:
    text, entities = parse(
        '<b>&lt;script&gt;</b> <a href="javascript:alert(1)">x</a> <a href="https://a.b/&quot;">y</a>'
    )
    html = render(text, entities)
    assert html.startswith("<b>&lt;script&gt;</b> x ")
    assert 'href="https://a.b/&quot;"' in html
    assert "javascript" not in html


# --- the Bot API ------------------------------------------------------------------------------------------------------


def test_the_projects_client_understands_every_answer(server: telegram_stand_in.Server) -> None:
    async def talk(bot: Any) -> None:
        from telegram import InputMediaPhoto, ReplyParameters

        assert (await bot.get_me()).username == "pulse_sandbox_bot"
        assert (await bot.get_chat(CHAT)).title == "Pulse reports"
        photo = await bot.send_photo(
            CHAT, png(), caption="<b>DAU</b> 1", parse_mode="HTML", message_thread_id=2, disable_notification=True
        )
        assert photo.photo[-1].width == 40
        assert photo.caption == "DAU 1"
        assert photo.caption_entities[0].type == "bold"
        assert photo.message_thread_id == 2
        reply = await bot.send_message(CHAT, "over", reply_parameters=ReplyParameters(photo.message_id))
        assert reply.reply_to_message.message_id == photo.message_id
        captioned = await bot.edit_message_caption(CHAT, photo.message_id, caption="DAU 2")
        assert captioned.edit_date is not None
        changed = await bot.edit_message_media(InputMediaPhoto(png(80, 60), caption="DAU 3"), CHAT, photo.message_id)
        assert (changed.photo[-1].width, changed.caption) == (80, "DAU 3")
        assert (await bot.edit_message_text("all over", CHAT, reply.message_id)).text == "all over"
        with_photo = await bot.edit_message_media(InputMediaPhoto(png(), caption="seen"), CHAT, reply.message_id)
        assert with_photo.caption == "seen"
        assert await bot.delete_message(CHAT, reply.message_id)

    ask(server, talk)


def test_getupdates_returns_what_people_wrote(server: telegram_stand_in.Server) -> None:
    post(server, "/sandbox/chats", id=77, title="Ann")
    post(server, "/sandbox/say", chat=77, text="/start")
    updates = call(server, "getUpdates")["result"]
    assert updates[-1]["message"]["chat"] == {"id": 77, "type": "private", "first_name": "Ann"}
    assert call(server, "getUpdates", offset=updates[-1]["update_id"] + 1)["result"] == []


@pytest.mark.parametrize(
    ("method", "params", "code", "description"),
    [
        ("sendMessage", {"chat_id": 4, "text": "x"}, 400, "Bad Request: chat not found"),
        ("sendMessage", {"chat_id": CHAT, "text": "  "}, 400, "Bad Request: message text is empty"),
        ("sendMessage", {"chat_id": CHAT, "text": "x" * 4097}, 400, "Bad Request: message is too long"),
        (
            "sendMessage",
            {"chat_id": CHAT, "text": "<b>", "parse_mode": "HTML"},
            400,
            "Bad Request: can't parse entities: Can't find end tag corresponding to start tag \"b\"",
        ),
        (
            "sendMessage",
            {"chat_id": CHAT, "text": "x", "message_thread_id": 9},
            400,
            "Bad Request: message thread not found",
        ),
        (
            "sendMessage",
            {"chat_id": CHAT, "text": "x", "reply_parameters": {"message_id": 99999}},
            400,
            "Bad Request: message to be replied not found",
        ),
        ("sendPhoto", {"chat_id": CHAT}, 400, "Bad Request: there is no photo in the request"),
        (
            "editMessageText",
            {"chat_id": CHAT, "message_id": 99999, "text": "x"},
            400,
            "Bad Request: message to edit not found",
        ),
        ("dance", {}, 404, "Not Found: method not found"),
    ],
)
def test_a_wrong_request_is_refused_in_telegrams_words(
    server: telegram_stand_in.Server, method: str, params: dict[str, Any], code: int, description: str
) -> None:
    answer = call(server, method, **params)
    assert (answer["error_code"], answer["description"]) == (code, description)


def test_limits_count_what_is_left_after_parsing_in_utf16_units(server: telegram_stand_in.Server) -> None:
    assert call(server, "sendMessage", chat_id=CHAT, text=f"<b>{'x' * 4096}</b>", parse_mode="HTML")["ok"]
    assert call(server, "sendMessage", chat_id=CHAT, text="📈" * 2048)["ok"]
    assert not call(server, "sendMessage", chat_id=CHAT, text="📈" * 2048 + "x")["ok"]

    async def captions(bot: Any) -> None:
        from telegram.error import BadRequest

        await bot.send_photo(CHAT, png(), caption="я" * 1024)
        with pytest.raises(BadRequest, match="caption is too long"):
            await bot.send_photo(CHAT, png(), caption="я" * 1025)

    ask(server, captions)


@pytest.mark.parametrize(
    ("photo", "error"),
    [
        (png(9000, 1001), "Photo_invalid_dimensions"),  # the client capitalizes the text
        (png(21, 1), "Photo_invalid_dimensions"),
        (b"not a picture", "Image_process_failed"),
        (png() + bytes(MAX_PHOTO_BYTES), "is too big for a photo"),
    ],
)
def test_telegrams_limits_on_photos_are_enforced(server: telegram_stand_in.Server, photo: bytes, error: str) -> None:
    async def send(bot: Any) -> None:
        from telegram.error import BadRequest

        with pytest.raises(BadRequest, match=error):
            await bot.send_photo(CHAT, photo)

    ask(server, send)


def test_a_wrong_token_is_unauthorized(server: telegram_stand_in.Server) -> None:
    for token, code in ((f"1:{'x' * 35}", 401), ("nonsense", 404)):
        assert call(server, "getMe", token)["error_code"] == code


def test_editing_without_a_change_is_refused(server: telegram_stand_in.Server) -> None:
    sent = call(server, "sendMessage", chat_id=CHAT, text="<b>1</b>", parse_mode="HTML")["result"]["message_id"]
    same = call(server, "editMessageText", chat_id=CHAT, message_id=sent, text="<b>1</b>", parse_mode="HTML")
    assert same["description"].startswith("Bad Request: message is not modified")
    assert call(server, "editMessageText", chat_id=CHAT, message_id=sent, text="1", parse_mode="HTML")["ok"]


# --- failures on demand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code", "stored"),
    [("429", 429, 0), ("500", 500, 0), ("502", 502, 0), ("blocked", 403, 0), ("kicked", 403, 0), ("too_large", 413, 0)],
)
def test_a_fault_affects_only_its_chat_and_as_often_as_asked(
    server: telegram_stand_in.Server, kind: str, code: int, stored: int
) -> None:
    post(server, "/sandbox/chats", id=501)
    before = len(messages(server, 501))
    post(server, "/sandbox/faults", kind=kind, chat=501, count=1, seconds=3)
    assert call(server, "sendMessage", chat_id=CHAT, text="elsewhere")["ok"]
    answer = call(server, "sendMessage", chat_id=501, text="x")
    assert answer["error_code"] == code
    assert answer.get("parameters") == ({"retry_after": 3} if kind == "429" else None)
    assert len(messages(server, 501)) == before + stored
    assert call(server, "sendMessage", chat_id=501, text="x")["ok"]


@pytest.mark.parametrize(("kind", "stored"), [("lost_before", 0), ("lost_after", 1)])
def test_a_lost_request_or_answer_closes_the_connection(
    server: telegram_stand_in.Server, kind: str, stored: int
) -> None:
    post(server, "/sandbox/chats", id=502)
    before = len(messages(server, 502))
    post(server, "/sandbox/faults", kind=kind, chat=502)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        call(server, "sendMessage", chat_id=502, text="x")
    assert len(messages(server, 502)) == before + stored


def test_a_migrated_chat_names_its_new_id(server: telegram_stand_in.Server) -> None:
    post(server, "/sandbox/chats", id=-503, type="group")
    post(server, "/sandbox/faults", kind="migrated", chat=-503, to=-100503)
    answer = call(server, "sendMessage", chat_id=-503, text="x")
    assert answer["error_code"] == 400
    assert answer["parameters"] == {"migrate_to_chat_id": -100503}
    assert call(server, "sendMessage", chat_id=-100503, text="x")["ok"]


def test_rate_limits_are_enforced_on_demand(server: telegram_stand_in.Server) -> None:
    post(server, "/sandbox/chats", id=-504)
    post(server, "/sandbox/limits", on=True)
    try:
        assert call(server, "sendMessage", chat_id=-504, text="1")["ok"]
        answer = call(server, "sendMessage", chat_id=-504, text="2")
        assert answer["error_code"] == 429
        assert answer["parameters"]["retry_after"] >= 1
    finally:
        post(server, "/sandbox/limits", on=False)
    assert call(server, "sendMessage", chat_id=-504, text="2")["ok"]


def test_an_unknown_fault_is_a_clear_error(server: telegram_stand_in.Server) -> None:
    answer = httpx.post(f"{server.url}/sandbox/faults", json={"kind": "flood"}, trust_env=False)
    assert answer.status_code == 400
    assert "kind is one of" in answer.text


def messages(server: telegram_stand_in.Server, chat: int) -> list[dict[str, Any]]:
    return get(server, f"/sandbox/messages?chat={chat}").json()


# --- what is kept and shown -------------------------------------------------------------------------------------------


def test_messages_survive_a_kill(tmp_path: Path) -> None:
    with telegram_stand_in.running(tmp_path) as server:
        for text in ("one", "two"):
            call(server, "sendMessage", chat_id=CHAT, text=text)
        ask(server, lambda bot: bot.send_photo(CHAT, png(), caption="three"))
        os.kill(server.pid, signal.SIGKILL)
        while telegram_stand_in.answering(server.port):
            time.sleep(0.02)
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"what": "mess')  # a line cut off in the middle
    with telegram_stand_in.running(tmp_path) as server:
        assert [message["text"] for message in messages(server, CHAT)] == ["one", "two", "three"]
        assert call(server, "sendMessage", chat_id=CHAT, text="four")["result"]["message_id"] == 4
    store = Store(tmp_path)
    assert [message["id"] for message in store.messages[CHAT].values()] == [1, 2, 3, 4]
    assert len(list((tmp_path / "photos").iterdir())) == 1


def test_the_chat_page_runs_nothing_that_a_message_contains(server: telegram_stand_in.Server) -> None:
    post(server, "/sandbox/chats", id=505, title="<i>Ann</i>")
    first = call(server, "sendMessage", chat_id=505, text="<script>alert(1)</script>")["result"]["message_id"]
    call(server, "editMessageText", chat_id=505, message_id=first, text="<script>alert(2)</script>")
    call(server, "sendMessage", chat_id=505, text="<b>bold</b>", parse_mode="HTML", disable_notification=True)
    answer = get(server, "/")
    policy, page = answer.headers["Content-Security-Policy"], answer.text
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>alert" not in page
    assert "<i>Ann</i>" not in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page
    assert "<b>bold</b>" in page
    assert "edited " in page
    assert "silent" in page


def test_the_chat_page_is_kept_as_a_file_that_needs_no_server(tmp_path: Path) -> None:
    with telegram_stand_in.running(tmp_path) as server:
        ask(server, lambda bot: bot.send_photo(CHAT, png(), caption="hello"))
    page = (tmp_path / "chat.html").read_text()
    assert "hello" in page
    assert "<script" not in page
    photo = page.partition('<img src="')[2].partition('"')[0]
    assert (tmp_path / photo).is_file()


def test_only_loopback_is_served(server: telegram_stand_in.Server) -> None:
    assert server.host == "127.0.0.1"
    assert get(server, "/").status_code == 200
    assert get(server, "/", Host="evil.example").status_code == 400


SENDS = f"/bot{SANDBOX_TELEGRAM_TOKEN}/sendMessage?chat_id=506&text=x"
FROM_ELSEWHERE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Origin": "http://example.com"},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    {"Referer": "http://example.com/"},
    {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:70.0) Gecko/20100101 Firefox/70.0"},
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE)
def test_other_web_pages_neither_send_nor_read(server: telegram_stand_in.Server, headers: dict[str, str]) -> None:
    post(server, "/sandbox/chats", id=506)
    assert get(server, SENDS, **headers).status_code == 403
    for path in ("/sandbox/say", "/sandbox/delete", "/sandbox/faults", SENDS):
        sent = {"chat": 506, "text": "x", "message": 1, "kind": "500"}
        assert httpx.post(server.url + path, json=sent, headers=headers, trust_env=False).status_code == 403
    for path in ("/sandbox/messages", "/sandbox", "/version"):
        assert get(server, path, **headers).status_code == 403
    assert messages(server, 506) == []
    assert get(server, "/sandbox/faults").json() == []


def test_the_chat_page_opens_from_a_link_and_in_no_frame(server: telegram_stand_in.Server) -> None:
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert get(server, "/", **opened).status_code == 200
    assert get(server, "/", **opened | {"Sec-Fetch-Dest": "iframe"}).status_code == 403
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    assert get(server, "/version", **own).status_code == 200


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_server_is_found_by_its_port(server: telegram_stand_in.Server) -> None:
    assert telegram_stand_in.answering(server.port) == server
    with telegram_stand_in.running(server.data / "other") as other:
        assert other.port != server.port
    assert telegram_stand_in.answering(other.port) is None


def test_what_prevents_a_start_is_said_in_a_sentence(server: telegram_stand_in.Server, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="Another Telegram sandbox uses"), telegram_stand_in.running(server.data):
        pass
    with pytest.raises(SandboxError, match=f"cannot listen on port {server.port}"):  # noqa: SIM117
        with telegram_stand_in.running(tmp_path, server.port):
            pass
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxError, match="give another folder"), telegram_stand_in.running(tmp_path / "file"):
        pass


def test_a_start_takes_less_than_two_seconds_of_work(tmp_path: Path) -> None:
    before = work.done()
    with telegram_stand_in.running(tmp_path):
        pass
    assert 0 < work.done() - before < 2
