"""All surfaces show the same numbers: the tables, the archived report, a real Superset and Redash's stand-in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pulse_sandbox.superset_server import Server

from dashboards.conftest import WITH_USERS, Published, environment
from dashboards.redash import KEY, Redash
from pulse import settings
from pulse.dashboards import DashboardsError, redash, superset
from pulse.execution import runner
from pulse.metrics import shown_in
from pulse.reports.reconcile import DisagreementError, reconcile

NOTEBOOK = settings.ROOT / "notebooks" / "reports" / "daily_report.ipynb"


@pytest.fixture(scope="module")
def day(published: Published) -> date:
    """The day that has users. Tests in this file change it; no others use it."""
    return published.day - timedelta(days=WITH_USERS)


@pytest.fixture(scope="module")
def tool() -> Iterator[Redash]:
    with Redash().serving() as running:
        yield running


@pytest.fixture(scope="module")
def variables(
    published: Published, superset: Server, tool: Redash, day: date, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Install both dashboards and archive the day's report. Returns the settings as environment variables."""
    output = tmp_path_factory.mktemp("archive")
    given = {
        **environment(published, superset),
        "REDASH_URL": tool.url,
        "REDASH_API_KEY": KEY,
        "PULSE_OUTPUT": str(output),
        "PULSE_LANGUAGE": "ru",
    }
    config = settings.load(**given)
    _install(config)
    where = output / "daily_report" / str(day) / "scheduled_x" / "daily_report.1.ipynb"
    runner.run(NOTEBOOK, str(where), {"event_date": str(day)}, environment={**os.environ, **given})
    return given


@pytest.fixture(scope="module")
def config(variables: dict[str, str]) -> settings.Settings:
    return settings.load(**variables)


@pytest.fixture(scope="module")
def only_redash(config: settings.Settings) -> settings.Settings:
    """Settings without Superset, which takes five seconds to answer, so that only tests about it ask it."""
    return config.model_copy(update={"superset_url": ""})


@pytest.fixture(scope="module")
def only_superset(config: settings.Settings) -> settings.Settings:
    return config.model_copy(update={"redash_url": ""})


def _install(config: settings.Settings) -> None:
    superset.install(config, replace=True)
    redash.install(config, replace=True)


def test_every_surface_has_the_same_numbers(config: settings.Settings, day: date, published: Published) -> None:
    assert reconcile(day, config) == [
        "user_activity",
        "dimension_activity",
        "dimension_metrics",
        "the report",
        "Superset",
        "Redash",
    ]
    # They do not agree just because nothing was found: both tools show the numbers that were written.
    row = published.daily.loc[pd.Timestamp(day)]
    found = {name: value for _, numbers in redash.shown(config, day) for name, value in numbers.items()}
    for numbers in (superset.numbers(config, day), found):
        shown = [metric.column for metric in shown_in("report")]
        assert {name: numbers[name] for name in shown} == pytest.approx(row[shown].to_dict())


def test_what_is_not_configured_is_not_compared(published: Published, day: date, tmp_path: Path) -> None:
    given = {"CLICKHOUSE_URL": published.server.url, "PULSE_DATABASE": "pulse", "PULSE_OUTPUT": str(tmp_path)}
    assert reconcile(day, settings.load(**given)) == ["user_activity", "dimension_activity", "dimension_metrics"]


def test_a_table_that_differs_is_told_for_every_surface_that_shows_it(
    config: settings.Settings, variables: dict[str, str], day: date, published: Published
) -> None:
    views = int(published.daily.loc[pd.Timestamp(day), "views"])
    _set(published, day, views + 1)
    try:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "pulse"), "reconcile", str(day)],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 1
        (said,) = (done.stdout + done.stderr).strip().splitlines()
        spaced = f"{views:,}".replace(",", "\N{NO-BREAK SPACE}")
        for where in ("dimension_activity by os", "dimension_activity by gender", "dimension_activity by age"):
            assert f"views is {views + 1:,} in daily_metrics, {views:,} in {where}" in said
        assert f"{spaced} in the report" in said
        assert f"{views:,} in Superset" not in said  # Superset reads the same table
    finally:
        _set(published, day, views)


