"""The installer against a stand-in for Redash's interface, and queries on a real ClickHouse as Redash runs them."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from dashboards.conftest import COUNTED, Published
from dashboards.redash import KEY, Redash, run
from pulse import cli, settings
from pulse.dashboards import DashboardsError, redash, redash_api, redash_files, redash_widgets

OWNER, _, PASSWORD = settings.SANDBOX_OWNER.partition(":")
DAY_QUERY = "Pulse: one day"


@pytest.fixture
def server() -> Iterator[Redash]:
    """An empty Redash."""
    with Redash().serving() as running:
        yield running


@pytest.fixture
def config(server: Redash, published: Published) -> settings.Settings:
    """The settings of its administrator."""
    return _settings(server, published)


def _settings(server: Redash, published: Published, **other: str) -> settings.Settings:
    given = {
        "CLICKHOUSE_URL": published.server.url,
        "CLICKHOUSE_READER_URL": published.server.reader_url,
        "PULSE_DATABASE": "pulse",
        "REDASH_URL": server.url,
        "REDASH_API_KEY": KEY,
    }
    return settings.load(**{**given, **other})


def test_one_command_installs_everything_and_publishes_it(server: Redash, config: settings.Settings) -> None:
    address = redash.install(config)
    (dashboard,) = server.dashboards.values()
    assert address == f"{server.url}/dashboards/{dashboard['id']}"
    assert (dashboard["name"], dashboard["tags"], dashboard["is_draft"]) == ("Pulse", ["pulse"], False)
    assert len(server.queries) == 4
    assert not any(query["is_draft"] for query in server.queries.values())
    (source,) = server.sources.values()
    assert source["type"] == "clickhouse"
    assert source["options"]["user"] == "reader"
    for widget in server.widgets.values():
        mappings = widget["options"]["parameterMappings"]
        assert all(each["type"] == "dashboard-level" for each in mappings.values())


@pytest.mark.parametrize("version", ["10.1.0", "25.1.0", "25.8.0", "26.08.0-dev"])
def test_the_dashboard_fills_the_grid_that_the_server_has(version: str, published: Published) -> None:
    with Redash(version).serving() as server:
        redash.install(_settings(server, published))
    # Every visualization is on the dashboard, and the widgets fill the grid without gaps or overlaps.
    own = {number for number, each in server.visualizations.items() if each["name"] != "Table"}
    assert {each["visualization_id"] for each in server.widgets.values() if each["visualization_id"]} == own
    places = [each["options"]["position"] for each in server.widgets.values()]
    taken = [
        (place["row"] + down, place["col"] + right)
        for place in places
        for down in range(place["sizeY"])
        for right in range(place["sizeX"])
    ]
    bottom = max(row for row, _ in taken)
    assert sorted(taken) == [(row, column) for row in range(bottom + 1) for column in range(server.columns)]
    # Redash's own minimum size is two columns and two rows of the newer grid. A row is 50 pixels high. A counter's
    # widget uses 140 pixels for its names, description (three lines) and footer, and its number needs as much again.
    for widget, place in zip(server.widgets.values(), places, strict=True):
        drawn = server.visualizations.get(widget["visualization_id"], {"type": "TEXT"})
        assert place["sizeY"] >= {"TEXT": 2, "COUNTER": 6}.get(drawn["type"], 8)
        assert place["sizeX"] >= server.columns // 4


def test_installing_again_changes_nothing_that_can_be_seen(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    before = _without_versions(server)
    redash.install(config)
    assert _without_versions(server) == before


def test_every_query_answers_with_the_published_numbers(
    server: Redash, config: settings.Settings, published: Published
) -> None:
    redash.install(config)
    day = published.day - timedelta(days=40)
    ids = {query["name"]: number for number, query in server.queries.items()}
    api = redash_api.connect(config)
    week = redash.result(api, ids[DAY_QUERY], event_date=str(day))
    wanted = published.daily.loc[pd.Timestamp(day - timedelta(days=7)) : pd.Timestamp(day)][::-1]
    assert [row["event_date"] for row in week] == [str(each.date()) for each in wanted.index]
    for name in ("app_users", "both_users", "feed_users", "views", "likes", "messenger_users", "messages_sent"):
        assert [row[name] for row in week] == wanted[name].tolist()
    assert [row["ctr_percent"] for row in week] == pytest.approx((100 * wanted["ctr"]).tolist())
    for days in ("7", "30"):
        trend = redash.result(api, ids["Pulse: day by day"], event_date=str(day), days=days)
        window = published.daily.loc[pd.Timestamp(day - timedelta(days=int(days) - 1)) : pd.Timestamp(day)]
        assert [row["views"] for row in trend] == window["views"].tolist()
        assert [row["sent_per_received"] for row in trend] == pytest.approx(window["sent_per_received"].tolist())
    for dimension in ("os", "gender", "age"):
        rows = redash.result(api, ids["Pulse: slices of one day"], event_date=str(day), dimension=dimension)
        slices = published.slices.loc[[pd.Timestamp(day)]].query("dimension == @dimension").set_index("dimension_value")
        assert [row.pop("slice") for row in rows] == [
            row["dimension_value"] for row in rows
        ]  # short enough not to be cut
        assert {row.pop("dimension_value"): row for row in rows} == slices.drop(columns="dimension").to_dict("index")
    rows = redash.result(api, ids["Pulse: slices day by day"], event_date=str(day), days="30", dimension="age")
    window = published.slices.loc[pd.Timestamp(day - timedelta(days=29)) : pd.Timestamp(day)].query(
        "dimension == 'age'"
    )
    largest = window.groupby("dimension_value")["views"].sum().nlargest(10).index
    kept = window[window["dimension_value"].isin(largest)]
    assert {(row["event_date"], row["dimension_value"]): row["views"] for row in rows} == {
        (str(moment.date()), value): views
        for moment, value, views in zip(kept.index, kept["dimension_value"], kept["views"], strict=True)
    }


def test_long_values_are_cut_for_charts_and_stay_apart(
    server: Redash, config: settings.Settings, published: Published
) -> None:
    redash.install(config)
    day = published.day + timedelta(days=10)
    browsers = [f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/{number}.36 " + "Safari " * 20 for number in (537, 538)]
    zero = dict.fromkeys(COUNTED, 0)
    rows = [{"event_date": day, "dimension": "os", "dimension_value": each, **zero} for each in browsers]
    published.db.execute("create or replace table long_values as dimension_activity engine = Memory")
    published.db.write(rows, "long_values")
    ids = {query["name"]: number for number, query in server.queries.items()}
    source = next(iter(server.sources.values()))
    for name in ("Pulse: slices of one day", "Pulse: slices day by day"):
        text = server.queries[ids[name]]["query"].replace("from dimension_activity", "from long_values")
        for parameter, value in {"event_date": str(day), "days": "7", "dimension": "os"}.items():
            text = text.replace("{{ " + parameter + " }}", value)
        found = run({**source["options"], "user": OWNER, "password": PASSWORD}, text)["rows"]
        assert {row["dimension_value"] for row in found} == set(browsers)
        assert all(row["slice"].startswith("Mozilla/5.0 (X…") and len(row["slice"]) <= 20 for row in found)
        assert len({row["slice"] for row in found}) == 2


def test_the_dashboard_shows_a_days_numbers(config: settings.Settings, published: Published) -> None:
    redash.install(config)
    row = published.daily.iloc[-1].to_dict()
    slices = {
        redash_widgets.slice_key(column, "os", each["dimension_value"]): each[column]
        for each in published.slices.loc[[pd.Timestamp(published.day)]].query("dimension == 'os'").to_dict("records")
        for column in (*COUNTED, "app_users")
    }
    shown = dict(redash.shown(config, published.day))
    layout = yaml.safe_load((redash_files.FOLDER / "dashboard.yaml").read_text())
    assert [*shown] == [name for each in layout["rows"] for name in each.get("widgets", [])]
    for numbers in shown.values():
        assert numbers == pytest.approx({name: (row | slices)[name] for name in numbers})
    named = {name for numbers in shown.values() for name in numbers}
    assert named >= (set(row) - {"messages_received"}) | set(slices)
    later = dict(redash.shown(config, published.day + timedelta(days=3)))  # a day that is not published
    assert later["DAU of the app"] == {"app_users": None}
    assert later["CTR, %"] == {"ctr": None}


def test_what_the_dashboards_own_widgets_show_is_what_counts(
    server: Redash, config: settings.Settings, published: Published
) -> None:
    """Somebody replaces our chart with one of their own query, under another name."""
    redash.install(config)
    api = redash_api.connect(config)
    ours = next(query for query in server.queries.values() if query["name"] == DAY_QUERY)
    fork = api.post(f"/api/queries/{ours['id']}/fork")
    server.queries[fork["id"]]["query"] = ours["query"].replace("    views,", "    views + 1 as views,")
    theirs = next(each["id"] for each in fork["visualizations"] if each["name"] == "Feed views")
    server.visualizations[theirs]["name"] = "Our views"
    replaced = next(
        each for each in server.widgets.values()
        if server.visualizations.get(each["visualization_id"], {}).get("name") == "Feed views"
    )  # fmt: skip
    replaced["visualization_id"] = theirs
    views = published.daily["views"].iloc[-1]
    shown = dict(redash.shown(config, published.day))
    assert shown["Our views"] == {"views": views + 1}
    assert "Feed views" not in shown
    assert shown["Feed views and likes by day"]["views"] == views
    # A chart that always shows another day does not count for this day.
    replaced["options"]["parameterMappings"]["event_date"].update(type="static-value", value="2020-01-01")
    assert "Our views" not in dict(redash.shown(config, published.day))


@pytest.mark.prove
def test_kept_answers_of_every_day_are_out_of_date_after_a_refresh(
    server: Redash, config: settings.Settings, published: Published
) -> None:
    redash.install(config)
    days = [published.day - timedelta(days=back) for back in (0, 8)]
    right = [redash.shown(config, day) for day in days]
    for kept in server.results.values():  # as if each day had been corrected since
        for row in kept["data"]["rows"]:
            row.update({name: 1 for name, value in row.items() if isinstance(value, int | float)})
    assert all(redash.shown(config, day) != shown for day, shown in zip(days, right, strict=True))
    before = _without_versions(server)
    assert redash.refresh(config) == 4
    assert [redash.shown(config, day) for day in days] == right
    assert _without_versions(server) == before
    redash.install(config)  # a refresh is not an edit by hand


def test_the_command_has_what_was_published_by_hand_shown_too(
    server: Redash, config: settings.Settings, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"CLICKHOUSE_URL": published.server.url, "CLICKHOUSE_READER_URL": published.server.reader_url}
    for name, value in (given | {"PULSE_DATABASE": "pulse", "REDASH_URL": server.url, "REDASH_API_KEY": KEY}).items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(cli.app, ["dashboards", "redash"]).exit_code == 0
    right = redash.shown(config, published.day)
    for kept in server.results.values():
        for row in kept["data"]["rows"]:
            row.update({name: 1 for name, value in row.items() if isinstance(value, int | float)})
    assert redash.shown(config, published.day) != right
    done = CliRunner().invoke(cli.app, ["dashboards", "redash"])
    assert done.output == f"The dashboard is at {server.url}/dashboards/{next(iter(server.dashboards))}\n"
    assert redash.shown(config, published.day) == right


def test_a_refresh_keeps_what_somebody_saves_meanwhile(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    query = next(iter(server.queries.values()))

    def save() -> None:
        query.update(description="Mine.", query=query["query"] + "-- mine", version=query["version"] + 1)

    server.before_change.append(save)
    redash.refresh(config)
    assert query["description"] == "Mine."
    assert query["query"].endswith("-- mine")


def test_every_chart_draws_columns_that_its_query_has(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    for query in server.queries.values():
        parameters = {"event_date": "2026-01-01", "days": "7", "dimension": "os"}
        text = query["query"]
        for name, value in parameters.items():
            text = text.replace("{{ " + name + " }}", value)
        (source,) = server.sources.values()
        columns = {each["name"] for each in run(source["options"], text)["columns"]}
        for each in server.visualizations.values():
            if each["query_id"] == query["id"] and each["name"] != "Table":
                assert each["description"]
                assert _drawn(each["options"]) <= columns, each["name"]
                if each["type"] == "TABLE":  # Redash shows every column that the options leave out
                    assert _drawn(each["options"]) == columns


def _drawn(options: dict[str, Any]) -> set[str]:
    named = {column["name"] for column in options.get("columns", [])}
    return (
        named | set(options.get("columnMapping", {})) | {options[part] for part in options if part.endswith("ColName")}
    )


def test_widgets_stay_where_people_put_them_and_off_where_they_took_them_off(
    server: Redash, config: settings.Settings
) -> None:
    redash.install(config)
    first, second, *_ = server.widgets
    own = {"col": 3, "row": 99, "sizeX": 3, "sizeY": 9, "autoHeight": False}
    place, server.widgets[first]["options"]["position"] = server.widgets[first]["options"]["position"], own
    del server.widgets[second]
    before = server.everything()["widgets"]
    redash.install(config)
    assert server.everything()["widgets"] == before
    redash.install(config, replace=True)
    assert server.widgets[first]["options"]["position"] == place
    assert second not in server.widgets


def test_what_nobody_moved_follows_the_layout(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    (dashboard,) = server.dashboards.values()
    before = server.everything()["widgets"]
    for widget in list(server.widgets.values())[:3]:  # as an older layout placed them
        widget["options"]["position"]["sizeY"] = 1
    for place in dashboard["options"]["pulse"]["widgets"].values():
        place["sizeY"] = 1
    redash.install(config)
    assert server.everything()["widgets"] == before


@pytest.mark.parametrize("change", [{"name": "Our day"}, {"tags": []}, {"name": "Our day", "tags": ["kpi"]}])
def test_what_is_renamed_or_loses_its_tag_is_ours_all_the_same(
    change: dict[str, Any], server: Redash, config: settings.Settings
) -> None:
    redash.install(config)
    before = _without_versions(server)
    query = next(each for each in server.queries.values() if each["name"] == DAY_QUERY)
    (dashboard,) = server.dashboards.values()
    (source,) = server.sources.values()
    for item in (query, dashboard):
        item.update(change, version=item["version"] + 1)
    if "name" in change:
        source["name"] = "Our ClickHouse"
        renamed = r"\(data source 'Our ClickHouse', query 'Our day'\)"
        with pytest.raises(DashboardsError, match=f"edited by hand since it was installed {renamed}"):
            redash.install(config)
    redash.install(config, replace=True)
    assert query["name"] == DAY_QUERY
    assert dashboard["name"] == change.get("name", "Pulse")  # a name given by hand is kept
    after = _without_versions(server)
    assert {kind: list(items) for kind, items in after.items()} == {kind: list(items) for kind, items in before.items()}


def test_a_fork_is_somebodys_own(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    api = redash_api.connect(config)
    for number in list(server.queries):
        fork = api.post(f"/api/queries/{number}/fork")
        server.queries[fork["id"]]["query"] += "-- mine"
    copied = api.post(f"/api/dashboards/{next(iter(server.dashboards))}/fork")
    before = _without_versions(server)
    redash.install(config)
    after = _without_versions(server)
    assert after == before
    assert after["dashboards"][copied["id"]]["options"] == {}


def test_what_an_older_install_left_is_taken_over(server: Redash, config: settings.Settings) -> None:
    """The marks of an older install had no ids, and named the widgets without their positions."""
    redash.install(config)
    before = _without_versions(server)
    for item in (*server.queries.values(), *server.dashboards.values()):
        mark = item["options"]["pulse"]
        del mark["what"], mark["id"]
        if "widgets" in mark:
            mark["widgets"] = list(mark["widgets"])
    redash.install(config)
    assert _without_versions(server) == before


def test_a_chart_is_added_as_the_readme_says(
    server: Redash, config: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a line in a query's file and the chart's name in a row; the other widgets of that row make room."""
    redash.install(config)
    project = tmp_path / "redash"
    shutil.copytree(redash_files.FOLDER, project)
    query, layout = project / "queries" / "trend.yaml", project / "dashboard.yaml"
    query.write_text(
        query.read_text() + '  - {name: Its name, description: "…", lines: {messages_received: "#009E73"}}\n'
    )
    wanted = yaml.safe_load(layout.read_text())
    beside = next(row["widgets"] for row in wanted["rows"] if row.get("query") == "trend" and len(row["widgets"]) == 3)
    beside.append("Its name")
    layout.write_text(yaml.safe_dump(wanted, sort_keys=False))
    monkeypatch.setattr(redash_files, "FOLDER", project)
    redash.install(config)
    drawn = {number: each["name"] for number, each in server.visualizations.items()}
    there = {drawn[each["visualization_id"]]: each["options"]["position"] for each in server.widgets.values()
             if each["visualization_id"]}  # fmt: skip
    row = [there[name] for name in beside]
    assert len({each["row"] for each in row}) == 1
    assert [each["col"] for each in row] == [0, 3, 6, 9]
    assert [each["sizeX"] for each in row] == [3, 3, 3, 3]


