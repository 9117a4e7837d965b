"""What the widgets of a dashboard in Redash show of a day, as numbers."""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from pulse import metrics
from pulse.dashboards.redash_files import Item

COLUMNS = metrics.columns("daily_metrics")
COUNTS = [*metrics.columns("dimension_activity"), "app_users"]
SUMS = [metric.column for metric in metrics.METRICS if metric.additive]  # what the slices of a dimension add up to


def values_on(dashboard: Item, widget: Item, day: date) -> dict[str, str] | None:
    """A widget's parameters when the dashboard is opened on a day; None for a widget that shows another day."""
    chosen = {each["name"]: each["value"] for each in (dashboard.get("options") or {}).get("parameters") or []}
    mappings = widget["options"].get("parameterMappings") or {}
    values: dict[str, str] = {}
    for parameter in widget["visualization"]["query"]["options"].get("parameters") or []:
        name, value = parameter["name"], parameter.get("value")
        mapping = mappings.get(name) or {"type": "widget-level"}
        if mapping["type"] == "dashboard-level":
            value = str(day) if mapping["mapTo"] == "event_date" else chosen.get(mapping["mapTo"], value)
        elif mapping["type"] == "static-value":
            value = mapping["value"]
        values[name] = str(value)
    return values if str(day) in values.values() else None


def slice_key(column: str, dimension: str, value: str) -> str:
    """The key of a slice's number beside those of the day: `views of os iOS`."""
    return f"{column} of {dimension} {value}"


def numbers_of(drawn: Item, rows: list[Item], day: date, dimension: str) -> dict[str, float | None]:
    """The numbers that a visualization shows of a day, by column of `daily_metrics` and by `slice_key`."""
    options = drawn["options"]
    if drawn["type"] == "COUNTER" and rows and not options.get("countRow"):
        row = rows[_row_number(options.get("rowNumber", 1), len(rows))]
        return dict(_numbered(row, [options.get("counterColName")]))
    if drawn["type"] == "CHART":
        axes = options.get("columnMapping", {})
        across = next((name for name, axis in axes.items() if axis == "x"), "")
        up = [name for name, axis in axes.items() if axis == "y"]
        if across == "event_date":
            of_the_day = [each for each in rows if str(each[across])[:10] == str(day)]
            if "series" in axes.values():  # some of the slices, which do not add up to the day
                return _sliced(of_the_day, up, dimension)
            return dict(_numbered(next(iter(of_the_day), {}), up))
        if across in ("slice", "dimension_value"):
            return _summed(rows, up) | _sliced(rows, up, dimension)
    if drawn["type"] == "TABLE":
        columns = [each["name"] for each in options.get("columns", []) if each.get("visible", True)]
        if "dimension_value" in columns:
            return _summed(rows, columns) | _sliced(rows, columns, dimension)
    return {}


def _row_number(number: Any, rows: int) -> int:
    """The index of a counter's row. Redash counts from 1, or from -1 at the end, and wraps around."""
    number = int(number or 0)
    index = (abs(number) - 1) % rows if number else 0
    return index if number >= 0 else rows - index - 1


def _numbered(row: Item, columns: Iterable[str | None]) -> Iterator[tuple[str, float | None]]:
    for name in columns:
        if name == "ctr_percent":
            percent = row.get(name)
            yield "ctr", None if percent is None else percent / 100
        elif name in COLUMNS:
            yield name, row.get(name)


def _summed(rows: list[Item], columns: Iterable[str]) -> dict[str, float | None]:
    return {name: sum(row[name] for row in rows) for name in columns if name in SUMS}


def _sliced(rows: list[Item], columns: Iterable[str], dimension: str) -> dict[str, float | None]:
    return {
        slice_key(name, dimension, row["dimension_value"]): row[name]
        for row in rows
        for name in columns
        if name in COUNTS and "dimension_value" in row
    }
