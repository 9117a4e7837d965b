"""The sandbox's chat page in a real browser on a phone, in light and in dark."""

import io
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from telegram_chats import PLAIN, Telegram

from pulse.settings import SANDBOX_TELEGRAM_TOKEN

LOADED = "image => image.complete && image.naturalWidth"
COLORS = "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"


def bot(chats: Telegram, method: str, **values: Any) -> Any:
    """Call a method of the Bot API; a photo is sent as a file."""
    files = {"photo": ("photo.png", values.pop("photo"))} if "photo" in values else None
    url = f"{chats.server.url}/bot{SANDBOX_TELEGRAM_TOKEN}/{method}"
    return (
        httpx.post(url, data={"parse_mode": "HTML", **values}, files=files, **PLAIN).raise_for_status().json()["result"]
    )


def picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (1080, 1300), "#0072B2").save(content, "PNG")
    return content.getvalue()


def phone(browser: Browser, scheme: str = "light") -> Page:
    """Open a page of a phone's size."""
    return browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)


def article(page: Page, chat: str, message: int) -> Locator:
    return page.locator(f'[id="message{chat}.{message}"]')


def test_a_message_appears_and_changes_without_a_reload(browser: Browser, chats: Telegram) -> None:
    chat, page = chats.new_chat(), phone(browser)
    page.goto(chats.server.chat_page)
    sent = bot(chats, "sendPhoto", chat_id=chat, caption="<b>DAU 15,210</b>", photo=picture())["message_id"]
    shown = article(page, chat, sent)
    assert shown.locator("b").inner_text(timeout=5_000) == "DAU 15,210"
    image = shown.locator("img")
    image.scroll_into_view_if_needed()
    page.wait_for_function(LOADED, arg=image.element_handle(), timeout=5_000)
    assert shown.bounding_box()["width"] > 0.9 * 360  # type: ignore[index]
    bot(chats, "editMessageCaption", chat_id=chat, message_id=sent, caption="DAU 15,384")
    shown.get_by_text("DAU 15,384").wait_for(timeout=5_000)
    assert "edited" in shown.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_chat_file_is_readable_without_the_server_in_light_and_dark(
    browser: Browser, chats: Telegram, scheme: str
) -> None:
    chat, complaints = chats.new_chat(), []
    caption = "<b>DAU</b>\n<code>15,210</code> up"
    sent = bot(chats, "sendPhoto", chat_id=chat, caption=caption, photo=picture())["message_id"]
    page = phone(browser, scheme)
    page.on("console", lambda message: complaints.append(message.text))
    file = chats.server.data / "chat.html"
    while f'id="message{chat}.{sent}"' not in file.read_text():
        page.wait_for_timeout(100)
    page.goto(file.as_uri())
    shown = article(page, chat, sent)
    image = shown.locator("img")
    image.scroll_into_view_if_needed()
    page.wait_for_function(LOADED, arg=image.element_handle(), timeout=5_000)
    bubble = _luminance(shown.evaluate(COLORS)[1])
    assert bubble < 0.1 if scheme == "dark" else bubble > 0.9
    for part in (shown.locator("b"), shown.locator("code")):
        text, ground = part.evaluate(COLORS)
        below = bubble if ground == "rgba(0, 0, 0, 0)" else _luminance(ground)
        assert _contrast(_luminance(text), below) >= 7
    assert complaints == []
    page.close()


def _luminance(color: str) -> float:
    """Returns the luminance of `rgb(r, g, b)`, from 0 for black to 1 for white, as WCAG defines it."""
    channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
