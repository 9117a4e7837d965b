"""The sandbox's ClickHouse answers real clients over HTTP like a real server, and survives a kill."""

# ruff: noqa: S106, S608 (the sandbox's password is public; the statements are the tests' own)

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_connect
import lz4.frame
import pandahouse
import pandas as pd
import psutil
import pytest
import requests
import zstandard
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData
from pulse_sandbox import SandboxError, clickhouse_stand_in, process
from pulse_sandbox.clickhouse_query import split_insert
from pulse_sandbox.clickhouse_stand_in import Server

from benchmarks import small_server
from pulse import clickhouse, schema, settings

LONG = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"


def ask(url: str, sql: str | bytes = "", headers: dict[str, str] | None = None, **params: str) -> requests.Response:
    return requests.post(url, params=params, data=sql, headers=headers, timeout=60)


def answer(url: str, sql: str | bytes = "", **params: str) -> str:
    response = ask(url, sql, **params)
    assert response.status_code == 200, response.text
    return response.text


def error(response: requests.Response) -> tuple[int, int]:
    """Return the HTTP status and ClickHouse's error code."""
    code = response.headers["X-ClickHouse-Exception-Code"]
    assert response.text.startswith(f"Code: {code}. DB::Exception: ")
    return response.status_code, int(code)


@pytest.fixture
def url(clickhouse_server: Server) -> str:
    return clickhouse_server.url


@pytest.fixture
def table(url: str) -> Iterator[str]:
    answer(url, "CREATE TABLE pulse.rows (n Int32, s String) ENGINE = MergeTree ORDER BY n")
    yield "pulse.rows"
    answer(url, "DROP TABLE pulse.rows SYNC")


@pytest.fixture
def client(clickhouse_server: Server) -> Iterator[Client]:
    with clickhouse_connect.get_client(
        host=clickhouse_server.host,
        port=clickhouse_server.port,
        username="pulse",
        password="sandbox-only",
        database="pulse",
    ) as client:
        yield client


# --- what an INSERT's data is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"INSERT INTO t FORMAT Native\n\x00\n\n;", (b"INSERT INTO t ", "Native", b"\x00\n\n;")),
        (b"insert into t (a, `values`) values (1, ';')", (b"insert into t (a, `values`) ", "Values", b" (1, ';')")),
        (b"-- FORMAT x\nINSERT INTO db.format FORMAT CSV 1", (b"-- FORMAT x\nINSERT INTO db.format ", "CSV", b"1")),
        (b"INSERT INTO t SETTINGS a = 'FORMAT b' FORMAT CSV", (b"INSERT INTO t SETTINGS a = 'FORMAT b' ", "CSV", b"")),
        (b"INSERT INTO t SELECT 1 FORMAT CSV", None),
        (b"SELECT 1 FORMAT CSV", None),
        (b"", None),
    ],
)
def test_the_data_of_an_insert_is_told_from_its_statement(
    sql: bytes, expected: tuple[bytes, str, bytes] | None
) -> None:
    assert split_insert(sql) == expected


# --- plain HTTP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/ping"])
def test_pings_are_answered_without_a_password(clickhouse_server: Server, path: str) -> None:
    address = f"http://127.0.0.1:{clickhouse_server.port}{path}"
    assert requests.get(address, timeout=5).text == "Ok.\n"
    assert requests.head(address, timeout=5).status_code == 200


def test_a_sandbox_can_be_told_from_a_real_server(clickhouse_server: Server, tmp_path: Path) -> None:
    assert clickhouse_stand_in.answering(clickhouse_server.port) == clickhouse_server
    assert int(ask(clickhouse_server.url, "SELECT 1").headers["X-Pulse-Sandbox"]) == clickhouse_server.pid
    assert int(ask(clickhouse_server.url, "nonsense").headers["X-Pulse-Sandbox"]) == clickhouse_server.pid
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert clickhouse_stand_in.answering(free.getsockname()[1]) is None


