"""The project's tables and their version: a run creates what is missing; only `pulse upgrade` changes what is there.

`schema.sql` is the newest shape. `migrations/NNNN_what.sql` leads the shape before it to version NNNN; tables from
before there were versions have version 1. Table `schema_versions` says which version a database has. So two checkouts
that work on one database cannot change it under each other: the one whose version is not the database's stops.

`sources.sql` defines the views through which the app's tables are read. They too are shared: a run creates them where
they are missing, and refuses them where they are not those of its own `sources.sql`.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pulse import PulseError, clickhouse
from pulse.clickhouse import COMMENTS, UNKNOWN_DATABASE, ClickHouse, ClickHouseError, quoted, statements

FOLDER = Path(__file__).parent
VERSIONS = "schema_versions"
UNVERSIONED = 1  # of tables that were made before there was `schema_versions`
CREATED = re.compile(r"create (?:or replace )?(?:table|view) (?:if not exists )?(\w+)")
VIEW = re.compile(r"create or replace view (\w+) as\n(.*)", re.DOTALL)
INTEGER = re.compile(r"(U?)Int(8|16|32|64|128|256)")


class SchemaError(PulseError):
    """The tables are of another version than this checkout, or the source is read otherwise than it says."""


@dataclass(frozen=True)
class Migration:
    """A step from the version before it to `version`."""

    version: int
    path: Path

    @property
    def name(self) -> str:
        """What it does, as its file is called."""
        return self.path.stem.partition("_")[2].replace("_", " ")

    @property
    def statements(self) -> list[str]:
        """Its statements, in order. Interrupted anywhere, they can be run again from the first."""
        return statements(self.path.read_text())


def migrations() -> list[Migration]:
    """All of them, the oldest first."""
    paths = sorted((FOLDER / "migrations").glob("[0-9]*_*.sql"))
    return [Migration(int(path.name.partition("_")[0]), path) for path in paths]


def newest() -> int:
    """The version of `schema.sql`."""
    return max([UNVERSIONED, *(each.version for each in migrations())])


def version(db: ClickHouse) -> int | None:
    """The version of the database's tables; None where it has none of them.

    Raises:
        ClickHouseError: no server answers.
    """
    return _version(db, _there(db))


def _version(db: ClickHouse, there: Collection[str]) -> int | None:
    """The version of those tables; whoever makes them writes the version before any other."""
    recorded = db.value("select max(version) from schema_versions") if VERSIONS in there else None
    return recorded or (UNVERSIONED if set(there) - {VERSIONS, *_views_of_sources()} else None)


def ensure(db: ClickHouse, source_database: str | None = None) -> None:
    """Create what is missing and change nothing that is there; safe at any time, and for several at once.

    Args:
        db: where the project's tables are.
        source_database: where the app's tables are: with it, the views through which they are read are ensured too.

    Raises:
        SchemaError: the tables are older or newer than this checkout, or the views are those of another `sources.sql`.
        ClickHouseError: the user may not create them, a source table or column is missing, or no server answers.
    """
    there = _there(db)
    if not _create_missing(db, there):
        raise SchemaError(_other_version(db))
    if source_database is None:
        return
    for name, (statement, comment) in _views(db, source_database).items():
        found = there.get(name)
        if found is None:
            db.execute(statement.replace("create or replace view", "create view if not exists", 1))
        elif found != comment:
            raise SchemaError(
                f"The view {name} in {db.database} reads the source otherwise than pulse/sources.sql and "
                f"PULSE_SOURCE_DATABASE ({source_database}) say, or the source's types have changed; "
                "run `pulse upgrade` if everybody who uses this database is to read it as this checkout does."
            )


def create_missing(db: ClickHouse) -> bool:
    """Create the tables that are not there, unless others are there in another version; tells whether it could.

    Raises:
        ClickHouseError: the user may not create them, or no server answers.
    """
    return _create_missing(db, _there(db))


def _create_missing(db: ClickHouse, there: Collection[str]) -> bool:
    found = _version(db, there)
    if found not in (None, newest()):
        return False
    if not there:
        _create_database(db)
    for statement in statements((FOLDER / "schema.sql").read_text()):
        name = CREATED.search(statement)[1]
        if name not in there:
            db.execute(statement)
        if name == VERSIONS and found is None:
            _record(db, newest(), "created")  # before any other table: a creation that is cut off is taken up again
    return True


def upgrade(db: ClickHouse, source_database: str, *, dry_run: bool = False) -> list[str]:
    """Bring the tables to this checkout's version, and read the source as its `sources.sql` says.

    Interrupted, it can be repeated: what was done stays done. Nothing else should write to the tables meanwhile.

    Args:
        db: where the project's tables are.
        source_database: where the app's tables are.
        dry_run: change nothing.

    Returns:
        A line for each step that was done, or would be.

    Raises:
        SchemaError: the tables are newer than this checkout.
        ClickHouseError: a step failed; the steps before it are done.
    """
    found, latest = version(db), newest()
    if found is not None and found > latest:
        raise SchemaError(_other_version(db))
    done = []
    if found is None:
        done.append(f"create the tables of version {latest}")
        if not dry_run:
            create_missing(db)
    for migration in migrations():
        if found is None or migration.version <= found:
            continue
        done.append(f"version {migration.version}: {migration.name}")
        if dry_run:
            done += [f"    {' '.join(COMMENTS.sub(' ', each).split())}" for each in migration.statements]
            continue
        for statement in migration.statements:
            db.execute(statement)
        if migration.version == latest:  # the tables are as schema.sql says: what is missing, and its views anew
            db.script((FOLDER / "schema.sql").read_text())
        _record(db, migration.version, migration.name)
    views = _views(db, source_database) if found is not None or not dry_run else {}
    there = _there(db)
    for name, (statement, comment) in views.items():
        if there.get(name) != comment:
            done.append(f"view {name}: read {source_database} as pulse/sources.sql says")
            if not dry_run:
                db.execute(statement)
    return done


def _there(db: ClickHouse) -> dict[str, str]:
    """Which of the project's tables and views are there, each with its comment."""
    names = [CREATED.search(each)[1] for each in statements((FOLDER / "schema.sql").read_text())]
    found = (
        "select name, comment from system.tables where database = {database:String} and name in {names:Array(String)}"
    )
    try:
        # Mostly the first thing that a server is asked: one that says nothing is given up soon.
        probe = ClickHouse(db.url, db.database, db.zone, clickhouse.PROBE_SECONDS)
        frame = probe.read(found, database=db.database, names=[*names, *_views_of_sources()])
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return {}
    return dict(zip(frame["name"], frame["comment"], strict=True))


