"""The command of `pulse archive` that needs more than the archive: `thin` settles killed attempts first."""

from typing import Annotated

import typer

from pulse import archive, settings
from pulse.archive import commands

archive_app = commands.app
"""`pulse archive`, whole."""

# The command imports what it alone needs, so that `pulse --help` stays fast.


@commands.app.command()
def thin(
    days: Annotated[int, typer.Option(min=30, help="For how many days everything is kept.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove older runs that nobody needs. Failed runs, alerts, sent messages and two runs a day always stay."""
    from pulse.archive import retention
    from pulse.execution.settling import settle_and_thin

    root = archive.folder(settings.load().output)
    gone = [each.path for each in retention.may_go(root, days)] if dry_run else settle_and_thin(root, days)
    for path in gone:
        typer.echo(path)
    typer.echo(
        f"{len(gone):,} notebooks {'would be removed' if dry_run else 'were removed; the manifest keeps their record'}."
    )
