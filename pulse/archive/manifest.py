"""The manifest: a hash chain with one line of JSON for each step in the life of each notebook.

`manifest.jsonl` is in the archive's root. Each entry says what happened (`what`) to which notebook (`path`) and when
(`at`). It holds the hash of the entry before (`prev`) and its own (`hash`, over everything else in it):

- `begun`: an attempt has begun. The entry is written before the first cell runs, so that a notebook that a crash left
  without an end can be told from one that was added by hand.
- `ended`: how it ended (`outcome`), how many alerts it has (`alerts`), and the SHA-256 of the notebook (`sha256`),
  which must not change afterwards.
- `delivered`: what was sent from it, and to whom.
- `thinned`: retention removed the notebook; its SHA-256 stays.
- `adopted`: the notebook is older than the manifest.

`pulse.archive.lives` says which entry may follow which, and `pulse.archive.proof` what the manifest proves.

Three things outside the manifest depend on it: a notebook's metadata hold the manifest's head at the moment when the
attempt began (`after`), a message in Telegram shows the beginning of the notebook's SHA-256, and every night the head
itself goes to the alert chat. So even somebody who rewrites the manifest, the notebooks and all later hashes still
contradicts the messages in other people's chats.

A lock on the file lets one writer in at a time, and an entry is valid once it is on the disk. A crash while writing
leaves a torn last line, which the next writer removes; a full disk leaves nothing.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Protocol

from pulse.archive import ArchiveError, digest, executed, is_notebook_path, to_disk, walk
from pulse.archive.lives import Entry

NAME = "manifest.jsonl"
GENESIS = "0" * 64
"""The `prev` of the first entry."""


def append(root: Path, *entries: Entry) -> None:
    """Append entries to the manifest. When this returns, they are on the disk.

    If there is no manifest yet, this starts one, which first adopts the notebooks that are there.

    Args:
        root: the archive's root.
        entries: each with `what`, `path` and the other things it says.

    Raises:
        ArchiveError: the manifest cannot be written, or a path is not one of the archive's; the manifest is unchanged.
    """
    for entry in entries:
        if not is_notebook_path(entry["path"]):
            raise ArchiveError(
                f"The archive keeps notebooks as <dag>/<event date>/<run>/<notebook>.<try>.ipynb, without hidden names "
                f"or backslashes, and not as {entry['path'][:200]!r}."
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
    """The entry about the end of a notebook, without its path.

    Args:
        outcome: how it ended.
        content: the notebook.
    """
    return {
        "what": "ended",
        "outcome": outcome,
        "alerts": executed.alerts(executed.read(content)),
        "sha256": digest(content),
    }


class Delivery(Protocol):
    """What the manifest records of a delivery; those of `pulse.delivery.sending` have it."""

    @property
    def chat(self) -> str:
        """The chat as configured."""
        ...

    @property
    def state(self) -> str:
        """The state of the delivery."""
        ...

    @property
    def did(self) -> str:
        """What was done: `sent`, `edited` or `nothing`."""
        ...

    @property
    def ref(self) -> str:
        """The delivery's reference."""
        ...

    @property
    def message_id(self) -> int:
        """The message's id; 0 if it is unknown."""
        ...


def delivered(root: Path, path: str, report: str, event_date: date, deliveries: Iterable[Delivery]) -> None:
    """Record what was sent from a notebook.

    Args:
        root: the archive's root.
        path: the notebook's path below the root.
        report: the report that was sent.
        event_date: the report's event date.
        deliveries: the deliveries, one for each chat.

    Raises:
        ArchiveError: the manifest cannot be written.
    """
    recorded = ("chat", "state", "did", "ref", "message_id")
    listed = [{name: getattr(each, name) for name in recorded} for each in deliveries]
    entry = {"what": "delivered", "path": path, "report": report, "event_date": str(event_date)}
    append(root, {**entry, "deliveries": listed})


def head(root: Path) -> str:
    """The hash of the manifest's last complete entry.

    Raises:
        ArchiveError: the manifest cannot be read.
    """
    path = root / NAME
    if not path.exists():
        return GENESIS
    with _reading(path) as file:
        return _last(file)[1]


def read(root: Path, start: int = 0) -> Iterator[tuple[Entry, int]]:
    """The manifest's entries from an offset onwards, each with the offset after it. Other lines are skipped.

    Raises:
        ArchiveError: the manifest cannot be read.
    """
    for line, end in lines(root, start):
        if line.endswith(b"\n") and (entry := parsed(line)) is not None:
            yield entry, end


def lines(root: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The manifest's lines from an offset onwards, each with the offset after it.

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
    """Parse a line; None if it is not an entry."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("what", "path"))
    return entry if whole else None


def bound(entry: Entry) -> Entry:
    """The entry with its hash, which covers the rest of the entry, including the hash of the entry before."""
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
def _opened(root: Path) -> Iterator[RawIOBase]:
    """Open the manifest for this process alone; create it if there is none."""
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


def _tail(file: RawIOBase) -> tuple[int, str]:
    """The offset of the next entry, and the hash of the entry before it. A torn last line is removed."""
    end, last = _last(file)
    if end < os.fstat(file.fileno()).st_size:
        os.ftruncate(file.fileno(), end)
    return end, last


def _last(file: BinaryIO | RawIOBase) -> tuple[int, str]:
    """The offset after the last complete line, and the hash of its entry."""
    position = file.seek(0, os.SEEK_END)
    rest = b""
    while position:
        step = min(position, 1 << 16)
        position = file.seek(position - step)
        rest = (file.read(step) or b"") + rest
        whole = rest[: rest.rfind(b"\n") + 1]
        begin = whole.rfind(b"\n", 0, -1) + 1
        if whole and (begin or not position):
            entry = parsed(whole[begin:])
            return position + len(whole), str((entry or {}).get("hash", GENESIS))
    return 0, GENESIS


def _write(file: RawIOBase, size: int, content: bytes) -> None:
    """Append all of the content, or nothing."""
    try:
        while content:
            content = content[os.write(file.fileno(), content) :]
        os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise


def _adopted(root: Path, but: Iterable[str]) -> Iterator[Entry]:
    """The entries that adopt the notebooks older than the manifest, except some paths."""
    for path in walk(root):
        if path in but or not (root / path).is_file():
            continue
        content = (root / path).read_bytes()
        node = executed.read(content)
        if not executed.untouched(node):  # an untouched one belongs to another run that is about to begin
            yield {**ending(executed.run(node).outcome, content), "what": "adopted", "path": path}