def _views_of_sources() -> dict[str, str]:
    """The views of `sources.sql`, each with its SELECT."""
    each = map(VIEW.search, statements((FOLDER / "sources.sql").read_text()))
    return {match[1]: match[2] for match in each if match}


def _create_database(db: ClickHouse) -> None:
    try:
        db.value("select 1")
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        # From another one: nothing can be done in a database that is not there.
        outside = ClickHouse(db.url, "default", db.zone)
        outside.execute("create database if not exists {name:Identifier}", name=db.database)


def _record(db: ClickHouse, number: int, name: str) -> None:
    db.execute(next(each for each in statements((FOLDER / "schema.sql").read_text()) if VERSIONS in each))
    db.write([{"version": number, "name": name}], VERSIONS)


def _other_version(db: ClickHouse) -> str:
    found, ours = version(db) or 0, newest()
    mend = (
        "run `pulse upgrade` (`pulse upgrade --dry-run` shows what it would do)"
        if found < ours
        else "work with a checkout that is as new as they are"
    )
    return f"The tables in {db.database} are of schema version {found}, and this checkout's is {ours}; {mend}."


def _views(db: ClickHouse, source_database: str) -> dict[str, tuple[str, str]]:
    """How each view of `sources.sql` is created, and the comment that then tells it from any other."""
    source = quoted(source_database)  # no binding of databases
    found = {name: select.replace("{source}", source) for name, select in _views_of_sources().items()}
    kinds: set[str] = set()
    for select in found.values():
        described = db.read(f"describe table ({select.replace('{id}(', 'identity(')})").set_index("name")["type"]
        kinds |= {described[column] for column in ("user_id", "receiver_id") if column in described}
    views = {}
    for name, select in found.items():
        typed = select.replace("{id}(", f"to{id_type(kinds)}(").rstrip()
        comment = f"as pulse/sources.sql says: {hashlib.sha256(typed.encode()).hexdigest()[:12]}"
        views[name] = f"create or replace view {name} as\n{typed}\ncomment '{comment}'", comment
    return views


def id_type(kinds: Iterable[str]) -> str:
    """The narrowest type in which ids of all these ClickHouse types stay what they are: an integer's, UUID or String.

    Raises:
        SchemaError: ids of such a type cannot be told apart, or be written in one way only.
    """
    plain = {re.sub(r"(?:Nullable|LowCardinality)\(|\)+$", "", kind) for kind in kinds}
    integers = [INTEGER.fullmatch(kind) for kind in plain]
    if all(integers):
        bits = {sign: max([int(each[2]) for each in integers if each[1] == sign], default=0) for sign in ("U", "")}
        unsigned, signed = bits["U"], bits[""]
        if not signed:
            return f"UInt{unsigned}"
        both = max(signed, 2 * unsigned)
        return f"Int{both}" if both <= 256 else "String"
    if plain == {"UUID"}:
        return "UUID"
    for kind in plain:
        if not re.match(r"U?Int\d|String|FixedString|UUID|Enum", kind):
            raise SchemaError(
                f"A user's id in the source is a {kind}; an integer, a String or a UUID was expected: "
                "convert it in pulse/sources.sql."
            )
    return "String"
