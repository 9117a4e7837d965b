"""A notebook's run is archived with the truth about how it ended: small real notebooks, run by real kernels."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pulse import notebooks, settings
from pulse.archive import index, manifest, proof

SECRET = "correct-horse-battery"  # noqa: S105

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a notebook with a parameters cell (`day = "x"`, `limit = 5`) and these code cells."""

    def write(
        *cells: str, parameters: str | None = 'day = "x"  # the day\nlimit = 5\nnames = {}\nstrict = False'
    ) -> Path:
        node = new_notebook(
            metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
        )
        node.cells.append(new_markdown_cell("# A notebook"))
        if parameters is not None:
            node.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        for number, source in enumerate(cells):
            node.cells += [new_markdown_cell(f"## Step {number}"), new_code_cell(source)]
        path = tmp_path / "small.ipynb"
        nbformat.write(node, path)
        return path

    return write


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "archive" / "2026-11-22" / "small.1.ipynb"


def record(path: Path) -> dict[str, Any]:
    return nbformat.read(path, as_version=4).metadata["pulse"]


# --- a run that goes well --------------------------------------------------------------------------------------------


def test_a_run_is_kept_with_all_that_made_it(make: Make, kept: Path) -> None:
    glue = "from pulse import notebooks\nimport numpy as np\nnotebooks.glue(n=np.int64(7), t='x')"
    notebook = make("print(day, limit)", glue)
    root = kept.parent.parent
    about = {"dag": "etl", "try": 1}
    done = notebooks.run(notebook, str(kept), {"day": "2026-11-22", "limit": 3}, about=about, root=str(root))
    about = record(kept)
    assert about["outcome"] == "succeeded"
    assert about["error"] is None
    assert about["parameters"] == {"day": "2026-11-22", "limit": 3}
    assert (about["dag"], about["try"], about["notebook"]) == ("etl", 1, "small")
    assert about["seconds"] == done.seconds > 0
    assert about["commit"] == notebooks.commit()
    assert notebooks.scraps(str(kept)) == {"n": 7, "t": "x"}
    assert "2026-11-22 3" in kept.read_text()

    entries = [entry for entry, _ in manifest.read(root)]
    assert [entry["what"] for entry in entries] == ["begun", "ended"]
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert (entries[1]["sha256"], entries[1]["outcome"], notebooks.ref(str(kept))) == (sha256, "succeeded", sha256[:10])
    assert proof.verify(root).problems == []
    with index.opened(root) as opened:
        (attempt,) = opened.by_ref(sha256[:10])
    assert (attempt.numbers, attempt.outcome, attempt.seconds) == ({"n": 7}, "succeeded", done.seconds)
    with pytest.raises(notebooks.ArchiveError, match="holds no notebook"):
        notebooks.ref(str(kept) + "x")


def test_a_figure_is_handed_on_as_the_png_that_it_saves(make: Make, kept: Path) -> None:
    draw = "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots(figsize=(3, 2), dpi=100)\naxes.plot([1, 2])"
    notebooks.run(
        make(draw + "\nplt.close()", "from pulse import notebooks\nnotebooks.glue(chart=figure)"), str(kept), {}
    )
    png = notebooks.scraps(str(kept))["chart"]
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == 300  # pixels wide, as asked for
    assert any("image/png" in out.get("data", {}) for out in nbformat.read(kept, 4).cells[-1].outputs)
    with pytest.raises(notebooks.ArchiveError, match="holds no notebook"):
        notebooks.scraps(str(kept) + "x")


