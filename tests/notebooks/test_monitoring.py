"""The monitoring notebook: its buckets equal what pandas counts, and its incidents do not depend on when it runs."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
import requests
from notebooks.looks import assert_worth_keeping
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App

from notebooks.etl import GENDER, NAMED_GENDER, Etl, Sources
from pulse import PulseError
from pulse.clickhouse import ClickHouse
from pulse.execution import runner, store
from pulse.execution.errors import CheckError
from pulse.metrics import BUCKET
from pulse.monitoring.incidents import Anomaly, Incident
from pulse.monitoring.rows import incident_rows
from pulse.monitoring.series import Series
from pulse.settings import ROOT

ANOMALIES = "monitoring/anomalies"
SECONDS = BUCKET // timedelta(seconds=1)
LONG_AGO = 10**9  # minutes; with this, messages about these old days are sent
COUNTS = ["app_users", "feed_users", "views", "likes", "messenger_users", "messages_sent"]


# --- the buckets ------------------------------------------------------------------------------------------------------


FEED = [  # user, action, time, os, gender, age
    (1, "view", "12:00:00", "iOS", "male", 17),
    (1, "like", "12:14:59", "iOS", "male", 17),
    (1, "view", "12:05", "Android", "male", 17),  # two phones in one bucket
    (2, "view", "12:15:00", "Android", "female", 25),  # the first moment of the next bucket
    (3, "view", "12:03"),  # nothing is known about this user
    (4, "like", "12:03", "", "", 0),
    (5, "open", "12:04", "iOS", "female", 200),  # neither a view nor a like
]
MESSAGES = [  # sender, receiver, time, os, gender, age
    (1, 9, "12:01", "iOS", "male", 17),
    (1, 9, "12:02", "iOS", "male", 17),
    (6, 6, "12:30", "Android", None, 54),
]


def _age_group(age: Any) -> str:
    if pd.isna(age) or not age:
        return "unknown"
    groups = [(17, "0–17"), (24, "18–24"), (34, "25–34"), (44, "35–44"), (54, "45–54")]
    return next((name for most, name in groups if age <= most), "55+")


def in_pandas(feed: list[tuple[Any, ...]], messages: list[tuple[Any, ...]], app: Etl) -> pd.DataFrame:
    """Return what `metric_buckets` should hold, counted with pandas from the rows."""
    names = ["user", "what", "time", "os", "gender", "age"]
    rows = pd.DataFrame([dict(zip(names, row, strict=False)) for row in feed], columns=names)
    sent = pd.DataFrame([dict(zip(names, row, strict=False)) for row in messages], columns=names).assign(what="message")
    rows = pd.concat([rows, sent], ignore_index=True)
    rows["bucket"] = [pd.Timestamp(app.moment(time)).floor(BUCKET) for time in rows["time"]]
    rows["age_group"] = [_age_group(age) for age in rows["age"]]
    for name in ("os", "gender"):
        rows[name] = [name_ if isinstance(name_, str) and name_ else "unknown" for name_ in rows[name]]
    rows["total"] = "all"
    found = []
    for dimension in ("total", "os", "gender", "age_group"):
        for (bucket, value), group in rows.groupby(["bucket", dimension]):
            fed, sent = group[group["what"] != "message"], group[group["what"] == "message"]
            counts = [
                group["user"].nunique(), fed["user"].nunique(), (fed["what"] == "view").sum(),
                (fed["what"] == "like").sum(), sent["user"].nunique(), len(sent),
            ]  # fmt: skip
            found.append([bucket, dimension, value, *counts])
    return pd.DataFrame(found, columns=["bucket", "dimension", "dimension_value", *COUNTS])


def stored(app: Etl) -> pd.DataFrame:
    """Return what `metric_buckets` holds, without rows of zeros."""
    frame: pd.DataFrame = app.db.read("select * except (actions, refreshed_at) from metric_buckets final")
    return frame[frame[COUNTS].sum(axis=1) > 0]


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    order = ["bucket", "dimension", "dimension_value"]
    left, right = (frame.sort_values(order, ignore_index=True) for frame in (found, expected))
    pd.testing.assert_frame_equal(left, right, check_dtype=False, check_index_type=False)


def tick(app: Etl, as_of: str = "13:00", **parameters: Any) -> dict[str, Any]:
    """Run the notebook and return its variables."""
    # An app with one day of events does not need weeks of history.
    given = {"useful_minutes": LONG_AGO, "history_days": 22 if isinstance(app, Watcher) else 3, **parameters}
    variables: dict[str, Any] = app.by_hand(ANOMALIES, as_of=app.moment(as_of).isoformat(), **given)
    return variables


def test_the_buckets_hold_what_pandas_counts(etl: Etl) -> None:
    etl.feed(
        *FEED, (1, "view", "13:00:00", "iOS"), (1, "view", "2025-03-20 13:00", "iOS")
    )  # in buckets that have not ended
    etl.messages(*MESSAGES)
    tick(etl)
    assert_same(stored(etl), in_pandas(FEED, MESSAGES, etl))
    tick(etl)
    tick(etl, late_hours=12.0)
    assert_same(stored(etl), in_pandas(FEED, MESSAGES, etl))


def test_a_run_counts_only_buckets_that_are_new_or_changed(etl: Etl) -> None:
    """The test looks at the rows written. A run costs no more if much was counted before."""
    etl.feed(
        *[
            (user, "view", f"{hour:02}:{minute:02}", "iOS")
            for user in range(50)
            for hour in range(13)
            for minute in (1, 20)
        ]
    )
    tick(etl)
    with_count = "select countIf(refreshed_at > {since:DateTime64(6)}) from metric_buckets"
    before = etl.db.value("select toString(max(refreshed_at)) from metric_buckets")
    again = tick(etl)
    assert etl.db.value(with_count, since=before) == 0
    assert again["count_from"] == again["end"]
    etl.feed((1, "view", "13:01", "iOS"))
    assert tick(etl, "13:15")["count_from"] == pd.Timestamp(etl.moment("13:00"))
    etl.feed((1, "view", "11:50", "iOS"))
    assert tick(etl, "13:15")["count_from"] == pd.Timestamp(etl.moment("11:45"))
    assert tick(etl, "13:15", fill_days=1)["count_from"] == pd.Timestamp(etl.moment("2025-03-11 13:15"))


def test_late_rows_are_counted_and_deleted_ones_removed_within_the_window(etl: Etl) -> None:
    etl.feed(*FEED)
    etl.messages(*MESSAGES)
    tick(etl)
    late = [(7, "view", "12:20", "iOS", "male", 30), (8, "view", "06:01", "iOS", "male", 30)]
    etl.feed(*late)
    tick(etl, late_hours=2.0)  # 06:01 is longer ago
    assert_same(stored(etl), in_pandas([*FEED, late[0]], MESSAGES, etl))
    tick(etl, late_hours=10.0)
    assert_same(stored(etl), in_pandas([*FEED, *late], MESSAGES, etl))
    etl.source.execute(f"alter table {etl.source.database}.feed_actions delete where user_id = 7 {AT_ONCE}")
    tick(etl, late_hours=2.0)
    assert_same(stored(etl), in_pandas([*FEED, late[1]], MESSAGES, etl))


def test_both_passes_of_a_repeated_hour_have_buckets(clickhouse_server: Server) -> None:
    with Etl.fresh(clickhouse_server, date(2025, 10, 26), "Europe/Berlin") as app:
        rows = [(1, "view", "2025-10-26T02:20+02:00", "iOS"), (2, "view", "2025-10-26T02:20+01:00", "iOS")]
        app.feed(*rows)
        tick(app, "04:00")
        assert_same(stored(app), in_pandas(rows, [], app))
        assert stored(app)["bucket"].nunique() == 2


@pytest.mark.parametrize(
    ("timezone", "change"),
    [
        pytest.param("Europe/Berlin", "2025-03-30T01:00Z", marks=pytest.mark.prove),
        ("Europe/Berlin", "2025-10-26T01:00Z"),
        pytest.param("America/New_York", "2025-03-09T07:00Z", marks=pytest.mark.prove),
        pytest.param("America/New_York", "2025-11-02T06:00Z", marks=pytest.mark.prove),
        pytest.param("America/Havana", "2025-11-02T05:00Z", marks=pytest.mark.prove),  # back to midnight
        ("Australia/Lord_Howe", "2025-04-05T15:00Z"),  # back by half an hour
        pytest.param("Australia/Lord_Howe", "2025-10-04T15:30Z", marks=pytest.mark.prove),
        pytest.param("Antarctica/Troll", "2025-10-26T01:00Z", marks=pytest.mark.prove),  # back by two hours
    ],
)
def test_every_bucket_is_watched_once_across_a_clock_change(
    clickhouse_server: Server, timezone: str, change: str
) -> None:
    changed = datetime.fromisoformat(change)
    with Etl.fresh(clickhouse_server, changed.astimezone(ZoneInfo(timezone)).date(), timezone) as app:
        minutes = range(-150, 150, 7)
        moments = [changed + timedelta(minutes=minute) for minute in minutes]
        app.feed(*((user, "view", moment.isoformat(), "iOS") for user, moment in enumerate(moments)))
        for minute in (-50, -5, 25, 70, 130):
            now = changed + timedelta(minutes=minute)
            run = tick(app, now.isoformat())
            assert run["end"].timestamp() == now.timestamp() // SECONDS * SECONDS
        counted = app.db.read(
            "select toUnixTimestamp(bucket) as bucket, views from metric_buckets final where dimension = 'os'"
        )
        assert dict(counted.itertuples(index=False)) == Counter(
            int(moment.timestamp()) // SECONDS * SECONDS
            for moment in moments
            if moment.timestamp() < run["end"].timestamp()
        )
        judged = app.db.read("select distinct toUnixTimestamp(bucket) as bucket from verdicts order by bucket")[
            "bucket"
        ]
        assert judged.diff().dropna().unique().tolist() == [SECONDS]
        assert judged.iloc[-1] == run["end"].timestamp() - SECONDS


def test_coded_gender_is_stored_by_name(etl: Etl, sources: Sources) -> None:
    etl.feed((1, "view", "12:00", "iOS", "0", 30), (2, "view", "12:00", "iOS", "1", 30))
    sources(GENDER, NAMED_GENDER)
    tick(etl)
    frame = stored(etl)
    assert set(frame[frame["dimension"] == "gender"]["dimension_value"]) == {"female", "male"}


def test_an_app_without_events_is_an_error(etl: Etl) -> None:
    with pytest.raises(CheckError, match="There is nothing to watch: no action in "):
        tick(etl)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"late_hours": 0.0}, "late_hours is 0.0; give 0.25 to"),
        ({"history_days": 0}, "history_days is 0; give 1 to 400"),
        ({"language": "de"}, "language is 'de'; give en or ru"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_says_what_is_allowed(etl: Etl, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(PulseError, match=said):
        tick(etl, **wrong)


# --- a day with an outage ---------------------------------------------------------------------------------------------

DAY = date(2026, 10, 14)  # a Wednesday
ZONE = ZoneInfo("Europe/Moscow")
OUTAGE = ("13:00", "14:30")  # in the feed on Android, nine of ten actions are lost
SPAN = "where time >= {start:DateTime64(6)} and time < {end:DateTime64(6)}"
AT_ONCE = "settings mutations_sync = 1"


@pytest.fixture(scope="module")
def watched(clickhouse_server: Server) -> Iterator[str]:
    """The database of an app with 23 days of events and an outage on the last day."""
    name = "watched_app"
    fill(clickhouse_server, App(ZONE, name, events_per_day=200_000), until=DAY + timedelta(days=1), days=23)
    source = ClickHouse(clickhouse_server.url, name, ZONE)
    lost = f"{SPAN} and os = 'Android' and cityHash64(user_id, post_id, time) % 10 < 9 {AT_ONCE}"
    source.execute(f"alter table {name}.feed_actions delete {lost}", start=_at(OUTAGE[0]), end=_at(OUTAGE[1]))
    yield name
    ClickHouse(clickhouse_server.url, "default", ZONE).execute("drop database {name:Identifier}", name=name)


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"{DAY} {clock}").replace(tzinfo=ZONE)


def _take_out(source: ClickHouse, table: str, start: str, end: str) -> None:
    """Move the rows of a span of the day into another table; `_put_back` moves them back."""
    span = {"start": _at(start), "end": _at(end)}
    source.execute(f"create or replace table kept_{table} as {table}")
    source.execute(f"insert into kept_{table} select * from {table} {SPAN}", **span)  # noqa: S608
    source.execute(f"alter table {source.database}.{table} delete {SPAN} {AT_ONCE}", **span)


def _put_back(source: ClickHouse, table: str) -> None:
    names = {"table": table, "kept": f"kept_{table}"}
    source.execute("insert into {table:Identifier} select * from {kept:Identifier}", **names)
    source.execute("drop table {kept:Identifier}", **names)


class Watcher(Etl):
    """A pipeline with a project database of its own that watches the shared app."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "PULSE_SOURCE_DATABASE": "watched_app"}