@pytest.mark.prove
def test_a_superset_that_shows_something_else_is_told(
    only_superset: settings.Settings, day: date, published: Published
) -> None:
    api = superset.connect(only_superset)
    datasets = {each["table_name"]: each["id"] for each in api.get("/api/v1/dataset/")["result"]}
    metrics = api.get(f"/api/v1/dataset/{datasets['daily_trend']}")["result"]["metrics"]
    kept: list[dict[str, Any]] = [
        {part: each[part] for part in ("id", "metric_name", "expression", "description", "d3format")}
        for each in metrics
    ]
    for each in kept:
        if each["metric_name"] == "Likes":
            each["expression"] = "sum(likes) * 2"
    api.request("PUT", f"/api/v1/dataset/{datasets['daily_trend']}", json={"metrics": kept})
    likes = published.daily.loc[pd.Timestamp(day), "likes"]
    with pytest.raises(DisagreementError) as told:
        reconcile(day, only_superset)
    wrong = f"likes is {likes:,} in daily_metrics, {2 * likes:,} in Superset"
    assert str(told.value) == f"The numbers of {day} are not the same everywhere: {wrong}."
    with pytest.raises(DashboardsError, match=r"edited by hand since it was installed \(dataset 'daily_trend'\)"):
        superset.install(only_superset)
    superset.install(only_superset, replace=True)
    assert superset.numbers(only_superset, day)["likes"] == likes


def test_a_redash_that_shows_something_else_is_told(only_redash: settings.Settings, day: date, tool: Redash) -> None:
    query = next(each for each in tool.queries.values() if each["name"] == "Pulse: one day")
    right = query["query"]
    query["query"] = right.replace("both_users,", "both_users + 1 as both_users,")
    told = r"both_users is [\d,]+ in daily_metrics, [\d,]+ in Redash's 'In both feed and messenger'"
    with pytest.raises(DisagreementError, match=told):
        reconcile(day, only_redash)
    query["query"] = right


def test_a_redash_that_shows_another_slice_is_told(only_redash: settings.Settings, day: date, tool: Redash) -> None:
    """Each slice is compared, even where the slices add up to the same total."""
    query = next(each for each in tool.queries.values() if each["name"] == "Pulse: slices of one day")
    right = query["query"]
    query["query"] = right.replace("    users_received,", "    users_received + 1 as users_received,")
    told = r"users_received of os \w+ is [\d,]+ in dimension_activity, [\d,]+ in Redash's 'Every slice'"
    with pytest.raises(DisagreementError, match=told):
        reconcile(day, only_redash)
    trend = next(each for each in tool.queries.values() if each["name"] == "Pulse: slices day by day")
    query["query"], kept = right, trend["query"]
    trend["query"] = kept.replace("    views\nfrom", "    views + 1 as views\nfrom")
    assert trend["query"] != kept
    with pytest.raises(DisagreementError, match=r"views of os \w+ is [\d,]+ .* 'Feed views of the ten largest slices"):
        reconcile(day, only_redash)
    trend["query"] = kept


def test_a_kept_answer_is_told_until_it_is_refreshed(
    only_redash: settings.Settings, day: date, published: Published
) -> None:
    """After a correction, Redash shows its cached result, however old, until the task after `load` refreshes it."""
    views = int(published.daily.loc[pd.Timestamp(day), "views"])
    redash.refresh(only_redash)  # other tests leave answers of other numbers
    reconcile(day, only_redash)
    _set(published, day, views + 1)
    try:
        with pytest.raises(DisagreementError, match=f"{views:,} in Redash's 'Feed views'"):
            reconcile(day, only_redash)
        redash.refresh(only_redash)
        shown = dict(redash.shown(only_redash, day))
        assert shown["Feed views"] == {"views": views + 1}
    finally:
        _set(published, day, views)
        redash.refresh(only_redash)
    reconcile(day, only_redash)


def test_a_tool_that_does_not_answer_is_one_sentence(variables: dict[str, str], day: date) -> None:
    with pytest.raises(DashboardsError, match="No Redash answers at"):
        reconcile(day, settings.load(**{**variables, "REDASH_URL": "http://127.0.0.1:9", "SUPERSET_URL": ""}))


def test_a_day_that_is_not_published_says_how_to_publish_it(config: settings.Settings) -> None:
    with pytest.raises(DisagreementError, match="daily_metrics has 0 rows of 2001-01-01, not 1; run `pulse daily"):
        reconcile(date(2001, 1, 1), config)


def _set(published: Published, day: date, views: int) -> None:
    """Change a day's published views by rewriting its row: a mutation of a table of 430 days takes half a minute."""
    load = published.db.value("select load from published_loads where event_date = {day:Date}", day=day)
    changed = "create table pulse.changed engine = Memory as select * replace ({views:UInt64} as views)"
    where = "from pulse.daily_metrics_loads where event_date = {day:Date} and load = {load:String}"
    published.db.execute(f"{changed} {where}", day=day, load=load, views=views)
    published.db.execute(f"alter table pulse.daily_metrics_loads drop partition ('{day}', '{load}')")
    published.db.execute("insert into pulse.daily_metrics_loads select * from pulse.changed")
    published.db.execute("drop table pulse.changed")