def test_it_is_found_among_hundreds_of_others(server: Redash, config: settings.Settings) -> None:
    for number in range(1000, 1520):
        other = {"id": number, "name": DAY_QUERY, "query": "select 1", "options": {}, "tags": [], "is_draft": False}
        server.queries[number] = {**other, "version": 1, "description": "", "data_source_id": 1}
    redash.install(config)
    redash.install(config)
    assert len(server.queries) == 520 + 4


def test_an_edit_by_hand_is_reported_before_anything_is_changed(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    query = next(each for each in server.queries.values() if each["name"] == DAY_QUERY)
    query.update(query="select 1", version=query["version"] + 1)
    chart = next(each for each in server.visualizations.values() if each["name"] == "Feed views and likes by day")
    chart["options"] = {**chart["options"], "legend": {"enabled": False}}
    before, changes = server.everything(), server.changes
    with pytest.raises(DashboardsError) as refused:
        redash.install(config)
    assert f"edited by hand since it was installed (query '{DAY_QUERY}', query 'Pulse: day by day')" in str(
        refused.value
    )
    assert len(str(refused.value).splitlines()) == 1
    assert (server.everything(), server.changes) == (before, changes)
    redash.install(config, replace=True)
    assert "left join daily_metrics" in query["query"]
    assert chart["options"]["legend"] == {"enabled": True}


def test_what_others_add_is_not_an_edit(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    query = next(iter(server.queries.values()))
    server.visualizations[999] = {"id": 999, "query_id": query["id"], "type": "PIVOT", "name": "Mine", "options": {}}
    redash.install(config)
    assert server.visualizations[999]["name"] == "Mine"


def test_somebody_who_saves_at_the_same_time_is_not_overwritten(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    query = next(each for each in server.queries.values() if each["name"] == "Pulse: slices of one day")

    def save() -> None:
        query.update(description="Mine.", version=query["version"] + 1)

    server.before_change.append(save)
    with pytest.raises(DashboardsError, match=r"changed the dashboard in Redash at .* just now: run this again"):
        redash.install(config)
    assert query["description"] == "Mine."


def test_an_install_that_was_cut_off_is_finished_by_the_next(server: Redash, config: settings.Settings) -> None:
    def fail() -> None:
        raise RuntimeError("the power went off")

    server.before_change = [fail, *[lambda: None] * 6]  # taken from the end: the seventh change fails
    with pytest.raises(DashboardsError, match="HTTP status 500"):
        redash.install(config)
    assert any(query["is_draft"] for query in server.queries.values())
    assert server.dashboards == {}
    redash.install(config)
    assert len(server.queries) == 4
    assert not any(query["is_draft"] for query in server.queries.values())


# --- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"REDASH_API_KEY": "wrong-wrong-wrong"}, "does not know the key: check REDASH_API_KEY"),
        ({"REDASH_API_KEY": ""}, "set REDASH_API_KEY"),
        ({"REDASH_URL": ""}, "set REDASH_URL"),
        ({"REDASH_URL": "http://127.0.0.1:9"}, "No Redash answers at http://127.0.0.1:9; check REDASH_URL"),
        ({"REDASH_URL": "redash.example.com"}, "expected http(s)://host:port"),
        (
            {"CLICKHOUSE_READER_URL": settings.sandbox_url("clickhouse", settings.SANDBOX_READER)},
            "run dashboards/reader.sql",
        ),
    ],
)
def test_bad_input_is_one_sentence(server: Redash, published: Published, other: dict[str, str], said: str) -> None:
    _refuses(_settings(server, published, **other), server, said)


def test_a_clickhouse_that_redash_cannot_read_leaves_nothing_behind(server: Redash, published: Published) -> None:
    wrong = published.server.reader_url.replace("sandbox-reader", "hush-hush-hush")
    said = _refuses(_settings(server, published, CLICKHOUSE_READER_URL=wrong), server, "the address as Redash sees it")
    assert "hush" not in said


def test_an_older_redash_is_one_sentence(published: Published) -> None:
    with Redash("8.0.0").serving() as old:
        _refuses(_settings(old, published), old, "is version '8.0.0'; 10 or newer is needed")


def _refuses(config: settings.Settings, server: Redash, said: str) -> str:
    with pytest.raises(DashboardsError) as refused:
        redash.install(config)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not any(server.everything().values())
    return str(refused.value)


def _without_versions(server: Redash) -> dict[str, Any]:
    """Returns its content without the versions and the lines that say which results are out of date."""
    found = server.everything()
    for query in found["queries"].values():
        stamp, _, query["query"] = query["query"].partition("\n")
        assert stamp.startswith("-- Answers from before 20")
    for kind in ("queries", "dashboards"):
        for item in found[kind].values():
            del item["version"]
    return found


# --- how Redash runs queries ------------------------------------------------------------------------------------------


def test_several_statements_share_a_session(published: Published) -> None:
    """As in Redash, the first is sent with session_check=0 and the others with 1; the user is the reader."""
    parts = {"user": "reader", "password": "sandbox-reader", "dbname": "pulse"}
    options = {"url": f"http://{published.server.host}:{published.server.port}", **parts}
    found = run(options, "select 1; select count() as days, max(event_date) as last, 0.5 as half from daily_metrics")
    assert found["rows"] == [{"days": len(published.daily), "last": str(published.day), "half": 0.5}]
    assert [each["type"] for each in found["columns"]] == ["integer", "date", "float"]
    with pytest.raises(RuntimeError, match=r"READONLY|ACCESS_DENIED"):
        run(options, "drop table daily_metrics")
