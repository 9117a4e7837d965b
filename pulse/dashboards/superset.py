"""Superset: installs `dashboards/superset/bundle/` over the REST interface, and reads the numbers that it shows.

The bundle has Superset's own export format. Superset identifies its files by their uuids, so installing again updates
them. The dashboard's certification then holds a fingerprint of everything that was installed; when the fingerprint no
longer matches, somebody has changed something by hand.
"""

import hashlib
import io
import json
import re
import zipfile
from datetime import date, timedelta
from operator import itemgetter
from typing import Any
from urllib.parse import quote

import yaml

from pulse import settings
from pulse.dashboards import Api, DashboardsError, Reader, said
from pulse.dashboards.links import time_range
from pulse.metrics import shown_in

BUNDLE = settings.ROOT / "dashboards" / "superset" / "bundle"
SLUG = "pulse"
OLDEST = (6, 1)
KEPT_BY = "Pulse, from dashboards/superset"  # certifies the dashboard; the details hold the fingerprint

# What Superset itself changes when a dashboard is opened or saved, and what belongs to one server or installation.
_ITS_OWN = ("map_label_colors", "shared_label_colors", "color_scheme_domain", "default_filters")
_CERTIFIED = ("certified_by", "certification_details")

Assets = dict[str, Any]
"""Files of a bundle, parsed and without the server's own ids, by kind and uuid."""


def install(config: settings.Settings, *, replace: bool = False) -> str:
    """Install or update the bundle; returns the dashboard's address.

    Args:
        config: where Superset is, the account there, and what its dashboards read.
        replace: overwrite what was changed there by hand.

    Raises:
        DashboardsError: nothing was changed; the text says why and what to do.
    """
    reader = Reader(config)
    api = connect(config)
    _check_connection(api, reader)
    if not replace:
        _check_untouched(api, reader)
    path = "/api/v1/assets/import/"
    upload = {"bundle": ("bundle.zip", _zipped(reader))}
    passwords = json.dumps({"databases/Pulse.yaml": reader.password})
    # Superset imports a bundle in one transaction.
    answer = api.request("POST", path, files=upload, data={"passwords": passwords}, expected=(400, 409, 422, 500))
    if answer.is_error:
        raise DashboardsError(f"Superset at {api.url} did not take the bundle, {said(answer)}; nothing was changed.")
    dashboard = _dashboard(api)
    assert dashboard is not None
    mark = {"certified_by": KEPT_BY, "certification_details": fingerprint(exported(api, dashboard["id"]))}
    api.request("PUT", f"/api/v1/dashboard/{dashboard['id']}", json=mark)
    return f"{api.url}/superset/dashboard/{SLUG}/"


def connect(config: settings.Settings) -> Api:
    """Superset's REST interface, logged in.

    Raises:
        DashboardsError: Superset cannot be reached, is too old, or refuses.
    """
    api = Api("Superset", config.superset_url, "SUPERSET_URL", "SUPERSET_USER and SUPERSET_PASSWORD, and their role")
    _check_version(api)
    password = config.superset_password.get_secret_value()
    if not config.superset_user or not password:
        raise DashboardsError("Superset needs an account: set SUPERSET_USER and SUPERSET_PASSWORD.")
    who = {"username": config.superset_user, "password": password, "provider": "db", "refresh": False}
    api.headers["Authorization"] = f"Bearer {api.post('/api/v1/security/login', who)['access_token']}"
    api.headers["X-CSRFToken"] = api.get("/api/v1/security/csrf_token/")["result"]
    api.headers["Referer"] = api.url
    return api


def is_installed(api: Api) -> bool:
    """Whether the dashboard is there.

    Raises:
        DashboardsError: Superset refuses.
    """
    return _dashboard(api) is not None


def numbers(config: settings.Settings, day: date) -> dict[str, float | None]:
    """The numbers that the dashboard's charts show for a day: the report's metrics by column.

    Raises:
        DashboardsError: Superset cannot be reached or refuses, or the dashboard is not installed.
    """
    api = connect(config)
    if _dashboard(api) is None:
        raise DashboardsError(
            f"The dashboard is not installed in Superset at {api.url}: run `pulse dashboards superset`."
        )
    charts = shown(api)
    ours = {metric.column: headline_chart(metric.column) for metric in shown_in("report")}
    for chart in ours.values():
        if chart["uuid"] not in charts:
            raise DashboardsError(
                f"The dashboard in Superset has no '{chart['slice_name']}': run `pulse dashboards superset`."
            )
    asked = [_saved(api, charts[chart["uuid"]], time_range(day)) for chart in ours.values()]
    # All charts use one dataset, so one request asks for all of them; `force` bypasses Superset's cache.
    together = {**asked[0], "force": True, "queries": [query for context in asked for query in context["queries"]]}
    found: dict[str, float | None] = {}
    for (column, chart), answer in zip(ours.items(), _answers(api, together), strict=True):
        label = chart["params"]["metric"]
        found[column] = {row.get("period"): row.get(label) for row in answer["data"]}.get(_milliseconds(day))
    return found


