"""The client works with the real engine over HTTP, and with servers that misbehave."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import tenacity
from pulse_sandbox.clickhouse_stand_in import Server

from pulse import clickhouse
from pulse.clickhouse import ClickHouse, ClickHouseError

MOSCOW = ZoneInfo("Europe/Moscow")


@pytest.fixture(scope="module")
def db(clickhouse_server: Server) -> ClickHouse:
    return ClickHouse(clickhouse_server.url, "pulse", MOSCOW)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the client retry as often as usual, but without pauses."""
    monkeypatch.setattr(tenacity, "wait_exponential_jitter", lambda **_: tenacity.wait_none())


# --- values and statements -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "it's",
        'a "quote"',
        "back\\slash",
        "tab\tnew\nline\r",
        "{braces} {db} {x:Int8}",
        "💬 ünïcode",
        "\\N",
        "%s",
    ],
)
def test_a_bound_string_comes_back_unchanged(db: ClickHouse, text: str) -> None:
    assert db.value("select {x:String}", x=text) == text
    assert db.read("select arrayJoin({x:Array(String)}) as x", x=[text, "other"])["x"].tolist() == [text, "other"]


def test_bound_values_of_other_types_come_back_unchanged(db: ClickHouse) -> None:
    assert db.value("select {x:UInt64}", x=2**64 - 1) == 2**64 - 1
    assert db.value("select {x:Nullable(Int8)}", x=None) is None
    assert db.value("select {x:Date} = toDate('2026-11-22')", x=date(2026, 11, 22)) == 1
    assert db.value("select {x:Array(UInt8)}", x=[1, 2]) == [1, 2]
    assert db.value("select {x:Bool}", x=True) is True
    assert db.read("select arrayJoin({x:Array(Date)}) as d", x=[date(2026, 1, 2)])["d"].tolist() == [
        pd.Timestamp("2026-01-02")
    ]


def test_a_moment_is_the_same_instant_whatever_its_zone(db: ClickHouse) -> None:
    moment = datetime(2026, 11, 22, 0, 30, tzinfo=MOSCOW)
    for same in (moment, moment.astimezone(UTC)):
        assert db.value("select toUnixTimestamp({x:DateTime})", x=same) == moment.timestamp()
    with pytest.raises(ClickHouseError, match="has no time zone"):
        db.value("select {x:DateTime}", x=datetime(2026, 11, 22))


def test_braces_in_sql_are_left_alone(db: ClickHouse) -> None:
    assert db.value("""select '{"json": {}}' || '{' || {x:String}""", x="}") == '{"json": {}}{}'


def test_a_script_runs_statement_by_statement(db: ClickHouse) -> None:
    db.script(
        "-- one; two\ncreate or replace table s (a String) engine = Memory;\n\ninsert into s values (';');\n-- end\n"
    )
    assert db.value("select a from s") == ";"


# --- results ---------------------------------------------------------------------------------------------------------

ALL_TYPES = """
select
    toUInt8(1) as u8, toInt64(-5) as i64, toUInt64(18446744073709551615) as u64, toNullable(toInt32(7)) as ni,
    1.5 as f, nan as not_a_number, toNullable(2.5) as nf,
    'x' as s, toNullable('y') as ns, toLowCardinality('z') as lc, toLowCardinality(toNullable('w')) as lcn,
    cast('like', 'Enum8(\\'view\\' = 1, \\'like\\' = 2)') as e, toFixedString('ab', 2) as fs,
    true as b, toDecimal64(1.10, 2) as d,
    toDate('2026-11-22') as day, toDate32('1950-01-01') as day32,
    toDateTime('2026-11-22 12:00:00', 'UTC') as t, toDateTime64('2026-11-22 12:00:00.250', 3, 'Asia/Tokyo') as t64,
    [1, 2] as a, map('k', 1) as m
"""


