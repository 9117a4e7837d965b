"""The commands that show the published days and migrate their tables."""

from datetime import date
from typing import Annotated

import typer

from pulse import PulseError, settings

app = typer.Typer()

EventDate = Annotated[str, typer.Argument(help="An ISO date, or the word yesterday.")]


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
        counted = dict.fromkeys(slices.columns[2:], "{:,}".format)
        typer.echo(slices.to_string(index=False, max_colwidth=40, formatters=counted))
    typer.echo(f"\nThe executed notebooks, the report's chart in its own: {config.output}/*/{day}/")
    if config.telegram_bot_token.get_secret_value() == settings.SANDBOX_TELEGRAM_TOKEN:
        typer.echo(f"The report as readers see it: {settings.ROOT}/.sandbox/telegram/chat.html")


@app.command()
def as_of(
    known_date: Annotated[str, typer.Argument(help="The day at whose end something was known: an ISO date.")],
    event_date: EventDate,
) -> None:
    """Show what was published about a day at the end of another day, what is published now, and why it changed."""
    from pulse import clickhouse
    from pulse.publishing import known

    config = settings.load()
    day = config.event_day(event_date)
    try:
        moment = date.fromisoformat(known_date)
    except ValueError:
        raise PulseError(f"'{known_date}' is not a valid date; give an ISO date such as 2026-11-03.") from None
    typer.echo("\n".join(known.as_of(clickhouse.connect(config), config, moment, day)))


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    other_source: Annotated[
        bool, typer.Option("--other-source", help="Read another source, or by other days, than before.")
    ] = False,
) -> None:
    """Migrate the tables in ClickHouse to this version, and read the source as the settings say.

    Pause the DAGs first: nothing else should write meanwhile. Interrupted, it can be run again.
    """
    from pulse import clickhouse, schema, sources

    config = settings.load()
    done = schema.upgrade(
        clickhouse.connect(config), sources.chosen(config), dry_run=dry_run, other_source=other_source
    )
    typer.echo("\n".join(done) or f"The tables in {config.database} are as this checkout needs them.")
