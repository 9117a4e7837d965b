"""The commands about the app's tables: what an administrator has to run, what a preset is, and how a day looks."""

from typing import Annotated

import typer

from pulse import settings

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
