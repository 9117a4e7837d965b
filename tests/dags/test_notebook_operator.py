"""NotebookOperator refuses arguments that would have no effect; those that it accepts have one."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
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
def test_arguments_without_effect_are_refused_wherever_they_are_given(given: dict[str, Any]) -> None:
    from airflow.sdk import DAG

    from pulse.orchestration.operators import NotebookOperator

    (name,) = given
    said = rf"NotebookOperator has no {name}: .*; leave {name} out, or use PapermillOperator\."
    with pytest.raises(ValueError, match=said):
        NotebookOperator(task_id="t", notebook="etl/load", **given)
    with (
        DAG("d", default_args=given, start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
        pytest.raises(ValueError, match=said),
    ):
        NotebookOperator(task_id="t", notebook="etl/load")


@pytest.mark.parametrize("log_output", [True, False])
def test_printed_lines_are_in_the_tasks_log_unless_log_output_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], log_output: bool
) -> None:
    from pulse.orchestration.operators import NotebookOperator

    parameters = nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]})
    cells = [parameters, nbformat.v4.new_code_cell("print('seven rows')")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "talks.ipynb")
    monkeypatch.setenv("PULSE_OUTPUT", str(tmp_path / "archive"))
    operator = NotebookOperator(task_id="t", notebook="etl/load", log_output=log_output)
    operator.input_nb = str(tmp_path / "talks.ipynb")
    instance = SimpleNamespace(dag_id="d", task_id="t", try_number=1, xcom_push=lambda *_: None)
    dag_run = SimpleNamespace(run_id="by hand", run_type="manual", run_after=datetime.now(UTC))
    path = operator.execute({"ti": instance, "dag_run": dag_run})
    assert "seven rows" in Path(path).read_text()
    said = capfd.readouterr()
    assert ("seven rows" in said.out + said.err) is log_output
