"""Telegram's HTML: how long a text is as Telegram counts, and a text cut to a length without breaking its markup."""

import re
from html import unescape
from html.parser import HTMLParser

MAX_TEXT, MAX_CAPTION = 4096, 1024  # UTF-16 code units, formatting not counted


def length(html: str) -> int:
    """The length of a text as Telegram counts it: without formatting, in UTF-16 code units."""
    return len(unescape(re.sub(r"<[^>]*>", "", html)).encode("utf-16-le")) // 2


def cut(html: str, room: int) -> str:
    """A text shortened to fit, at the end of a line or a word, with an ellipsis; markup stays whole.

    Args:
        html: Telegram's HTML.
        room: the longest it may be, as Telegram counts.

    Returns:
        The text itself where it fits.
    """
    if length(html) <= room:
        return html
    text = unescape(re.sub(r"<[^>]*>", "", html))
    size, end = 0, 0
    for character in text:
        size += 2 if ord(character) > 0xFFFF else 1
        if size > room - 1:
            break
        end += 1
    for boundary in ("\n", " "):
        cut = text.rfind(boundary, 0, end + 1)
        if cut > end // 2:
            end = cut
            break
    cutting = _Cut(end)
    cutting.feed(html)
    cutting.close()
    return cutting.result()


class _Cut(HTMLParser):
    """Copies HTML up to a number of visible characters, then closes the open tags."""

    def __init__(self, left: int) -> None:
        super().__init__(convert_charrefs=False)
        self._left, self._full = left, False
        self._copied: list[str] = []
        self._open: list[str] = []

    def result(self) -> str:
        return "".join([*self._copied, "…", *(f"</{tag}>" for tag in reversed(self._open))])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._full:
            self._copied.append(self.get_starttag_text() or "")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._full and tag in self._open:
            self._copied.append(f"</{tag}>")
            self._open.remove(tag)

    def handle_data(self, data: str) -> None:
        for character in data:
            self._take(character, 1)

    def handle_entityref(self, name: str) -> None:
        self._take(f"&{name};", len(unescape(f"&{name};")))

    def handle_charref(self, name: str) -> None:
        self._take(f"&#{name};", 1)

    def _take(self, what: str, size: int) -> None:
        self._full = self._full or size > self._left
        if not self._full:
            self._copied.append(what)
            self._left -= size
