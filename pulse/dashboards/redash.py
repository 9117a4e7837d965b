"""Redash: what lies in `dashboards/redash/` installed over the REST interface, and asked for its numbers.

Redash gives ids of its own, so ours are known by a mark in their options, whatever they are called. A query's says
which one it is, and holds a fingerprint of what was installed, by which an edit by hand is known. The dashboard's names
the widgets that were put on it and where, so that one that somebody took off stays off, and one that somebody moved
stays there. A mark names its bearer's id too, since Redash copies the options of a query that somebody forks.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pulse import metrics, settings
from pulse.dashboards import SECONDS, Api, DashboardsError, Reader

FOLDER = settings.ROOT / "dashboards" / "redash"
NAME, TAG, MARK = "Pulse", "pulse", "pulse"
OLDEST = (10,)
WIDE = (25, 8)  # the version whose grid has twice the columns; Redash doubles what stands on a dashboard when upgraded
FINISHED, FAILED, CANCELLED = 3, 4, 5  # a job's states
TRIES = 5  # at what somebody else may be saving at the same moment

COLUMNS = metrics.columns("daily_metrics")
COUNTS = metrics.columns("dimension_activity")
SUMS = [metric.column for metric in metrics.METRICS if metric.additive]  # what the slices of a dimension add up to
STAMP = re.compile(r"\A-- Answers from before .* are out of date\.\n")

Item = dict[str, Any]
"""A query, visualization, widget or dashboard as Redash's JSON has it."""


def install(config: settings.Settings, *, replace: bool = False) -> str:
    """Install the data source, the queries and the dashboard, or bring them up to date; gives the dashboard's address.

    Args:
        config: where Redash is and who we are there, and what its queries read.
        replace: overwrite what was changed there by hand.

    Raises:
        DashboardsError: nothing was changed there, or what was begun is still a draft; the text says what to do.
    """
    return _Installation(connect(config), Reader(config)).carry_out(replace)


def connect(config: settings.Settings) -> Api:
    """Redash's REST interface.

    Raises:
        DashboardsError: it is not there, too old, or refuses.
    """
    api = Api("Redash", config.redash_url, "REDASH_URL", "REDASH_API_KEY, which must be an administrator's")
    key = config.redash_api_key.get_secret_value()
    if not key:
        raise DashboardsError(
            "Redash wants to know who installs: set REDASH_API_KEY, which stands on your profile page."
        )
    api.headers["Authorization"] = f"Key {key}"
    answer = api.request("GET", "/api/session", expected=(404,))
    if answer.status_code == 404:  # what Redash says to strangers
        raise DashboardsError(f"Redash at {api.url} does not know the key: check REDASH_API_KEY and REDASH_URL.")
    version = str(dict(api.json(answer)).get("client_config", {}).get("version", ""))
    api.version = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if api.version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise DashboardsError(f"Redash at {api.url} is version '{version}'; {wanted} or newer is needed: upgrade it.")
    return api


def shown(config: settings.Settings, day: date) -> list[tuple[str, dict[str, float | None]]]:
    """What the dashboard's widgets show of a day: each widget's name, and its numbers by column of `daily_metrics`.

    They are what somebody sees who opens the dashboard on that day: of the widgets that stand on it now, whatever query
    is behind them, and from the answers that Redash keeps. What it shows of slices is there by `slice_key`, and by its
    sum where that is a column of `daily_metrics`. A widget that shows another day, or nothing that the published tables
    have, is left out.

    Raises:
        DashboardsError: Redash is not there or refuses, the dashboard is not installed or empty, or a query failed.
    """
    api = connect(config)
    dashboard = _installed(api)
    answers: dict[str, list[Item]] = {}
    found = []
    for widget in dashboard["widgets"]:
        drawn = widget.get("visualization")
        values = _values(dashboard, widget, day) if drawn else None
        if values is None:
            continue
        key = json.dumps([drawn["query"]["id"], values])
        if key not in answers:
            answers[key] = result(api, drawn["query"]["id"], max_age=-1, **values)
        if numbers := _numbers(drawn, answers[key], day, str(values.get("dimension", ""))):
            found.append((drawn["name"], numbers))
    if not found:
        raise DashboardsError(
            f"The dashboard in Redash at {api.url} shows none of the report's numbers; "
            "archive it there, then run `pulse dashboards redash`."
        )
    return found