def test_sql_may_come_in_the_query_in_the_body_or_in_both(url: str, table: str) -> None:
    assert answer(url, "SELECT 1") == answer(url, query="SELECT 1") == answer(url, "1", query="SELECT") == "1\n"
    assert requests.get(url, params={"query": "SELECT 1"}, timeout=5).text == "1\n"
    answer(url, "1,a\n2,b\n", query=f"INSERT INTO {table} FORMAT CSV")
    answer(url, f'INSERT INTO {table} FORMAT JSONEachRow\n{{"n": 3, "s": "; DROP"}}\n')
    answer(url, f"INSERT INTO {table} VALUES (4, 'x;\n\ny'), (1 + 4, lower('Z'));")
    answer(url, "(6, 'v')", query=f"INSERT INTO {table} VALUES")
    assert answer(url, f"SELECT * FROM {table} ORDER BY n") == "1\ta\n2\tb\n3\t; DROP\n4\tx;\\n\\ny\n5\tz\n6\tv\n"


def test_get_only_reads(url: str, table: str) -> None:
    for sql in (f"INSERT INTO {table} VALUES (1, 'a')", f"DROP TABLE {table}", "SELECT 1 INTO OUTFILE 'x'"):
        assert error(requests.get(url, params={"query": sql}, timeout=5)) == (500, 164)
    assert error(ask(url, f"TRUNCATE TABLE {table}", readonly="1")) == (500, 164)


def test_passwords_are_checked(clickhouse_server: Server) -> None:
    open_url = f"http://127.0.0.1:{clickhouse_server.port}"
    named = {"user": "pulse", "password": "sandbox-only"}
    assert answer(open_url, "SELECT 1", **named) == "1\n"  # Redash does this
    refused = requests.get(open_url, params={"query": "SELECT 1", **named}, timeout=5)
    assert error(refused) == (403, 516)
    assert "Send user and password in headers" in refused.text
    headers = {"X-ClickHouse-User": "pulse", "X-ClickHouse-Key": "sandbox-only"}
    assert ask(open_url, "SELECT 1", headers=headers).text == "1\n"
    assert error(ask(open_url, "SELECT 1")) == (403, 516)
    assert error(ask(open_url, "SELECT 1", user="pulse", password="wrong")) == (403, 516)
    assert error(ask(open_url.replace("//", "//pulse:wrong@"), "SELECT 1")) == (403, 516)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Referer": "http://example.com/"},
        {
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:70.0) Gecko/20100101 Firefox/70.0"
        },  # an old browser that sends no other header
    ],
)
def test_browsers_are_refused(url: str, headers: dict[str, str]) -> None:
    assert error(ask(url, "SELECT 1", headers)) == (403, 497)
    assert error(requests.get(url + "/sandbox", headers=headers, timeout=5)) == (403, 497)


def test_other_names_of_this_machine_are_refused(url: str) -> None:
    for path in ("/", "/ping", "/sandbox"):
        for host in ("example.com", "127.0.0.1.example.com", "www.localhost", "[::1]"):
            assert requests.get(url + path, headers={"Host": host}, timeout=5).status_code == 400


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT * FROM pulse.nothing", 404, 60),
        ("SELECT nothing", 404, 47),
        ("SELECT 1 SETTINGS nothing = 1", 404, 115),
        ("SELECT toDate('x')", 400, 38),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_execution_time = 1, max_block_size = 1", 408, 159),
        ("SELECT groupArray(number) FROM numbers(100000000) SETTINGS max_memory_usage = 10000000", 500, 241),
    ],
)
def test_errors_have_the_codes_and_statuses_of_a_real_server(url: str, sql: str, status: int, code: int) -> None:
    response = ask(url, sql)
    assert error(response) == (status, code)
    assert response.text.count("DB::Exception") == 1
    assert " (version 26.9" in response.text


def test_nothing_runs_when_one_of_several_statements_is_wrong(url: str, table: str) -> None:
    for rest in ("SELECT 1", "SELEC 1", ""):
        response = ask(url, f"TRUNCATE TABLE {table}; {rest}")
        assert response.status_code == (400 if rest else 200)
    answer(url, f"INSERT INTO {table} VALUES (1, 'a')")
    assert error(ask(url, f"TRUNCATE TABLE {table}; SELEC 1")) == (400, 62)
    assert answer(url, f"SELECT count() FROM {table};  -- one; statement\n") == "1\n"


