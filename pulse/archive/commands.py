"""`pulse archive`: the archive from the command line."""

from typing import Annotated

import typer

from pulse import PulseError, archive, settings
from pulse.archive.attempts import Attempt, shown

app = typer.Typer(no_args_is_help=True, help="The executed notebooks: what ran, and what came out.")

# Each command imports what it alone needs, so that `pulse --help` stays fast.


@app.command()
def verify(
    head: Annotated[
        str, typer.Option(help="A head of the chain that was noted earlier and must still be in the chain.")
    ] = "",
) -> None:
    """Verify the archive: list every notebook that was changed, removed or added by hand since it was kept."""
    from pulse import clickhouse
    from pulse.archive import proof

    config = settings.load()
    root = archive.folder(config.output)
    try:
        outside = proof.ledger(clickhouse.connect(config), root)
    except clickhouse.ClickHouseError as error:
        outside = None
        typer.echo(f"note: deliveries and the nightly heads were not compared with the ledger: {error}")
    findings = proof.verify(root, head, outside)
    for line in findings.remarks:
        typer.echo(f"note: {line}")
    if findings.problems:
        listed = "\n".join(f"  {line}" for line in findings.problems)
        raise PulseError(f"The archive is not as it was kept ({len(findings.problems)}):\n{listed}")
    typer.echo(f"{findings.notebooks:,} notebooks, all of them as they were kept.")
    typer.echo(f"Head of the chain, after {findings.entries:,} entries: {findings.head}")
    if outside and outside.heads:
        at, noted = outside.heads[-1]
        typer.echo(f"It passes through all {len(outside.heads):,} heads that went to the alert chat, {noted} on {at}.")
    else:
        typer.echo("Note it elsewhere: given as --head, it proves later that nothing up to here was rewritten.")


@app.command()
def show(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="A run reference from a message, or the beginning of a SHA-256.")
    ],
) -> None:
    """Show the run that a run reference names: from a number in a message to its notebook."""
    from pulse.archive import index

    root = archive.folder(settings.load().output)
    with index.opened(root) as opened:
        found = opened.by_reference(reference) if len(reference) >= 4 else []
        if not found:
            newest = opened.search(index.Filter(outcome="succeeded"), size=1).attempts
            example = "".join(
                f" The newest run is {each.reference}, {each.notebook} of {each.event_date}." for each in newest
            )
            raise PulseError(
                f"No run has the reference {reference!r}. The last line of a message has it: ten characters of 0-9 and "
                f"a-f, of which four or more are enough.{example}"
            )
        if len(found) > 1:
            listed = "".join(f"\n  {each.reference}  {each.path}" for each in found)
            raise PulseError(f"{len(found)} runs have a reference that begins with {reference}:{listed}")
        (attempt,) = found
        delivered = opened.delivered(attempt.path)
    title = attempt.facts["title"] or attempt.notebook
    typer.echo(f"{title} of {attempt.event_date}, try {attempt.number} ({attempt.dag})\n")
    for name, value in _lines(attempt):
        typer.echo(f"  {name:<13} {value}")
    for each in delivered:
        at = f"{each.at:.16}".replace("T", " ")
        typer.echo(f"  {'delivered':<13} {each.report} to chat {each.chat}: {each.did or each.state} {at} ({each.ref})")
    if attempt.numbers:
        typer.echo("\n" + "\n".join(f"  {name:<20}{shown(value):>14}" for name, value in attempt.numbers.items()))
    gone = " (removed by retention)" if attempt.state == "thinned" else ""
    typer.echo(f"\n{root / attempt.path}{gone}")


@app.command()
def site(
    folder: Annotated[str, typer.Argument(help="The folder to write to; it holds nothing else.")] = str(
        settings.ROOT / "site"
    ),
) -> None:
    """Write the archive's pages as a static site, which opens from disk or from any web server."""
    from pathlib import Path

    from pulse.archive.site import write

    config = settings.load()
    runs, fresh = write(archive.folder(config.output), Path(folder), config)
    typer.echo(f"{runs:,} runs, {fresh:,} of them new or changed: open {Path(folder).resolve() / 'index.html'}")


@app.command("index")
def make_index() -> None:
    """Make the archive's index again."""
    from pulse.archive import index

    typer.echo(f"{index.rebuild(archive.folder(settings.load().output)):,} attempts.")


def _lines(attempt: Attempt) -> list[tuple[str, str]]:
    facts = attempt.facts
    error = facts.get("error") or {}
    started = f"{attempt.started:.19}".replace("T", " ")
    return [
        ("outcome", attempt.outcome + (f", in cell {error['cell']}: {error['message']}" if error else "")),
        ("started", f"{started} UTC, {attempt.seconds or 0:.1f} s, {attempt.started_by}"),
        *((name, str(value)) for name, value in (facts.get("parameters") or {}).items()),
        ("commit", str(facts.get("commit") or "unknown")),
        ("queries", str(facts.get("queries"))),
        ("sha256", attempt.sha256 or "none: it has not ended"),
    ]
