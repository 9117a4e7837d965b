"""The index: what the pages list, in SQLite beside the notebooks; kept when a notebook is written, rebuilt on demand.

It is made of the manifest (which attempts there are, what was sent from them) and the notebooks (what came out), and
says nothing of its own. It remembers how far it has read the manifest, and reads on from there: after each attempt,
and before each look. Deleted, it comes back.
"""

import itertools
import json
import logging
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from pulse import archive
from pulse.archive import ArchiveError, executed, manifest
from pulse.archive.lives import FOLLOWS

NAME = "index.sqlite"
PAGE = 200  # attempts on one page of the list
# The index of a version that made other rows is made anew.
VERSION = 6

SCHEMA = """
create table position (offset integer, head text);
insert into position values (0, '');
create table attempts (
    path text primary key, sha256 text, dag text, event_date text, run text, run_id text, task text, notebook text,
    try integer, outcome text, started text, seconds real, started_by text, facts text, state text
) without rowid;
create index by_date on attempts (event_date desc, started desc, path, dag, notebook, outcome);
create index by_ref on attempts (sha256);
create index by_run on attempts (run_id);
create index by_notebook on attempts (dag, notebook, event_date, started);
create table deliveries (path text, at text, report text, event_date text, chat text, state text, did text, ref text,
    message_id integer);
create index by_path on deliveries (path);
create table links (path text, role text, name text, primary key (name, role, path)) without rowid;
create index links_of on links (path);
create table facets (dag text, notebook text, outcome text, runs integer, primary key (dag, notebook, outcome))
    without rowid;
create table documents (id integer primary key, path text, kind text);
create index documents_of on documents (path);
create virtual table words using fts5 (word, content = '', detail = none, columnsize = 0,
    tokenize = "unicode61 remove_diacritics 0 tokenchars '-_.,:/@+'");
create virtual table terms using fts5vocab (words, instance);
"""
"""`words` holds no text, only which word is in which document; `facets` counts, so that nobody has to."""

ORDER = "event_date desc, started desc, path"
FOUND = "select rowid from words where words match ?"
PUBLISHES = "load"
"""The notebook that publishes a day."""

UNENDED = "no end recorded"
"""The outcome of an attempt that has begun: it is running, or was cut off before it could say how it ended."""

COLUMNS = (
    "path", "sha256", "dag", "event_date", "run", "run_id", "task", "notebook", "try", "outcome", "started", "seconds",
    "started_by", "facts", "state",
)  # fmt: skip
# What is told of a notebook that is gone.
STAYS = ("run_id", "task", "started", "seconds", "started_by", "facts")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """What was sent from a notebook to one chat."""

    at: str
    report: str
    event_date: str
    chat: str
    state: str
    did: str
    ref: str
    message_id: int


