"""The commands that run Airflow and its DAGs."""

import logging
import os
import warnings
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
    from pulse import clickhouse, schema

    config = settings.load()
    day = config.event_day(event_date)
    schema.ensure(clickhouse.connect(config))  # no server: say so now, and not after everything else
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

    failures: list[str] = []
    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags
    for name in ("etl", "daily_report"):
        for task in dags[name].tasks:
            task.retries = 0  # somebody is looking on
            if isinstance(task, TellOperator):
                task.look = False  # no schedule is kept here
            before: Any = task.on_failure_callback  # a list, whatever it was given as
            task.on_failure_callback = [*before, lambda context: failures.append(f"{context['exception']}")]
        if dags[name].test(run_conf={"event_date": str(day)}).state != "success":
            reasons = "\n".join(dict.fromkeys(failures)) or "the log above says why."
            raise PulseError(f"{name} failed for {day}: {reasons}")
    show(str(day))
