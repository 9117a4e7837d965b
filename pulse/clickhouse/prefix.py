"""`PULSE_TABLE_PREFIX`: statements name tables as the documentation does, and only the client knows the prefix.

Every table that a statement names without its database is this installation's, and gets the prefix; one that is named
with its database is anybody's, and stays. What is a table, and what a column, an alias or a CTE of the same name,
sqlglot tells. It only tells where the names are: the rest of the text reaches the server as it was written.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from pulse.clickhouse.errors import ClickHouseError

Place: TypeAlias = tuple[int, int, bool]
"""Where a name begins and ends, and whether it is read without an alias."""

PARAMETER = re.compile(r"\{\s*(\w+)\s*:\s*Identifier\s*\}")
FIRST_WORD = re.compile(r"(?:\s+|\(|--[^\n]*|/\*.*?\*/)*(\w+)", re.DOTALL)
COMMENT = re.compile(r"\bcomment\s+'(?:[^'\\]|\\.|'')*'\s*$", re.IGNORECASE)
"""The comment of a view, after its SELECT, where sqlglot expects none."""

QUERIES = ("select", "with", "delete")
ABOUT_TABLES = (
    *("alter", "attach", "create", "desc", "describe", "detach", "drop", "exchange", "exists", "explain", "insert"),
    *("optimize", "rename", "show", "truncate", "undrop"),
)
"""The first words of the other statements that name tables."""

KINDS = ("table", "tables", "view", "dictionary", "into")
"""The words after which such a statement names the table that it is about."""

BEFORE_NAME = ("if", "not", "exists", "table")
"""What may stand between."""

MORE_NAMES = {
    "alter": ("from", "to"),  # a partition comes from another table, or goes there
    "create": ("as", "to"),  # it has the columns of another, or its rows go there
    "drop": (",",),
    "exchange": ("and",),
    "rename": ("to", ","),
}
"""The words before the other tables of a statement, by its first word."""

NO_NAMES = ("disk", "from", "function", "like", "volume")
"""Words that may stand where a name is expected, and are none."""


@lru_cache(maxsize=1024)
def prefixed(sql: str, prefix: str) -> tuple[str, frozenset[str]]:
    """A statement whose tables without a database have a prefix.

    A table that is read and has no alias gets its own name as one, so that `user_activity.views` is still its column.

    Args:
        sql: the statement; `{name:Identifier}` may stand for a table.
        prefix: letters, digits and underscores.

    Returns:
        The statement, and the names of the parameters whose values are tables and need the prefix too.

    Raises:
        ClickHouseError: a query in it cannot be understood.
    """
    # Whatever is replaced has the length of what replaces it, so that every position stays what it is.
    text = PARAMETER.sub(lambda found: found[1].ljust(len(found[0]), "_"), sql)
    text = COMMENT.sub(lambda found: " " * len(found[0]), text)
    parameters = {found.start(): found[1] for found in PARAMETER.finditer(sql)}
    try:
        found = sorted(_tables(text), reverse=True)
    except SqlglotError as error:
        what = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0]
        raise ClickHouseError(
            "A statement cannot be understood well enough to put PULSE_TABLE_PREFIX before its tables; write it in "
            f"another way. {what}"
        ) from None
    bound = set()
    for begins, ends, alone in found:
        if begins in parameters:
            bound.add(parameters[begins])
            continue
        name = sql[begins:ends]
        quote = name[0] if name[0] in '`"' else ""
        alias = f" as {name}" if alone else ""
        sql = f"{sql[:begins]}{quote}{prefix}{name.removeprefix(quote)}{alias}{sql[ends:]}"
    return sql, frozenset(bound)


def _tables(text: str) -> Iterator[Place]:
    """The tables without a database that a statement names: outside of its queries, and in them."""
    found = FIRST_WORD.match(text)
    if not found:
        return
    verb = found[1].lower()
    if verb in ABOUT_TABLES:
        # Some first words make sqlglot take the rest for one word.
        text = f"{text[: found.start(1)]}{'_' * len(verb)}{text[found.end(1) :]}"
    elif verb not in QUERIES:
        return
    tokens = sqlglot.tokenize(text, read="clickhouse")
    words = ["" if _is_value(token) else token.text.lower() for token in tokens]
    if verb not in (*QUERIES, "explain") and not any(word in KINDS for word in words):
        return  # about users, databases, grants
    begins = 0 if verb in QUERIES else _next_query(words, 0)
    yield from _outside(verb, tokens[:begins], words[:begins])
    while begins < len(tokens):
        ends = _end_of_query(words, begins)
        yield from _inside(text, tokens[begins].start, tokens[ends - 1].end + 1)
        begins = _next_query(words, ends)


def _is_value(token: Token) -> bool:
    return token.token_type in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.NUMBER)


def _next_query(words: list[str], position: int) -> int:
    return next((number for number in range(position, len(words)) if words[number] in ("select", "with")), len(words))


def _end_of_query(words: list[str], begins: int) -> int:
    """Where a query ends: with the statement, or with the parentheses around it."""
    depth = 0
    for number in range(begins, len(words)):
        depth += (words[number] == "(") - (words[number] == ")")
        if depth < 0:
            return number
    return len(words)


def _outside(verb: str, tokens: list[Token], words: list[str]) -> Iterator[Place]:
    """The tables that a statement is about: those it creates, changes, drops, describes or inserts into."""
    before: list[int] = []
    depth = 0
    for number, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0 and word in (MORE_NAMES.get(verb, ()) if before else KINDS):
            before.append(number)
    for number in before:
        named = next((after for after in range(number + 1, len(words)) if words[after] not in BEFORE_NAME), len(words))
        if named == len(words) or words[named + 1 : named + 2] == ["."]:
            continue
        is_name = tokens[named].token_type == TokenType.IDENTIFIER or words[named].isidentifier()
        if is_name and words[named] not in NO_NAMES:
            yield tokens[named].start, tokens[named].end + 1, False


def _inside(text: str, begins: int, ends: int) -> Iterator[Place]:
    """The tables that a query reads."""
    tree = sqlglot.parse_one(text[begins:ends], dialect="clickhouse")
    for table in tree.find_all(exp.Table):
        name = table.this
        if isinstance(name, exp.Anonymous):
            is_view = name.expressions and all(isinstance(each, exp.EQ) for each in name.expressions)
        else:
            is_view = isinstance(name, exp.Identifier) and not table.db and not _is_cte(table)
        if is_view:
            read = table.find_ancestor(exp.From, exp.Join, exp.Delete, exp.Query)
            alone = not table.alias and isinstance(read, exp.From | exp.Join)
            yield begins + name.meta["start"], begins + name.meta["end"] + 1, alone and not name.expressions


def _is_cte(table: exp.Table) -> bool:
    """Whether a CTE that can be seen from there has this name."""
    inside: exp.Expr = table
    while outside := inside.parent:
        ctes: list[exp.Expr] = []
        if isinstance(outside, exp.With):  # from one of them, the earlier ones can be seen
            ctes = outside.expressions[: outside.expressions.index(inside)]
        elif (listed := outside.args.get("with_")) is not None and listed is not inside:
            ctes = listed.expressions
        if table.name in {each.alias for each in ctes}:
            return True
        inside = outside
    return False
