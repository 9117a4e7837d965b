"""`pulse sandbox`: the commands that this distribution adds to `pulse`."""

# Each command imports what it alone needs, so that `pulse --help` stays fast.

import os
import signal
import subprocess
import threading
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Annotated

import typer

from pulse import PulseError, settings
from pulse_sandbox import clickhouse_stand_in, telegram_stand_in
from pulse_sandbox.events_app import App

HEAD_START = 45.0
"""For how many seconds a command has the machine to itself: about as long as `pulse daily` takes."""

Port = Annotated[
    int | None, typer.Option(help="Its port, if the one that it had last time, or a free one, is not right.")
]

app = typer.Typer(no_args_is_help=True, help="The stand-ins for ClickHouse and Telegram on this machine.")


@app.command("superset")
def run_superset(port: Port = None) -> None:
    """Run a Superset on this machine with the dashboard in it, until Ctrl-C."""
    from pulse import clickhouse, schema
    from pulse.dashboards import superset
    from pulse_sandbox import superset_server

    config = settings.load()
    db = clickhouse.connect(config)
    schema.ensure(db)
    if not db.value("select count() from daily_metrics"):
        typer.echo("No day is published yet, so the dashboard is empty: `make run` publishes yesterday.")
    with superset_server.running(port=port) as server:
        own = {"SUPERSET_URL": server.url, "SUPERSET_USER": server.user, "SUPERSET_PASSWORD": server.password}
        address = superset.install(settings.load(**own))
        secret = server.password if server.new else f"in {server.password_file}"
        typer.echo(f"The dashboard is at {address} (user {server.user}, password {secret})")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="The seed of the demo events; another seed makes other events.")] = 1,
    events: Annotated[int, typer.Option(help="How many events a usual day has.")] = 300_000,
    days: Annotated[int, typer.Option(help="How many days of events to make, up to yesterday.")] = 35,
    live: Annotated[bool, typer.Option(help="Add today's events as time passes, while the command runs.")] = False,
    clickhouse_port: Port = None,
    telegram_port: Port = None,
) -> None:
    """Run a command (after --) beside the sandbox, which is started if necessary and filled up to yesterday.

    If you have set CLICKHOUSE_URL or TELEGRAM_BOT_TOKEN, the command uses that service and not its stand-in.
    """
    config = settings.load()
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    with ExitStack() as stack:
        if config.clickhouse_url.get_secret_value() == settings.sandbox_url("clickhouse", settings.SANDBOX_OWNER):
            made = App(config.zone, config.source_database, seed=seed, events_per_day=events)
            _start_clickhouse(stack, clickhouse_port, made, days, live)
        if config.telegram_bot_token.get_secret_value() == settings.SANDBOX_TELEGRAM_TOKEN:
            _start_telegram(stack, telegram_port)
        raise typer.Exit(_run_until_it_ends(context.args))


def _start_clickhouse(stack: ExitStack, port: int | None, made: App, days: int, live: bool) -> None:
    """Start ClickHouse's stand-in if it does not run yet, and fill it with events and published days."""
    from pulse import clickhouse, schema, sources
    from pulse_sandbox import events, history

    folder = settings.SANDBOX / "clickhouse"
    server = clickhouse_stand_in.serving(folder)
    if not server or port not in (None, server.port):
        server = stack.enter_context(clickhouse_stand_in.running(folder, port))
    rows = events.fill(server, made, days=days)
    schema.upgrade(clickhouse.connect(), sources.chosen(settings.load()), other_source=True)
    if rows:  # perhaps of another app: what earlier days held says nothing about it
        clickhouse.connect().execute("truncate table if exists day_profiles")
    typer.echo(f"The sandbox's ClickHouse answers on port {server.port}; {rows:,} new events.", err=True)
    _publish_days(min(days - 1, history.WEEK), "The week before yesterday")
    # Only dashboards show the days before that week, so they are published while the command runs. If it ends first,
    # the next start continues there.
    ended = threading.Event()
    older = threading.Thread(target=_publish_older_days, args=(days - 1, ended))
    older.start()
    stack.callback(older.join)
    stack.callback(ended.set)
    if live:
        stop = threading.Event()
        arriving = threading.Thread(target=_let_events_arrive, args=(server, made, stop))
        arriving.start()
        stack.callback(arriving.join)
        stack.callback(stop.set)


def _start_telegram(stack: ExitStack, port: int | None) -> None:
    """Start Telegram's stand-in if it does not run yet."""
    folder = settings.SANDBOX / "telegram"
    chat = telegram_stand_in.serving(folder)
    if not chat or port not in (None, chat.port):
        chat = stack.enter_context(telegram_stand_in.running(folder, port))
    typer.echo(f"The sandbox's Telegram chat is at {chat.chat_page}", err=True)


def _publish_days(days: int, which: str, enough: threading.Event | None = None) -> None:
    """Publish the sandbox's days that are not published yet, and print how many there were."""
    from pulse_sandbox import history

    try:
        if published := history.publish(days, enough):
            typer.echo(f"{which}: {len(published)} days published.", err=True)
    except Exception as error:  # whoever is changing the notebooks needs the sandbox nevertheless
        typer.echo(f"{which} could not be published: {error}", err=True)


def _publish_older_days(days: int, ended: threading.Event) -> None:
    """Publish the rest of the days, unless the command ends soon, which on two cores it does later beside this."""
    if not ended.wait(HEAD_START):
        _publish_days(days, "The days before that week", ended)


def _let_events_arrive(server: clickhouse_stand_in.Server, made: App, stop: threading.Event) -> None:
    """Bring today's events up to the present every half minute, until told to stop."""
    from pulse_sandbox import events

    while not stop.is_set():
        try:
            events.make_until(server, made, datetime.now(made.zone))
        except PulseError as error:  # the next attempt may succeed
            typer.echo(f"No new events: {error}", err=True)
        stop.wait(30)


def _run_until_it_ends(command: list[str]) -> int:
    """Run a command and return its exit code.

    Ctrl-C reaches the command directly; the sandbox stays up until the command has ended. SIGTERM and SIGHUP reach only
    this process, which forwards them.
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
            return code if code >= 0 else 128 - code  # a shell reports the end by a signal in the same way
        except KeyboardInterrupt:
            continue
