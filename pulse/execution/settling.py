"""Settles attempts that were cut off: records what became of them where they can no longer do that themselves."""

import socket
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pulse import archive
from pulse.archive import ArchiveError, executed, index, lives, manifest, retention
from pulse.execution import store
from pulse.execution.light import load_backend
from pulse.execution.outcome import cell_number, running_cell
from pulse.execution.record import Book, process_identity

LONGEST_RUN = timedelta(days=2)
"""No task may take this long: an attempt without an end after that time was killed."""


def settle(path: str, root: str = "", *, superseded: bool = False) -> None:
    """Record the outcome of an attempt that is still `running`, if it can no longer do that itself.

    An attempt whose process is gone was killed. One that still runs on this machine is left alone, unless a later try
    replaces it: then it is ended, notices that when it next writes, and fails. So does an attempt on another machine
    that is replaced, since nobody here knows whether it still runs.

    Args:
        path: of the archived notebook.
        root: the archive's root.
        superseded: a later try replaces the attempt.
    """
    load_backend(path)
    if not store.exists(path):
        return
    with store.locked(path):
        node = store.load_node(path)
        about = node.metadata.get("pulse", {})
        elsewhere = about.get("host") != socket.gethostname()
        alive = not elsewhere and bool(about.get("process")) and process_identity(about.get("pid")) == about["process"]
        if about.get("outcome") != "running" or (alive and not superseded):
            return
        if alive:
            outcome, reason = "terminated", "a later try replaced it while it was still running"
        elif superseded and elsewhere:
            outcome, reason = "terminated", f"a later try replaced it before {about.get('host')} recorded its outcome"
        else:
            outcome, reason = "killed", "killed before it could say why"
        cell = cell_number(node, running_cell(node))
        about.update(outcome=outcome, error={"cell": cell, "message": reason})
        text = store.as_text(node)
        store.write(text, path, durable=True)
        Book.of(root, path).settled(outcome, text)


def settle_endless(root: Path, before: datetime) -> None:
    """Settle the attempts that began before a moment, have no end, and were not settled by a later try."""
    with index.opened(root) as opened:
        endless = [each for each in opened.all() if each.state == "begun" and each.started < before.isoformat()]
    for each in endless:
        with suppress(ArchiveError):
            content = archive.find(root, each.path).read_bytes()
            settle(str(root / each.path), str(root))
            if archive.find(root, each.path).read_bytes() == content:  # it has an end that only the manifest lacks
                outcome = executed.run(executed.read(content)).outcome
                manifest.append(root, {**manifest.ending(outcome, content), "path": each.path})


def settle_and_thin(root: Path, days: int = lives.LEAST_DAYS, now: datetime | None = None) -> list[str]:
    """Settle the attempts that were killed, then remove the notebooks that retention does not keep.

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
    settle_endless(root, now - LONGEST_RUN)
    return retention.thin(root, days, now)
