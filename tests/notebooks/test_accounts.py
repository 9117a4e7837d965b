"""One account runs all notebooks, without any right on the app's tables.

It has exactly the rights that `pulse source sql` prints, and the engine enforces them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import accounts
import pytest
from pulse_sandbox import clickhouse_stand_in, process
from typer.testing import CliRunner

from notebooks.etl import FEED, MESSAGES, OPTIONAL, Etl, split_by
from pulse import schema, settings
from pulse.cli import app as cli
from pulse.clickhouse import ClickHouse, ClickHouseError, statements, without_comments
from pulse.doctor import warehouse
from pulse.publishing import cleaning
from pulse.schema import SchemaError
from pulse.sources import Source, views

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)


class Company:
    """A company's server: the app's tables with two days, and who may do what."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder, self.prefix = folder, prefix
        self.script = ""

    @contextmanager
    def server(self) -> Iterator[Etl]:
        """The server as long as the block runs."""
        with process.running(accounts.MODULE, self.folder) as about:
            yield Etl(clickhouse_stand_in._server(about), "company", DAY, prefix=self.prefix)

    def administrator(self, script: str) -> None:
        """An administrator creates what a script says, and the server starts anew with the rights that it gives."""
        with self.server() as etl:
            for statement in statements(script):
                if not without_comments(statement).startswith("grant"):
                    ClickHouse(etl.server.url, "default", etl.zone).execute(statement)
        self.grant(script)

    def grant(self, script: str) -> None:
        """From the next start on, the server has the rights that a script gives."""
        rights = [without_comments(each) for each in statements(script)]
        granted = [re.sub(r" to `pulse`$", "", each) for each in rights if each.startswith("grant")]
        (self.folder / accounts.GRANTS).write_text("\n".join(granted))

    @classmethod
    def founded(cls, folder: Path, prefix: str = "") -> "Company":
        """A company where an administrator has run what `pulse source sql` prints."""
        found = cls(folder, prefix)
        with found.server() as etl:
            ClickHouse(etl.server.url, "default", etl.zone).execute("create database company_app")
            etl.create_source("feed_actions", FEED | OPTIONAL)
            etl.create_source("message_actions", MESSAGES | OPTIONAL)
            for day in (DAY - timedelta(days=1), DAY):
                etl.feed(
                    *((user, "view", f"{day} 12:0{user}", *(IOS if user % 2 else ANDROID)) for user in range(1, 6))
                )
                etl.feed((1, "like", f"{day} 13:00", *IOS), (6, "like", f"{day} 23:59", *ANDROID))
                etl.messages((1, 2, f"{day} 12:00", *IOS), (7, 8, f"{day} 12:30", *ANDROID), (2, 1, f"{day} 14:00"))
            now = datetime.now(etl.zone).replace(tzinfo=None, microsecond=0)
            etl.feed(*((user, "view", str(now - timedelta(minutes=40 + user)), *IOS) for user in range(1, 4)))
            found.script = printed(etl)
        found.administrator(found.script)
        return found


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """A company where an administrator has run what `pulse source sql` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{settings.ROOT / 'tests'}:{settings.ROOT}")
        yield Company.founded(tmp_path_factory.mktemp("company"))


@pytest.fixture
def etl(company: Company) -> Iterator[Etl]:
    """The company's server as the account sees it."""
    with company.server() as found:
        yield found


def printed(etl: Etl, *options: str) -> str:
    """What `pulse source sql` prints."""
    said = CliRunner().invoke(
        cli, ["source", "sql", "--definer", "administrator", *options], env=etl.environment, catch_exceptions=False
    )
    assert said.exit_code == 0
    return said.stdout


def test_the_account_runs_every_notebook_and_the_numbers_are_right(etl: Etl) -> None:
    etl.run(DAY - timedelta(days=1))
    etl.run()
    etl.run()
    # The account cannot read the source, so the numbers are counted by hand.
    metrics = etl.metrics()
    assert {name: metrics[name] for name in ("views", "likes", "feed_users", "messenger_users", "app_users")} == {
        "views": 5, "likes": 2, "feed_users": 6, "messenger_users": 3, "app_users": 7,
    }  # fmt: skip
    assert (metrics["messages_sent"], metrics["messages_received"]) == (3, 2)
    etl.by_hand("monitoring/anomalies")
    live = etl.by_hand("reports/live_metrics")
    assert live
    report = etl.by_hand("reports/daily_report", event_date=str(DAY))
    assert report
    assert cleaning.clean(etl.db) == []
    late = datetime.now(etl.zone) + timedelta(days=500)
    assert any("metric_buckets" in each for each in cleaning.clean(etl.db, late))
    assert schema.upgrade(etl.db, etl.reads) == []


