"""The ClickHouse user of dashboards: what is documented, and what the sandbox's may do."""

import re

import pytest

from dashboards.conftest import Published
from pulse import settings
from pulse.clickhouse import ClickHouse, ClickHouseError

READER = (settings.ROOT / "dashboards" / "reader.sql").read_text()


def test_the_documented_statements_are_clickhouses_own(published: Published) -> None:
    statements = [each for each in READER.split(";") if each.strip()]
    assert len(statements) == 4
    for statement in statements:
        assert published.db.value("select formatQuery({text:String})", text=statement)
    assert "readonly = 2" in READER


def test_it_may_read_what_dashboards_read_and_nothing_else_of_the_project() -> None:
    granted = set(re.findall(r"^grant select on pulse\.(\w+) to", READER, re.MULTILINE))
    definitions = (settings.ROOT / "dashboards").rglob("*.yaml")
    used = set(re.findall(r"\b(daily_metrics|dimension_activity|user_activity|deliveries)\b", "".join(
        path.read_text() for path in definitions
    )))  # fmt: skip
    assert used <= granted
    assert "deliveries" not in granted  # whom the reports go to


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
