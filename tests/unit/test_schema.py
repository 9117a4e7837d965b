"""Missing tables are created, tables of another version are refused, and `pulse upgrade` changes them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from pulse_sandbox import clickhouse_stand_in
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import ATTRIBUTES, OPTIONAL
from pulse import clickhouse, schema
from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.schema import SchemaError
from pulse.sources import Source, definition, views
from pulse.sources.definition import SourceError

MOSCOW = ZoneInfo("Europe/Moscow")
SOURCE = Source("app", "schema_source")
VERSION_1 = Path(__file__).parent / "schema_version_1.sql"
SHAPE = """
select table, name, type, position, is_in_primary_key, is_in_partition_key, default_expression, comment
from system.columns
where database = currentDatabase()
order by table, position
"""


@pytest.fixture
def db(clickhouse_server: Server) -> Iterator[ClickHouse]:
    """The project's database, which does not exist yet, and an app's, `schema_source`, with two empty tables."""
    outside = ClickHouse(clickhouse_server.url, "default", MOSCOW)
    outside.execute("create database if not exists schema_source")
    attributes = ", ".join(f"{name} {kind}" for name, kind in (ATTRIBUTES | OPTIONAL).items())
    for table, more in (("feed_actions", "action String"), ("message_actions", "receiver_id UInt32")):
        outside.execute(
            f"create or replace table schema_source.{table} (user_id UInt32, {more}, time DateTime, {attributes})"
            " engine = MergeTree order by time"
        )
    yield ClickHouse(clickhouse_server.url, "schema_target", MOSCOW)
    for database in ("schema_target", "schema_source"):
        outside.execute("drop database if exists {name:Identifier}", name=database)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this checkout's SQL that a test can change, as if it were another checkout."""
    shutil.copytree(schema.FOLDER / "migrations", tmp_path / "migrations")
    shutil.copy(schema.FOLDER / "schema.sql", tmp_path)
    monkeypatch.setattr(schema, "FOLDER", tmp_path)
    return tmp_path


def old_days(db: ClickHouse, days: int) -> None:
    """Unversioned tables with some days, each of which has three views more than the day before."""
    ClickHouse(db.url, "default", MOSCOW).execute("create database {name:Identifier}", name=db.database)
    db.script(VERSION_1.read_text())
    day, end = "toDate('2026-01-01') + number", f"from numbers({days}) settings max_partitions_per_insert_block = 0"
    for table, columns, values in (
        ("daily_metrics", "views, likes, ctr", "3 * number, 7, if(number = 3, null, 0.5)"),
        ("dimension_activity", "dimension, dimension_value, views, users_sent", "'os', 'iOS', 3 * number, 5"),
        ("user_activity", "user_id, os, views, feed_active", "18446744073709551615 - number, 'iOS', 3 * number, true"),
    ):
        db.execute(f"insert into {table} (event_date, {columns}) select {day}, {values} {end}")


def shape(db: ClickHouse) -> pd.DataFrame:
    return db.read(SHAPE)


# --- made, and left alone --------------------------------------------------------------------------------------------


def test_missing_tables_are_created_and_existing_ones_kept(db: ClickHouse) -> None:
    schema.ensure(db, SOURCE)
    assert schema.version(db) == schema.newest()
    db.execute("insert into daily_metrics_loads (load, event_date, views) values ('a', '2026-11-22', 5)")
    db.execute("insert into publications (event_date, step, load) values ('2026-11-22', 1, 'a')")
    schema.ensure(db, SOURCE)
    assert db.value("select views from daily_metrics") == 5