def test_settings_database_and_format_come_as_parameters_or_headers(url: str, table: str) -> None:
    answer(url, f"INSERT INTO {table} VALUES (1, 'a')")
    assert answer(url, "SELECT n FROM rows", database="pulse") == "1\n"
    headers = {"X-ClickHouse-Database": "pulse", "X-ClickHouse-Format": "JSONEachRow"}
    assert ask(url, "SELECT n FROM rows", headers=headers).json() == {"n": 1}
    response = ask(url, "SELECT 1 AS one", default_format="JSONCompact", wait_end_of_query="1")
    assert (response.json()["data"], response.headers["X-ClickHouse-Format"]) == ([[1]], "JSONCompact")
    assert ask(url, "SELECT 1 FORMAT CSV SETTINGS max_threads = 1").headers["X-ClickHouse-Format"] == "CSV"
    assert answer(url, "SELECT getSetting('max_threads')", max_threads="1") == "1\n"
    assert error(ask(url, "SELECT 1", database="nothing")) == (404, 81)
    assert error(ask(url, "SELECT 1", nothing="1")) == (404, 115)


@pytest.mark.parametrize("into", ["{}", "TABLE {} (d, `a b`)", "{} (* EXCEPT y)", "{} SETTINGS max_threads = 1"])
def test_rows_that_a_table_refuses_are_an_error_and_none_is_written(url: str, table: str, into: str) -> None:
    odd = f"{table}_refusing"
    columns = "d UInt16, `a b` Int32, y Int32 DEFAULT d * 2, m Int32 MATERIALIZED y, CONSTRAINT positive CHECK d != 7"
    answer(url, f"CREATE OR REPLACE TABLE {odd} ({columns}) ENGINE = MergeTree PARTITION BY d ORDER BY d")
    rows = [f'{{"d": {day}, "a b": 1}}' for day in range(100, 201)]
    insert = f"INSERT INTO {into.format(odd)} FORMAT JSONEachRow"
    assert error(ask(url, "\n".join(rows), query=insert)) == (500, 252)
    assert error(ask(url, rows[0] + '{"d": 7, "a b": 2}', query=insert)) == (500, 469)
    assert answer(url, f"SELECT count() FROM {odd}") == "0\n"
    answer(url, "\n".join(rows[1:]), query=insert)
    assert answer(url, f"SELECT count(), sum(y), sum(m), sum(`a b`) FROM {odd}") == "100\t30100\t30100\t100\n"


def test_values_are_bound_as_a_real_server_reads_them(url: str, table: str) -> None:
    assert answer(url, "SELECT {x:String} = 'a\tb\n\\'ю\\\\'", param_x="a\\tb\\n'ю\\\\") == "1\n"
    assert error(ask(url, "SELECT {x:String}", param_x="a\tb"))[1] == 457
    values = {"param_d": "2024-02-28", "param_a": "['x']", "param_n": "\\N"}
    assert (
        answer(url, "SELECT {d:Date} + 1, {a:Array(String)}, {n:Nullable(Int8)}", **values)
        == "2024-02-29\t['x']\t\\N\n"
    )
    values = {"param_t": "rows", "param_n": "7", "param_s": "q\\'"}
    answer(url, "INSERT INTO {t:Identifier} VALUES ({n:Int32}, {s:String})", database="pulse", **values)
    assert answer(url, f"SELECT s FROM {table} WHERE n = {{n:Int32}}", param_n="7") == "q\\'\n"