def test_the_commit_is_the_checkouts(tmp_path: Path) -> None:
    said = notebooks.commit()
    head = subprocess.run(["git", "-C", str(settings.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert said.removesuffix("-dirty") == (head.strip() or "unknown")


def test_queries_are_recorded_failed_ones_too(make: Make, kept: Path, clickhouse_server: Any) -> None:
    notebook = make(
        "from pulse import clickhouse\ndb = clickhouse.connect()",
        "print(db.value('select 1'), db.execute('create or replace table traced (a Int8) engine = Memory'))",
        "db.read('select * from nowhere')",
    )
    with pytest.raises(notebooks.NotebookError, match=r"failed in cell 8 \(Step 2\): ClickHouseError: .*60"):
        notebooks.run(notebook, str(kept), {}, environment={"CLICKHOUSE_URL": clickhouse_server.url})
    queries = record(kept)["queries"]
    assert len(queries) == 3
    assert len({query["query_id"] for query in queries}) == 3
    assert queries[-1]["error"] == 60


def test_the_kernel_gets_the_connection_by_its_environment_and_nothing_of_airflows(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_OTHER", "TELEGRAM_BOT_TOKEN"):
        monkeypatch.setenv(name, "none-of-a-notebooks-business")
    notebook = make(
        "import os\nprint(len(os.environ['CLICKHOUSE_URL']), [n for n, v in os.environ.items() if 'none-of' in v])"
    )
    notebooks.run(notebook, str(kept), {}, environment={"CLICKHOUSE_URL": f"http://u:{SECRET}@h:1"}, secrets=[SECRET])
    assert "[]" in kept.read_text()
    assert SECRET not in kept.read_text()
    assert "CLICKHOUSE_URL" not in os.environ or SECRET not in os.environ["CLICKHOUSE_URL"]


def test_an_empty_cell_is_no_failure(make: Make, kept: Path) -> None:
    notebooks.run(make("", "# only a comment", "x = 1"), str(kept), {})
    assert record(kept)["outcome"] == "succeeded"


# --- a run that does not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "outcome", "said"),
    [
        ("raise ValueError('no rows for the day')", "failed", "ValueError: no rows for the day"),
        ("import sys\nsys.exit(0)", "stopped early", "code cells that did not run: 1"),
        ("import sys\nsys.exit('enough')", "failed", "SystemExit: enough"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died", "often for lack of memory"),
    ],
)
def test_a_failure_names_the_cell_and_the_error(make: Make, kept: Path, cell: str, outcome: str, said: str) -> None:
    notebook = make("before = 1", cell, "after = 1")
    with pytest.raises(notebooks.NotebookError) as found:
        notebooks.run(notebook, str(kept), {})
    assert f"small {outcome} in cell 6 (Step 1): " in str(found.value)
    assert said in str(found.value)
    assert str(found.value).endswith(f"Archived at {kept}")
    about = record(kept)
    assert (about["outcome"], about["error"]["cell"]) == (outcome, 6)
    assert said in about["error"]["message"]


def test_a_cell_that_takes_too_long_is_stopped(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(60)")
    with pytest.raises(notebooks.NotebookError, match=r"timed out in cell 6 \(Step 1\)"):
        notebooks.run(notebook, str(kept), {}, cell_seconds=2)
    assert record(kept)["outcome"] == "timed out"
    assert not _alive(_kernel_pid(kept))


def test_sigterm_writes_the_truth_before_the_process_ends(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(60)", "after = 1")
    process = _run_elsewhere(notebook, kept)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    about = record(kept)
    assert (about["outcome"], about["error"]["cell"]) == ("terminated", 6)
    assert not _alive(_kernel_pid(kept))


def test_a_run_killed_outright_is_running_until_the_next_one_says_so(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(60)")
    process = _run_elsewhere(notebook, kept)
    process.kill()
    process.wait(20)
    assert record(kept)["outcome"] == "running"
    root = kept.parent.parent
    assert "has no end: it is running, or was killed" in proof.verify(root).remarks[0]
    notebooks.settle(str(kept), str(root))
    assert (proof.verify(root).problems, proof.verify(root).remarks) == ([], [])
    about = record(kept)
    assert (about["outcome"], about["error"]["cell"]) == ("killed", 6)
    kernel = _kernel_pid(kept)
    deadline = time.monotonic() + 20
    while _alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _alive(kernel)  # it sees that its parent is gone
    notebooks.settle(str(kept))
    assert record(kept) == about


def _run_elsewhere(notebook: Path, kept: Path) -> "subprocess.Popen[bytes]":
    """Run it in a process of its own and return when its second code cell runs."""
    code = (
        "import sys, pathlib, pulse.notebooks as n; n.run(pathlib.Path(sys.argv[1]), sys.argv[2], {}, root=sys.argv[3])"
    )
    command = [sys.executable, "-c", code, str(notebook), str(kept), str(kept.parent.parent)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if kept.exists() and "pid " in kept.read_text():
            time.sleep(0.5)
            return process
        time.sleep(0.1)
    raise AssertionError("the notebook did not start")


def _kernel_pid(path: Path) -> int:
    texts = [out.get("text", "") for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    return int(next(text for text in texts if text.startswith("pid ")).split()[1])


def _alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# --- what is refused before it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"dya": "2026-11-22"}, "has no parameter 'dya': did you mean 'day'?"),
        ({"colour": 1}, "has no parameter 'colour': it has day, limit, names, strict?"),
        ({"limit": "many"}, "Parameter 'limit' of small.ipynb takes a int such as 5, not 'many'."),
        ({"strict": 1}, "Parameter 'strict' of small.ipynb takes a bool such as False, not 1."),
        ({"day": f"http://u:{SECRET}@h"}, "Parameter 'day' of small.ipynb holds a secret"),
        ({"names": {"a": [SECRET]}}, "Parameter 'names' of small.ipynb holds a secret"),
    ],
)
def test_wrong_parameters_are_refused_and_nothing_runs(
    make: Make, kept: Path, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(notebooks.ParameterError) as found:
        notebooks.run(make("x = 1"), str(kept), parameters, secrets=[SECRET])
    assert said in str(found.value)
    assert SECRET not in str(found.value)
    assert not kept.exists()


def test_a_notebook_without_parameters_or_not_there_is_refused(make: Make, kept: Path, tmp_path: Path) -> None:
    with pytest.raises(notebooks.ParameterError, match="no cell tagged 'parameters'"):
        notebooks.run(make("x = 1", parameters=None), str(kept), {})
    with pytest.raises(notebooks.ParameterError, match="There is no notebook at"):
        notebooks.run(tmp_path / "nowhere.ipynb", str(kept), {})


# --- the archive -----------------------------------------------------------------------------------------------------


def test_nothing_in_the_archive_is_overwritten(make: Make, kept: Path) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text("an earlier attempt")
    with pytest.raises(notebooks.ArchiveError, match="already in the archive"):
        notebooks.run(make("x = 1"), str(kept), {})
    assert kept.read_text() == "an earlier attempt"


@pytest.mark.parametrize("place", ["/proc/pulse/small.1.ipynb", "/dev/full/small.1.ipynb"])
def test_an_archive_that_cannot_be_written_is_a_sentence(make: Make, place: str) -> None:
    with pytest.raises(
        notebooks.ArchiveError, match=r"cannot keep .*; make room or make it writable, or set PULSE_OUTPUT"
    ):
        notebooks.run(make("x = 1"), place, {})


def test_an_archive_that_fills_up_keeps_the_last_whole_notebook_and_says_so(
    make: Make, kept: Path, tmp_path: Path
) -> None:
    notebook = make("print('x' * 300_000)", "after = 1")
    code = (
        "import resource, sys, pathlib, pulse.notebooks as n\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"  # as if there were no more room
        "n.run(pathlib.Path(sys.argv[1]), sys.argv[2], {})"
    )
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-c", code, str(notebook), str(kept)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == (
        f"pulse.archive.ArchiveError: The archive cannot keep {kept} (File too large); "
        "make room or make it writable, or set PULSE_OUTPUT."
    )
    assert record(kept)["outcome"] == "running"
    assert list(kept.parent.iterdir()) == [kept]
    notebooks.settle(str(kept))
    assert record(kept)["outcome"] == "killed"


def test_a_run_that_the_manifest_cannot_know_of_leaves_nothing(make: Make, kept: Path) -> None:
    root = kept.parent.parent
    (root / "manifest.jsonl").mkdir(parents=True)
    with pytest.raises(notebooks.ArchiveError, match=r"manifest\.jsonl cannot be (read|written)"):
        notebooks.run(make("x = 1"), str(kept), {}, root=str(root))
    assert not kept.exists()


def test_a_secret_in_an_output_is_masked_and_fails_the_run(make: Make, kept: Path) -> None:
    notebook = make("word = '-'.join(['correct', 'horse', 'battery'])\nprint('it is', word)", "raise ValueError(word)")
    with pytest.raises(notebooks.NotebookError) as found:
        notebooks.run(notebook, str(kept), {}, secrets=[SECRET])
    assert SECRET not in str(found.value)
    assert SECRET not in kept.read_text()
    assert f"it is {notebooks.MASK}" in json.dumps(json.loads(kept.read_text()), ensure_ascii=False)


def test_a_secret_that_shows_up_in_a_run_that_went_well_fails_it(make: Make, kept: Path) -> None:
    secret = "p@ss/word+1"  # noqa: S105
    shown = make("from urllib.parse import quote\nprint(quote('p@ss' + '/word+1', safe=''))")
    with pytest.raises(notebooks.NotebookError, match=r"failed in cell 4 \(Step 0\): it shows a secret"):
        notebooks.run(shown, str(kept), {}, secrets=[secret])
    assert "p%40ss%2Fword%2B1" not in kept.read_text()
    assert record(kept)["outcome"] == "failed"


def test_run_ids_become_names_that_differ_when_they_do() -> None:
    ids = [
        "scheduled__2026-11-22T02:00:00+00:00",
        "scheduled__2026-11-22T02:00:00-00:00",
        "../../etc",
        "x" * 250,
        "x" * 251,
    ]
    names = [notebooks.safe_name(text) for text in ids]
    assert len(set(names)) == len(ids)
    assert all(name.replace("_", "").isalnum() and len(name) <= 80 for name in names)
    assert names[0].startswith("scheduled_2026_11_22T02_00_00_00_00_")
