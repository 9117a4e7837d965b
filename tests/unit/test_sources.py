"""A `sources.sql`: what is wrong with one is said in a sentence that names the file and the line."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from typer.testing import CliRunner

from pulse.cli import app as cli
from pulse.clickhouse import ClickHouse
from pulse.settings import ROOT
from pulse.sources import Source, contract, definition, views
from pulse.sources.definition import SourceError

MOSCOW = ZoneInfo("Europe/Moscow")
OWN = """\
-- Our app

create or replace view feed_events as
select
    who as user_id,
    time,
    action,
    os,
    gender,
    age
from {source}.feed_actions;

create or replace view message_events as
select
    who as user_id,
    whom as receiver_id,
    time,
    os,
    gender,
    age
from {source}.message_actions;
"""


@pytest.fixture(scope="module")
def db(clickhouse_server: Server) -> Iterator[ClickHouse]:
    """An app's database with two empty tables."""
    outside = ClickHouse(clickhouse_server.url, "default", MOSCOW)
    outside.execute("create database sources_app")
    found = ClickHouse(clickhouse_server.url, "sources_app", MOSCOW)
    shared = "who UInt32, time DateTime, os String, gender Nullable(String), age UInt8"
    for table, more in (("feed_actions", "action String, post_id UInt32"), ("message_actions", "whom UInt32")):
        found.execute(f"create table {table} ({shared}, {more}) engine = MergeTree order by time")
    yield found
    outside.execute("drop database sources_app")


def own(folder: Path, text: str = OWN) -> Source:
    """A source that a user defined."""
    (folder / "sources.sql").write_text(text)
    return Source(str(folder), "sources_app")


def test_a_source_in_the_project_has_the_same_name_in_every_checkout(tmp_path: Path) -> None:
    assert str(Source(str(ROOT / "source"), "app")) == "app as ./source"
    assert str(Source(str(tmp_path), "app", MOSCOW)) == f"app as {tmp_path}, times in Europe/Moscow"
    assert str(Source("course", "app")) == "app as course"


def test_a_users_own_source_makes_two_views(db: ClickHouse, tmp_path: Path) -> None:
    made = views.read(db, own(tmp_path))
    assert [view.name for view in made] == ["feed_events", "message_events"]
    for view in made:
        columns = db.read(f"describe table ({view.select})")["name"].tolist()
        promised = [column.name for column in contract.CONTRACT[view.name]]
        assert columns == [*promised, "attributes", "latest", "row_hash", "second_hash"]
        assert promised[-4:] == ["country", "city", "source", "exp_group"]


def test_what_a_source_lacks_is_empty_and_changes_no_hash(db: ClickHouse, tmp_path: Path) -> None:
    """So a database that is upgraded finds the rows of its published days as they were."""
    both = {"country": "os", "exp_group": "toInt8(0)"}
    with_both = OWN.replace(
        "    age\n", "".join(["    age", *(f",\n    {how} as {name}" for name, how in both.items()), "\n"])
    )
    plain, (feed, messages) = views.read(db, own(tmp_path))[0], views.read(db, own(tmp_path, with_both))
    assert (plain.optional, feed.optional, messages.optional) == (
        (),
        ("country", "exp_group"),
        ("country", "exp_group"),
    )
    assert plain.comment.partition(": ")[2].count(" ") == 0
    assert feed.comment.endswith(" with country, exp_group")
    assert feed.is_as(feed.comment)
    assert not plain.is_as(feed.comment)
    db.execute("insert into feed_actions values (1, '2025-03-12 12:00:00', 'iOS', 'male', 20, 'view', 7)")
    read = "select country, city, source, exp_group, attributes, latest, row_hash, second_hash from ({})"
    (without,), (having,) = (db.rows(read.format(view.select)) for view in (plain, feed))
    db.execute("truncate table feed_actions")
    assert [*without.values()][:4] == ["", "", "", ""]
    assert [*having.values()][:4] == ["iOS", "", "", "0"]
    # As version 9 made them, of os, gender and age alone.
    hashed = "select cityHash64('feed', cityHash64('iOS'), cityHash64('male'), cityHash64(toUInt8(20)))"
    assert without["attributes"] == db.value(hashed) != having["attributes"]
    assert without["row_hash"] != having["row_hash"]