def test_bodies_and_answers_may_be_compressed(url: str, table: str) -> None:
    packers = {"gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstandard.compress}
    for number, (name, pack) in enumerate(packers.items()):
        body = pack(f"INSERT INTO {table} FORMAT CSV\n{number},{name}\n".encode())
        assert ask(url, body, headers={"Content-Encoding": name}).status_code == 200
        assert error(ask(url, b"x", headers={"Content-Encoding": name}))[1] == 271
    assert answer(url, f"SELECT groupArray(s) FROM (SELECT s FROM {table} ORDER BY n)") == "['gzip','lz4','zstd']\n"
    assert error(ask(url, b"x", headers={"Content-Encoding": "br"})) == (501, 48)
    takes_gzip = {"Accept-Encoding": "gzip"}
    packed = ask(url, "SELECT 'yes'", takes_gzip, enable_http_compression="1")
    assert (packed.headers["Content-Encoding"], packed.text) == ("gzip", "yes\n")
    assert "Content-Encoding" not in ask(url, "SELECT 'yes'", takes_gzip).headers
    assert (
        "Content-Encoding" not in ask(url, "SELECT 'yes'", {"Accept-Encoding": ""}, enable_http_compression="1").headers
    )


def test_the_summary_counts_rows(url: str, table: str) -> None:
    written = json.loads(
        ask(url, f"INSERT INTO {table} SELECT number, 'x' FROM numbers(5)").headers["X-ClickHouse-Summary"]
    )
    assert written["written_rows"] == "5"
    written = json.loads(ask(url, f"INSERT INTO {table} FORMAT CSV\n1,a\n2,b\n").headers["X-ClickHouse-Summary"])
    assert written["written_rows"] == "2"
    read = json.loads(ask(url, f"SELECT * FROM {table}").headers["X-ClickHouse-Summary"])
    assert (read["read_rows"], read["result_rows"]) == ("7", "7")


def test_times_without_a_zone_are_in_the_servers_zone(url: str) -> None:
    response = ask(url, "SELECT timezone(), toUnixTimestamp(toDateTime('1970-01-02 00:00:00'))")
    assert (response.text, response.headers["X-ClickHouse-Timezone"]) == ("UTC\t86400\n", "UTC")
    response = ask(url, "SELECT toDateTime(0)", session_timezone="Europe/Moscow")
    assert (response.text, response.headers["X-ClickHouse-Timezone"]) == ("1970-01-01 03:00:00\n", "Europe/Moscow")


# --- sessions and running statements ---------------------------------------------------------------------------------


def test_a_session_keeps_its_tables_settings_and_database(url: str) -> None:
    assert error(ask(url, "SELECT 1", session_id="s", session_check="1"))[1] == 372
    answer(url, "CREATE TEMPORARY TABLE mine (n Int32)", session_id="s")
    answer(url, "INSERT INTO mine VALUES (1)", session_id="s")
    answer(url, "SET max_threads = 1", session_id="s")
    answer(url, "USE app", session_id="s")
    state = "SELECT n, getSetting('max_threads'), currentDatabase() FROM mine"
    assert answer(url, state, session_id="s", session_check="1") == "1\t1\tapp\n"
    assert answer(url, state, session_id="s", max_threads="2", database="pulse") == "1\t2\tpulse\n"
    assert ask(url, state, session_id="s", max_threads="2", nothing="1").status_code == 404
    assert answer(url, state, session_id="s") == "1\t1\tapp\n"
    assert error(ask(url, state, session_id="other")) == (404, 60)
    answer(url, "SELECT 1", session_id="brief", session_timeout="0")
    assert error(ask(url, "SELECT 1", session_id="brief", session_check="1"))[1] == 372


def test_a_session_or_query_id_serves_one_statement_at_a_time(url: str) -> None:
    with ThreadPoolExecutor() as threads:
        running = threads.submit(ask, url, "SELECT sleep(3)", session_id="busy", query_id="twice")
        until_running(url, 1)
        assert error(ask(url, "SELECT 1", session_id="busy"))[1] == 373
        assert error(ask(url, "SELECT 1", query_id="twice"))[1] == 216
        assert running.result().headers["X-ClickHouse-Query-Id"] == "twice"
    assert answer(url, "SELECT 1", session_id="busy", query_id="twice") == "1\n"


def test_statements_run_at_once_and_pings_are_answered_meanwhile(url: str) -> None:
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(ask, url, "SELECT sleep(3)") for _ in range(3)]
        until_running(url, 3)
        assert requests.get(url + "/ping", timeout=10).text == "Ok.\n"
        assert [done.result().text for done in running] == ["0\n"] * 3


def until_running(url: str, statements: int) -> None:
    """Wait until this many statements run at once, besides the one that counts them."""
    deadline = time.monotonic() + 60
    while int(answer(url, "SELECT count() FROM system.processes")) <= statements:
        assert time.monotonic() < deadline