def headline_chart(column: str) -> dict[str, Any]:
    """The chart of the bundle that shows a metric of the report as one large number: the file of the metric's name."""
    return dict(yaml.safe_load((BUNDLE / "charts" / f"{column}.yaml").read_text()))


def shown(api: Api) -> dict[str, int]:
    """The charts on the dashboard: their ids by uuid."""
    position = json.loads(api.get(f"/api/v1/dashboard/{SLUG}")["result"]["position_json"] or "{}")
    parts = [part for part in position.values() if isinstance(part, dict) and part.get("type") == "CHART"]
    return {part["meta"].get("uuid", ""): part["meta"]["chartId"] for part in parts}


def ask(api: Api, chart: int, time_range: str, grain: str = "") -> dict[str, Any]:
    """What a chart gets with the date filter, and `Trends by` on day, week or month: its `data` and its `query`."""
    context = _saved(api, chart, time_range)
    for query in context["queries"]:
        if grain:
            query["filters"].append({"col": "grain", "op": "IN", "val": [grain]})
    return _answers(api, context)[0]


def _saved(api: Api, chart: int, time_range: str) -> dict[str, Any]:
    """A chart's saved query, for a time range."""
    context = json.loads(api.get(f"/api/v1/chart/{chart}")["result"]["query_context"] or "{}")
    if not context:
        raise DashboardsError("A chart in Superset was saved without its query: run `pulse dashboards superset`.")
    for query in context["queries"]:
        query["time_range"] = time_range
    return dict(context)


def _answers(api: Api, context: dict[str, Any]) -> list[dict[str, Any]]:
    """Superset's answers, one for each query."""
    answers: list[dict[str, Any]] = api.post("/api/v1/chart/data", context)["result"]
    return answers


# --- what is there, and what should be --------------------------------------------------------------------------------


def exported(api: Api, dashboard: int) -> Assets:
    """Everything that a dashboard consists of, as it is in Superset now."""
    content = api.request("GET", "/api/v1/dashboard/export/", params={"q": f"!({dashboard})"}).content
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        return _assets({name.partition("/")[2]: bundle.read(name).decode() for name in bundle.namelist()})


def bundled(reader: Reader) -> Assets:
    """Everything that the dashboard consists of, as it is in the project, with the names of this reader's tables."""
    return _assets(_files(reader))


def fingerprint(assets: Assets) -> str:
    """A hash of everything that somebody may change by hand."""
    return hashlib.sha256(json.dumps(assets, sort_keys=True).encode()).hexdigest()[:16]


def _files(reader: Reader) -> dict[str, str]:
    files = {str(path.relative_to(BUNDLE)): path.read_text() for path in sorted(BUNDLE.rglob("*.yaml"))}
    for name, text in files.items():
        if name.startswith("datasets/") and reader.prefix:
            dataset = yaml.safe_load(text)
            changed = {**dataset, "sql": reader.query(dataset["sql"])}
            files[name] = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    return files


def _assets(files: dict[str, str]) -> Assets:
    parsed = {name: yaml.safe_load(text) for name, text in files.items() if not name.endswith("metadata.yaml")}
    charts: dict[int, str] = {}
    for content in parsed.values():
        for part in content.get("position", {}).values():
            if isinstance(part, dict) and part["type"] == "CHART":
                charts[part["meta"]["chartId"]] = part["meta"].get("uuid", "")
    kinds = ((name.split("/")[0], content) for name, content in parsed.items())
    return {f"{kind}/{content['uuid']}": _without_ids(kind, content, charts) for kind, content in kinds}


def _without_ids(kind: str, content: Assets, charts: dict[int, str]) -> Assets:
    """A file's content with uuids in place of the ids that the server assigned."""
    if kind == "charts":
        context = json.loads(content.get("query_context") or "{}")
        for chosen in (context, content["params"]):
            chosen.pop("datasource", None)
        return {**content, "query_context": context}
    if kind == "datasets":  # which Superset exports in arbitrary order
        ordered = {"metrics": "metric_name", "columns": "column_name"}
        return {**content, **{part: sorted(content[part], key=itemgetter(name)) for part, name in ordered.items()}}
    if kind != "dashboards":
        return content
    metadata = {name: value for name, value in content.get("metadata", {}).items() if name not in _ITS_OWN}
    for each in metadata.get("native_filter_configuration", []):
        scope = each.get("scope", {})
        scope["excluded"] = sorted(charts.get(number, "") for number in scope.get("excluded", []))
        each.pop("chartsInScope", None)
        each.pop("tabsInScope", None)
    metadata.get("global_chart_configuration", {}).pop("chartsInScope", None)
    metadata.pop("chart_configuration", None)
    for part in content["position"].values():
        if isinstance(part, dict) and part["type"] == "CHART":
            part["meta"].pop("chartId")
    rest = {name: value for name, value in content.items() if name not in _CERTIFIED}
    return {**rest, "metadata": metadata}


