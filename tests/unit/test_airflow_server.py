"""How Airflow's processes share a SQLite database."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from pulse.orchestration import server
from pulse.orchestration.server import SQLITE


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'airflow.db'}", connect_args=SQLITE)
    with engine.connect() as connection:
        connection.exec_driver_sql("pragma journal_mode = wal")  # as in Airflow
    with engine.begin() as connection:
        connection.execute(text("create table runs (name text)"))
    yield engine
    engine.dispose()


def test_a_savepoint_may_read_before_it_writes_beside_another_writer(engine: Engine) -> None:
    """`airflow backfill create` does this while a scheduler writes."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            with Session(engine) as session:
                session.execute(text("insert into runs values ('scheduled')"))
                session.commit()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            with Session(engine) as session:
                with session.begin_nested():
                    session.scalar(text("select count(*) from runs"))
                    over.wait(0.01)  # the other writer writes meanwhile
                    session.execute(text("insert into runs values ('backfill')"))
                session.commit()
    finally:
        over.set()
        writer.join()
    with Session(engine) as session:
        assert session.scalar(text("select count(*) from runs where name = 'backfill'")) == 20


def test_a_savepoint_that_is_rolled_back_leaves_nothing(engine: Engine) -> None:
    with Session(engine) as session:
        kept = session.begin_nested()
        session.execute(text("insert into runs values ('kept')"))
        kept.commit()
        lost = session.begin_nested()
        session.execute(text("insert into runs values ('lost')"))
        lost.rollback()
        session.commit()
        assert session.scalars(text("select name from runs")).all() == ["kept"]
        session.begin_nested()
        session.execute(text("insert into runs values ('lost')"))
        session.rollback()
        assert session.scalars(text("select name from runs")).all() == ["kept"]


@pytest.mark.parametrize(
    ("written", "given", "patient"),
    [
        ("", "", True),
        ("sqlite:////somewhere/airflow.db", "", True),  # as Airflow itself writes it at its first start
        ("postgresql://airflow:50%@db/airflow", "", False),
        ("", "postgresql://db/airflow", False),
        ("postgresql://db/airflow", "sqlite:////somewhere/airflow.db", True),
    ],
)
def test_airflow_waits_for_other_writers_whenever_its_database_is_sqlite(
    tmp_path: Path, written: str, given: str, patient: bool
) -> None:
    if written:
        (tmp_path / "airflow.cfg").write_text(f"[core]\n[database]\nsql_alchemy_conn = {written}\n")
    found = _environment(tmp_path, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": given} if given else {})
    assert ("'AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS'" in found) == patient
    assert ("'AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC'" in found) == patient


@pytest.mark.parametrize("how", ["cmd", "secret"])
@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_database_that_only_airflow_can_name_is_not_taken_for_sqlite(tmp_path: Path, how: str, where: str) -> None:
    written = f"sql_alchemy_conn_{how} = cat /run/dsn" if where == "file" else "sql_alchemy_conn = sqlite:////a.db"
    (tmp_path / "airflow.cfg").write_text(f"[database]\n{written}\n")
    given = {f"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_{how.upper()}": "cat /run/dsn"} if where == "environment" else {}
    assert "CONNECT_ARGS" not in _environment(tmp_path, given)


def test_airflow_takes_the_first_free_port_and_two_at_once_take_two(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        monkeypatch.setattr(server, "PORTS", range(first, first + 100))
        with server._port("127.0.0.1", None) as one, server._port("127.0.0.1", None) as two:
            assert first < one < two  # though neither of them listens yet
            with socket.create_server(("127.0.0.1", one)):  # the API server can
                pass


@pytest.mark.parametrize("given", ["taken", "70000", "eighty"])
def test_a_port_that_was_set_and_cannot_be_had_is_one_sentence(given: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = given.replace("taken", str(taken.getsockname()[1]))
        with (
            pytest.raises(
                server.AirflowError, match=rf"^Airflow cannot listen on 127\.0\.0\.1:{given} \(.*\): stop the"
            ),
            server._port("127.0.0.1", given),
        ):
            pass


def _environment(home: Path, given: dict[str, str]) -> str:
    """Return the names of the environment variables with which `pulse` runs Airflow in a home folder."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    program = "import os; from pulse import cli; cli.environment(); print(sorted(os.environ))"
    environment = own | {"AIRFLOW_HOME": str(home)} | given
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout
