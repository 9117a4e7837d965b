"""The `pulse` command."""

import configparser
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulse import PulseError, settings
from pulse.archive.commands import app as archive

if TYPE_CHECKING:
    from pulse.sandbox.clickhouse import Server
    from pulse.sandbox.events import App

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Pulse, from the command line.")
sandbox = typer.Typer(no_args_is_help=True, help="The stand-ins for ClickHouse and Telegram on this machine.")
telegram = typer.Typer(no_args_is_help=True, help="The bot and its chats.")
deliveries = typer.Typer(help="The messages that were sent, and those that somebody has to look after.")
dashboards = typer.Typer(no_args_is_help=True, help="The dashboards, as code.")
app.add_typer(sandbox, name="sandbox")
app.add_typer(telegram, name="telegram")
app.add_typer(deliveries, name="deliveries")
app.add_typer(dashboards, name="dashboards")
app.add_typer(archive, name="archive")

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
    # Where everything runs on one machine, its API may be slow to answer; five seconds, the default, would fail a task.
    os.environ.setdefault("AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", "60")
    os.environ.setdefault("AIRFLOW__WORKERS__EXECUTION_API_RETRIES", "15")
    # As many tasks at once, and as many processes that wait for one; 32, the default, take 3 GB of memory.
    os.environ.setdefault("AIRFLOW__CORE__PARALLELISM", "4")
    os.environ.setdefault("AIRFLOW__CORE__DEFAULT_TIMEZONE", settings.load().timezone)
    if _airflow_database().startswith("sqlite"):
        for name in ("SQL_ALCHEMY_CONNECT_ARGS", "SQL_ALCHEMY_CONNECT_ARGS_ASYNC"):
            os.environ.setdefault(f"AIRFLOW__DATABASE__{name}", "pulse.airflow_server.SQLITE")


def _airflow_database() -> str:
    """Where Airflow's database is, "" where only Airflow can find that out: by a command, or in a store of secrets.

    Airflow writes its defaults into airflow.cfg when it is first started.
    """
    variable, elsewhere = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", ("cmd", "secret")
    if any(f"{variable}_{how.upper()}" in os.environ for how in elsewhere):
        return os.environ.get(variable, "")
    written = configparser.RawConfigParser(strict=False)
    written.read(os.environ.get("AIRFLOW_CONFIG", Path(os.environ["AIRFLOW_HOME"], "airflow.cfg")))
    unknown = any(written.has_option("database", f"sql_alchemy_conn_{how}") for how in elsewhere)
    of_file = written.get("database", "sql_alchemy_conn", fallback="" if unknown else "sqlite")
    return os.environ.get(variable) or of_file


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def airflow(command: Annotated[list[str] | None, typer.Argument(help="A command of Airflow's own.")] = None) -> None:
    """Run Airflow with all of its parts on this machine, each of them watched, until stopped.

    With a command of Airflow's own, such as `dags list`, run that one in the same Airflow.
    """
    if command:
        os.execvp("airflow", ["airflow", *command])  # noqa: S606
    from pulse import airflow_server

    airflow_server.run(Path(os.environ["AIRFLOW_HOME"]), typer.echo)


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
    migrated = subprocess.run(["airflow", "db", "migrate"], capture_output=True, text=True)
    if migrated.returncode:
        raise PulseError(f"Airflow's database cannot be set up:\n{migrated.stdout}{migrated.stderr}")
    from airflow.dag_processing.dagbag import DagBag

    # "No tasks to run" is said at every branch that is not taken.
    logging.getLogger("airflow.sdk.definitions.dag").setLevel(logging.ERROR)
    from pulse.airflow_tell import TellOperator

    failures: list[str] = []
    dags = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags
    for name in ("etl", "daily_report"):
        for task in dags[name].tasks:
            task.retries = 0  # somebody is looking on
            if isinstance(task, TellOperator):
                task.look = False  # no schedule is kept here
            task.on_failure_callback = [
                *task.on_failure_callback,
                lambda context: failures.append(f"{context['exception']}"),
            ]
        if dags[name].test(run_conf={"event_date": str(day)}).state != "success":
            reasons = "\n".join(dict.fromkeys(failures)) or "the log above says why."
            raise PulseError(f"{name} failed for {day}: {reasons}")
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
    typer.echo(f"\nThe executed notebooks, the report's chart in its own: {config.output}/*/{day}/")
    if config.telegram_bot_token.get_secret_value() == settings.SANDBOX_TELEGRAM_TOKEN:
        typer.echo(f"The report as readers see it: {settings.ROOT}/.sandbox/telegram/chat.html")


@app.command()
def buckets(
    days: Annotated[int, typer.Option(help="How many days, counted back from now.")] = 46,
) -> None:
    """Count the monitoring's buckets anew: after the source was corrected, or where too few days are there."""
    from pulse import notebooks

    config = settings.load()
    now = datetime.now(config.zone)
    run = f"by_hand {now:%H:%M:%S.%f}"
    path = f"{config.output.rstrip('/')}/buckets/{now.date()}/{notebooks.safe_name(run)}/anomalies.1.ipynb"
    done = notebooks.run(
        settings.ROOT / "notebooks" / "monitoring" / "anomalies.ipynb",
        path,
        {"fill_days": days},
        about={"dag": "buckets", "task": "anomalies", "run_id": run, "try": 1, "started_by": "by hand"},
        root=config.output,
    )
    typer.echo(f"The buckets of {days} days are counted. Archived at {done.path}")


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Bring the tables in ClickHouse to the version of this checkout, and read the source as pulse/sources.sql says.

    Pause the DAGs first: nothing else should write meanwhile. Interrupted, it can be run again.
    """
    from pulse import clickhouse, schema

    config = settings.load()
    done = schema.upgrade(clickhouse.connect(config), config.source_database, dry_run=dry_run)
    typer.echo("\n".join(done) or f"The tables in {config.database} are as this checkout needs them.")


@app.command()
def reconcile(event_date: EventDate = "yesterday") -> None:
    """Compare a day's numbers wherever they are shown: the tables, the archived report, Superset, Redash."""
    from pulse import books
    from pulse.reconcile import reconcile as compare

    config = settings.load()
    day = config.event_day(event_date)
    typer.echo(f"The numbers of {day} are the same in daily_metrics, {', '.join(compare(day, config))}.")
    for late in books.late_data(day, config):
        typer.echo(f"Late data: {late}.")


@telegram.command("chats")
def telegram_chats() -> None:
    """The chats that lately wrote to the bot, with the ids that TELEGRAM_…_CHATS want."""
    from pulse import telegram as bot

    found = bot.heard_from()
    if not found:
        typer.echo("Nobody wrote to the bot lately: send it a message, or mention it in the group, and ask again.")
    for chat, name in found:
        typer.echo(f"{chat}  {name}")


@telegram.command("test", context_settings={"ignore_unknown_options": True})
def telegram_test(
    chat: Annotated[str, typer.Argument(help="A chat id, or id/thread; ids of groups are negative.")],
) -> None:
    """Send a test message to a chat, and say what is wrong when it does not arrive."""
    from pulse import telegram as bot

    typer.echo(bot.check(chat))


@deliveries.callback(invoke_without_command=True)
def deliveries_pending(
    context: typer.Context,
    of: Annotated[str, typer.Option("--date", help="All of an event date: an ISO date, or the word yesterday.")] = "",
) -> None:
    """Without a command: the deliveries that somebody has to look after, or all of a day, with their references."""
    if context.invoked_subcommand:
        return
    from pulse import telegram as bot

    if of:
        day = settings.load().event_day(of)
        found, none = bot.of_day(day), f"Nothing was sent for {day}."
    else:
        found, none = bot.pending(), "Every message was sent, as far as anybody knows."
    if not found:
        typer.echo(none)
    for each in found:
        typer.echo(f"{each.ref}  {each.event_date}  {each.report}  chat {each.chat}  {each.state}")
        if each.error:
            typer.echo(f"    {each.error}")


@deliveries.command("arrived")
def deliveries_arrived(
    ref: Annotated[str, typer.Argument(help="The delivery's reference, or its first characters.")],
    message: Annotated[str, typer.Option(help="The message's id or link, so that it can be corrected later.")] = "",
) -> None:
    """Settle an unknown delivery: the message is in the chat."""
    from pulse import telegram as bot

    done = bot.arrived(ref, message)
    typer.echo(f"{done.report} of {done.event_date} stands in chat {done.chat}.")


@deliveries.command("resend")
def deliveries_resend(
    ref: Annotated[str, typer.Argument(help="The delivery's reference, or its first characters.")],
) -> None:
    """Settle an unknown delivery: it is not in the chat, or should be sent again."""
    from pulse import telegram as bot

    done = bot.resend(ref)
    typer.echo(
        f"Clear the task `deliver` of {done.report} for {done.event_date}: it will send to chat {done.chat} anew."
    )


@deliveries.command("dismiss")
def deliveries_dismiss(
    ref: Annotated[str, typer.Argument(help="The delivery's reference, or its first characters.")],
) -> None:
    """Take a failed delivery off the list, such as one to a chat that is not in the settings any more."""
    from pulse import telegram as bot

    done = bot.dismiss(ref)
    typer.echo(
        f"{done.report} of {done.event_date} to chat {done.chat} is off the list; a later run may still send it."
    )


Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what was changed there by hand.")]


@dashboards.command("superset")
def dashboards_superset(replace: Replace = False) -> None:
    """Install the dashboard in the Superset of SUPERSET_URL, or bring it up to date."""
    from pulse.dashboards import superset

    typer.echo(f"The dashboard is at {superset.install(settings.load(), replace=replace)}")


@dashboards.command("redash")
def dashboards_redash(replace: Replace = False) -> None:
    """Install the dashboard in the Redash of REDASH_URL, or bring it up to date, and the answers that Redash keeps."""
    from pulse.dashboards import redash

    config = settings.load()
    typer.echo(f"The dashboard is at {redash.install(config, replace=replace)}")
    redash.refresh(config)