def refresh(config: settings.Settings) -> int:
    """Have the dashboard computed anew when it is next looked at; gives the number of its queries.

    Redash answers a query with the same text and parameters from what it keeps, whatever its age, and has no way to
    throw that away. So each query's first line says since when answers count: with another text, no kept answer fits,
    for no day and no choice of parameters.

    Raises:
        DashboardsError: Redash is not there or refuses, or the dashboard is not installed.
    """
    api = connect(config)
    _installed(api)
    queries = _known(api, "queries", _names())
    for query in queries.values():
        for left in range(TRIES, 0, -1):
            text = _stamped(query["query"])
            path, body = f"/api/queries/{query['id']}", {"query": text, "version": query["version"]}
            answer = api.request("POST", path, json=body, expected=(409,) if left > 1 else ())
            if answer.is_success:
                break
            query = api.get(path)  # somebody saved it just now
    return len(queries)


def result(api: Api, query: int, max_age: int = 0, **parameters: str) -> list[Item]:
    """The rows of an installed query.

    Args:
        api: where it is installed.
        query: its id.
        max_age: how many seconds old an answer that Redash keeps may be; -1: any age, as the dashboard asks.
        parameters: their values.

    Raises:
        DashboardsError: it failed, or took too long.
    """
    answer = api.post(f"/api/queries/{query}/results", {"parameters": parameters, "max_age": max_age})
    deadline = time.monotonic() + SECONDS
    while "query_result" not in answer:
        job = answer["job"]
        if job["status"] in (FAILED, CANCELLED):
            raise DashboardsError(
                f"Redash at {api.url} could not run a query: {' '.join(str(job['error']).split())[:300]}"
            )
        if job["status"] == FINISHED:
            answer = api.get(f"/api/query_results/{job['query_result_id']}")
        elif time.monotonic() > deadline:
            raise DashboardsError(f"Redash at {api.url} did not run a query within {SECONDS:.0f} seconds.")
        else:
            time.sleep(0.2)
            answer = api.get(f"/api/jobs/{job['id']}")
    rows: list[Item] = answer["query_result"]["data"]["rows"]
    return rows


# --- what a widget shows ----------------------------------------------------------------------------------------------


def _values(dashboard: Item, widget: Item, day: date) -> dict[str, str] | None:
    """A widget's parameters for somebody who opens the dashboard on a day; None where it shows another day."""
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
    """How a number of a slice is called beside those of the day: `views of os iOS`."""
    return f"{column} of {dimension} {value}"


def _numbers(drawn: Item, rows: list[Item], day: date, dimension: str) -> dict[str, float | None]:
    """What a visualization shows of a day, by column of `daily_metrics` and by `slice_key`."""
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
            if "series" in axes.values():  # some of the slices, which add up to nothing
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
    """A counter's row as Redash counts: from 1, or from -1 at the end; more than there are begin anew."""
    number = int(number or 0)
    place = (abs(number) - 1) % rows if number else 0
    return place if number >= 0 else rows - place - 1


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


