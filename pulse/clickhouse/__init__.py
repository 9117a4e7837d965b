"""The only package that talks to ClickHouse: pandahouse carries the requests, and its faults are corrected here.

    errors.py      ClickHouse's errors as sentences
    values.py      values that are bound, rows that are inserted, and the columns of a result
    prefix.py      the prefix of the project's tables in a database that others use too
    transport.py   one request: time limits, retries, failures

What is corrected: the statement travels in the body and ClickHouse itself binds the values, so braces in SQL and
hostile values are safe; credentials go into a header and into no error; a result is complete before it is read; the
server stops a statement that runs too long, and a server that falls silent is given up; every error is one
`ClickHouseError` in a sentence; and results come as JSON, which carries every type, instead of tab-separated text, of
which pandahouse reads only some types.
"""

import json
import re
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

import pandas as pd

from pulse import QUERY_MIME
from pulse.clickhouse import errors, transport
from pulse.clickhouse.errors import UNKNOWN_DATABASE, ClickHouseError
from pulse.clickhouse.values import as_json, bound, literal, records, series
from pulse.settings import Settings, load

__all__ = [
    "COMMENTS",
    "PROBE_SECONDS",
    "UNKNOWN_DATABASE",
    "ClickHouse",
    "ClickHouseError",
    "Result",
    "connect",
    "quoted",
    "records",
    "statements",
    "with_prefix",
    "without_comments",
]

SPILL_BYTES = 1_000_000_000
"""How much memory grouping or sorting may take before the server continues on its disk, slower but without failing."""

PROBE_SECONDS = 30
"""How long a statement may take that only asks whether the server, or a day, is there."""

GRACE_SECONDS = 30.0
"""How much longer an answer is waited for than its statement may run on the server."""

REPEATABLE = re.compile(
    r"select|show|describe|desc|exists|explain|truncate|create\s+or\s+replace|create\s+\w+\s+if\s+not\s+exists"
    r"|drop\s+\w+\s+if\s+exists|alter\s+table\s+\S+\s+(replace|drop)\s+partition",
    re.IGNORECASE,
)
"""Statements that leave the same state when they run twice. An INSERT does not: if its answer is lost, nobody knows
whether it ran."""

NOT_SETTINGS = ("default_format",)
"""What a request may say beside its settings, whatever the account may do."""

COMMENTS = re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL)
"""White space and comments."""


@dataclass(frozen=True)
class Result:
    """What a statement did: the rows it read and wrote as the server counted them, and its seconds on the server."""

    query_id: str
    seconds: float
    read_rows: int = 0
    written_rows: int = 0

    @classmethod
    def sum(cls, results: Iterable["Result"]) -> "Result":
        """What statements did together, with the id of the last one."""
        done = list(results)
        return cls(
            done[-1].query_id,
            sum(each.seconds for each in done),
            sum(each.read_rows for each in done),
            sum(each.written_rows for each in done),
        )

    def __str__(self) -> str:
        return f"{self.written_rows:,} rows written, {self.read_rows:,} read in {self.seconds:.2f} s"


