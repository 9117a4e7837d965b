"""The archive's pages behind Airflow's login, as an app that the plugin mounts in Airflow's API server."""

import threading
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, cast

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from pulse import PulseError, archive, settings
from pulse.archive import index, pages
from pulse.orchestration.addresses import address

Reader: TypeAlias = Annotated[Any, Depends(get_user)]

WARM_UP_SECONDS = 20.0  # after the app is made: tasks wait for the server while it starts


def make_app() -> FastAPI:
    """The pages as an app: every address asks for Airflow's login, and shows only what the reader may see there."""
    app = FastAPI(title="Archive", dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
    _add_pages(app)
    _add_errors(app)
    _add_headers(app)
    later = threading.Timer(WARM_UP_SECONDS, _warm_up)
    later.daemon = True
    later.start()
    return app


def _add_pages(app: FastAPI) -> None:
    """The list of runs, a run, a comparison, a notebook as a file, and the way from a task to its run."""

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
        return answer(request, user, lambda opened, look: pages.run_page(opened, look, pages.notebook_path(where)))

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


def _add_errors(app: FastAPI) -> None:
    """What goes wrong as a page of one sentence; a reader who is not logged in goes to Airflow's login."""

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


def _add_headers(app: FastAPI) -> None:
    """The headers by which a browser runs no script of a notebook, and keeps no page."""

    @app.middleware("http")
    async def careful(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = pages.policy()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cache-Control"] = "private, no-store"
        return response


def _framed(request: Any) -> bool:
    """Whether the page is shown within Airflow's own."""
    return bool(request.headers.get("sec-fetch-dest") == "iframe")


def _warm_up() -> None:
    """Import what showing and comparing notebooks needs, so that the first reader does not wait for it."""
    from pulse.archive import compare, render

    assert compare
    render.warm_up()
