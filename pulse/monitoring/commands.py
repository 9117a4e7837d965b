"""The command that counts the monitoring's buckets again."""

from datetime import datetime
from typing import Annotated

import typer

from pulse import settings

app = typer.Typer()


@app.command()
def buckets(
    days: Annotated[int, typer.Option(help="How many days to count, back from now.")] = 46,
) -> None:
    """Count the monitoring's buckets again, after a correction of the source or if the history is too short."""
    from pulse.execution import runner  # papermill takes seconds to import, and `pulse --help` should not wait

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
    typer.echo(f"Counted the buckets of the last {days} days. The notebook is archived at {done.path}")