def test_a_read_ends_when_its_client_goes_away(url: str) -> None:
    for number in range(12):  # more than there are workers: some clients leave before their statement has begun
        with pytest.raises(requests.ReadTimeout):
            requests.post(url, LONG, timeout=(5, 0.004 * (number + 1)))
    deadline = time.monotonic() + 10
    while answer(url, "SELECT count() FROM system.processes") != "1\n":
        assert time.monotonic() < deadline


# --- the reader ------------------------------------------------------------------------------------------------------


def test_the_reader_reads_what_dashboards_show_and_no_other_table(clickhouse_server: Server, table: str) -> None:
    schema.ensure(clickhouse.ClickHouse(clickhouse_server.url, "pulse", settings.load().zone))
    url = clickhouse_server.reader_url
    asked = "SELECT 'file', count() FROM pulse.daily_metrics WHERE toString(event_date) = 'file'"
    assert answer(url, asked, max_threads="1") == "file\t0\n"
    assert answer(url, "SHOW TABLES", database="pulse").splitlines() == [
        "daily_metrics",
        "dimension_activity",
        "dimension_metrics",
    ]
    assert answer(url, asked, session_id="r") == "file\t0\n"
    assert ask(url, f"SELECT s FROM {table}").status_code == 403


# --- nobody reaches out of it -----------------------------------------------------------------------------------------

KEPT = "what-the-developer-has"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('SECRET', 'LineAsString')",
        "SELECT file('SECRET')",
        r"SELECT `fi\x6ce`('SECRET')",
        "SELECT 1 AS `'`, file('SECRET'), 2 AS `'`",
        "SELECT /* ' */ file('SECRET') /* ' */",
        "SELECT * APPLY(file) FROM (SELECT 'SECRET')",
        "SELECT arrayMap({f:Identifier}, ['SECRET'])",
        "SELECT * FROM `SECRET`",
        "SELECT 1 SETTINGS additional_result_filter = 'length(file(\\'SECRET\\')) > 0'",
        "SELECT 1 FORMAT Template SETTINGS format_template_row = 'SECRET'",
        "INSERT INTO pulse.rows VALUES (1, file('SECRET'))",
        "INSERT INTO pulse.rows VALUES (1, /* ' */ file('SECRET') /* ' */)",
        r"INSERT INTO pulse.rows VALUES (1, `fi\x6ce`('SECRET'))",
        "INSERT INTO pulse.rows SETTINGS input_format_values_interpret_expressions = 1 VALUES (1, file('SECRET'))",
        "INSERT INTO pulse.rows (s) FROM INFILE 'SECRET' FORMAT LineAsString",
        "INSERT INTO pulse.rows SELECT 1, file('SECRET')",
        "CREATE TABLE pulse.outside (s String) ENGINE = File(LineAsString, 'SECRET')",
        "CREATE TEMPORARY TABLE outside (s String) ENGINE = File(LineAsString, 'SECRET')",
        "CREATE TABLE pulse.outside (s String DEFAULT file('SECRET')) ENGINE = Memory",
        "CREATE VIEW pulse.outside AS SELECT file('SECRET')",
        "CREATE FUNCTION outside AS name -> file(name)",
        "CREATE DATABASE outside /* */ ENGINE = Filesystem('/')",
        "CREATE DICTIONARY pulse.outside (n UInt64) PRIMARY KEY n SOURCE(HTTP(URL 'http://127.0.0.1:1/' FORMAT 'CSV')) "
        "LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE DICTIONARY pulse.outside (n UInt64) PRIMARY KEY n SOURCE(CLICKHOUSE(HOST '127.0.0.2' TABLE 't')) "
        "LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE TABLE pulse.outside (n Int8) ENGINE = MergeTree ORDER BY n SETTINGS disk = disk(type = local)",
        "CREATE TABLE pulse.outside (s String) ENGINE = URL('http://127.0.0.1:1/', 'CSV')",
        "SELECT 1 INTO OUTFILE 'SECRET.out'",
        "INSERT INTO FUNCTION file('SECRET.out', 'CSV', 'a Int8') SELECT 1",
        "BACKUP TABLE pulse.rows TO File('SECRET.out')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "INSERT INTO FUNCTION url('http://127.0.0.1:1/', 'CSV', 'a Int8') SELECT 1",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/key', 'CSV', 'a Int8')",
        "SELECT * FROM remote('127.0.0.2', system.one)",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM executable('script.sh', 'CSV', 'a String')",
        "SELECT * FROM python('__main__')",
    ],
)
def test_no_user_reads_or_writes_outside_the_sandbox(url: str, table: str, tmp_path: Path, sql: str) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text(KEPT)
    response = ask(url, sql.replace("SECRET", str(outside)), param_f="file")
    assert (response.status_code, response.text.count(KEPT)) in {(403, 0), (404, 0), (500, 0)}
    assert re.search(r"ACCESS_DENIED|UNKNOWN_TABLE|SUPPORT_IS_DISABLED", response.text)
    assert answer(url, f"SELECT count() FROM {table}") == "0\n"
    assert list(tmp_path.iterdir()) == [outside]


