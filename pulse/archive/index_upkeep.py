"""Keeps the index up to date: its SQLite schema, and what it takes from the manifest and the notebooks."""

import itertools
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pulse import archive
from pulse.archive import ArchiveError, executed, manifest, words
from pulse.archive.attempts import UNENDED, day, shown
from pulse.archive.lives import FOLLOWS, Entry

NAME = "index.sqlite"
VERSION = 6
"""The version of the rows below: an index of another version is rebuilt."""

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
"""`words` has no text, only which word occurs in which document. `facets` has counts, so that no query must count."""


STAYS = ("run_id", "task", "started", "seconds", "started_by", "facts")
"""What the manifest keeps of a notebook that retention removes, beside its SHA-256."""

log = logging.getLogger(__name__)


class _OtherManifestError(Exception):
    """The index was made from another manifest than the one that is there."""


@dataclass(frozen=True)
class _Said:
    """What a row of the index holds that the manifest does not say."""

    run_id: Any = ""
    task: Any = ""
    outcome: Any = ""
    started: Any = ""
    seconds: Any = None
    started_by: Any = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: _facts({}))


def connect(root: Path) -> sqlite3.Connection:
    """Open the index of an archive and bring it up to date; if nothing can be written, it is opened as it is.

    Raises:
        ArchiveError: the index can be neither written nor read.
    """
    try:
        try:
            return _up_to_date(root)
        except _OtherManifestError:
            return _up_to_date(root, rebuild=True)
    except sqlite3.DatabaseError as error:
        return _as_it_stands(root, error)


def rebuild(root: Path) -> sqlite3.Connection:
    """Delete the index, make it again from the manifest and the notebooks, and open it.

    Raises:
        ArchiveError: the manifest cannot be written.
    """
    (root / NAME).unlink(missing_ok=True)
    manifest.append(root)  # starts a manifest if there is none
    return _up_to_date(root, rebuild=True)


def position(connection: sqlite3.Connection) -> tuple[int, str]:
    """How far the index has read the manifest: the offset in bytes, and the hash of the entry before it."""
    offset, head = connection.execute("select offset, head from position").fetchone()
    return int(offset), str(head)