def test_an_interrupted_creation_is_continued(db: ClickHouse) -> None:
    schema.ensure(db)
    whole = shape(db)
    names = [
        schema.CREATED.search(each)[1] for each in clickhouse.statements((schema.FOLDER / "schema.sql").read_text())
    ]
    for kept in (1, 2, len(names) // 2, len(names) - 1):
        for name in reversed(names[kept:]):
            db.execute("drop table {name:Identifier}", name=name)
        schema.ensure(db)
        pd.testing.assert_frame_equal(shape(db), whole)


def test_a_run_changes_no_existing_tables_or_views(db: ClickHouse) -> None:
    schema.ensure(db, SOURCE)
    before = db.read(
        "select name, uuid, metadata_modification_time from system.tables where database = 'schema_target'"
    )
    schema.ensure(db, SOURCE)
    after = db.read("select name, uuid, metadata_modification_time from system.tables where database = 'schema_target'")
    pd.testing.assert_frame_equal(before, after)


def test_a_missing_source_is_named(db: ClickHouse) -> None:
    with pytest.raises(SourceError, match=r"no_such_app.*Check PULSE_SOURCE_DATABASE"):
        schema.ensure(db, Source("app", "no_such_app"))


def test_a_read_only_user_is_told_which_right_is_missing(tmp_path: Path) -> None:
    with clickhouse_stand_in.running(tmp_path) as empty:
        reader = ClickHouse(empty.reader_url, "pulse", MOSCOW)
        message = r"164 \(READONLY\).* give it write access to the project's database\.$"
        with pytest.raises(ClickHouseError, match=message):
            schema.ensure(reader)


# --- two checkouts, one database -------------------------------------------------------------------------------------


def test_a_checkout_refuses_older_and_newer_tables_and_changes_nothing(db: ClickHouse, folder: Path) -> None:
    schema.ensure(db, SOURCE)
    number = schema.newest()
    before = shape(db)
    (folder / "migrations" / f"{number + 1:04}_count_reposts.sql").write_text(
        "alter table dimension_activity_loads add column if not exists reposts UInt64 after likes;\n"
    )
    older = f"The tables in schema_target are of schema version {number}, and this checkout's is {number + 1}; run `pu"
    with pytest.raises(SchemaError, match=older):
        schema.ensure(db, SOURCE)
    pd.testing.assert_frame_equal(shape(db), before)
    assert schema.upgrade(db, SOURCE) == [f"version {number + 1}: count reposts"]
    schema.ensure(db, SOURCE)
    (folder / "migrations" / f"{number + 1:04}_count_reposts.sql").unlink()
    newer = rf"version {number + 1}, and this checkout's is {number}; use a checkout that is as new as the tables\.$"
    for refused in (lambda: schema.ensure(db), lambda: schema.upgrade(db, SOURCE)):
        with pytest.raises(SchemaError, match=newer):
            refused()


def test_other_views_of_the_source_are_refused_until_an_upgrade(db: ClickHouse, tmp_path: Path) -> None:
    folder = tmp_path / "somebody's"
    folder.mkdir()
    text, own = (definition.PRESETS / "app.sql").read_text(), Source(str(folder), "schema_source")
    (folder / "sources.sql").write_text(text)
    schema.ensure(db, own)
    defined = "select name, as_select from system.tables where database = 'schema_target' and name like '%events'"
    before = db.read(defined)
    (folder / "sources.sql").write_text(text.replace("    action,", "    lower(action) as action,"))
    with pytest.raises(SchemaError, match="The view feed_events in schema_target reads the source differently from "):
        schema.ensure(db, own)
    pd.testing.assert_frame_equal(db.read(defined), before)
    line = f"view feed_events: read schema_source as {folder}"
    assert schema.upgrade(db, own, dry_run=True) == [line]
    assert schema.upgrade(db, own) == [line]
    schema.ensure(db, own)
    assert schema.upgrade(db, own) == []


def test_views_of_before_the_definition_had_a_mark_are_kept(db: ClickHouse) -> None:
    schema.ensure(db, SOURCE)
    mark = re.compile(r": [0-9a-f]{12}-")
    for view in views.read(db, SOURCE):
        before = mark.sub(": ", view.comment)
        assert before != view.comment
        db.execute(view.creation("create or replace view").replace(view.comment, before))
    schema.ensure(db, SOURCE)
    assert len(schema.upgrade(db, SOURCE)) == 2
    other = view.creation("create or replace view").replace(view.comment, f"{view.reads}: 0123456789ab")
    db.execute(other)
    with pytest.raises(
        SchemaError, match=r"message_events in schema_target reads the source differently.*`pulse upgrad"
    ):
        schema.ensure(db, SOURCE)
    assert len(schema.upgrade(db, SOURCE)) == 1
    schema.ensure(db, SOURCE)


@pytest.mark.parametrize(
    ("source", "zone"),
    [
        (Source("app", "schema_other"), MOSCOW),
        (Source("course", "schema_source"), MOSCOW),
        (Source("app", "schema_source", ZoneInfo("Asia/Tokyo")), MOSCOW),
        (SOURCE, ZoneInfo("Asia/Tokyo")),
    ],
)
def test_a_second_installation_in_one_database_is_refused(db: ClickHouse, source: Source, zone: ZoneInfo) -> None:
    schema.ensure(db, SOURCE)
    outside = ClickHouse(db.url, "default", MOSCOW)
    outside.execute("create database if not exists schema_other")
    for table in ("feed_actions", "message_actions"):
        outside.execute(f"create table if not exists schema_other.{table} as schema_source.{table}")
    second, before = ClickHouse(db.url, db.database, zone), shape(db)
    for refused in (lambda: schema.ensure(second, source), lambda: schema.upgrade(second, source)):
        with pytest.raises(
            SchemaError, match=r"feed_events .* reads .*, and this installation reads .*: each needs a PU"
        ):
            refused()
    pd.testing.assert_frame_equal(shape(db), before)
    assert len(schema.upgrade(second, source, other_source=True)) == 2
    schema.ensure(second, source)
    outside.execute("drop database schema_other")


# --- tables of somebody else -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("incidents", "id UInt32, opened DateTime"),
        ("schema_versions", "version String"),
        ("feed_events", "user_id UInt32, time DateTime"),
        ("daily_metrics", "event_date Date, revenue Float64"),
    ],
)
def test_a_foreign_table_is_noticed_before_anything_is_changed(db: ClickHouse, name: str, columns: str) -> None:
    ClickHouse(db.url, "default", MOSCOW).execute("create database schema_target")
    db.execute(f"create table {name} ({columns}) engine = MergeTree order by tuple()")
    before = shape(db)
    for refused in (lambda: schema.ensure(db, SOURCE), lambda: schema.upgrade(db, SOURCE)):
        with pytest.raises(
            SchemaError, match=rf"^{name} in schema_target is not what Pulse has under such a name, so no"
        ):
            refused()
    pd.testing.assert_frame_equal(shape(db), before)


