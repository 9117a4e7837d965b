"""The manifest: one line of JSON for each step of each notebook's life, bound to the line before by its hash.

`manifest.jsonl` stands beside the notebooks. Each entry says what happened (`what`) to which notebook (`path`), when
(`at`), and holds the hash of the entry before (`prev`) and its own (`hash`, over everything else in it):

- `begun`: an attempt has taken its place. It is written before a cell runs, so that a notebook that a crash left
  without an end is told from one that was put there by hand.
- `ended`: how it ended (`outcome`), how many alerts it handed on (`alerts`), and the SHA-256 of the notebook
  (`sha256`), which may not change any more.
- `delivered`: what was sent from it, to whom.
- `thinned`: the notebook was taken out by retention's rule; its SHA-256 stays.
- `adopted`: it was there before the manifest began.

Which may follow which stands in `pulse.archive.lives`, what is proved by all this in `pulse.archive.proof`.

A notebook's own metadata hold the manifest's head as it was when the attempt began (`after`), a message in Telegram
the beginning of the notebook's SHA-256, and every night the head itself goes to the alert chat. So whoever rewrites
the manifest, the notebooks and all hashes after them still contradicts messages that stand in other people's chats.

Writers take turns by a lock on the file, and an entry counts once it is on the disk. A crash while writing leaves a
torn last line, which the next writer removes; a full disk leaves nothing.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pulse.archive import ArchiveError, digest, executed, is_place, to_disk, walk
from pulse.archive.lives import Entry

NAME = "manifest.jsonl"
GENESIS = "0" * 64  # what the first entry follows


def append(root: Path, *entries: Entry) -> None:
    """Write entries (`what`, `path`, and what else they say) to the manifest; on return they are on the disk.

    A manifest that begins adopts the notebooks that are there.

    Raises:
        ArchiveError: the manifest cannot be written, or a path is none of the archive's; it is as it was.
    """
    for entry in entries:
        if not is_place(entry["path"]):
            raise ArchiveError(
                f"The archive keeps notebooks as <dag>/<event date>/<run>/<notebook>.<try>.ipynb, with no name that "
                f"is hidden or has a backslash, and not as {entry['path'][:200]!r}."
            )
    with _opened(root) as file:
        size, before = _tail(file)
        if not size:
            entries = (*_adopted(root, {entry["path"] for entry in entries}), *entries)
        lines, at = [], datetime.now(UTC).isoformat(timespec="seconds")
        for entry in entries:
            whole = bound({"at": at, **entry, "prev": before})
            before = whole["hash"]
            lines.append(json.dumps(whole, ensure_ascii=False, sort_keys=True) + "\n")
        _write(file, size, "".join(lines).encode())


def ending(outcome: str, content: bytes) -> Entry:
    """An entry for how a notebook ended."""
    return {
        "what": "ended",
        "outcome": outcome,
        "alerts": executed.alerts(executed.read(content)),
        "sha256": digest(content),
    }


def delivered(root: Path, place: str, report: str, event_date: date, deliveries: Iterable[Any]) -> None:
    """Write what was sent from a notebook: `deliveries` are those of `pulse.delivery.sending`.

    Raises:
        ArchiveError: the manifest cannot be written.
    """
    told = ("chat", "state", "did", "ref", "message_id")
    listed = [{name: getattr(each, name) for name in told} for each in deliveries]
    entry = {"what": "delivered", "path": place, "report": report, "event_date": str(event_date)}
    append(root, {**entry, "deliveries": listed})


def head(root: Path) -> str:
    """The hash of the manifest's last whole entry.

    Raises:
        ArchiveError: the manifest cannot be read.
    """
    path = root / NAME
    if not path.exists():
        return GENESIS
    with _reading(path) as file:
        return _last(file)[1]


def read(root: Path, start: int = 0) -> Iterator[tuple[Entry, int]]:
    """The manifest's entries from a position on, each with the position after it; what is no entry is left out.

    Raises:
        ArchiveError: the manifest cannot be read.
    """
    for line, end in lines(root, start):
        if line.endswith(b"\n") and (entry := parsed(line)) is not None:
            yield entry, end


def lines(root: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The manifest's lines from a position on, each with the position after it.

    Raises:
        ArchiveError: the manifest cannot be read.
    """
    path = root / NAME
    if not path.exists():
        return
    with _reading(path) as file:
        file.seek(start)
        for line in file:
            start += len(line)
            yield line, start


def parsed(line: bytes) -> Entry | None:
    """A line as an entry; None where it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("what", "path"))
    return entry if whole else None


def bound(entry: Entry) -> Entry:
    """An entry with its hash: over all the rest of it, the hash of the entry before included."""
    rest = {name: value for name, value in entry.items() if name != "hash"}
    canonical = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return {**rest, "hash": hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()}


# --- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ArchiveError(f"The manifest {path} cannot be read ({error.strerror}); make it readable.") from None


@contextmanager
def _opened(root: Path) -> Iterator[Any]:
    """The manifest, for this process alone; created where there is none."""
    path = root / NAME
    try:
        root.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if new:
                to_disk(root)
            yield file
    except OSError as error:
        raise ArchiveError(
            f"The manifest {path} cannot be written ({error.strerror}); make room or make it writable."
        ) from None


def _tail(file: Any) -> tuple[int, str]:
    """Where the next entry goes and the hash that it follows; a torn last line is no entry and is taken away."""
    end, last = _last(file)
    if end < os.fstat(file.fileno()).st_size:
        os.ftruncate(file.fileno(), end)
    return end, last


def _last(file: Any) -> tuple[int, str]:
    """The position after the last whole line, and that entry's hash."""
    position = file.seek(0, os.SEEK_END)
    rest = b""
    while position:
        step = min(position, 1 << 16)
        position = file.seek(position - step)
        rest = file.read(step) + rest
        whole = rest[: rest.rfind(b"\n") + 1]
        begin = whole.rfind(b"\n", 0, -1) + 1
        if whole and (begin or not position):
            entry = parsed(whole[begin:])
            return position + len(whole), str((entry or {}).get("hash", GENESIS))
    return 0, GENESIS


def _write(file: Any, size: int, content: bytes) -> None:
    """Append all of it or nothing."""
    try:
        while content:
            content = content[os.write(file.fileno(), content) :]
        os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise


def _adopted(root: Path, but: Iterable[str]) -> Iterator[Entry]:
    """Entries for the notebooks that are there before the manifest begins."""
    for place in walk(root):
        if place in but or not (root / place).is_file():
            continue
        content = (root / place).read_bytes()
        node = executed.read(content)
        if not executed.untouched(node):  # else another run that is about to begin
            yield {**ending(str(executed.about(node).get("outcome") or ""), content), "what": "adopted", "path": place}
