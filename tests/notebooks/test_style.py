"""Every notebook keeps to the house style, so that somebody who knows one of them knows them all."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from sqlfluff.core import FluffConfig, Linter

from pulse.execution import attempt
from pulse.settings import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _code(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"extract_feed", "extract_messages", "transform", "load"}


@every_notebook
def test_it_begins_with_a_title_then_parameters_then_the_set_up(path: Path) -> None:
    node = nbformat.read(path, as_version=4)
    title, parameters, setup = node.cells[:3]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert "**" in title.source  # the question that it answers
    assert [cell for cell in node.cells if "parameters" in cell.metadata.get("tags", [])] == [parameters]
    assert "import" in setup.source
    assert node.metadata.kernelspec.name == "python3"


@every_notebook
def test_parameters_are_literals_with_a_comment_each(path: Path) -> None:
    parameters = _code(path)[0]
    for statement in ast.parse(parameters).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    assert all("  # " in line for line in parameters.splitlines())
    assert attempt.parameters_of(path)


@every_notebook
def test_it_holds_no_outputs_and_no_def_try_or_filter(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            forbidden = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Try | ast.Lambda
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, forbidden)]
            assert "filterwarnings" not in cell.source
            assert "open(" not in cell.source


@every_notebook
def test_prose_stands_before_every_step(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    for before, cell in pairwise(cells[2:]):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown"
    assert "glue(" in cells[-1].source


@every_notebook
def test_its_sql_is_said_what_for_and_well_formed(path: Path) -> None:
    linter = Linter(config=FluffConfig.from_path(str(ROOT)))
    found = []
    for source in _code(path):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value.strip():
                text = node.value.strip()
                if text.split()[0].lower() in ("select", "insert", "create", "with", "--"):
                    assert text.startswith("-- "), text[:60]
                    found += [
                        f"{error.rule_code()} {error.desc()} in: {text.splitlines()[error.line_no - 1]}"
                        for error in linter.lint_string(text + "\n").get_violations()
                    ]
    assert found == []


@every_notebook
def test_values_are_bound_never_formatted_in(path: Path) -> None:
    for source in _code(path):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value for part in node.values if isinstance(part, ast.Constant)).lower()
                assert "select " not in text
                assert "insert " not in text


SQL = [*NOTEBOOKS, *sorted((ROOT / "pulse").rglob("*.py")), *sorted((ROOT / "pulse").rglob("*.sql"))]


@pytest.mark.parametrize("path", SQL, ids=lambda path: str(path.relative_to(ROOT)))
def test_moments_are_bound_with_their_fractions_of_a_second(path: Path) -> None:
    """To prune by key or partition, the engine turns `time < {end:DateTime}` into `time <= end - 1 s`."""
    text = "\n".join(_code(path)) if path.suffix == ".ipynb" else path.read_text()
    assert re.findall(r"\{\w+:(?:Nullable\()?DateTime(?:32)?[})(]|[<>]=?\s*toDateTime(?:32)?\(", text) == []
