"""A real Superset imports the dashboard, answers every chart from the sandbox, and draws it in Chromium."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml

from dashboards.conftest import Published, environment
from pulse import messages, settings
from pulse.dashboards import Api, DashboardsError
from pulse.dashboards import superset as dashboard
from pulse.sandbox.superset import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What each chart shows, said again: the parts of it by the metric's name, from the rows of some days.
METRICS: dict[str, Callable[[pd.DataFrame], float]] = {
    "App DAU": lambda days: days["app_users"].mean(),
    "In both": lambda days: days["both_users"].mean(),
    "Feed DAU": lambda days: days["feed_users"].mean(),
    "Views": lambda days: days["views"].sum(),
    "Likes": lambda days: days["likes"].sum(),
    "CTR": lambda days: days["likes"].sum() / days["views"].sum(),
    "Messenger DAU": lambda days: days["messenger_users"].mean(),
    "Messages sent": lambda days: days["messages_sent"].sum(),
    "Messages received": lambda days: days["messages_received"].sum(),
    "Sent / received": lambda days: days["messages_sent"].sum() / days["messages_received"].sum(),
    "Users sent": lambda days: days["users_sent"].mean(),
    "Users received": lambda days: days["users_received"].mean(),
}
TITLES = {
    "DAU of the app": "App DAU",
    "In both": "In both",
    "DAU of the feed": "Feed DAU",
    "Views": "Views",
    "Likes": "Likes",
    "CTR": "CTR",
    "DAU of the messenger": "Messenger DAU",
    "Messages sent": "Messages sent",
    "Sent / received": "Sent / received",
}
SLICES = {"By os": "os", "By gender": "gender", "By age": "age"}
TABLE, BY_SLICE = "Every slice", "Views by slice, 30 days"


@pytest.fixture(scope="module")
def installed(published: Published, superset: Server) -> tuple[Api, dict[str, int]]:
    """Superset with the dashboard in it, imported twice; and the charts' ids by title."""
    config = settings.load(**environment(published, superset))
    address = dashboard.install(config)
    assert dashboard.install(config) == address == f"{superset.url}/superset/dashboard/pulse/"
    api = dashboard.connect(config)
    return api, {chart["slice_name"]: chart["id"] for chart in api.get("/api/v1/dashboard/pulse/charts")["result"]}


def test_what_is_installed_is_what_is_in_the_project(installed: tuple[Api, dict[str, int]]) -> None:
    api, charts = installed
    found, wanted = dashboard.exported(api, api.get("/api/v1/dashboard/pulse")["result"]["id"]), dashboard.bundled()
    ours = next(name for name in wanted if name.startswith("databases/"))
    assert found[ours].pop("sqlalchemy_uri") != wanted[ours].pop("sqlalchemy_uri")  # each server's own
    assert found == wanted
    # Twice installed, and there once.
    assert [api.get(f"/api/v1/{kind}/")["count"] for kind in ("dashboard", "chart", "dataset", "database")] == [
        1,
        len(charts),
        3,
        1,
    ]
    assert set(charts) == {*TITLES, *(f"{title}, 30 days" for title in TITLES), *SLICES, TABLE, BY_SLICE}


