"""Who asks: a program on this machine, a page of the sandbox's own, or some other page in the developer's browser.

Loopback keeps other machines out, but not the pages that the developer's browser shows: any of them may send requests
to 127.0.0.1, and the sandbox's passwords are public. A browser says where a request comes from, in headers that no page
can change or leave out: `Sec-Fetch-Site`, which goes with every request to loopback, and `Origin`, which goes with
everything but what an image, a link or an address sends. A page elsewhere whose name was made to resolve to loopback
(DNS rebinding) is told by the `Host`.
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
    """ASGI middleware: answers programs, and of browsers only those that show the sandbox's own pages.

    Args:
        app: what it stands before.
        pages: the paths that a browser may open from anywhere, as a page of its own in a window; from there it may ask
            for the others. Without any, no browser is answered.
        refuse: makes the answer to other web pages.
    """

    def __init__(
        self, app: ASGIApp, *, pages: Collection[str] = (), refuse: Callable[[], Response] | None = None
    ) -> None:
        self._app = TrustedHostMiddleware(app, allowed_hosts=list(HOSTS), www_redirect=False)
        self._pages, self._refuse = pages, refuse or (lambda: PlainTextResponse(f"{REFUSAL}\n", 403))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none here
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
    """Whether a browser sends it, whatever the page: programs send none of these."""
    sent = request.headers
    marks = ("origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "referer")
    return any(mark in sent for mark in marks) or sent.get("user-agent", "").startswith("Mozilla/")
