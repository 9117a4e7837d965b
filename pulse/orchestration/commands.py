"""The commands that run Airflow and its DAGs."""

import logging
import os
import warnings
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pulse import PulseError, settings
from pulse.publishing.commands import EventDate, show

app = typer.Typer()


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def airflow(command: Annotated[list[str] | None, typer.Argument(help="A command of Airflow's own.")] = None) -> None:
    """Run all parts of Airflow on this machine until stopped, and restart each part that ends.

    With a command of Airflow, such as `dags list`, run only that command in the same Airflow.
    """
    if command:
        os.execvp("airflow", ["airflow", *command])  # noqa: S606
    from pulse.orchestration import server

    server.run(Path(os.environ["AIRFLOW_HOME"]), typer.echo)


@app.command()
def daily(event_date: EventDate = "yesterday") -> None:
    """Run the daily DAGs for a day, in one process, and show what they published."""
    day = settings.load().event_day(event_date)
    run = _in_this_process()
    run("etl", day)
    if hold := _hold(day):
        raise PulseError(str(hold))
    run("daily_report", day)
    show(str(day))


@app.command()
def backfill(first: EventDate, last: EventDate) -> None:
    """Publish each day from the first to the last: run etl for one after the other, in one process.

    That is quicker than Airflow's own backfill. Nothing is reported. Days that are held are listed at the end.
    """
    config = settings.load()
    start, end = config.event_day(first), config.event_day(last)
    if start > end:
        raise PulseError(f"The first day, {start}, is after the last, {end}; give the earlier one first.")
    run = _in_this_process()
    days = [start + timedelta(days=number) for number in range((end - start).days + 1)]
    held = []
    for number, day in enumerate(days, 1):
        run("etl", day)
        hold = _hold(day)
        held += [hold] if hold else []
        typer.echo(f"{day} is {'held' if hold else 'published'}, {number} of {len(days)}")
    if held:
        raise PulseError("\n".join(map(str, held)))


def _hold(day: date) -> Any:
    """The hold of a day that is held; None if it is not."""
    from pulse import clickhouse
    from pulse.publishing import holds

    return next(iter(holds.held(clickhouse.connect(settings.load()), day)), None)


def _in_this_process() -> Callable[[str, date], None]:
    """Import Airflow, set up its database, and return a function that runs a DAG for a day in this process.

    Raises:
        PulseError: no ClickHouse answers, or Airflow's database cannot be set up; later, from the function: the DAG
            failed.
    """
    from pulse import clickhouse, schema

    schema.ensure(clickhouse.connect(settings.load()))  # no server: say so now, and not after everything else
    # Airflow reads its settings when it is imported. Two of its warnings are about what it could use if it were there.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("AIRFLOW__LOGGING__NAMESPACE_LEVELS", "airflow.task.operators.pulse=INFO")
    os.environ.setdefault("PYTHONWARNINGS", "ignore:Could not import graphviz,ignore:Using `httpx` with")
    warnings.filterwarnings("ignore", message="Using `httpx` with")
    from airflow.dag_processing.dagbag import DagBag
    from airflow.utils import db as metadata
    from sqlalchemy.exc import SQLAlchemyError

    try:
        metadata.upgradedb()  # what `airflow db migrate` does, which imports Airflow a second time
    except SQLAlchemyError as error:
        raise PulseError(f"Airflow's database cannot be set up: {error}") from None

    # "No tasks to run" is said at every branch that is not taken.
    logging.getLogger("airflow.sdk.definitions.dag").setLevel(logging.ERROR)
    from pulse.orchestration.failures import TellOperator
    from pulse.orchestration.holding import ReleaseOperator

    failures: list[str] = []
    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags
    for task in (task for dag in dags.values() for task in dag.tasks):
        task.retries = 0  # somebody is looking on
        if isinstance(task, TellOperator):
            task.look = False  # no schedule is kept here
        if isinstance(task, ReleaseOperator):
            task.wait = False  # somebody is told at once, and runs the day again after the release
        before: Any = task.on_failure_callback  # a list, whatever it was given as
        task.on_failure_callback = [*before, lambda context: failures.append(f"{context['exception']}")]

    def run(dag: str, day: date) -> None:
        if dags[dag].test(run_conf={"event_date": str(day)}).state != "success":
            reasons = "\n".join(dict.fromkeys(failures)) or "the log above says why."
            raise PulseError(f"{dag} failed for {day}: {reasons}")

    return run