@pytest.mark.parametrize("lacking", ["feed_events", "message_events"])
def test_both_statements_have_an_optional_column_or_none_has(db: ClickHouse, tmp_path: Path, lacking: str) -> None:
    other = {"feed_events": "message", "message_events": "feed"}[lacking]
    text = OWN.replace(f"    age\nfrom {{source}}.{other}", f"    age,\n    os as country\nfrom {{source}}.{other}")
    said = (
        rf"line \d+: {other}_events has the column country and {lacking} does not; select `… as country` there too, or"
    )
    with pytest.raises(SourceError, match=said):
        views.read(db, own(tmp_path, text))
    views.read(db, own(tmp_path, text.replace("    age\nfrom", "    age,\n    '' as country\nfrom")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "who as user_id,\n    time",
            "who,\n    time",
            r"line 4: feed_events has no column user_id \(who acted; .*\); select `… as user_id`",
        ),
        (
            "    gender,",
            "    gender as gendre,",
            r"line 4: feed_events has no column gender .*; select `gendre as gender`",
        ),
        (
            "age\nfrom {source}.feed",
            "age,\n    post_id\nfrom {source}.feed",
            r"line 11: the pipeline knows no column post_id of feed_events; it reads user_id, time, act",
        ),
        (
            "    os,",
            "    os,\n    os as oss,",
            r"line 9: the pipeline knows no column oss of feed_events; did you mean os",
        ),
        ("    whom as", "    whom / 2 as", r"line 16: receiver_id of message_events has the type Float64; an id is an"),
        (
            "    time,",
            "    toInt64(toUnixTimestamp(time)) * 1000 as time,",
            r"line 6: time of feed_events has the type Int64; if these are milliseconds since 1970, select "
            r"`toDateTime64\(time / 1000, 3\) as time`",
        ),
        ("    time,", "    toString(time) as time,", r"line 6: time of feed_events has the type String; select `parse"),
        (
            "    time,",
            "    toDate(time) as time,",
            r"line 6: time of feed_events has the type Date; a moment is a Date",
        ),
        (
            "    action,",
            "    age > 0 as action,",
            r"line 7: action of feed_events has the type UInt8; an action is a String or an Enum: select `transform\(",
        ),
        ("    os,", "    [os] as os,", r"line 8: os of feed_events has the type Array\(String\); an attribute is a"),
        ("feed_events", "feed", r"line 3: the view feed is neither feed_events nor message_events; a source is one of"),
        ("message_events", "feed_events", r"line 13: the view feed_events is there twice"),
        (
            "create or replace view message_events as\n",
            "",
            r"line 13: expected `create or replace view feed_events as ",
        ),
        ("{source}.feed_actions", "{source}.feed", r"line 11: feed_events cannot be read\. ClickHouse error 60 .*feed"),
        ("    time,", "    tiem,", r"line 6: feed_events cannot be read\. .*`tiem`\. Maybe you meant"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(db: ClickHouse, tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in OWN
    with pytest.raises(SourceError, match=r"^/\S+/sources\.sql, " + said):
        views.read(db, own(tmp_path, OWN.replace(old, new, 1)))


def test_a_view_that_is_missing_is_named(db: ClickHouse, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"sources\.sql has no view message_events; add `create or replace view mess"):
        views.read(db, own(tmp_path, OWN.partition("create or replace view message_events")[0]))


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="PULSE_SOURCE is 'curse': did you mean course"):
        definition.load("curse")
    with pytest.raises(
        SourceError, match=r"'x': the presets are app, course, events; or give a folder with a sources.sql"
    ):
        definition.load("x")
    with pytest.raises(SourceError, match=r"no/sources.sql cannot be read .*; PULSE_SOURCE names its folder"):
        definition.load(str(tmp_path / "no"))


def test_a_preset_is_printed_to_begin_with(db: ClickHouse, tmp_path: Path) -> None:
    for name in definition.presets():
        said = CliRunner().invoke(cli, ["source", "preset", name])
        assert said.stdout == (definition.PRESETS / f"{name}.sql").read_text()
        (tmp_path / "sources.sql").write_text(said.stdout)
        assert set(definition.load(str(tmp_path))) == {"feed_events", "message_events"}
    refused = CliRunner().invoke(cli, ["source", "preset", "curse"])
    assert str(refused.exception) == (
        "There is no preset 'curse': did you mean course? The presets are app, course, events."
    )


@pytest.mark.parametrize(
    ("kinds", "narrowest"),
    [
        (["UInt8", "UInt32", "UInt16"], "UInt32"),
        (["Nullable(UInt64)"], "UInt64"),
        (["Int8", "UInt8"], "Int16"),
        (["Int64", "UInt32"], "Int64"),
        (["Int8", "UInt64"], "Int128"),
        (["Int256", "UInt256"], "String"),
        (["LowCardinality(Nullable(String))", "String"], "String"),
        (["UUID", "Nullable(UUID)"], "UUID"),
        (["UUID", "UInt8"], "String"),
        (["FixedString(36)"], "String"),
    ],
)
def test_ids_get_the_narrowest_type_that_holds_them_all(kinds: list[str], narrowest: str) -> None:
    assert contract.id_type(kinds) == narrowest
