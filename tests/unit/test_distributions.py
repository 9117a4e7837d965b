"""Production installs `pulse` alone: its wheel has no sandbox, and the `pulse` command works without it."""

import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from pulse.settings import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `pulse`, built from a copy of this checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("pulse", "sandbox"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    # `make install` has put the build backend into uv's cache.
    built = subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--offline", "--out-dir", str(target), str(source)],
        capture_output=True,
        text=True,
    )
    if built.returncode and "offline" in built.stderr:
        pytest.skip("uv's cache has no setuptools, and the test must not download it; run `make install`")
    assert built.returncode == 0, built.stderr
    (found,) = target.glob("*.whl")
    return found


def test_the_wheel_of_pulse_has_nothing_of_the_sandbox(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pulse"}
    assert [name for name in names if "sandbox" in name] == []
    assert "sandbox" not in points
    for path in (ROOT / "pulse").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names


def test_without_the_sandbox_the_command_works_and_has_no_sandbox(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path)
    (packages,) = tmp_path.glob("lib/python*/site-packages")
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if "pulse" not in each.name:  # every installed package but the two distributions
            (packages / each.name).symlink_to(each)
    python = tmp_path / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)

    def pulse(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([tmp_path / "bin" / "pulse", *words], capture_output=True, text=True, cwd=tmp_path)

    shown = pulse("--help")
    assert shown.returncode == 0, shown.stderr
    assert "archive" in shown.stdout
    assert "sandbox" not in shown.stdout
    assert pulse("archive", "--help").returncode == 0
    refused = pulse("sandbox", "run", "--", "true")
    assert refused.returncode == 2
    assert "No such command 'sandbox'" in refused.stderr
    missing = subprocess.run([python, "-c", "import pulse_sandbox"], capture_output=True, text=True)
    assert "No module named 'pulse_sandbox'" in missing.stderr