def test_every_type_is_readable(db: ClickHouse) -> None:
    row = db.read(ALL_TYPES).iloc[0]
    assert (row.u8, row.i64, row.u64, row.ni, row.f, row.nf) == (1, -5, 2**64 - 1, 7, 1.5, 2.5)
    assert np.isnan(row.not_a_number)
    assert (row.s, row.ns, row.lc, row.lcn, row.e, row.fs, row.b) == ("x", "y", "z", "w", "like", "ab", True)
    assert row.d == Decimal("1.10")
    assert (row.day, row.day32) == (pd.Timestamp("2026-11-22"), pd.Timestamp("1950-01-01"))
    assert row.t == pd.Timestamp("2026-11-22 12:00", tz="UTC")
    assert row.t64 == pd.Timestamp("2026-11-22 12:00:00.250", tz="Asia/Tokyo")
    assert (row.a, row.m) == ([1, 2], {"k": 1})


def test_columns_have_pandas_own_types(db: ClickHouse) -> None:
    types = db.read(ALL_TYPES).dtypes.astype(str).to_dict()
    assert [types[name] for name in ("u8", "i64", "u64", "f", "s", "lcn", "b")] == [
        "uint8", "int64", "uint64", "float64", "str", "str", "bool",
    ]  # fmt: skip
    assert types["day"].startswith("datetime64")
    assert types["t64"].endswith("Asia/Tokyo]")


def test_null_and_nan_read_as_missing(db: ClickHouse) -> None:
    frame = db.read(
        """
        select * from values(
            'i Nullable(UInt64), f Nullable(Float64), s Nullable(String), t Nullable(DateTime), b Nullable(Bool)',
            (18446744073709551615, 1, 'a', 1, true), (null, nan, null, null, null)
        )
        """
    )
    assert frame.iloc[1].isna().all()
    assert frame["i"].iloc[0] == 2**64 - 1  # exact, not rounded by a float


def test_a_moment_without_a_zone_is_shown_in_the_configured_zone(db: ClickHouse) -> None:
    shown = db.read("select toDateTime(1700000000) as t")["t"].iloc[0]
    assert shown == pd.Timestamp(1700000000, unit="s", tz="UTC")
    assert str(shown.tz) == "Europe/Moscow"


def test_an_empty_result_has_its_columns(db: ClickHouse) -> None:
    frame = db.read("select 1 as a, 'x' as b where 0")
    assert list(frame.columns) == ["a", "b"]
    assert frame.empty
    assert db.value("select 1 where 0") is None


def test_what_is_written_is_read_back(db: ClickHouse) -> None:
    db.execute(
        "create or replace table w (i Nullable(UInt64), f Nullable(Float64), s Nullable(String),"
        " c LowCardinality(String), d Date, t DateTime64(3, 'UTC'), b Bool, a Array(Int8)) engine = Memory"
    )
    moment = pd.Timestamp("2026-11-22 10:00:00.500", tz="Europe/Moscow")
    frame = pd.DataFrame(
        {
            "i": pd.array([2**64 - 1, None], dtype="UInt64"),
            "f": [0.1, np.nan],
            "s": ["tab\t'quote' \\ {x}", None],
            "c": pd.Categorical(["a", "b"]),
            "d": [date(2026, 11, 22), date(2026, 11, 23)],
            "t": [moment, moment],
            "b": [True, False],
            "a": [[1, 2], []],
        }
    )
    assert db.write(frame, "w").written_rows == 2
    back = db.read("select * from w order by d")
    assert back["i"].iloc[0] == 2**64 - 1
    assert back[["i", "f", "s"]].iloc[1].isna().all()
    assert back["s"].iloc[0] == frame["s"].iloc[0]
    assert (back["t"] == moment).all()
    assert back["b"].tolist() == [True, False]
    assert back["a"].tolist() == [[1, 2], []]


def test_writing_is_all_or_nothing(db: ClickHouse) -> None:
    db.execute("create or replace table whole (i UInt8) engine = MergeTree order by i")
    with pytest.raises(ClickHouseError):
        db.write([{"i": 1}, {"i": "no number"}], "whole")
    assert db.value("select count() from whole") == 0


def test_a_result_says_what_the_server_did(db: ClickHouse) -> None:
    db.execute("create or replace table counted (n UInt64) engine = MergeTree order by n")
    done = db.execute("insert into counted select number from numbers(1000)")
    assert (done.written_rows, done.read_rows) == (1000, 1000)
    assert done.seconds > 0
    assert len(done.query_id) == 36