@sandbox.command("superset")
def sandbox_superset() -> None:
    """A Superset of this machine's own with the dashboard in it, until Ctrl-C."""
    from pulse import clickhouse, schema
    from pulse.dashboards import superset
    from pulse.sandbox import superset as server

    config = settings.load()
    db = clickhouse.connect(config)
    schema.ensure(db)
    if not db.value("select count() from daily_metrics"):
        typer.echo("No day is published yet, so the dashboard is empty: `make run` publishes yesterday.")
    with server.running(port=server.PORT) as here:
        ours = {"SUPERSET_URL": here.url, "SUPERSET_USER": here.user, "SUPERSET_PASSWORD": here.password}
        address = superset.install(settings.load(**ours))
        secret = here.password if here.new else f"in {here.password_file}"
        typer.echo(f"The dashboard is at {address} (user {here.user}, password {secret})")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@sandbox.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox_run(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="Another seed makes other events.")] = 1,
    events: Annotated[int, typer.Option(help="Events on a usual day.")] = 300_000,
    days: Annotated[int, typer.Option(help="Days of events, up to yesterday.")] = 35,
    live: Annotated[bool, typer.Option(help="Let today's events go on arriving while the command runs.")] = False,
) -> None:
    """Run a command (after --) with the sandbox beside it: started unless it runs already, filled up to yesterday.

    With a CLICKHOUSE_URL or a TELEGRAM_BOT_TOKEN of your own, the command runs against that instead.
    """
    from pulse import clickhouse as db
    from pulse import schema
    from pulse.sandbox import clickhouse, history
    from pulse.sandbox import events as demo
    from pulse.sandbox import telegram as messenger

    config = settings.load()
    folder = settings.ROOT / ".sandbox"
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    with ExitStack() as stack:
        if config.clickhouse_url.get_secret_value() == settings.SANDBOX_CLICKHOUSE_URL:
            port = int(settings.SANDBOX_CLICKHOUSE_URL.rsplit(":", 1)[1])
            server = clickhouse.answering(port) or stack.enter_context(clickhouse.running(folder / "clickhouse", port))
            made = demo.App(config.zone, config.source_database, seed=seed, events_per_day=events)
            rows = demo.fill(server, made, days=days)
            if server.data == folder / "clickhouse":  # this checkout's own: nobody else's tables are changed
                schema.upgrade(db.connect(config), config.source_database)
            typer.echo(f"The sandbox's ClickHouse answers on port {port}; {rows:,} new events.", err=True)
            _publish_days(min(days - 1, history.WEEK), "The week before yesterday")
            # The days before that, which only dashboards show, meanwhile: another time goes on where this one ends.
            ended = threading.Event()
            older = threading.Thread(target=_publish_days, args=(days - 1, "The days before that week", ended))
            older.start()
            stack.callback(older.join)
            stack.callback(ended.set)
            if live:
                stop = threading.Event()
                arriving = threading.Thread(target=_let_events_arrive, args=(server, made, stop))
                arriving.start()
                stack.callback(arriving.join)
                stack.callback(stop.set)
        if config.telegram_bot_token.get_secret_value() == settings.SANDBOX_TELEGRAM_TOKEN:
            port = int(settings.SANDBOX_TELEGRAM_API_URL.rsplit(":", 1)[1])
            chat = messenger.answering(port) or stack.enter_context(messenger.running(folder / "telegram", port))
            typer.echo(f"The sandbox's Telegram chat is at {chat.chat_page}", err=True)
        raise typer.Exit(_run_until_it_ends(context.args))


def _publish_days(days: int, which: str, enough: threading.Event | None = None) -> None:
    """Publish what is missing of the sandbox's days, and say how many it was."""
    from pulse.sandbox import history

    try:
        if published := history.publish(days, enough):
            typer.echo(f"{which}: {len(published)} days published.", err=True)
    except Exception as error:  # somebody is changing the notebooks, and wants the sandbox for that
        typer.echo(f"{which} could not be published: {error}", err=True)


def _let_events_arrive(server: "Server", made: "App", stop: threading.Event) -> None:
    """Bring today's events up to the moment, every half minute until told to stop."""
    from pulse.sandbox.events import make_until

    while not stop.is_set():
        try:
            make_until(server, made, datetime.now(made.zone))
        except PulseError as error:  # the next time may go better
            typer.echo(f"No new events: {error}", err=True)
        stop.wait(30)


def _run_until_it_ends(command: list[str]) -> int:
    """Run a command; Ctrl-C is its own to handle, and what it stands on stays until it is done with that.

    SIGTERM and SIGHUP, which reach this process alone, are handed on to it.
    """
    if not command:
        raise PulseError("There is no command; give one after --, such as `pulse sandbox run -- pulse daily`.")
    try:
        process = subprocess.Popen(command)
    except FileNotFoundError:
        raise PulseError(f"There is no command {command[0]}; check its name.") from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda which, _: process.send_signal(which))
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code  # as a shell says that a signal ended it
        except KeyboardInterrupt:
            continue


def main() -> None:
    """The entry point: an error of ours is a sentence and exit code 1."""
    try:
        app()
    except PulseError as error:
        typer.echo(f"{error}", err=True)
        sys.exit(1)
