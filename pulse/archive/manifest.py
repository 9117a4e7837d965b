"""The manifest: one line of JSON for each step of each notebook's life, bound to the line before by its hash.

`manifest.jsonl` stands beside the notebooks. Each entry says what happened (`what`) to which notebook (`path`), when
(`at`), and holds the hash of the entry before (`prev`) and its own (`hash`, over everything else in it):

- `begun`: an attempt has taken its place. It is written before a cell runs, so that a notebook that a crash left
  without an end is told from one that was put there by hand.
- `ended`: how it ended (`outcome`) and the SHA-256 of the notebook (`sha256`), which may not change any more.
- `delivered`: what was sent from it, to whom.
- `thinned`: the notebook was taken out by retention's rule; its SHA-256 stays.
- `adopted`: it was there before the manifest began.

A notebook's own metadata hold the manifest's head as it was when the attempt began (`after`), a message in Telegram
the beginning of the notebook's SHA-256. So whoever rewrites the manifest, the notebooks and all hashes after them
still contradicts messages that stand in other people's chats.

Writers take turns by a lock on the file, and an entry counts once it is on the disk. A crash while writing leaves a
torn last line, which the next writer removes; a full disk leaves nothing.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pulse.archive import ArchiveError, digest, to_disk, walk

NAME = "manifest.jsonl"
GENESIS = "0" * 64  # what the first entry follows

Entry = dict[str, Any]


@dataclass
class Verdict:
    """What `verify` found: problems, each naming a notebook; remarks that prove nothing wrong; the chain's head."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notebooks: int = 0
    entries: int = 0
    head: str = GENESIS


@dataclass
class _Life:
    """What the manifest says of one notebook."""

    begun: str = ""
    ended: str = ""
    sha256: str = ""
    thinned: str = ""
    adopted: bool = False


@dataclass
class _Known:
    """What the manifest says as a whole."""

    lives: dict[str, _Life] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=lambda: {GENESIS})
    head: str = GENESIS
    entries: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def append(root: Path, *entries: Entry) -> None:
    """Write entries (`what`, `path`, and what else they say) to the manifest; on return they are on the disk.

    A manifest that begins adopts the notebooks that are there.

    Raises:
        ArchiveError: the manifest cannot be written; it is as it was.
    """
    with _opened(root) as file:
        size, head = _tail(file)
        if not size:
            entries = (*_adopted(root, {entry["path"] for entry in entries}), *entries)
        lines, at = [], datetime.now(UTC).isoformat(timespec="seconds")
        for entry in entries:
            bound = _bound({**entry, "at": at, "prev": head})
            head = bound["hash"]
            lines.append(json.dumps(bound, ensure_ascii=False, sort_keys=True) + "\n")
        _write(file, size, "".join(lines).encode())