class ClickHouse:
    """A ClickHouse server over HTTP(S), with the project's database as the default one."""

    def __init__(self, url: str, database: str, zone: ZoneInfo, max_seconds: int = 600, prefix: str = "") -> None:
        """Prepare a client; the first statement opens the connection.

        Args:
            url: `http(s)://user:password@host:port`.
            database: the default database of every statement.
            zone: the time zone in which a DateTime is shown whose type names none.
            max_seconds: how many seconds the server may spend on a statement. A server that sends nothing for 30
                seconds more is given up, so no statement waits forever.
            prefix: what stands before the name of each table that a statement names without its database.
        """
        self.url = url.rstrip("/")
        self.database = database
        self.zone = zone
        self.max_seconds = max_seconds
        self.prefix = prefix
        self._may_set = True
        """Whether this account may choose settings; with `readonly = 1` the server refuses every request that does."""

    @property
    def address(self) -> str:
        """The server's address without credentials, with the port that is used even if the URL names none."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].removesuffix(':')}{self._default_port}"

    @property
    def _default_port(self) -> str:
        parts = urlsplit(self.url)
        return "" if parts.port else ":443" if parts.scheme == "https" else ":80"

    def full_name(self, table: str) -> str:
        """The name that a table has in the database, for where it is a value: in a search of `system.tables`."""
        return self.prefix + table

    def own_name(self, table: str) -> str:
        """The name by which a statement names a table of this database."""
        return table.removeprefix(self.prefix)

    def execute(self, sql: str, **values: Any) -> Result:
        """Run one statement that returns no rows.

        Args:
            sql: the statement, with `{name:Type}` wherever a value belongs (`{name:Identifier}` for a table's name).
            values: the values to bind: dates, aware datetimes, numbers, strings, None and lists of them.

        Raises:
            ClickHouseError: the server refused the statement, failed or did not answer.
        """
        return self._run(sql, values)[0]

    def script(self, sql: str, **values: Any) -> None:
        """Run the statements of a script one after the other; each ends with a `;` at the end of a line.

        Raises:
            ClickHouseError: as `execute`; the statements before the one that failed have run.
        """
        for statement in statements(sql):
            self.execute(statement, **values)

    def read(self, sql: str, **values: Any) -> pd.DataFrame:
        """Run a SELECT and return its result, which should be small: the rows themselves stay in ClickHouse.

        Returns:
            A frame whose columns have pandas' own types: integers (nullable ones if there are NULLs), floats with NaN
            for NULL, `datetime64` for Date, aware timestamps for DateTime, str, bool; Decimal, Array, Tuple and Map are
            Python objects.

        Raises:
            ClickHouseError: as `execute`; or the account may choose no settings (`readonly = 1`) and the result has a
                DateTime, which then has no unambiguous text.
        """
        settings = {
            "default_format": "JSONCompact",
            "output_format_json_quote_64bit_integers": 0,
            "output_format_json_quote_denormals": 0,
            "output_format_json_quote_decimals": 1,
            "date_time_output_format": "iso",
        }
        _, body = self._run(sql, values, settings)
        # Without those settings, numbers may be quoted, and decimals are plain numbers.
        answer = json.loads(body) if self._may_set else json.loads(body, parse_float=Decimal)
        columns = list(zip(*answer["data"], strict=True)) or [()] * len(answer["meta"])
        found = [series(cells, meta["type"], self.zone) for cells, meta in zip(columns, answer["meta"], strict=True)]
        frame = pd.concat(found, axis=1) if found else pd.DataFrame()
        frame.columns = [meta["name"] for meta in answer["meta"]]
        return frame

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """Run a SELECT and return its rows, each by column name, with the cells that `read` returns.

        Raises:
            ClickHouseError: as `execute`.
        """
        return records(self.read(sql, **values))

    def replace_partition(self, table: str, values: Sequence[Any], staging: str) -> None:
        """Replace a partition of a table by the same partition of its staging table, in one atomic step.

        Both tables have the same columns and partitions. Check first that the partition in staging has rows: if it has
        none, an older server empties the table's partition, where a newer one refuses.

        Args:
            table: the table that gets the partition.
            values: the partition: a value for each expression of the tables' `partition by`.
            staging: the table that has the new rows; it keeps them.

        Raises:
            ClickHouseError: as `execute`; the table is unchanged.
        """
        # ClickHouse can bind neither the partition nor the second table here.
        partition = ", ".join(literal(value) for value in values)
        self.execute(f"alter table {quoted(table)} replace partition ({partition}) from {quoted(staging)}")

    def value(self, sql: str, **values: Any) -> Any:
        """Return the first cell of a SELECT's result as a Python value; None if it is NULL or there is no row.

        Raises:
            ClickHouseError: as `execute`.
        """
        frame = self.read(sql, **values)
        cell: Any = None if frame.empty else frame.iat[0, 0]
        if pd.isna(cell) is True:
            return None
        return cell.item() if hasattr(cell, "item") else cell

    def write(self, rows: pd.DataFrame | Iterable[Mapping[str, Any]], table: str) -> Result:
        """Insert a frame, or rows by column name, into a table in one statement. None and NaN become NULL.

        Raises:
            ClickHouseError: as `execute`.
        """
        written = records(rows) if isinstance(rows, pd.DataFrame) else rows
        lines = [json.dumps({key: as_json(cell) for key, cell in row.items()}, allow_nan=False) for row in written]
        if not lines:
            return Result(query_id="", seconds=0.0)
        settings = {"date_time_input_format": "best_effort", "input_format_null_as_default": 1}
        return self._run(f"insert into {quoted(table)} format JSONEachRow", {}, settings, "\n".join(lines).encode())[0]

    def _run(
        self, sql: str, values: Mapping[str, Any], settings: Mapping[str, Any] | None = None, data: bytes | None = None
    ) -> tuple[Result, bytes]:
        sql, tables = with_prefix(sql, self.prefix)
        if tables:
            values = {name: self.full_name(value) if name in tables else value for name, value in values.items()}
        return self._send(sql, values, settings, data)

    def _send(
        self, sql: str, values: Mapping[str, Any], settings: Mapping[str, Any] | None, data: bytes | None
    ) -> tuple[Result, bytes]:
        # A retry keeps the id, so that the server refuses it while the first request is still running.
        query_id = str(uuid.uuid4())
        options = {
            "database": self.database,
            "query_id": query_id,
            "wait_end_of_query": 1,  # or an error in the middle of a result would arrive as data, with status 200
            **{name: value for name, value in (settings or {}).items() if name in NOT_SETTINGS},
            **(self._chosen(settings) if self._may_set else {}),
            **{f"param_{name}": bound(value) for name, value in values.items()},
        }
        connection = {"host": f"{self.url}/?{urlencode(options)}", "database": self.database}
        # pandahouse formats its query; if that is empty, ClickHouse takes the body as the statement.
        query, body = ("", sql.encode()) if data is None else (sql.replace("{", "{{").replace("}", "}}"), data)
        repeatable = bool(REPEATABLE.match(without_comments(sql)))
        patience = self.max_seconds + GRACE_SECONDS
        started = time.perf_counter()
        try:
            headers, content = transport.send(query, connection, body, patience, retry_lost=repeatable)
        except transport.NotSentError:
            raise self._nobody_answers() from None
        except transport.NoAnswerError:
            raise self._lost("closed the connection before it answered", repeatable) from None
        except transport.SilentError:
            said = f"said nothing for {patience:.0f} s; check that the server is well"
            raise self._lost(said, repeatable) from None
        except transport.RefusedError as error:
            failure = errors.from_answer(error.answer)
            if self._may_set and failure.code == errors.READONLY and "setting in readonly mode" in str(failure):
                self._may_set = False
                return self._send(sql, values, settings, data)
            _leave_trace({"query_id": query_id, "error": failure.code})
            raise failure from None
        result = _result(query_id, headers, time.perf_counter() - started)
        _leave_trace(asdict(result))
        return result, content

    def _chosen(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """The settings of a request: those of every request, and its own."""
        return {
            "max_execution_time": self.max_seconds,
            "max_bytes_before_external_group_by": SPILL_BYTES,
            "max_bytes_before_external_sort": SPILL_BYTES,
            **(settings or {}),
        }

    def _nobody_answers(self) -> ClickHouseError:
        usual = 8443 if self.url.startswith("https:") else 8123
        port = f" (it names no port; ClickHouse's own is {usual})" if self._default_port else ""
        return ClickHouseError(
            f"No ClickHouse server answers at {self.address}; check CLICKHOUSE_URL{port} and that the server is "
            "running."
        )

    def _lost(self, what: str, repeatable: bool) -> ClickHouseError:
        """The error for a statement whose answer did not arrive; one that may have run must be checked by a person."""
        advice = "" if repeatable else " The statement may have been carried out or not: look before you repeat it."
        return ClickHouseError(f"ClickHouse at {self.address} {what}.{advice}")


def connect(settings: Settings | None = None, max_seconds: int = 600) -> ClickHouse:
    """The ClickHouse server that the settings name; they are read from the environment unless they are given."""
    settings = settings or load()
    url = settings.clickhouse_url.get_secret_value()
    return ClickHouse(url, settings.database, settings.zone, max_seconds, settings.table_prefix)


def with_prefix(sql: str, prefix: str) -> tuple[str, frozenset[str]]:
    """A statement whose tables without a database have a prefix, and the parameters that stand for such tables.

    Raises:
        ClickHouseError: a query in it cannot be understood.
    """
    if not prefix:
        return sql, frozenset()
    from pulse.clickhouse.prefix import prefixed  # takes 0.2 s, which installations without a prefix save

    return prefixed(sql, prefix)


def statements(sql: str) -> list[str]:
    """The statements of a script: each ends with a `;` at the end of a line."""
    return [each for each in re.split(r";[ \t]*(?:\n|\Z)", sql) if COMMENTS.sub("", each)]


def without_comments(sql: str) -> str:
    """The statement from its first word onwards."""
    position = 0
    while found := COMMENTS.match(sql, position):
        position = found.end()
    return sql[position:]


def quoted(name: str) -> str:
    """The name of a table or database, quoted for the places where ClickHouse cannot bind it."""
    return ".".join(f"`{part}`" for part in name.replace("`", "").split("."))


def _result(query_id: str, headers: Mapping[str, str], elapsed: float) -> Result:
    summary = json.loads(headers.get("X-ClickHouse-Summary") or "{}")
    return Result(
        query_id=headers.get("X-ClickHouse-Query-Id") or query_id,
        seconds=round(int(summary["elapsed_ns"]) / 1e9 if "elapsed_ns" in summary else elapsed, 6),
        read_rows=int(summary.get("read_rows", 0)),
        written_rows=int(summary.get("written_rows", 0)),
    )


def _leave_trace(query: Mapping[str, Any]) -> None:
    """In a notebook, record the query in the cell's outputs, so that the archive knows every query of the run."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        shell.display_pub.publish({QUERY_MIME: dict(query)})