def _zipped(reader: Reader) -> bytes:
    """The bundle as Superset imports it, with the reader's connection; the password is sent separately."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in _files(reader).items():
            if name.startswith("databases/"):
                database = yaml.safe_load(text)
                text = yaml.safe_dump({**database, "sqlalchemy_uri": _uri(reader, "XXXXXXXXXX")}, sort_keys=False)
            bundle.writestr(f"bundle/{name}", text)
    return buffer.getvalue()


def _uri(reader: Reader, password: str) -> str:
    who = f"{quote(reader.user, safe='')}:{quote(password, safe='')}"
    secure = "?secure=true" if reader.secure else ""
    return f"clickhousedb://{who}@{reader.host}:{reader.port}/{reader.database}{secure}"


# --- checks before anything is changed --------------------------------------------------------------------------------


def _check_version(api: Api) -> None:
    wanted = ".".join(map(str, OLDEST))
    answer = api.request("GET", "/version", expected=(401, 403, 404))
    tells = answer.is_success and "json" in answer.headers.get("content-type", "")
    if not tells and api.request("GET", "/health", expected=(401, 403, 404)).text.strip() == "OK":
        raise DashboardsError(
            f"Superset at {api.url} does not say its version, which {wanted} and newer do: upgrade it."
        )
    told = str(dict(api.json(answer)).get("version_string", ""))
    numbered = re.match(r"(\d+)\.(\d+)", told)
    if not numbered or tuple(map(int, numbered.groups())) < OLDEST:
        raise DashboardsError(f"Superset at {api.url} is version '{told}'; {wanted} or newer is needed: upgrade it.")


def _check_connection(api: Api, reader: Reader) -> None:
    """Check that Superset reaches ClickHouse."""
    test = {"sqlalchemy_uri": _uri(reader, reader.password), "database_name": "Pulse"}
    answer = api.request("POST", "/api/v1/database/test_connection/", json=test, expected=(400, 422, 500))
    if answer.is_error:
        reason = said(answer).replace(reader.password, "…")
        raise DashboardsError(
            f"Superset cannot read {reader.address} as {reader.user} ({reason}): check CLICKHOUSE_READER_URL, "
            "which is the address as Superset sees it, and that clickhouse-connect is installed beside Superset."
        )


def _dashboard(api: Api) -> dict[str, Any] | None:
    answer = api.request("GET", f"/api/v1/dashboard/{SLUG}", expected=(404,))
    return None if answer.status_code == 404 else dict(api.json(answer)["result"])


def _check_untouched(api: Api, reader: Reader) -> None:
    """Check that nothing would be overwritten that somebody changed by hand."""
    found = _dashboard(api)
    if found is None:
        return
    ours = next(name for name in bundled(reader) if name.startswith("dashboards/"))
    now = exported(api, found["id"])
    if ours not in now:
        raise DashboardsError(
            f"Superset at {api.url} has another dashboard with the address '{SLUG}': give that dashboard another slug."
        )
    if found.get("certification_details") == fingerprint(now):
        return
    if differing := _differing(now, reader):
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise DashboardsError(
            f"The dashboard in Superset at {api.url} was edited by hand since it was installed "
            f"({', '.join(differing[:5])}{more}): "
            "export the changes into dashboards/superset/bundle, or overwrite them with --replace."
        )


def _differing(now: Assets, reader: Reader) -> list[str]:
    """The files that differ from the bundle, by kind and title."""
    wanted, differing = bundled(reader), []
    for key in sorted({*now, *wanted}):
        if key.startswith("databases/") and key in wanted:
            wanted[key]["sqlalchemy_uri"] = _uri(reader, "XXXXXXXXXX")
        if now.get(key) != wanted.get(key):
            content = now.get(key) or wanted[key]
            titles = ("slice_name", "dashboard_title", "table_name", "database_name")
            title = next(content[name] for name in titles if name in content)
            differing.append(f"{key.split('/')[0].removesuffix('s')} '{title}'")
    return differing


def _milliseconds(day: date) -> int:
    return (day - date(1970, 1, 1)) // timedelta(milliseconds=1)
