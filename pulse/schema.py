"""The project's tables and their version: a run creates missing tables, and only `pulse upgrade` changes existing ones.

`schema.sql` has the newest version of the tables. `migrations/NNNN_what.sql` brings the version before it to version
NNNN. Table `schema_versions` records the version of a database; tables that are older than this record have version 1.
If two checkouts use one database, neither can change it unnoticed: a checkout of another version than the database
stops.

The views through which the app's tables are read (`pulse.sources`) are shared as well: a run creates missing ones, and
stops if the existing ones read the source in another way than its own settings say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pulse import PulseError, clickhouse
from pulse.clickhouse import COMMENTS, UNKNOWN_DATABASE, ClickHouse, ClickHouseError, statements
from pulse.sources import Source, views
from pulse.sources.definition import VIEWS
from pulse.sources.views import View

FOLDER = Path(__file__).parent
VERSIONS = "schema_versions"
UNVERSIONED = 1
"""The version of tables without `schema_versions`."""

COLUMN = re.compile(r"^ {4}(\w+) [A-Z]", re.MULTILINE)
CREATED = re.compile(r"create (?:or replace )?(?:table|view) (?:if not exists )?(\w+)")


FIRST_TABLES = frozenset(("user_activity", "dimension_activity", "daily_metrics"))
"""What every database without a recorded version has."""


class SchemaError(PulseError):
    """The tables have another version than this checkout, or are not ours, or views read the source differently."""


@dataclass(frozen=True)
class Found:
    """A table or view that exists."""

    engine: str
    comment: str
    columns: frozenset[str]


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


def _version(db: ClickHouse, there: Mapping[str, Found]) -> int | None:
    """The version of these tables; the table with the version is the first one to be created."""
    is_ours = VERSIONS in there and "version" in there[VERSIONS].columns
    recorded = db.value("select max(version) from schema_versions") if is_ours else None
    return recorded or (UNVERSIONED if set(there) - {VERSIONS, *VIEWS} else None)


def ensure(db: ClickHouse, source: Source | None = None) -> None:
    """Create missing tables and change no existing ones. This is safe at any time, and for several processes at once.

    Args:
        db: the database with the project's tables.
        source: where the app's tables are; if it is given, the views that read them are ensured too.

    Raises:
        SchemaError: the tables are older or newer than this checkout, or not ours, or the views read the source in
            another way.
        SourceError: the source is not as its `sources.sql` says.
        ClickHouseError: the user may not create tables, or no server answers.
    """
    there = _there(db)
    if not _create_missing(db, there):
        raise SchemaError(_other_version(db))
    if source is None:
        return
    for view in views.read(db, source):
        found = there.get(view.name)
        if found and not view.is_of_this_installation(found.comment):
            raise SchemaError(_other_installation(db, view, found))
        _refuse_unreadable(db, source, view, found)
        if found is None:
            db.execute(view.creation("create view if not exists"))
        elif not view.is_as(found.comment):
            raise SchemaError(
                f"The view {db.full_name(view.name)} in {db.database} reads the source differently from PULSE_SOURCE "
                f"and PULSE_SOURCE_DATABASE ({source}), or the source's types have changed; "
                "run `pulse upgrade` if everybody who uses this database should read the source as this checkout does."
            )


def create_missing(db: ClickHouse) -> bool:
    """Create the missing tables, unless the existing ones have another version.

    Returns:
        Whether the tables are now complete.

    Raises:
        SchemaError: a table has the name of one of ours, and is not.
        ClickHouseError: the user may not create tables, or no server answers.
    """
    return _create_missing(db, _there(db))


def _create_missing(db: ClickHouse, there: Mapping[str, Found]) -> bool:
    found = _version(db, there)
    _refuse_foreign(db, there, found)
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


def upgrade(db: ClickHouse, source: Source, *, dry_run: bool = False, other_source: bool = False) -> list[str]:
    """Bring the tables to this checkout's version, and the views of the source to what the settings say.

    After an interruption it can be repeated. Nothing else should write to the tables meanwhile.

    Args:
        db: the database with the project's tables.
        source: where the app's tables are.
        dry_run: only say what would be done.
        other_source: let the views read another source, or in another zone, than they did.

    Returns:
        A line for each step that was done, or would be done.

    Raises:
        SchemaError: the tables are newer than this checkout, or not ours, or the views read another source.
        SourceError: the source is not as its `sources.sql` says.
        ClickHouseError: a step failed; the steps before it are done.
    """
    there = _there(db)
    found, latest = _version(db, there), newest()
    _refuse_foreign(db, there, found)
    if found is not None and found > latest:
        raise SchemaError(_other_version(db))
    made = views.read(db, source) if found is not None or not dry_run else []
    for view in made:
        if view.name in there and not other_source and not view.is_of_this_installation(there[view.name].comment):
            raise SchemaError(_other_installation(db, view, there[view.name]))
        _refuse_unreadable(db, source, view, there.get(view.name))
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
    for view in made:
        if view.select is not None and (view.name not in there or there[view.name].comment != view.comment):
            done.append(f"view {view.name}: read {source}")
            if not dry_run:
                db.execute(view.creation("create or replace view"))
    return done


def _refuse_unreadable(db: ClickHouse, source: Source, view: View, found: Found | None) -> None:
    """Stop if this account may not read the source, and there is no view that reads it as this checkout does.

    Raises:
        SchemaError: so it is.
    """
    if view.select is not None or (found and view.is_as(found.comment)):
        return
    state = "reads the source differently from this checkout" if found else "is not there"
    raise SchemaError(
        f"The view {db.full_name(view.name)} in {db.database} {state}, and this account may not read {source.database} "
        "to create it: an administrator has to run what `pulse source sql` prints."
    )


def _there(db: ClickHouse) -> dict[str, Found]:
    """The tables and views that exist and have the names of ours."""
    names = [db.full_name(name) for name in (*(name for name, _ in _creations()), *VIEWS)]
    found = """
    -- The tables and views with these names, one row each
    with columns as (
        select
            table as name,
            groupArray(columns.name) as columns
        from system.columns as columns
        where columns.database = {database:String} and columns.table in {names:Array(String)}
        group by table
    )

    select tables.name as name, tables.engine as engine, tables.comment as comment, columns.columns as columns
    from system.tables as tables
    left join columns on columns.name = tables.name
    where tables.database = {database:String} and tables.name in {names:Array(String)}
    """
    try:
        # This is usually the first statement that a server gets, so a silent server is given up soon.
        probe = ClickHouse(db.url, db.database, db.zone, clickhouse.PROBE_SECONDS)
        frame = probe.read(found, database=db.database, names=names)
    except ClickHouseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return {}
    return {
        db.own_name(name): Found(engine, comment, frozenset(columns))
        for name, engine, comment, columns in frame.itertuples(index=False, name=None)
    }


def _refuse_foreign(db: ClickHouse, there: Mapping[str, Found], version: int | None) -> None:
    """Stop before anything is changed if a table that is not ours has the name of one of ours.

    Raises:
        SchemaError: there is such a table.
    """
    creations = dict(_creations())
    ours = {name: frozenset(COLUMN.findall(sql)) for name, sql in creations.items()}
    foreign = {name for name in VIEWS if name in there and there[name].engine != "View"}
    if VERSIONS not in there:
        if not there.keys() >= FIRST_TABLES:
            foreign |= there.keys() - set(VIEWS)
    elif not there[VERSIONS].columns >= ours[VERSIONS]:
        foreign.add(VERSIONS)
    elif version == newest():
        for name in creations.keys() & there.keys():
            is_view = there[name].engine == "View"
            if is_view != (" view " in creations[name]) or not there[name].columns >= ours[name]:
                foreign.add(name)
    if foreign:
        names = ", ".join(map(db.full_name, sorted(foreign)))
        raise SchemaError(
            f"{names} in {db.database} {'are' if len(foreign) > 1 else 'is'} not what Pulse has under such a name, so "
            "nothing was changed; set PULSE_DATABASE to a database of Pulse's own, or PULSE_TABLE_PREFIX."
        )


def _creations() -> list[tuple[str, str]]:
    """The statements of `schema.sql`, each with the name of the table or view that it creates."""
    found = ((CREATED.search(each), each) for each in statements((FOLDER / "schema.sql").read_text()))
    return [(name[1], statement) for name, statement in found if name]


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


def _other_installation(db: ClickHouse, view: View, found: Found) -> str:
    return (
        f"The view {db.full_name(view.name)} in {db.database} {found.comment.rpartition(':')[0]}, and this "
        f"installation {view.comment.rpartition(':')[0]}: each needs a PULSE_DATABASE or a PULSE_TABLE_PREFIX of its "
        "own. If the source has moved, or the settings were wrong before, run `pulse upgrade --other-source`."
    )


def _other_version(db: ClickHouse) -> str:
    found, ours = version(db) or 0, newest()
    mend = (
        "run `pulse upgrade` (`pulse upgrade --dry-run` shows what it would do)"
        if found < ours
        else "use a checkout that is as new as the tables"
    )
    return f"The tables in {db.database} are of schema version {found}, and this checkout's is {ours}; {mend}."
