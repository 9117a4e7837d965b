"""What the benchmarks print: tables in plain text and Markdown at once, and on stderr what is being measured."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Figure:
    """One line of a table of goals. `reached` is None where there is no goal."""

    name: str
    measured: str
    goal: str = ""
    reached: bool | None = None


def goals(figures: Iterable[Figure]) -> str:
    """Figures beside their goals."""
    words = {True: "yes", False: "no", None: ""}
    rows = [(figure.name, figure.measured, figure.goal, words[figure.reached]) for figure in figures]
    return table([("figure", "measured", "goal", "reached"), *rows])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first of them the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def progress(text: str) -> None:
    """Tell on stderr what is being measured; the tables alone go to stdout."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)
