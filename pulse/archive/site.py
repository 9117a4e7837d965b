"""The archive's pages as files, which open from disk or from any web server.

index.html, index-2.html …   the pages of the list
run/                         each run, and its notebook
compare/                     each run compared with the one before it
list/                        the data with which the list filters itself: its entries, and which word is in which run
"""

import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pulse import archive
from pulse.archive import ArchiveError, index, pages
from pulse.archive.attempts import Attempt, day
from pulse.archive.index import PAGE, Filter, Index
from pulse.archive.pages import Look
from pulse.settings import Settings

MADE = ".made.json"
"""The file that says which pages are there, and from what they were made."""

LIST = ""
"""The key of the list in that file; no notebook has it."""

ROWS = 500
"""How many entries of the list a file has; `filter.js` has the same number."""

log = logging.getLogger(__name__)


def write(root: Path, folder: Path, settings: Settings) -> tuple[int, int]:
    """Write the pages of an archive into a folder.

    Pages whose content has not changed since the last time stay as they are. A run that cannot be shown gets a page
    that says why.

    Returns:
        The number of runs, and how many of their pages were written.

    Raises:
        ArchiveError: there is no archive, or the folder holds something else or cannot be written.
    """
    if folder.resolve().is_relative_to(root.resolve()):
        raise ArchiveError(f"{folder} is in the archive, which holds only notebooks: give another folder.")
    made = _made(folder)
    look = Look(settings, served=False)
    fresh = 0
    with index.opened(root) as opened:
        attempts = opened.all()
        known = {LIST: hashlib.sha256(repr([attempts, opened.position(), _version()]).encode()).hexdigest()}
        for attempt in attempts:
            before = opened.before(attempt) if attempt.state != "thinned" else None
            about = [attempt, before, opened.tries(attempt), opened.siblings(attempt), opened.delivered(attempt.path)]
            about += [opened.made_of(attempt), opened.used_by(attempt)]
            known[attempt.path] = hashlib.sha256(repr([about, _version()]).encode()).hexdigest()
            if made.get(attempt.path) == known[attempt.path]:
                continue
            fresh += 1
            _write_run(folder, opened, look, attempt, before)
        if made.get(LIST) != known[LIST]:
            _write_list(folder, opened, look, attempts)
    for gone in made.keys() - known.keys():
        for kind in ("run", "compare"):
            if archive.is_notebook_path(gone):
                (folder / kind / gone).with_suffix(".html").unlink(missing_ok=True)
    (folder / MADE).write_text(json.dumps(known))
    return len(attempts), fresh


def _write_run(folder: Path, opened: Index, look: Look, attempt: Attempt, before: Attempt | None) -> None:
    path = attempt.path
    _put(folder / "run" / path, _shown(lambda: pages.run_page(opened, look, path), look, f"run/{path}"))
    if attempt.state != "thinned":
        try:
            shutil.copyfile(archive.find(opened.root, path), folder / "run" / path)
        except ArchiveError:
            (folder / "run" / path).unlink(missing_ok=True)
    if before:
        compared = _shown(lambda: pages.compare_page(opened, look, before.path, path), look, f"compare/{path}")
        _put(folder / "compare" / path, compared)


def _shown(page: Callable[[], str], look: Look, path: str) -> str:
    """A page, or a page that says why this one cannot be made, so that one run does not stop the others."""
    try:
        return page()
    except Exception as error:
        log.warning("%s cannot be shown: %s", path, error)
        said = str(error) if isinstance(error, ArchiveError) else f"{type(error).__name__}: {error}"
        return pages.message_page(look, "This cannot be shown", said, "../" * path.count("/"))


def _write_list(folder: Path, opened: Index, look: Look, attempts: Sequence[Attempt]) -> None:
    """Write the pages of the list, and the data for its filter."""
    shutil.rmtree(folder / "list", ignore_errors=True)
    (folder / "list").mkdir()
    for old in folder.glob("index-*.html"):
        old.unlink()
    for number in range(1, max(1, -(-len(attempts) // PAGE)) + 1):
        (folder / pages.list_file(number)).write_text(pages.list_page(opened, look, Filter(), number))
    for number, begin in enumerate(range(0, len(attempts), ROWS)):
        _call(folder, f"rows-{number}", "rows", number, pages.rows(opened, look, attempts[begin : begin + ROWS]))
    _call(folder, "facets", "facets", _facets(attempts))
    positions = {each.path: position for position, each in enumerate(attempts)}
    for name, found in itertools.groupby(_words(opened, positions), key=lambda pair: _file(pair[0])):
        _call(folder, f"words-{name}", "words", name, dict(found))


def _facets(attempts: Sequence[Attempt]) -> dict[str, list[Any]]:
    """The values to choose from, and for each attempt the numbers of its values."""
    found: dict[str, list[Any]] = {}
    for name, attribute in (("day", "event_date"), ("dag", "dag"), ("notebook", "notebook"), ("outcome", "outcome")):
        values = [getattr(each, attribute) for each in attempts]
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        found[f"{name}s"], found[name] = list(numbers), [numbers[value] for value in values]
    found["titles"] = [day(each) for each in found["days"]]
    return found


def _words(opened: Index, positions: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Each word with the attempts that it finds: the position of the first, then the distances, in base 36."""
    for term, found in itertools.groupby(opened.terms(), key=lambda pair: pair[0]):
        listed = sorted({positions[path] for _, path in found if path in positions})
        if listed:
            steps = (after - before for before, after in itertools.pairwise([0, *listed]))
            yield term, " ".join(map(_base36, steps))


def _base36(number: int) -> str:
    digits = ""
    while number >= 36:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return "0123456789abcdefghijklmnopqrstuvwxyz"[number] + digits


def _file(term: str) -> str:
    """The name of the file that has a word: the codes of its first two letters, which any disk accepts."""
    return "_".join(f"{ord(letter):x}" for letter in term[:2])


def _call(folder: Path, file: str, name: str, *values: Any) -> None:
    """Write a file with data for the list. It is a script, because a page on disk can load nothing else."""
    handed = ", ".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
    (folder / "list" / f"{file}.js").write_text(f"archive.{name}({handed});\n")


def _made(folder: Path) -> dict[str, str]:
    """What was made the last time. A folder that holds something else is left alone."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MADE).exists():
        raise ArchiveError(f"{folder} holds something other than the archive's pages: give an empty or a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MADE).exists():
            (folder / MADE).write_text("{}")
        return dict(json.loads((folder / MADE).read_text()))
    except (OSError, ValueError) as error:
        raise ArchiveError(f"The pages cannot be written to {folder} ({error}): give another folder.") from None


def _put(path: Path, html: str) -> None:
    target = path.with_suffix(".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html)


def _version() -> str:
    """The version of the templates: if they change, all pages are written again."""
    texts = (path.read_bytes() for path in sorted(archive.TEMPLATES.iterdir()))
    return hashlib.sha256(b"".join(texts)).hexdigest()
