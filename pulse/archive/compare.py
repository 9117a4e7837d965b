"""The differences between two runs of a notebook: parameters, code, numbers, tables and charts.

Cells are matched by their ids, which an executed notebook takes from its source, or by their code if the ids differ.
Outputs are compared cell by cell. The time grows linearly with the number of lines, so a page need not wait for it.
"""

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import nbformat
from markupsafe import Markup

from pulse.archive import executed, render
from pulse.archive.executed import Cell, number

LIMIT = 300_000
"""How many characters of a table are shown."""


@dataclass(frozen=True)
class Change:
    """A value in both runs, with `difference` and `percent` if both are numbers."""

    name: str
    left: Any
    right: Any
    difference: float | None = None
    percent: float | None = None  # None also if the left value is zero
    share: bool = False  # the values are percentages, so the difference is in percentage points
    own: bool = False  # the value is the run's own name, so it differs in every run

    @property
    def same(self) -> bool:
        """Whether the value is the same in both runs."""
        return bool(self.left == self.right)


@dataclass(frozen=True)
class Code:
    """A cell that was changed, added or removed: its lines, each with `+`, `-` or a blank."""

    title: str
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Pair:
    """An output of both runs, or of one of them, under the same heading; as harmless HTML."""

    title: str
    left: Markup | None
    right: Markup | None
    same: bool = False


@dataclass(frozen=True)
class Comparison:
    """The differences between two runs, of which the left one is usually the earlier."""

    parameters: list[Change] = field(default_factory=list)
    numbers: list[Change] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)
    tables: list[Pair] = field(default_factory=list)
    charts: list[Pair] = field(default_factory=list)
    commits: tuple[str, str] = ("", "")
    outcomes: tuple[str, str] = ("", "")

    def exceptions(self) -> list[str]:
        """The differences in a few words each, the most important first; empty if there are none."""
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
        ValueError: one of them is not a notebook.
    """
    try:
        return _compare(_node(left), _node(right))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a cell is not as Jupyter writes it ({type(error).__name__}: {error})") from None


def _compare(one: executed.Node, other: executed.Node) -> Comparison:
    left, right = executed.run(one), executed.run(other)
    pairs = list(_aligned(one, other))
    return Comparison(
        parameters=_parameters(left, right),
        numbers=_changes(*(executed.key_numbers(executed.scraps(node)) for node in (one, other))),
        code=[_code(*pair) for pair in pairs if _source(pair[0]) != _source(pair[1])],
        tables=[_marked(each) for pair in pairs for each in _outputs(*pair, _tables)],
        charts=[each for pair in pairs for each in _outputs(*pair, _charts)],
        commits=(left.commit, right.commit),
        outcomes=(left.outcome, right.outcome),
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _node(content: bytes) -> executed.Node:
    try:
        node: executed.Node = nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # nbformat raises many kinds of errors
        raise ValueError(f"it is not a notebook ({type(error).__name__})") from None
    return node


def _parameters(left: executed.Run, right: executed.Run) -> list[Change]:
    changes = _changes(left.parameters, right.parameters)
    return [replace(each, own=_names(left, each.left) and _names(right, each.right)) for each in changes]


def _names(run: executed.Run, value: Any) -> bool:
    """Whether the value of a parameter is the run's own name, which differs in every run."""
    name = re.sub("[^A-Za-z0-9]+", "_", run.run_id).strip("_")
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


def _aligned(left: executed.Node, right: executed.Node) -> Iterator[tuple[Cell | None, Cell | None, str]]:
    """The cells of both notebooks in pairs, each pair with its heading."""
    lefts, rights = _cells(left), _cells(right)
    ids = {cell.get("id") for cell in lefts} & {cell.get("id") for cell in rights} - {None}
    ones, others = (
        [str(cell["id"]) if cell.get("id") in ids else _source(cell) for cell in cells] for cells in (lefts, rights)
    )
    title = ""
    for _, start, end, first, last in difflib.SequenceMatcher(None, ones, others, autojunk=False).get_opcodes():
        for one, other in _paired(lefts[start:end], rights[first:last]):
            title = _heading(other or one) or title
            yield one, other, title


