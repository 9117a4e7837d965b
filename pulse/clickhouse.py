"""The only module that talks to ClickHouse: pandahouse carries the requests, and what it does wrong is put right here.

What is put right: the statement travels in the body and values are bound by ClickHouse itself, so braces in SQL and
hostile values are safe; credentials go into a header and into no error; a result is complete before it is read; the
server stops a statement that runs too long, and one that falls silent is not waited for; every error is one
`ClickHouseError` in a sentence; and results come as JSON, which carries every type, instead of tab-separated text, of
which pandahouse reads a few.
"""

import json
import math
import re
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from types import FunctionType, SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

import pandahouse
import pandas as pd
import requests
import tenacity
from pandahouse.http import ClickhouseException
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from pulse import QUERY_MIME, PulseError
from pulse.settings import Settings, load

UNKNOWN_DATABASE = 81
ADVICE = {
    47: "Check that the source tables have the columns the notebook reads.",  # UNKNOWN_IDENTIFIER
    60: "Check PULSE_SOURCE_DATABASE and PULSE_DATABASE, and that the table exists.",  # UNKNOWN_TABLE
    UNKNOWN_DATABASE: "Check PULSE_SOURCE_DATABASE and PULSE_DATABASE, and that the database exists.",
    159: "The statement took longer than the server may spend on it; narrow it or raise max_seconds.",  # TIMEOUT
    164: "The user may only read; give it write access to the project's database.",  # READONLY
    194: "Check the user and the password in CLICKHOUSE_URL.",  # REQUIRED_PASSWORD
    241: "The statement needs more memory than the server allows.",  # MEMORY_LIMIT_EXCEEDED
    497: "Grant the user access to the database named, or use another user in CLICKHOUSE_URL.",  # ACCESS_DENIED
    516: "Check the user and the password in CLICKHOUSE_URL.",  # AUTHENTICATION_FAILED
}

# A statement whose groups or sorted rows take more memory than this goes on on the server's disk: slower, not failed.
SPILL_BYTES = 1_000_000_000

CONNECT_SECONDS = 10.0  # the longest that taking up a connection may take
PROBE_SECONDS = 30  # the longest that a statement may take that only asks whether the server, or a day, is there
GRACE_SECONDS = 30.0  # how much longer than a statement may run there an answer is waited for

# These may run twice and leave the same state; an INSERT whose answer was lost may or may not have happened.
REPEATABLE = re.compile(
    r"select|show|describe|desc|exists|explain|truncate|create\s+or\s+replace|create\s+\w+\s+if\s+not\s+exists"
    r"|drop\s+\w+\s+if\s+exists|alter\s+table\s+\S+\s+(replace|drop)\s+partition",
    re.IGNORECASE,
)
COMMENTS = re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL)


