"""What differs between two runs of a notebook: parameters, code, numbers, tables and charts.

Cells are the same by their ids, which an executed notebook has from the one that was run, or else by their code; what
came out is compared cell by cell. Time grows with the lines, whatever changed in them: a page does not wait for it.
"""

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import nbformat
from markupsafe import Markup

from pulse.archive import executed, render
from pulse.archive.executed import number

Cell = Mapping[str, Any]
LIMIT = 300_000  # characters of a table that is shown


@dataclass(frozen=True)
class Change:
    """A value in the two runs; `difference` and `percent` where both are numbers."""

    name: str
    left: Any
    right: Any
    difference: float | None = None
    percent: float | None = None  # None too where there is nothing to divide by
    share: bool = False  # the values are percentages, the difference is in points
    own: bool = False  # each run's own name

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return bool(self.left == self.right)


@dataclass(frozen=True)
class Code:
    """A cell whose code or text changed, came or went: its lines, each with `+`, `-` or a blank before it."""

    title: str
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Pair:
    """Something that came out of both runs, or of one of them, under the same heading; harmless HTML."""

    title: str
    left: Markup | None
    right: Markup | None
    same: bool = False


@dataclass(frozen=True)
class Comparison:
    """Two runs, the left one the earlier."""

    parameters: list[Change] = field(default_factory=list)
    numbers: list[Change] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)
    tables: list[Pair] = field(default_factory=list)
    charts: list[Pair] = field(default_factory=list)
    commits: tuple[str, str] = ("", "")
    outcomes: tuple[str, str] = ("", "")

    def exceptions(self) -> list[str]:
        """What is not the same, each in a few words, the most telling first; nothing where all is."""
        found = []
        if self.outcomes[0] != self.outcomes[1]:
            found.append(f"{self.outcomes[0]} → {self.outcomes[1]}")
        found += [f"{each.name} {each.left} → {each.right}" for each in self.parameters if not (each.same or each.own)][
            :3
        ]
        moved = sorted((each for each in self.numbers if not each.same), key=_weight, reverse=True)
        found += [_words(each) for each in moved[:3]]
        if len(moved) > 3:
            found.append(f"{len(moved) - 3} more numbers")
        if self.code:
            found.append(f"code of {_count(len(self.code), 'cell')}")
        changed = sum(not pair.same for pair in self.tables)
        if changed and not moved:
            found.append(_count(changed, "table"))
        return found


def compare(left: bytes, right: bytes) -> Comparison:
    """Compare two executed notebooks.

    Raises:
        ValueError: one of them is no notebook.
    """
    try:
        return _compare(_node(left), _node(right))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a cell is not as Jupyter writes it ({type(error).__name__}: {error})") from None


def _compare(one: Any, other: Any) -> Comparison:
    about = [dict(node.get("metadata", {}).get("pulse", {})) for node in (one, other)]
    pairs = list(_aligned(one, other))
    return Comparison(
        parameters=_parameters(*about),
        numbers=_changes(*(executed.key_numbers(executed.scraps(node["cells"])) for node in (one, other))),
        code=[_code(*pair, title) for *pair, title in pairs if _source(pair[0]) != _source(pair[1])],
        tables=[_marked(each) for *pair, title in pairs for each in _outputs(*pair, title, _tables)],
        charts=[each for *pair, title in pairs for each in _outputs(*pair, title, _charts)],
        commits=(str(about[0].get("commit", "")), str(about[1].get("commit", ""))),
        outcomes=(str(about[0].get("outcome", "")), str(about[1].get("outcome", ""))),
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _node(content: bytes) -> Any:
    try:
        return nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # whatever nbformat finds wrong with it, it finds in many ways
        raise ValueError(f"it is no notebook ({type(error).__name__})") from None


def _parameters(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Change]:
    changes = _changes(left.get("parameters") or {}, right.get("parameters") or {})
    return [replace(each, own=_names(left, each.left) and _names(right, each.right)) for each in changes]


def _names(about: Mapping[str, Any], value: Any) -> bool:
    """Whether a parameter's value is the run's own name, which differs in every run."""
    name = re.sub("[^A-Za-z0-9]+", "_", str(about.get("run_id", ""))).strip("_")
    return bool(name) and str(value).startswith(name[:73])


def _changes(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Change]:
    return [_change(name, left.get(name), right.get(name)) for name in dict.fromkeys([*right, *left])]


def _change(name: str, left: Any, right: Any) -> Change:
    one, other = number(left), number(right)
    if one is None or other is None:
        return Change(name, left, right)
    difference = other[0] - one[0]
    share = one[1] and other[1]
    percent = None if share or not one[0] else 100 * difference / abs(one[0])
    return Change(name, left, right, round(difference, 10), percent, share)


def _aligned(left: Any, right: Any) -> Iterator[tuple[Cell | None, Cell | None, str]]:
    """The cells of both notebooks side by side, each with the heading it stands under."""
    lefts, rights = _cells(left), _cells(right)
    ids = {cell.get("id") for cell in lefts} & {cell.get("id") for cell in rights} - {None}
    keys = [[cell["id"] if cell.get("id") in ids else _source(cell) for cell in cells] for cells in (lefts, rights)]
    title = ""
    for _, start, end, first, last in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        for one, other in _paired(lefts[start:end], rights[first:last]):
            title = _heading(other or one) or title
            yield one, other, title


def _paired(ones: Sequence[Cell], others: Sequence[Cell]) -> Iterator[tuple[Cell | None, Cell | None]]:
    """Cells that stand in the same place: one after the other, each with one of its own kind."""
    rest = list(others)
    for one in ones:
        at = next((at for at, other in enumerate(rest) if other["cell_type"] == one["cell_type"]), None)
        if at is None:
            yield one, None
            continue
        yield from ((None, other) for other in rest[:at])
        yield one, rest[at]
        rest = rest[at + 1 :]
    yield from ((None, other) for other in rest)


def _cells(node: Any) -> list[Cell]:
    """A notebook's cells without the one that papermill adds: its parameters are compared by name."""
    return [cell for cell in node["cells"] if not {"injected-parameters", "papermill-error-cell-tag"} & _tags(cell)]


def _code(left: Cell | None, right: Cell | None, title: str) -> Code:
    ones, others = _source(left).splitlines(), _source(right).splitlines()
    lines = difflib.unified_diff(ones, others, n=len(ones) + len(others), lineterm="")
    return Code(
        title, [(line[0], line[1:]) for line in itertools.islice(lines, 3, None)]
    )  # without the three of a patch


def _outputs(left: Cell | None, right: Cell | None, title: str, kind: Any) -> Iterator[Pair]:
    ones, others = kind(left), kind(right)
    for place in range(max(len(ones), len(others))):
        one = ones[place] if place < len(ones) else None
        other = others[place] if place < len(others) else None
        yield Pair(title, one, other, one == other)


_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.DOTALL)


