"""The report notebooks say what the tables hold, as checked by hand and with pandas; a notebook sends nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import work
from matplotlib.figure import Figure
from matplotlib.image import imread
from notebooks.looks import assert_worth_keeping
from published import publish
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks.etl import FEED, MESSAGES, STEPS, Etl
from pulse import schema
from pulse.archive import index
from pulse.archive.executed import key_numbers
from pulse.delivery.markup import MAX_CAPTION, length
from pulse.execution import runner, store
from pulse.execution.errors import CheckError, NotebookError
from pulse.metrics import PARTS
from pulse.settings import ROOT, SettingsError

FOLDER = ROOT / "notebooks" / "reports"
DAY = date(2025, 3, 12)  # a Wednesday
WEEK = [DAY - timedelta(days=back) for back in range(7, -1, -1)]
COUNTS = ("feed_users", "messenger_users", "app_users", "both_users", "views", "likes", "messages_sent")

PERCENT, POINTS, PLAIN = "%", "pp", ""
REPORTED = [  # the column, the unit of its change, its name in the report
    ("app_users", PERCENT, "DAU"),
    ("both_users", PERCENT, "feed &amp; messenger"),
    ("feed_users", PERCENT, "DAU"),
    ("views", PERCENT, "views"),
    ("likes", PERCENT, "likes"),
    ("ctr", POINTS, "CTR"),
    ("messenger_users", PERCENT, "DAU"),
    ("messages_sent", PERCENT, "messages sent"),
    ("sent_per_received", PLAIN, "sent / received"),
]


@dataclass(frozen=True)
class Line:
    """The parsed line of a report."""

    number: float | None
    changes: list[float | None]
    name: str
    unusual: bool = False


@dataclass(frozen=True)
class Report:
    """The text of a report, and the other values that the notebook handed on or has in its variables."""

    text: str
    names: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[Line]:
        """The lines with numbers."""
        return [_line(line) for line in self.text.splitlines() if "<code>" in line]

    def line(self, name: str) -> Line:
        """Return the line with this name."""
        return next(line for line in self.lines if line.name == name)


def rows(app: Etl, days: list[date] = WEEK) -> pd.DataFrame:
    """Publish a row for each of these days and return the rows; no two numbers are equal."""
    schema.ensure(app.db, app.reads)
    found = []
    for place, day in enumerate(days):
        row: dict[str, Any] = {
            name: 1_000 * (place + 3) + 137 * each * each for each, name in enumerate(COUNTS, start=1)
        }
        row["views"] *= 7
        received = row["messages_sent"] - 211 * (place + 1)
        row |= {"ctr": row["likes"] / row["views"], "sent_per_received": row["messages_sent"] / received}
        found.append({"event_date": day, **row, "messages_received": received})
    publish(app.db, daily_metrics=found)
    return pd.DataFrame(found).set_index("event_date")


def by_hand(app: Etl, notebook: str, **parameters: Any) -> Report:
    """Run a notebook as an analyst does, and return what it shows."""
    names = app.by_hand(f"reports/{notebook}", **parameters)
    return Report(names["text"], names)


def by_papermill(
    app: Etl, path: Path, notebook: str, environment: Mapping[str, str] | None = None, **given: Any
) -> Report:
    """Run a notebook as Airflow does, and return what the archived notebook hands on."""
    where = {**app.environment, **(environment or {})}
    runner.run(FOLDER / f"{notebook}.ipynb", str(path), given, environment=where)
    assert_worth_keeping(path)
    handed = store.scraps(str(path))
    return Report(handed["text"], handed)


# --- the daily report -------------------------------------------------------------------------------------------------


def test_the_numbers_and_changes_are_those_of_pandas(etl: Etl, tmp_path: Path) -> None:
    published = rows(etl)
    report = by_papermill(etl, tmp_path / "report.ipynb", "daily_report", event_date=str(DAY))
    assert report.text.startswith("<b>Wednesday 12 March 2025</b>\nvs Wed 5 · Tue 11\n")
    assert "No data" not in report.text
    assert "href" not in report.text
    assert length(report.text) <= MAX_CAPTION

    now = published.loc[DAY]
    for line, (column, told, name) in zip(report.lines, REPORTED, strict=True):
        assert line.name == name
        assert line.number == round(now[column] * (100 if column == "ctr" else 1), 1 if column == "ctr" else 2)
        for shown, back in zip(line.changes, (7, 1), strict=True):
            before = published.loc[DAY - timedelta(days=back), column]
            expected = {PERCENT: 100 * (now[column] / before - 1), POINTS: 100 * (now[column] - before)}.get(
                told, now[column] - before
            )
            assert shown == pytest.approx(expected, abs=0.0501 if told else 0.00501)

    assert dict(report.names["numbers"]).keys() == {
        "DAU", "feed & messenger", "DAU (feed)", "views", "likes", "CTR", "DAU (messenger)", "messages sent",
        "sent / received",
    }  # fmt: skip
    assert dict(report.names["numbers"])["views"] == f"{now['views']:,.0f}"
    # The archive's tiles show the numbers that readers get, and not the units that the notebook also hands on.
    assert key_numbers(report.names) == dict(report.names["numbers"])
    chart = imread(BytesIO(report.names["chart"]))
    assert chart.shape[1] == 1080
    assert chart.shape[0] / chart.shape[1] < 1.3


@pytest.mark.prove  # test_airflow.py clicks through the same links
def test_the_archive_leads_from_the_report_to_the_load_that_published_its_numbers(etl: Etl, tmp_path: Path) -> None:
    """The real notebooks record it. Of three loads of the day, the second is published when the report is made."""
    etl.feed((1, "view", "11:00", "iOS", "male", 25))
    etl.messages((1, 2, "12:00"))

    def load(run: str) -> str:
        etl.run(steps=STEPS[:-1], run=run)
        path = f"etl/{DAY}/{run}/load.1.ipynb"
        given = {"event_date": str(DAY), "run": run}
        runner.run(ROOT / "notebooks/etl/load.ipynb", str(tmp_path / path), given, **kept, about={"run_id": run})
        return path

    kept: dict[str, Any] = {"root": str(tmp_path), "environment": etl.environment}
    replaced, published = load("a"), load("b")
    report = f"daily_report/{DAY}/c/daily_report.1.ipynb"
    given = {"event_date": str(DAY)}
    runner.run(FOLDER / "daily_report.ipynb", str(tmp_path / report), given, **kept)
    later = load("d")
    with index.opened(tmp_path) as opened:
        found = {path: opened.attempt(path) for path in (replaced, published, report, later)}
        assert [each.path for each in opened.made_of(found[report])] == [published]  # type: ignore[arg-type]
        used = {path: [each.path for each in opened.used_by(found[path])] for path in (replaced, published, later)}  # type: ignore[arg-type]
    assert used == {replaced: [], published: [report], later: []}


def test_what_such_days_usually_do_comes_from_the_same_weekday_of_a_quarter(etl: Etl) -> None:
    # On thirteen Wednesdays views go up and down by a tenth. This one has three times the likes, and views as usual.
    wednesdays = [DAY - timedelta(weeks=back) for back in range(13, -1, -1)]
    rows(etl, [*wednesdays[:-1], *WEEK[1:]])
    odd = ", ".join(f"'{day}'" for day in wednesdays[1::2])
    changes = f"views = 100000 + 10000 * (event_date in ({odd})), likes = if(event_date = '{DAY}', 60000, 20000)"
    table = f"{etl.db.database}.daily_metrics_loads"
    etl.db.execute(f"alter table {table} update {changes} where 1 settings mutations_sync = 1")
    lines = {line.name: line for line in by_hand(etl, "daily_report", event_date=str(DAY)).lines}
    assert lines["likes"].unusual
    assert lines["likes"].changes == [200.0, 200.0]
    assert not lines["views"].unusual


def test_it_is_in_russian_with_a_link_where_the_settings_say_so(etl: Etl, tmp_path: Path) -> None:
    rows(etl)
    russian = {"PULSE_LANGUAGE": "ru", "SUPERSET_URL": "https://bi.example.com"}
    report = by_papermill(etl, tmp_path / "report.ipynb", "daily_report", russian, event_date=str(DAY))
    assert report.text.startswith("<b>Среда, 12 марта 2025</b>\nк ср 5 · вт 11\n")
    assert all(part.ru in report.text for part in PARTS.values())
    assert '<a href="https://bi.example.com/superset/dashboard/pulse/?native_filters=' in report.text
    assert report.text.endswith(">Дашборд за 12 марта</a>")
    assert not re.search(r"\d,\d{3}|[A-Za-z]{4,}", re.sub(r"<[^>]*>", "", report.text))
    assert "DAU (лента)" in dict(report.names["numbers"])


def test_the_language_may_be_another_than_the_settings(etl: Etl) -> None:
    rows(etl)
    assert by_hand(etl, "daily_report", event_date=str(DAY), language="ru").text.startswith("<b>Среда")
    with pytest.raises(SettingsError, match="language is 'de'; give en or ru, or nothing for the setting"):
        by_hand(etl, "daily_report", event_date=str(DAY), language="de")


def test_the_chart_shows_the_seven_days(etl: Etl) -> None:
    published = rows(etl)
    chart = by_hand(etl, "daily_report", event_date=str(DAY)).names["chart"]
    assert isinstance(chart, Figure)
    panels = [axis for axis in chart.axes if axis.get_title(loc="left")]
    for axis, (column, _, _) in zip(panels, REPORTED, strict=True):
        assert list(axis.get_lines()[0].get_ydata()) == pytest.approx(published.loc[WEEK[1:], column].tolist())


def test_the_most_a_server_can_count_fits_the_caption_exactly(etl: Etl) -> None:
    most = 2**64 - 1
    schema.ensure(etl.db, etl.reads)
    row = {**dict.fromkeys(COUNTS, most), "messages_received": most, "ctr": 1.0, "sent_per_received": 1.0}
    publish(etl.db, daily_metrics=[{"event_date": DAY, **row}, {"event_date": WEEK[0], **dict.fromkeys(row, 1)}])
    text = by_hand(etl, "daily_report", event_date=str(DAY)).text
    assert text.count("18,446,744,073,709,551,615") == len(COUNTS)
    assert length(text) <= MAX_CAPTION - 150


def test_a_day_without_views_and_without_a_yesterday(etl: Etl) -> None:
    rows(etl, [day for day in WEEK[:-1] if day != DAY - timedelta(days=1)])
    quiet = {**dict.fromkeys(COUNTS, 5), "views": 0, "likes": 0, "ctr": None, "sent_per_received": None}
    publish(etl.db, daily_metrics=[{"event_date": DAY, **quiet, "messages_received": 0}])
    report = by_hand(etl, "daily_report", event_date=str(DAY))
    found = {line.name: (line.number, line.changes) for line in report.lines}
    assert found["views"] == (0, [-100.0])
    assert found["CTR"] == found["sent / received"] == (None, [None])
    assert "\nvs Wed 5\n" in report.text
    assert report.text.endswith("\n\nNo data for 1 day: Tue 11.")
    assert "nan" not in report.text.lower()


def test_a_day_that_is_not_published_is_a_sentence(etl: Etl, tmp_path: Path) -> None:
    rows(etl, WEEK[:-1])
    with pytest.raises(NotebookError) as found:
        by_papermill(etl, tmp_path / "report.ipynb", "daily_report", event_date=str(DAY))
    assert "2025-03-12 is not published: daily_metrics has no row for it; wait for the ETL" in str(found.value)
    assert "(The event date and the week before it)" in str(found.value)
    with pytest.raises(CheckError, match="is not published"):
        by_hand(etl, "daily_report", event_date="2024-01-01")


def test_a_database_without_any_table_is_the_same_sentence(etl: Etl) -> None:
    with pytest.raises(CheckError, match="2025-03-12 is not published"):
        by_hand(etl, "daily_report", event_date=str(DAY))


def test_a_wrong_date_is_a_sentence(etl: Etl) -> None:
    with pytest.raises(SettingsError, match=r"'12\.03\.2025' is not a date"):
        by_hand(etl, "daily_report", event_date="12.03.2025")


def test_the_report_takes_eight_seconds_of_work_at_most(etl: Etl, tmp_path: Path) -> None:
    """This does not include the work of ClickHouse, which is another process."""
    rows(etl)
    before = work.done()
    by_papermill(etl, tmp_path / "report.ipynb", "daily_report", event_date=str(DAY))
    assert 1 < work.done() - before <= 8


# --- live metrics -----------------------------------------------------------------------------------------------------


def so_far(app: Etl, moments: Mapping[str, str]) -> pd.DataFrame:
    """Compute the live metrics from the raw rows with pandas: each day from midnight up to the moment given for it."""
    feed, sent = (
        app.source.read(f"select {', '.join(columns)} from {table}")  # noqa: S608
        for table, columns in (("feed_actions", FEED), ("message_actions", MESSAGES))
    )
    found = {}
    for day, end in moments.items():
        start, until = pd.Timestamp(day, tz=app.zone), pd.Timestamp(end)
        seen, wrote = (frame[(frame["time"] >= start) & (frame["time"] < until)] for frame in (feed, sent))
        actions = seen["action"].value_counts()
        views, likes = actions.get("view", 0), actions.get("like", 0)
        found[day] = [seen["user_id"].nunique(), views, likes, 100 * likes / views if views else None]
        found[day] += [wrote["user_id"].nunique(), len(wrote)]
    return pd.DataFrame(found, index=["users", "views", "likes", "ctr", "senders", "messages"]).T


def today_and_before(app: Etl) -> None:
    """Write a few events on the day, the day before and a week before, around 15:00 in Moscow."""
    for day, users in (("2025-03-12", 6), ("2025-03-11", 4), ("2025-03-05", 5)):
        app.feed(*[(user, "view", f"{day} {9 + user:02}:00") for user in range(1, users + 1)])
        app.feed(*[(user, "like", f"{day} {9 + user:02}:30") for user in range(2, users + 1)])
        app.feed((90, "view", f"{day} 14:59:59"), (91, "view", f"{day} 15:00:00"), (92, "like", f"{day} 00:00:00"))
        app.messages(*[(user, 1, f"{day} 1{user}:10") for user in range(2, users + 1)], (2, 3, f"{day} 23:00"))


def test_live_metrics_are_those_of_pandas(etl: Etl, tmp_path: Path) -> None:
    today_and_before(etl)
    report = by_papermill(etl, tmp_path / "live.ipynb", "live_metrics", as_of="2025-03-12T15:00")
    assert report.text.startswith("<b>Wednesday 12 March, by 15:00</b>\nvs Wed 5 · Tue 11\n🟧 <b>Feed</b>\n")
    assert report.text.endswith("<i>Provisional: the day is not over.</i>")

    days = ("2025-03-12", "2025-03-05", "2025-03-11")
    expected = so_far(etl, {day: f"{day}T15:00+03:00" for day in days})
    now = expected.loc[days[0]]
    assert (now["users"], now["views"]) == (7, 6)  # users 6 and 91 came at 15:00 sharp, which does not count any more
    for line, name in zip(report.lines, expected.columns, strict=True):
        assert line.number == pytest.approx(now[name], abs=0.05)
        for shown, day in zip(line.changes, days[1:], strict=True):
            before = expected.loc[day, name]
            change = now[name] - before if name == "ctr" else 100 * (now[name] / before - 1)
            assert shown == pytest.approx(change, abs=0.0501)
    assert report.names["so_far"]["active users"] == key_numbers(report.names)["active users"] == "7"
    assert "numbers" not in report.names  # they change every hour, which is not a correction


def test_live_metrics_in_russian(etl: Etl) -> None:
    today_and_before(etl)
    text = by_hand(etl, "live_metrics", as_of="2025-03-12T15:00", language="ru").text
    assert text.startswith("<b>Среда, 12 марта, на 15:00</b>\nк ср 5 · вт 11\n🟧 <b>Лента</b>\n")
    assert not re.search(r"[A-Za-z]{4,}", re.sub(r"<[^>]*>", "", text))


def test_a_moment_may_have_an_offset(etl: Etl) -> None:
    today_and_before(etl)
    local = by_hand(etl, "live_metrics", as_of="2025-03-12T15:00")
    assert by_hand(etl, "live_metrics", as_of="2025-03-12T12:00:07.5+00:00").text == local.text


def test_sources_without_a_row_today_are_said(etl: Etl) -> None:
    today_and_before(etl)
    report = by_hand(etl, "live_metrics", as_of="2025-03-12T00:30")
    assert "\n\nNo events yet today: Messenger.\n" in report.text
    found = {line.name: (line.number, line.changes) for line in report.lines}
    assert found["messages sent"] == (0, [None, None])
    assert found["CTR"] == (None, [None, None])
    assert "nan" not in report.text.lower()


def test_a_source_that_stopped_is_compared_up_to_its_last_action(etl: Etl) -> None:
    """The feed stops at 15:30 today, but not on the days before. The messenger does not stop."""
    minutes = pd.date_range("2025-03-12 12:00", "2025-03-12 17:59", freq="5min")
    for days_ago, users in ((0, 3), (1, 2), (7, 4)):
        times = [time - pd.Timedelta(days=days_ago) for time in minutes]
        feed = [time for time in times if days_ago or time <= minutes[42]]  # 15:30
        etl.feed(*[(user, "view", str(time)) for user in range(users) for time in feed])
        etl.messages(*[(1, 2, str(time)) for time in times])
    report = by_hand(etl, "live_metrics", as_of="2025-03-12T18:00")
    assert "\n\nFeed: data up to 15:30, and compared up to then.\n" in report.text
    assert "Messenger: data" not in report.text
    views = report.line("views")
    assert (views.number, views.changes) == (3 * 43, pytest.approx([-25.0, 50.0]))
    sent = next(line for line in report.lines if line.name.startswith("messages"))
    assert (sent.number, sent.changes) == (72, [0.0, 0.0])
    assert "Лента: данные есть до 15:30" in by_hand(etl, "live_metrics", as_of="2025-03-12T18:00", language="ru").text


def test_a_source_without_a_row_today_is_no_fall_of_a_hundred_percent(etl: Etl) -> None:
    times = [f"2025-03-11 {10 + n // 6:02}:{n % 6}0" for n in range(30)]
    etl.feed(*[(1, "view", time) for time in times])
    etl.messages((1, 2, "2025-03-12 10:00"), (1, 2, "2025-03-11 10:00"))
    report = by_hand(etl, "live_metrics", as_of="2025-03-12T18:00")
    assert "No events yet today: Feed.\n" in report.text
    assert report.line("views").changes == [None]


def test_a_small_app_that_was_silent_for_a_while_is_compared_up_to_the_moment(etl: Etl) -> None:
    etl.feed((1, "view", "2025-03-12 10:00"), (1, "view", "2025-03-11 10:00"), (1, "view", "2025-03-11 17:00"))
    report = by_hand(etl, "live_metrics", as_of="2025-03-12T18:00")
    assert "data up to" not in report.text
    assert report.line("views").changes == [-50.0]


def test_days_without_anything_are_not_compared_with(etl: Etl) -> None:
    etl.feed((1, "view", "2025-03-12 10:00"))
    report = by_hand(etl, "live_metrics", as_of="2025-03-12T15:00")
    assert "vs" not in report.text
    assert [line.changes for line in report.lines] == [[]] * 6


@pytest.mark.parametrize(
    ("moment", "spans"),
    [
        # Berlin's clocks go from 02:00 to 03:00 on 30 March 2025, and from 03:00 back to 02:00 on 26 October.
        ("2025-03-30T12:00", {"2025-03-30": 11, "2025-03-23": 12, "2025-03-29": 12}),
        ("2025-03-31T12:00", {"2025-03-31": 12, "2025-03-24": 12, "2025-03-30": 11}),
        ("2025-10-26T12:00", {"2025-10-26": 13, "2025-10-19": 12, "2025-10-25": 12}),
        ("2025-11-02T12:00", {"2025-11-02": 12, "2025-10-26": 13, "2025-11-01": 12}),
        ("2025-03-31T02:30", {"2025-03-31": 3, "2025-03-24": 3, "2025-03-30": 2}),  # on the 30th up to the change
        ("2025-10-26T02:30+02:00", {"2025-10-26": 3, "2025-10-19": 3, "2025-10-25": 3}),
        ("2025-10-26T02:30+01:00", {"2025-10-26": 4, "2025-10-19": 3, "2025-10-25": 3}),
        ("2025-10-27T02:30", {"2025-10-27": 3, "2025-10-20": 3, "2025-10-26": 3}),  # on the 26th up to the first 02:30
    ],
)
def test_the_same_time_is_the_walls_where_clocks_change(
    clickhouse_server: Server, moment: str, spans: dict[str, int]
) -> None:
    with Etl.fresh(clickhouse_server, date.fromisoformat(moment[:10]), "Europe/Berlin") as app:
        for day in spans:
            midnight = datetime.fromisoformat(day).replace(tzinfo=app.zone).astimezone(UTC)
            hours = [midnight + timedelta(hours=hour) for hour in range(23)]
            app.feed(*[(place, "view", hour.isoformat()) for place, hour in enumerate(hours)])
        report = by_hand(app, "live_metrics", as_of=moment)
        assert list(report.names["feed"]["views"]) == list(spans.values())


def test_now_is_the_default_and_what_is_no_moment_is_a_sentence(etl: Etl) -> None:
    assert f"by {datetime.now(etl.zone):%H}:" in by_hand(etl, "live_metrics").text
    with pytest.raises(SettingsError, match="'noon' is not a moment; give one such as "):
        by_hand(etl, "live_metrics", as_of="noon")
    with pytest.raises(SettingsError, match="2999-01-01T00:00 is in the future in Europe/Moscow"):
        by_hand(etl, "live_metrics", as_of="2999-01-01T00:00")


# --- reading ----------------------------------------------------------------------------------------------------------


def _line(line: str) -> Line:
    """Parse a line such as `DAU <code>1,100</code> –20.0% · – unusual`."""
    found = re.fullmatch(r"(.+) <code>(.+)</code>((?: (?:· )?[−+\d.,%p–]+)*)( unusual)?", line)
    assert found, line
    changes = [_value(text) for text in found[3].strip().split(" · ") if text]
    return Line(_value(found[2]), changes, found[1], bool(found[4]))


def _value(text: str) -> float | None:
    bare = re.sub(r"[%p, ]", "", text).replace("−", "-")
    return None if bare == "–" else float(bare)
