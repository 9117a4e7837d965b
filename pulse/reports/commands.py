"""The command that compares a day's numbers wherever they are shown."""

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