def test_external_tables_and_settings_reach_no_file(url: str, tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text(KEPT)
    structure = f"line String DEFAULT file('{outside}')"
    params = {"query": "SELECT * FROM x", "x_structure": structure, "x_format": "JSONEachRow"}
    response = requests.post(url, params=params, files={"x": b"{}"}, timeout=5)
    assert error(response) == (403, 497)
    asked = ask(url, "SELECT 1", additional_result_filter=f"length(file('{outside}')) > 0")
    assert error(asked) == (403, 497)


def test_names_that_only_look_like_files_are_allowed(url: str, table: str) -> None:
    answer(url, f"INSERT INTO {table} VALUES (1, 'a file; of \\'python\\'')")
    answer(url, "2\tfile('x')\n", query=f"INSERT INTO {table} FORMAT TSV")
    assert answer(url, f"SELECT n FROM {table} WHERE s LIKE '%file%' AND s != 'file()' ORDER BY n") == "1\n2\n"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM app.secret",
        "SELECT (SELECT max(n) FROM app.secret)",
        "SELECT * FROM view(SELECT * FROM app.secret)",
        "SELECT * FROM pulse.through",
        "SELECT * FROM merge(REGEXP('app|pulse'), 'secret')",
        "SHOW CREATE TABLE app.secret",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT file('/etc/passwd')",
        r"SELECT `fi\x6ce`('/etc/passwd')",
        "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
        "SELECT arrayMap(file, ['/etc/passwd'])",
        "SELECT arrayMap({f:Identifier}, ['/etc/passwd'])",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1', app.secret)",
        "SELECT * FROM executable('ls', 'CSV', 'a String')",
        "SELECT 1 INTO OUTFILE 'reader'",
        "INSERT INTO pulse.through VALUES (1)",
        "INSERT INTO FUNCTION file('reader.csv') SELECT 1",
        "CREATE TABLE pulse.mine (n Int32) ENGINE = Memory",
        "DROP TABLE pulse.through",
        "SET ROLE owner",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "KILL QUERY WHERE 1",
        "SELECT 1; SET ROLE owner",
    ],
)
def test_the_reader_can_do_nothing_but_read(clickhouse_server: Server, secret: None, sql: str) -> None:
    for session in ({}, {"session_id": "reader"}):
        response = ask(clickhouse_server.reader_url, sql, param_f="file", **session)
        assert response.status_code >= 400, response.text
        assert "root:" not in response.text


def test_the_reader_cannot_send_sql_as_an_external_table(clickhouse_server: Server) -> None:
    table = {"x_structure": "line String) AS SELECT * FROM file('/etc/passwd', 'LineAsString') --"}
    files = {"x": b""}
    address = clickhouse_server.reader_url
    response = requests.post(address, params={"query": "SELECT * FROM x", **table}, files=files, timeout=5)
    assert error(response) == (500, 164)


@pytest.fixture(scope="module")
def secret(clickhouse_server: Server) -> None:
    answer(clickhouse_server.url, "CREATE TABLE app.secret (n Int32) ENGINE = MergeTree ORDER BY n")
    answer(clickhouse_server.url, "CREATE VIEW pulse.through AS SELECT * FROM app.secret")