@pytest.fixture
def watcher(watched: str, clickhouse_server: Server, request: pytest.FixtureRequest) -> Iterator[Watcher]:
    made = Watcher(clickhouse_server, f"watcher_{abs(hash(request.node.name)) % 10**8}", DAY)
    yield made
    ClickHouse(clickhouse_server.url, "default", ZONE).execute(
        "drop database if exists {name:Identifier}", name=made.name
    )


def incidents_of(app: Etl) -> pd.DataFrame:
    frame: pd.DataFrame = app.db.read("select * except (recorded_at) from incidents final order by opened, incident")
    return frame


def test_an_outage_is_found_at_once_and_explained_and_then_over(watcher: Watcher) -> None:
    assert tick(watcher, "13:05", late_hours=1.0)["messages"] == []
    (alert,) = tick(watcher, "13:20", late_hours=1.0)["messages"]
    title, range_, story, *_ = alert["text"].splitlines()
    assert title.startswith("🔴 <b>")
    assert "instead of" in range_
    assert "since 13:00" in story
    assert "Android" in title + story
    assert "iOS normal" in story
    assert alert["chart"]

    (row,) = incidents_of(watcher).to_dict("records")
    assert (row["state"], row["direction"], row["dimension"]) == ("open", "drop", "os")
    assert row["opened"] == pd.Timestamp(_at("13:00"))

    main, reply = tick(watcher, "15:05", late_hours=2.5)["messages"]
    assert main["report"] == alert["report"] == reply["reply_to"]
    assert main["text"].startswith("🟢 <b>Over: ")
    assert "from 13:00 to 14:30" in main["text"]
    (row,) = incidents_of(watcher).to_dict("records")
    assert row["state"] == "resolved"
    assert row["resolved"] == pd.Timestamp(_at("14:30"))


