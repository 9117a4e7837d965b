"""A dashboard tool that accepts a request and never answers does not block the caller forever."""

import socket

import pytest

from pulse import dashboards


def test_a_tool_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(dashboards.DashboardsError, match=f"Redash at {url} did not answer within 1 seconds"):
            dashboards.Api("Redash", url, "REDASH_URL", "REDASH_API_KEY").get("/api/session")
