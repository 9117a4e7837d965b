"""Runs a real community's messages through the ETL day by day: 59,835 by 1,899 students, April to October 2004."""

import zlib
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks import reference
from notebooks.etl import MESSAGES, STEPS, Etl, Tables, assert_equal, sorted_tables
from pulse.execution.errors import CheckError
from pulse.publishing import holds
from pulse.settings import ROOT

FILE = ROOT.parent / "shared" / "data" / "college_messages.csv.gz"
DAYS = [date(2004, 4, 15) + timedelta(days=number) for number in range(195)]
QUIET = [date(2004, 4, 17), date(2004, 4, 18)]  # a weekend on which nobody in California wrote
BUSY = [day for day in DAYS if day not in QUIET]
BUSIEST = date(2004, 5, 26)
SOME = sorted({*BUSY[::50], BUSIEST})

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="college_messages.csv.gz is not beside the project")


def sender_attributes(user: int, month: int) -> tuple[str | None, str | None, int]:
    """Make up what the data lack about a sender: always the same for a user, but some change their phone in July."""
    dice = zlib.crc32(str(user).encode())
    phone = dice % 5 + (month >= 7 and dice % 3 == 0)
    return (
        ["iOS", "Android", "web", "", None, "iOS"][phone],
        ["female", "male", None][dice // 7 % 3],
        dice // 100 % 9 * 8,
    )


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    """The messages as the app would have stored them."""
    messages = pd.read_csv(FILE).rename(columns={"sender_id": "user_id"})
    messages["time"] = pd.to_datetime(messages.pop("unix_time"), unit="s", utc=True)
    attributes = map(sender_attributes, messages["user_id"], messages["time"].dt.month)
    made = ["os", "gender", "age"]
    messages[made] = pd.DataFrame(list(attributes), columns=made, dtype="object")
    return messages


@pytest.fixture(scope="module")
def college(clickhouse_server: Server, raw: pd.DataFrame) -> Iterator[Etl]:
    """An app with these messages and no feed."""
    with Etl.fresh(clickhouse_server, BUSIEST, "America/Los_Angeles") as etl:
        etl.create_source("message_actions", MESSAGES, "by month")  # one insert takes at most 100 partitions
        assert etl.source.write(raw, "message_actions").written_rows == len(raw)
        assert etl.source.value("select count() from message_actions") == len(raw)
        yield etl


@pytest.fixture(scope="module", params=[SOME, pytest.param(BUSY, marks=pytest.mark.prove)], ids=["some", "all"])
def days(request: pytest.FixtureRequest) -> list[date]:
    """The days that are computed; all of them take about three minutes."""
    return list(request.param)


@pytest.fixture(scope="module")
def published(college: Etl, days: list[date]) -> Etl:
    """Compute the days one after the other. One that is held, as in vacations, really was like that."""
    for day in days:
        try:
            college.run(day, allow_empty=True)
        except CheckError:
            holds.release(college.db, day, by="a test", because="students are like that", from_now_on=True)
            college.run(day, ["load"], allow_empty=True)
    return college


def test_each_day_is_as_pandas_computes_it(published: Etl, days: list[date], raw: pd.DataFrame) -> None:
    feed = pd.DataFrame({"user_id": [], "action": [], "os": [], "gender": [], "age": []}).assign(time=raw["time"][:0])
    computed = Tables(*(published.db.read(f"select * from {table}") for table in Tables._fields))  # noqa: S608
    for day in days:
        given = (feed, raw, day, published.zone)
        expected = Tables(
            reference.expected_user_activity(*given),
            reference.expected_dimension_activity(*given),
            reference.expected_dimension_metrics(*given),
            reference.expected_daily_metrics(*given),
        )
        assert_equal(sorted_tables(*(table[table["event_date"] == pd.Timestamp(day)] for table in computed)), expected)
    assert sorted(computed.daily_metrics["event_date"].dt.date) == days
    if days == BUSY:
        assert computed.daily_metrics["messages_sent"].sum() == len(raw) == 59_835
        assert computed.user_activity["user_id"].nunique() == 1_899


def test_many_who_only_received_are_known_from_before(published: Etl) -> None:
    """Otherwise the comparison would say little about the lookback."""
    passive = published.db.read("select os != 'unknown' as known from user_activity where messages_sent = 0")["known"]
    assert 100 < passive.sum() < len(passive)


@pytest.mark.parametrize("day", QUIET)
def test_a_day_on_which_nobody_wrote_is_refused(published: Etl, day: date) -> None:
    before = published.everything()
    with pytest.raises(CheckError, match=f"^No messages on {day} in {published.source.database}.message_actions; "):
        published.run(day, steps=["extract_messages"])
    pd.testing.assert_frame_equal(published.everything(), before)


@pytest.mark.prove
def test_papermill_gives_the_same_for_the_busiest_day(published: Etl, tmp_path: Path) -> None:
    before, everything = published.published(BUSIEST), published.everything()
    published.run_with_papermill(tmp_path, BUSIEST, run="papermill", allow_empty=True)
    assert_equal(published.published(BUSIEST), before)
    pd.testing.assert_frame_equal(published.everything(), everything)
    assert {path.stem for path in tmp_path.glob("*.ipynb")} == set(STEPS)
