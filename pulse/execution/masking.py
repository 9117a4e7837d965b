"""Finds secrets in a notebook's texts in every usual spelling, and masks them.

These spellings are found:

- the secret itself;
- escaped for a URL, HTML, JSON, a Python literal, CSV, SQL or a shell, also several times over;
- in hex;
- in base64, also as a part of a longer text (as in `user:password`), and also if the secret was escaped before it was
  encoded, or the base64 was escaped afterwards.

A secret that was compressed, encrypted or encoded twice is not found.
"""

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import cache, cached_property
from html.entities import html5
from typing import Any
from urllib.parse import quote, quote_plus

from pulse import PulseError
from pulse.settings import SHORTEST

MASK = "•••"

_NAMES: dict[str, list[str]] = {}
for _name, _char in html5.items():
    if _name.endswith(";"):
        _NAMES.setdefault(_char, []).append(_name[:-1])

_LETTERS = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f", "\v": "v", "\a": "a", "\x1b": "[eE]", "\0": "0"}

# The characters that escape others. They may be escaped themselves.
_AND = r"(?:&|%(?:25)*26|\\+u0026)"
_END = r"(?:;|(?i:%(?:25)*3b))"
_HASH = r"(?:#|%(?:25)*23)"
_BACKSLASH = rf"(?:\\|(?i:%(?:25)*5c|{_AND}(?:amp{_END})*(?:bsol|{_HASH}0*92|{_HASH}x0*5c){_END}))"

_LINE_END = r"(?:\\+[rn]|[\r\n]|(?i:%(?:25)*0[ad]))"
_GAP = r"(?:[\s:+-]|\\+[rnt]|(?i:%(?:25)*(?:20|2b|3a|0[ad])))"  # what separates the bytes in hex
_BREAK = f"{_LINE_END}*"  # long base64 is broken into lines


class Mask:
    """Finds secrets in texts and replaces them by `•••`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Prepare the search.

        Args:
            secrets: the secrets. Empty ones are ignored.

        Raises:
            PulseError: a secret is so short that ordinary text would be masked with it.
        """
        wanted = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        if any(len(secret) < SHORTEST for secret in wanted):
            raise PulseError(
                f"A secret has fewer than {SHORTEST} characters and could not be masked; use a longer one."
            )
        self._secrets = [_Secret(secret) for secret in wanted]
        self._clean: set[int] = set()  # hashes of long texts without secrets, because a notebook is saved many times

    def text(self, text: str) -> str:
        """The text with every secret in it masked."""
        if len(text) < SHORTEST or hash(text) in self._clean:
            return text
        masked, solid = text, re.sub(_LINE_END, "", text)
        hexadecimal = re.sub(_GAP, "", text).lower()
        for secret in self._secrets:
            masked = secret.masked(masked, solid, hexadecimal)
        if masked == text and len(text) > 100:
            self._clean.add(hash(text))
        return masked

    def shows(self, value: Any) -> bool:
        """Whether a value, or anything in it, holds a secret."""
        if isinstance(value, dict):
            return any(self.shows(key) or self.shows(item) for key, item in value.items())
        if isinstance(value, list | tuple | set):
            return any(self.shows(item) for item in value)
        return self.text(str(value)) != str(value)


