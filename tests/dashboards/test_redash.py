"""The installer against a stand-in of Redash's interface, and Redash's way of asking a real ClickHouse."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from dashboards.conftest import Published
from dashboards.redash import KEY, Redash, run
from pulse import settings
from pulse.dashboards import DashboardsError, redash

DAY_QUERY = "Pulse: the day and the week before it"


@pytest.fixture
def server() -> Iterator[Redash]:
    """A Redash in which there is nothing yet."""
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
    # Every visualization stands on the dashboard, in reading order and within the grid.
    own = {number for number, each in server.visualizations.items() if each["name"] != "Table"}
    assert {each["visualization_id"] for each in server.widgets.values() if each["visualization_id"]} == own
    places = [each["options"]["position"] for each in server.widgets.values()]
    taken = [(place["row"], place["col"] + n) for place in places for n in range(place["sizeX"])]
    assert len(taken) == len(set(taken))
    assert all(column < redash.COLUMNS for _, column in taken)
    for widget in server.widgets.values():
        mappings = widget["options"]["parameterMappings"]
        assert all(each["type"] == "dashboard-level" for each in mappings.values())


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
    api = redash.connect(config)
    week = redash.result(api, ids[DAY_QUERY], event_date=str(day))
    wanted = published.daily.loc[pd.Timestamp(day - timedelta(days=7)) : pd.Timestamp(day)][::-1]
    assert [row["event_date"] for row in week] == [str(each.date()) for each in wanted.index]
    for name in ("app_users", "both_users", "feed_users", "views", "likes", "messenger_users", "messages_sent"):
        assert [row[name] for row in week] == wanted[name].tolist()
    assert [row["ctr_percent"] for row in week] == pytest.approx((100 * wanted["ctr"]).tolist())
    for days in ("7", "30"):
        trend = redash.result(api, ids["Pulse: the days up to the event date"], event_date=str(day), days=days)
        window = published.daily.loc[pd.Timestamp(day - timedelta(days=int(days) - 1)) : pd.Timestamp(day)]
        assert [row["views"] for row in trend] == window["views"].tolist()
        assert [row["sent_per_received"] for row in trend] == pytest.approx(window["sent_per_received"].tolist())
    for dimension in ("os", "gender", "age"):
        rows = redash.result(api, ids["Pulse: activity by dimension"], event_date=str(day), dimension=dimension)
        slices = published.slices.loc[[pd.Timestamp(day)]].query("dimension == @dimension").set_index("dimension_value")
        assert {row.pop("dimension_value"): row for row in rows} == slices.drop(columns="dimension").to_dict("index")
    rows = redash.result(api, ids["Pulse: views by slice"], event_date=str(day), days="30", dimension="age")
    window = published.slices.loc[pd.Timestamp(day - timedelta(days=29)) : pd.Timestamp(day)].query(
        "dimension == 'age'"
    )
    largest = window.groupby("dimension_value")["views"].sum().nlargest(10).index
    kept = window[window["dimension_value"].isin(largest)]
    assert {(row["event_date"], row["dimension_value"]): row["views"] for row in rows} == {
        (str(moment.date()), value): views
        for moment, value, views in zip(kept.index, kept["dimension_value"], kept["views"], strict=True)
    }


def test_a_day_that_is_not_published_has_no_numbers(config: settings.Settings, published: Published) -> None:
    redash.install(config)
    found = redash.numbers(config, published.day + timedelta(days=3))
    assert found["app_users"] is None
    assert found["ctr"] is None
    there = redash.numbers(config, published.day)
    assert there == pytest.approx(published.daily.iloc[-1].to_dict())


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


def _drawn(options: dict[str, Any]) -> set[str]:
    named = {column["name"] for column in options.get("columns", [])}
    return (
        named | set(options.get("columnMapping", {})) | {options[part] for part in options if part.endswith("ColName")}
    )


def test_widgets_stay_where_people_put_them_and_off_where_they_took_them_off(
    server: Redash, config: settings.Settings
) -> None:
    redash.install(config)
    first, second = list(server.widgets)[:2]
    server.widgets[first]["options"]["position"] = {"col": 3, "row": 99, "sizeX": 3, "sizeY": 9, "autoHeight": False}
    del server.widgets[second]
    before = server.everything()["widgets"]
    redash.install(config)
    assert server.everything()["widgets"] == before


def test_an_edit_by_hand_is_reported_before_anything_is_changed(server: Redash, config: settings.Settings) -> None:
    redash.install(config)
    query = next(each for each in server.queries.values() if each["name"] == DAY_QUERY)
    query.update(query="select 1", version=query["version"] + 1)
    chart = next(each for each in server.visualizations.values() if each["name"] == "Views and likes")
    chart["options"] = {**chart["options"], "legend": {"enabled": False}}
    before, changes = server.everything(), server.changes
    with pytest.raises(DashboardsError) as refused:
        redash.install(config)
    assert f"edited by hand since it was installed (query '{DAY_QUERY}', query 'Pulse: the days" in str(refused.value)
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
    query = next(each for each in server.queries.values() if each["name"] == "Pulse: activity by dimension")

    def save() -> None:
        query.update(description="Mine.", version=query["version"] + 1)

    server.before_change.append(save)
    with pytest.raises(DashboardsError, match=r"changed the dashboard in Redash at .* just now: run this again"):
        redash.install(config)
    assert query["description"] == "Mine."


def test_an_install_that_was_cut_off_is_finished_by_the_next(server: Redash, config: settings.Settings) -> None:
    def fail() -> None:
        raise RuntimeError("the power went off")

    server.before_change = [fail, *[lambda: None] * 6]  # from the end: the seventh change is not made
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
        ({"CLICKHOUSE_READER_URL": settings.SANDBOX_READER_URL}, "run dashboards/reader.sql"),
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
    found = server.everything()
    for kind in ("queries", "dashboards"):
        for item in found[kind].values():
            del item["version"]
    return found


# --- Redash's way of asking -------------------------------------------------------------------------------------------


def test_several_statements_share_a_session(published: Published) -> None:
    """As Redash does: the first with session_check=0, the others with 1; and as a reader."""
    parts = {"user": "reader", "password": "sandbox-reader", "dbname": "pulse"}
    options = {"url": f"http://{published.server.host}:{published.server.port}", **parts}
    found = run(options, "select 1; select count() as days, max(event_date) as last, 0.5 as half from daily_metrics")
    assert found["rows"] == [{"days": len(published.daily), "last": str(published.day), "half": 0.5}]
    assert [each["type"] for each in found["columns"]] == ["integer", "date", "float"]
    with pytest.raises(RuntimeError, match=r"READONLY|ACCESS_DENIED"):
        run(options, "drop table daily_metrics")