# --- installing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Installation:
    """What is wanted, and what is there."""

    api: Api
    reader: Reader

    @cached_property
    def queries(self) -> dict[str, Item]:
        """The queries that are there, by the name of their file."""
        found = _known(self.api, "queries", _names())
        return {key: self.api.get(f"/api/queries/{each['id']}") for key, each in found.items()}

    @cached_property
    def source(self) -> Item | None:
        """The data source that is there: the one that the queries ask, whatever its name, else the one of our name."""
        asked = {each["data_source_id"] for each in self.queries.values()}
        listed = self.api.get("/api/data_sources")
        ours = [each for each in listed if each["id"] in asked] or [each for each in listed if each["name"] == NAME]
        return self.api.get(f"/api/data_sources/{ours[0]['id']}") if ours else None

    @cached_property
    def dashboard(self) -> Item | None:
        """The dashboard that is there."""
        return _dashboard(self.api)

    def carry_out(self, replace: bool) -> str:
        """Look at everything, then change it; gives the dashboard's address."""
        edited = list(self._edited())
        _ = self.dashboard
        if edited and not replace:
            raise DashboardsError(
                f"Redash at {self.api.url} has what was edited by hand since it was installed ({', '.join(edited)}): "
                "take it over into dashboards/redash, or overwrite it with --replace."
            )
        source = self._put_source()
        visualizations: dict[tuple[str, str], int] = {}
        for key, definition in _definitions().items():
            for name, number in self._put_query(key, definition, source).items():
                visualizations[key, name] = number
        return f"{self.api.url}/dashboards/{self._put_dashboard(visualizations, replace)}"

    def _edited(self) -> Iterator[str]:
        """What is there and is not as it was installed. A draft was never installed to its end."""
        if self.source:
            options = self.source["options"]
            wanted = {name: value for name, value in self._source_options().items() if name != "password"}
            if self.source["name"] != NAME or any(options.get(name) != value for name, value in wanted.items()):
                yield f"data source '{self.source['name']}'"
        for found in self.queries.values():
            if not found["is_draft"] and _mark(found).get("fingerprint") != _fingerprint(found):
                yield f"query '{found['name']}'"

    def _source_options(self) -> Item:
        reader = self.reader
        return {
            "url": reader.address,
            "user": reader.user,
            "password": reader.password,
            "dbname": reader.database,
        }

    def _put_source(self) -> int:
        """The data source, which reaches ClickHouse."""
        wanted = {"name": NAME, "type": "clickhouse", "options": self._source_options()}
        path = "/api/data_sources" + (f"/{self.source['id']}" if self.source else "")
        number = int(self.api.post(path, wanted)["id"])
        tested = self.api.post(f"/api/data_sources/{number}/test")
        if not tested["ok"]:
            if not self.source:
                self.api.request("DELETE", f"/api/data_sources/{number}")
            reason = " ".join(str(tested["message"]).split())[:300].replace(self.reader.password, "…").rstrip(". ")
            raise DashboardsError(
                f"Redash cannot read {self.reader.address} as {self.reader.user} ({reason}): "
                "check CLICKHOUSE_READER_URL, the address as Redash sees it."
            )
        return number

    def _put_query(self, key: str, definition: Item, source: int) -> dict[str, int]:
        """A query and its visualizations; gives the visualizations' ids by name."""
        found = self.queries.get(key)
        content = {
            "name": definition["name"],
            "description": definition["description"],
            "query": _stamped(definition["query"]),
            "data_source_id": source,
            "tags": [TAG],
        }
        options = {**(found["options"] if found else {}), "parameters": _parameters(definition["parameters"])}
        if found is None:
            options[MARK] = {"what": key}  # so that it is known again if this is interrupted
            found = self.api.post("/api/queries", {**content, "options": options, "schedule": None})
        else:
            changed = {**content, "options": options, "version": found["version"]}
            found = self._change(f"/api/queries/{found['id']}", changed)
        there = {each["name"]: each["id"] for each in found.get("visualizations", [])}
        for each in definition["visualizations"]:
            wanted = visualization(each)
            number = there.get(each["name"])
            path = "/api/visualizations" + (f"/{number}" if number else "")
            body = wanted if number else {**wanted, "query_id": found["id"]}
            there[each["name"]] = self.api.post(path, body)["id"]
        names = [each["name"] for each in definition["visualizations"]]
        found = self.api.get(f"/api/queries/{found['id']}")
        found["options"][MARK] = {"what": key, "id": found["id"], "visualizations": names}
        found["options"][MARK]["fingerprint"] = _fingerprint(found)
        published = {"options": found["options"], "is_draft": False, "version": found["version"]}
        self._change(f"/api/queries/{found['id']}", published)
        return {name: there[name] for name in names}

    def _put_dashboard(self, visualizations: dict[tuple[str, str], int], replace: bool) -> int:
        """The dashboard, with the widgets that it has never had; those that nobody moved go where they belong now."""
        found = self.dashboard or self.api.post("/api/dashboards", {"name": NAME})
        number = int(found["id"])
        if TAG not in found["tags"]:  # before it has widgets, so that it is known again if this is interrupted
            tagged = {"tags": [*found["tags"], TAG], "options": _marked(found, {}), "version": found["version"]}
            found = self._change(f"/api/dashboards/{number}", tagged)
        there = {
            each["visualization"]["id"] if "visualization" in each else each.get("text"): each
            for each in found["widgets"] or []
        }
        put = _mark(found).get("widgets", {})
        once = dict(put) if isinstance(put, dict) else dict.fromkeys(put)  # an older install kept no places
        for name, place in _places(12 if self.api.version >= WIDE else 6):
            what = place["text"] or visualizations[place["query"], place["visualization"]]
            widget = there.get(what)
            if widget is None and name not in once:
                self.api.post("/api/widgets", _widget(number, place, what))
            elif widget and (replace or widget["options"].get("position") == once.get(name) != place["position"]):
                body = {"text": widget["text"], "options": {**widget["options"], "position": place["position"]}}
                self.api.post(f"/api/widgets/{widget['id']}", body)
            once[name] = place["position"]
        found = self.api.get(f"/api/dashboards/{number}")
        published = {"options": _marked(found, once), "is_draft": False, "version": found["version"]}
        self._change(f"/api/dashboards/{number}", published)
        return number

    def _change(self, path: str, body: Item) -> Item:
        answer = self.api.request("POST", path, json=body, expected=(409,))
        if answer.status_code == 409:
            raise DashboardsError(
                f"Somebody changed the dashboard in Redash at {self.api.url} just now: run this again."
            )
        return dict(self.api.json(answer))