# --- real clients ----------------------------------------------------------------------------------------------------


def test_clickhouse_connect_reads_and_writes(client: Client, table: str) -> None:
    client.insert("rows", [[1, "tab\tquote'"], [2, "line\n\n;"]], column_names=["n", "s"])
    summary = client.insert_df("rows", pd.DataFrame({"n": [3], "s": ["ю"]}))
    assert summary.written_rows == 1
    assert client.query("SELECT * FROM rows ORDER BY n").result_rows == [(1, "tab\tquote'"), (2, "line\n\n;"), (3, "ю")]
    assert client.query_df("SELECT n FROM rows WHERE s = {s:String}", parameters={"s": "tab\tquote'"})[
        "n"
    ].tolist() == [1]
    assert client.command("SELECT count() FROM rows") == 3
    client.command("CREATE TEMPORARY TABLE kept (n Int32)")  # in the session that this client keeps
    assert client.command("EXISTS TEMPORARY TABLE kept") == 1
    with pytest.raises(DatabaseError, match=r"UNKNOWN_TABLE"):
        client.query("SELECT * FROM nothing")
    external = ExternalData(file_name="ids.csv", data=b"1\n3\n", fmt="CSV", structure=["n Int32"])
    assert client.query("SELECT s FROM rows WHERE n IN ids ORDER BY n", external_data=external).result_columns == [
        ["tab\tquote'", "ю"]
    ]
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as stream:
        assert sum(len(block) for block in stream) == 1_000_000


def test_pandahouse_reads_and_writes(url: str, table: str) -> None:
    connection = {"host": url, "database": "pulse"}
    frame = pd.DataFrame({"n": [1, 2]}).assign(s=pd.Series(["a", "b,\n\nc"], dtype=object))
    assert pandahouse.to_clickhouse(frame, "rows", index=False, connection=connection) == 2
    read = pandahouse.read_clickhouse("SELECT n, s FROM {db}.rows ORDER BY n", connection=connection)
    assert read["n"].tolist() == [1, 2]
    wanted = pd.DataFrame({"n": [2]})
    read = pandahouse.read_clickhouse(
        "SELECT count() AS c FROM {db}.rows WHERE n IN wanted",
        tables={"wanted": wanted},
        index=False,
        connection=connection,
    )
    assert read["c"].tolist() == [1]
    with pytest.raises(pandahouse.http.ClickhouseException, match="UNKNOWN_TABLE"):
        pandahouse.read_clickhouse("SELECT * FROM {db}.nothing", connection=connection)


def test_many_threads_lose_nothing(url: str, table: str) -> None:
    def work(worker: int) -> None:
        with requests.Session() as http:
            for number in range(6):
                row = worker * 6 + number
                assert http.post(url, f"INSERT INTO {table} FORMAT TSV\n{row}\tx\n", timeout=60).ok
                assert http.post(url, f"SELECT count() FROM {table} WHERE n = {row}", timeout=60).text == "1\n"

    with ThreadPoolExecutor(12) as threads:  # more than there are workers
        list(threads.map(work, range(12)))
    assert answer(url, f"SELECT count(), uniqExact(n) FROM {table}") == "72\t72\n"


# --- the process -----------------------------------------------------------------------------------------------------


def test_written_rows_survive_a_kill(tmp_path: Path) -> None:
    with clickhouse_stand_in.running(tmp_path) as server:
        answer(server.url, "CREATE TABLE pulse.kept (n Int32) ENGINE = MergeTree ORDER BY n")
        acknowledged = 0

        def write() -> None:
            nonlocal acknowledged
            with contextlib.suppress(requests.ConnectionError):
                while ask(server.url, f"INSERT INTO pulse.kept VALUES ({acknowledged})").ok:
                    acknowledged += 1

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.3)
        os.kill(server.pid, signal.SIGKILL)
        writer.join()
    with clickhouse_stand_in.running(tmp_path) as server:
        rows = int(answer(server.url, "SELECT uniqExact(n) FROM pulse.kept"))
        assert 0 < acknowledged <= rows <= acknowledged + 1
        answer(server.url, "INSERT INTO pulse.kept VALUES (-1)")


