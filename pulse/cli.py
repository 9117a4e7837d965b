"""The `pulse` command."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from pulse import PulseError, settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Pulse, from the command line.")
sandbox = typer.Typer(no_args_is_help=True, help="The stand-in for ClickHouse on this machine.")
app.add_typer(sandbox, name="sandbox")

EventDate = Annotated[str, typer.Argument(help="An ISO date, or the word yesterday.")]


@app.callback()
def environment() -> None:
    """Pulse, from the command line."""
    # Where nobody has set up an Airflow, the project has one of its own, with a UI on this machine only.
    os.environ.setdefault("AIRFLOW_HOME", str(settings.ROOT / ".airflow"))
    os.environ.setdefault("AIRFLOW__CORE__DAGS_FOLDER", str(settings.ROOT / "dags"))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    os.environ.setdefault("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False")
    os.environ.setdefault("AIRFLOW__API__HOST", "127.0.0.1")


@app.command()
def daily(event_date: EventDate = "yesterday") -> None:
    """Run the daily DAGs for a day, in one process, and show what they published."""
    config = settings.load()
    day = config.event_day(event_date)
    _call("airflow", "db", "migrate", quietly=True)
    _call("airflow", "dags", "test", "etl", "--conf", json.dumps({"event_date": str(day)}))
    show(str(day))


@app.command()
def show(event_date: EventDate = "yesterday") -> None:
    """Show a published day: its metrics and its largest slices."""
    import pandas as pd

    from pulse import clickhouse

    config = settings.load()
    day = config.event_day(event_date)
    db = clickhouse.connect(config)
    metrics = db.read("select * from daily_metrics where event_date = {day:Date}", day=day)
    if metrics.empty:
        raise PulseError(f"{day} is not published in {config.database}; run `pulse daily {day}`.")
    largest = """
    -- The largest slices of a day, at most five of each dimension
    select dimension, dimension_value, views, likes, messages_received, messages_sent, users_received, users_sent
    from dimension_activity
    where event_date = {day:Date}
    order by dimension desc, views desc
    limit 5 by dimension
    """
    slices = db.read(largest, day=day)
    with pd.option_context("display.width", 160, "display.float_format", "{:,.3f}".format):
        numbers = metrics.drop(columns="event_date").loc[0]
        typer.echo(f"\n{config.database}.daily_metrics, {day:%A %d %B %Y}\n")
        for name, number in numbers.items():
            typer.echo(f"  {name:<20}{'–' if pd.isna(number) else f'{number:>12,.10g}'}")
        typer.echo(f"\n{config.database}.dimension_activity, the largest slices\n")
        typer.echo(slices.to_string(index=False, formatters=dict.fromkeys(slices.columns[2:], "{:,}".format)))
    typer.echo(f"\nThe executed notebooks are in {config.output}/etl/{day}/")


@sandbox.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox_run(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="Another seed makes other events.")] = 1,
    events: Annotated[int, typer.Option(help="Events on a usual day.")] = 300_000,
    days: Annotated[int, typer.Option(help="Days of events, up to yesterday.")] = 35,
) -> None:
    """Run a command (after --) with the sandbox beside it: started unless it runs already, filled up to yesterday.

    With a CLICKHOUSE_URL of your own there is nothing to start, and the command runs against that.
    """
    from pulse.sandbox import clickhouse
    from pulse.sandbox import events as demo

    config = settings.load()
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    with ExitStack() as stack:
        if config.clickhouse_url.get_secret_value() == settings.SANDBOX_CLICKHOUSE_URL:
            port = int(settings.SANDBOX_CLICKHOUSE_URL.rsplit(":", 1)[1])
            folder = settings.ROOT / ".sandbox" / "clickhouse"
            server = clickhouse.answering(port) or stack.enter_context(clickhouse.running(folder, port))
            made = demo.App(config.zone, config.source_database, seed=seed, events_per_day=events)
            rows = demo.fill(server, made, days=days)
            typer.echo(f"The sandbox's ClickHouse answers on port {port}; {rows:,} new events.", err=True)
        raise typer.Exit(_run_until_it_ends(context.args))


def _run_until_it_ends(command: list[str]) -> int:
    """Run a command; Ctrl-C is its own to handle, and what it stands on stays until it is done with that."""
    if not command:
        raise PulseError("There is no command; give one after --, such as `pulse sandbox run -- pulse daily`.")
    try:
        process = subprocess.Popen(command)
    except FileNotFoundError:
        raise PulseError(f"There is no command {command[0]}; check its name.") from None
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def _call(*command: str, quietly: bool = False) -> None:
    brief = {
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow.task.operators.pulse=INFO",
        # About what Airflow could use if it were installed; a newcomer would take them for failures.
        "PYTHONWARNINGS": "ignore:Could not import graphviz,ignore:Using `httpx` with",
    }
    done = subprocess.run(command, capture_output=quietly, text=True, env={**brief, **os.environ})
    if done.returncode:
        if quietly:
            typer.echo(done.stdout + done.stderr, err=True)
        raise PulseError(f"`{' '.join(command[:4])}` failed; its last lines above say why.")


def main() -> None:
    """The entry point: an error of ours is a sentence and exit code 1."""
    try:
        app()
    except PulseError as error:
        typer.echo(f"{error}", err=True)
        sys.exit(1)
