"""The commands that compare a day's numbers wherever they are shown, and that release a held day."""

import getpass
from typing import Annotated

import typer

from pulse import settings
from pulse.publishing.commands import EventDate

app = typer.Typer()


@app.command()
def reconcile(event_date: EventDate = "yesterday") -> None:
    """Compare a day's numbers wherever they are shown: the tables, the archived report, Superset, Redash."""
    from pulse.publishing.late_data import late_data
    from pulse.reports.reconcile import reconcile as compare

    config = settings.load()
    day = config.event_day(event_date)
    typer.echo(f"The numbers of {day} are the same in daily_metrics, {', '.join(compare(day, config))}.")
    for late in late_data(day, config):
        typer.echo(f"Late data: {late}.")


@app.command()
def release(
    event_date: Annotated[str, typer.Argument(help="The day; without one, the days that are held are listed.")] = "",
    because: Annotated[str, typer.Option(help="Why. Everybody sees it in the alert chat.")] = "",
    by: Annotated[str, typer.Option(help="Who releases it, if not this machine's user.")] = "",
    from_now_on: Annotated[
        bool, typer.Option("--from-now-on", help="Let the days of the next eight weeks be like it, too.")
    ] = False,
) -> None:
    """Release a day that is held because it is far from the same weekdays before, or list such days."""
    from pulse import clickhouse, schema
    from pulse.publishing import holds
    from pulse.reports import held

    config = settings.load()
    db = clickhouse.connect(config)
    schema.create_missing(db)
    if not event_date:
        typer.echo("\n".join(map(str, holds.held(db))) or "No day is held.")
        return
    day = config.event_day(event_date)
    released = holds.release(db, day, by=by or getpass.getuser(), because=because, from_now_on=from_now_on)
    typer.echo(
        f"{day} is released by {released.said_by}. If its run in Airflow is still waiting, it goes on by itself; "
        f"if not, `pulse daily {day}` publishes the day."
    )
    held.tell(released, config)
