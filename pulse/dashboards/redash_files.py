"""The dashboard for Redash as it is in the project: `dashboards/redash/`, as Redash's JSON."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from pulse import metrics, settings

FOLDER = settings.ROOT / "dashboards" / "redash"
Item: TypeAlias = dict[str, Any]
"""A query, visualization, widget or dashboard as Redash's JSON has it."""


def definitions() -> dict[str, Item]:
    return {path.stem: _yaml(path) for path in sorted((FOLDER / "queries").glob("*.yaml"))}


def layout() -> Item:
    return _yaml(FOLDER / "dashboard.yaml")


def _yaml(path: Path) -> Item:
    return dict(yaml.safe_load(path.read_text()))


def parameters(names: Iterable[str]) -> list[Item]:
    known = layout()["parameters"]
    return [{"name": name, "global": False, "locals": [], **known[name]} for name in names]


def names() -> dict[str, str]:
    """The queries' files, by the names under which they are installed."""
    return {definition["name"]: key for key, definition in definitions().items()}


def widgets(columns: int) -> Iterator[tuple[str, Item]]:
    """The widgets by name, each with what it shows and its first position.

    Args:
        columns: of the dashboard's grid.
    """
    top = 0
    for row in layout()["rows"]:
        query, height = row.get("query", ""), row.get("height", 2)
        shown = row.get("widgets", [""])
        beside = len(shown) if columns % len(shown) == 0 else len(shown) // 2  # else in two lines
        for line in range(0, len(shown), beside):
            for number, name in enumerate(shown[line : line + beside]):
                width = columns // beside
                position = {"col": number * width, "row": top, "sizeX": width, "sizeY": height, "autoHeight": False}
                text = row.get("text", "")
                what = {"text": text, "query": query, "visualization": name, "position": position}
                yield text or f"{query}: {name}", what
            top += height


def new_widget(dashboard: int, widget: Item, what: int | str) -> Item:
    """A widget with the dashboard's parameters."""
    names = definitions()[widget["query"]]["parameters"] if widget["query"] else []
    mappings = {
        name: {"name": name, "type": "dashboard-level", "mapTo": name, "value": None, "title": ""} for name in names
    }
    return {
        "dashboard_id": dashboard,
        "visualization_id": None if widget["text"] else what,
        "text": widget["text"],
        "width": 1,
        "options": {"isHidden": False, "position": widget["position"], "parameterMappings": mappings},
    }


def visualization(definition: Item) -> Item:
    """A visualization in Redash's JSON, from its short definition: a counter, lines by day, bars, or a table."""
    common = {"name": definition["name"], "description": definition["description"]}
    if "counter" in definition:
        return {**common, "type": "COUNTER", "options": _counter(definition)}
    if "table" in definition:
        hidden = definition.get("hidden", [])  # Redash shows each column that it is not told of
        columns = [_column(name, number) for number, name in enumerate([*definition["table"], *hidden])]
        for column in columns:
            column["visible"] = column["name"] not in hidden
        return {**common, "type": "TABLE", "options": {"itemsPerPage": 25, "columns": columns}}
    return {**common, "type": "CHART", "options": _chart(definition)}


def _counter(definition: Item) -> Item:
    """The event date, which is the first row, beside the same weekday of the week before."""
    return {
        "counterLabel": definition["unit"],
        "counterColName": definition["counter"],
        "rowNumber": 1,
        "targetColName": definition["counter"],
        "targetRowNumber": 1 + metrics.WEEK // timedelta(days=1),
        "stringDecimal": definition.get("decimals", 0),
        "stringDecChar": ".",
        "stringThouSep": ",",
        "formatTargetValue": True,
        "tooltipFormat": "0,0[.]00",
    }


def _column(name: str, number: int) -> Item:
    text = name == "dimension_value"
    shown = {"displayAs": "string"} if text else {"displayAs": "number", "numberFormat": "0,0"}
    return {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "type": "string" if text else "integer",
        "order": number,
        "alignContent": "left" if text else "right",
        **shown,
    }


def _chart(definition: Item) -> Item:
    by_day = "lines" in definition
    kind, series = ("line", definition["lines"]) if by_day else ("column", definition["bars"])
    mapping = {definition.get("by", "event_date"): "x", **dict.fromkeys(series, "y")}
    if "series" in definition:
        mapping[definition["series"]] = "series"
    colors = {
        name: {"type": kind, "name": name.replace("_", " "), **({"color": color} if color else {})}
        for name, color in series.items()
    }
    return {
        "globalSeriesType": kind,
        "columnMapping": mapping,
        "seriesOptions": {} if "series" in definition else colors,
        "sortX": by_day,
        "legend": {"enabled": len(series) > 1 or "series" in definition},
        "xAxis": {"type": "datetime" if by_day else "category", "labels": {"enabled": True}},
        "yAxis": [{"type": "linear"}, {"type": "linear", "opposite": True}],
        "series": {"stacking": None},
        "numberFormat": "0,0[.]00",
        "dateTimeFormat": "ddd D MMM",
        "missingValuesAsZero": False,
        "showDataLabels": False,
    }
