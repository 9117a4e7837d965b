"""One request to ClickHouse through pandahouse: its time limits, its retries, and how it can fail."""

from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any

import pandahouse
import requests
import tenacity
from pandahouse.http import ClickhouseException
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

CONNECT_SECONDS = 10.0
"""How long opening a connection may take."""


class NotSentError(Exception):
    """The connection was refused, so the statement has not reached the server."""


class NoAnswerError(Exception):
    """The connection broke before an answer arrived, so the statement may have run."""


class SilentError(Exception):
    """The server took the statement and then sent nothing for too long, so it may have run, or may still run."""


class RefusedError(Exception):
    """The server answered with an error; `answer` is the body of that answer."""

    def __init__(self, answer: bytes | str) -> None:
        super().__init__(answer)
        self.answer = answer


def send(
    query: str, connection: Mapping[str, str], body: bytes, patience: float, *, retry_lost: bool
) -> tuple[Mapping[str, str], bytes]:
    """Send one request through pandahouse, and repeat it where that is safe.

    A request to a server that was silent for `patience` seconds is not repeated, or a caller would wait four times as
    long.

    Args:
        query: what pandahouse takes as the query; it formats braces in it.
        connection: pandahouse's connection: `host` with the whole address, and `database`.
        body: the body of the request.
        patience: for how many seconds the server may send nothing.
        retry_lost: whether the request may be repeated although the first one may have run.

    Returns:
        The headers and the body of the answer.

    Raises:
        NotSentError, NoAnswerError, SilentError, RefusedError: as each of them says.
    """
    execute = _pandahouse(patience)
    again = (NotSentError, NoAnswerError) if retry_lost else (NotSentError,)
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(again),
        wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=2),
        stop=tenacity.stop_after_attempt(4),
        reraise=True,
    ):
        with attempt:
            try:
                answer = execute(query, connection=connection, data=body, stream=True)
                return answer.headers, answer.read(decode_content=True)
            except ClickhouseException as error:
                raise RefusedError(error.args[0]) from None
            except (requests.ReadTimeout, ReadTimeoutError):
                raise SilentError from None
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                cause = getattr(error.args[0], "reason", error.args[0]) if error.args else None
                not_sent = isinstance(cause, NewConnectionError | ConnectTimeoutError)
                raise (NotSentError() if not_sent else NoAnswerError()) from None
            except HTTPError:
                raise NoAnswerError() from None
            except requests.RequestException as error:
                # An error status without a body comes from a proxy. The error's text may hold the whole address.
                status = getattr(error.response, "status_code", None)
                raise RefusedError(f"HTTP status {status} without a message") from None
    raise AssertionError("unreachable")


def _pandahouse(patience: float) -> Callable[..., Any]:
    """pandahouse's `execute` with time limits on its requests, which it neither sets nor accepts.

    This is its own code, run with a `requests.post` that has the limits; pandahouse itself stays unchanged for others.
    """
    limited = SimpleNamespace(post=partial(requests.post, timeout=(CONNECT_SECONDS, patience)))
    original = pandahouse.http.execute
    return FunctionType(
        original.__code__, {**vars(pandahouse.http), "requests": limited}, argdefs=original.__defaults__
    )
