"""A request to the sandbox's ClickHouse and its answer: statement, data, result and error."""

import re
from dataclasses import dataclass


class QueryError(Exception):
    """An error in ClickHouse's own form: `Code: 62. DB::Exception: … (SYNTAX_ERROR)`."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code, self.name = code, name

    @classmethod
    def of(cls, error: Exception) -> "QueryError":
        """The engine's error without the repetitions that chDB adds."""
        text = str(error)
        found = re.search(r"(?s)Code: (\d+)\. DB::(?:Net)?Exception: (?:Code: \d+\. DB::Exception: )*(.*)", text)
        if not found:
            return cls(1001, "STD_EXCEPTION", text)
        message = re.split(r" \([A-Z][A-Z0-9_]{3,}\)(?= \(version |\.? ?\(|$)", found[2].strip())[0]
        names = re.findall(r"\(([A-Z][A-Z0-9_]{3,})\)", found[2])
        return cls(int(found[1]), names[-1] if names else "UNKNOWN_EXCEPTION", message)


@dataclass(frozen=True)
class Table:
    """A temporary table that comes with a request."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass
class Query:
    """One statement with everything that the request says about it."""

    user: str
    id: str
    sql: bytes
    data: list[bytes]
    insert_format: str  # the format of `data`; empty if there is none
    output_format: str
    params: dict[str, str]
    settings: dict[str, str]  # for this statement only; `database` is one of them
    tables: list[Table]
    read_only: bool
    session: str
    session_must_exist: bool
    session_seconds: int  # how long the session is kept; 0: it is closed after this statement
    thread: int = 0  # the id of the worker's thread that runs it
    reads: bool = False  # it only reads, so that it can be cancelled without loss


@dataclass(frozen=True)
class Result:
    """The result of a statement, and the figures for the header X-ClickHouse-Summary."""

    body: bytes
    format: str
    summary: dict[str, str]


def tsv(text: bytes) -> str:
    """Escape a parameter's value as TabSeparated does."""
    escaped = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
    return text.decode(errors="replace").translate(escaped)


def quote(value: str, mark: str = "'") -> str:
    """Quote a string for ClickHouse, or with a backtick as the mark a name."""
    return mark + value.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark


# --- the data of an INSERT -------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    rb"\s+|--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|(?P<word>[A-Za-z_]\w*)|.",
    re.DOTALL,
)
_FORMAT = re.compile(rb"\s+(\w+)[ \t\f]*(?:\r?\n)?")


def split_insert(sql: bytes) -> tuple[bytes, str, bytes] | None:
    """Split an INSERT with data into statement, format and data. Returns None for anything else.

    The engine gets the data separately: within a statement it would end the data at the first empty line.
    """
    depth, first, before = 0, True, b""
    for token in _TOKEN.finditer(sql):
        text, word = token[0], (token["word"] or b"").upper()
        if text.isspace() or text.startswith((b"--", b"/*")):
            continue
        if first and word != b"INSERT":
            return None
        first = False
        depth += (text == b"(") - (text == b")")
        if depth == 0 and before != b".":
            if word == b"VALUES":
                return sql[: token.start()], "Values", sql[token.end() :]
            if word == b"FORMAT" and (name := _FORMAT.match(sql, token.end())):
                return sql[: token.start()], name[1].decode(), sql[name.end() :]
            if word in (b"SELECT", b"WITH", b"FROM", b"WATCH"):
                return None
        before = text
    return None