def test_a_day_is_replaced_in_one_step(db: ClickHouse) -> None:
    table = "(event_date Date, n UInt8) engine = MergeTree partition by event_date order by n"
    db.execute(f"create or replace table target {table}")
    db.execute(f"create or replace table target__staged {table}")
    db.execute("insert into target values ('2026-11-21', 1), ('2026-11-22', 2)")
    db.execute("insert into target__staged values ('2026-11-22', 3)")
    for _ in range(2):  # the second time changes nothing
        db.replace_partition("target", [date(2026, 11, 22)], "target__staged")
        assert db.read("select n from target order by n")["n"].tolist() == [1, 3]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "code", "said"),
    [
        ("select * from nowhere", 60, "nowhere"),
        ("select nothing from system.one", 47, "nothing"),
        ("select * from missing_db.t", 81, "missing_db"),
        ("selec 1", 62, "SYNTAX_ERROR"),
        ("select throwIf(number = 99999) from numbers(100000)", 395, "throwIf"),
        ("select count() from numbers(1e18)", 159, "max_seconds"),
    ],
)
def test_a_server_error_is_one_sentence_with_its_code(
    clickhouse_server: Server, sql: str, code: int, said: str
) -> None:
    db = ClickHouse(clickhouse_server.url, "pulse", MOSCOW, max_seconds=1)
    with pytest.raises(ClickHouseError) as found:
        db.read(sql)
    assert found.value.code == code
    assert said in str(found.value)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 700


def test_an_error_in_the_middle_of_a_result_is_an_error(db: ClickHouse) -> None:
    with pytest.raises(ClickHouseError, match="395"):
        db.read("select number, throwIf(number = 900000) from numbers(1000000) settings max_block_size = 1000")


def test_a_wrong_password_says_what_to_check_and_shows_none(clickhouse_server: Server) -> None:
    db = ClickHouse(f"http://pulse:wr0ng-password@127.0.0.1:{clickhouse_server.port}", "pulse", MOSCOW)
    with pytest.raises(ClickHouseError, match="Check the user and the password in CLICKHOUSE_URL") as found:
        db.read("select 1")
    _shows_nothing_of("wr0ng-password", found.value)


def test_a_read_only_user_gets_advice(clickhouse_server: Server, db: ClickHouse) -> None:
    reader = ClickHouse(clickhouse_server.reader_url, "pulse", MOSCOW)
    assert reader.value("select 1") == 1
    with pytest.raises(ClickHouseError) as found:
        reader.execute("create table mine (x UInt8) engine = Memory")
    assert found.value.code in (164, 497)


@pytest.mark.usefixtures("impatient")
def test_a_missing_server_is_reported_with_what_to_check() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    db = ClickHouse(f"http://pulse:s3cret-word@127.0.0.1:{port}", "pulse", MOSCOW)
    with pytest.raises(
        ClickHouseError, match=f"No ClickHouse server answers at http://127.0.0.1:{port}; check CLICKHOUSE_URL"
    ) as found:
        db.read("select 1")
    _shows_nothing_of("s3cret-word", found.value)
    with pytest.raises(ClickHouseError, match="No ClickHouse server answers"):
        ClickHouse("http://u:p@no-such-host.invalid:8123", "pulse", MOSCOW).read("select 1")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://127.0.0.1",
            "at http://127.0.0.1:80; check CLICKHOUSE_URL (it names no port; ClickHouse's own is 8123)",
        ),
        (
            "https://127.0.0.1/",
            "at https://127.0.0.1:443; check CLICKHOUSE_URL (it names no port; ClickHouse's own is 8443",
        ),
        ("http://u:s3cret-word@[::1]:9", "at http://[::1]:9; check CLICKHOUSE_URL and that the server is running."),
    ],
)
def test_the_error_names_the_port_that_was_tried(monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    tried: list[int] = []

    def connect(_: socket.socket, address: Any) -> None:
        tried.append(address[1])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ClickHouseError) as found:
        ClickHouse(url, "pulse", MOSCOW).execute("select 1")
    assert said in str(found.value)
    assert set(tried) == {int(re.search(r"https?://\S+:(\d+);", str(found.value))[1])}  # type: ignore[index]


