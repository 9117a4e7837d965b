"""A stand-in for Redash's REST interface: the documented shapes, ids, drafts, versions and conflicts, kept in memory.

Queries run on a real ClickHouse the way Redash runs them: a POST with the credentials and `default_format=JSON` in the
URL, with `FORMAT JSON` after the statement. 64-bit integers arrive as strings and are turned back into numbers. Several
statements of one query share a session, which must exist for all but the first. Results are cached by the query's text
without white space and `/* */` comments. The same text gets the cached result unless `max_age` is 0; the cache never
expires. A fork of a query copies its options, a fork of a dashboard does not. Lists contain no visualizations, and a
page after the last is an error.

Tests against this stand-in check our client, not Redash.
"""

import copy
import hashlib
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any
from uuid import uuid4

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Item = dict[str, Any]
KEY = "an-administrators-key-of-forty-characters"
SECRET = "--------"  # noqa: S105


class Redash:
    """The content of a Redash, and a count of the changes made to it."""

    def __init__(self, version: str = "26.8.0") -> None:
        self.version = version
        self.url = ""
        self.changes = 0
        self.sources: dict[int, Item] = {}
        self.queries: dict[int, Item] = {}
        self.visualizations: dict[int, Item] = {}
        self.dashboards: dict[int, Item] = {}
        self.widgets: dict[int, Item] = {}
        self.jobs: dict[str, Item] = {}
        self.results: dict[int, Item] = {}
        self.before_change: list[Any] = []  # called once, before the next change
        self._ids = itertools.count(1)

    @property
    def columns(self) -> int:
        """The number of columns in a dashboard's grid."""
        return 12 if tuple(map(int, self.version.split(".")[:2])) >= (25, 8) else 6

    @contextmanager
    def serving(self) -> Iterator["Redash"]:
        """Answer on loopback for the length of the block."""
        config = uvicorn.Config(self._application(), port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield self
        server.should_exit = True
        thread.join()

    def _application(self) -> Starlette:
        routes = [
            Route("/api/session", self._session),
            Route("/api/data_sources", self._source_list, methods=["GET", "POST"]),
            Route("/api/data_sources/{id:int}", self._source, methods=["GET", "POST", "DELETE"]),
            Route("/api/data_sources/{id:int}/test", self._source_test, methods=["POST"]),
            Route("/api/queries", self._query_list, methods=["GET", "POST"]),
            Route("/api/queries/{id:int}", self._query, methods=["GET", "POST"]),
            Route("/api/queries/{id:int}/fork", self._fork_query, methods=["POST"]),
            Route("/api/queries/{id:int}/results", self._run, methods=["POST"]),
            Route("/api/jobs/{id}", self._job),
            Route("/api/query_results/{id:int}", self._result),
            Route("/api/visualizations", self._visualization_list, methods=["POST"]),
            Route("/api/visualizations/{id:int}", self._visualization, methods=["POST"]),
            Route("/api/dashboards", self._dashboard_list, methods=["GET", "POST"]),
            Route("/api/dashboards/{id:int}", self._dashboard, methods=["GET", "POST"]),
            Route("/api/dashboards/{id:int}/fork", self._fork_dashboard, methods=["POST"]),
            Route("/api/widgets", self._widget_list, methods=["POST"]),
            Route("/api/widgets/{id:int}", self._widget, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        app.add_middleware(BaseHTTPMiddleware, dispatch=self._known)
        return app

    async def _known(self, request: Request, proceed: Any) -> Response:
        if request.headers.get("authorization") != f"Key {KEY}":
            return PlainTextResponse("Couldn't find resource. Please login and try again.", 404)
        if request.method != "GET" and not request.url.path.endswith(("/test", "/results")):
            if self.before_change:
                self.before_change.pop()()
            self.changes += 1
        answer: Response = await proceed(request)
        return answer

    async def _session(self, _: Request) -> Response:
        return JSONResponse({"user": {"id": 1}, "org_slug": "default", "client_config": {"version": self.version}})

    # --- data sources -------------------------------------------------------------------------------------------------

    async def _source_list(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(
                [{part: each[part] for part in ("id", "name", "type")} for each in self.sources.values()]
            )
        body = await request.json()
        if any(each["name"] == body["name"] for each in self.sources.values()):
            return JSONResponse({"message": f"Data source with the name {body['name']} already exists."}, 400)
        source = {"id": next(self._ids), **body}
        self.sources[source["id"]] = source
        return JSONResponse(_masked(source))

    async def _source(self, request: Request) -> Response:
        source = self.sources[request.path_params["id"]]
        if request.method == "DELETE":
            del self.sources[source["id"]]
            return Response(status_code=204)
        if request.method == "POST":
            body = await request.json()
            options = {name: value for name, value in body["options"].items() if value != SECRET}
            source.update(name=body["name"], type=body["type"], options={**source["options"], **options})
        return JSONResponse(_masked(source))

    async def _source_test(self, request: Request) -> Response:
        try:
            run(self.sources[request.path_params["id"]]["options"], "SELECT 1")
        except RuntimeError as error:
            return JSONResponse({"message": str(error), "ok": False})
        return JSONResponse({"message": "success", "ok": True})

    # --- queries ------------------------------------------------------------------------------------------------------

    async def _query_list(self, request: Request) -> Response:
        if request.method == "GET":
            return self._page(request, self.queries)
        body = await request.json()
        query = {"description": None, "tags": [], **body, "id": next(self._ids), "is_draft": True, "version": 1}
        self.queries[query["id"]] = query
        table = {"type": "TABLE", "name": "Table", "description": "", "options": {}, "query_id": query["id"]}
        number = next(self._ids)
        self.visualizations[number] = {"id": number, **table}
        return JSONResponse(self._with_visualizations(query))

    async def _query(self, request: Request) -> Response:
        query = self.queries[request.path_params["id"]]
        if request.method == "POST" and (refused := await _update(query, request)):
            return refused
        return JSONResponse(self._with_visualizations(query))

    async def _fork_query(self, request: Request) -> Response:
        query = self.queries[request.path_params["id"]]
        name = f"Copy of (#{query['id']}) {query['name']}"
        new = {"id": next(self._ids), "name": name, "is_draft": True, "version": 1}
        self.queries[new["id"]] = {**copy.deepcopy(query), **new}
        for each in [each for each in self.visualizations.values() if each["query_id"] == query["id"]]:
            number = next(self._ids)
            self.visualizations[number] = {**copy.deepcopy(each), "id": number, "query_id": new["id"]}
        return JSONResponse(self._with_visualizations(self.queries[new["id"]]))

    def _with_visualizations(self, query: Item) -> Item:
        drawn = [dict(each) for each in self.visualizations.values() if each["query_id"] == query["id"]]
        for each in drawn:
            del each["query_id"]
        return {**query, "visualizations": drawn}

    async def _visualization_list(self, request: Request) -> Response:
        number = next(self._ids)
        self.visualizations[number] = {**(await request.json()), "id": number}
        return JSONResponse(self.visualizations[number])

    async def _visualization(self, request: Request) -> Response:
        found = self.visualizations[request.path_params["id"]]
        found.update(await request.json())
        return JSONResponse(found)

    # --- results ------------------------------------------------------------------------------------------------------

    async def _run(self, request: Request) -> Response:
        body, query = await request.json(), self.queries[request.path_params["id"]]
        parameters, known = body["parameters"], {each["name"]: each for each in query["options"]["parameters"]}
        if missing := set(known) - set(parameters):
            answer = {"job": {"status": 4, "error": f"Missing parameter value for: {', '.join(sorted(missing))}"}}
            return JSONResponse(answer, 400)
        wrong = [name for name, value in parameters.items() if not _fits(known[name], value)]
        if wrong:
            message = f"The following parameter values are incompatible with their definitions: {', '.join(wrong)}"
            return JSONResponse({"job": {"status": 4, "error": message}}, 400)
        text = query["query"]
        for name, value in parameters.items():
            text = text.replace("{{ " + name + " }}", str(value))
        max_age = body.get("max_age", -1)
        assert max_age in (-1, 0)
        key = (query["data_source_id"], self._hash(text))
        kept = [each for each in self.results.values() if each["key"] == key]
        if kept and max_age == -1:
            return JSONResponse({"query_result": _shown(kept[-1])})
        job: Item = {"id": str(uuid4()), "status": 1, "error": "", "query_result_id": None}
        self.jobs[job["id"]] = {**job, "text": text, "source": query["data_source_id"]}
        return JSONResponse({"job": job})

    async def _job(self, request: Request) -> Response:
        """A job is queued when it is requested, started at the first poll, and finished at the second."""
        job = self.jobs[request.path_params["id"]]
        if job["status"] == 2:
            try:
                data = run(self.sources[job["source"]]["options"], job["text"])
                number = next(self._ids)
                key = (job["source"], self._hash(job["text"]))
                self.results[number] = {"id": number, "query": job["text"], "data": data, "key": key}
                job.update(status=3, query_result_id=number)
            except RuntimeError as error:
                job.update(status=4, error=str(error))
        elif job["status"] == 1:
            job["status"] = 2
        shown = {part: job[part] for part in ("id", "status", "error", "query_result_id")}
        return JSONResponse({"job": shown})

    async def _result(self, request: Request) -> Response:
        return JSONResponse({"query_result": _shown(self.results[request.path_params["id"]])})

    def _hash(self, text: str) -> str:
        """Returns the key under which a result is cached."""
        text = "".join(re.sub(r"/\*.*?\*/", "", text).split())
        return hashlib.md5((text if self.columns == 12 else text.lower()).encode()).hexdigest()  # noqa: S324

    # --- dashboards ---------------------------------------------------------------------------------------------------

    async def _dashboard_list(self, request: Request) -> Response:
        if request.method == "GET":
            return self._page(request, self.dashboards)
        new = {"id": next(self._ids), "tags": [], "options": {}, "is_draft": True, "version": 1}
        dashboard = {**new, "name": (await request.json())["name"], "layout": []}
        self.dashboards[dashboard["id"]] = dashboard
        return JSONResponse({**dashboard, "widgets": None})

    async def _dashboard(self, request: Request) -> Response:
        dashboard = self.dashboards[request.path_params["id"]]
        if request.method == "POST" and (refused := await _update(dashboard, request)):
            return refused
        widgets = []
        for each in self.widgets.values():
            if each["dashboard_id"] == dashboard["id"]:
                widget = {name: value for name, value in each.items() if name != "visualization_id"}
                if each["visualization_id"]:
                    drawn = self.visualizations[each["visualization_id"]]
                    query = self.queries[drawn["query_id"]]
                    shown = {name: value for name, value in drawn.items() if name != "query_id"}
                    widget["visualization"] = {**shown, "query": query}
                widgets.append(widget)
        return JSONResponse({**dashboard, "widgets": widgets})

    async def _widget_list(self, request: Request) -> Response:
        number = next(self._ids)
        self.widgets[number] = {**(await request.json()), "id": number}
        return JSONResponse(self.widgets[number])

    async def _widget(self, request: Request) -> Response:
        widget, body = self.widgets[request.path_params["id"]], await request.json()
        widget.update(text=body["text"], options=body["options"])
        return JSONResponse(widget)

    async def _fork_dashboard(self, request: Request) -> Response:
        dashboard = self.dashboards[request.path_params["id"]]
        name = f"Copy of (#{dashboard['id']}) {dashboard['name']}"
        new = {"id": next(self._ids), "name": name, "options": {}, "is_draft": True, "version": 1}
        self.dashboards[new["id"]] = {**copy.deepcopy(dashboard), **new}
        for each in [each for each in self.widgets.values() if each["dashboard_id"] == dashboard["id"]]:
            number = next(self._ids)
            self.widgets[number] = {**copy.deepcopy(each), "id": number, "dashboard_id": new["id"]}
        return JSONResponse(self.dashboards[new["id"]])

    def _page(self, request: Request, items: dict[int, Item]) -> Response:
        """Returns a page of the items that have all the requested tags."""
        tags = set(request.query_params.getlist("tags"))
        found = [each for each in items.values() if tags <= set(each["tags"])]
        page, size = int(request.query_params.get("page", 1)), int(request.query_params.get("page_size", 25))
        if len(found) and (page - 1) * size >= len(found):
            return JSONResponse({"message": "Page is out of range."}, 400)
        if not 1 <= size <= 250:
            return JSONResponse({"message": "Page size is out of range (1-250)."}, 400)
        shown = found[(page - 1) * size : page * size]
        if items is self.dashboards:
            shown = [{**each, "widgets": None} for each in shown]
        return JSONResponse({"count": len(found), "page": page, "page_size": size, "results": shown})

    def everything(self) -> Item:
        """Returns a copy of all its content."""
        kinds = ("sources", "queries", "visualizations", "dashboards", "widgets")
        return copy.deepcopy({kind: getattr(self, kind) for kind in kinds})


def run(options: Item, text: str) -> Item:
    """Run a query on ClickHouse as Redash does. Returns its columns and rows.

    Raises:
        RuntimeError: with the server's message.
    """
    statements = [each.strip() for each in text.split(";") if each.strip()]
    session = f"redash_{uuid4().hex}" if len(statements) > 1 else ""
    answer: Item = {}
    for number, statement in enumerate(statements):
        params = {"user": options["user"], "password": options["password"], "database": options["dbname"]}
        params["default_format"] = "JSON"
        if session:
            params |= {"session_id": session, "session_check": "1" if number else "0", "session_timeout": "30"}
        sent = httpx.post(
            options["url"], content=f"{statement}\nFORMAT JSON", params=params, trust_env=False, timeout=30
        )
        if sent.is_error:
            raise RuntimeError(sent.text)
        answer = json.loads(sent.text) if sent.text else {}
    columns = [
        {"name": each["name"], "friendly_name": each["name"], "type": _kind(each["type"])} for each in answer["meta"]
    ]
    wide = [each["name"] for each in answer["meta"] if "Int64" in each["type"]]
    rows = [{name: _number(value) if name in wide else value for name, value in row.items()} for row in answer["data"]]
    return {"columns": columns, "rows": rows}


def _kind(clickhouse: str) -> str:
    plain = clickhouse.removeprefix("Nullable(").rstrip(")").lower()
    known = {"int": "integer", "uint": "integer", "float": "float", "datetime": "datetime", "date": "date"}
    return next((kind for start, kind in known.items() if plain.startswith(start)), "string")


def _number(value: str | None) -> int | None:
    return None if value is None else int(value)


def _shown(result: Item) -> Item:
    return {name: value for name, value in result.items() if name != "key"}


def _masked(source: Item) -> Item:
    return {**source, "options": {**source["options"], "password": SECRET}}


def _fits(parameter: Item, value: Any) -> bool:
    if parameter["type"] == "enum":
        return str(value) in parameter["enumOptions"].split("\n")
    try:
        return bool(date.fromisoformat(value))
    except ValueError:
        return False


async def _update(item: Item, request: Request) -> Response | None:
    """Change a versioned item, unless it was changed since the client read it."""
    body = await request.json()
    if "version" in body and body["version"] != item["version"]:
        return JSONResponse({"message": "Conflict"}, 409)
    item.update({name: value for name, value in body.items() if name not in ("id", "visualizations")})
    item["version"] += 1
    return None
