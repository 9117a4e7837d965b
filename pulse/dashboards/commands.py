"""The commands that install the dashboards."""

from typing import Annotated

import typer

from pulse import settings

app = typer.Typer(no_args_is_help=True, help="The dashboards, as code.")

Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what was changed there by hand.")]


@app.command("superset")
def dashboards_superset(replace: Replace = False) -> None:
    """Install the dashboard in the Superset of SUPERSET_URL, or bring it up to date."""
    from pulse.dashboards import superset

    typer.echo(f"The dashboard is at {superset.install(settings.load(), replace=replace)}")


@app.command("redash")
def dashboards_redash(replace: Replace = False) -> None:
    """Install the dashboard in the Redash of REDASH_URL, or bring it up to date, and the answers that Redash keeps."""
    from pulse.dashboards import redash

    config = settings.load()
    typer.echo(f"The dashboard is at {redash.install(config, replace=replace)}")
    redash.refresh(config)
