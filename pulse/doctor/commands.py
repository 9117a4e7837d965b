"""The doctor's command."""

import typer

from pulse import PulseError, settings

app = typer.Typer()

MARKS = {"fine": "✓", "note": "·", "fault": "✗"}
WIDTH = 20


@app.command()
def doctor() -> None:
    """Look at every connection, right, table, clock, chat and dashboard: one line each, fine or what to do."""
    from pulse.doctor.examination import examine

    found = examine(settings.load())
    for each in found:
        typer.echo(f"{MARKS[each.state]} {each.what:<{WIDTH}} {each.said}")
    faults = sum(each.state == "fault" for each in found)
    if faults:
        raise PulseError(
            f"{faults} of {len(found)} need{'s' * (faults == 1)} attention: see the line{'s' * (faults > 1)} with ✗."
        )
