"""A fresh copy of the project for each file of tests that needs one."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from newcomer import Home

from pulse.settings import ROOT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("newcomer") / "pulse"
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    ours = ("VIRTUAL_ENV", "PYTEST", "AIRFLOW", "PULSE", "CLICKHOUSE", "TELEGRAM", "PYTHON", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    venv = str(ROOT / ".venv")
    environment["PATH"] = ":".join(part for part in os.environ["PATH"].split(":") if not part.startswith(venv))
    subprocess.run(["git", "init", "--quiet"], cwd=root, env=environment, check=True)
    yield Home(root, environment)
    shutil.rmtree(root, ignore_errors=True)
