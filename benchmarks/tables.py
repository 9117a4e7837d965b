"""What the benchmarks print: tables that read well as plain text and as Markdown, and progress on stderr."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Figure:
    """A row of a table of goals. `reached` is None if there is no goal."""

    name: str
    measured: str
    goal: str = ""
    reached: bool | None = None


def goals(figures: Iterable[Figure]) -> str:
    """Print figures next to their goals."""
    words = {True: "yes", False: "no", None: ""}
    rows = [(figure.name, figure.measured, figure.goal, words[figure.reached]) for figure in figures]
    return table([("figure", "measured", "goal", "reached"), *rows])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Print rows of cells; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def progress(text: str) -> None:
    """Say on stderr what is being measured; only the tables go to stdout."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)