class _Writer:
    """Writes what the manifest and the notebooks say into the index."""

    def __init__(self, root: Path, connection: sqlite3.Connection) -> None:
        self.root = root
        self._db = connection

    def catch_up(self) -> None:
        """Read the rest of the manifest.

        Raises:
            _OtherManifestError: the first entry does not follow the last one that was read.
        """
        offset, head = position(self._db)
        if offset > _end(self.root):
            raise _OtherManifestError
        known = bool(offset)
        # Only the first entry is checked here: `verify` checks whether all of them follow each other.
        for entry, end in manifest.read(self.root, offset):
            if known and entry.get("prev") != head:
                raise _OtherManifestError
            known = False
            self._take(entry)
            offset, head = end, str(entry.get("hash"))
        self._db.execute("update position set offset = ?, head = ?", (offset, head))

    def _take(self, entry: Entry) -> None:
        """Record what an entry says. An entry that must not follow the one before it changes nothing."""
        path, what = entry["path"], entry["what"]
        found = self._db.execute("select state, sha256 from attempts where path = ?", (path,)).fetchone()
        state, sha256 = found or ("", "")
        if not archive.is_notebook_path(path) or what not in FOLLOWS.get(state, ()):
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
        except Exception:  # whatever is wrong with one entry must not hide the others
            log.warning("The manifest's entry about %s, or the notebook, is malformed: no run wrote it.", path)
            self._db.execute("rollback to entry")
            if what not in ("delivered", "thinned"):
                self._write(path, what, str(entry.get("sha256", ""))[:64], str(entry.get("outcome") or ""), _Said(), [])
        self._db.execute("release entry")  # SQLite gets slower with every open savepoint

    def _thin(self, entry: Entry) -> None:
        stays = entry.get("stays") or {}
        kept = {name: stays[name] for name in STAYS if name in stays}
        said = _Said(**{**kept, "facts": {**_facts({}), **(stays.get("facts") or {})}})
        self._write(entry["path"], "thinned", entry["sha256"], "succeeded", said, [])

    def _deliver(self, entry: Entry) -> None:
        rows = [
            (entry["path"], entry["at"], entry["report"], entry["event_date"], each["chat"], each["state"],
             each["did"], each["ref"], each["message_id"])
            for each in entry["deliveries"]
        ]  # fmt: skip
        self._db.executemany("insert into deliveries values (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._find_by(entry["path"], "delivery", (str(each) for row in rows for each in row[2:]))

    def _put(self, path: str, state: str, sha256: str, outcome: str) -> None:
        node = _notebook(self.root, path)
        run = executed.run(node)
        said = _Said(run.run_id, run.task, run.outcome, run.started, run.seconds, run.started_by, _facts(node))
        glued = json.dumps(executed.scraps(node), ensure_ascii=False)  # the texts of messages are among it
        texts = itertools.chain([glued], _statements(run), executed.visible(node))
        self._write(path, state, sha256, outcome, said, texts)
        self._db.execute("delete from links where path = ?", (path,))
        self._db.executemany(
            "insert or ignore into links values (?, ?, ?)", [(path, role, name) for role, name in executed.links(node)]
        )

    def _write(self, path: str, state: str, sha256: str, outcome: str, said: _Said, texts: Iterable[str]) -> None:
        """Replace the row of an attempt, and the words by which it is found."""
        dag, event_date, run, name = (["", "", "", *path.split("/")])[-4:]
        notebook, _, number = name.removesuffix(".ipynb").rpartition(".")
        # The index cannot tell an attempt that is still running from one that was cut off.
        outcome = UNENDED if state == "begun" else outcome or said.outcome
        attempt = int(number) if number.isdecimal() and len(number) < 10 else 0
        values = (
            path, sha256, dag, event_date, run, said.run_id, said.task, notebook, attempt, outcome, said.started,
            said.seconds, said.started_by,
        )  # fmt: skip
        self._count(path, -1)
        marks = ",".join("?" * 15)
        row = (*values, json.dumps(said.facts, ensure_ascii=False), state)
        self._db.execute(f"insert or replace into attempts values ({marks})", row)  # noqa: S608
        self._count(path, 1)
        self._db.execute("delete from documents where path = ? and kind = 'notebook'", (path,))
        if state != "begun":
            self._find_by(path, "notebook", itertools.chain(map(str, values), _written(event_date, said.facts), texts))

    def _count(self, path: str, change: int) -> None:
        """Add to the number of attempts of the same pipeline, notebook and outcome."""
        self._db.execute(
            "insert into facets select dag, notebook, outcome, ? from attempts where path = ? "
            "on conflict do update set runs = runs + excluded.runs",
            (change, path),
        )

    def _find_by(self, path: str, kind: str, texts: Iterable[str]) -> None:
        """Make a notebook findable by the words of some texts."""
        found = words.of(" \n ".join(texts))
        cursor = self._db.execute("insert into documents (path, kind) values (?, ?)", (path, kind))
        self._db.execute("insert into words (rowid, word) values (?, ?)", (cursor.lastrowid, " ".join(found)))


def _up_to_date(root: Path, rebuild: bool = False) -> sqlite3.Connection:
    with suppress(OSError):  # if nothing can be written, SQLite reports it below
        (root / NAME).open("a").close()  # so that the umask decides who may write; SQLite would let no group write
    connection = sqlite3.connect(root / NAME, timeout=30, isolation_level=None)
    try:
        if not rebuild and _offset(connection) == _end(root):
            return connection
        connection.execute("begin immediate")
        version = connection.execute("pragma user_version").fetchone()[0]
        if rebuild or version != VERSION:
            _empty(connection)
        _Writer(root, connection).catch_up()
        connection.execute("commit")
    except BaseException:
        connection.close()
        raise
    return connection


def _offset(connection: sqlite3.Connection) -> int:
    """How far an index of this version has read the manifest, in bytes; -1 for an index of another version."""
    if connection.execute("pragma user_version").fetchone()[0] != VERSION:
        return -1
    return position(connection)[0]


def _end(root: Path) -> int:
    """The size of the manifest in bytes."""
    path = root / manifest.NAME
    return path.stat().st_size if path.exists() else 0


def _empty(connection: sqlite3.Connection) -> None:
    """Drop all tables and create them again."""
    made = "select name from sqlite_master where type = 'table' order by sql like 'create virtual%' desc"
    for (name,) in connection.execute(made).fetchall():
        connection.execute(f"drop table if exists {name}")
    for statement in filter(str.strip, SCHEMA.split(";\n")):
        connection.execute(statement)
    connection.execute(f"pragma user_version = {VERSION}")


def _as_it_stands(root: Path, error: sqlite3.DatabaseError) -> sqlite3.Connection:
    """Open the index for reading only, as in an archive where nothing may be written."""
    try:
        connection = sqlite3.connect(f"file:{root / NAME}?mode=ro", uri=True, timeout=30)
        connection.execute("select offset from position").fetchone()
        return connection
    except sqlite3.DatabaseError:
        raise ArchiveError(
            f"The archive's index {root / NAME} cannot be used ({error}): delete it, and it will be rebuilt."
        ) from None


# --- what a notebook says --------------------------------------------------------------------------------------------


def _notebook(root: Path, path: str) -> executed.Node:
    """The notebook as JSON; empty if it is gone or not a notebook."""
    try:
        return executed.read(archive.find(root, path).read_bytes())
    except (ArchiveError, OSError):
        return {}


def _facts(node: executed.Node) -> dict[str, Any]:
    """The facts about a notebook that the pages show."""
    run = executed.run(node)
    return {
        "title": executed.title(node),
        "numbers": list(executed.key_numbers(executed.scraps(node)).items()),
        "alerts": executed.alerts(node),
        "error": asdict(run.error) if run.error else None,
        "parameters": dict(run.parameters),
        "commit": run.commit,
        "host": run.host,
        "queries": len(run.queries),
    }


def _written(event_date: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Facts in the spelling of the pages, and as they are stored."""
    numbers = facts.get("numbers") or []
    values = [*(value for _, value in numbers), *(facts.get("parameters") or {}).values()]
    yield json.dumps(facts, ensure_ascii=False)
    yield day(event_date)
    yield from map(shown, values)
    yield from map(str, values)


def _statements(run: executed.Run) -> Iterator[str]:
    """What the page says about the statements that a notebook sent: their ids and counts."""
    for each in run.queries:
        yield from map(shown, each.values())
