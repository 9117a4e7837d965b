"""The dashboards' files fit together: each metric's own chart shows it, and the layout has every chart once."""

import json
import re
from collections import Counter
from typing import Any

import pytest
import yaml

from pulse.metrics import BY_COLUMN, columns, shown_in
from pulse.settings import ROOT

BUNDLE, QUERIES = ROOT / "dashboards" / "superset" / "bundle", ROOT / "dashboards" / "redash" / "queries"
REPORT = [metric.column for metric in shown_in("report")]
LAYOUT = yaml.safe_load((BUNDLE / "dashboards" / "Pulse.yaml").read_text())
CHARTS = {path.stem: yaml.safe_load(path.read_text()) for path in (BUNDLE / "charts").glob("*.yaml")}
DATASETS = {path.stem: yaml.safe_load(path.read_text()) for path in (BUNDLE / "datasets").rglob("*.yaml")}
PLACED = {part["id"]: part for part in LAYOUT["position"].values() if isinstance(part, dict)}
ON_DASHBOARD = {name.removeprefix("CHART-"): part for name, part in PLACED.items() if name.startswith("CHART-")}


def asked(chart: dict[str, Any]) -> list[str]:
    """Return the expressions of the metrics that a chart asks for; those it draws and those it queries must agree."""
    drawn = chart["params"].get("metrics") or [chart["params"]["metric"]]
    assert json.loads(chart["query_context"])["queries"][0]["metrics"] == drawn
    dataset = next(each for each in DATASETS.values() if each["uuid"] == chart["dataset_uuid"])
    return [each["expression"] for name in drawn for each in dataset["metrics"] if each["metric_name"] == name]


@pytest.mark.parametrize("column", [f"{name}{ending}" for name in REPORT for ending in ("", "_trend")])
def test_a_metrics_chart_in_superset_asks_for_that_metric(column: str) -> None:
    metric = BY_COLUMN[column.removesuffix("_trend")]
    (expression,) = asked(CHARTS[column])
    named = {word for word in re.findall(r"\w+", expression) if word in BY_COLUMN}
    assert named == ({metric.of, metric.per} if metric.of else {metric.column})


def test_supersets_datasets_describe_every_column_of_their_queries() -> None:
    for name, wanted in (("daily_trend", REPORT), ("dimension_activity", columns("dimension_activity"))):
        counted = {column for column in wanted if not BY_COLUMN[column].of}
        assert counted <= {column["column_name"] for column in DATASETS[name]["columns"]}, name


def test_supersets_layout_has_every_chart_once() -> None:
    assert set(ON_DASHBOARD) == set(CHARTS)
    listed = Counter(child for part in PLACED.values() for child in part.get("children", ()))
    assert [name for name in PLACED if name not in ("ROOT_ID", "HEADER_ID") and listed[name] != 1] == []
    assert {part["meta"]["uuid"]: name for name, part in ON_DASHBOARD.items()} == {
        chart["uuid"]: name for name, chart in CHARTS.items()
    }
    numbers = [part["meta"]["chartId"] for part in ON_DASHBOARD.values()]
    assert len({*numbers}) == len(numbers)


def test_supersets_rows_are_at_most_twelve_columns_wide() -> None:
    rows = {
        name: sum(PLACED[child]["meta"]["width"] for child in part.get("children", ()))
        for name, part in PLACED.items()
        if part["type"] == "ROW"
    }
    assert {name: width for name, width in rows.items() if width > 12} == {}


def test_supersets_filters_exclude_the_charts_that_they_do_not_fit() -> None:
    """The filter *Dimension* is for the slices' table and trend, *Trends by* for the charts over time."""
    chart_of = {part["meta"]["chartId"]: name for name, part in ON_DASHBOARD.items()}
    excluded = {
        each["name"]: {chart_of[number] for number in each["scope"]["excluded"]}
        for each in LAYOUT["metadata"]["native_filter_configuration"]
    }
    assert excluded["Event date"] == set()
    assert excluded["Dimension"] == set(CHARTS) - {"slices", "slices_trend"}
    assert excluded["Trends by"] == {name for name in CHARTS if not name.endswith("_trend")}


def test_redash_has_a_counter_and_a_line_for_every_metric_of_the_report() -> None:
    day, trend, slices = (yaml.safe_load((QUERIES / f"{name}.yaml").read_text()) for name in ("day", "trend", "slices"))
    percent = {column: f"{column}_percent" for column in REPORT if BY_COLUMN[column].unit == "share"}
    wanted = {percent.get(column, column) for column in REPORT}
    assert wanted <= {each["counter"] for each in day["visualizations"] if "counter" in each}
    assert wanted <= {column for each in trend["visualizations"] for column in each.get("lines", ())}
    (table,) = (each["table"] for each in slices["visualizations"] if "table" in each)
    assert set(columns("dimension_activity")) <= {*table}
