"""What the users of the sandbox's ClickHouse may do, and what nobody may do: reach out of the sandbox.

No role may read or write files, addresses or other servers, in functions or in tables: it has no grant for that
(`_OWNER`). chDB checks no grant for a few things, such as the function `file`. Those are refused by name (`_OUTSIDE`):
in the statement as the engine itself writes it back, in the names that are bound to it, and in the expressions among
the values of an INSERT.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pulse.settings import ROOT
from pulse_sandbox import SandboxError
from pulse_sandbox.clickhouse_connection import Connection
from pulse_sandbox.clickhouse_query import Query, QueryError, tsv

READER = ROOT / "dashboards" / "reader.sql"

_USERS = """<clickhouse>
  <profiles><default>
    <max_threads>{threads}</max_threads><max_memory_usage>{query_memory}</max_memory_usage>
    <!-- By default a thread is only used for each free GiB, so that small machines would use one. -->
    <max_threads_min_free_memory_per_thread>0</max_threads_min_free_memory_per_thread>
  </default></profiles>
  <roles>
    <owner><grants>{owner}</grants></owner>
    <viewer><grants>{viewer}</grants></viewer>
  </roles>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT owner</query><query>GRANT viewer</query></grants>
  </default></users>
  <quotas><default></default></quotas>
</clickhouse>
"""
# Everything except sources (files, addresses, other servers), backups and users.
_ENGINES = """MergeTree ReplacingMergeTree SummingMergeTree AggregatingMergeTree CollapsingMergeTree
    VersionedCollapsingMergeTree Memory Log TinyLog StripeLog Null Set Join Buffer Merge Dictionary GenerateRandom View
    MaterializedView"""
_OWNER = (
    "GRANT SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, KILL QUERY, SYSTEM, dictGet, "
    "INTROSPECTION, SET DEFINER ON *.*",
    *(f"GRANT TABLE ENGINE ON {engine}" for engine in _ENGINES.split()),
)
_CONFIG = """<clickhouse>
  <users_config>{users}</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <access_control_improvements><table_engines_require_grant>true</table_engines_require_grant></access_control_improvements>
</clickhouse>
"""


def documented_rights(database: str, prefix: str) -> tuple[list[str], str]:
    """Read the reader's grants and settings from `dashboards/reader.sql`, for this database and prefix of its tables.

    Returns:
        The GRANT statements without the user, and the settings as SET takes them.

    Raises:
        SandboxError: the file has no grants or no settings.
    """
    text = READER.read_text()
    granted = re.findall(r"^grant (\w+) on pulse\.(\w+) to pulse_reader;", text, re.MULTILINE)
    laid_down = re.search(r"^settings (.+);", text, re.MULTILINE)
    if not granted or not laid_down:
        raise SandboxError(
            f"{READER} has no grants or no settings in the form that the sandbox reads; see its history."
        )
    return [f"GRANT {right} ON `{database}`.{prefix}{table}" for right, table in granted], laid_down[1]


def write_config(folder: Path, grants: Sequence[str]) -> Path:
    """Write the engine's configuration beside its data. It limits memory, so a demo cannot bring the machine down."""
    folder.mkdir(exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    users, config = folder / "users.xml", folder / "config.xml"
    owner, viewer = ("".join(f"<query>{grant}</query>" for grant in granted) for granted in (_OWNER, grants))
    threads = os.cpu_count() or 1
    users.write_text(_USERS.format(threads=threads, query_memory=memory * 2 // 5, owner=owner, viewer=viewer))
    config.write_text(_CONFIG.format(users=users, memory=memory // 2))
    return config


# --- nobody reaches outside ------------------------------------------------------------------------------------------


def keep_inside(connection: Connection, query: Query, whole: bytes) -> None:
    """Refuse a statement that reaches outside, however it is spelled and wherever in the request that is.

    Args:
        connection: a connection to the engine.
        query: the request.
        whole: its statement, with the format of its data.

    Raises:
        QueryError: the statement reaches outside.
    """
    texts = [*query.settings, *(query.params.get(name.decode(), "") for name in _BOUND.findall(whole))]
    raw = whole.decode(errors="replace")
    if _SUSPECT.search(raw):  # otherwise the engine need not be asked
        answer = connection.query("SELECT formatQuery({sql:String})", "RawBLOB", params={"sql": tsv(whole)})
        written = answer.bytes().decode(errors="replace")
        texts.append(_QUOTED.sub(lambda found: "''" if found[0][0] == "'" else found[0], written))
    for text in texts:
        refuse_outside(query.user, text)


def literally(data_format: str, data: Sequence[bytes]) -> dict[str, str]:
    """The settings that turn off expressions in an INSERT's values, if one of them might reach outside."""
    if data_format.lower() != "values" or not any(_SUSPECT.search(piece.decode(errors="replace")) for piece in data):
        return {}
    names = ("interpret_expressions", "deduce_templates_of_expressions")
    return {f"input_format_values_{name}": "0" for name in names}


def refuse_outside(user: str, text: str) -> None:
    """Refuse a piece of SQL that reaches outside.

    Raises:
        QueryError: it does.
    """
    found = _OUTSIDE.search(text)
    if found or _ESCAPED.search(text):
        what = f"use `{found[0].split()[-1]}`: it reaches out of the sandbox" if found else "write names with \\"
        raise QueryError(497, "ACCESS_DENIED", f"{user}: Not enough privileges to {what}.")


# What reaches out of the engine although chDB checks no grant for it: functions and clauses that read or write files;
# settings whose values are expressions, paths or addresses; and sources of dictionaries, databases and tables.
_WORDS = (
    r"file|python|arrowstream|executable|catboostEvaluate|infile|outfile|dialect|additional_\w*filters?|format_schema\w*"
    r"|format_template\w*|format_avro_schema_registry_url|parallel_replicas_custom_key\w*"
    r"|input_format_values_\w+"
)
_PLACES = (
    r"disk\s*\(|create\s+database\b.*\bengine\s*=\s*(?!atomic|memory)\w+|attach\b.*\bfrom\b"
    r"|dictionary\b.*\bsource\s*\(\s*(?!null\b|clickhouse\s*\((?!.*\bhost\b))\w+"
)
_OUTSIDE = re.compile(rf"\b(?:(?:{_WORDS})\b|{_PLACES})", re.IGNORECASE | re.DOTALL)
_SUSPECT = re.compile(rf"\\|{_WORDS}|disk|engine|attach|source", re.IGNORECASE)  # what might reach outside
_BOUND = re.compile(rb"\{\s*(\w+)\s*:\s*Identifier\s*\}", re.IGNORECASE)  # names that are bound as parameters
_ESCAPED = re.compile(r"\\")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
