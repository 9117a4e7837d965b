"""A real Superset imports the dashboard, answers every chart from the sandbox, and draws it in Chromium."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml
from published import publish
from pulse_sandbox.superset_server import Server

from dashboards.conftest import COUNTED, Published, environment, unpublish
from pulse import settings
from pulse.dashboards import Api, DashboardsError, Reader
from pulse.dashboards import superset as dashboard
from pulse.dashboards.links import dashboard_link, time_range
from pulse.metrics import shown_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What each chart shows, defined a second time: each metric, by its name, computed from the rows of some days.
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
HEADLINES = {
    "app_users": "App DAU",
    "both_users": "In both",
    "feed_users": "Feed DAU",
    "views": "Views",
    "likes": "Likes",
    "ctr": "CTR",
    "messenger_users": "Messenger DAU",
    "messages_sent": "Messages sent",
    "sent_per_received": "Sent / received",
}
TRENDS = {f"{name}_trend": HEADLINES[name] for name in HEADLINES}
SOME = ("ctr", "both_users", "both_users_trend")  # a ratio, and users, whom a week does not add up
SLICES = {"by_os": "os", "by_gender": "gender", "by_age": "age"}
TABLE, BY_SLICE = "slices", "slices_trend"
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in (dashboard.BUNDLE / "charts").glob("*.yaml")}


@pytest.fixture(scope="module")
def installed(published: Published, superset: Server) -> tuple[Api, dict[str, int]]:
    """Install the dashboard in Superset twice. Returns the API, and the charts' ids by the names of their files."""
    config = settings.load(**environment(published, superset))
    address = dashboard.install(config)
    assert dashboard.install(config) == address == f"{superset.url}/superset/dashboard/pulse/"
    api = dashboard.connect(config)
    shown = dashboard.shown(api)
    return api, {name: shown[content["uuid"]] for name, content in FILES.items()}


def test_every_metric_of_the_report_is_computed_again_here() -> None:
    assert [*HEADLINES] == [metric.column for metric in shown_in("report")]


def test_what_is_installed_is_what_is_in_the_project(
    installed: tuple[Api, dict[str, int]], published: Published, superset: Server
) -> None:
    api, charts = installed
    wanted = dashboard.bundled(Reader(settings.load(**environment(published, superset))))
    found = dashboard.exported(api, api.get("/api/v1/dashboard/pulse")["result"]["id"])
    ours = next(name for name in wanted if name.startswith("databases/"))
    assert found[ours].pop("sqlalchemy_uri") != wanted[ours].pop("sqlalchemy_uri")  # differs between servers
    assert found == wanted
    # Installed twice, it is there once.
    assert [api.get(f"/api/v1/{kind}/")["count"] for kind in ("dashboard", "chart", "dataset", "database")] == [
        1,
        len(wanted) - 5,  # a dashboard, three datasets, a database
        3,
        1,
    ]
    assert len(charts) >= len({*HEADLINES, *TRENDS, *SLICES, TABLE, BY_SLICE}) == 23


def test_days_weeks_or_months_are_chosen_only_for_what_is_drawn_over_time() -> None:
    bundle = dashboard.BUNDLE
    board = yaml.safe_load((bundle / "dashboards" / "Pulse.yaml").read_text())
    placed = [each["meta"] for each in board["position"].values() if isinstance(each, dict) and "meta" in each]
    numbers = {each["chartId"]: each["sliceName"] for each in placed if "chartId" in each}
    (grain,) = [each for each in board["metadata"]["native_filter_configuration"] if each["name"] == "Trends by"]
    assert grain["targets"][0]["column"]["name"] == "grain"
    assert grain["defaultDataMask"]["extraFormData"]["filters"] == [{"col": "grain", "op": "IN", "val": ["day"]}]
    chosen = {name for number, name in numbers.items() if number not in grain["scope"]["excluded"]}
    charts = [yaml.safe_load(path.read_text()) for path in (bundle / "charts").glob("*.yaml")]
    lines = {each["slice_name"] for each in charts if each["viz_type"] == "echarts_timeseries_line"}
    assert chosen == lines
    assert all(name.endswith(" over time") for name in lines)


