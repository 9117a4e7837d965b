"""The archive in Airflow: an app of pages behind Airflow's own login, and its entry in the menu.

Airflow finds the plugin by the entry point in pyproject.toml and loads it in all of its processes; only the API server
builds the app.
"""

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from jsonschema import FormatChecker

from pulse import settings
from pulse.orchestration.addresses import HOME, address

ENDED_DAY, PAST_MOMENT = "day that has ended", "moment that has come"
"""Formats of the trigger form's parameters, by which Airflow refuses a day or a moment that is still to come."""


def _check_formats() -> None:
    """Teach Airflow's form the formats, in whatever process it checks one: it knows those of JSON Schema alone."""

    def is_past(read: str) -> Callable[[object], bool]:
        def check(value: object) -> bool:
            if isinstance(value, str):
                try:
                    getattr(settings.load(), read)(value)
                except settings.SettingsError:
                    return False
            return True

        return check

    FormatChecker.checkers[ENDED_DAY] = (is_past("event_day"), ())
    FormatChecker.checkers[PAST_MOMENT] = (is_past("moment"), ())


_check_formats()


class ArchivePlugin(AirflowPlugin):
    """The archive's pages and their menu entry."""

    name = "pulse_archive"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app, built when it is first asked for."""
        from pulse.orchestration.archive_app import make_app  # fastapi, which only the API server should load

        return [{"app": make_app(), "url_prefix": HOME, "name": "Archive"}]

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The middleware that sets the time zone of Airflow's own pages."""
        return [{"middleware": ProjectZone, "name": "The project's time zone"}]

    @property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The menu entry, which shows the pages inside Airflow's."""
        return [
            {"name": "Archive", "href": address(), "destination": "nav", "url_route": "archive", "nav_top_level": True}
        ]


class ProjectZone:
    """Makes Airflow's pages show times in the project's time zone until a reader chooses another one.

    Airflow leaves the choice to each browser, which keeps it in its local storage under `timezone`, and has no setting
    for the initial one. So this adds a script to the head of each page that makes the choice if there is none.

    Args:
        app: Airflow's app (ASGI).
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Add the script to a page of Airflow, and leave everything else as it is."""
        if scope["type"] != "http" or scope["path"].startswith((f"{HOME}/", "/api/", "/auth/", "/execution/")):
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = b""

        async def changed(message: Any) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers:
                    start = message
                    return
            if not start:
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            page = body.replace(b"<head>", b"<head>" + _first_words(), 1)
            kept = [each for each in start["headers"] if each[0] != b"content-length"]
            await send({**start, "headers": [*kept, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, changed)


def _first_words() -> bytes:
    zone = json.dumps(json.dumps(settings.load().timezone))  # as the browser keeps it, within a script
    return f'<script>localStorage.getItem("timezone") ?? localStorage.setItem("timezone", {zone})</script>'.encode()
