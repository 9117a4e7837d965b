"""`pulse as-of` says what was believed about a day, and why it changed: before it was published, between, and after."""

import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from notebooks.etl import Etl
from pulse.publishing import loads

DAY = date(2025, 3, 12)
IOS, ANDROID = ("iOS", "female", 25), ("Android", "male", 40)


def as_of(etl: Etl, known: date | str, day: date = DAY) -> list[str]:
    """Run the command and return the lines that it prints, or the last line of its error."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "pulse"), "as-of", str(known), str(day)],
        env={**os.environ, **etl.environment, "PULSE_OUTPUT": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.splitlines() if done.returncode == 0 else done.stderr.splitlines()[-1:]


def published_at(etl: Etl, run: str, moment: str) -> None:
    """Make a publication look as if it had been made at a local time."""
    etl.db.execute(
        "alter table {database:Identifier}.publications update published_at = {moment:DateTime64(6)}"
        " where run = {run:String} settings mutations_sync = 1",
        database=etl.db.database,
        moment=etl.moment(moment),
        run=run,
    )


@pytest.fixture
def restated(etl: Etl) -> Etl:
    """A day that was published on the 13th, and again on the 15th because views had come late."""
    etl.feed(*[(1, "view", "10:00", *IOS)] * 8, (2, "like", "11:00", *ANDROID))
    etl.messages((1, 2, "10:00", *IOS))
    etl.run(run="first")
    etl.feed((2, "view", "21:10", *ANDROID), (2, "view", "22:10", *ANDROID))
    etl.by_hand("etl/restate", event_date=str(DAY), days=1)
    etl.run(run="second")
    published_at(etl, "first", "2025-03-13 05:10")
    published_at(etl, "second", "2025-03-15 04:20")
    return etl


def test_it_says_what_was_believed_then_and_why_it_changed(restated: Etl) -> None:
    lines = as_of(restated, "2025-03-14")
    assert lines[:3] == [
        "2025-03-12, as it was known at the end of 2025-03-14:",
        "  then  run first, 2025-03-13 05:10",
        "  now   run second, 2025-03-15 04:20",
    ]
    shown = {line.split()[0]: line.split()[1:] for line in lines[4:14]}
    assert shown["views"] == ["8", "→", "10", "+25.0%"]
    assert shown["likes"] == ["1"]
    assert shown["ctr"] == ["12.5%", "→", "10.0%", "−2.5pp"]
    assert shown["sent_per_received"] == ["1.00"]
    assert lines[14:] == [
        "",
        "Published again since:",
        "  2025-03-15 04:20, by run second: +22.2%: late Android events of 21:00–23:00",
    ]


def test_before_and_after(restated: Etl) -> None:
    """A day ends at midnight in the configured zone."""
    assert as_of(restated, DAY) == [
        "At the end of 2025-03-12 nothing was published about 2025-03-12: that was first done on 2025-03-13 05:10, "
        "by run first."
    ]
    published_at(restated, "second", "2025-03-14 23:59")
    lines = as_of(restated, "2025-03-14")
    assert lines[1:3] == ["  then  run second, 2025-03-14 23:59", "  now   the same"]
    assert len(lines) == 14
    assert as_of(restated, "2025-03-13")[1] == "  then  run first, 2025-03-13 05:10"


def test_numbers_that_are_gone_are_said_to_be(restated: Etl) -> None:
    first = loads.history(restated.db, DAY)[0]
    for table in loads.TABLES:
        restated.db.execute(f"alter table {table}_loads drop partition ('{DAY}', '{first.load}')")
    assert as_of(restated, "2025-03-14")[4] == (
        "The numbers of run first are gone: those of replaced loads are kept for 400 days, and were not kept at all by "
        "versions before schema version 9."
    )


def test_what_cannot_be_answered_is_said_in_a_sentence(restated: Etl) -> None:
    assert as_of(restated, "the 3rd") == ["'the 3rd' is not a valid date; give an ISO date such as 2026-11-03."]
    (said,) = as_of(restated, "2025-03-14", DAY - timedelta(days=1))
    assert "2025-03-11 is not published in" in said
