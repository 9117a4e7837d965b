"""NotebookOperator refuses what would have no effect."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_conn_id": "remote"},
        {"nbconvert": True},
        {"nbconvert_args": ["--to", "html"]},
        {"kernel_name": "ir"},
        {"language_name": "R"},
        {"output_nb": "somewhere.ipynb"},
        {"input_nb": "another.ipynb"},
    ],
    ids=str,
)
def test_an_argument_without_effect_is_refused_wherever_it_is_given(given: dict[str, Any]) -> None:
    from airflow.sdk import DAG

    from pulse.airflow import NotebookOperator

    (name,) = given
    said = rf"NotebookOperator has no {name}: .*; leave {name} out, or use PapermillOperator\."
    with pytest.raises(ValueError, match=said):
        NotebookOperator(task_id="t", notebook="etl/load", **given)
    with (
        DAG("d", default_args=given, start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
        pytest.raises(ValueError, match=said),
    ):
        NotebookOperator(task_id="t", notebook="etl/load")
