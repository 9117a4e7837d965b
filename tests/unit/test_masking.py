"""A secret is masked in every spelling that common tools give it, and nothing else is masked."""

import base64
import csv
import html
import io
import itertools
import json
import random
import re
import shlex
import string
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest

from pulse import PulseError
from pulse.execution.masking import MASK, Mask

ALPHABET = string.ascii_letters + string.digits + string.punctuation * 2 + " " + "éßЖ漢💬\t\n\\\\''\"\"&<>%+/"
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(1, 30))]

ESCAPINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "URL": quote,
    "URL, every character": lambda text: quote(text, safe=""),
    "URL, a form": quote_plus,
    "URL, a query": lambda text: urlencode({"password": text}),
    "URL, small letters": lambda text: "".join(c if c.isalnum() else quote(c, safe="").lower() for c in text),
    "HTML": html.escape,
    "HTML, by number": lambda text: "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text),
    "HTML, in hex": lambda text: "".join(c if c.isalnum() else f"&#x{ord(c):X};" for c in text),
    "JSON": json.dumps,
    "JSON, as it is read": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON, in a page": lambda text: (
        json.dumps(text).replace("/", "\\/").replace("&", "\\u0026").replace("<", "\\u003c")
    ),
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "shell": shlex.quote,
    "shell, with backslashes": lambda text: "".join(c if c.isalnum() or c == "\n" else f"\\{c}" for c in text),
    "CSV": lambda text: _csv(text),
    "SQL": lambda text: "'" + text.replace("'", "''") + "'",
}
USUAL = ("URL", "URL, every character", "URL, a form", "HTML", "JSON", "JSON, as it is read", "repr", "ascii", "shell")
ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "HEX": lambda data: data.hex().upper(),
    "hex:": lambda data: data.hex(":"),
    "hex in lines": lambda data: "\n".join(data.hex(" ")[start : start + 48] for start in range(0, 3 * len(data), 48)),
    "base64": lambda data: base64.b64encode(data).decode(),
    "base64 for URLs": lambda data: base64.urlsafe_b64encode(data).decode(),
    "base64 in lines": lambda data: base64.encodebytes(data).decode(),
}


def _csv(text: str) -> str:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerow([text])
    return file.getvalue()


def a_secret(chance: random.Random) -> str:
    return "".join(chance.choices(ALPHABET, k=chance.randint(6, 40)))


def some_text(chance: random.Random) -> str:
    """Return text of the kinds that notebooks show: words, numbers, tables, addresses, pictures, hashes."""
    made: list[Callable[[], str]] = [
        lambda: "".join(chance.choices(string.ascii_lowercase, k=chance.randint(1, 12))),
        lambda: f"{chance.randint(0, 10**6):,}",
        lambda: f"{chance.random():.4f}",
        lambda: chance.randbytes(32).hex(),
        lambda: base64.b64encode(chance.randbytes(chance.randint(1, 300))).decode(),
        lambda: "".join(chance.choices(ALPHABET, k=chance.randint(1, 30))),
        lambda: f"https://example.com/{quote(''.join(chance.choices(ALPHABET, k=8)))}?a=1&b=%20",
    ]
    return chance.choice([" ", "\n", ""]).join(chance.choice(made)() for _ in range(chance.randint(0, 30)))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_spelling_of_a_secret_is_masked_and_nothing_around_it(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    for _ in range(8):
        secret = a_secret(chance)
        mask = Mask([secret, a_secret(chance)])
        for name, escape in ESCAPINGS.items():
            masked = mask.text(f"before {escape(f'x{secret}x')} after")
            bare = masked.removeprefix("before ").removesuffix(" after")
            assert re.fullmatch(rf"(password=|b?['\"]|)x{MASK}x['\"]?\s*", bare), (name, secret, masked)
        for name, encode in ENCODINGS.items():
            data = chance.randbytes(chance.randint(0, 70)) + secret.encode() + chance.randbytes(chance.randint(0, 70))
            assert MASK in mask.text(encode(data)), (name, secret)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_secret_that_was_escaped_twice_is_masked(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    secret = a_secret(chance)
    mask = Mask([secret])
    for inner, outer in itertools.product(USUAL, USUAL):
        spelled = ESCAPINGS[outer](ESCAPINGS[inner](secret))
        assert MASK in mask.text(spelled), (inner, outer, secret, spelled)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_secret_that_was_escaped_before_or_after_base64_is_masked(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    secret = a_secret(chance)
    mask = Mask([secret])
    around = [chance.randbytes(chance.randint(0, 9)) for _ in range(2)]
    for encoding, escaping in itertools.product(ENCODINGS, USUAL):
        spelled = ESCAPINGS[escaping](ENCODINGS[encoding](secret.encode().join(around)))
        assert MASK in mask.text(spelled), (encoding, escaping, secret, spelled)
    for escaping in ("URL, every character", "URL, a form", "HTML", "JSON", "JSON, as it is read"):
        for encoding in ("base64", "base64 for URLs", "base64 in lines"):
            spelled = ENCODINGS[encoding](ESCAPINGS[escaping](f"user:{secret}").encode())
            assert MASK in mask.text(spelled), (encoding, escaping, secret, spelled)


def spellings(secret: str) -> set[str]:
    """Return the secret in every escaping, without what the escaping puts around a text."""
    spelled = (escape(f"x{secret}x") for escape in ESCAPINGS.values())
    return {text[text.index("x") + 1 : text.rindex("x")] for text in spelled}


@pytest.mark.parametrize("seed", SEEDS)
def test_text_without_a_secret_is_left_unchanged(seed: int) -> None:
    chance = random.Random(1000 + seed)  # noqa: S311
    secrets = [a_secret(chance) for _ in range(5)]
    mask = Mask(secrets)
    for _ in range(40):
        text = some_text(chance)
        assert mask.text(text) == text
    for secret in secrets:  # texts that are nearly a secret
        middle = len(secret) // 2
        shorter = [secret[1:]] * secret[0].isalnum() + [secret[:-1]] * secret[-1].isalnum()  # escaping may add others
        for almost in (*shorter, secret[:middle] + "·" + secret[middle:], secret.swapcase()):
            for escape in ESCAPINGS.values():
                text = escape(f"x{almost}x")
                if not any(spelled in text for other in secrets for spelled in spellings(other)):
                    assert mask.text(text) == text, (secret, almost)


def test_basic_authentication_is_masked() -> None:
    header = base64.b64encode(b"pulse:p@ss/word+1").decode()
    masked = Mask(["p@ss/word+1"]).text(f"Authorization: Basic {header} (of pulse)")
    assert masked.startswith("Authorization: Basic ")
    assert masked.endswith(" (of pulse)")
    assert base64.b64encode(b"/word+1").decode()[:4] not in masked
    assert MASK in masked


def test_a_secret_too_short_to_be_masked_is_refused_and_not_shown() -> None:
    with pytest.raises(PulseError, match="fewer than 6 characters") as found:
        Mask(["", "abcde"])
    assert "abcde" not in str(found.value)
    assert Mask([""]).text("anything") == "anything"


def test_a_pattern_is_compiled_when_a_text_may_hold_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_pattern = re.compile

    def compiles(pattern: str) -> re.Pattern[str]:
        compiled.append(pattern)
        return compile_pattern(pattern)

    monkeypatch.setattr(re, "compile", compiles)
    mask = Mask(["seldom-used-word"])
    assert mask.text("a long text without it " * 10) == "a long text without it " * 10
    assert compiled == []
    assert mask.text("it is seldom-used-word") == f"it is {MASK}"
    assert len(compiled) == 1
