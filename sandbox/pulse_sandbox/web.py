"""Keeps web pages away from the sandbox: only programs, and the sandbox's own pages, get answers.

Loopback keeps other machines out, but not the pages in the developer's browser: any page may send requests to
127.0.0.1, and the sandbox's passwords are public. A browser says where a request comes from, in headers that no page
can change or omit: `Sec-Fetch-Site` with every request to loopback, and `Origin` with everything except requests of
images, links and addresses. A foreign page whose name resolves to loopback (DNS rebinding) is recognized by its `Host`.
"""

from collections.abc import Callable, Collection

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pulse_sandbox.process import HOST

REFUSAL = "The sandbox answers programs on this machine, not web pages."
HOSTS = (HOST, "localhost")


class KeepPagesOut:
    """ASGI middleware that answers programs, and browsers only for the sandbox's own pages.

    Args:
        app: the application that it protects.
        pages: the paths that a browser may open from anywhere, as a page in a window; such a page may request the
            other paths. If there are none, no browser is answered.
        refuse: makes the answer to other web pages.
    """

    def __init__(
        self, app: ASGIApp, *, pages: Collection[str] = (), refuse: Callable[[], Response] | None = None
    ) -> None:
        self._app = TrustedHostMiddleware(app, allowed_hosts=list(HOSTS), www_redirect=False)
        self._pages, self._refuse = pages, refuse or (lambda: PlainTextResponse(f"{REFUSAL}\n", 403))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the sandbox has none
            return
        allowed = scope["type"] != "http" or self._may(Request(scope))
        await (self._app if allowed else self._refuse())(scope, receive, send)

    def _may(self, request: Request) -> bool:
        if not is_from_browser(request):
            return True
        if not self._pages:
            return False
        sent = request.headers
        own = f"{request.url.scheme}://{sent.get('host', '')}"
        if sent.get("origin", own) == own and sent.get("sec-fetch-site") in ("same-origin", "none"):
            return True
        in_a_window = sent.get("sec-fetch-mode", "navigate") == "navigate"
        in_a_window = in_a_window and sent.get("sec-fetch-dest", "document") == "document"
        return request.method == "GET" and request.url.path in self._pages and in_a_window


def is_from_browser(request: Request) -> bool:
    """Whether a browser sends the request: programs send none of these headers."""
    sent = request.headers
    marks = ("origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "referer")
    return any(mark in sent for mark in marks) or sent.get("user-agent", "").startswith("Mozilla/")
