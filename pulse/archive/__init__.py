"""The archive: executed notebooks as an audit trail.

    manifest.py   what was kept, one entry a step, each bound to the one before by its hash
    lives.py      which entry may follow which, and what retention may let go
    proof.py      the archive compared with its manifest, and with what is known elsewhere
    executed.py   the one reader of executed notebooks: what they handed on
    index.py      what the pages list, kept from the manifest and the notebooks; never the source of truth
    render.py     an executed notebook as harmless HTML
    compare.py    what differs between two runs of a notebook
    pages.py      the pages, the same ones in Airflow and on disk
    site.py       the pages as files
    retention.py  what may go, and what stays

The manifest, the index and the pages need an archive in a folder of this machine (or one mounted there). In an object
store the notebooks are kept as they are everywhere, and messages bear their references; what happened to a notebook
later is for the store's own versioning to say, and a copy in a folder can be looked at with everything here.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

from pulse import PulseError

TEMPLATES = Path(__file__).parent / "templates"

REF_LENGTH = 10
"""How much of a notebook's SHA-256 makes a run reference: 40 bits, short enough to type from a message."""

# <dag>/<event date>/<run>/<notebook>.<try>.ipynb: nothing hidden, nothing that leads out.
_PLACE = re.compile(r"(?:(?!\.)[^/\\\0]+/)+(?!\.)[^/\\\0]+\.ipynb")


class ArchiveError(PulseError):
    """The archive cannot keep, find or prove a notebook."""


def folder(output: str) -> Path:
    """The archive as a folder of this machine.

    Raises:
        ArchiveError: it is in an object store.
    """
    if "://" in output:
        raise ArchiveError(
            f"The archive at {output} is no folder of this machine, and has no manifest, index or pages: copy or mount "
            "it, and set PULSE_OUTPUT to the folder."
        )
    return Path(output)


def find(root: Path, place: str) -> Path:
    """The file of a notebook of the archive, named by its path below the root.

    Raises:
        ArchiveError: there is none; whatever the name, nothing outside the archive is touched.
    """
    path = root / place if is_place(place) else None
    if path is None or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise ArchiveError(f"The archive holds no notebook {place[:200]!r}.")
    return path


def is_place(name: str) -> bool:
    """Whether a name can be that of a notebook of the archive: nothing hidden, nothing that leads out of it."""
    try:
        fits = len(name.encode()) < 4000 and all(len(part.encode()) <= 255 for part in name.split("/"))
    except UnicodeEncodeError:
        return False
    return fits and bool(_PLACE.fullmatch(name))


def place(root: Path, path: str) -> str:
    """A notebook's path below the archive's root."""
    return Path(path).resolve().relative_to(root.resolve()).as_posix()


def address(place: str) -> str:
    """Where a run's page is, below the address of the pages."""
    return f"run/{quote(place.removesuffix('.ipynb'))}.html"


def walk(root: Path) -> list[str]:
    """Every notebook in the archive's folder, as paths below the root in order; what is hidden is none."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*.ipynb"))
    return sorted(place for place in found if is_place(place))


def digest(content: bytes) -> str:
    """A notebook's SHA-256, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def to_disk(folder: Path) -> None:
    """Make a folder's list of names outlast a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def ref(sha256: str) -> str:
    """The short reference of a run: the beginning of its notebook's SHA-256."""
    return sha256[:REF_LENGTH]