@pytest.mark.parametrize(
    ("sql", "outcome"),
    [("select 1", ""), ("insert into t select 1", " The statement may have been carried out or not")],
)
def test_a_silent_server_is_given_up_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, sql: str, outcome: str
) -> None:
    monkeypatch.setattr(clickhouse, "GRACE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts connections and never answers
        port = server.getsockname()[1]
        db = ClickHouse(f"http://pulse:s3cret-word@127.0.0.1:{port}", "pulse", MOSCOW, max_seconds=1)
        started = time.monotonic()
        with pytest.raises(
            ClickHouseError, match=f"said nothing for 1 s; check that the server is well.{outcome}"
        ) as found:
            db.execute(sql)
        assert 1 < time.monotonic() - started < 20  # generous for a busy machine
        server.settimeout(0.5)
        server.accept()[0].close()
        with pytest.raises(TimeoutError):
            server.accept()
    _shows_nothing_of("s3cret-word", found.value)


def test_a_server_that_falls_silent_during_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clickhouse, "GRACE_SECONDS", 0.2)
    silent = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(GOOD[:-20])
                silent.wait(20)

        threading.Thread(target=serve, daemon=True).start()
        db = ClickHouse(f"http://127.0.0.1:{server.getsockname()[1]}", "pulse", MOSCOW, max_seconds=1)
        with pytest.raises(ClickHouseError, match="said nothing for 1 s"):
            db.value("select 1")
        silent.set()


def _shows_nothing_of(secret: str, error: BaseException | None) -> None:
    """Check that neither the error nor its causes, as a traceback prints them, show the password."""
    while error is not None:
        assert secret not in repr(error)
        assert secret not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@contextmanager
def misbehaving(*answers: bytes) -> Iterator[tuple[ClickHouse, list[bytes]]]:
    """A server that reads a request and sends the next of these raw answers; an empty one closes the connection."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    request = connection.recv(65536)
                    length = int(request.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                    while len(request.partition(b"\r\n\r\n")[2]) < length:
                        request += connection.recv(65536)
                    seen.append(request)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield ClickHouse(f"http://pulse:s3cret-word@127.0.0.1:{server.getsockname()[1]}", "pulse", MOSCOW), seen


ONE = b'{"meta":[{"name":"x","type":"UInt8"}],"data":[[1]]}'
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ONE), ONE)


def test_a_read_is_repeated_when_the_connection_breaks_before_an_answer() -> None:
    with misbehaving(b"", GOOD) as (db, seen):
        assert db.value("-- which one\nselect 1") == 1
    assert len(seen) == 2
    ids = {request.partition(b"query_id=")[2][:36] for request in seen}
    assert len(ids) == 1  # so that the server refuses the second while the first is still running


def test_an_insert_whose_answer_is_lost_is_never_repeated() -> None:
    with misbehaving(b"", GOOD) as (db, seen):
        with pytest.raises(ClickHouseError, match="may have been carried out or not"):
            db.execute("insert into t select 1")
        assert len(seen) == 1


@pytest.mark.usefixtures("impatient")
def test_a_truncated_result_is_an_error() -> None:
    cut = GOOD[:-20]
    with misbehaving(*[cut] * 4) as (db, _), pytest.raises(ClickHouseError, match="closed the connection"):
        db.value("select 1")


def test_another_kind_of_server_on_the_port_is_recognized() -> None:
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 15\r\n\r\n<html>nginx</h>"
    with (
        misbehaving(page) as (db, _),
        pytest.raises(ClickHouseError, match="Check that CLICKHOUSE_URL is a ClickHouse") as found,
    ):
        db.value("select 1")
    _shows_nothing_of("s3cret-word", found.value)
    empty = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with misbehaving(empty) as (db, _), pytest.raises(ClickHouseError, match="HTTP status 404") as found:
        db.value("select 1")
    _shows_nothing_of("s3cret-word", found.value)


def test_credentials_travel_in_a_header_and_not_in_the_address() -> None:
    with misbehaving(GOOD) as (db, seen):
        db.value("select 1")
    line, _, rest = seen[0].partition(b"\r\n")
    assert b"s3cret-word" not in line
    assert b"Authorization: Basic " in rest
    assert b"wait_end_of_query=1" in line
    assert b"max_execution_time=600" in line
