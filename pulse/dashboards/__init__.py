"""Dashboards as code: installs the dashboards of `dashboards/` in Superset and Redash over their REST interfaces.

Installing again updates them. Manual changes since the last installation are reported and stay as they are. Both tools
read ClickHouse as the user of `CLICKHOUSE_READER_URL`, who may only read.
"""

from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from pulse import PulseError, settings
from pulse.clickhouse import with_prefix

SECONDS = 60.0  # the longest a tool may take to answer, queries included


class DashboardsError(PulseError):
    """A dashboard tool cannot be reached, refuses, or does not contain what it should."""


class Api:
    """A tool's REST interface, in which every failure is a `DashboardsError`.

    Args:
        tool: its name, for error sentences.
        url: its address.
        setting: the setting that holds the address.
        refused: what to check when the tool refuses us.
    """

    def __init__(self, tool: str, url: str, setting: str, refused: str) -> None:
        if not url:
            raise DashboardsError(f"There is no {tool} to talk to: set {setting}.")
        if urlsplit(url).scheme not in ("http", "https"):
            raise DashboardsError(f"{setting} is not an address: expected http(s)://host:port.")
        self.tool, self.setting, self.refused = tool, setting, refused
        self.url = url.rstrip("/")
        local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
        self._client = httpx.Client(timeout=SECONDS, trust_env=not local)  # no proxy for this machine itself
        self.headers: dict[str, str] = {}
        self.version: tuple[int, ...] = ()  # the tool's, once it is known

    def get(self, path: str, **params: Any) -> Any:
        """The JSON at a path."""
        return self.json(self.request("GET", path, params=params))

    def post(self, path: str, body: Any = None, **how: Any) -> Any:
        """The JSON that answers a POST."""
        return self.json(self.request("POST", path, **({"json": body} if body is not None else {}), **how))

    def request(self, method: str, path: str, *, expected: tuple[int, ...] = (), **how: Any) -> httpx.Response:
        """Make a request and return the answer.

        Args:
            method: the HTTP method.
            path: below the tool's address.
            expected: error statuses that the caller handles.
            how: further arguments of `httpx.Client.request`.

        Raises:
            DashboardsError: there was no answer, or an error status that is not expected.
        """
        try:
            answer = self._client.request(method, self.url + path, headers=self.headers, **how)
        except httpx.TimeoutException:
            raise DashboardsError(
                f"{self.tool} at {self.url} did not answer within {SECONDS:.0f} seconds; try again later."
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise DashboardsError(
                f"No {self.tool} answers at {self.url}; check {self.setting} and that it is running."
            ) from None
        if answer.status_code in (401, 403) and answer.status_code not in expected:
            raise DashboardsError(f"{self.tool} at {self.url} refuses: check {self.refused}.")
        if answer.is_error and answer.status_code not in expected:
            raise DashboardsError(f"{self.tool} at {self.url} answered {path} with {said(answer)}.")
        return answer

    def json(self, answer: httpx.Response) -> Any:
        """An answer's JSON.

        Raises:
            DashboardsError: it is something else, a login page for one.
        """
        try:
            return answer.json()
        except ValueError:
            raise DashboardsError(
                f"What answers at {self.url} is no {self.tool} that this works with; check {self.setting}."
            ) from None


def said(answer: httpx.Response) -> str:
    """An error answer in a few words: its status, and its message if it has one."""
    try:
        body = answer.json()
    except ValueError:
        return f"HTTP status {answer.status_code}"
    message = body.get("message") or body.get("errors") or body if isinstance(body, dict) else body
    if isinstance(message, list) and message and isinstance(message[0], dict):
        message = message[0].get("message", message[0])
    return f"HTTP status {answer.status_code}: {' '.join(str(message).split())[:500].rstrip('. ')}"


class Reader:
    """The ClickHouse user who may only read, and what dashboards read.

    Raises:
        DashboardsError: ClickHouse is one's own, and no reader was set for it.
    """

    def __init__(self, config: settings.Settings) -> None:
        address = config.clickhouse_reader_url.get_secret_value()
        own = config.clickhouse_url.get_secret_value() != settings.sandbox_url("clickhouse", settings.SANDBOX_OWNER)
        if own and address == settings.sandbox_url("clickhouse", settings.SANDBOX_READER):
            raise DashboardsError(
                "Dashboards want a ClickHouse user of their own, who may only read: "
                "run dashboards/reader.sql, then set CLICKHOUSE_READER_URL."
            )
        parts = urlsplit(address)
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname or "", parts.port or (8443 if self.secure else 8123)
        self.user, self.password = unquote(parts.username or "default"), unquote(parts.password or "")
        self.database = config.database
        self.prefix = config.table_prefix

    def query(self, sql: str) -> str:
        """A query of a dashboard, as it finds the tables."""
        return with_prefix(sql, self.prefix)[0]

    @property
    def address(self) -> str:
        """Where the server is, without the credentials."""
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"
