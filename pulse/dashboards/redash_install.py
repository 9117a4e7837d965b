"""Installs the dashboard in Redash, or brings it up to date."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pulse.dashboards import Api, DashboardsError, Reader
from pulse.dashboards.redash_api import MARK, NAME, TAG, find_dashboard, fingerprint, known, mark, marked, stamped
from pulse.dashboards.redash_files import Item, definitions, names, new_widget, parameters, visualization, widgets

WIDE = (25, 8)  # from this version on the grid has twice as many columns; Redash doubles old positions when upgraded


@dataclass(frozen=True)
class Installation:
    """One installation: what should be in Redash, and what is there."""

    api: Api
    reader: Reader

    @cached_property
    def queries(self) -> dict[str, Item]:
        """Our queries in Redash, by the name of their file."""
        found = known(self.api, "queries", names())
        return {key: self.api.get(f"/api/queries/{each['id']}") for key, each in found.items()}

    @cached_property
    def source(self) -> Item | None:
        """Our data source in Redash: the one that our queries use, whatever its name, else the one with our name."""
        asked = {each["data_source_id"] for each in self.queries.values()}
        listed = self.api.get("/api/data_sources")
        ours = [each for each in listed if each["id"] in asked] or [each for each in listed if each["name"] == NAME]
        return self.api.get(f"/api/data_sources/{ours[0]['id']}") if ours else None

    @cached_property
    def dashboard(self) -> Item | None:
        """Our dashboard in Redash."""
        return find_dashboard(self.api)

    def carry_out(self, replace: bool) -> str:
        """Check everything first, then change it; returns the dashboard's address."""
        edited = list(self._edited())
        _ = self.dashboard
        if edited and not replace:
            raise DashboardsError(
                f"Redash at {self.api.url} was edited by hand since it was installed ({', '.join(edited)}): "
                "copy the changes into dashboards/redash, or overwrite them with --replace."
            )
        source = self._put_source()
        visualizations: dict[tuple[str, str], int] = {}
        for key, definition in definitions().items():
            for name, number in self._put_query(key, definition, source).items():
                visualizations[key, name] = number
        return f"{self.api.url}/dashboards/{self._put_dashboard(visualizations, replace)}"

    def _edited(self) -> Iterator[str]:
        """What differs from what was installed. A draft is an installation that was cut off."""
        if self.source:
            options = self.source["options"]
            wanted = {name: value for name, value in self._source_options().items() if name != "password"}
            if self.source["name"] != NAME or any(options.get(name) != value for name, value in wanted.items()):
                yield f"data source '{self.source['name']}'"
        for found in self.queries.values():
            if not found["is_draft"] and mark(found).get("fingerprint") != fingerprint(found):
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
        """Create or update the data source, and check that it reaches ClickHouse; returns its id."""
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
        """Create or update a query with its visualizations; returns the visualizations' ids by name."""
        found = self.queries.get(key)
        content = {
            "name": definition["name"],
            "description": definition["description"],
            "query": stamped(self.reader.query(definition["query"])),
            "data_source_id": source,
            "tags": [TAG],
        }
        options = {**(found["options"] if found else {}), "parameters": parameters(definition["parameters"])}
        if found is None:
            options[MARK] = {"what": key}  # so that it is recognized if this is interrupted
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
        found["options"][MARK]["fingerprint"] = fingerprint(found)
        published = {"options": found["options"], "is_draft": False, "version": found["version"]}
        self._change(f"/api/queries/{found['id']}", published)
        return {name: there[name] for name in names}

    def _put_dashboard(self, visualizations: dict[tuple[str, str], int], replace: bool) -> int:
        """Create or update the dashboard: add widgets that it never had, move those that nobody moved by hand."""
        found = self.dashboard or self.api.post("/api/dashboards", {"name": NAME})
        number = int(found["id"])
        if TAG not in found["tags"]:  # before it has widgets, so that it is recognized if this is interrupted
            tagged = {"tags": [*found["tags"], TAG], "options": marked(found, {}), "version": found["version"]}
            found = self._change(f"/api/dashboards/{number}", tagged)
        there = {
            each["visualization"]["id"] if "visualization" in each else each.get("text"): each
            for each in found["widgets"] or []
        }
        put = mark(found).get("widgets", {})
        once = dict(put) if isinstance(put, dict) else dict.fromkeys(put)  # an older install kept no positions
        for name, wanted in widgets(12 if self.api.version >= WIDE else 6):
            what = wanted["text"] or visualizations[wanted["query"], wanted["visualization"]]
            widget = there.get(what)
            if widget is None and name not in once:
                self.api.post("/api/widgets", new_widget(number, wanted, what))
            elif widget and (replace or widget["options"].get("position") == once.get(name) != wanted["position"]):
                body = {"text": widget["text"], "options": {**widget["options"], "position": wanted["position"]}}
                self.api.post(f"/api/widgets/{widget['id']}", body)
            once[name] = wanted["position"]
        found = self.api.get(f"/api/dashboards/{number}")
        published = {"options": marked(found, once), "is_draft": False, "version": found["version"]}
        self._change(f"/api/dashboards/{number}", published)
        return number

    def _change(self, path: str, body: Item) -> Item:
        answer = self.api.request("POST", path, json=body, expected=(409,))
        if answer.status_code == 409:
            raise DashboardsError(
                f"Somebody changed the dashboard in Redash at {self.api.url} just now: run this again."
            )
        return dict(self.api.json(answer))
