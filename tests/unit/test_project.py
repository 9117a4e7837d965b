"""The project's own files agree with each other."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pulse.settings import ROOT

OWNERS = {
    "papermill", "jupyter", "apache-airflow-providers-papermill", "pandahouse", "pandas", "matplotlib", "scrapbook",
    "python-telegram-bot",
}  # fmt: skip


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.strip() and not line.startswith(("#", "-")):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            pins[canonicalize_name(requirement.name)] = pin.version
    return pins


def test_the_owners_packages_are_direct_dependencies(project: dict) -> None:
    assert {Requirement(text).name for text in project["dependencies"]} >= OWNERS


def test_the_lock_holds_what_the_project_asks_for(project: dict, lock: dict[str, str]) -> None:
    sandbox = tomllib.loads((ROOT / "sandbox" / "pyproject.toml").read_text())["project"]
    theirs = [text for text in sandbox["dependencies"] if text != project["name"]]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"] + theirs:
        requirement = Requirement(text)
        assert lock[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_no_process_builds_a_grammar_of_addresses_when_it_starts(lock: dict[str, str]) -> None:
    """jsonschema 4.25 and later import this package at once, which costs every kernel, task and command 2 s of work."""
    assert "rfc3987-syntax" not in lock


def test_conda_installs_the_same_lock(project: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    *plain, pip = environment["dependencies"]
    assert plain[1] == "pip"
    assert plain[0].removeprefix("python=") in SpecifierSet(project["requires-python"])
    assert pip == {"pip": ["-r requirements.lock", "-e .", "-e sandbox"]}
    assert (ROOT / "requirements.lock").is_file()


def test_ci_and_the_workflow_call_the_same_targets() -> None:
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    script = (ROOT / ".ci/run").read_text()
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert set(re.findall(r"^make (\w+)", script, re.MULTILINE)) == {"lint", "test"}
    assert {"make lint", "make test"} <= set(steps)
    assert {step.split()[1] for step in steps} <= targets


def test_every_path_in_the_readmes_tree_is_there() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    for line in tree.splitlines()[1:]:
        assert (ROOT / line.split()[0]).exists(), line


def test_the_top_level_is_the_owners() -> None:
    for name in ("notebooks", "dags", "output", "tests", "environment.yml", "README.md"):
        assert (ROOT / name).exists()


def test_a_tests_name_is_a_fact_of_at_most_80_letters() -> None:
    names = [
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    assert len(names) > 500
    assert [name for name in names if len(name) > 80] == []


def test_no_module_has_more_than_400_lines() -> None:
    modules = [*(ROOT / "pulse").rglob("*.py"), *(ROOT / "sandbox" / "pulse_sandbox").rglob("*.py")]
    assert [str(path) for path in modules if len(path.read_text().splitlines()) > 400] == []
