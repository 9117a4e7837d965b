"""The archive in Airflow: an app of pages behind Airflow's own login, and its entry in the menu.

Airflow finds the plugin by the entry point in pyproject.toml and loads it in all of its processes; only the API server
builds the app.
"""

import json
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin
from jsonschema import FormatChecker

from pulse import PulseError, archive, settings

HOME = "/archive"
ENDED_DAY, PAST_MOMENT = "day that has ended", "moment that has come"
"""Formats of the trigger form's parameters, by which Airflow refuses a day or a moment that is still to come."""

WARM_UP_SECONDS = 20.0  # after the app is made: while the server starts, tasks wait for it


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


def address(rest: str = "") -> str:
    """Where the archive is on Airflow's server, under the path that its base address has."""
    prefix = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return f"{prefix}{HOME}/{rest}"


class ArchivePlugin(AirflowPlugin):
    """The archive's pages and their menu entry."""

    name = "pulse_archive"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app, built where it is asked for."""
        return [{"app": make_app(), "url_prefix": HOME, "name": "Archive"}]

    @property
    def fastapi_root_middlewares(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """What gives Airflow's own pages the project's time zone."""
        return [{"middleware": ProjectZone, "name": "The project's time zone"}]

    @property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The menu entry, which shows the pages within Airflow's."""
        return [
            {"name": "Archive", "href": address(), "destination": "nav", "url_route": "archive", "nav_top_level": True}
        ]


class ProjectZone:
    """Has Airflow's pages show times in the project's zone, until a reader chooses another.

    Airflow leaves the zone to each browser, which keeps a choice under `timezone`; there is no setting for where it
    begins. So the page's first words make that choice where there is none.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Put the words into a page of Airflow's, and nothing into anything else."""
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


def make_app() -> Any:
    """The pages as an app: every address asks for Airflow's login, and shows only what the reader may see there."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.responses import HTMLResponse, RedirectResponse, Response

    from pulse.archive import index, pages

    Reader = Annotated[Any, Depends(get_user)]  # noqa: N806

    app = FastAPI(
        title="Archive",
        dependencies=[Depends(get_user)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    def answer(request: Request, user: Any, page: Callable[[index.Index, pages.Look], Any]) -> Any:
        """A page, made for a reader."""
        config = settings.load()
        with index.opened(archive.folder(config.output)) as opened:
            allowed = get_auth_manager().filter_authorized_dag_ids(dag_ids=set(opened.dags()), user=user)
            made = page(opened, pages.Look(config, dags=frozenset(allowed), framed=_framed(request)))
        return made if isinstance(made, Response) else HTMLResponse(made)

    @app.get("/")
    @app.get("/index.html")
    def runs(request: Request, user: Reader) -> Any:
        asked = request.query_params
        names = ("first", "last", "dag", "notebook", "outcome", "text", "run_id", "task")
        number = asked.get("page", "1")

        def page(opened: index.Index, look: pages.Look) -> str:
            wanted = index.Filter(**{name: asked.get(name, "")[:200] for name in names}, dags=look.dags)
            return pages.list_page(opened, look, wanted, max(1, int(number[:18])) if number.isdecimal() else 1)

        return answer(request, user, page)

    @app.get("/run/{where:path}")
    def run(request: Request, where: str, user: Reader) -> Any:
        return answer(request, user, lambda opened, look: pages.run_page(opened, look, pages.place(where)))

    @app.get("/compare.html")
    def compare(request: Request, user: Reader, left: str = "", right: str = "") -> Any:
        return answer(request, user, lambda opened, look: pages.compare_page(opened, look, left, right))

    @app.get("/notebook/{where:path}")
    def notebook(request: Request, where: str, user: Reader) -> Any:
        def file(opened: index.Index, look: pages.Look) -> Response:
            if not look.sees(opened.attempt(where)):
                raise archive.ArchiveError(f"The archive holds no run {where[:200]!r}.")
            content = archive.find(opened.root, where).read_bytes()
            name = where.rpartition("/")[2].encode("ascii", "replace").decode().replace('"', "")
            kept = {"Content-Disposition": f'attachment; filename="{name}"'}
            return Response(content, media_type="application/x-ipynb+json", headers=kept)

        return answer(request, user, file)

    @app.get("/task")
    def task(request: Request, dag: str, run_id: str, task: str, user: Reader) -> Any:
        def newest(opened: index.Index, look: pages.Look) -> Any:
            wanted = index.Filter(dag=dag, run_id=run_id, task=task, dags=look.dags)
            found = opened.search(wanted).attempts
            if not found:
                return pages.list_page(opened, look, wanted)
            return RedirectResponse(archive.address(max(found, key=lambda each: each.number).path))

        return answer(request, user, newest)

    @app.exception_handler(PulseError)
    def sentence(request: Request, error: Exception) -> Any:
        look = pages.Look(settings.load(), framed=_framed(request))
        page = pages.message_page(look, "Not found", str(error), address())
        return HTMLResponse(page, 404)

    @app.exception_handler(HTTPException)
    def refusal(request: Request, error: Exception) -> Any:
        refused = cast(HTTPException, error)
        if refused.status_code == 401 and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(get_auth_manager().get_url_login(next_url=str(request.url)))
        return Response(str(refused.detail), refused.status_code, media_type="text/plain")

    @app.middleware("http")
    async def careful(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = pages.policy()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cache-Control"] = "private, no-store"
        return response

    later = threading.Timer(WARM_UP_SECONDS, _warm_up)
    later.daemon = True
    later.start()
    return app


def _framed(request: Any) -> bool:
    """Whether the page is shown within Airflow's own."""
    return bool(request.headers.get("sec-fetch-dest") == "iframe")


def _warm_up() -> None:
    """Load what showing a notebook takes, so that the first reader does not wait for it."""
    from pulse.archive import compare, render

    assert compare
    render.warm_up()