def test_a_table_that_was_replaced_by_another_is_noticed(db: ClickHouse) -> None:
    schema.ensure(db, SOURCE)
    db.execute("drop table incidents")
    db.execute("create table incidents (incident String) engine = MergeTree order by tuple()")
    with pytest.raises(SchemaError, match=r"^incidents in schema_target is not what Pulse has"):
        schema.ensure(db, SOURCE)


def test_wider_ids_in_the_source_are_noticed(db: ClickHouse) -> None:
    schema.ensure(db, SOURCE)
    db.execute("alter table schema_source.message_actions modify column user_id Int64 settings mutations_sync = 1")
    with pytest.raises(SchemaError, match="or the source's types have changed; run `pulse upgrade`"):
        schema.ensure(db, SOURCE)
    schema.upgrade(db, SOURCE)
    schema.ensure(db, SOURCE)
    assert db.value("select toTypeName(user_id) from feed_events union all select 'Int64' limit 1") == "Int64"


# --- upgrades --------------------------------------------------------------------------------------------------------


def test_upgraded_unversioned_tables_equal_a_new_installation(db: ClickHouse) -> None:
    schema.ensure(db, SOURCE)
    new = shape(db)
    ClickHouse(db.url, "default", MOSCOW).execute("drop database schema_target")
    old_days(db, 120)  # more partitions than one insert may have
    before = {
        table: db.read(f"select * from {table} order by event_date")  # noqa: S608
        for table in ("daily_metrics", "dimension_activity", "user_activity")
    }
    with pytest.raises(SchemaError, match="are of schema version 1"):
        schema.ensure(db, SOURCE)
    schema.upgrade(db, SOURCE)
    pd.testing.assert_frame_equal(shape(db), new)
    before["user_activity"]["user_id"] = before["user_activity"]["user_id"].astype(str)
    for number, name in enumerate(("country", "city", "source", "exp_group")):
        before["user_activity"].insert(5 + number, name, "unknown")
    for table, rows in before.items():
        pd.testing.assert_frame_equal(db.read(f"select * from {table} order by event_date"), rows)  # noqa: S608
    counted = (
        "select dimension, dimension_value, sum(feed_users), sum(views), count() from dimension_metrics group by all"
    )
    assert sorted(map(tuple, db.read(counted).to_numpy().tolist())) == [
        ("age", "", 120, 3 * sum(range(120)), 120),
        ("gender", "", 120, 3 * sum(range(120)), 120),
        ("os", "iOS", 120, 3 * sum(range(120)), 120),
    ]
    assert schema.version(db) == schema.newest()
    schema.ensure(db, SOURCE)


def test_a_dry_run_lists_the_steps_and_changes_nothing(db: ClickHouse) -> None:
    old_days(db, 1)
    before = shape(db)
    said = schema.upgrade(db, SOURCE, dry_run=True)
    assert [line for line in said if line.startswith("version ")] == [
        f"version {each.version}: {each.name}" for each in schema.migrations()
    ]
    assert any("rename table if exists user_activity to user_activity_version_1" in line for line in said)
    pd.testing.assert_frame_equal(shape(db), before)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.prove), 9])
def test_an_interrupted_upgrade_is_completed_by_the_next(
    db: ClickHouse, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """The upgrade is interrupted before each statement in turn; no published row is lost or doubled."""

    class CutOffError(BaseException):
        """Acts like a kill: nothing handles it."""

    real = ClickHouse._run
    left = 0

    def counted(self: ClickHouse, sql: str, *given: object, **named: object) -> object:
        nonlocal left
        if not clickhouse.REPEATABLE.match(sql.strip()) or "create" in sql or "drop" in sql or "rename" in sql:
            left -= 1
            if left < 0:
                raise CutOffError
        return real(self, sql, *given, **named)  # type: ignore[arg-type]

    statement = 0
    while True:
        ClickHouse(db.url, "default", MOSCOW).execute("drop database if exists schema_target")
        old_days(db, 4)
        left = statement
        with monkeypatch.context() as patch:
            patch.setattr(ClickHouse, "_run", counted)
            try:
                schema.upgrade(db, SOURCE)
                break
            except CutOffError:
                pass
        schema.upgrade(db, SOURCE)
        schema.ensure(db, SOURCE)
        for table in ("daily_metrics", "dimension_activity", "user_activity"):
            counted_up = "select count() as days, sum(views) as views, uniqExact(event_date) as different"
            found = db.read(f"{counted_up} from {table}").loc[0].tolist()
            assert found == [4, 18, 4], f"{table}, cut off before statement {statement + 1}"
        slices = db.read("select count(), sum(views) from dimension_metrics").loc[0].tolist()
        assert slices == [12, 54], f"cut off before statement {statement + 1}"
        statement += every
    assert statement > 20
