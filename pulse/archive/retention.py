"""What may go from the archive, and what stays.

The rule: a notebook stays for `days` days, and after that as long as one of these holds:

- it did not succeed, or was there before the manifest;
- it alerted: it handed on `alerts`, and they are not empty;
- something was sent from it, or may have been;
- it is the first or the last success of its notebook for its event date.

The rule stands in `pulse.archive.lives`, is computed from the manifest alone, and `pulse archive verify` computes it
again for everything that was taken out: so `days` may be more than 30, and never less.

So a pipeline that runs once a day loses nothing, and monitoring, which runs every 15 minutes, keeps two quiet runs a
day. What goes is written into the manifest first: its SHA-256, its parameters, its numbers.
A notebook that is not as it was kept never goes: it is evidence.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pulse import archive
from pulse.archive import ArchiveError, executed, index, lives, manifest
from pulse.archive.index import Attempt
from pulse.archive.lives import DAYS

LONGEST_RUN = timedelta(days=2)  # no task may take as long; what has no end after it was killed


def thin(root: Path, days: int = DAYS, now: datetime | None = None) -> list[str]:
    """Take out what the rule lets go; gives the paths.

    Raises:
        ArchiveError: the archive cannot be read or written, or `days` are too few.
    """
    now = now or datetime.now(UTC)
    _settle(root, now - LONGEST_RUN)
    going = may_go(root, days, now)
    if going:
        manifest.append(root, *(_entry(each, now) for each in going))
    # Also what an earlier thinning, cut off in the middle, had written down and not yet removed.
    for each in _written_down(root):
        _remove(root, each.path)
    index.keep_up(root)
    return [each.path for each in going]


def may_go(root: Path, days: int = DAYS, now: datetime | None = None) -> list[Attempt]:
    """The attempts that the rule lets go, the latest event date first.

    Raises:
        ArchiveError: the archive cannot be read, or `days` are too few.
    """
    if days < DAYS:
        raise ArchiveError(f"The archive keeps everything for {DAYS} days at least; give as many or more, not {days}.")
    at = (now or datetime.now(UTC)).isoformat()
    known = lives.read(entry for entry, _ in manifest.read(root))
    with index.opened(root) as opened:
        quiet = (
            each
            for each in opened.all()
            if each.state == "ended" and not known.keeps(known.by_place[each.path], at, days, each.facts["alerts"])
        )
        return [each for each in quiet if _is_as_kept(root, each)]


def _entry(attempt: Attempt, now: datetime) -> manifest.Entry:
    """What stays of a notebook: its SHA-256, and what the pages tell of it."""
    stays = {name: getattr(attempt, name) for name in index.STAYS}
    at = now.isoformat(timespec="seconds")
    return {"what": "thinned", "path": attempt.path, "sha256": attempt.sha256, "stays": stays, "at": at}


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
    from pulse.execution import notebooks

    with index.opened(root) as opened:
        endless = [each for each in opened.all() if each.state == "begun" and each.started < before.isoformat()]
    for each in endless:
        with suppress(ArchiveError):
            content = archive.find(root, each.path).read_bytes()
            notebooks.settle(str(root / each.path), str(root))
            if archive.find(root, each.path).read_bytes() == content:  # it has an end, and only the manifest lacks it
                outcome = str(executed.about(executed.read(content)).get("outcome") or "")
                manifest.append(root, {**manifest.ending(outcome, content), "path": each.path})