class ClickHouseError(PulseError):
    """A statement failed. `code` is the server's error code, None where no server answered."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class _NotSentError(Exception):
    """The connection was refused: the statement has not reached the server."""


class _NoAnswerError(Exception):
    """The connection broke before an answer: the statement may have run."""


class _SilentError(Exception):
    """The server took the statement and said nothing for longer than it may run: it may have run, or may yet."""


@dataclass(frozen=True)
class Result:
    """How a statement went: rows read and written as the server counted them, and its time there in seconds."""

    query_id: str
    seconds: float
    read_rows: int = 0
    written_rows: int = 0

    def __str__(self) -> str:
        return f"{self.written_rows:,} rows written, {self.read_rows:,} read in {self.seconds:.2f} s"


class ClickHouse:
    """A ClickHouse server over HTTP(S), with the project's database as the default one."""

    def __init__(self, url: str, database: str, zone: ZoneInfo, max_seconds: int = 600) -> None:
        """Connect to nothing yet.

        Args:
            url: `http(s)://user:password@host:port`.
            database: the default database of every statement.
            zone: where a DateTime without a time zone of its own is shown.
            max_seconds: the longest the server may spend on a statement. A server that has said nothing for 30 seconds
                more is given up, so no statement waits for ever.
        """
        self.url = url.rstrip("/")
        self.database = database
        self.zone = zone
        self.max_seconds = max_seconds

    @property
    def address(self) -> str:
        """The server's address without the credentials, with the port that is tried: HTTP's own where none is named."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].removesuffix(':')}{self._unnamed_port}"

    @property
    def _unnamed_port(self) -> str:
        parts = urlsplit(self.url)
        return "" if parts.port else ":443" if parts.scheme == "https" else ":80"

    def execute(self, sql: str, **values: Any) -> Result:
        """Run one statement that returns no rows.

        Args:
            sql: the statement, with `{name:Type}` wherever a value belongs (`{name:Identifier}` for a table's name).
            values: what to bind; dates, aware datetimes, numbers, strings, None and lists of them.

        Raises:
            ClickHouseError: the server refused or failed, or did not answer.
        """
        return self._run(sql, values)[0]

    def script(self, sql: str, **values: Any) -> None:
        """Run statements separated by a `;` at the end of a line, one after the other; errors as for `execute`."""
        for statement in statements(sql):
            self.execute(statement, **values)

    def read(self, sql: str, **values: Any) -> pd.DataFrame:
        """Run a SELECT and return its result, which is meant to be small: the rows themselves stay in ClickHouse.

        Returns:
            One column each with pandas' own type: integers (nullable Int64/UInt64 where there are NULLs), floats with
            NULL as NaN, `datetime64` for Date, aware timestamps for DateTime, str, bool; Decimal, Array, Tuple and
            Map as Python objects.

        Raises:
            ClickHouseError: as `execute`.
        """
        settings = {
            "default_format": "JSONCompact",
            "output_format_json_quote_64bit_integers": 0,
            "output_format_json_quote_denormals": 0,
            "output_format_json_quote_decimals": 1,
            "date_time_output_format": "iso",
        }
        _, body = self._run(sql, values, settings)
        answer = json.loads(body)
        columns = list(zip(*answer["data"], strict=True)) or [()] * len(answer["meta"])
        series = [
            _series(values, meta["type"], self.zone) for values, meta in zip(columns, answer["meta"], strict=True)
        ]
        frame = pd.concat(series, axis=1) if series else pd.DataFrame()
        frame.columns = [meta["name"] for meta in answer["meta"]]
        return frame

    def replace_partition(self, table: str, values: Sequence[Any], staging: str) -> None:
        """Put a partition of the staging table in the place of that one in the table, in one atomic step.

        Both tables have the same columns and partitions. Check staging first: an older server takes an empty partition
        for one to put there and removes the table's, where a newer one refuses.

        Args:
            table: where it goes.
            values: the partition: a value for each expression of the tables' `partition by`.
            staging: where it comes from; it stays there.

        Raises:
            ClickHouseError: as `execute`; the table is as it was.
        """
        # ClickHouse binds neither the partition nor the second table here.
        partition = ", ".join(_literal(value) for value in values)
        self.execute(f"alter table {quoted(table)} replace partition ({partition}) from {quoted(staging)}")

    def value(self, sql: str, **values: Any) -> Any:
        """The first cell of a SELECT's result as a Python value, None where it is NULL or there is no row."""
        frame = self.read(sql, **values)
        if frame.empty or pd.isna(frame.iat[0, 0]) is True:
            return None
        cell = frame.iat[0, 0]
        return cell.item() if hasattr(cell, "item") else cell

    def write(self, rows: pd.DataFrame | Iterable[Mapping[str, Any]], table: str) -> Result:
        """Insert a frame or rows into a table in one statement: all of them or none. None and NaN become NULL.

        Raises:
            ClickHouseError: as `execute`.
        """
        records = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
        lines = [json.dumps({key: _plain(cell) for key, cell in row.items()}, allow_nan=False) for row in records]
        if not lines:
            return Result(query_id="", seconds=0.0)
        settings = {"date_time_input_format": "best_effort", "input_format_null_as_default": 1}
        return self._run(f"insert into {quoted(table)} format JSONEachRow", {}, settings, "\n".join(lines).encode())[0]

    def _run(
        self, sql: str, values: Mapping[str, Any], settings: Mapping[str, Any] | None = None, data: bytes | None = None
    ) -> tuple[Result, bytes]:
        # A repeat keeps the id, so that the server refuses it while the first one is still running.
        query_id = str(uuid.uuid4())
        options = {
            "database": self.database,
            "query_id": query_id,
            "wait_end_of_query": 1,  # else an error in the middle of a result arrives with status 200, as data
            "max_execution_time": self.max_seconds,
            "max_bytes_before_external_group_by": SPILL_BYTES,
            "max_bytes_before_external_sort": SPILL_BYTES,
            **(settings or {}),
            **{f"param_{name}": _bound(value) for name, value in values.items()},
        }
        connection = {"host": f"{self.url}/?{urlencode(options)}", "database": self.database}
        # pandahouse formats what it takes as the query; an empty one leaves the body to be the statement.
        query, body = ("", sql.encode()) if data is None else (sql.replace("{", "{{").replace("}", "}}"), data)
        repeatable = bool(REPEATABLE.match(_without_comments(sql)))
        patience = self.max_seconds + GRACE_SECONDS
        started = time.perf_counter()
        try:
            headers, content = _send(query, connection, body, patience, retry_lost=repeatable)
        except _NotSentError:
            usual = 8443 if self.url.startswith("https:") else 8123
            port = f" (it names no port; ClickHouse's own is {usual})" if self._unnamed_port else ""
            raise ClickHouseError(
                f"No ClickHouse server answers at {self.address}; check CLICKHOUSE_URL{port} and that the server is "
                "running."
            ) from None
        except (_NoAnswerError, _SilentError) as error:
            outcome = (
                "" if repeatable else " The statement may have been carried out or not: look before you repeat it."
            )
            what = (
                f"said nothing for {patience:.0f} s; check that the server is well"
                if isinstance(error, _SilentError)
                else "closed the connection before it answered"
            )
            raise ClickHouseError(f"ClickHouse at {self.address} {what}.{outcome}") from None
        except ClickhouseException as error:
            failure = _error(error.args[0])
            _leave_trace({"query_id": query_id, "error": failure.code})
            raise failure from None
        result = _result(query_id, headers, time.perf_counter() - started)
        _leave_trace(asdict(result))
        return result, content


def connect(settings: Settings | None = None, max_seconds: int = 600) -> ClickHouse:
    """The ClickHouse server of the settings (read from the environment unless given)."""
    settings = settings or load()
    return ClickHouse(settings.clickhouse_url.get_secret_value(), settings.database, settings.zone, max_seconds)


def statements(sql: str) -> list[str]:
    """The statements of a script: each ends with a `;` at the end of a line."""
    return [each for each in re.split(r";[ \t]*(?:\n|\Z)", sql) if COMMENTS.sub("", each)]


def quoted(name: str) -> str:
    """A table's or a database's name for a place where ClickHouse binds none."""
    return ".".join(f"`{part}`" for part in name.replace("`", "").split("."))


def _send(
    query: str, connection: dict[str, str], body: bytes, patience: float, *, retry_lost: bool
) -> tuple[Mapping[str, str], bytes]:
    """One request through pandahouse, repeated where that is safe; gives the answer's headers and body.

    A server that was silent for `patience` seconds is not asked again: it would be silent four times as long.
    """
    execute = _pandahouse(patience)
    again = (_NotSentError, _NoAnswerError) if retry_lost else (_NotSentError,)
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
            except (requests.ReadTimeout, ReadTimeoutError):
                raise _SilentError from None
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                cause = getattr(error.args[0], "reason", error.args[0]) if error.args else None
                not_sent = isinstance(cause, NewConnectionError | ConnectTimeoutError)
                raise (_NotSentError() if not_sent else _NoAnswerError()) from None
            except HTTPError:
                raise _NoAnswerError() from None
            except requests.RequestException as error:
                # An error status without a body: a proxy's, not the server's. Its text may hold the whole address.
                status = getattr(error.response, "status_code", None)
                raise ClickhouseException(f"HTTP status {status} without a message".encode()) from None
    raise AssertionError("unreachable")


def _pandahouse(patience: float) -> Any:
    """pandahouse's `execute` with time limits on its requests, which it neither sets nor takes.

    Its own code, but with a `requests.post` that knows them; pandahouse itself stays as it is for everybody else.
    """
    limited = SimpleNamespace(post=partial(requests.post, timeout=(CONNECT_SECONDS, patience)))
    original = pandahouse.http.execute
    return FunctionType(
        original.__code__, {**vars(pandahouse.http), "requests": limited}, argdefs=original.__defaults__
    )


def _result(query_id: str, headers: Mapping[str, str], elapsed: float) -> Result:
    summary = json.loads(headers.get("X-ClickHouse-Summary") or "{}")
    return Result(
        query_id=headers.get("X-ClickHouse-Query-Id") or query_id,
        seconds=round(int(summary["elapsed_ns"]) / 1e9 if "elapsed_ns" in summary else elapsed, 6),
        read_rows=int(summary.get("read_rows", 0)),
        written_rows=int(summary.get("written_rows", 0)),
    )


def _error(body: bytes | str) -> ClickHouseError:
    """The server's answer as a sentence: code, name and the first line of the message, then what to check."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
    line = next((line for line in text.splitlines() if line.strip()), "no message")
    found = re.match(r"Code: (\d+)\. DB::Exception: (.*)", line)
    if not found:
        return ClickHouseError(f"ClickHouse answered: {line[:300]}. Check that CLICKHOUSE_URL is a ClickHouse server.")
    code, message = int(found[1]), re.sub(r"\s*\(version .*?\)\s*$", "", found[2])
    name = re.search(r"\(([A-Z][A-Z0-9_]+)\)$", message)
    message = re.sub(r"\s*\([A-Z][A-Z0-9_]+\)$", "", message)
    # What follows is the statement itself, or the whole grammar.
    message = re.sub(r":?\s+In scope .*|\. Expected one of: .*", "", message).rstrip(". ")
    label = f"ClickHouse error {code}" + (f" ({name[1]})" if name else "")
    advice = f" {ADVICE[code]}" if code in ADVICE else ""
    return ClickHouseError(f"{label}: {message[:500]}.{advice}", code)


def _leave_trace(query: Mapping[str, Any]) -> None:
    """In a notebook, record the query in the cell's outputs, so that the archive knows every query of a run."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        shell.display_pub.publish({QUERY_MIME: dict(query)})


def _bound(value: Any) -> str:
    """A value as ClickHouse reads a `param_…`: escaped as in tab-separated text."""
    if value is None:
        return "\\N"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return _scalar(value)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        # Escaped twice: once as a string inside the array, once as the parameter's own text.
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return "'" + quoted.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r") + "'"
    return f"'{value}'" if isinstance(value, date) and not isinstance(value, datetime) else _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ClickHouseError(f"The time {value} has no time zone; give an aware datetime.")
        moment = value.timestamp()
        return f"{moment:.6f}" if value.microsecond else f"{moment:.0f}"  # an instant, whatever the server's zone
    if isinstance(value, bool):
        return str(int(value))
    return str(value)


def _plain(cell: Any) -> Any:
    """A cell as JSON can say it."""
    cell = cell.item() if hasattr(cell, "item") and not isinstance(cell, pd.Timestamp) else cell
    if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, datetime):
        return _scalar(cell) if cell.tzinfo else cell.isoformat(sep=" ")
    if isinstance(cell, date | Decimal | uuid.UUID):
        return str(cell)
    if isinstance(cell, list | tuple | set):
        return [_plain(item) for item in cell]
    return cell


