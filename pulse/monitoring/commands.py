"""The command that counts the monitoring's buckets again."""

from datetime import datetime
from typing import Annotated

import typer

from pulse import settings

app = typer.Typer()


@app.command()
def buckets(
    days: Annotated[int, typer.Option(help="How many days, counted back from now.")] = 46,
) -> None:
    """Count the monitoring's buckets anew: after the source was corrected, or where too few days are there."""
    from pulse.execution import runner

    config = settings.load()
    now = datetime.now(config.zone)
    run = f"by_hand {now:%H:%M:%S.%f}"
    path = f"{config.output.rstrip('/')}/buckets/{now.date()}/{runner.safe_name(run)}/anomalies.1.ipynb"
    done = runner.run(
        settings.ROOT / "notebooks" / "monitoring" / "anomalies.ipynb",
        path,
        {"fill_days": days},
        about={"dag": "buckets", "task": "anomalies", "run_id": run, "try": 1, "started_by": "by hand"},
        root=config.output,
    )
    typer.echo(f"The buckets of {days} days are counted. Archived at {done.path}")