def test_every_metric_is_described(installed: tuple[Api, dict[str, int]]) -> None:
    for path in sorted(dashboard.BUNDLE.rglob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        assert all(metric["description"] for metric in content.get("metrics", [])), path
        if path.parent.name == "charts":
            assert content["description"], path


@pytest.mark.parametrize("title", TITLES)
def test_a_headline_is_the_day_and_the_week_before_it(
    title: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    day = published.day - timedelta(days=100)
    answer = dashboard.ask(api, charts[title], messages.time_range(day))
    assert _series(answer, TITLES[title]) == pytest.approx(_expected(published, TITLES[title], day, 8))
    _is_fast(answer, published)


@pytest.mark.parametrize("title", TITLES)
def test_a_trend_is_thirty_days_by_day_and_by_week(
    title: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    chart, metric, day = charts[f"{title}, 30 days"], TITLES[title], published.day - timedelta(days=3)
    by_day = dashboard.ask(api, chart, messages.time_range(day))
    assert _series(by_day, metric) == pytest.approx(_expected(published, metric, day, 30))
    by_week = dashboard.ask(api, chart, messages.time_range(day), "P1W")
    assert _series(by_week, metric) == pytest.approx(_expected(published, metric, day, 30, weekly=True))
    _is_fast(by_day, published)
    _is_fast(by_week, published)


def test_days_that_several_event_dates_see_count_once(
    installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    """A range of ten event dates: thirty-nine days, most of which ten of them see."""
    api, charts = installed
    first, last = published.day - timedelta(days=12), published.day - timedelta(days=3)
    answer = dashboard.ask(api, charts["Views, 30 days"], f"{first} : {last + timedelta(days=1)}", "P1W")
    assert _series(answer, "Views") == _expected(published, "Views", last, 39, weekly=True)


@pytest.mark.parametrize("title", SLICES)
def test_a_dimension_shows_its_slices_of_the_day(
    title: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    answer = dashboard.ask(api, charts[title], messages.time_range(published.day))
    rows = {row.pop("dimension_value"): row for row in answer["data"]}
    wanted = _slices(published)
    wanted = wanted[wanted["dimension"] == SLICES[title]].set_index("dimension_value")
    assert rows == {
        value: {"Views": row["views"], "Likes": row["likes"], "Messages sent": row["messages_sent"]}
        for value, row in wanted.iterrows()
    }
    _is_fast(answer, published)


def test_the_table_shows_every_slice_of_the_day(installed: tuple[Api, dict[str, int]], published: Published) -> None:
    api, charts = installed
    answer = dashboard.ask(api, charts[TABLE], messages.time_range(published.day))
    rows = {(row.pop("dimension"), row.pop("dimension_value")): row for row in answer["data"]}
    wanted = _slices(published).set_index(["dimension", "dimension_value"])
    assert set(rows) == set(wanted.index)
    for key, row in rows.items():
        assert row == pytest.approx({name: METRICS[name](wanted.loc[[key]]) for name in row}, nan_ok=True)
    _is_fast(answer, published)


def test_the_trend_by_slice_shows_the_ten_largest(installed: tuple[Api, dict[str, int]], published: Published) -> None:
    api, charts = installed
    day = published.day
    window = published.slices.loc[pd.Timestamp(day - timedelta(days=29)) : pd.Timestamp(day)]
    largest = window.groupby(["dimension", "dimension_value"])["views"].sum().nlargest(10).index
    for grain in ("P1D", "P1W"):
        answer = dashboard.ask(api, charts[BY_SLICE], messages.time_range(day), grain)
        found = {
            (_moment(row["period"]), row["dimension"], row["dimension_value"]): row["Views"] for row in answer["data"]
        }
        frame = window.reset_index().set_index(["dimension", "dimension_value"]).loc[largest].reset_index()
        period = frame["event_date"].dt.to_period("W" if grain == "P1W" else "D").dt.start_time
        wanted = frame.groupby([period, "dimension", "dimension_value"])["views"].sum().to_dict()
        assert found == wanted
        _is_fast(answer, published)


def test_the_link_of_the_report_opens_the_day_with_every_chart_drawn(
    browser: "Browser", installed: tuple[Api, dict[str, int]], published: Published, superset: Server,
    config: settings.Settings,
) -> None:  # fmt: skip
    _, charts = installed
    day = published.day - timedelta(days=5)
    page = browser.new_page(viewport={"width": 1400, "height": 3000})
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(f"{superset.url}/login/")
    page.fill("#username", superset.user)
    page.fill("#password", superset.password)
    page.press("#password", "Enter")
    page.wait_for_url("**/welcome/**")
    page.goto(messages.dashboard_link(superset.url, day), wait_until="commit")
    # Each chart is drawn on a canvas or, the table, in cells; one that failed has neither.
    drawn = """count => {
        const holders = [...document.querySelectorAll('.dashboard-component-chart-holder')];
        return holders.length === count && holders.every(each => each.querySelector('canvas, svg.chart, table td'));
    }"""
    page.wait_for_function(drawn, arg=len(charts), timeout=120_000)
    assert page.locator(".dashboard-component-chart-holder [role=alert]").count() == 0
    assert f"{day} ≤ col < {day + timedelta(days=1)}" in page.inner_text("[data-test=filter-bar]")
    shown = published.daily.loc[pd.Timestamp(day)]
    for number in (f"{shown['app_users']:,.0f}", f"{shown['views']:,.0f}", f"{shown['ctr']:.1%}"):
        assert page.get_by_text(number, exact=True).count() >= 1, number
    assert [url for url in asked if not url.startswith((superset.url, "data:", "blob:"))] == []  # nobody else is told
    page.close()
    dashboard.install(config)  # it was looked at, which is not editing


# --- what can go wrong ------------------------------------------------------------------------------------------------


def test_an_edit_by_hand_is_reported_and_kept_until_it_is_to_be_replaced(
    installed: tuple[Api, dict[str, int]], config: settings.Settings
) -> None:
    api, charts = installed
    chart = charts["CTR"]
    api.request("PUT", f"/api/v1/chart/{chart}", json={"description": "What we call CTR."})
    with pytest.raises(
        DashboardsError, match=r"edited by hand since it was installed \(chart 'CTR'\): export"
    ) as refused:
        dashboard.install(config)
    assert len(str(refused.value).splitlines()) == 1
    assert api.get(f"/api/v1/chart/{chart}")["result"]["description"] == "What we call CTR."
    dashboard.install(config, replace=True)
    assert "Likes / views" in api.get(f"/api/v1/chart/{chart}")["result"]["description"]


def test_a_wrong_password_is_one_sentence(config: settings.Settings) -> None:
    _refuses(config, "refuses: check SUPERSET_USER and SUPERSET_PASSWORD", SUPERSET_PASSWORD="wrong-wrong")  # noqa: S106


def test_no_password_is_one_sentence(config: settings.Settings) -> None:
    _refuses(config, "set SUPERSET_USER and SUPERSET_PASSWORD", SUPERSET_PASSWORD="")


def test_a_server_that_is_not_there_is_one_sentence(config: settings.Settings) -> None:
    _refuses(config, "No Superset answers at http://127.0.0.1:9; check SUPERSET_URL", SUPERSET_URL="http://127.0.0.1:9")
    _refuses(config, "set SUPERSET_URL", SUPERSET_URL="")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/version": '{"version_string": "5.0.0"}'}, "is version '5.0.0'; 6.1 or newer is needed"),
        ({"/health": "OK"}, "does not tell its version: 6.1 or newer does"),
        ({}, "is no Superset that this works with; check SUPERSET_URL"),
    ],
)
def test_an_older_superset_is_one_sentence(config: settings.Settings, answers: dict[str, str], said: str) -> None:
    with _answering(answers) as url:
        _refuses(config, said, SUPERSET_URL=url)


def test_a_clickhouse_that_superset_cannot_read_is_one_sentence_and_nothing_is_installed(
    installed: tuple[Api, dict[str, int]], config: settings.Settings, published: Published
) -> None:
    api, _ = installed
    before = api.get("/api/v1/database/")["result"][0]["changed_on"]
    wrong = published.server.reader_url.replace("sandbox-reader", "hush-hush-hush")
    said = _refuses(config, "check CLICKHOUSE_READER_URL", CLICKHOUSE_READER_URL=wrong)
    assert "hush" not in said
    _refuses(config, "run dashboards/reader.sql", CLICKHOUSE_READER_URL=settings.SANDBOX_READER_URL)
    assert api.get("/api/v1/database/")["result"][0]["changed_on"] == before


def test_another_dashboard_at_the_address_is_left_alone(
    installed: tuple[Api, dict[str, int]], config: settings.Settings
) -> None:
    api, _ = installed
    ours = api.get("/api/v1/dashboard/pulse")["result"]["id"]
    api.request("PUT", f"/api/v1/dashboard/{ours}", json={"slug": "ours"})
    api.post("/api/v1/dashboard/", {"dashboard_title": "Heartbeats", "slug": "pulse"})
    other = api.get("/api/v1/dashboard/pulse")["result"]["id"]
    try:
        _refuses(config, "another dashboard with the address 'pulse': give that one another slug")
    finally:
        api.request("DELETE", f"/api/v1/dashboard/{other}")
        api.request("PUT", f"/api/v1/dashboard/{ours}", json={"slug": "pulse"})


def _refuses(config: settings.Settings, said: str, **other: str) -> str:
    """Installing with other settings ends with this sentence; gives the whole of it."""
    given = {field.alias: getattr(config, name) for name, field in settings.Settings.model_fields.items()}
    with pytest.raises(DashboardsError) as refused:
        dashboard.install(settings.Settings(**{**given, **other}))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@contextmanager
def _answering(answers: dict[str, str]) -> Iterator[str]:
    """A server that knows these paths only."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path, "<html>not here</html>")
            self.send_response(200 if self.path in answers else 404)
            self.send_header("Content-Type", "application/json" if body.startswith("{") else "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# --- the same numbers from the rows -----------------------------------------------------------------------------------


def _expected(published: Published, metric: str, day: date, days: int, *, weekly: bool = False) -> dict[Any, float]:
    """A metric over the days up to one, by day or by the Monday of the week."""
    window = published.daily.loc[pd.Timestamp(day - timedelta(days=days - 1)) : pd.Timestamp(day)]
    periods = window.index.to_period("W" if weekly else "D").start_time
    return {period: METRICS[metric](rows) for period, rows in window.groupby(periods)}


def _slices(published: Published) -> pd.DataFrame:
    return published.slices.loc[[pd.Timestamp(published.day)]]


def _series(answer: dict[str, Any], metric: str) -> dict[Any, float]:
    return {_moment(row["period"]): row[metric] for row in answer["data"]}


def _moment(milliseconds: float) -> pd.Timestamp:
    return pd.Timestamp(milliseconds, unit="ms")


def _is_fast(answer: dict[str, Any], published: Published) -> None:
    """The chart's own statement takes ClickHouse no longer than half a second; the best of three, on a busy machine."""
    statement = answer["query"].strip().rstrip(";")
    assert min(published.db.execute(statement).seconds for _ in range(3)) <= 0.5, json.dumps(statement)
