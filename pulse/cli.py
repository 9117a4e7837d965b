"""The `pulse` command: each room's commands put together, and those of the distributions installed beside this one."""

import configparser
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import typer

from pulse import PulseError, settings
from pulse.dashboards import commands as dashboards
from pulse.delivery import commands as delivery
from pulse.doctor import commands as doctor
from pulse.execution import commands as execution
from pulse.monitoring import commands as monitoring
from pulse.orchestration import commands as orchestration
from pulse.publishing import commands as publishing
from pulse.reports import commands as reports
from pulse.sources import commands as sources

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Pulse, from the command line.")
for room in (orchestration, publishing, monitoring, reports, delivery, doctor):
    app.add_typer(room.app)
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(execution.archive_app, name="archive")
app.add_typer(sources.app, name="source")
for added in entry_points(group="pulse.commands"):
    app.add_typer(added.load(), name=added.name)


@app.callback()
def environment() -> None:
    """Pulse, from the command line."""
    # Without an Airflow of your own, Pulse uses one in the project's folder, with a UI on this machine only.
    os.environ.setdefault("AIRFLOW_HOME", str(settings.ROOT / ".airflow"))
    os.environ.setdefault("AIRFLOW__CORE__DAGS_FOLDER", str(settings.ROOT / "dags"))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    os.environ.setdefault("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False")
    os.environ.setdefault("AIRFLOW__API__HOST", "127.0.0.1")
    # On a busy machine Airflow's API answers slowly, and its default timeout of five seconds would fail tasks.
    os.environ.setdefault("AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", "60")
    os.environ.setdefault("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "15")
    # The number of concurrent tasks, and of worker processes: the default, 32, takes 3 GB of memory.
    os.environ.setdefault("AIRFLOW__CORE__PARALLELISM", "4")
    os.environ.setdefault("AIRFLOW__CORE__DEFAULT_TIMEZONE", settings.load().timezone)
    if _airflow_database().startswith("sqlite"):
        for name in ("SQL_ALCHEMY_CONNECT_ARGS", "SQL_ALCHEMY_CONNECT_ARGS_ASYNC"):
            os.environ.setdefault(f"AIRFLOW__DATABASE__{name}", "pulse.orchestration.server.SQLITE")


def _airflow_database() -> str:
    """The address of Airflow's database; empty where only Airflow can find it out, by a command or a secrets backend.

    Airflow writes its defaults into airflow.cfg when it first starts.
    """
    variable, elsewhere = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", ("cmd", "secret")
    if any(f"{variable}_{how.upper()}" in os.environ for how in elsewhere):
        return os.environ.get(variable, "")
    written = configparser.RawConfigParser(strict=False)
    written.read(os.environ.get("AIRFLOW_CONFIG", Path(os.environ["AIRFLOW_HOME"], "airflow.cfg")))
    unknown = any(written.has_option("database", f"sql_alchemy_conn_{how}") for how in elsewhere)
    of_file = written.get("database", "sql_alchemy_conn", fallback="" if unknown else "sqlite")
    return os.environ.get(variable) or of_file


def main() -> None:
    """The entry point: prints a PulseError as one sentence and exits with code 1."""
    try:
        app()
    except PulseError as error:
        typer.echo(f"{error}", err=True)
        sys.exit(1)