def _marked(pair: Pair) -> Pair:
    """Two tables with the cells marked that are not the same: rows by what they are called, cells by their place."""
    if pair.same or pair.left is None or pair.right is None:
        return pair
    ones, others = _rows(pair.left), _rows(pair.right)
    return replace(pair, left=_mark(pair.left, others), right=_mark(pair.right, ones))


def _rows(table: str) -> dict[tuple[str, int], list[str]]:
    """A table's rows, by their keys."""
    seen: Counter[str] = Counter()
    rows = ([cell[2] for cell in _CELL.findall(row)] for row in _ROW.findall(table))
    return {_key(cells, seen): cells for cells in rows}


def _key(cells: Sequence[str], seen: Counter[str]) -> tuple[str, int]:
    """What a row is called: its first cell, and how often that came before."""
    name = cells[0] if cells else ""
    seen[name] += 1
    return name, seen[name]


def _mark(table: Markup, others: Mapping[tuple[str, int], list[str]]) -> Markup:
    """A table with a class on each cell that the other table has not, or has otherwise."""
    seen: Counter[str] = Counter()

    def row(found: re.Match[str]) -> str:
        theirs = others.get(_key([cell[2] for cell in _CELL.findall(found[0])], seen), [])
        places = itertools.count()

        def cell(each: re.Match[str]) -> str:
            place = next(places)
            same = place < len(theirs) and theirs[place] == each[3]
            tag, attributes = each[1], re.sub(r' class="[^"]*"', "", each[2])
            return each[0] if same else f'<{tag}{attributes} class="nb-moved">{each[3]}</{tag}>'

        return _CELL.sub(cell, found[0])

    return Markup(_ROW.sub(row, table))  # noqa: S704  (made of harmless HTML, and of nothing else)


def _tables(cell: Cell | None) -> list[Markup]:
    found = (data["text/html"] for data in _data(cell) if "<table" in data.get("text/html", ""))
    return [render.harmless(html[:LIMIT]) for html in found]


def _charts(cell: Cell | None) -> list[Markup]:
    found = (data["image/png"] for data in _data(cell) if "image/png" in data)
    return [
        render.harmless(f'<img alt="" src="data:image/png;base64,{re.sub(r"[^A-Za-z0-9+/=]", "", png)}">')
        for png in found
    ]


def _data(cell: Cell | None) -> list[Mapping[str, Any]]:
    return [output.get("data") or {} for output in (cell or {}).get("outputs") or []]


def _source(cell: Cell | None) -> str:
    return str(cell["source"]) if cell else ""


def _tags(cell: Cell) -> set[str]:
    return set(cell.get("metadata", {}).get("tags") or [])


def _heading(cell: Cell | None) -> str:
    found = re.search(r"^#+ (.+)$", _source(cell), re.MULTILINE) if cell and cell["cell_type"] == "markdown" else None
    return found[1] if found else ""


# --- words -----------------------------------------------------------------------------------------------------------


def _weight(change: Change) -> float:
    """How much a number moved: what cannot be put in figures comes first."""
    if change.difference is None:
        return float("inf")
    return abs(change.percent) if change.percent is not None else abs(change.difference)


def _words(change: Change) -> str:
    if change.percent is not None:
        return f"{change.name} {change.percent:+.1f}%".replace("-", "−")
    if change.share and change.difference is not None:
        return f"{change.name} {change.difference:+.1f} points".replace("-", "−")
    if change.difference is not None:
        return f"{change.name} {change.difference:+,.10g}".replace("-", "−")
    shown = [
        json.dumps(each, ensure_ascii=False) if not isinstance(each, str) else each
        for each in (change.left, change.right)
    ]
    return f"{change.name} {shown[0]} → {shown[1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
