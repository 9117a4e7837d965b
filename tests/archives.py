"""Writes archives the way runs do, for tests that need many notebooks but no kernel."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulse.archive import manifest

RUN = "scheduled_2026_11_23T02_00_00_00_00_abcdef"


def place(name: str = "load", day: str = "2026-11-22", number: int = 1, dag: str = "etl") -> str:
    return f"{dag}/{day}/{RUN}/{name}.{number}.ipynb"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def notebook(
    outcome: str = "succeeded", after: str = manifest.GENESIS, started: str = "", place: str = "", **glued: Any
) -> str:
    """Returns an executed notebook that glued these values."""
    outputs = [
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {
                "application/scrapbook.scrap.json+json": {"name": name, "data": value, "encoder": "json", "version": 1}
            },
        }
        for name, value in glued.items()
    ]
    about = {
        "outcome": outcome, "after": after, "run_id": "scheduled__1", "started": started or now(),
        "seconds": 1.5, "parameters": {"event_date": "2026-11-22"}, "commit": "c0ffee", "started_by": "scheduled",
        "place": place,
        "error": None if outcome in ("succeeded", "running") else {"cell": 3, "message": "no rows for the day"},
    }  # fmt: skip
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Load\n\nWhat it is for."},
        {
            "cell_type": "code",
            "metadata": {},
            "source": "1",
            "execution_count": None if outcome == "running" else 1,
            "outputs": outputs,
        },
    ]
    return json.dumps({"cells": cells, "metadata": {"pulse": about}, "nbformat": 4, "nbformat_minor": 4})


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").rename(path)


def begin(root: Path, where: str, started: str = "") -> None:
    started = started or now()
    write(root / where, notebook("running", manifest.head(root), started))
    manifest.append(root, {"what": "begun", "path": where, "at": started})


def end(root: Path, where: str, outcome: str, text: str, at: str = "") -> str:
    """Record the end of a notebook, as a run does. Returns the notebook's SHA-256."""
    write(root / where, text)
    manifest.append(root, {**manifest.ending(outcome, text.encode()), "path": where, "at": at or now()})
    return hashlib.sha256(text.encode()).hexdigest()


def keep(root: Path, where: str, outcome: str = "succeeded", started: str = "", **glued: Any) -> str:
    """Record a whole attempt, as a run does. Returns the notebook's SHA-256."""
    after, started = manifest.head(root), started or now()
    begin(root, where, started)
    return end(root, where, outcome, notebook(outcome, after, started, place=where, **glued), started)
