"""Measures the archive: how fast its pages are, and what it adds to a run. Prints one table.

    python -m benchmarks.archive [--runs 10000]
    python -m benchmarks.archive --into FOLDER [--runs 10000]    only write the archive that is measured

The archive holds small notebooks like those of the monitoring: one every 15 minutes, with an alert or a failure now and
then. The notebook that is rendered is large: 40 code cells, ten tables, four charts of 300 kB.
"""

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.tables import Figure, goals, progress
from pulse import settings
from pulse.archive import index, manifest, pages, proof
from pulse.execution import record

RUNS = 10_000
LAST = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCRAP = "application/scrapbook.scrap.json+json"
OUTCOMES = ("succeeded",) * 60 + ("failed", "timed out")

RENDER = """
import sys, time
started = time.perf_counter()
from pulse.archive import render
render.notebook(open(sys.argv[1], "rb").read())
print(time.perf_counter() - started)
"""


def fill(root: Path, runs: int) -> None:
    """Write an archive of `runs` small runs, the latest on a fixed day."""
    chance = random.Random(1)  # noqa: S311
    entries = []
    for number in range(runs):
        at = LAST - timedelta(minutes=15 * (runs - 1 - number))
        outcome = chance.choice(OUTCOMES)
        place = f"monitoring/{at:%Y-%m-%d}/scheduled_{at:%Y_%m_%dT%H_%M}_00_00_00_{number:06}/anomalies.1.ipynb"
        content = small(at, outcome, chance).encode()
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)
        ended = {**manifest.ending(outcome, content), "path": place, "at": at.isoformat()}
        entries += [{"what": "begun", "path": place, "at": at.isoformat()}, ended]
    (root / manifest.NAME).touch()
    manifest.append(root, *entries)


def small(at: datetime, outcome: str, chance: random.Random) -> str:
    """A small executed notebook, like one of the monitoring."""
    alerts = ["DAU is far below what was expected"] if chance.random() < 0.01 else []
    glued = {"alerts": alerts, "numbers": [["DAU", chance.randint(9_000, 15_000)], ["CTR", f"{chance.random():.1%}"]]}
    about = {
        "outcome": outcome, "dag": "monitoring", "task": "anomalies", "notebook": "anomalies", "try": 1,
        "run_id": f"scheduled__{at.isoformat()}", "started": at.isoformat(), "seconds": round(chance.uniform(3, 9), 1),
        "started_by": "scheduled", "commit": "0" * 40, "parameters": {"as_of": at.isoformat()}, "queries": [],
        "error": None if outcome == "succeeded" else {"cell": 7, "message": "No ClickHouse server answers"},
    }  # fmt: skip
    cells = [text("# Anomalies\n\n**Is anything far from what was expected?**")]
    cells += [
        code("metrics = db.read(buckets, as_of=moment)", {SCRAP: {"name": n, "data": v}}) for n, v in glued.items()
    ]
    return notebook(cells, about)


def large() -> str:
    """An executed notebook with many large outputs."""
    chance = random.Random(2)  # noqa: S311
    cells = [text("# A large notebook")]
    for number in range(40):
        source = "\n".join(f"value_{line} = compute({line}, 'text', limit=10)  # what it is" for line in range(30))
        cells += [text(f"## Step {number}\n\nA sentence with the question."), code(source)]
        if number % 4 == 0:
            rows = "".join(
                f"<tr>{''.join(f'<td>{row * column:,}</td>' for column in range(8))}</tr>" for row in range(60)
            )
            cells.append(code("frame", {"text/html": f'<table class="dataframe"><tbody>{rows}</tbody></table>'}))
        if number % 10 == 0:
            cells.append(code("figure", {"image/png": base64.b64encode(chance.randbytes(300_000)).decode()}))
    return notebook(cells, {"outcome": "succeeded"})


def text(source: str) -> dict[str, Any]:
    """A Markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """An executed code cell with its outputs."""
    outputs = [{"output_type": "display_data", "metadata": {}, "data": data}] if data else []
    return {"cell_type": "code", "metadata": {}, "source": source, "execution_count": 1, "outputs": outputs}


def notebook(cells: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The notebook as text, the way the archive stores it."""
    return json.dumps({"cells": cells, "metadata": {"pulse": about}, "nbformat": 4, "nbformat_minor": 4}, indent=1)


def timed(work: Callable[[], Any], rounds: int = 1) -> float:
    """Seconds that `work` takes, the median of the rounds."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return sorted(found)[rounds // 2]


def list_page(root: Path, **wanted: str) -> str:
    """The list as Airflow shows it: open the index, bring it up to date, render the page for a reader's pipelines."""
    with index.opened(root) as opened:
        seen = frozenset(opened.dags())
        return pages.list_page(opened, pages.Look(settings.load(), dags=seen), index.Filter(**wanted, dags=seen))


def keep_one(root: Path, number: int) -> None:
    """What the manifest adds to a run: its beginning, its end, the index."""
    path = root / "monitoring" / "2026-11-23" / f"run_{number}" / "anomalies.1.ipynb"
    path.parent.mkdir(parents=True)
    content = small(LAST, "succeeded", random.Random(number))  # noqa: S311
    path.write_text(content)
    book = record.Book.of(str(root), str(path))
    book.head()
    book.begun()
    book.ended("succeeded", content)


def figures(root: Path, runs: int) -> list[Figure]:
    """All figures, one row each."""
    progress(f"making an archive of {runs:,} runs")
    fill(root, runs)
    progress("measuring")
    index_seconds = timed(lambda: index.rebuild(root))
    plain = timed(lambda: list_page(root), 5)
    found = timed(lambda: list_page(root, text="far below", outcome="succeeded"), 5)
    numbers = iter(range(1_000))
    added = timed(lambda: keep_one(root, next(numbers)), 21)
    verified = timed(lambda: proof.verify(root))
    with tempfile.NamedTemporaryFile("w", suffix=".ipynb") as file:
        file.write(large())
        file.flush()
        command = [sys.executable, "-c", RENDER, file.name]
        cold = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        from pulse.archive import render

        render.warm_up()
        warm = timed(lambda: render.notebook(Path(file.name).read_bytes()), 3)
    return [
        Figure(f"list page of {runs:,} runs", f"{plain:.3f} s", "< 1 s", plain < 1),
        Figure("… by words and outcome", f"{found:.3f} s", "< 1 s", found < 1),
        Figure("a large notebook rendered", f"{warm:.2f} s (in a fresh process {cold:.1f} s)", "< 2 s", warm < 2),
        Figure("added to a notebook run", f"{1000 * added:.0f} ms", "< 100 ms", added < 0.1),
        Figure("the index rebuilt", f"{index_seconds:.1f} s"),
        Figure("pulse archive verify", f"{verified:.1f} s"),
    ]


def main() -> None:
    """Measure and print, or only write an archive."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive", description="Measure the archive.")
    parser.add_argument("--runs", type=int, default=RUNS, help="in the archive (%(default)s)")
    parser.add_argument("--into", type=Path, help="only make the archive, in this folder")
    arguments = parser.parse_args()
    if arguments.into:
        fill(arguments.into, arguments.runs)
        return
    with tempfile.TemporaryDirectory(prefix="pulse-bench-") as name:
        print(goals(figures(Path(name), arguments.runs)))


if __name__ == "__main__":
    main()