def _known(api: Api, kind: str, names: dict[str, str]) -> dict[str, Item]:
    """What is ours among all queries or dashboards, by the mark: an older install's, without one, by name and tag."""
    found: dict[str, Item] = {}
    for each in _all(api, kind):
        mark = _mark(each)
        key = mark.get("what") or (names.get(each["name"]) if TAG in each["tags"] else None)
        if key not in names.values() or mark.get("id", each["id"]) != each["id"]:
            continue  # somebody's own, or a fork of ours
        if key in found:
            raise DashboardsError(
                f"Redash at {api.url} has '{each['name']}' more than once (ids {found[key]['id']} and {each['id']}): "
                "archive all but one."
            )
        found[key] = each
    return found


def _all(api: Api, kind: str) -> Iterator[Item]:
    page, there = 1, True
    while there:
        answer = api.get(f"/api/{kind}", page=page, page_size=250)
        yield from answer["results"]
        there = page * answer["page_size"] < answer["count"]
        page += 1


def _dashboard(api: Api) -> Item | None:
    found = _known(api, "dashboards", {NAME: NAME}).get(NAME)
    return api.get(f"/api/dashboards/{found['id']}") if found else None


def _installed(api: Api) -> Item:
    dashboard = _dashboard(api)
    if dashboard is None:
        raise DashboardsError(f"The dashboard is not installed in Redash at {api.url}: run `pulse dashboards redash`.")
    return dashboard


def _mark(item: Item) -> Item:
    return dict((item.get("options") or {}).get(MARK) or {})


