"""The archive's pages as files: they open from disk, and from any web server."""

import hashlib
import json
import shutil
from pathlib import Path

from pulse import archive
from pulse.archive import ArchiveError, index, pages
from pulse.archive.pages import Look
from pulse.settings import Settings

MADE = ".made.json"  # which notebook pages are already there, and of what


def write(root: Path, folder: Path, settings: Settings) -> tuple[int, int]:
    """Write the pages of an archive into a folder; gives how many runs it shows, and how many pages were made anew.

    What has not changed since the last time is left as it is.

    Raises:
        ArchiveError: there is no archive, or the folder holds something else, or cannot be written.
    """
    if folder.resolve().is_relative_to(root.resolve()):
        raise ArchiveError(f"{folder} is in the archive, which holds notebooks only: give another folder.")
    made = _made(folder)
    look = Look(settings, served=False)
    fresh = 0
    with index.opened(root) as opened:
        attempts = opened.all()
        known = {}
        for attempt in attempts:
            before = opened.before(attempt) if attempt.state != "thinned" else None
            about = [attempt, before, opened.tries(attempt), opened.siblings(attempt), opened.delivered(attempt.path)]
            known[attempt.path] = hashlib.sha256(repr([about, _version()]).encode()).hexdigest()
            if made.get(attempt.path) == known[attempt.path]:
                continue
            fresh += 1
            _put(folder / "run" / attempt.path, pages.run_page(opened, look, attempt.path))
            if attempt.state != "thinned":
                shutil.copyfile(archive.find(root, attempt.path), folder / "run" / attempt.path)
            if before:
                _put(folder / "compare" / attempt.path, pages.compare_page(opened, look, before.path, attempt.path))
        _put(folder / "index", pages.list_page(opened, look, index.Filter()))
    for gone in made.keys() - known.keys():
        for kind in ("run", "compare"):
            (folder / kind / gone).with_suffix(".html").unlink(missing_ok=True)
    (folder / MADE).write_text(json.dumps(known))
    return len(attempts), fresh


def _made(folder: Path) -> dict[str, str]:
    """What an earlier time made; a folder of something else is left alone."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MADE).exists():
        raise ArchiveError(f"{folder} holds something else than the archive's pages: give a folder of their own.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MADE).exists():
            (folder / MADE).write_text("{}")
        return dict(json.loads((folder / MADE).read_text()))
    except (OSError, ValueError) as error:
        raise ArchiveError(f"The pages cannot be written to {folder} ({error}): give another folder.") from None


def _put(path: Path, html: str) -> None:
    target = path.with_suffix(".html") if path.suffix else path.with_name(path.name + ".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html)


def _version() -> str:
    """The pages' own: with other templates they are all made anew."""
    texts = (path.read_bytes() for path in sorted(archive.TEMPLATES.iterdir()))
    return hashlib.sha256(b"".join(texts)).hexdigest()
