"""Redash's REST interface, and which of a Redash's queries and dashboards are ours.

Redash assigns ids of its own, so our queries and our dashboard carry a mark in their options, whatever they are called.
A query's mark says which file it comes from and holds a fingerprint of what was installed, to notice manual edits. The
dashboard's mark lists the widgets that were put on it and where, so that a widget that somebody removed stays removed,
and one that somebody moved stays where it is. A mark also holds the id of the query or dashboard that it belongs to,
since Redash copies the options of a query that somebody forks.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from pulse import settings
from pulse.dashboards import SECONDS, Api, DashboardsError
from pulse.dashboards.redash_files import Item

NAME, TAG, MARK = "Pulse", "pulse", "pulse"
OLDEST = (10,)
FINISHED, FAILED, CANCELLED = 3, 4, 5  # the states of a job
STAMP = re.compile(r"\A-- Answers from before .* are out of date\.\n")


def connect(config: settings.Settings) -> Api:
    """Redash's REST interface.

    Raises:
        DashboardsError: Redash cannot be reached, is too old, or refuses.
    """
    api = Api("Redash", config.redash_url, "REDASH_URL", "REDASH_API_KEY, which must be an administrator's")
    key = config.redash_api_key.get_secret_value()
    if not key:
        raise DashboardsError("Redash needs an API key: set REDASH_API_KEY to the key on your profile page.")
    api.headers["Authorization"] = f"Key {key}"
    answer = api.request("GET", "/api/session", expected=(404,))
    if answer.status_code == 404:  # what Redash answers without a valid key
        raise DashboardsError(f"Redash at {api.url} does not know the key: check REDASH_API_KEY and REDASH_URL.")
    version = str(dict(api.json(answer)).get("client_config", {}).get("version", ""))
    api.version = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if api.version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise DashboardsError(f"Redash at {api.url} is version '{version}'; {wanted} or newer is needed: upgrade it.")
    return api


def result(api: Api, query: int, max_age: int = 0, **parameters: str) -> list[Item]:
    """The rows of an installed query.

    Args:
        api: where it is installed.
        query: its id.
        max_age: how old a cached answer may be, in seconds; -1: any age, which is what the dashboard asks for.
        parameters: their values.

    Raises:
        DashboardsError: the query failed or took too long.
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


def known(api: Api, kind: str, names: dict[str, str]) -> dict[str, Item]:
    """Our queries or dashboards: known by their mark, those of an older version by name and tag."""
    found: dict[str, Item] = {}
    for each in _all(api, kind):
        ours = mark(each)
        key = ours.get("what") or (names.get(each["name"]) if TAG in each["tags"] else None)
        if key is None or key not in names.values() or ours.get("id", each["id"]) != each["id"]:
            continue  # somebody else's, or a fork of ours
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


def find_dashboard(api: Api) -> Item | None:
    found = known(api, "dashboards", {NAME: NAME}).get(NAME)
    return api.get(f"/api/dashboards/{found['id']}") if found else None


def installed_dashboard(api: Api) -> Item:
    dashboard = find_dashboard(api)
    if dashboard is None:
        raise DashboardsError(f"The dashboard is not installed in Redash at {api.url}: run `pulse dashboards redash`.")
    return dashboard


def mark(item: Item) -> Item:
    return dict((item.get("options") or {}).get(MARK) or {})


def marked(dashboard: Item, widgets: Item) -> Item:
    """A dashboard's options with our mark in them."""
    kept = mark(dashboard).get("widgets")
    ours = {"what": NAME, "id": dashboard["id"], "widgets": widgets or kept or {}}
    return {**(dashboard.get("options") or {}), MARK: ours}


def stamped(text: str) -> str:
    """A query's text with a first line that invalidates all answers from before now."""
    now = datetime.now(UTC).isoformat(" ", "microseconds")
    return f"-- Answers from before {now} are out of date.\n{STAMP.sub('', text)}"


def fingerprint(query: Item) -> str:
    """A hash of what a query contains and shows, without what others added to it."""
    ours = mark(query).get("visualizations", [])
    shown = {each["name"]: each for each in query["visualizations"] if each["name"] in ours}
    content = [
        query["name"],
        query["description"],
        STAMP.sub("", query["query"]),
        query["options"].get("parameters"),
        [[shown.get(name, {}).get(part) for part in ("type", "description", "options")] for name in sorted(ours)],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
