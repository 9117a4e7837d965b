"""Publishes the days before yesterday, so that a newcomer's first report has a week to compare with.

The dashboards then have every day of the sandbox too. The code cells of the ETL's own notebooks run one after the other
in this process, without a kernel, Airflow or the archive: a day takes a second.
"""

import io
import os
import threading
import warnings
from contextlib import redirect_stdout
from datetime import date, timedelta
from types import CodeType
from typing import Any, TypeAlias

import nbformat

from pulse import clickhouse, schema, settings
from pulse.publishing import loads
from pulse.settings import ROOT

STEPS = ("extract_feed", "extract_messages", "transform", "load")
Cells: TypeAlias = list[tuple[CodeType, bool]]
WEEK = 7
"""How many days a report compares its own day with."""


def publish(days: int = WEEK, enough: threading.Event | None = None) -> list[date]:
    """Publish the days before yesterday that are not published yet, the newest first.

    Args:
        days: how many days to look at, back from the day before yesterday; the sandbox must have their events.
        enough: once it is set, no other notebook is begun, so a command's end need not wait for a whole day.

    Returns:
        The days that were published.

    Raises:
        PulseError: a day cannot be computed.
    """
    config = settings.load()
    db = clickhouse.connect(config)
    schema.ensure(db)
    there = set(db.read("select event_date from daily_metrics")["event_date"].dt.date)
    yesterday = config.event_day("yesterday")
    missing = [day for back in range(1, days + 1) if (day := yesterday - timedelta(days=back)) not in there]
    run = f"history_{os.getpid()}"
    steps = [_cells(step) for step in STEPS] if missing else []
    published = []
    for day in missing:
        if not _publish_day(steps, day, run, enough):
            break
        published.append(day)
    for table in loads.staging(db, run):
        db.execute("drop table if exists {table:Identifier}", table=table)
    return published


def _publish_day(steps: list[Cells], day: date, run: str, enough: threading.Event | None) -> bool:
    """Run the notebooks for a day. Returns whether all of them ran."""
    for cells in steps:
        if enough and enough.is_set():
            return False
        _run(cells, event_date=str(day), run=run)
    return True


def _cells(step: str) -> Cells:
    """The code cells of a notebook, compiled, each with whether it has the parameters."""
    node = nbformat.read(ROOT / "notebooks" / "etl" / f"{step}.ipynb", as_version=4)
    return [
        (compile(cell.source, f"{step}.ipynb", "exec"), "parameters" in cell.metadata.get("tags", []))
        for cell in node.cells
        if cell.cell_type == "code"
    ]


def _run(cells: Cells, **parameters: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No kernel detected")  # scrapbook's, which then prints what is glued
        for code, sets_parameters in cells:
            exec(code, names)  # noqa: S102 (our own notebooks)
            if sets_parameters:  # where papermill injects them
                names.update(parameters)
