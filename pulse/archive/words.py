"""The words by which a notebook is found: those of its texts, and those that a reader asks for."""

import re

_GAP = "[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]"
_GROUPED = re.compile(rf"(?<![\w.,])([-+]?\d{{1,3}}(?:{_GAP}\d{{3}})+(?:[.,]\d+)?)(?!\d)")
_TOKEN = re.compile(r"[-+]?[\w@][\w.,:/@+-]*")
MOST_WORDS = 20_000
"""How many words of one text are kept, so that an endless output does not fill the index."""

LONGEST_WORD = 80
"""How many characters of a word are kept."""


def of(text: str) -> set[str]:
    """The words of a text, with every usual spelling of its numbers: `13,806` is also `13806`."""
    found: set[str] = set()
    text = text.casefold().replace("−", "-")
    text += " " + " ".join(re.sub(_GAP, "", number) for number in _GROUPED.findall(text))
    for token in _TOKEN.findall(text):
        for word in {token, *re.split(r"[\W_]+", token)}:
            found |= spellings(word)
        if len(found) > MOST_WORDS:
            break
    return found


def asked(text: str) -> list[set[str]]:
    """The words that a reader asks for. All of them must occur, each in one of its spellings."""
    text = _GROUPED.sub(lambda number: re.sub(_GAP, "", number[1]), text.casefold().replace("−", "-"))
    return [found for token in _TOKEN.findall(text) if (found := spellings(token))]


def spellings(word: str) -> set[str]:
    """The spellings of a word: a number also without separators, and with a decimal point for a decimal comma."""
    word = word.strip(".,:/+").removeprefix("+")[:LONGEST_WORD]
    found = {word} if word.strip("-_") else set()
    if re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", word):
        found.add(word.replace(",", ""))
    if re.fullmatch(r"-?\d+,\d+", word):
        found.add(word.replace(",", "."))
    return found
