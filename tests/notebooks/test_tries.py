"""An abandoned try may still run while the next one does the same work, so no two tries write to the same place."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from notebooks.etl import Etl, assert_equal
from pulse.execution import runner
from pulse.settings import ROOT

EXTRACTS = ("extract_feed", "extract_messages")


def write_a_day(etl: Etl) -> None:
    etl.feed(*[(user, "view", "09:30", "iOS", "male", 25) for user in range(1, 40)])
    etl.messages(*[(user, user + 1, "10:00", "Android", "female", 31) for user in range(1, 40)])


def test_each_try_writes_its_own_tables_and_the_next_step_gets_their_names(etl: Etl) -> None:
    write_a_day(etl)
    for number in (1, 2):
        etl.run(steps=EXTRACTS, run=f"night_{number}")
    # What the try that is not used writes late does not matter.
    etl.db.execute("truncate table feed_users__night_1")
    etl.db.execute("truncate table message_senders__night_2")
    extracts = {"feed": "night_2", "messages": "night_1"}
    for number in (1, 2):
        etl.run(steps=["transform"], run=f"transform_{number}", extracts=extracts)
    etl.db.execute("truncate table user_activity__transform_1")
    etl.run(steps=["load"], run="transform_2", extracts=extracts)
    assert_equal(etl.published(), etl.expected())


@pytest.mark.prove
def test_two_simultaneous_tries_of_every_step_publish_the_day_once(etl: Etl, tmp_path: Path) -> None:
    write_a_day(etl)
    expected = etl.expected()

    def attempt(step: str, number: int, **parameters: object) -> None:
        path = tmp_path / f"{step}.{number}.ipynb"
        given = {"event_date": str(etl.day), "run": f"{step}_{number}", **parameters}
        runner.run(ROOT / "notebooks" / "etl" / f"{step}.ipynb", str(path), given, environment=etl.environment)
        assert nbformat.read(path, as_version=4).metadata["pulse"]["outcome"] == "succeeded"

    extracts = {"feed": "extract_feed_2", "messages": "extract_messages_1"}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, [*EXTRACTS, *EXTRACTS], [1, 1, 2, 2]))
        list(pool.map(lambda number: attempt("transform", number, extracts=extracts), [1, 2]))
    attempt("load", 1, **{"run": "transform_2", "extracts": extracts})
    assert_equal(etl.published(), expected)