def test_it_stops_at_once_with_a_statement_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pulse_sandbox.clickhouse_stand_in", "--data", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    port = json.loads(process.stdout.readline())["port"]  # type: ignore[union-attr]
    with ThreadPoolExecutor() as threads:
        address = f"http://pulse:sandbox-only@127.0.0.1:{port}"
        running = threads.submit(ask, address, LONG)
        while answer(address, "SELECT count() FROM system.processes") == "1\n":
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, complaints = process.communicate(timeout=20)
        assert error(running.result())[1] == 394
    assert (process.returncode, output, complaints) == (0, b"", b"")


def test_it_listens_on_loopback_only_and_stops_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib; from pulse_sandbox import clickhouse_stand_in\n"
        f"with clickhouse_stand_in.running(pathlib.Path({str(tmp_path)!r})) as server:\n"
        "    print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))  # type: ignore[union-attr]
    assert {item.laddr.ip for item in child.net_connections() if item.status == "LISTEN"} == {"127.0.0.1"}
    parent.kill()
    parent.communicate()
    child.wait(5)


def test_a_port_or_folder_in_use_is_refused_in_a_sentence(clickhouse_server: Server, tmp_path: Path) -> None:
    port = clickhouse_server.port
    with pytest.raises(
        SandboxError, match=rf"^The ClickHouse sandbox cannot listen on port {port} .* give another port\.$"
    ):
        clickhouse_stand_in.running(tmp_path, port).__enter__()
    with pytest.raises(SandboxError, match=rf"^Another ClickHouse .* \(process {clickhouse_server.pid}\): stop it, or"):
        clickhouse_stand_in.running(clickhouse_server.data).__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match=r"^The ClickHouse sandbox cannot write to .*: make it writable, or"):
        clickhouse_stand_in.running(tmp_path / "file").__enter__()


def test_it_keeps_its_port_unless_another_program_has_taken_it(tmp_path: Path) -> None:
    with clickhouse_stand_in.running(tmp_path) as server:
        first = server.port
        assert clickhouse_stand_in.serving(tmp_path) == server
    assert clickhouse_stand_in.serving(tmp_path) is None
    with clickhouse_stand_in.running(tmp_path) as server:
        assert server.port == first
    with clickhouse_stand_in.running(tmp_path / "elsewhere", first), clickhouse_stand_in.running(tmp_path) as server:
        assert server.port != first
        assert clickhouse_stand_in.serving(tmp_path) == server  # and not the other, whose port it had


@pytest.mark.parametrize("same", ["folder", "port"])
def test_of_two_servers_started_at_once_one_starts(tmp_path: Path, same: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] if same == "port" else None
    decided = threading.Barrier(2)

    def start(number: int) -> str:
        try:
            with clickhouse_stand_in.running(tmp_path / ("same" if same == "folder" else str(number)), port) as server:
                decided.wait(60)
                return answer(server.url, "SELECT 'won'").strip()
        except SandboxError as refusal:
            decided.wait(60)
            return str(refusal)

    with ThreadPoolExecutor(2) as threads:
        refusal, won = sorted(threads.map(start, range(2)), key=len, reverse=True)
    assert won == "won"
    assert re.match(
        "Another ClickHouse sandbox uses" if same == "folder" else "The ClickHouse sandbox cannot listen", refusal
    )


def test_importing_the_stand_in_loads_no_engine() -> None:
    script = (
        "import sys, pulse_sandbox.clickhouse_stand_in; sys.exit('chdb' in sys.modules or 'uvicorn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_sandbox_with_little_memory_uses_all_cores(tmp_path: Path) -> None:
    with process.running(small_server.MODULE, tmp_path / "data") as about:
        url = Server(about["host"], about["port"], Path(about["data"]), about["pid"]).url
        plan = answer(url, "EXPLAIN PIPELINE SELECT number % 10, count() FROM numbers_mt(10000000) GROUP BY 1")
    (aggregating,) = re.findall(r"AggregatingTransform.*", plan)
    assert aggregating == f"AggregatingTransform × {os.cpu_count()}"
