"""The one reader of executed notebooks: what they handed on, and which of it are numbers.

A notebook that was changed by hand may hold anything: what is not of the kind expected is left out.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from typing import Any

DASHES = ("", "–", "-", "—")  # how a number that cannot be computed is written


Node = Mapping[str, Any]

LINKS = ("load", "loads")
"""What notebooks hand on to be joined by (see `links`), and no numbers."""


def read(content: bytes) -> Node:
    """A notebook as JSON; nothing where it is none."""
    try:
        node = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return node if isinstance(node, dict) else {}


def cells(node: Node) -> list[Mapping[str, Any]]:
    """A notebook's cells."""
    found = node.get("cells")
    return [cell for cell in found if isinstance(cell, dict)] if isinstance(found, list) else []


def about(node: Node) -> dict[str, Any]:
    """What a notebook says of its run."""
    metadata = node.get("metadata")
    said = metadata.get("pulse") if isinstance(metadata, dict) else None
    return dict(said) if isinstance(said, dict) else {}


def untouched(node: Node) -> bool:
    """Whether a notebook has only taken its place, and nothing of it has run."""
    return about(node).get("outcome") == "running" and not any(cell.get("execution_count") for cell in cells(node))


def alerts(node: Node) -> int:
    """How many alerts a notebook handed on."""
    found = scraps(cells(node)).get("alerts")
    return len(found) if isinstance(found, list) else 0


def scraps(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a notebook handed on, as scrapbook wrote it into its cells; charts left out."""
    found: dict[str, Any] = {}
    for data in (data for cell in cells for data in outputs(cell)):
        for kind, scrap in data.items():
            if kind.startswith("application/scrapbook.scrap.") and isinstance(scrap, dict) and "name" in scrap:
                found[str(scrap["name"])] = scrap.get("data")
    return found


def outputs(cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The data of a cell's outputs, by kind."""
    listed = cell.get("outputs")
    found = (each.get("data") for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict))
    return [data for data in found if isinstance(data, dict)]


def key_numbers(glued: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers among what was glued: single ones, and those of lists of pairs (label, number), in order.

    Text that does not read as a number (a unit, a name) makes its list none of numbers. A name that is taken bears
    where it comes from: `views (numbers)`.
    """
    found: dict[str, Any] = {}
    for name, value in glued.items():
        if name in LINKS:
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[_free(name, name, found)] = value
        for label, each in _pairs(value):
            found[_free(label, name, found)] = each
    return found


def number(value: Any) -> tuple[float, bool] | None:
    """A number, also as people write it in either language (`13,533`, `13 533`, `18.8%`, `1,14`), and whether it is a
    percentage; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return (float(value), False) if abs(value) <= sys.float_info.max else None
    text = re.sub(r"[\s\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]", "", str(value)).replace("−", "-")
    share = text.endswith("%")
    text = text.removesuffix("%")
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    text = text.replace(",", ".")
    return (float(text), share) if re.fullmatch(r"[+-]?\d+(\.\d+)?", text) else None


def source(cell: Mapping[str, Any]) -> str:
    """A cell's code or text, which may be one text or a list of lines."""
    return text(cell.get("source"))


def text(value: Any) -> str:
    """A text of a notebook, which may be a list of lines."""
    lines = value if isinstance(value, list) else [value]
    return "".join(line for line in lines if isinstance(line, str))


def title(cells: Sequence[Mapping[str, Any]]) -> str:
    """A notebook's title: its first heading."""
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            for line in source(cell).splitlines():
                if line.startswith("# "):
                    return line.removeprefix("# ").strip()
    return ""


def links(node: Node) -> list[tuple[str, str]]:
    """What joins a notebook with others, as both wrote it down: `made` what it published, `used` what it read.

    An ETL run's load hands on its `load`, a report the `loads` whose numbers it shows, by event date.
    """
    glued = scraps(cells(node))
    load, loads = glued.get("load"), glued.get("loads")
    used = loads.values() if isinstance(loads, dict) else ()
    made = [("made", load)] if isinstance(load, str) and load else []
    return made + [("used", each) for each in used if isinstance(each, str) and each]


# --- words to find a notebook by --------------------------------------------------------------------------------------

_GAP = "[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]"
_GROUPED = re.compile(rf"(?<![\w.,])([-+]?\d{{1,3}}(?:{_GAP}\d{{3}})+(?:[.,]\d+)?)(?!\d)")
_TOKEN = re.compile(r"[-+]?[\w@][\w.,:/@+-]*")
_TAG = re.compile(r"<[^>]*>")
MOST_WORDS = 20_000  # of one notebook, against outputs without end
LONGEST_WORD = 80


def words(text: str) -> set[str]:
    """The words of a text as they are found, however a number is written in it: `13,806` is `13806` too."""
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
    """What a reader asks for: the words that must all occur, each with the spellings of which one is enough."""
    text = _GROUPED.sub(lambda number: re.sub(_GAP, "", number[1]), text.casefold().replace("−", "-"))
    return [found for token in _TOKEN.findall(text) if (found := spellings(token))]


def spellings(word: str) -> set[str]:
    """A word as it is kept; of a number also without its thousands' commas, and with a point for a decimal comma."""
    word = word.strip(".,:/+").removeprefix("+")[:LONGEST_WORD]
    found = {word} if word.strip("-_") else set()
    if re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", word):
        found.add(word.replace(",", ""))
    if re.fullmatch(r"-?\d+,\d+", word):
        found.add(word.replace(",", "."))
    return found


def visible(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The texts that a page shows of a notebook: code, prose and what came out."""
    for cell in cells:
        yield source(cell)
        listed = cell.get("outputs")
        for output in listed if isinstance(listed, list) else []:
            if not isinstance(output, dict):
                continue
            yield text(output.get("text"))
            yield text([f"{line}\n" for line in output.get("traceback") or [] if isinstance(line, str)])
            data = output.get("data") if isinstance(output.get("data"), dict) else {}
            for kind in ("text/plain", "text/markdown", "text/latex"):
                yield text(data.get(kind))
            yield unescape(_TAG.sub(" ", text(data.get("text/html"))))


def _pairs(value: Any) -> list[tuple[str, Any]]:
    """A scrap as pairs of a label and a number; nothing where it is not that."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        return []
    well_formed = all(isinstance(each, (list, tuple)) and len(each) == 2 and isinstance(each[0], str) for each in pairs)
    if not well_formed or not all(_counts(each[1]) for each in pairs):
        return []
    return [(label, each) for label, each in pairs]


def _counts(value: Any) -> bool:
    """Whether it is a number, written or not, or stands for one that cannot be computed."""
    return value is None or number(value) is not None or (isinstance(value, str) and value.strip() in DASHES)


def _free(label: str, name: str, taken: Mapping[str, Any]) -> str:
    return f"{label} ({name})" if label in taken else label