class _Secret:
    """One secret's spellings. A quick test comes before each search, because most texts are long and hold no secret.

    The patterns are long: to compile those of one secret takes a tenth of a second, and few runs need any of them. So
    each is compiled when its quick test first asks for it.
    """

    def __init__(self, secret: str) -> None:
        data = _bytes(secret)
        self.secret = secret
        self.run = max(re.findall(r"[A-Za-z0-9]+", secret), key=len, default="")  # escaping does not change these
        self.hex = data.hex()
        self.base64 = {}  # each pattern's quick test
        usual = {secret, html.escape(secret)}
        usual |= {json.dumps(secret, ensure_ascii=plain)[1:-1] for plain in (True, False)}
        usual |= {escape(secret, safe="", errors="surrogatepass") for escape in (quote, quote_plus)}
        for core, before, after in (core for each in sorted(usual) for core in _cores(_bytes(each))):
            inside = _BREAK.join(_DIGITS.get(char, char) for char in core)
            # The characters next to the core hold the remaining bits of the secret's first and last byte.
            pattern = f"{_DIGIT if before else ''}{_BREAK}{inside}{f'(?:{_BREAK}{_DIGIT})?' if after else ''}"
            self.base64[pattern] = max(re.split("[+/]", core), key=len)

    @cached_property
    def escaped(self) -> re.Pattern[str]:
        return re.compile("".join(map(_spelled, self.secret)))

    @cached_property
    def hexadecimal(self) -> re.Pattern[str]:
        return re.compile("(?i)" + f"{_GAP}{{0,4}}".join(f"{byte:02x}" for byte in _bytes(self.secret)))

    def masked(self, text: str, solid: str, hexadecimal: str) -> str:
        """Mask the secret in a text.

        Args:
            text: the text.
            solid: the text without line breaks.
            hexadecimal: the text in lower case and without what separates bytes in hex.
        """
        if self.run in text:
            text = self.escaped.sub(MASK, text)
        if self.hex in hexadecimal:
            text = self.hexadecimal.sub(MASK, text)
        for pattern, run in self.base64.items():
            if run in solid:
                text = _compiled(pattern).sub(MASK, text)
        return text


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _spelled(char: str) -> str:
    """A pattern for one character, escaped in any way and any number of times."""
    if char.isascii() and char.isalnum():
        return char
    single, double = _escaped("'"), _escaped('"')
    ways = [_escaped(char)]
    if char == "'":  # SQL doubles it; in a shell it leaves and enters the quotes, possibly several times
        ways = [f"{single}(?:(?:{single}|{double}){{0,15}}{single})?"]
    if char == '"':  # CSV doubles it
        ways = [2 * double, double]
    if char == " ":
        ways += [_escaped("+"), "\xa0"]
    return f"(?:{'|'.join(ways)})"


def _escaped(char: str) -> str:
    code, data = ord(char), char.encode("utf-8", "surrogatepass")
    units = char.encode("utf-16-be", "surrogatepass")
    names = [*_NAMES.get(char, []), f"{_HASH}0*{code}", f"{_HASH}(?i:x0*{code:x})", *(["nbsp"] if char == " " else [])]
    ways = [
        f"{_AND}(?:amp{_END})*(?:{'|'.join(names)}){_END}",
        "".join(f"(?i:%(?:25)*{byte:02x})" for byte in data),
        "".join(f"{_BACKSLASH}+(?i:u{units[at : at + 2].hex()})" for at in range(0, len(units), 2)),
        f"{_BACKSLASH}+(?i:U{code:08x})",
        "".join(f"{_BACKSLASH}+(?i:x{byte:02x})" for byte in data),
        "".join(f"{_BACKSLASH}+{byte:03o}" for byte in data),
    ]
    if code < 256:
        ways.append(f"{_BACKSLASH}+(?i:x{code:02x})")
    if char in _LETTERS:
        ways.append(f"{_BACKSLASH}+{_LETTERS[char]}")
    one = rf"(?:{'|'.join([*ways, re.escape(char)])})"
    return f"{_BACKSLASH}+" if char == "\\" else f"{_BACKSLASH}*{one}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# The digits of base64 that may be escaped, or that base64 for URLs replaces; and a pattern for any digit.
_DIGITS = {"+": f"(?:-|{_escaped('+')})", "/": f"(?:_|{_escaped('/')})"}
_DIGIT = f"(?:[A-Za-z0-9]|{'|'.join(_DIGITS.values())})"


def _cores(data: bytes) -> Iterable[tuple[str, bool, bool]]:
    """The base64 of the bytes that does not depend on the bytes around them, for each of the three possible offsets.

    Returns:
        Each core, and whether the character before it and the one after it hold bits of the bytes, too.
    """
    for offset in range(3):
        encoded = b64encode(b"\0" * offset + data).decode().rstrip("=")
        bits = (offset + len(data)) * 8
        yield encoded[-(-offset * 8 // 6) : bits // 6], offset > 0, bits % 6 > 0
