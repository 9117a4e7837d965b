"""The one reader of executed notebooks: what they say about their run, what they glued, and which of it are numbers.

Anybody who can write in the archive's folder can put anything into a notebook. What does not have the expected type is
ignored here, so that callers need not check it.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from typing import Any

Node = Mapping[str, Any]
"""A notebook as JSON."""

Cell = Mapping[str, Any]
"""A cell of a notebook as JSON."""

DASHES = ("", "–", "-", "—")
"""How people write a number that cannot be computed."""

LINKS = ("load", "loads", "replaces")
"""The scraps that connect notebooks (see `links`); they are not numbers."""

_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Failure:
    """Where and why a notebook failed."""

    cell: Any  # its number, or None if no cell was running
    message: str


@dataclass(frozen=True)
class Run:
    """What a notebook's metadata say about its run, under `pulse`."""

    outcome: str = ""
    run_id: str = ""
    task: str = ""
    started: str = ""
    started_by: str = ""
    seconds: float | None = None
    commit: str = ""
    host: str = ""
    after: str | None = None  # the manifest's head when the attempt began
    parameters: Mapping[str, Any] = field(default_factory=dict)
    queries: Sequence[Mapping[str, Any]] = ()  # the ClickHouse statements: query_id, seconds, rows, error
    error: Failure | None = None


def read(content: bytes) -> Node:
    """Parse a notebook. Returns an empty one if the content is not a JSON object."""
    try:
        node = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return node if isinstance(node, dict) else {}


def cells(node: Node) -> list[Cell]:
    """The cells of a notebook."""
    found = node.get("cells")
    return [cell for cell in found if isinstance(cell, dict)] if isinstance(found, list) else []


def about(node: Node) -> dict[str, Any]:
    """The metadata of a notebook under `pulse`, unchecked; `run` has them with types."""
    metadata = node.get("metadata")
    said = metadata.get("pulse") if isinstance(metadata, dict) else None
    return dict(said) if isinstance(said, dict) else {}


def run(node: Node) -> Run:
    """What a notebook says about its run."""
    said = about(node)
    texts = {
        name: said[name] for name in ("run_id", "task", "started", "started_by") if isinstance(said.get(name), str)
    }
    seconds, error = said.get("seconds"), said.get("error")
    parameters, queries = said.get("parameters"), said.get("queries")
    return Run(
        **texts,
        outcome=str(said.get("outcome") or ""),
        seconds=seconds if isinstance(seconds, (int, float)) else None,
        commit=str(said.get("commit") or ""),
        host=str(said.get("host") or ""),
        after=str(said["after"]) if "after" in said else None,
        parameters=parameters if isinstance(parameters, dict) else {},
        queries=[each for each in queries if isinstance(each, dict)] if isinstance(queries, list) else [],
        error=Failure(error.get("cell"), str(error.get("message"))) if isinstance(error, dict) else None,
    )


def untouched(node: Node) -> bool:
    """Whether nothing of a notebook has run: it has only been put in its place."""
    return run(node).outcome == "running" and not any(cell.get("execution_count") for cell in cells(node))


def scraps(node: Node) -> dict[str, Any]:
    """What a notebook glued, by name, as scrapbook wrote it into the cells; charts are left out."""
    found: dict[str, Any] = {}
    for data in (data for cell in cells(node) for data in outputs(cell)):
        for kind, scrap in data.items():
            if kind.startswith("application/scrapbook.scrap.") and isinstance(scrap, dict) and "name" in scrap:
                found[str(scrap["name"])] = scrap.get("data")
    return found


def alerts(node: Node) -> int:
    """How many alerts a notebook glued."""
    found = scraps(node).get("alerts")
    return len(found) if isinstance(found, list) else 0


def links(node: Node) -> list[tuple[str, str]]:
    """The loads that connect a notebook with others: `made`, `replaced` or `used`, which means that it was only read.

    The load notebook of the ETL glues its `load` and the one that it `replaces`, a report the `loads` whose numbers it
    shows, by event date.
    """
    glued = scraps(node)
    load, loads = glued.get("load"), glued.get("loads")
    used = loads.values() if isinstance(loads, dict) else ()
    made = [("made", load)] if isinstance(load, str) and load else []
    before = glued.get("replaces")
    made += [("replaced", before)] if isinstance(before, str) and before else []
    return made + [("used", each) for each in used if isinstance(each, str) and each]


def title(node: Node) -> str:
    """The title of a notebook: its first heading."""
    for cell in cells(node):
        if cell.get("cell_type") == "markdown":
            for line in source(cell).splitlines():
                if line.startswith("# "):
                    return line.removeprefix("# ").strip()
    return ""


def visible(node: Node) -> Iterator[str]:
    """The texts of a notebook that its page shows: code, prose and outputs."""
    for cell in cells(node):
        yield source(cell)
        listed = cell.get("outputs")
        for output in listed if isinstance(listed, list) else []:
            if isinstance(output, dict):
                yield from _output_texts(output)


def _output_texts(output: Mapping[str, Any]) -> Iterator[str]:
    yield text(output.get("text"))
    yield text([f"{line}\n" for line in output.get("traceback") or [] if isinstance(line, str)])
    data = output.get("data")
    if not isinstance(data, dict):
        data = {}
    for kind in ("text/plain", "text/markdown", "text/latex"):
        yield text(data.get(kind))
    yield unescape(_TAG.sub(" ", text(data.get("text/html"))))


# --- one cell --------------------------------------------------------------------------------------------------------


def source(cell: Cell) -> str:
    """The code or prose of a cell."""
    return text(cell.get("source"))


def tags(cell: Cell) -> set[str]:
    """The tags of a cell."""
    metadata = cell.get("metadata")
    listed = metadata.get("tags") if isinstance(metadata, dict) else None
    return {tag for tag in listed if isinstance(tag, str)} if isinstance(listed, list) else set()


def outputs(cell: Cell) -> list[Mapping[str, Any]]:
    """The data of a cell's outputs, each by MIME type."""
    listed = cell.get("outputs")
    found = (each.get("data") for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict))
    return [data for data in found if isinstance(data, dict)]


def text(value: Any) -> str:
    """A text of a notebook, which may be stored as one string or as a list of lines."""
    lines = value if isinstance(value, list) else [value]
    return "".join(line for line in lines if isinstance(line, str))


# --- numbers ---------------------------------------------------------------------------------------------------------


def key_numbers(glued: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers among what was glued: single ones, and those in lists of pairs (label, number), in order.

    A list that has a text which is not a number, such as a unit or a name, is not a list of numbers. If a name
    occurs twice, the second one gets its source: `views (numbers)`.
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
    """Read a number, also as people write it in either language: `13,533`, `13 533`, `18.8%`, `1,14`.

    Returns:
        The number, and whether it is a percentage; None if the value is not a number.
    """
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


def _pairs(value: Any) -> list[tuple[str, Any]]:
    """A scrap as pairs of a label and a number; empty if it is anything else."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        return []
    well_formed = all(isinstance(each, (list, tuple)) and len(each) == 2 and isinstance(each[0], str) for each in pairs)
    if not well_formed or not all(_counts(each[1]) for each in pairs):
        return []
    return [(label, each) for label, each in pairs]


def _counts(value: Any) -> bool:
    """Whether a value is a number, in any spelling, or a dash for one that cannot be computed."""
    return value is None or number(value) is not None or (isinstance(value, str) and value.strip() in DASHES)


def _free(label: str, name: str, taken: Mapping[str, Any]) -> str:
    """A label that is not taken yet."""
    return f"{label} ({name})" if label in taken else label
