"""The index: what the pages list, in SQLite beside the notebooks.

It is made from the manifest (which attempts there are, and what was sent from them) and from the notebooks (what they
computed), and adds nothing to them. It remembers how far it has read the manifest, and reads the rest after each
attempt and before each look. If it is deleted, the next look makes it again. `index_upkeep` writes it; this module
reads it.
"""

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pulse.archive import ArchiveError, index_upkeep, words
from pulse.archive.attempts import UNENDED, Attempt, Delivered

PAGE = 200
"""How many attempts a page of the list has."""

ORDER = "event_date desc, started desc, path"
"""The order of the list, in SQL."""

PUBLISHES = "load"
"""The notebook that publishes a day."""

COLUMNS = (
    "path", "sha256", "dag", "event_date", "run", "run_id", "task", "notebook", "try", "outcome", "started", "seconds",
    "started_by", "facts", "state",
)  # fmt: skip
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filter:
    """What a reader wants to see; an empty field does not restrict it."""

    first: str = ""  # the first event date
    last: str = ""  # the last event date, included
    dag: str = ""
    notebook: str = ""
    outcome: str = ""  # an outcome, or `not succeeded`
    text: str = ""  # words that must all occur; numbers may be spelled in any usual way
    run_id: str = ""
    task: str = ""
    dags: frozenset[str] | None = None  # the pipelines that the reader may see; None: all

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and the values to bind."""
        terms: list[str] = ["true"]
        values: list[Any] = []
        # The plus makes SQLite use the index by date, which has these columns and the order of the list.
        equal = {"+dag": self.dag, "+notebook": self.notebook, "run_id": self.run_id, "task": self.task}
        for name, value in equal.items():
            if value:
                terms.append(f"{name} = ?")
                values.append(value)
        for sign, day in ((">=", self.first), ("<=", self.last)):
            if day:
                terms.append(f"event_date {sign} ?")
                values.append(day)
        if self.outcome == "not succeeded":
            terms.append(f"+outcome not in ('succeeded', '{UNENDED}')")
        elif self.outcome:
            terms.append("+outcome = ?")
            values.append(self.outcome)
        for spellings in words.asked(self.text):
            terms.append(
                "path in (select path from documents where id in (select rowid from words where words match ?))"
            )
            # A longer word also matches as a prefix; a short one is the prefix of too many words.
            values.append(" OR ".join(f'"{word}"{" *" * (len(word) > 2)}' for word in sorted(spellings)))
        if self.text.strip() and not words.asked(self.text):
            terms.append("false")  # the text is only punctuation
        if self.dags is not None:
            terms.append(f"+dag in ({','.join('?' * len(self.dags))})")
            values += sorted(self.dags)
        return " and ".join(terms), values


@dataclass(frozen=True)
class Listing:
    """One page of the list, the number of all attempts that match, and what else a reader can choose."""

    attempts: list[Attempt]
    total: int
    choices: dict[str, list[str]] = field(default_factory=dict)


class Index:
    """Reads the index of an archive. `opened` brings it up to date with the manifest."""

    def __init__(self, root: Path, connection: sqlite3.Connection) -> None:
        self.root = root
        self._db = connection

    def search(self, wanted: Filter, page: int = 1, size: int = PAGE) -> Listing:
        """The attempts that match, the latest event date first, and what else could be chosen.

        Args:
            wanted: what the reader wants to see.
            page: the page of the list, from 1.
            size: how many attempts a page has.
        """
        if wanted.dags is not None and wanted.dags >= set(self.dags()):
            wanted = replace(wanted, dags=None)  # for a reader who may see everything, no condition is needed
        where, values = wanted.where()
        # The paths of the page come from the index by_date alone, so a late page is as fast as the first.
        paths = f"select path from attempts where {where} order by {ORDER} limit ? offset ?"  # noqa: S608
        found = self._attempts(
            f"where path in ({paths}) order by {ORDER}", *values, size, min((page - 1) * size, 2**62)
        )
        return Listing(found, self._total(wanted), self._choices(wanted))

    def _total(self, wanted: Filter) -> int:
        """The number of attempts that match; it is already counted unless dates, words or a run are asked for."""
        where, values = wanted.where()
        table = "attempts" if any((wanted.first, wanted.last, wanted.text, wanted.run_id, wanted.task)) else "facets"
        count = "count(*)" if table == "attempts" else "coalesce(sum(runs), 0)"
        return int(self._db.execute(f"select {count} from {table} where {where}", values).fetchone()[0])  # noqa: S608

    def _choices(self, wanted: Filter) -> dict[str, list[str]]:
        """The pipelines, notebooks and outcomes that this reader can choose from."""
        seen, allowed = Filter(dags=wanted.dags).where()
        rows = self._db.execute(f"select dag, notebook, outcome from facets where {seen}", allowed).fetchall()  # noqa: S608
        return {
            name: sorted({row[column] for row in rows if row[column]})
            for column, name in enumerate(("dag", "notebook", "outcome"))
        }

    def attempt(self, path: str) -> Attempt | None:
        """The attempt at a path below the archive's root, or None."""
        return next(iter(self._attempts("where path = ?", path)), None)

    def by_reference(self, reference: str) -> list[Attempt]:
        """The attempts whose run reference or SHA-256 begins with these characters."""
        first = reference.lower()
        return self._attempts("where sha256 >= ? and sha256 < ? order by started", first, first + "g")

    def tries(self, attempt: Attempt) -> list[Attempt]:
        """All attempts of the same notebook in the same run."""
        where = "where dag = ? and event_date = ? and run = ? and notebook = ? order by try"
        return self._attempts(where, attempt.dag, attempt.event_date, attempt.run, attempt.notebook)

    def siblings(self, attempt: Attempt) -> list[Attempt]:
        """The other notebooks of the same run, in the order in which they began."""
        where = "where dag = ? and event_date = ? and run = ? and notebook != ? order by started, path"
        return self._attempts(where, attempt.dag, attempt.event_date, attempt.run, attempt.notebook)

    def before(self, attempt: Attempt) -> Attempt | None:
        """The attempt to compare this one with by default: the last success, of an earlier event date if possible."""
        kept = "where dag = ? and notebook = ? and outcome = 'succeeded' and state != 'thinned'"
        what = (attempt.dag, attempt.notebook)
        earlier = self._attempts(
            f"{kept} and event_date < ? order by event_date desc, started desc limit 1", *what, attempt.event_date
        )
        same_day = f"{kept} and event_date = ? and started < ? order by started desc limit 1"
        return next(iter(earlier or self._attempts(same_day, *what, attempt.event_date, attempt.started)), None)

    def others(self, attempt: Attempt, count: int = 40) -> list[Attempt]:
        """The latest other attempts of the same notebook that are still kept, as a choice for comparing."""
        where = (
            "where dag = ? and notebook = ? and path != ? and state != 'thinned' order by event_date desc, started desc"
        )
        return self._attempts(f"{where} limit ?", attempt.dag, attempt.notebook, attempt.path, count)

    def delivered(self, path: str) -> list[Delivered]:
        """The deliveries made from a notebook, in order."""
        rows = self._db.execute(
            "select at, report, event_date, chat, state, did, ref, message_id from deliveries where path = ?", (path,)
        )
        return [Delivered(*row) for row in rows]

    def delivering(self, attempts: Iterable[Attempt]) -> set[str]:
        """The paths of those attempts from which something was sent, or may have been sent."""
        sql = "select 1 from deliveries where path = ? and state != 'failed'"
        return {each.path for each in attempts if self._db.execute(sql, (each.path,)).fetchone()}

    def made_of(self, attempt: Attempt) -> list[Attempt]:
        """The attempts that published the numbers which this attempt read, the latest event date first.

        Both notebooks record the load that connects them. For a notebook that recorded none, it is the last attempt
        that published its event date before it began.
        """
        if attempt.notebook == PUBLISHES:
            return []
        return self._linked(attempt, "used", "made") or self._published_before(attempt)

    def replaces(self, attempt: Attempt) -> list[Attempt]:
        """The attempts that published the numbers which this attempt's run replaced."""
        return self._of_its_run(attempt, "replaced", "made")

    def replaced_by(self, attempt: Attempt) -> list[Attempt]:
        """The attempts that replaced the numbers which this attempt's run published."""
        return self._of_its_run(attempt, "made", "replaced")

    def _of_its_run(self, attempt: Attempt, role: str, other: str) -> list[Attempt]:
        found = {
            each.path: each for one in (attempt, *self.siblings(attempt)) for each in self._linked(one, role, other)
        }
        return [each for each in found.values() if (each.dag, each.run) != (attempt.dag, attempt.run)]

    def used_by(self, attempt: Attempt) -> list[Attempt]:
        """The attempts of other runs that read what this attempt's run published, the latest first."""
        run = [attempt, *self.siblings(attempt)]
        found = {each.path: each for one in run for each in self._linked(one, "made", "used")}
        if paths := {each.path for each in run if each.notebook == PUBLISHES}:
            later = "where event_date = ? and dag != ? and started > ?"
            readers = self._attempts(later, attempt.event_date, attempt.dag, attempt.started)
            found |= {each.path: each for each in readers if any(made.path in paths for made in self.made_of(each))}
        outside = (each for each in found.values() if (each.dag, each.run) != (attempt.dag, attempt.run))
        return sorted(outside, key=lambda each: (each.event_date, each.started), reverse=True)

    def _published_before(self, attempt: Attempt) -> list[Attempt]:
        if "event_date" not in attempt.facts["parameters"]:
            return []
        return self._attempts(
            "where event_date = ? and dag != ? and notebook = ? and outcome = 'succeeded' and started < ? "
            "order by started desc limit 1",
            attempt.event_date,
            attempt.dag,
            PUBLISHES,
            attempt.started,
        )

    def _linked(self, attempt: Attempt, role: str, other: str) -> list[Attempt]:
        paths = """
            select theirs.path
            from links as ours
            inner join links as theirs on theirs.name = ours.name and theirs.role = ?
            where ours.path = ? and ours.role = ?
        """
        where = f"where path in ({paths}) and path != ? order by event_date desc, started desc"
        return self._attempts(where, other, attempt.path, role, attempt.path)

    def terms(self) -> Iterator[tuple[str, str]]:
        """Every word that finds something, in order, once for each notebook that it finds, with the notebook's path."""
        paths = dict(self._db.execute("select id, path from documents"))
        for term, document in self._db.execute("select term, doc from terms"):
            if document in paths:
                yield term, paths[document]

    def position(self) -> tuple[int, str]:
        """How far the index has read the manifest: the offset in bytes, and the hash of the entry before it."""
        return index_upkeep.position(self._db)

    def dags(self) -> list[str]:
        """The pipelines that have attempts, in order."""
        return [row[0] for row in self._db.execute("select distinct dag from facets where runs > 0 order by 1")]

    def all(self) -> list[Attempt]:
        """Every attempt, the latest event date first."""
        return self._attempts("order by event_date desc, started desc, path")

    def _attempts(self, tail: str, *values: Any) -> list[Attempt]:
        rows = self._db.execute(f"select {', '.join(COLUMNS)} from attempts {tail}", values)  # noqa: S608
        names = [each.name for each in fields(Attempt)]
        return [Attempt(**{**dict(zip(names, row, strict=True)), "facts": json.loads(row[13])}) for row in rows]


