"""The project's tables and their version: a run creates missing tables, and only `pulse upgrade` changes existing ones.

`schema.sql` has the newest version of the tables. `migrations/NNNN_what.sql` brings the version before it to version
NNNN. Table `schema_versions` records the version of a database; tables that are older than this record have version 1.
If two checkouts use one database, neither can change it unnoticed: a checkout of another version than the database
stops.

`sources.sql` defines the views through which the app's tables are read. These are shared as well: a run creates missing
ones, and stops if the existing ones are not those of its own `sources.sql`.
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
UNVERSIONED = 1
"""The version of tables without `schema_versions`."""

CREATED = re.compile(r"create (?:or replace )?(?:table|view) (?:if not exists )?(\w+)")
VIEW = re.compile(r"create or replace view (\w+) as\n(.*)", re.DOTALL)
INTEGER = re.compile(r"(U?)Int(8|16|32|64|128|256)")


class SchemaError(PulseError):
    """The tables have another version than this checkout, or their views read the source differently."""


@dataclass(frozen=True)
class Migration:
    """A step from the previous version to `version`."""

    version: int
    path: Path

    @property
    def name(self) -> str:
        """What it does, from the name of its file."""
        return self.path.stem.partition("_")[2].replace("_", " ")

    @property
    def statements(self) -> list[str]:
        """Its statements, in order. After an interruption they can be run again from the first."""
        return statements(self.path.read_text())


def migrations() -> list[Migration]:
    """All migrations, the oldest first."""
    paths = sorted((FOLDER / "migrations").glob("[0-9]*_*.sql"))
    return [Migration(int(path.name.partition("_")[0]), path) for path in paths]


def newest() -> int:
    """The version of `schema.sql`."""
    return max([UNVERSIONED, *(each.version for each in migrations())])


def version(db: ClickHouse) -> int | None:
    """The version of the database's tables; None if there are no tables yet.

    Raises:
        ClickHouseError: no server answers.
    """
    return _version(db, _there(db))


def _version(db: ClickHouse, there: Collection[str]) -> int | None:
    """The version of these tables; the table with the version is the first one to be created."""
    recorded = db.value("select max(version) from schema_versions") if VERSIONS in there else None
    return recorded or (UNVERSIONED if set(there) - {VERSIONS, *_views_of_sources()} else None)


def ensure(db: ClickHouse, source_database: str | None = None) -> None:
    """Create missing tables and change no existing ones. This is safe at any time, and for several processes at once.

    Args:
        db: the database with the project's tables.
        source_database: the database with the app's tables; if it is given, the views of the source are ensured too.

    Raises:
        SchemaError: the tables are older or newer than this checkout, or the views are those of another `sources.sql`.
        ClickHouseError: the user may not create tables, a source table or column is missing, or no server answers.
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
                f"The view {name} in {db.database} reads the source differently from pulse/sources.sql and "
                f"PULSE_SOURCE_DATABASE ({source_database}), or the source's types have changed; "
                "run `pulse upgrade` if everybody who uses this database should read the source as this checkout does."
            )


def create_missing(db: ClickHouse) -> bool:
    """Create the missing tables, unless the existing ones have another version.

    Returns:
        Whether the tables are now complete.

    Raises:
        ClickHouseError: the user may not create tables, or no server answers.
    """
    return _create_missing(db, _there(db))


def _create_missing(db: ClickHouse, there: Collection[str]) -> bool:
    found = _version(db, there)
    if found not in (None, newest()):
        return False
    if not there:
        _create_database(db)
    for name, statement in _creations():
        if name not in there:
            db.execute(statement)
        if name == VERSIONS and found is None:
            _record(db, newest(), "created")  # before any other table, so that an interrupted creation can continue
    return True


def upgrade(db: ClickHouse, source_database: str, *, dry_run: bool = False) -> list[str]:
    """Bring the tables to this checkout's version, and the views of the source to its `sources.sql`.

    After an interruption it can be repeated. Nothing else should write to the tables meanwhile.

    Args:
        db: the database with the project's tables.
        source_database: the database with the app's tables.
        dry_run: only say what would be done.

    Returns:
        A line for each step that was done, or would be done.

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
        if migration.version == latest:  # now create the tables of schema.sql that are missing, and replace its views
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
    """The project's tables and views that exist, with their comments."""
    names = [name for name, _ in _creations()]
    found = (
        "select name, comment from system.tables where database = {database:String} and name in {names:Array(String)}"
    )
    try:
        # This is usually the first statement that a server gets, so a silent server is given up soon.
        probe = ClickHouse(db.url, db.database, db.zone, clickhouse.PROBE_SECONDS)
        frame = probe.read(found, database=db.database, names=[*names, *_views_of_sources()])
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return {}
    return dict(zip(frame["name"], frame["comment"], strict=True))


def _creations() -> list[tuple[str, str]]:
    """The statements of `schema.sql`, each with the name of the table or view that it creates."""
    found = ((CREATED.search(each), each) for each in statements((FOLDER / "schema.sql").read_text()))
    return [(name[1], statement) for name, statement in found if name]


def _views_of_sources() -> dict[str, str]:
    """The SELECTs of the views in `sources.sql`, by the views' names."""
    each = map(VIEW.search, statements((FOLDER / "sources.sql").read_text()))
    return {match[1]: match[2] for match in each if match}


def _create_database(db: ClickHouse) -> None:
    try:
        db.value("select 1")
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        # A statement cannot run in a database that does not exist yet, so this one runs in another database.
        outside = ClickHouse(db.url, "default", db.zone)
        outside.execute("create database if not exists {name:Identifier}", name=db.database)


def _record(db: ClickHouse, number: int, name: str) -> None:
    db.execute(dict(_creations())[VERSIONS])
    db.write([{"version": number, "name": name}], VERSIONS)


def _other_version(db: ClickHouse) -> str:
    found, ours = version(db) or 0, newest()
    mend = (
        "run `pulse upgrade` (`pulse upgrade --dry-run` shows what it would do)"
        if found < ours
        else "use a checkout that is as new as the tables"
    )
    return f"The tables in {db.database} are of schema version {found}, and this checkout's is {ours}; {mend}."


def _views(db: ClickHouse, source_database: str) -> dict[str, tuple[str, str]]:
    """For each view of `sources.sql` the statement that creates it, and the comment that identifies its version."""
    source = quoted(source_database)  # ClickHouse cannot bind the name of a database here
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
    """The narrowest type that holds the ids of all these ClickHouse types: an integer type, UUID or String.

    Raises:
        SchemaError: an id of such a type does not have exactly one spelling as text.
    """
    plain = {re.sub(r"(?:Nullable|LowCardinality)\(|\)+$", "", kind) for kind in kinds}
    integers = [found for kind in plain if (found := INTEGER.fullmatch(kind))]
    if len(integers) == len(plain):
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
                f"A user id in the source has the type {kind}, but an integer, a String or a UUID was expected: "
                "convert it in pulse/sources.sql."
            )
    return "String"