def _marked(dashboard: Item, widgets: Item) -> Item:
    """A dashboard's options with our mark."""
    kept = _mark(dashboard).get("widgets")
    mark = {"what": NAME, "id": dashboard["id"], "widgets": widgets or kept or {}}
    return {**(dashboard.get("options") or {}), MARK: mark}


def _stamped(text: str) -> str:
    """A query's text whose first line says that answers from before now are of no use."""
    now = datetime.now(UTC).isoformat(" ", "microseconds")
    return f"-- Answers from before {now} are out of date.\n{STAMP.sub('', text)}"


def _fingerprint(query: Item) -> str:
    """A name for what a query says and shows; what others added to it is not in it."""
    ours = _mark(query).get("visualizations", [])
    shown = {each["name"]: each for each in query["visualizations"] if each["name"] in ours}
    content = [
        query["name"],
        query["description"],
        STAMP.sub("", query["query"]),
        query["options"].get("parameters"),
        [[shown.get(name, {}).get(part) for part in ("type", "description", "options")] for name in sorted(ours)],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


# --- what is in the project -------------------------------------------------------------------------------------------


def _definitions() -> dict[str, Item]:
    return {path.stem: _yaml(path) for path in sorted((FOLDER / "queries").glob("*.yaml"))}


def _layout() -> Item:
    return _yaml(FOLDER / "dashboard.yaml")


def _yaml(path: Path) -> Item:
    return dict(yaml.safe_load(path.read_text()))


def _parameters(names: Iterable[str]) -> list[Item]:
    known = _layout()["parameters"]
    return [{"name": name, "global": False, "locals": [], **known[name]} for name in names]


def _names() -> dict[str, str]:
    """The queries' files by the names under which they are installed."""
    return {definition["name"]: key for key, definition in _definitions().items()}


def _places(columns: int) -> Iterator[tuple[str, Item]]:
    """The widgets by name, each with what it shows and where it stands first, in a grid of so many columns."""
    top = 0
    for row in _layout()["rows"]:
        query, height = row.get("query", ""), row.get("height", 2)
        shown = row.get("widgets", [""])
        beside = len(shown) if columns % len(shown) == 0 else len(shown) // 2  # else in two lines
        for line in range(0, len(shown), beside):
            for place, name in enumerate(shown[line : line + beside]):
                width = columns // beside
                position = {"col": place * width, "row": top, "sizeX": width, "sizeY": height, "autoHeight": False}
                text = row.get("text", "")
                what = {"text": text, "query": query, "visualization": name, "position": position}
                yield text or f"{query}: {name}", what
            top += height


def _widget(dashboard: int, place: Item, what: int | str) -> Item:
    """A widget whose parameters are the dashboard's."""
    names = _definitions()[place["query"]]["parameters"] if place["query"] else []
    mappings = {
        name: {"name": name, "type": "dashboard-level", "mapTo": name, "value": None, "title": ""} for name in names
    }
    return {
        "dashboard_id": dashboard,
        "visualization_id": None if place["text"] else what,
        "text": place["text"],
        "width": 1,
        "options": {"isHidden": False, "position": place["position"], "parameterMappings": mappings},
    }


def visualization(definition: Item) -> Item:
    """A visualization as Redash has it, from a few words: a counter, lines by day, bars, or a table."""
    common = {"name": definition["name"], "description": definition["description"]}
    if "counter" in definition:
        return {**common, "type": "COUNTER", "options": _counter(definition)}
    if "table" in definition:
        hidden = definition.get("hidden", [])  # Redash shows each column that it is not told of
        columns = [_column(name, place) for place, name in enumerate([*definition["table"], *hidden])]
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


def _column(name: str, place: int) -> Item:
    text = name == "dimension_value"
    shown = {"displayAs": "string"} if text else {"displayAs": "number", "numberFormat": "0,0"}
    return {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "type": "string" if text else "integer",
        "order": place,
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
