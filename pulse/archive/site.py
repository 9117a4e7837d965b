"""The archive's pages as files: they open from disk, and from any web server.

index.html, index-2.html …   the list, a page at a time
run/                         each run, and its notebook
compare/                     each run beside the one before it
list/                        what the list needs to filter itself: entries, and which word is in which run
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
from pulse.archive.index import PAGE, Attempt, Filter, Index
from pulse.archive.pages import Look
from pulse.settings import Settings

MADE = ".made.json"  # which notebook pages are already there, and of what
LIST = ""  # the list's own name among them, which no notebook has
ROWS = 500  # entries of the list in a file; as in filter.js
log = logging.getLogger(__name__)


def write(root: Path, folder: Path, settings: Settings) -> tuple[int, int]:
    """Write the pages of an archive into a folder; gives how many runs it shows, and how many pages were made anew.

    What has not changed since the last time is left as it is. A run that cannot be shown has a page that says why.

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
            if archive.is_place(gone):
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
    """A page, or a page with the line that says why it cannot be made: no run keeps the others from being shown."""
    try:
        return page()
    except Exception as error:
        log.warning("%s cannot be shown: %s", path, error)
        said = str(error) if isinstance(error, ArchiveError) else f"{type(error).__name__}: {error}"
        return pages.message_page(look, "This cannot be shown", said, "../" * path.count("/"))


def _write_list(folder: Path, opened: Index, look: Look, attempts: Sequence[Attempt]) -> None:
    """The list page by page, and beside it what its filter reads."""
    shutil.rmtree(folder / "list", ignore_errors=True)
    (folder / "list").mkdir()
    for old in folder.glob("index-*.html"):
        old.unlink()
    for number in range(1, max(1, -(-len(attempts) // PAGE)) + 1):
        (folder / pages.place_of_list(number)).write_text(pages.list_page(opened, look, Filter(), number))
    for number, begin in enumerate(range(0, len(attempts), ROWS)):
        _call(folder, f"rows-{number}", "rows", number, pages.rows(opened, look, attempts[begin : begin + ROWS]))
    _call(folder, "facets", "facets", _facets(attempts))
    places = {each.path: place for place, each in enumerate(attempts)}
    for name, found in itertools.groupby(_words(opened, places), key=lambda pair: _file(pair[0])):
        _call(folder, f"words-{name}", "words", name, dict(found))


def _facets(attempts: Sequence[Attempt]) -> dict[str, list[Any]]:
    """What can be chosen, and for each attempt which of it, as a number."""
    found: dict[str, list[Any]] = {}
    for name, attribute in (("day", "event_date"), ("dag", "dag"), ("notebook", "notebook"), ("outcome", "outcome")):
        values = [getattr(each, attribute) for each in attempts]
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        found[f"{name}s"], found[name] = list(numbers), [numbers[value] for value in values]
    found["titles"] = [index.day(each) for each in found["days"]]
    return found


def _words(opened: Index, places: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Each word with the attempts that it finds: the first one's place, then the steps to the next, in base 36."""
    for term, found in itertools.groupby(opened.terms(), key=lambda pair: pair[0]):
        listed = sorted({places[path] for _, path in found if path in places})
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
    """In which file a word is: its first two letters, in a form that any disk takes."""
    return "_".join(f"{ord(letter):x}" for letter in term[:2])


def _call(folder: Path, file: str, name: str, *values: Any) -> None:
    """A file that hands data to the list: a script, since a page on disk may read nothing else."""
    handed = ", ".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
    (folder / "list" / f"{file}.js").write_text(f"archive.{name}({handed});\n")


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
    target = path.with_suffix(".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html)


def _version() -> str:
    """The pages' own: with other templates they are all made anew."""
    texts = (path.read_bytes() for path in sorted(archive.TEMPLATES.iterdir()))
    return hashlib.sha256(b"".join(texts)).hexdigest()
