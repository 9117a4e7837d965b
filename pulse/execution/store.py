"""Executed notebooks in the archive: read, written whole or not at all, locked, and recognized."""

import base64
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pulse import archive
from pulse.archive import ArchiveError
from pulse.execution.light import light_import, load_backend
from pulse.settings import in_object_store

with light_import():
    import nbformat
    from papermill import iorw


def exists(path: str) -> bool:
    """Whether the archive has a notebook at this path."""
    load_backend(path)
    if not in_object_store(path):
        return Path(path).exists()
    folder, _, name = path.rpartition("/")
    return any(found.rstrip("/").rpartition("/")[2] == name for found in iorw.papermill_io.listdir(folder))


def scraps(path: str) -> dict[str, Any]:
    """The scraps of an archived notebook: its values by name, an image as the bytes of its PNG.

    Raises:
        ArchiveError: there is no notebook at this path.
    """
    with light_import():
        import scrapbook  # it imports pandas, which no DAG file should load
    _must_exist(path)
    found: dict[str, Any] = {}
    for name, scrap in scrapbook.read_notebook(path).scraps.items():
        image = ((scrap.display or {}).get("data") or {}).get("image/png")
        found[name] = base64.b64decode(image) if image else scrap.data
    return found


def run_reference(path: str) -> str:
    """The run reference of an archived notebook, by which messages name it and `pulse archive show` finds it.

    Raises:
        ArchiveError: there is no notebook at this path.
    """
    _must_exist(path)
    content = iorw.papermill_io.read(path).encode() if in_object_store(path) else Path(path).read_bytes()
    return archive.ref(archive.digest(content))


def load_node(path: str) -> Any:
    """The notebook at a path."""
    return iorw.load_notebook_node(path)


def as_text(node: Any) -> str:
    """The text of a notebook. Half a surrogate pair, which UTF-8 cannot encode, stays escaped."""
    return str(nbformat.writes(node)).encode("utf-8", "backslashreplace").decode()


def _must_exist(path: str) -> None:
    if not exists(path):
        raise ArchiveError(f"The archive holds no notebook at {path}; run it first.")


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Let no other process write this notebook meanwhile, where the archive is in a folder that can be locked."""
    if in_object_store(path):
        yield
        return
    folder = Path(path).parent
    with suppress(OSError):  # `write` says what is wrong with it
        folder.mkdir(parents=True, exist_ok=True)
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # some network file systems cannot lock folders
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def mark(path: str, text: str | None = None) -> Any:
    """What distinguishes the file that we wrote from one that replaced it: in a store, a hash of its text.

    Args:
        path: of the notebook.
        text: its text, where it is known.
    """
    if in_object_store(path):
        return hashlib.sha256((iorw.papermill_io.read(path) if text is None else text).encode()).digest()
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def write(text: str, path: str, durable: bool = False) -> None:
    """Write a file of the archive, whole or not at all.

    Args:
        text: its content.
        path: where.
        durable: return only once the file would survive a power cut.

    Raises:
        ArchiveError: it cannot be written there.
    """
    try:
        if in_object_store(path):
            iorw.papermill_io.write(text, path)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with part.open("x", encoding="utf-8") as file:  # with the mode that the umask leaves
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            archive.to_disk(target.parent)
    except OSError as error:
        raise ArchiveError(
            f"The archive cannot keep {path} ({error.strerror}); make room or make it writable, or set PULSE_OUTPUT."
        ) from None
