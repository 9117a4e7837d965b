"""Redash: `dashboards/redash/` installed over its REST interface, and asked for the numbers that it shows."""

import json
from datetime import date

from pulse import settings
from pulse.dashboards import DashboardsError, Reader
from pulse.dashboards.redash_api import connect, installed_dashboard, known, result, stamped
from pulse.dashboards.redash_files import Item, names
from pulse.dashboards.redash_install import Installation
from pulse.dashboards.redash_widgets import numbers_of, values_on

TRIES = 5  # at saving what somebody else may be saving at the same moment


def install(config: settings.Settings, *, replace: bool = False) -> str:
    """Install or update the data source, the queries and the dashboard; returns the dashboard's address.

    Args:
        config: where Redash is, the account there, and what its queries read.
        replace: overwrite what was changed there by hand.

    Raises:
        DashboardsError: nothing was changed, or what was begun is still a draft; the text says what to do.
    """
    return Installation(connect(config), Reader(config)).carry_out(replace)


def shown(config: settings.Settings, day: date) -> list[tuple[str, dict[str, float | None]]]:
    """What the dashboard's widgets show of a day: each widget's name, and its numbers by column of `daily_metrics`.

    These are the numbers that somebody sees who opens the dashboard on that day: those of the widgets that are on it
    now, whatever query is behind them, from Redash's cached answers. Numbers of slices are given by `slice_key`, and as
    their sum where that is a column of `daily_metrics`. Widgets that show another day, or nothing that the published
    tables contain, are left out.

    Raises:
        DashboardsError: Redash cannot be reached or refuses, the dashboard is not installed or is empty, or a query
            failed.
    """
    api = connect(config)
    dashboard = installed_dashboard(api)
    answers: dict[str, list[Item]] = {}
    found = []
    for widget in dashboard["widgets"]:
        drawn = widget.get("visualization")
        values = values_on(dashboard, widget, day) if drawn else None
        if values is None:
            continue
        key = json.dumps([drawn["query"]["id"], values])
        if key not in answers:
            answers[key] = result(api, drawn["query"]["id"], max_age=-1, **values)
        if numbers := numbers_of(drawn, answers[key], day, str(values.get("dimension", ""))):
            found.append((drawn["name"], numbers))
    if not found:
        raise DashboardsError(
            f"The dashboard in Redash at {api.url} shows none of the report's numbers; "
            "archive it there, then run `pulse dashboards redash`."
        )
    return found


def refresh(config: settings.Settings) -> int:
    """Make Redash compute the dashboard again when it is next opened; returns the number of its queries.

    Redash answers a query with the same text and parameters from its cache, whatever the age, and has no way to clear
    the cache. So the first line of each query holds a time: with a changed text, no cached answer fits any more, for
    any day and any parameters.

    Raises:
        DashboardsError: Redash cannot be reached or refuses, or the dashboard is not installed.
    """
    api = connect(config)
    installed_dashboard(api)
    queries = known(api, "queries", names())
    for query in queries.values():
        for left in range(TRIES, 0, -1):
            text = stamped(query["query"])
            path, body = f"/api/queries/{query['id']}", {"query": text, "version": query["version"]}
            answer = api.request("POST", path, json=body, expected=(409,) if left > 1 else ())
            if answer.is_success:
                break
            query = api.get(path)  # somebody saved it meanwhile
    return len(queries)
