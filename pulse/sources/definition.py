"""A `sources.sql`: its statements, and where in the file they stand."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pulse import PulseError
from pulse.clickhouse import statements, without_comments

PRESETS = Path(__file__).parent / "presets"
FILE = "sources.sql"

VIEWS = ("feed_events", "message_events")
"""The views through which the pipeline reads the app's tables."""

STATEMENT = re.compile(r"create\s+(?:or\s+replace\s+)?view\s+(\w+)\s+as\s+(.*)", re.DOTALL | re.IGNORECASE)


class SourceError(PulseError):
    """The source is not defined as the pipeline needs it, or does not hold what the definition says."""


@dataclass(frozen=True)
class Statement:
    """The SELECT of one of the views, and where it stands."""

    view: str
    select: str
    """Without its end; `{source}` stands for the app's database."""
    file: str
    line: int
    """The line of the file in which it begins, from 1."""

    @property
    def place(self) -> str:
        """Where it is, for an error message."""
        return f"{self.file}, line {self.line}"

    def place_of(self, column: str) -> str:
        """Where it names a column, or where it is if that cannot be told."""
        lines = self.select.split("\n")
        named = re.compile(rf"(^|[\s.,`]){re.escape(column)}`?\s*(,|--|$)")
        found = next((number for number, line in enumerate(lines) if named.search(line)), 0)
        return f"{self.file}, line {self.line + found}"


def load(source: str) -> dict[str, Statement]:
    """The statements of a source, by view.

    Args:
        source: a preset's name, or a folder with a `sources.sql`.

    Raises:
        SourceError: there is no such preset or file, or the file is not two views.
    """
    path = _path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error}); PULSE_SOURCE names its folder.") from None
    found: dict[str, Statement] = {}
    for begins, statement in _statements(text):
        line = text.count("\n", 0, begins) + 1
        match = STATEMENT.fullmatch(statement)
        if not match:
            raise SourceError(
                f"{path}, line {line}: expected `create or replace view {VIEWS[0]} as select …;`, or {VIEWS[1]}."
            )
        view, select = match[1], match[2].rstrip()
        if view not in VIEWS or view in found:
            what = "is there twice" if view in found else f"is neither {' nor '.join(VIEWS)}"
            raise SourceError(f"{path}, line {line}: the view {view} {what}; a source is one of each.")
        found[view] = Statement(view, select, str(path), line + statement.count("\n", 0, match.start(2)))
    for view in VIEWS:
        if view not in found:
            raise SourceError(f"{path} has no view {view}; add `create or replace view {view} as select …;`.")
    return found


def presets() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.sql"))


def text(preset: str) -> str:
    """A preset's `sources.sql`.

    Raises:
        SourceError: there is no such preset.
    """
    if preset not in presets():
        close = get_close_matches(preset, presets(), 1)
        meant = f"did you mean {close[0]}? The presets are" if close else "the presets are"
        raise SourceError(f"There is no preset '{preset}': {meant} {', '.join(presets())}.")
    return (PRESETS / f"{preset}.sql").read_text(encoding="utf-8")


def _path(source: str) -> Path:
    if re.fullmatch(r"\w+", source) and not Path(source).is_dir():
        if source in presets():
            return PRESETS / f"{source}.sql"
        close = get_close_matches(source, presets(), 1)
        meant = f"did you mean {close[0]}? The presets are" if close else "the presets are"
        raise SourceError(
            f"PULSE_SOURCE is '{source}': {meant} {', '.join(presets())}; or give a folder with a {FILE}."
        )
    return Path(source).expanduser() / FILE


def _statements(text: str) -> list[tuple[int, str]]:
    """The statements of a file, each from its first word on, with the place of that word."""
    found, position = [], 0
    for each in statements(text):
        position = text.index(each, position)
        statement = without_comments(each)
        found.append((position + len(each) - len(statement), statement))
        position += len(each)
    return found
