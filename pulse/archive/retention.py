"""Removes old notebooks from the archive that nobody needs.

A notebook stays for `days` days, and after that as long as one of these is true:

- it did not succeed, or it is older than the manifest;
- it alerted: it glued `alerts` that are not empty;
- something was sent from it, or may have been sent;
- it is the first or the last success of its notebook for its event date.

The rule is implemented in `pulse.archive.lives` and uses only the manifest. `pulse archive verify` applies it again to
everything that was removed, so `days` can be more than 30, but never less.

So a pipeline that runs once a day loses nothing, and monitoring, which runs every 15 minutes, keeps two quiet runs a
day. Before a notebook is removed, the manifest gets its SHA-256, its parameters and its numbers. A notebook that was
changed since it was kept is never removed: it is evidence.
"""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pulse import archive
from pulse.archive import ArchiveError, index, index_upkeep, lives, manifest
from pulse.archive.attempts import Attempt
from pulse.archive.lives import LEAST_DAYS


def thin(root: Path, days: int = LEAST_DAYS, now: datetime | None = None) -> list[str]:
    """Remove the notebooks that the rule does not keep.

    Args:
        root: the archive's root.
        days: for how many days everything is kept.
        now: the present unless given.

    Returns:
        The paths of the removed notebooks.

    Raises:
        ArchiveError: the archive cannot be read or written, or `days` is too small.
    """
    now = now or datetime.now(UTC)
    going = may_go(root, days, now)
    if going:
        manifest.append(root, *(_entry(each, now) for each in going))
    # These include what an earlier thinning recorded but could not remove because it was cut off.
    for each in _recorded(root):
        _remove(root, each.path)
    index.keep_up(root)
    return [each.path for each in going]


def may_go(root: Path, days: int = LEAST_DAYS, now: datetime | None = None) -> list[Attempt]:
    """The attempts that the rule does not keep, the latest event date first.

    Raises:
        ArchiveError: the archive cannot be read, or `days` is too small.
    """
    if days < LEAST_DAYS:
        raise ArchiveError(
            f"The archive keeps everything for {LEAST_DAYS} days at least; give {LEAST_DAYS} or more, not {days}."
        )
    at = (now or datetime.now(UTC)).isoformat()
    known = lives.read(entry for entry, _ in manifest.read(root))
    with index.opened(root) as opened:
        quiet = (
            each
            for each in opened.all()
            if each.state == "ended" and not known.keeps(known.by_path[each.path], at, days, each.facts["alerts"])
        )
        return [each for each in quiet if _is_as_kept(root, each)]


def _entry(attempt: Attempt, now: datetime) -> lives.Entry:
    """The entry about the removal of a notebook, with its SHA-256 and what its page shows."""
    stays = {name: getattr(attempt, name) for name in index_upkeep.STAYS}
    at = now.isoformat(timespec="seconds")
    return {"what": "thinned", "path": attempt.path, "sha256": attempt.sha256, "stays": stays, "at": at}


def _is_as_kept(root: Path, attempt: Attempt) -> bool:
    try:
        return archive.digest(archive.find(root, attempt.path).read_bytes()) == attempt.sha256
    except ArchiveError:
        return False


def _recorded(root: Path) -> list[Attempt]:
    """The attempts that the manifest has as thinned although their notebooks are still there."""
    with index.opened(root) as opened:
        return [each for each in opened.all() if each.state == "thinned" and _is_as_kept(root, each)]


def _remove(root: Path, path: str) -> None:
    """Remove a notebook, and the folders that are empty afterwards."""
    (root / path).unlink(missing_ok=True)
    for folder in list((root / path).parents)[:3]:
        with suppress(OSError):
            folder.rmdir()