def test_every_metric_is_described(installed: tuple[Api, dict[str, int]]) -> None:
    for path in sorted(dashboard.BUNDLE.rglob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        assert all(metric["description"] for metric in content.get("metrics", [])), path
        if path.parent.name == "charts":
            assert content["description"], path


@pytest.mark.parametrize(
    "chart", [chart if chart in SOME else pytest.param(chart, marks=pytest.mark.prove) for chart in HEADLINES]
)
def test_a_headline_is_the_day_and_the_week_before_it(
    chart: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    day = published.day - timedelta(days=100)
    answer = dashboard.ask(api, charts[chart], time_range(day))
    assert _series(answer, HEADLINES[chart]) == pytest.approx(_expected(published, HEADLINES[chart], day, 8))
    _reads_little(answer, published)


@pytest.mark.parametrize(
    "chart", [chart if chart in SOME else pytest.param(chart, marks=pytest.mark.prove) for chart in TRENDS]
)
def test_a_trend_is_thirty_days_or_twelve_whole_weeks_or_months(
    chart: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    metric, day = TRENDS[chart], published.day - timedelta(days=3)
    by_day = dashboard.ask(api, charts[chart], time_range(day), "day")
    assert _series(by_day, metric) == pytest.approx(_expected(published, metric, day, 30))
    without = _series(dashboard.ask(api, charts[chart], time_range(day)), metric)
    assert _series(by_day, metric).items() <= without.items()  # a metric never adds a day to the week it is in
    for grain in ("week", "month"):
        answer = dashboard.ask(api, charts[chart], time_range(day), grain)
        assert _series(answer, metric) == pytest.approx(_whole(published, metric, day, grain))
        assert len(answer["data"]) == 12
        _reads_little(answer, published)
    _reads_little(by_day, published)


@pytest.mark.prove
def test_a_week_or_month_that_is_cut_is_left_out(installed: tuple[Api, dict[str, int]], published: Published) -> None:
    """A week is shown only when all of its days are over, and not where one of them is not published."""
    api, charts = installed
    monday = pd.Timestamp(published.day - timedelta(days=60)).to_period("W").start_time.date()
    for behind, there in ((0, False), (5, False), (6, True), (7, True)):
        day = monday + timedelta(days=behind)
        for chart in ("views_trend", BY_SLICE):
            answer = dashboard.ask(api, charts[chart], time_range(day), "week")
            periods = {_moment(row["period"]).date() for row in answer["data"]}
            assert (monday in periods) == there
            assert all(period + timedelta(days=6) <= day for period in periods)
    first = min(published.daily.index).to_pydatetime().date()
    start = pd.Timestamp(first).to_period("W").start_time.date()
    answer = dashboard.ask(api, charts["views_trend"], time_range(first + timedelta(days=30)), "week")
    periods = {_moment(row["period"]).date() for row in answer["data"]}
    assert min(periods) == (start if start == first else start + timedelta(days=7))


@pytest.mark.prove
def test_a_day_that_is_not_published_shows_nothing_rather_than_another_day(
    installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    day = published.day + timedelta(days=1)
    for chart in ("app_users", "app_users_trend", BY_SLICE, "by_os", TABLE):
        assert dashboard.ask(api, charts[chart], time_range(day))["data"] == []


@pytest.mark.prove
def test_days_that_several_event_dates_see_count_once(
    installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    """A range of ten event dates has thirty-nine days, most of which are in the windows of all ten; and their weeks."""
    api, charts = installed
    first, last = published.day - timedelta(days=12), published.day - timedelta(days=3)
    time_range = f"{first} : {last + timedelta(days=1)}"
    answer = dashboard.ask(api, charts["views_trend"], time_range, "day")
    assert _series(answer, "Views") == _expected(published, "Views", last, 39)
    weeks = _series(dashboard.ask(api, charts["views_trend"], time_range, "week"), "Views")
    known = {**_whole(published, "Views", first, "week"), **_whole(published, "Views", last, "week")}
    assert weeks == {period: known[period] for period in weeks}
    assert len(weeks) >= 13


@pytest.mark.parametrize("kind", ["drill_detail", pytest.param("samples", marks=pytest.mark.prove)])
def test_samples_and_drill_to_detail_answer_for_every_chart(
    kind: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    """Explore shows samples below a chart; a chart's menu drills into one day. Charts differ there only in filters."""
    api, charts = installed
    contexts = [json.loads(api.get(f"/api/v1/chart/{chart}")["result"]["query_context"]) for chart in charts.values()]
    for source in {context["datasource"]["id"] for context in contexts}:
        filters = [context["queries"][0]["filters"] for context in contexts if context["datasource"]["id"] == source]
        queries = [{"filters": each} for each in {json.dumps(each): each for each in filters}.values()]
        if kind == "drill_detail":
            event = {"col": "event_date", "op": "TEMPORAL_RANGE", "val": time_range(published.day)}
            queries = [{"filters": [event, *query["filters"][1:]], "row_limit": 50} for query in queries]
        body = {"datasource": {"id": source, "type": "table"}, "queries": queries, "result_type": kind, "force": True}
        answers = api.post("/api/v1/chart/data", body)["result"]
        assert len(answers) == len(queries)
        for answer in answers:
            assert len(answer["data"]) >= 3
            assert {"event_date", "views"} <= set(answer["data"][0])
            if kind == "drill_detail":
                assert {_moment(row["event_date"]).date() for row in answer["data"]} == {published.day}


@pytest.mark.prove
def test_long_values_are_cut_for_charts_and_stay_apart(
    installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    """Two browsers with long names on one day: charts have two short labels, and the table has both full names."""
    api, charts = installed
    day = published.day + timedelta(days=10)
    names = [f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/{number}.36 " + "Safari " * 20 for number in (537, 538)]
    counts = dict.fromkeys(COUNTED, 10**9)
    rows = [{"event_date": day, "dimension": "os", "dimension_value": name, **counts} for name in [*names, "iOS"]]
    publish(published.db, dimension_activity=rows, daily_metrics=[{"event_date": day, "views": 3 * 10**9}])
    try:
        answer = dashboard.ask(api, charts["by_os"], time_range(day))
        labels = {row["slice"]: row["Views"] for row in answer["data"]}
        assert set(labels.values()) == {10**9}
        assert sorted(map(len, labels)) == [3, 19, 19]
        assert sum(label.startswith("Mozilla/5.0 (X…") for label in labels) == 2
        answer = dashboard.ask(api, charts[BY_SLICE], time_range(day))
        assert set(labels) <= {row["slice"] for row in answer["data"]}
        answer = dashboard.ask(api, charts[TABLE], time_range(day))
        assert {row["dimension_value"] for row in answer["data"]} == {*names, "iOS"}
    finally:
        unpublish(published.db, day)


@pytest.mark.parametrize("chart", SLICES)
def test_a_dimension_shows_its_slices_of_the_day(
    chart: str, installed: tuple[Api, dict[str, int]], published: Published
) -> None:
    api, charts = installed
    answer = dashboard.ask(api, charts[chart], time_range(published.day))
    rows = {row.pop("slice"): row for row in answer["data"]}
    wanted = _slices(published)
    wanted = wanted[wanted["dimension"] == SLICES[chart]].set_index("dimension_value")
    assert rows == {
        value: {"Views": row["views"], "Likes": row["likes"], "Messages sent": row["messages_sent"]}
        for value, row in wanted.iterrows()
    }
    _reads_little(answer, published)


def test_the_table_shows_every_slice_of_the_day(installed: tuple[Api, dict[str, int]], published: Published) -> None:
    api, charts = installed
    answer = dashboard.ask(api, charts[TABLE], time_range(published.day))
    rows = {(row.pop("dimension"), row.pop("dimension_value")): row for row in answer["data"]}
    wanted = _slices(published).set_index(["dimension", "dimension_value"])
    assert set(rows) == set(wanted.index)
    for key, row in rows.items():
        assert row == pytest.approx({name: METRICS[name](wanted.loc[[key]]) for name in row}, nan_ok=True)
    _reads_little(answer, published)


@pytest.mark.prove
def test_the_trend_by_slice_shows_the_ten_largest(installed: tuple[Api, dict[str, int]], published: Published) -> None:
    api, charts = installed
    day = published.day
    window = published.slices.loc[pd.Timestamp(day - timedelta(days=29)) : pd.Timestamp(day)]
    largest = window.groupby(["dimension", "dimension_value"])["views"].sum().nlargest(10).index
    for grain in ("day", "week"):
        answer = dashboard.ask(api, charts[BY_SLICE], time_range(day), grain)
        found = {(_moment(row["period"]), row["dimension"], row["slice"]): row["Views"] for row in answer["data"]}
        if grain == "day":
            frame = window.reset_index().set_index(["dimension", "dimension_value"]).loc[largest].reset_index()
            assert found == frame.set_index(["event_date", "dimension", "dimension_value"])["views"].to_dict()
        else:  # twelve whole weeks of their ten largest slices
            monday = pd.Timestamp(day + timedelta(days=1)).to_period("W").start_time
            frame = published.slices.loc[monday - pd.Timedelta(weeks=12) : monday - pd.Timedelta(days=1)].reset_index()
            frame["event_date"] = frame["event_date"].dt.to_period("W").dt.start_time
            sums = frame.groupby(["event_date", "dimension", "dimension_value"])["views"].sum()
            first = sums.groupby(["dimension", "dimension_value"]).sum().nlargest(10).index
            assert found == {key: views for key, views in sums.items() if key[1:] in first}
        _reads_little(answer, published)


@pytest.mark.prove
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
    page.wait_for_url("**/welcome/**", wait_until="commit", timeout=120_000)
    page.goto(dashboard_link(superset.url, day), wait_until="commit")
    # Each chart is drawn on a canvas, or in cells if it is the table; a chart that failed has neither.
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
    assert [url for url in asked if not url.startswith((superset.url, "data:", "blob:"))] == []  # no other server
    page.close()
    dashboard.install(config)  # looking at it was not an edit


@pytest.mark.prove
def test_a_chart_is_added_as_the_readme_says(
    installed: tuple[Api, dict[str, int]], published: Published, superset: Server, config: settings.Settings,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Make it in Superset, put it on the dashboard, export it, and copy two files: nothing else is needed."""
    api, charts = installed
    project = tmp_path / "bundle"
    shutil.copytree(dashboard.BUNDLE, project)
    ours = api.get("/api/v1/dashboard/pulse")["result"]
    made = _make_chart(api, charts["views_trend"], ours["id"])
    _put_on_dashboard(api, ours, made)
    with monkeypatch.context() as patch:
        patch.setattr(dashboard, "BUNDLE", project)
        with pytest.raises(DashboardsError, match=r"\(chart 'Messages received', dashboard 'Pulse'\)"):
            dashboard.install(config)
        content = api.request("GET", "/api/v1/dashboard/export/", params={"q": f"!({ours['id']})"}).content
        with zipfile.ZipFile(io.BytesIO(content)) as exported:
            for name in exported.namelist():
                if "/charts/Messages_received" in name:
                    (project / "charts" / Path(name).name).write_bytes(exported.read(name))
                if "/dashboards/Pulse" in name:
                    (project / "dashboards" / "Pulse.yaml").write_bytes(exported.read(name))
        dashboard.install(config)  # what was edited by hand is in the project now, so nothing is lost
        for _ in range(2):
            test_every_metric_is_described(installed)
            test_what_is_installed_is_what_is_in_the_project(installed, published, superset)
            answer = dashboard.ask(api, made, time_range(published.day), "day")
            assert _series(answer, "Messages received") == _expected(published, "Messages received", published.day, 30)
            api.request("DELETE", f"/api/v1/dashboard/{ours['id']}")  # as on another server, which has none of it
            api.request("DELETE", f"/api/v1/chart/{made}")
            dashboard.install(config)
            ours = api.get("/api/v1/dashboard/pulse")["result"]
            made = next(number for number in dashboard.shown(api).values() if number not in charts.values())
    api.request("DELETE", f"/api/v1/chart/{made}")
    dashboard.install(config, replace=True)


def _make_chart(api: Api, like: int, on: int) -> int:
    """Save a line chart of another metric to the dashboard, with the request that Explore sends. Returns its id."""
    other = api.get(f"/api/v1/chart/{like}")["result"]
    context = json.loads(other["query_context"].replace('"Views"', '"Messages received"'))
    form = {**json.loads(other["params"]), "metrics": ["Messages received"], "slice_id": None, "dashboards": [on]}
    source = context["datasource"]["id"]
    chart = {
        "slice_name": "Messages received",
        "description": "Messages whose recipient was active in the app that day.",
        "viz_type": form["viz_type"],
        "datasource_id": source,
        "datasource_type": "table",
        "params": json.dumps({**form, "datasource": f"{source}__table"}),
        "query_context": json.dumps({**context, "form_data": form}),
        "dashboards": [on],
    }
    return int(api.post("/api/v1/chart/", chart)["id"])


def _put_on_dashboard(api: Api, ours: dict[str, Any], chart: int) -> None:
    """Put a chart into a new row at the end, with the request that the dashboard's editor sends."""
    position = json.loads(ours["position_json"])
    uuid = api.get(f"/api/v1/chart/{chart}")["result"]["uuid"]
    about = {"chartId": chart, "uuid": uuid, "sliceName": "Messages received", "width": 12, "height": 34}
    parents = ["ROOT_ID", "GRID_ID", "ROW-new"]
    row = {"type": "ROW", "id": "ROW-new", "children": ["CHART-new"], "parents": parents[:2]}
    position["ROW-new"] = {**row, "meta": {"background": "BACKGROUND_TRANSPARENT"}}
    position["CHART-new"] = {"type": "CHART", "id": "CHART-new", "children": [], "parents": parents, "meta": about}
    position["GRID_ID"]["children"].append("ROW-new")
    metadata = {**json.loads(ours["json_metadata"]), "positions": position}
    changed = {"position_json": json.dumps(position), "json_metadata": json.dumps(metadata)}
    api.request("PUT", f"/api/v1/dashboard/{ours['id']}", json=changed)


# --- what can go wrong ------------------------------------------------------------------------------------------------


def test_an_edit_by_hand_is_reported_and_kept_until_it_is_to_be_replaced(
    installed: tuple[Api, dict[str, int]], config: settings.Settings
) -> None:
    api, charts = installed
    chart = charts["ctr"]
    api.request("PUT", f"/api/v1/chart/{chart}", json={"description": "What we call CTR."})
    with pytest.raises(
        DashboardsError,
        match=r"edited by hand since it was installed \(chart 'CTR of the feed'\): export",
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
        ({"/health": "OK"}, "does not say its version, which 6.1 and newer do"),
        ({}, "is no Superset that this works with; check SUPERSET_URL"),
    ],
)
def test_an_older_superset_is_one_sentence(config: settings.Settings, answers: dict[str, str], said: str) -> None:
    with _answering(answers) as url:
        _refuses(config, said, SUPERSET_URL=url)


def test_nothing_is_installed_where_superset_cannot_read_clickhouse(
    installed: tuple[Api, dict[str, int]], config: settings.Settings, published: Published
) -> None:
    api, _ = installed
    before = api.get("/api/v1/database/")["result"][0]["changed_on"]
    wrong = published.server.reader_url.replace("sandbox-reader", "hush-hush-hush")
    said = _refuses(config, "check CLICKHOUSE_READER_URL", CLICKHOUSE_READER_URL=wrong)
    assert "hush" not in said
    _refuses(
        config,
        "run dashboards/reader.sql",
        CLICKHOUSE_READER_URL=settings.sandbox_url("clickhouse", settings.SANDBOX_READER),
    )
    assert api.get("/api/v1/database/")["result"][0]["changed_on"] == before


@pytest.mark.prove
def test_another_dashboard_at_the_address_is_left_alone(
    installed: tuple[Api, dict[str, int]], config: settings.Settings
) -> None:
    api, _ = installed
    ours = api.get("/api/v1/dashboard/pulse")["result"]["id"]
    api.request("PUT", f"/api/v1/dashboard/{ours}", json={"slug": "ours"})
    api.post("/api/v1/dashboard/", {"dashboard_title": "Heartbeats", "slug": "pulse"})
    other = api.get("/api/v1/dashboard/pulse")["result"]["id"]
    try:
        _refuses(config, "another dashboard with the address 'pulse': give that dashboard another slug")
    finally:
        api.request("DELETE", f"/api/v1/dashboard/{other}")
        api.request("PUT", f"/api/v1/dashboard/{ours}", json={"slug": "pulse"})


def _refuses(config: settings.Settings, said: str, **other: str) -> str:
    """Check that installing with other settings fails with one sentence that has this text. Returns the sentence."""
    given = {field.alias: getattr(config, name) for name, field in settings.Settings.model_fields.items()}
    with pytest.raises(DashboardsError) as refused:
        dashboard.install(settings.Settings(**{**given, **other}))
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@contextmanager
def _answering(answers: dict[str, str]) -> Iterator[str]:
    """A server that has only these paths. Yields its address."""

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


# --- the same numbers computed from the rows --------------------------------------------------------------------------


def _expected(published: Published, metric: str, day: date, days: int) -> dict[Any, float]:
    """Returns a metric by day, for this many days, of which `day` is the last."""
    window = published.daily.loc[pd.Timestamp(day - timedelta(days=days - 1)) : pd.Timestamp(day)]
    return {moment: METRICS[metric](window.loc[[moment]]) for moment in window.index}


def _whole(published: Published, metric: str, day: date, grain: str) -> dict[Any, float]:
    """Returns a metric for the last twelve whole weeks or months up to a day, by the first day of each."""
    letter = {"week": "W", "month": "M"}[grain]
    last = pd.Timestamp(day + timedelta(days=1)).to_period(letter) - 1  # the last whole one
    periods = published.daily.index.to_period(letter)
    return {
        period.start_time: METRICS[metric](published.daily[periods == period])
        for period in (last - back for back in range(12))
    }


def _slices(published: Published) -> pd.DataFrame:
    return published.slices.loc[[pd.Timestamp(published.day)]]


def _series(answer: dict[str, Any], metric: str) -> dict[Any, float]:
    return {_moment(row["period"]): row[metric] for row in answer["data"]}


def _moment(milliseconds: float) -> pd.Timestamp:
    return pd.Timestamp(milliseconds, unit="ms")


def _reads_little(answer: dict[str, Any], published: Published) -> None:
    """Check that the chart's statement reads the tables only a few times over, so that it is quick anywhere."""
    statement = answer["query"].strip().rstrip(";")
    rows = len(published.slices) + len(published.daily)
    assert published.db.execute(statement).read_rows <= 8 * rows, json.dumps(statement)
