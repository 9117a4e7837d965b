"""The archive: executed notebooks as an audit trail.

    manifest.py      what was kept: one entry for each step, in a hash chain
    lives.py         which entry may follow which, and what retention may remove
    proof.py         compares the archive with its manifest, and with the ledger of deliveries
    executed.py      the one reader of executed notebooks
    attempts.py      what the pages list: attempts and deliveries
    words.py         the words by which a notebook is found
    index.py         searches and reads the index, which is made from the manifest and the notebooks
    index_upkeep.py  the index's SQLite schema, and how it is kept up to date
    render.py        an executed notebook as harmless HTML
    compare.py       the differences between two runs of a notebook
    pages.py         the pages, the same in Airflow and on disk
    site.py          the pages as files
    retention.py     what may be removed, and what stays

The manifest, the index and the pages need an archive in a local (or mounted) folder. In an object store, notebooks are
kept in the same way and messages show the same run references; whether a notebook was changed later is recorded by the
store's own versioning. A copy of such an archive in a folder can be used with everything here.

A notebook is named by its path below the archive's root. Its run reference, which messages show, is the
beginning of its SHA-256.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

from pulse import PulseError
from pulse.settings import in_object_store

TEMPLATES = Path(__file__).parent / "templates"

REF_LENGTH = 10
"""How many characters of a notebook's SHA-256 make a run reference: 40 bits, short enough to type from a message."""

# <dag>/<event date>/<run>/<notebook>.<try>.ipynb, with no hidden name and no way out of the archive.
_PATH = re.compile(r"(?:(?!\.)[^/\\\0]+/)+(?!\.)[^/\\\0]+\.ipynb")


class ArchiveError(PulseError):
    """The archive cannot keep, find or prove a notebook."""


def folder(output: str) -> Path:
    """The archive's root as a local folder.

    Raises:
        ArchiveError: the archive is in an object store.
    """
    if in_object_store(output):
        raise ArchiveError(
            f"The archive at {output} is not a local folder, so it has no manifest, index or pages: copy or mount it, "
            "and set PULSE_OUTPUT to the folder."
        )
    return Path(output)


def find(root: Path, path: str) -> Path:
    """Find the file of a notebook by its path below the archive's root.

    Raises:
        ArchiveError: there is no such notebook. No path reaches anything outside the archive.
    """
    file = root / path if is_notebook_path(path) else None
    if file is None or not file.is_file() or not file.resolve().is_relative_to(root.resolve()):
        raise ArchiveError(f"The archive holds no notebook {path[:200]!r}.")
    return file


def is_notebook_path(path: str) -> bool:
    """Whether a notebook can have this path below the archive's root: no hidden name, and no way out of the archive."""
    try:
        fits = len(path.encode()) < 4000 and all(len(part.encode()) <= 255 for part in path.split("/"))
    except UnicodeEncodeError:
        return False
    return fits and bool(_PATH.fullmatch(path))


def notebook_path(root: Path, file: str) -> str:
    """The path below the archive's root of a notebook's file."""
    return Path(file).resolve().relative_to(root.resolve()).as_posix()


def address(path: str) -> str:
    """The address of a run's page, relative to the address of the pages."""
    return f"run/{quote(path.removesuffix('.ipynb'))}.html"


def walk(root: Path) -> list[str]:
    """The paths of all notebooks in the archive's folder, in order; hidden files are left out."""
    found = (file.relative_to(root).as_posix() for file in root.rglob("*.ipynb"))
    return sorted(path for path in found if is_notebook_path(path))


def digest(content: bytes) -> str:
    """The SHA-256 of a notebook, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def to_disk(folder: Path) -> None:
    """Flush a folder to the disk, so that its list of names survives a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def ref(sha256: str) -> str:
    """The run reference: the beginning of a notebook's SHA-256."""
    return sha256[:REF_LENGTH]
