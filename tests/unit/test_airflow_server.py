"""How Airflow's processes share a SQLite database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from pulse.airflow_server import SQLITE


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'airflow.db'}", connect_args=SQLITE)
    with engine.connect() as connection:
        connection.exec_driver_sql("pragma journal_mode = wal")  # as Airflow has it
    with engine.begin() as connection:
        connection.execute(text("create table runs (name text)"))
    yield engine
    engine.dispose()


def test_a_savepoint_that_reads_before_it_writes_is_not_refused_beside_another_writer(engine: Engine) -> None:
    """As `airflow backfill create` does, beside a scheduler."""
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
                    over.wait(0.01)  # the other one writes meanwhile
                    session.execute(text("insert into runs values ('backfill')"))
                session.commit()
    finally:
        over.set()
        writer.join()
    with Session(engine) as session:
        assert session.scalar(text("select count(*) from runs where name = 'backfill'")) == 20


def test_what_a_savepoint_wrote_is_gone_when_it_is_taken_back(engine: Engine) -> None:
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
