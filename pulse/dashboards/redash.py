"""Redash: what lies in `dashboards/redash/` installed over the REST interface, and asked for its numbers.

Redash gives ids of its own, so ours are known by their name and the tag `pulse`. They hold a mark in their options: a
query a fingerprint of what was installed, by which an edit by hand is known; the dashboard the widgets that were put on
it, so that one that somebody took off stays off. Where widgets stand is for those who look at them to decide.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pulse import settings
from pulse.dashboards import SECONDS, Api, DashboardsError, Reader

FOLDER = settings.ROOT / "dashboards" / "redash"
NAME, TAG, MARK = "Pulse", "pulse", "pulse"
OLDEST = 10
COLUMNS = 6  # of a dashboard's grid
FINISHED, FAILED, CANCELLED = 3, 4, 5  # a job's states

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
    numbered = re.match(r"\d+", version)
    if not numbered or int(numbered[0]) < OLDEST:
        raise DashboardsError(f"Redash at {api.url} is version '{version}'; {OLDEST} or newer is needed: upgrade it.")
    return api


def numbers(config: settings.Settings, day: date) -> dict[str, float | None]:
    """What the dashboard's query answers for a day: the report's metrics by their column.

    Raises:
        DashboardsError: Redash is not there or refuses, the query is not installed, or it failed.
    """
    api = connect(config)
    found = _ours(api, "queries", _definitions()["day"]["name"])
    if found is None:
        raise DashboardsError(f"The dashboard is not installed in Redash at {api.url}: run `pulse dashboards redash`.")
    row = result(api, found["id"], event_date=str(day))[0]
    percent, _ = row.pop("ctr_percent"), row.pop("event_date")
    return {**row, "ctr": None if percent is None else percent / 100}


def result(api: Api, query: int, **parameters: str) -> list[Item]:
    """The rows of an installed query, computed now.

    Raises:
        DashboardsError: it failed, or took too long.
    """
    answer = api.post(f"/api/queries/{query}/results", {"parameters": parameters, "max_age": 0})
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


# --- installing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Installation:
    """What is wanted, and what is there."""

    api: Api
    reader: Reader

    @cached_property
    def queries(self) -> dict[str, Item | None]:
        """The queries that are there, by the name of their file."""
        return {key: self._query(definition["name"]) for key, definition in _definitions().items()}

    @cached_property
    def source(self) -> Item | None:
        """The data source that is there."""
        named = [each for each in self.api.get("/api/data_sources") if each["name"] == NAME]
        return self.api.get(f"/api/data_sources/{named[0]['id']}") if named else None

    @cached_property
    def dashboard(self) -> Item | None:
        """The dashboard that is there."""
        found = _ours(self.api, "dashboards", NAME)
        return self.api.get(f"/api/dashboards/{found['id']}") if found else None

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
        return f"{self.api.url}/dashboards/{self._put_dashboard(visualizations)}"

    def _edited(self) -> Iterator[str]:
        """What is there and is not as it was installed. A draft was never installed to its end."""
        if self.source:
            options = self.source["options"]
            if any(options.get(name) != value for name, value in self._source_options().items() if name != "password"):
                yield f"data source '{NAME}'"
        for found in self.queries.values():
            if found and not found["is_draft"] and _mark(found).get("fingerprint") != _fingerprint(found):
                yield f"query '{found['name']}'"

    def _query(self, name: str) -> Item | None:
        found = _ours(self.api, "queries", name)
        return self.api.get(f"/api/queries/{found['id']}") if found else None

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
        found = self.queries[key]
        content = {
            "name": definition["name"],
            "description": definition["description"],
            "query": definition["query"],
            "data_source_id": source,
            "tags": [TAG],
        }
        options = {**(found["options"] if found else {}), "parameters": _parameters(definition["parameters"])}
        if found is None:
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
        found["options"][MARK] = {"visualizations": names}
        found["options"][MARK]["fingerprint"] = _fingerprint(found)
        published = {"options": found["options"], "is_draft": False, "version": found["version"]}
        self._change(f"/api/queries/{found['id']}", published)
        return {name: there[name] for name in names}

    def _put_dashboard(self, visualizations: dict[tuple[str, str], int]) -> int:
        """The dashboard, with the widgets that it has never had."""
        found = self.dashboard or self.api.post("/api/dashboards", {"name": NAME})
        if TAG not in found["tags"]:  # before it has widgets, so that it is known again if this is interrupted
            tagged = {"tags": [TAG], "version": found["version"]}
            found = self._change(f"/api/dashboards/{found['id']}", tagged)
        widgets = found["widgets"] or []
        there = {each["visualization"]["id"] if "visualization" in each else each["text"] for each in widgets}
        once = list(_mark(found).get("widgets", []))
        for name, place in _places():
            what = place["text"] or visualizations[place["query"], place["visualization"]]
            if what not in there and name not in once:
                self.api.post("/api/widgets", _widget(found["id"], place, what))
            if name not in once:
                once.append(name)
        found = self.api.get(f"/api/dashboards/{found['id']}")
        options = {**(found.get("options") or {}), MARK: {"widgets": once}}
        self._change(
            f"/api/dashboards/{found['id']}",
            {"options": options, "is_draft": False, "version": found["version"]},
        )
        return int(found["id"])

    def _change(self, path: str, body: Item) -> Item:
        answer = self.api.request("POST", path, json=body, expected=(409,))
        if answer.status_code == 409:
            raise DashboardsError(
                f"Somebody changed the dashboard in Redash at {self.api.url} just now: run this again."
            )
        return dict(self.api.json(answer))


def _ours(api: Api, kind: str, name: str) -> Item | None:
    """The query or dashboard of this name that has our tag."""
    found, page = [], 1
    while True:
        answer = api.get(f"/api/{kind}", page=page, page_size=100, tags=TAG)
        found += [each for each in answer["results"] if each["name"] == name and TAG in each["tags"]]
        if page * answer["page_size"] >= answer["count"]:
            break
        page += 1
    if len(found) > 1:
        raise DashboardsError(
            f"Redash at {api.url} has '{name}' with the tag '{TAG}' more than once: archive all but one."
        )
    return found[0] if found else None


def _mark(item: Item) -> Item:
    return dict((item.get("options") or {}).get(MARK) or {})


def _fingerprint(query: Item) -> str:
    """A name for what a query says and shows; what others added to it is not in it."""
    ours = _mark(query).get("visualizations", [])
    shown = {each["name"]: each for each in query["visualizations"] if each["name"] in ours}
    content = [
        query["name"],
        query["description"],
        query["query"],
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


def _places() -> Iterator[tuple[str, Item]]:
    """The widgets by name, each with what it shows and where it stands first."""
    top = 0
    for row in _layout()["rows"]:
        left, height = 0, row["height"]
        cells = row["widgets"].items() if "query" in row else [("", COLUMNS)]
        for shown, width in cells:
            place = {"col": left, "row": top, "sizeX": width, "sizeY": height, "autoHeight": False}
            text, query = row.get("text", ""), row.get("query", "")
            yield text or f"{query}: {shown}", {"text": text, "query": query, "visualization": shown, "position": place}
            left += width
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
        columns = [_column(name, place) for place, name in enumerate(definition["table"])]
        return {**common, "type": "TABLE", "options": {"itemsPerPage": 25, "columns": columns}}
    return {**common, "type": "CHART", "options": _chart(definition)}


def _counter(definition: Item) -> Item:
    """The event date, which is the first row, beside the same day of the week before, the eighth."""
    return {
        "counterLabel": definition["name"],
        "counterColName": definition["counter"],
        "rowNumber": 1,
        "targetColName": definition["counter"],
        "targetRowNumber": 8,
        "stringDecimal": definition.get("decimals", 0),
        "stringDecChar": ".",
        "stringThouSep": ",",
        "tooltipFormat": "0,0[.]00",
    }


def _column(name: str, place: int) -> Item:
    text = name == "dimension_value"
    shown = {"displayAs": "string"} if text else {"displayAs": "number", "numberFormat": "0,0"}
    return {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "type": "string" if text else "integer",
        "visible": True,
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
    colors = {name: {"type": kind, **({"color": color} if color else {})} for name, color in series.items()}
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
