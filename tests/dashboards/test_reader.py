"""The ClickHouse user for dashboards: its documented grants, and the rights of the sandbox's own."""

import re
from urllib.parse import urlsplit

import pytest

from dashboards.conftest import Published
from dashboards.redash import run
from pulse import settings
from pulse.clickhouse import ClickHouse, ClickHouseError

READER = (settings.ROOT / "dashboards" / "reader.sql").read_text()


def test_the_documented_statements_are_clickhouses_own(published: Published) -> None:
    statements = [each for each in READER.split(";") if each.strip()]
    assert len(statements) == 4
    for statement in statements:
        assert published.db.value("select formatQuery({text:String})", text=statement)
    assert "readonly = 2" in READER


def _granted() -> set[str]:
    return set(re.findall(r"^grant select on pulse\.(\w+) to", READER, re.MULTILINE))


def test_what_is_granted_is_what_dashboards_read(published: Published) -> None:
    """What dashboards read is every name after a `from` or a `join` in their definitions, except for their own CTEs."""
    texts = [path.read_text() for path in (settings.ROOT / "dashboards").rglob("*.yaml")]
    read = {name for text in texts for name in re.findall(r"\b(?:from|join) ([a-z_]+)\b", text)}
    there = set(published.db.read("select name from system.tables where database = 'pulse'")["name"])
    assert read & there == _granted()


def test_the_sandboxs_reader_may_do_the_same_and_no_more(published: Published) -> None:
    reader = ClickHouse(published.server.reader_url, "pulse", published.db.zone)
    grants = set(published.db.read("show grants for viewer").iloc[:, 0])
    assert grants == {f"GRANT SELECT ON pulse.{table} TO viewer" for table in _granted()}
    for table in published.db.read("select name from system.tables where database = 'pulse'")["name"]:
        if table in _granted():
            assert reader.value(f"select count() >= 0 from {table}")  # noqa: S608
        elif table != "bucket_history":  # a view that needs parameters
            with pytest.raises(ClickHouseError) as refused:
                reader.value(f"select count() from {table}")  # noqa: S608
            assert refused.value.code == 497
    laid_down = re.search(r"^settings (.+);", READER, re.MULTILINE)
    assert laid_down
    address = urlsplit(published.server.reader_url)  # query as Redash does, which sends no settings of its own
    who = {"user": address.username, "password": address.password, "dbname": "pulse"}
    for name, value in (each.split(" = ") for each in laid_down[1].split(", ")):
        asked = f"select value from system.settings where name = '{name}'"  # noqa: S608
        found = run({**who, "url": f"http://{address.hostname}:{address.port}"}, asked)
        assert found["rows"] == [{"value": value}]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into daily_metrics select * from daily_metrics",
        "create table own (n UInt8) engine = Memory",
        "alter table daily_metrics delete where 1",
        "select count() from app.feed_actions",
        "select * from url('http://127.0.0.1:9/', 'CSV', 'n UInt8')",
        "set readonly = 0",
    ],
)
def test_the_sandboxs_reader_reads_the_projects_database_only(published: Published, statement: str) -> None:
    published.db.execute("create table if not exists app.feed_actions (n UInt8) engine = Memory")
    reader = ClickHouse(published.server.reader_url, "pulse", published.db.zone)
    assert reader.value("select count() from daily_metrics") == len(published.daily)
    with pytest.raises(ClickHouseError) as refused:
        reader.execute(statement)
    assert refused.value.code in (164, 497)
