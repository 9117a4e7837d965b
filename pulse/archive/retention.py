"""What may go from the archive, and what stays.

The rule: a notebook stays for `days` days, and after that as long as one of these holds:

- it did not succeed;
- it alerted: it handed on `alerts`, and they are not empty;
- something was sent from it, or may have been;
- it is the first or the last success of its notebook for its event date.

So a pipeline that runs once a day loses nothing, and monitoring, which runs every 15 minutes, keeps two quiet runs a
day. What goes is written into the manifest first: its SHA-256, its parameters, its numbers.
A notebook that is not as it was kept never goes: it is evidence.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pulse import archive
from pulse.archive import ArchiveError, index, manifest
from pulse.archive.index import Attempt, Index

DAYS = 30
LONGEST_RUN = timedelta(days=2)  # no task may take as long; what has no end after it was killed


def thin(root: Path, days: int = DAYS, now: datetime | None = None) -> list[str]:
    """Take out what the rule lets go; gives the paths.

    Raises:
        ArchiveError: the archive cannot be read or written.
    """
    now = now or datetime.now(UTC)
    _settle(root, now - LONGEST_RUN)
    going = may_go(root, days, now)
    if going:
        manifest.append(root, *map(_entry, going))
    # Also what an earlier thinning, cut off in the middle, had written down and not yet removed.
    for each in _written_down(root):
        _remove(root, each.path)
    index.keep_up(root)
    return [each.path for each in going]


def may_go(root: Path, days: int = DAYS, now: datetime | None = None) -> list[Attempt]:
    """The attempts that the rule lets go.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    before = ((now or datetime.now(UTC)) - timedelta(days=days)).isoformat()
    with index.opened(root) as opened:
        kept = _ends(opened.all()) | opened.delivering()
        return [each for each in _quiet(opened, before) if each.path not in kept and _is_as_kept(root, each)]


def _entry(attempt: Attempt) -> manifest.Entry:
    """What stays of a notebook: its SHA-256, and what the pages tell of it."""
    stays = {name: getattr(attempt, name) for name in index.STAYS}
    return {"what": "thinned", "path": attempt.path, "sha256": attempt.sha256, "stays": stays}


def _quiet(opened: Index, before: str) -> Iterator[Attempt]:
    """The successes that began before a moment, and alerted nobody."""
    for each in opened.all():
        # `ended`: the manifest has its SHA-256, and it is still there.
        if each.state == "ended" and each.outcome == "succeeded" and not each.facts["alerts"] and each.started < before:
            yield each


def _ends(attempts: Iterable[Attempt]) -> set[str]:
    """The first and the last success of each notebook and event date."""
    by_day: dict[tuple[str, str, str], list[Attempt]] = {}
    for each in attempts:
        if each.outcome == "succeeded" and each.state != "thinned":
            by_day.setdefault((each.dag, each.notebook, each.event_date), []).append(each)
    ordered = (sorted(found, key=lambda each: (each.started, each.path)) for found in by_day.values())
    return {end.path for found in ordered for end in (found[0], found[-1])}


def _is_as_kept(root: Path, attempt: Attempt) -> bool:
    try:
        return archive.digest(archive.find(root, attempt.path).read_bytes()) == attempt.sha256
    except ArchiveError:
        return False


def _written_down(root: Path) -> list[Attempt]:
    """What the manifest says was thinned, and what is still there all the same."""
    with index.opened(root) as opened:
        return [each for each in opened.all() if each.state == "thinned" and _is_as_kept(root, each)]


def _remove(root: Path, path: str) -> None:
    """Remove a notebook, and the folders that are empty without it."""
    (root / path).unlink(missing_ok=True)
    for folder in list((root / path).parents)[:3]:
        with suppress(OSError):
            folder.rmdir()


def _settle(root: Path, before: datetime) -> None:
    """Give an end to the attempts that were killed before they could write it, and that no later try has settled."""
    from pulse import notebooks

    with index.opened(root) as opened:
        endless = [each for each in opened.all() if each.state == "begun" and each.started < before.isoformat()]
    for each in endless:
        with suppress(ArchiveError):
            content = archive.find(root, each.path).read_bytes()
            notebooks.settle(str(root / each.path), str(root))
            if archive.find(root, each.path).read_bytes() == content:  # it has an end, and only the manifest lacks it
                end = {"what": "ended", "path": each.path, "outcome": each.outcome, "sha256": archive.digest(content)}
                manifest.append(root, end)
