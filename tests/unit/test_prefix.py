"""Table names with `PULSE_TABLE_PREFIX`: only tables without a database get it, in every statement."""

import pytest

from pulse.clickhouse import ClickHouseError
from pulse.clickhouse.prefix import prefixed


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        # Tables that are read
        ("select 1 from t", "select 1 from p_t as t"),
        ("SELECT t.x FROM `t` FINAL WHERE t.y = 't'", "SELECT t.x FROM `p_t` as `t` FINAL WHERE t.y = 't'"),
        ("select 1 from t as u", "select 1 from p_t as u"),
        ("select 1 from t u", "select 1 from p_t u"),
        ("select 1 from a, b", "select 1 from p_a as a, p_b as b"),
        (
            "select 1 from a global any left join b using k",
            "select 1 from p_a as a global any left join p_b as b using k",
        ),
        ("select 1 from t -- from u\n/* from v */", "select 1 from p_t as t -- from u\n/* from v */"),
        ("select 1 from t where x in (select y from u)", "select 1 from p_t as t where x in (select y from p_u as u)"),
        ("select 1 from t union all (select 2 from u)", "select 1 from p_t as t union all (select 2 from p_u as u)"),
        ("select 1 from v(start = {start:DateTime64(6)})", "select 1 from p_v(start = {start:DateTime64(6)})"),
        ("(select 1 from t) except select 2 from u", "(select 1 from p_t as t) except select 2 from p_u as u"),
        # What is none
        ("select 1 from db.t, system.tables", "select 1 from db.t, system.tables"),
        ("select 1 from numbers(10)", "select 1 from numbers(10)"),
        ("select 1 from remoteSecure(app, database = 'a', table = 't')",) * 2,
        ("select extract(year from day) from t", "select extract(year from day) from p_t as t"),
        ("select x from t array join [1] as x, y as z", "select x from p_t as t array join [1] as x, y as z"),
        ("with c as (select 1 from t) select 1 from c", "with c as (select 1 from p_t as t) select 1 from c"),
        # A CTE hides a table of its name from what follows, and not from itself
        ("with t as (select 1 from t) select 1 from t", "with t as (select 1 from p_t as t) select 1 from t"),
        ("with a as (select 1), b as (select 1 from a) select 1 from (select 1 from b)",) * 2,
        (
            "select 1 from (with c as (select 1) select 1 from c), c",
            "select 1 from (with c as (select 1) select 1 from c), p_c as c",
        ),
        # Tables that a statement is about
        ("insert into t (a, b) values (1, 'into u')", "insert into p_t (a, b) values (1, 'into u')"),
        ("insert into `t` format JSONEachRow", "insert into `p_t` format JSONEachRow"),
        ("insert into t select 1 from u", "insert into p_t select 1 from p_u as u"),
        (
            "insert into function remote('a', b.c) select 1 from u",
            "insert into function remote('a', b.c) select 1 from p_u as u",
        ),
        (
            "-- a\ncreate table if not exists t (table_id String, x UInt8 default cast(1 as UInt8)) engine = Log",
            "-- a\ncreate table if not exists p_t (table_id String, x UInt8 default cast(1 as UInt8)) engine = Log",
        ),
        ("create table a as b", "create table p_a as p_b"),
        (
            "create view v definer = current_user sql security definer as\nselect 1 from t comment 'i''s'",
            "create view p_v definer = current_user sql security definer as\nselect 1 from p_t as t comment 'i''s'",
        ),
        (
            "create materialized view v to t as select 1 from u",
            "create materialized view p_v to p_t as select 1 from p_u as u",
        ),
        ("alter table t add column x UInt8 after y", "alter table p_t add column x UInt8 after y"),
        ("alter table t modify ttl day to disk 'cold'", "alter table p_t modify ttl day to disk 'cold'"),
        (
            "alter table t delete where x in (select y from u)",
            "alter table p_t delete where x in (select y from p_u as u)",
        ),
        ("alter table `t` replace partition ('a') from `u`", "alter table `p_t` replace partition ('a') from `p_u`"),
        ("alter table t move partition 1 to table u", "alter table p_t move partition 1 to table p_u"),
        ("rename table if exists a to b, c to d", "rename table if exists p_a to p_b, p_c to p_d"),
        ("exchange tables a and b", "exchange tables p_a and p_b"),
        ("drop table if exists a, db.b", "drop table if exists p_a, db.b"),
        ("truncate table if exists t", "truncate table if exists p_t"),
        ("delete from t where x = 1", "delete from p_t where x = 1"),
        ("optimize table t final", "optimize table p_t final"),
        ("describe table t", "describe table p_t"),
        ("describe table (select 1 from t)", "describe table (select 1 from p_t as t)"),
        ("exists table t", "exists table p_t"),
        ("show create table t", "show create table p_t"),
        ("explain json = 1 select 1 from t", "explain json = 1 select 1 from p_t as t"),
        # Statements about something else
        ("show tables from db",) * 2,
        ("grant select on *.* to reader",) * 2,
        ("check grant select on db.*",) * 2,
        ("create database if not exists db",) * 2,
        ("create user u identified with sha256_password by 'x'",) * 2,
        ("set max_threads = 1",) * 2,
        ("",) * 2,
    ],
)
def test_tables_without_a_database_get_the_prefix(sql: str, expected: str) -> None:
    assert prefixed(sql, "p_") == (expected, frozenset())


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("select 1 from {t:Identifier} as a inner join { u : Identifier } using (x)", {"t", "u"}),
        ("create or replace table {t:Identifier} engine = Memory as\nselect {x:UInt8} from {u:Identifier}", {"t", "u"}),
        ("select {column:Identifier} from {t:Identifier}", {"t"}),
        ("create database {name:Identifier}", set()),
    ],
)
def test_parameters_that_stand_for_tables_are_told(sql: str, bound: set[str]) -> None:
    assert prefixed(sql, "p_") == (sql, bound)


def test_a_statement_that_cannot_be_understood_is_one_sentence() -> None:
    with pytest.raises(ClickHouseError, match=r"^A statement cannot be understood .* PULSE_TABLE_PREFIX .*another way"):
        prefixed("select 1 from (select 2 from t", "p_")