@dataclass(frozen=True)
class Attempt:
    """A notebook of the archive: one attempt to run it.

    `state` is `begun`, `ended`, `adopted` (there before the manifest) or `thinned` (the notebook is gone). `facts` has
    what the notebook says of itself: `numbers`, `parameters`, `error`, `commit`, `title`, `alerts`.
    """

    path: str
    sha256: str
    dag: str
    event_date: str
    run: str
    run_id: str
    task: str
    notebook: str
    number: int
    outcome: str
    started: str
    seconds: float | None
    started_by: str
    facts: Mapping[str, Any]
    state: str

    @property
    def ref(self) -> str:
        """The reference that messages bear; nothing until the attempt has ended."""
        return archive.ref(self.sha256)

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The key numbers: what was glued, name to value, in order."""
        return dict(self.facts.get("numbers") or [])


@dataclass(frozen=True)
class Filter:
    """What the list is asked for; empty: everything."""

    first: str = ""  # event dates, both included
    last: str = ""
    dag: str = ""
    notebook: str = ""
    outcome: str = ""  # one of the outcomes, or `not succeeded`
    text: str = ""  # words, all of which occur, numbers as anybody writes them
    run_id: str = ""
    task: str = ""
    dags: frozenset[str] | None = None  # those that the reader may see

    def where(self) -> tuple[str, list[Any]]:
        """The condition and its values."""
        terms, values = ["true"], []
        # A plus keeps SQLite on the index by date, which is in the list's order, and has all of these.
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
        for spellings in executed.asked(self.text):
            terms.append(
                "path in (select path from documents where id in (select rowid from words where words match ?))"
            )
            # Of a longer word its beginning is enough; a short one is the beginning of too many.
            values.append(" OR ".join(f'"{word}"{" *" * (len(word) > 2)}' for word in sorted(spellings)))
        if self.text.strip() and not executed.asked(self.text):
            terms.append("false")  # nothing but punctuation
        if self.dags is not None:
            terms.append(f"+dag in ({','.join('?' * len(self.dags))})")
            values += sorted(self.dags)
        return " and ".join(terms), values


@dataclass(frozen=True)
class Listing:
    """One page of the list, and how many attempts there are in all that fit."""

    attempts: list[Attempt]
    total: int
    choices: dict[str, list[str]] = field(default_factory=dict)


class Index:
    """The index of an archive, up to date with its manifest when it is opened by `opened`."""

    def __init__(self, root: Path, connection: sqlite3.Connection) -> None:
        self.root = root
        self._db = connection

    # --- looking ------------------------------------------------------------------------------------------------------

    def search(self, wanted: Filter, page: int = 1, size: int = PAGE) -> Listing:
        """The attempts that fit, the latest event date first, and what else could be chosen."""
        if wanted.dags is not None and wanted.dags >= set(self.dags()):
            wanted = replace(wanted, dags=None)  # a reader who sees everything need not be looked after
        where, values = wanted.where()
        # The page's paths come from the index by_date alone, however far back it is.
        paths = f"select path from attempts where {where} order by {ORDER} limit ? offset ?"  # noqa: S608
        found = self._attempts(
            f"where path in ({paths}) order by {ORDER}", *values, size, min((page - 1) * size, 2**62)
        )
        return Listing(found, self._total(wanted), self._choices(wanted))

    def _total(self, wanted: Filter) -> int:
        """How many attempts fit: counted beforehand, unless days or words are asked for."""
        where, values = wanted.where()
        table = "attempts" if any((wanted.first, wanted.last, wanted.text, wanted.run_id, wanted.task)) else "facets"
        count = "count(*)" if table == "attempts" else "coalesce(sum(runs), 0)"
        return int(self._db.execute(f"select {count} from {table} where {where}", values).fetchone()[0])  # noqa: S608

    def _choices(self, wanted: Filter) -> dict[str, list[str]]:
        """What pipelines, notebooks and outcomes there are for this reader."""
        seen, allowed = Filter(dags=wanted.dags).where()
        rows = self._db.execute(f"select dag, notebook, outcome from facets where {seen}", allowed).fetchall()  # noqa: S608
        return {
            name: sorted({row[place] for row in rows if row[place]})
            for place, name in enumerate(("dag", "notebook", "outcome"))
        }

    def attempt(self, path: str) -> Attempt | None:
        """The attempt at a path of the archive."""
        return next(iter(self._attempts("where path = ?", path)), None)

    def by_ref(self, ref: str) -> list[Attempt]:
        """The attempts whose reference or SHA-256 begins so."""
        return self._attempts("where sha256 >= ? and sha256 < ? order by started", ref.lower(), ref.lower() + "g")

    def tries(self, attempt: Attempt) -> list[Attempt]:
        """All attempts of the same notebook in the same run."""
        where = "where dag = ? and event_date = ? and run = ? and notebook = ? order by try"
        return self._attempts(where, attempt.dag, attempt.event_date, attempt.run, attempt.notebook)

    def siblings(self, attempt: Attempt) -> list[Attempt]:
        """The other notebooks of the same run, in the order in which they began."""
        where = "where dag = ? and event_date = ? and run = ? and notebook != ? order by started, path"
        return self._attempts(where, attempt.dag, attempt.event_date, attempt.run, attempt.notebook)

    def before(self, attempt: Attempt) -> Attempt | None:
        """What an attempt is compared with unasked: the last success before it, of an earlier event date if any."""
        kept = "where dag = ? and notebook = ? and outcome = 'succeeded' and state != 'thinned'"
        what = (attempt.dag, attempt.notebook)
        earlier = self._attempts(
            f"{kept} and event_date < ? order by event_date desc, started desc limit 1", *what, attempt.event_date
        )
        same_day = f"{kept} and event_date = ? and started < ? order by started desc limit 1"
        return next(iter(earlier or self._attempts(same_day, *what, attempt.event_date, attempt.started)), None)

    def others(self, attempt: Attempt, count: int = 40) -> list[Attempt]:
        """The latest other attempts of the notebook that are still there, for choosing what to compare with."""
        where = (
            "where dag = ? and notebook = ? and path != ? and state != 'thinned' order by event_date desc, started desc"
        )
        return self._attempts(f"{where} limit ?", attempt.dag, attempt.notebook, attempt.path, count)

    def delivered(self, path: str) -> list[Delivered]:
        """What was sent from a notebook, in order."""
        rows = self._db.execute(
            "select at, report, event_date, chat, state, did, ref, message_id from deliveries where path = ?", (path,)
        )
        return [Delivered(*row) for row in rows]

    def delivering(self, attempts: Iterable[Attempt]) -> set[str]:
        """The paths of those notebooks from which something was sent, or may have been."""
        sql = "select 1 from deliveries where path = ? and state != 'failed'"
        return {each.path for each in attempts if self._db.execute(sql, (each.path,)).fetchone()}

    def made_of(self, attempt: Attempt) -> list[Attempt]:
        """The attempts that published the numbers which this one read, the latest event date first.

        By what both wrote down; where a notebook did not write it down, the last one of its event date before it began.
        """
        if attempt.notebook == PUBLISHES:
            return []
        return self._linked(attempt, "used", "made") or self._published_before(attempt)

    def used_by(self, attempt: Attempt) -> list[Attempt]:
        """The attempts outside its run that read what this attempt's run published; the latest first."""
        run = [attempt, *self.siblings(attempt)]
        found = {each.path: each for one in run for each in self._linked(one, "made", "used")}
        if paths := {each.path for each in run if each.notebook == PUBLISHES}:
            later = "where event_date = ? and dag != ? and started > ?"
            readers = self._attempts(later, *_whose(attempt), attempt.started)
            found |= {each.path: each for each in readers if any(made.path in paths for made in self.made_of(each))}
        outside = (each for each in found.values() if (each.dag, each.run) != (attempt.dag, attempt.run))
        return sorted(outside, key=lambda each: (each.event_date, each.started), reverse=True)

    def _published_before(self, attempt: Attempt) -> list[Attempt]:
        if "event_date" not in attempt.facts["parameters"]:
            return []
        return self._attempts(
            "where event_date = ? and dag != ? and notebook = ? and outcome = 'succeeded' and started < ? "
            "order by started desc limit 1",
            *_whose(attempt),
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
        """Every word that finds something, in order, each with the path of a notebook that it finds."""
        paths = dict(self._db.execute("select id, path from documents"))
        for term, document in self._db.execute("select term, doc from terms"):
            if document in paths:
                yield term, paths[document]

    def position(self) -> tuple[int, str]:
        """How far it has read the manifest, and the entry there."""
        offset, head = self._db.execute("select offset, head from position").fetchone()
        return int(offset), str(head)

    def dags(self) -> list[str]:
        """The pipelines that there are attempts of."""
        return [row[0] for row in self._db.execute("select distinct dag from facets where runs > 0 order by 1")]

    def all(self) -> list[Attempt]:
        """Every attempt, the latest event date first."""
        return self._attempts("order by event_date desc, started desc, path")

    def _attempts(self, tail: str, *values: Any) -> list[Attempt]:
        rows = self._db.execute(f"select {', '.join(COLUMNS)} from attempts {tail}", values)  # noqa: S608
        return [Attempt(*row[:13], json.loads(row[13]), row[14]) for row in rows]

    # --- keeping ------------------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Read on in the manifest."""
        offset, head = self._db.execute("select offset, head from position").fetchone()
        if offset > _end(self.root):
            raise _AnewError
        read = manifest.read(self.root, offset)
        for entry, end in read:
            if offset and entry.get("prev") != head:
                raise _AnewError
            self._take(entry)
            offset, head = end, entry.get("hash")
            break
        for entry, end in read:  # whether they follow each other is for `verify` to say
            self._take(entry)
            offset, head = end, entry.get("hash")
        self._db.execute("update position set offset = ?, head = ?", (offset, head))

    def _take(self, entry: manifest.Entry) -> None:
        """Note what an entry says; one that its notebook's life does not allow changes nothing (`verify` tells it)."""
        path, what = entry["path"], entry["what"]
        found = self._db.execute("select state, sha256 from attempts where path = ?", (path,)).fetchone()
        state, sha256 = found or ("", "")
        if not archive.is_place(path) or what not in FOLLOWS.get(state, ()):
            return
        self._db.execute("savepoint entry")
        try:
            if what == "delivered":
                self._deliver(entry)
            elif what != "thinned":
                self._put(path, what, str(entry.get("sha256", "")), str(entry.get("outcome") or ""))
            elif entry["sha256"] == sha256:
                self._thin(entry)
        except sqlite3.OperationalError:  # the disk, not the entry
            raise
        except Exception:  # whatever it holds: it may not keep the others from being listed
            log.warning("An entry of the manifest about %s, or its notebook, was not written by a run.", path)
            self._db.execute("rollback to entry")
            if what not in ("delivered", "thinned"):
                facts = _told({})[1]
                self._write(
                    path, what, str(entry.get("sha256", ""))[:64], str(entry.get("outcome") or ""), {}, facts, []
                )

    def _thin(self, entry: manifest.Entry) -> None:
        stays = entry.get("stays") or {}
        told = {name: stays[name] for name in STAYS if name in stays}
        facts = {**_told({})[1], **(stays.get("facts") or {})}
        self._write(entry["path"], "thinned", entry["sha256"], "succeeded", told, facts, [])

    def _deliver(self, entry: manifest.Entry) -> None:
        rows = [
            (entry["path"], entry["at"], entry["report"], entry["event_date"], each["chat"], each["state"],
             each["did"], each["ref"], each["message_id"])
            for each in entry["deliveries"]
        ]  # fmt: skip
        self._db.executemany("insert into deliveries values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._find_by(entry["path"], "delivery", (str(each) for row in rows for each in row[2:]))

    def _put(self, path: str, state: str, sha256: str, outcome: str) -> None:
        node = _notebook(self.root, path)
        cells = executed.cells(node)
        handed = json.dumps(executed.scraps(cells), ensure_ascii=False)  # also the text that readers got
        texts = itertools.chain([handed], _asked(node), executed.visible(cells))
        self._write(path, state, sha256, outcome, *_told(node), texts)
        self._db.execute("delete from links where path = ?", (path,))
        self._db.executemany(
            "insert or ignore into links values (?, ?, ?)", [(path, role, name) for role, name in executed.links(node)]
        )

    def _write(
        self,
        path: str,
        state: str,
        sha256: str,
        outcome: str,
        about: Mapping[str, Any],
        facts: Mapping[str, Any],
        texts: Iterable[str],
    ) -> None:
        dag, event_date, run, name = (["", "", "", *path.split("/")])[-4:]
        notebook, _, number = name.removesuffix(".ipynb").rpartition(".")
        # What has no end may be running, or was cut off: nobody can know from here.
        outcome = UNENDED if state == "begun" else outcome or about.get("outcome", "")
        known = (path, sha256, dag, event_date, run, about.get("run_id", ""), about.get("task", ""))
        told = (
            notebook, int(number) if number.isdecimal() and len(number) < 10 else 0, outcome,
            about.get("started", ""), about.get("seconds"), about.get("started_by", ""),
        )  # fmt: skip
        self._count(path, -1)
        marks = ",".join("?" * 15)
        row = (*known, *told, json.dumps(facts, ensure_ascii=False), state)
        self._db.execute(f"insert or replace into attempts values ({marks})", row)  # noqa: S608
        self._count(path, 1)
        self._db.execute("delete from documents where path = ? and kind = 'notebook'", (path,))
        if state != "begun":
            shown = [str(each) for each in (*known, *told)]
            self._find_by(path, "notebook", itertools.chain(shown, _written(event_date, facts), texts))

    def _count(self, path: str, change: int) -> None:
        """Keep the number of attempts of each kind."""
        self._db.execute(
            "insert into facets select dag, notebook, outcome, ? from attempts where path = ? "
            "on conflict do update set runs = runs + excluded.runs",
            (change, path),
        )

    def _find_by(self, path: str, kind: str, texts: Iterable[str]) -> None:
        """Let a notebook be found by the words of texts."""
        found = executed.words(" \n ".join(texts))
        cursor = self._db.execute("insert into documents (path, kind) values (?, ?)", (path, kind))
        self._db.execute("insert into words (rowid, word) values (?, ?)", (cursor.lastrowid, " ".join(found)))


class _AnewError(Exception):
    """The manifest is another one than the index was made of."""


@contextmanager
def opened(root: Path) -> Iterator[Index]:
    """The index of an archive, brought up to date.

    Raises:
        ArchiveError: it can be neither written nor read.
    """
    if not root.is_dir():
        raise ArchiveError(f"There is no archive at {root} yet; it begins with the first run.")
    try:
        try:
            connection = _up_to_date(root)
        except _AnewError:
            connection = _up_to_date(root, anew=True)
    except sqlite3.DatabaseError as error:
        connection = _as_it_stands(root, error)
    with closing(connection):
        yield Index(root, connection)


def attempt(root: Path, path: str) -> Attempt | None:
    """The attempt at a path of an archive, as far as the manifest knows of it."""
    with opened(root) as found:
        return found.attempt(path)


def keep_up(root: Path) -> None:
    """Bring the index up to date after a run; where that cannot be, whoever looks next does it."""
    try:
        with opened(root):
            pass
    except Exception as error:  # the run itself is kept, and has its outcome
        log.warning("The archive's index was not brought up to date (%s); the next look does it.", error)


def rebuild(root: Path) -> int:
    """Make the index anew from the manifest and the notebooks; gives the number of attempts.

    Raises:
        ArchiveError: there is no archive, or the index cannot be written.
    """
    if not root.is_dir():
        raise ArchiveError(f"There is no archive at {root} yet; it begins with the first run.")
    (root / NAME).unlink(missing_ok=True)
    manifest.append(root)  # begins one where there is none
    with closing(_up_to_date(root, anew=True)) as connection:
        return int(connection.execute("select count(*) from attempts").fetchone()[0])


def _up_to_date(root: Path, anew: bool = False) -> sqlite3.Connection:
    with suppress(OSError):  # where nothing can be written, SQLite says so
        (root / NAME).open("a").close()  # with the mode that the umask leaves: SQLite itself lets no group write
    connection = sqlite3.connect(root / NAME, timeout=30, isolation_level=None)
    try:
        if not anew and _position(connection) == _end(root):
            return connection
        connection.execute("begin immediate")
        version = connection.execute("pragma user_version").fetchone()[0]
        if anew or version != VERSION:
            _empty(connection)
        Index(root, connection).catch_up()
        connection.execute("commit")
    except BaseException:
        connection.close()
        raise
    return connection


def _position(connection: sqlite3.Connection) -> int:
    """How far into the manifest an index of this version has read."""
    if connection.execute("pragma user_version").fetchone()[0] != VERSION:
        return -1
    return int(connection.execute("select offset from position").fetchone()[0])


def _end(root: Path) -> int:
    path = root / manifest.NAME
    return path.stat().st_size if path.exists() else 0


def _empty(connection: sqlite3.Connection) -> None:
    made = "select name from sqlite_master where type = 'table' order by sql like 'create virtual%' desc"
    for (name,) in connection.execute(made).fetchall():
        connection.execute(f"drop table if exists {name}")
    for statement in filter(str.strip, SCHEMA.split(";\n")):
        connection.execute(statement)
    connection.execute(f"pragma user_version = {VERSION}")


def _as_it_stands(root: Path, error: sqlite3.DatabaseError) -> sqlite3.Connection:
    """The index where the archive may only be read; a broken one is made anew by whoever may write."""
    try:
        connection = sqlite3.connect(f"file:{root / NAME}?mode=ro", uri=True, timeout=30)
        connection.execute("select offset from position").fetchone()
        return connection
    except sqlite3.DatabaseError:
        raise ArchiveError(
            f"The archive's index {root / NAME} cannot be used ({error}): delete it, it will be made anew."
        ) from None


# --- what a notebook tells -------------------------------------------------------------------------------------------


def _notebook(root: Path, path: str) -> executed.Node:
    """The notebook as JSON; nothing where it is gone, or none."""
    try:
        return executed.read(archive.find(root, path).read_bytes())
    except (ArchiveError, OSError):
        return {}


def _told(node: executed.Node) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a notebook says of its run, and the facts that the pages show.

    A notebook that was changed by hand may say anything: what is not of the kind expected is left out.
    """
    about, cells = executed.about(node), executed.cells(node)
    error, parameters, queries = about.get("error"), about.get("parameters"), about.get("queries")
    facts = {
        "title": executed.title(cells),
        "numbers": list(executed.key_numbers(executed.scraps(cells)).items()),
        "alerts": executed.alerts(node),
        "error": {"cell": error.get("cell"), "message": str(error.get("message"))} if isinstance(error, dict) else None,
        "parameters": parameters if isinstance(parameters, dict) else {},
        "commit": str(about.get("commit") or ""),
        "host": str(about.get("host") or ""),
        "queries": len(queries) if isinstance(queries, list) else 0,
    }
    texts = {name: value for name, value in about.items() if isinstance(value, str)}
    seconds = about.get("seconds")
    return {**texts, "seconds": seconds if isinstance(seconds, (int, float)) else None}, facts


def _written(event_date: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Facts as the pages write them, beside how they are kept."""
    numbers = facts.get("numbers") or []
    values = [*(value for _, value in numbers), *(facts.get("parameters") or {}).values()]
    yield json.dumps(facts, ensure_ascii=False)
    yield day(event_date)
    yield from map(shown, values)
    yield from map(str, values)


def _asked(node: executed.Node) -> Iterator[str]:
    """What the page says of the statements that were sent: their ids and counts."""
    queries = executed.about(node).get("queries")
    for each in queries if isinstance(queries, list) else []:
        yield from map(shown, each.values() if isinstance(each, dict) else ())


def _whose(attempt: Attempt) -> tuple[str, str]:
    return attempt.event_date, attempt.dag


# --- as people read it -----------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    """A number as people read it; anything else as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isfinite(value) and value.is_integer():
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def day(text: str, form: str = "%A, %-d %B %Y") -> str:
    """An event date as people read it."""
    try:
        return f"{date.fromisoformat(text):{form}}"
    except ValueError:
        return text