@contextmanager
def opened(root: Path) -> Iterator[Index]:
    """Open the index of an archive, up to date, for the length of the `with` block.

    Raises:
        ArchiveError: there is no archive, or its index can be neither written nor read.
    """
    _check_exists(root)
    with closing(index_upkeep.connect(root)) as connection:
        yield Index(root, connection)


def attempt(root: Path, path: str) -> Attempt | None:
    """The attempt at a path below the archive's root, or None if the manifest does not know it.

    Raises:
        ArchiveError: as `opened`.
    """
    with opened(root) as found:
        return found.attempt(path)


def keep_up(root: Path) -> None:
    """Bring the index up to date after a run. If that fails, the next look at the archive does it."""
    try:
        with opened(root):
            pass
    except Exception as error:  # the run itself is kept, and has its outcome
        log.warning("The archive's index was not brought up to date (%s); the next look at it will.", error)


def rebuild(root: Path) -> int:
    """Make the index again from the manifest and the notebooks, and return the number of attempts.

    Raises:
        ArchiveError: there is no archive, or the index cannot be written.
    """
    _check_exists(root)
    with closing(index_upkeep.rebuild(root)) as connection:
        return int(connection.execute("select count(*) from attempts").fetchone()[0])


def _check_exists(root: Path) -> None:
    if not root.is_dir():
        raise ArchiveError(f"There is no archive at {root} yet; it begins with the first run.")
