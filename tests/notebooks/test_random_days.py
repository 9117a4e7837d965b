"""The ETL computes random days, awkward in every way that the specification allows, as plain Python recounts them.

A day is made from a seed, so a failure can be repeated; its message has the command for that. `make test` computes the
days of the first twenty seeds. `make prove` computes those of the next thousand, or `PULSE_RANDOM_DAYS` days from the
seed `PULSE_RANDOM_FROM` on. (We do not use hypothesis, because a day takes a second, and hypothesis would compute
hundreds more to shrink a failure. `with_few_rows` computes a few dozen, and only when a single seed is repeated.)
"""

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from notebooks.random_days import SECOND, RandomDay, random_day
from pulse_sandbox.clickhouse_stand_in import Server

from notebooks import recount
from notebooks.etl import Etl, split_by
from pulse import PulseError
from pulse.publishing import loads

COLUMNS = {
    "user_activity": recount.USER_ACTIVITY,
    "dimension_activity": recount.DIMENSION_ACTIVITY,
    "dimension_metrics": recount.DIMENSION_METRICS,
    "daily_metrics": recount.DAILY_METRICS,
}
# With these variables `make prove` computes any number of days from any seed on, such as days that nobody has tried.
FIRST, COUNT = int(os.environ.get("PULSE_RANDOM_FROM", "20")), int(os.environ.get("PULSE_RANDOM_DAYS", "1000"))
AGAIN = (
    "See it with as few rows as show it by: "
    "PULSE_RANDOM_FROM={seed} PULSE_RANDOM_DAYS=1 make prove PYTEST_ARGS=tests/notebooks/test_random_days.py"
)


@pytest.mark.parametrize("seed", range(20))
def test_a_random_day_is_as_plain_python_recounts_it(clickhouse_server: Server, seed: int) -> None:
    check(clickhouse_server, random_day(seed))


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_more_random_days_are_as_plain_python_recounts_them(clickhouse_server: Server, seed: int) -> None:
    check(clickhouse_server, random_day(seed))


def check(server: Server, day: RandomDay) -> None:
    """Compute the day with the ETL, and compare every row of the published tables."""
    if problem(server, day):
        if COUNT == 1:
            day = with_few_rows(server, day)
        pytest.fail(f"{problem(server, day)}\n\n{day}\n\n{AGAIN.format(seed=day.seed)}", pytrace=False)


def with_few_rows(server: Server, day: RandomDay) -> RandomDay:
    """Leave out rows as long as the day has a problem that begins with the same words; return what is left."""
    begins = problem(server, day).split()[:4]
    kept = list(range(day.size))
    share = len(kept) // 2
    while share:
        for start in range(0, len(kept), share):
            fewer = kept[:start] + kept[start + share :]
            if problem(server, day.only(fewer)).split()[:4] == begins:
                kept = fewer
                break
        else:
            share //= 2
    return day.only(kept)


def problem(server: Server, day: RandomDay) -> str:
    """Run the ETL over the day's raw rows; return how it fails or which rows differ, or nothing if all is well."""
    with (
        Etl.fresh(server, day.day, day.timezone, prefix="team_" if day.seed % 4 == 0 else "") as etl,
        TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as env,
    ):
        if day.optional:
            split_by(Path(folder), day.optional)
            env.setenv("PULSE_SOURCE", folder)
        for name, table in (("feed_actions", day.feed), ("message_actions", day.messages)):
            etl.create_source(name, table.columns, table.layout)
            for rows in table.inserts:
                etl.source.write([row | {"time": instant(row["time"])} for row in rows], name)
        for each in day.runs:
            refused = recount.is_nameless(day.feed.rows, each, day.zone)
            try:
                with patch.object(loads, "USERS_PER_PART", day.users_per_part):
                    etl.run(each, allow_empty=True, lookback_days=day.lookback_days)
            except PulseError as error:
                if not refused or not str(error).startswith("None of the "):
                    return f"The ETL failed: {error}"
            else:
                if refused:
                    return f"The ETL did not refuse {each}, which has feed actions and no view or like."
        if recount.is_nameless(day.feed.rows, day.day, day.zone):
            return differences({table: published(etl, table) for table in COLUMNS}, {table: [] for table in COLUMNS})
        expected = recount.recount(day.feed.rows, day.messages.rows, day.day, day.zone, day.lookback_days, day.optional)
        return differences({table: published(etl, table) for table in COLUMNS}, expected)


def instant(moment: int | None) -> str | None:
    """Return an instant, given in nanoseconds, as a text that ClickHouse reads correctly whatever the column's zone."""
    if moment is None:
        return None
    return f"{datetime.fromtimestamp(moment // SECOND, UTC):%F %T}.{moment % SECOND:09d}Z".replace(".000000000", "")


def published(etl: Etl, table: str) -> list[tuple[Any, ...]]:
    """Return a table's rows of the day, with columns in the order of `COLUMNS`; NULL becomes None."""
    # An id may be a number or a text, so ids are compared as text.
    listed = ", ".join("toString(user_id) as user_id" if name == "user_id" else name for name in COLUMNS[table])
    frame = etl.db.read(f"select {listed} from {table} where event_date = {{day:Date}}", day=etl.day)  # noqa: S608
    return [
        tuple(None if value != value else value for value in row) for row in frame.astype(object).to_numpy().tolist()
    ]


def differences(found: dict[str, list[tuple[Any, ...]]], expected: dict[str, list[tuple[Any, ...]]]) -> str:
    """List the rows that should not be there and those that are missing; return an empty text if there are none."""
    lines = []
    for table, columns in COLUMNS.items():
        there, wanted = Counter(found[table]), Counter(expected[table])
        rows = [f"  published {row}" for row in (there - wanted).elements()]
        rows += [f"  expected  {row}" for row in (wanted - there).elements()]
        lines += [f"{table} ({', '.join(columns)})", *sorted(rows, key=lambda row: row[12:])] if rows else []
    return "\n".join(lines)