def _paired(ones: Sequence[Cell], others: Sequence[Cell]) -> Iterator[tuple[Cell | None, Cell | None]]:
    """Pair cells at the same position in order, each with the next one of the same type."""
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


def _cells(node: executed.Node) -> list[Cell]:
    """The cells of a notebook without those that papermill adds; parameters are compared by name."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    return [cell for cell in executed.cells(node) if not added & executed.tags(cell)]


def _code(left: Cell | None, right: Cell | None, title: str) -> Code:
    ones, others = _source(left).splitlines(), _source(right).splitlines()
    lines = difflib.unified_diff(ones, others, n=len(ones) + len(others), lineterm="")
    # The first three lines are the header of the patch.
    return Code(title, [(line[0], line[1:]) for line in itertools.islice(lines, 3, None)])


def _outputs(
    left: Cell | None, right: Cell | None, title: str, kind: Callable[[Cell | None], list[Markup]]
) -> Iterator[Pair]:
    for one, other in itertools.zip_longest(kind(left), kind(right)):
        yield Pair(title, one, other, one == other)


_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.DOTALL)


def _marked(pair: Pair) -> Pair:
    """Mark the cells that differ between two tables: rows are matched by their first cell, cells by their position."""
    if pair.same or pair.left is None or pair.right is None:
        return pair
    ones, others = _rows(pair.left), _rows(pair.right)
    return replace(pair, left=_mark(pair.left, others), right=_mark(pair.right, ones))


def _rows(table: str) -> dict[tuple[str, int], list[str]]:
    """The rows of a table by their keys."""
    seen: Counter[str] = Counter()
    rows = ([cell[2] for cell in _CELL.findall(row)] for row in _ROW.findall(table))
    return {_key(cells, seen): cells for cells in rows}


def _key(cells: Sequence[str], seen: Counter[str]) -> tuple[str, int]:
    """The key of a row: its first cell, and how many rows up to this one begin with the same."""
    name = cells[0] if cells else ""
    seen[name] += 1
    return name, seen[name]


def _mark(table: Markup, others: Mapping[tuple[str, int], list[str]]) -> Markup:
    """A table with a CSS class on each cell that is missing or different in the other table."""
    seen: Counter[str] = Counter()

    def row(found: re.Match[str]) -> str:
        theirs = others.get(_key([cell[2] for cell in _CELL.findall(found[0])], seen), [])
        positions = itertools.count()

        def cell(each: re.Match[str]) -> str:
            position = next(positions)
            same = position < len(theirs) and theirs[position] == each[3]
            tag, attributes = each[1], re.sub(r' class="[^"]*"', "", each[2])
            return each[0] if same else f'<{tag}{attributes} class="nb-moved">{each[3]}</{tag}>'

        return _CELL.sub(cell, found[0])

    return Markup(_ROW.sub(row, table))  # noqa: S704  (it is made from harmless HTML only)


def _tables(cell: Cell | None) -> list[Markup]:
    found = (executed.text(data.get("text/html")) for data in _data(cell))
    return [render.harmless(html[:LIMIT]) for html in found if "<table" in html]


def _charts(cell: Cell | None) -> list[Markup]:
    found = (executed.text(data["image/png"]) for data in _data(cell) if "image/png" in data)
    return [
        render.harmless(f'<img alt="" src="data:image/png;base64,{re.sub(r"[^A-Za-z0-9+/=]", "", png)}">')
        for png in found
    ]


def _data(cell: Cell | None) -> list[Mapping[str, Any]]:
    return executed.outputs(cell) if cell else []


def _source(cell: Cell | None) -> str:
    return executed.source(cell) if cell else ""


def _heading(cell: Cell | None) -> str:
    found = re.search(r"^#+ (.+)$", _source(cell), re.MULTILINE) if cell and cell["cell_type"] == "markdown" else None
    return found[1] if found else ""


# --- words -----------------------------------------------------------------------------------------------------------


def _weight(change: Change) -> float:
    """How much a number changed; a change without a difference comes first."""
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
    left, right = (
        each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in (change.left, change.right)
    )
    return f"{change.name} {left} → {right}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
