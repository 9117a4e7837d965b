"""`pulse sandbox`: the commands that this distribution adds to `pulse`."""

import os
import signal
import subprocess
import threading
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pulse import PulseError, settings

if TYPE_CHECKING:
    from pulse_sandbox.clickhouse import Server
    from pulse_sandbox.events import App

app = typer.Typer(no_args_is_help=True, help="The stand-ins for ClickHouse and Telegram on this machine.")


@app.command("superset")
def sandbox_superset() -> None:
    """A Superset of this machine's own with the dashboard in it, until Ctrl-C."""
    from pulse import clickhouse, schema
    from pulse.dashboards import superset
    from pulse_sandbox import superset as server

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


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
    from pulse_sandbox import clickhouse, history
    from pulse_sandbox import events as demo
    from pulse_sandbox import telegram as messenger

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
    from pulse_sandbox import history

    try:
        if published := history.publish(days, enough):
            typer.echo(f"{which}: {len(published)} days published.", err=True)
    except Exception as error:  # somebody is changing the notebooks, and wants the sandbox for that
        typer.echo(f"{which} could not be published: {error}", err=True)


def _let_events_arrive(server: "Server", made: "App", stop: threading.Event) -> None:
    """Bring today's events up to the moment, every half minute until told to stop."""
    from pulse_sandbox.events import make_until

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