def _series(values: tuple[Any, ...], kind: str, zone: ZoneInfo) -> pd.Series:
    """One column of a JSON result as a series of pandas' own type."""
    while wrapped := re.fullmatch(r"(?:Nullable|LowCardinality)\((.*)\)", kind):
        kind = wrapped[1]
    missing = any(value is None for value in values)
    if re.fullmatch(r"U?Int(8|16|32|64)", kind):
        return pd.Series(values, dtype=kind if missing else kind.lower())
    if kind.startswith(("Float", "BFloat")):
        return pd.Series(values, dtype="float64")
    if kind.startswith("DateTime"):
        named = re.search(r"'(.+)'", kind)
        return pd.to_datetime(pd.Series(values, dtype="object"), utc=True).dt.tz_convert(named[1] if named else zone)
    if kind.startswith("Date"):
        return pd.to_datetime(pd.Series(values, dtype="object"))
    if kind == "Bool":
        return pd.Series(values, dtype="boolean" if missing else "bool")
    if kind.startswith("Decimal"):
        return pd.Series([None if value is None else Decimal(value) for value in values], dtype="object")
    if kind.startswith(("String", "FixedString", "Enum", "UUID", "IPv")):
        return pd.Series(values, dtype="str")
    return pd.Series(list(values), dtype="object")


def _without_comments(sql: str) -> str:
    """The statement from its first word on."""
    position = 0
    while found := COMMENTS.match(sql, position):
        position = found.end()
    return sql[position:]
