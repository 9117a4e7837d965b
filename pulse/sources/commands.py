"""The commands about the app's tables: what an administrator has to run, what a preset is, and how a day looks."""

import textwrap
from typing import Annotated

import typer

from pulse import PulseError, settings

app = typer.Typer(no_args_is_help=True, help="The app's tables: how they are read, and by whom.")


@app.command()
def sql(
    account: Annotated[str, typer.Option(help="The ClickHouse user that runs the notebooks.")] = "pulse",
    definer: Annotated[
        str, typer.Option(help="The user with whose rights the views read the app; whoever runs the SQL, unless given.")
    ] = "current_user",
) -> None:
    """Print the SQL that an administrator runs once, so that the account needs no right on the app's tables."""
    from pulse import clickhouse, sources
    from pulse.sources import administration

    config = settings.load()
    typer.echo(administration.sql(clickhouse.connect(config), sources.chosen(config), account, definer), nl=False)


@app.command()
def preset(name: Annotated[str, typer.Argument(help="app, course or events.")]) -> None:
    """Print a preset, to begin a sources.sql of your own with."""
    from pulse.sources import definition

    typer.echo(definition.text(name), nl=False)


@app.command()
def check(event_date: Annotated[str, typer.Argument(help="An ISO date, or the word yesterday.")] = "yesterday") -> None:
    """Show what the app's tables hold on a day and what is wrong with it. Reads only, and needs no table of Pulse's."""
    from pulse import clickhouse, sources
    from pulse.sources.check import Check

    config = settings.load()
    found = Check(clickhouse.connect(config), sources.chosen(config), config.event_day(event_date))
    for line in found.lines():
        typer.echo(line)
    paragraph = textwrap.TextWrapper(
        98, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )
    for title, sentences in (("To look at", found.remarks), ("Wrong", found.faults)):
        if sentences:
            typer.echo("\n".join(("", title, *(paragraph.fill(each) for each in sentences))))
    if found.faults:
        raise PulseError(f"{len(found.faults)} fault{'s' * (len(found.faults) > 1)} in the source, see above.")
    typer.echo("\nNothing is wrong with the source on this day.")