@pytest.mark.prove
def test_overlapping_repeated_and_late_runs_leave_the_same_incidents(watcher: Watcher, watched: str) -> None:
    for clock in ("13:20", "13:50", "15:05"):
        tick(watcher, clock, late_hours=3.0)
    expected = incidents_of(watcher)
    assert len(expected) == 1
    other = Watcher(watcher.server, f"{watcher.name}_too", DAY)
    for clock in ("15:05", "13:35", "15:05"):
        tick(other, clock, late_hours=3.0)
    pd.testing.assert_frame_equal(incidents_of(other), expected)
    ClickHouse(watcher.server.url, "default", ZONE).execute("drop database {name:Identifier}", name=other.name)


@pytest.mark.prove
def test_a_run_reads_no_more_with_a_long_history_or_an_old_open_incident(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test counts the rows that the server reads, from the project's tables and from the app's."""
    read: list[int] = []

    def counting(*args: Any, **kwargs: Any) -> requests.Response:
        answer = post(*args, **kwargs)
        read.append(int(json.loads(answer.headers.get("X-ClickHouse-Summary", "{}")).get("read_rows", 0)))
        return answer

    post = requests.post
    tick(watcher, "12:50")
    monkeypatch.setattr(requests, "post", counting)
    tick(watcher, "13:05")
    young, days = sum(read), 100
    for table, days_ago in (("verdicts", 3), ("metric_buckets", 30)):  # 500 copies of the last days
        copies = f"""
        insert into {table}
        select held.* replace (held.bucket - toIntervalDay({days_ago} + each.number) as bucket)
        from {table} as held final
        cross join numbers(500) as each
        settings max_partitions_per_insert_block = 0
        """  # noqa: S608
        watcher.db.execute(copies)
    opened = _at("13:00") - timedelta(days=days)
    lead = ("views", "total", "all")
    old = Anomaly(Series(*lead), "drop", 1.0, 9.0, 8.0, 10.0, -9.0, -0.9, window=1)
    since = Incident("open", "drop", opened, _at("12:45"), old, (old.series,), (old.series,))
    watcher.db.write(incident_rows([since], {}), "incidents")
    read.clear()
    run = tick(watcher, "13:20")
    assert "open" in set(run["stored"]["incident"])
    held = watcher.db.value("select count() from verdicts") + watcher.db.value("select count() from metric_buckets")
    assert held > 10 * young
    assert sum(read) < 1.2 * young


def test_silence_of_both_sources_is_late_data_and_never_a_drop(watcher: Watcher) -> None:
    """The app's data ends at 17:00 at first; then the rest arrives."""
    source = ClickHouse(watcher.server.url, "watched_app", ZONE)
    tables = ("feed_actions", "message_actions")
    for table in tables:
        _take_out(source, table, "17:00", "23:59")
    try:
        assert tick(watcher, "17:05", late_hours=1.0)["messages"] == []
        (late,) = tick(watcher, "17:35", late_hours=1.0)["messages"]
        assert late["text"].splitlines()[0] == "⚪ <b>Data is late</b>"
        assert late["chart"] == f"chart_{late['report'].split()[1]}" or late["chart"] is None
        (same,) = tick(watcher, "17:50", late_hours=1.0)["messages"]
        assert same["text"] == late["text"]
        assert set(incidents_of(watcher)["direction"]) == {"data_lag"}
    finally:
        for table in tables:
            _put_back(source, table)
    main, reply = tick(watcher, "18:05", late_hours=2.0)["messages"]
    assert (main["report"], reply["reply_to"]) == (late["report"], late["report"])
    assert "there again" in main["text"]
    assert set(incidents_of(watcher)["direction"]) == {"data_lag"}
    assert watcher.db.value("select countIf(kind = 'data_lag' and metric != '') from verdicts final") == 0


def test_silence_of_one_source_is_an_outage(watcher: Watcher) -> None:
    source = ClickHouse(watcher.server.url, "watched_app", ZONE)
    _take_out(source, "message_actions", "20:00", "21:00")
    try:
        (alert,) = tick(watcher, "20:50", late_hours=1.0)["messages"]
        assert re.search(r"−(99|100)\.\d%", alert["text"].splitlines()[0])
        (row,) = incidents_of(watcher).to_dict("records")
        assert (row["direction"], row["value"]) == ("drop", 0)
        assert row["metric"] in ("messages_sent", "messenger_users")
    finally:
        _put_back(source, "message_actions")


def test_a_run_for_an_old_bucket_sends_nothing(watcher: Watcher) -> None:
    found = watcher.by_hand(ANOMALIES, as_of=_at("13:20").isoformat(), late_hours=1.0, history_days=22)
    assert found["messages"] == []
    assert len(incidents_of(watcher)) == 1


def test_the_notebook_runs_in_russian_as_airflow_runs_it(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "anomalies.ipynb"
    given = {"as_of": _at("13:35").isoformat(), "useful_minutes": LONG_AGO, "language": "ru", "late_hours": 1.0}
    runner.run(ROOT / "notebooks" / f"{ANOMALIES}.ipynb", str(path), given, environment=watcher.environment)
    handed = store.scraps(str(path))
    (alert,) = handed["alerts"]
    assert "вместо" in alert["text"]
    assert "iOS в норме" in alert["text"]
    assert handed[alert["chart"]].startswith(b"\x89PNG")
    assert handed["anomalies"] >= 1
    assert_worth_keeping(path)


def test_a_replay_shows_what_would_have_been_alerted_and_writes_nothing(watcher: Watcher) -> None:
    tick(watcher, "15:05", late_hours=1.0)
    before = watcher.db.read("select count(), max(judged_at) from verdicts").to_dict("records")
    given = {"last_day": str(DAY), "days": 1, "history_days": 21, "metric": "likes", "score": 10**6.0}
    (found,) = watcher.by_hand("monitoring/replay", **given)["incidents"]
    assert found.opened == pd.Timestamp(_at("13:00"))
    assert "views" in {series.metric for series in found.series}
    assert "likes" not in {series.metric for series in found.series}
    assert watcher.db.read("select count(), max(judged_at) from verdicts").to_dict("records") == before