def test_the_account_knows_by_the_views_which_dimensions_the_source_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_by(tmp_path, ["country"])
    monkeypatch.setenv("PULSE_SOURCE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{settings.ROOT / 'tests'}:{settings.ROOT}")
    (tmp_path / "company").mkdir()
    with Company.founded(tmp_path / "company").server() as etl:
        etl.run()
        assert set(etl.slices().index.get_level_values("dimension")) == {"os", "gender", "age", "country"}
        with pytest.raises(ClickHouseError, match="497"):
            etl.source.value("select count() from feed_actions")


def test_the_doctor_finds_the_account_as_it_should_be(etl: Etl) -> None:
    schema.ensure(etl.db, etl.reads)
    config = settings.load(**etl.environment)
    known = {"ClickHouse", "clock", "rights", "tables", "source", "feed_events"}  # the others depend on days long past
    found = {each.what: each for check in warehouse.CHECKS for each in check.look(config)}
    assert [each.said for each in found.values() if each.state == "fault" and each.what in known] == []
    assert known <= set(found)
    assert "through its views" in found["source"].said


@pytest.mark.parametrize(
    "statement",
    [
        "select count() from company_app.feed_actions",
        "select user_id from company_app.message_actions",
        "describe table company_app.feed_actions",
        "insert into company_app.feed_actions (user_id) select 1",
        "alter table company_app.feed_actions delete where 1",
        "drop table company_app.feed_actions",
        "create table company_app.own (n UInt8) engine = MergeTree order by n",
        "create table default.own (n UInt8) engine = MergeTree order by n",
        "create database own",
        "create view company.own as select user_id from company_app.feed_actions",
        "create or replace view company.feed_events definer = administrator sql security definer as "
        "select * from company_app.feed_actions",
        "select * from url('http://127.0.0.1:9/', 'CSV', 'n UInt8')",
    ],
)
def test_the_account_reaches_nothing_else(etl: Etl, statement: str) -> None:
    with pytest.raises(ClickHouseError) as refused:
        etl.db.execute(statement)
    assert refused.value.code == 497


# --- an administrator has to act -------------------------------------------------------------------------------------


def test_changed_definitions_and_missing_views_name_the_command(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    schema.ensure(etl.db, etl.reads)
    said = r"The view feed_events in company reads the source differently from this checkout, and this account may not "
    with monkeypatch.context() as newer:  # a checkout whose views add something else
        newer.setattr(views, "_select", lambda *_: "select 1")
        for refused in (schema.ensure, schema.upgrade):
            with pytest.raises(SchemaError, match=said + r"read company_app to create it: an administrator has to run"):
                refused(etl.db, etl.reads)
    with pytest.raises(
        SchemaError, match=r"reads company_app as app, by .* this installation reads company_app as cou"
    ):
        schema.ensure(etl.db, Source("course", "company_app"))
    for other in (False, True):
        with pytest.raises(SchemaError):
            schema.upgrade(etl.db, Source("course", "company_app"), other_source=other)
    empty = ClickHouse(etl.server.url, "pulse", etl.zone)
    with pytest.raises(
        SchemaError, match=r"^The view feed_events in pulse is not there, and this account may not read"
    ):
        schema._refuse_unreadable(empty, etl.reads, views.read(empty, etl.reads)[0], None)
    refused = CliRunner().invoke(cli, ["source", "sql"], env=etl.environment)
    assert "This account may not read company_app, so the types of its columns cannot be" in str(refused.exception)


def test_wider_ids_are_an_error_and_no_other_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{settings.ROOT / 'tests'}:{settings.ROOT}")
    company = Company.founded(tmp_path)
    (tmp_path / accounts.GRANTS).unlink()
    with company.server() as etl:
        etl.create_source("feed_actions", FEED | {"user_id": "UInt64"})
        etl.source.write([{"user_id": 2**32 + 1, "action": "view", "time": etl.moment("15:00")}], "feed_actions")
        company.grant(company.script)
    with company.server() as etl, pytest.raises(ClickHouseError, match=r"error 70 .*into type UInt32.*its type there"):
        etl.run()
