"""Two installations in one database, told apart by `PULSE_TABLE_PREFIX`, and a stranger's tables beside them."""

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pulse_sandbox import clickhouse_rights
from pulse_sandbox.clickhouse_stand_in import Server
from test_accounts import Company

from notebooks.etl import Etl, assert_equal
from pulse import schema, settings
from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.dashboards import Reader, redash_files, superset
from pulse.doctor import readers, warehouse
from pulse.publishing import cleaning, late_data, loads, restating
from pulse.reports.reconcile import reconcile
from pulse.schema import SchemaError

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)


@pytest.fixture(scope="module")
def two(clickhouse_server: Server) -> Iterator[tuple[Etl, Etl]]:
    """An installation without a prefix and one with, in one database; each has an app and a published day."""
    with Etl.fresh(clickhouse_server, DAY) as plain, Etl.fresh(clickhouse_server, DAY) as elsewhere:
        prefixed = dataclasses.replace(plain, prefix="team_", app=elsewhere.source.database)
        for etl, (first, second) in ((plain, (1, 2)), (prefixed, (3, 4))):
            etl.feed(*((user, "view", f"1{user}:00", *IOS) for user in range(first)), (9, "like", "15:00", *ANDROID))
            etl.messages(*((user, user + 1, "16:00", *ANDROID) for user in range(second)))
            etl.run(run="first")
        yield plain, prefixed


def config_of(etl: Etl) -> settings.Settings:
    return settings.load(**etl.environment, PULSE_OUTPUT="/nonexistent")


def test_two_installations_share_a_database(two: tuple[Etl, Etl]) -> None:
    """Whatever one of them writes and deletes, the other has what it had."""
    for etl, other in (two, two[::-1]):
        before, tables = other.everything(), other.tables()
        etl.feed((7, "view", "18:00", *IOS))
        etl.run(run="second")
        etl.by_hand("reports/daily_report", event_date=str(DAY))
        etl.by_hand("monitoring/anomalies", as_of=f"{DAY}T17:00")
        assert schema.upgrade(etl.db, etl.reads) == []
        assert_equal(etl.published(), etl.expected())
        assert reconcile(DAY, config_of(etl))[-1] == "the source"
        published = loads.publication(etl.db, DAY)
        assert published is not None
        changed = restating.judge(etl.db, config_of(etl), published, late_data.late_data(DAY, config_of(etl)), 0.001)
        assert (changed.outcome, changed.size) == ("kept", 0)
        assert cleaning.clean(etl.db, datetime(2027, 1, 1, tzinfo=UTC))
        assert other.everything().equals(before)
        assert other.tables() >= tables
    assert two[0].metrics()["views"] != two[1].metrics()["views"]


def test_staging_tables_are_found_by_their_own_installation(two: tuple[Etl, Etl]) -> None:
    plain, prefixed = two
    prefixed.run(run="third")
    mine = loads.staging(prefixed.db, "third")
    assert "feed_users__third" in mine
    assert loads.staging(plain.db, "third") == []
    assert loads.missing(prefixed.db, mine) == []
    assert loads.missing(plain.db, mine) == sorted(mine)
    assert loads.made_at(prefixed.db, mine) > datetime(2026, 1, 1, tzinfo=UTC)


def test_the_doctor_looks_at_its_own_tables(two: tuple[Etl, Etl]) -> None:
    for etl in two:
        config = config_of(etl)
        found = {each.what: each for check in warehouse.CHECKS for each in check.look(config)}
        assert found["rights"].state == found["tables"].state == "fine"
        assert [each.said for each in readers._deliveries(config)] == ["none needs attention"]


def test_a_strangers_table_is_in_the_way_only_without_a_prefix(two: tuple[Etl, Etl], clickhouse_server: Server) -> None:
    plain, prefixed = two
    outside = ClickHouse(clickhouse_server.url, plain.db.database, plain.zone)
    outside.execute("create table other_user_activity (secret String) engine = MergeTree order by secret")
    other = dataclasses.replace(prefixed, prefix="other_")
    with pytest.raises(SchemaError, match=r"^other_user_activity in \w+ is not what Pulse .* PULSE_TABLE_PREFIX\.$"):
        schema.ensure(other.db, other.reads)
    schema.ensure(dataclasses.replace(prefixed, prefix="third_").db, prefixed.reads)
    # One prefix cannot read two apps.
    with pytest.raises(SchemaError, match=r"^The view team_feed_events in .* a PULSE_TABLE_PREFIX of its own\."):
        schema.ensure(prefixed.db, plain.reads)


def test_dashboards_read_the_tables_with_the_prefix(two: tuple[Etl, Etl]) -> None:
    """The queries of both dashboards, as they are installed, find the day in the database as it is."""
    etl = two[1]
    raw = ClickHouse(etl.server.url, etl.db.database, etl.zone)  # as Superset and Redash read, without our client
    reader = Reader(settings.load(**etl.environment, CLICKHOUSE_READER_URL=etl.server.reader_url))
    datasets = [content["sql"] for key, content in superset.bundled(reader).items() if key.startswith("datasets/")]
    queries = [reader.query(definition["query"]) for definition in redash_files.definitions().values()]
    assert len(datasets) == 3
    values = {"event_date": str(DAY), "days": "28", "dimension": "os", "metric": "views"}
    for query in (*datasets, *queries):
        filled = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: values.get(found[1], "1"), query)
        assert "team_" in filled
        assert len(raw.read(filled)), filled


def test_the_sandboxes_reader_reads_the_tables_with_the_prefix() -> None:
    granted, _ = clickhouse_rights.documented_rights("shared", "team_")
    assert "GRANT select ON `shared`.team_daily_metrics" in granted


@pytest.mark.parametrize("prefix", ["9lives_", "team-", "a b", "a.b_", "`"])
def test_a_prefix_is_a_word(prefix: str) -> None:
    with pytest.raises(settings.SettingsError, match="PULSE_TABLE_PREFIX"):
        settings.load(PULSE_TABLE_PREFIX=prefix)


def test_an_account_writes_nothing_but_the_tables_with_the_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{settings.ROOT / 'tests'}:{settings.ROOT}")
    company = Company.founded(tmp_path, prefix="team_")
    assert "on `company`.team_* to `pulse`" in company.script
    with company.server() as etl:
        etl.run(DAY - timedelta(days=1))
        etl.run()
        assert etl.metrics()["views"] == 5
        assert cleaning.clean(etl.db) == []
        found = {each.what: each for each in warehouse._tables(config_of(etl))}
        assert found["rights"].state == "fine"
        raw = ClickHouse(etl.server.url, "company", etl.zone)
        for refused in (
            "create table company.own (n UInt8) engine = MergeTree order by n",
            "select count() from company_app.feed_actions",
        ):
            with pytest.raises(ClickHouseError) as error:
                raw.execute(refused)
            assert error.value.code == 497