def delivered(root: Path, place: str, report: str, event_date: date, deliveries: Iterable[Any]) -> None:
    """Write what was sent from a notebook: `deliveries` are those of `pulse.telegram`.

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
    path = root / NAME
    if not path.exists():
        return
    with _reading(path) as file:
        file.seek(start)
        for line in file:
            start += len(line)
            if line.endswith(b"\n") and (entry := _parsed(line)) is not None:
                yield entry, start


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ArchiveError(f"The manifest {path} cannot be read ({error.strerror}); make it readable.") from None


def verify(root: Path, earlier: str = "") -> Verdict:
    """Compare the archive with its manifest.

    Args:
        root: the archive.
        earlier: a head noted before, or its first characters; the chain must still pass through it.

    Raises:
        ArchiveError: there is no manifest.
    """
    if not (root / NAME).exists():
        raise ArchiveError(
            f"{root} has no manifest: the next run or `pulse archive index` begins it with the notebooks it finds."
        )
    known = _read_lives(root)
    there = walk(root)
    found = _judged(root, {*there, *known.lives}, known)
    suspects = {place for place, problem, _ in found if problem}
    if (
        suspects
    ):  # a run may have ended between the manifest and the notebook: whoever is innocent is so at a second look
        known = _read_lives(root)
        found = [each for each in found if each[0] not in suspects] + _judged(root, suspects, known)
    verdict = Verdict(known.problems, known.remarks, len(there), known.entries, known.head)
    for place, problem, remark in sorted(found):
        verdict.problems += [f"{place}: {problem}"] if problem else []
        verdict.remarks += [f"{place}: {remark}"] if remark else []
    if earlier and not any(each.startswith(earlier.lower()) for each in known.hashes):
        verdict.problems.append(f"{NAME}: the entry {earlier} noted earlier is gone: the manifest was cut or rewritten")
    return verdict


# --- judging ---------------------------------------------------------------------------------------------------------


def _read_lives(root: Path) -> _Known:
    """All that the manifest says, and where its chain is broken."""
    known = _Known()
    with (root / NAME).open("rb") as file:
        for number, line in enumerate(file, 1):
            entry = _parsed(line)
            if not line.endswith(b"\n"):
                known.remarks.append(f"{NAME}, line {number}: torn by a crash; the next run takes its place")
                break
            if entry is None or entry.get("hash") != _bound(entry)["hash"]:
                known.problems.append(f"{NAME}, line {number}: changed by hand{_about(entry)}")
            if entry is None:
                continue
            if entry.get("prev") != known.head:
                known.problems.append(f"{NAME}, before line {number}: entries were removed, added or moved by hand")
            known.head = str(entry.get("hash"))
            known.entries += 1
            known.hashes.add(known.head)
            _live(known.lives.setdefault(str(entry["path"]), _Life()), entry)
    return known


def _live(life: _Life, entry: Entry) -> None:
    at = str(entry.get("at"))
    if entry["what"] == "begun":
        life.begun, life.ended, life.sha256, life.thinned, life.adopted = at, "", "", "", False
    elif entry["what"] == "ended":
        life.ended, life.sha256 = at, str(entry.get("sha256"))
    elif entry["what"] == "adopted":
        life.adopted, life.sha256 = True, str(entry.get("sha256"))
    elif entry["what"] == "thinned":
        life.thinned = at


def _judged(root: Path, places: Iterable[str], known: _Known) -> list[tuple[str, str, str]]:
    """Each notebook with the problem or the remark that it gives rise to, one of them or none."""
    return [(place, *_judge(root / place, known.lives.get(place), known.hashes)) for place in places]


def _judge(path: Path, life: _Life | None, hashes: set[str]) -> tuple[str, str]:
    if path.is_symlink():
        return "a link, put there by hand", ""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        gone = life is not None and not life.thinned
        return (f"removed ({_since(life)})" if gone else "", "")
    about, cells = _inside(content)
    if life is None:
        if _untouched(about, cells):
            return "", "cut off while it took its place; nothing had run"
        return "added by hand: no run put it there", ""
    same = digest(content) == life.sha256
    if life.thinned:
        if same:
            return "", f"thinned on {life.thinned} and still there; the next thinning removes it"
        return f"added by hand: the one that stood there was thinned on {life.thinned}", ""
    if not life.sha256:
        return "", f"began on {life.begun} and has no end: it is running, or was killed"
    if not same:
        return f"changed ({_since(life)})", ""
    if about.get("after", GENESIS) not in hashes:
        return "it names an entry of the manifest that is gone: the manifest was rewritten", ""
    return "", ""


def _since(life: _Life | None) -> str:
    if life is None or life.adopted:
        return "it was there when the manifest began"
    return f"it ended on {life.ended}" if life.ended else f"it began on {life.begun}"


def _inside(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a notebook says of its run, and its cells; nothing where it is none."""
    try:
        node = json.loads(content)
        return dict(node["metadata"].get("pulse", {})), list(node["cells"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}, []


def _untouched(about: dict[str, Any], cells: list[dict[str, Any]]) -> bool:
    """Whether a notebook has only taken its place, and nothing of it has run."""
    return about.get("outcome") == "running" and not any(cell.get("execution_count") for cell in cells)


def _about(entry: Entry | None) -> str:
    return f" (it is about {entry['path']})" if entry and entry.get("path") else ""


# --- the file --------------------------------------------------------------------------------------------------------


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
            entry = _parsed(whole[begin:])
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


def _adopted(root: Path, but: Iterable[str]) -> list[Entry]:
    """Entries for the notebooks that are there before the manifest begins."""
    found = ((place, (root / place).read_bytes()) for place in walk(root) if place not in but)
    return [
        {"what": "adopted", "path": place, "sha256": digest(content)}
        for place, content in found
        if not _untouched(*_inside(content))  # another run that is about to begin
    ]


def _bound(entry: Entry) -> Entry:
    """An entry with its hash: over all the rest of it, the hash of the entry before included."""
    rest = {name: value for name, value in entry.items() if name != "hash"}
    canonical = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return {**rest, "hash": hashlib.sha256(canonical.encode()).hexdigest()}


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("what"), str) and "path" in entry else None
