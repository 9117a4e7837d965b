"""A notebook's run is archived with how it really ended. The tests run small notebooks in real kernels."""

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from jupyter_client.provisioning import LocalProvisioner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill import iorw

from pulse import PulseError, settings
from pulse.archive import ArchiveError, index, manifest, proof, render
from pulse.execution import attempt, engine, errors, masking, prelude, record, runner, settling, store

SECRET = "correct-horse-battery"  # noqa: S105

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Returns a function that writes a notebook with a parameters cell (`day = "x"`, `limit = 5`) and given cells."""

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


def metadata(path: Path) -> dict[str, Any]:
    return nbformat.read(path, as_version=4).metadata["pulse"]


# --- a run that goes well --------------------------------------------------------------------------------------------


def test_a_run_is_archived_with_everything_that_made_it(make: Make, kept: Path) -> None:
    glue = "from pulse.execution import cells\nimport numpy as np\ncells.glue(n=np.int64(7), t='x')"
    notebook = make("print(day, limit)", glue)
    root = kept.parent.parent
    about = {"dag": "etl", "try": 1}
    done = runner.run(notebook, str(kept), {"day": "2026-11-22", "limit": 3}, about=about, root=str(root))
    about = metadata(kept)
    assert about["outcome"] == "succeeded"
    assert about["error"] is None
    assert about["parameters"] == {"day": "2026-11-22", "limit": 3}
    assert (about["dag"], about["try"], about["notebook"]) == ("etl", 1, "small")
    assert about["seconds"] == done.seconds > 0
    assert about["commit"] == record.commit()
    assert store.scraps(str(kept)) == {"n": 7, "t": "x"}
    assert "2026-11-22 3" in kept.read_text()

    entries = [entry for entry, _ in manifest.read(root)]
    assert [entry["what"] for entry in entries] == ["begun", "ended"]
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert (entries[1]["sha256"], entries[1]["outcome"], store.run_reference(str(kept))) == (
        sha256,
        "succeeded",
        sha256[:10],
    )
    assert proof.verify(root).problems == []
    with index.opened(root) as opened:
        (attempt,) = opened.by_reference(sha256[:10])
    assert (attempt.numbers, attempt.outcome, attempt.seconds) == ({"n": 7}, "succeeded", done.seconds)
    with pytest.raises(ArchiveError, match="holds no notebook"):
        store.run_reference(str(kept) + "x")


def test_a_figure_is_handed_on_as_the_png_that_it_saves(make: Make, kept: Path) -> None:
    draw = "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots(figsize=(3, 2), dpi=100)\naxes.plot([1, 2])"
    runner.run(
        make(draw + "\nplt.close()", "from pulse.execution import cells\ncells.glue(chart=figure)"),
        str(kept),
        {},
    )
    png = store.scraps(str(kept))["chart"]
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == 300  # pixels wide, as asked for
    (shown,) = [out for out in nbformat.read(kept, 4).cells[-1].outputs if "image/png" in out.get("data", {})]
    assert shown.metadata["image/png"]["width"] == 150  # pixels wide on the screen
    assert 'width="150"' in render.notebook(kept.read_bytes())
    with pytest.raises(ArchiveError, match="holds no notebook"):
        store.scraps(str(kept) + "x")


def test_the_commit_is_that_of_the_checkout(tmp_path: Path) -> None:
    said = record.commit()
    head = subprocess.run(["git", "-C", str(settings.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert said.removesuffix("-dirty") == (head.strip() or "unknown")


def test_queries_are_recorded_including_failed_ones(make: Make, kept: Path, clickhouse_server: Any) -> None:
    notebook = make(
        "from pulse import clickhouse\ndb = clickhouse.connect()",
        "print(db.value('select 1'), db.execute('create or replace table traced (a Int8) engine = Memory'))",
        "db.read('select * from nowhere')",
    )
    with pytest.raises(errors.NotebookError, match=r"failed in cell 8 \(Step 2\): ClickHouseError: .*60"):
        runner.run(notebook, str(kept), {}, environment={"CLICKHOUSE_URL": clickhouse_server.url})
    queries = metadata(kept)["queries"]
    assert len(queries) == 3
    assert len({query["query_id"] for query in queries}) == 3
    assert queries[-1]["error"] == 60


def test_the_kernel_gets_its_connection_from_the_environment_and_nothing_of_airflow(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_OTHER", "TELEGRAM_BOT_TOKEN"):
        monkeypatch.setenv(name, "none-of-a-notebooks-business")
    notebook = make(
        "import os\nprint(len(os.environ['CLICKHOUSE_URL']), [n for n, v in os.environ.items() if 'none-of' in v])",
        "from pathlib import Path\nassert 'none' + '-of' not in Path('/proc/self/environ').read_text()",
    )
    runner.run(notebook, str(kept), {}, environment={"CLICKHOUSE_URL": f"http://u:{SECRET}@h:1"}, secrets=[SECRET])
    assert "[]" in kept.read_text()
    assert SECRET not in kept.read_text()
    assert "CLICKHOUSE_URL" not in os.environ or SECRET not in os.environ["CLICKHOUSE_URL"]


def test_the_kernel_gets_the_listed_variables_and_no_others(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = {
        "SUPERSET_PASSWORD": "of-superset-1", "REDASH_API_KEY": "of-redash-1", "TELEGRAM_BOT_TOKEN": "1:of-telegram",
        "AWS_SECRET_ACCESS_KEY": "of-aws-1", "AIRFLOW__CORE__FERNET_KEY": "of-airflow-1", "MY_OWN": "of-mine-1",
        "CLICKHOUSE_READER_URL": "http://reader:of-reader-1@127.0.0.1:1", "JUPYTER_TOKEN": "of-jupyter-1",
        "PULSE_OUTPUT": str(tmp_path / "of-output-1"), "TELEGRAM_ALERT_CHATS": "-99",
    }  # fmt: skip
    ours = {
        "CLICKHOUSE_URL": f"http://u:{SECRET}@h:1", "PULSE_DATABASE": "d", "PULSE_SOURCE_DATABASE": "s",
        "PULSE_TIMEZONE": "Asia/Tokyo", "PULSE_LANGUAGE": "ru", "SUPERSET_URL": "http://superset", "REDASH_URL": "",
        "PULSE_ARCHIVE_URL": "http://archive",
    }  # fmt: skip
    dotenv = tmp_path / ".env"
    dotenv.write_text("REDASH_URL=http://redash\nSUPERSET_USER=admin\nSUPERSET_PASSWORD=of-superset-2\n")
    monkeypatch.setitem(settings.Settings.model_config, "env_file", dotenv)
    for name, value in (theirs | ours).items():
        monkeypatch.setenv(name, value)
    # The notebook shows its environment, and its settings as they would be if the kernel also read .env.
    shows = f"""
import os, json
from pulse import settings
settings.Settings.model_config['env_file'] = {str(dotenv)!r}
config = settings.load()
kept = {{name: value for name, value in os.environ.items() if name != 'CLICKHOUSE_URL'}}
hidden = [config.redash_api_key.get_secret_value(), config.superset_password.get_secret_value()]
length = len(config.clickhouse_url.get_secret_value())
print('SHOWN', json.dumps([kept, config.superset_user, config.redash_url, length, *hidden]))
"""
    runner.run(make(shows), str(kept), {})
    shown = next(out["text"] for out in nbformat.read(kept, 4).cells[-1].outputs if "SHOWN" in out.get("text", ""))
    environment, superset_user, redash_url, length, redash_key, superset_password = json.loads(shown.split("SHOWN ")[1])
    assert not set(theirs) & set(environment)
    assert not [value for value in environment.values() if re.search(r"of-\w+-?\d?$", value)]
    expected = {**ours, "REDASH_URL": "http://redash"}
    assert {name: environment[name] for name in ours if name != "CLICKHOUSE_URL"} == {
        name: value for name, value in expected.items() if name != "CLICKHOUSE_URL"
    }
    assert length == len(ours["CLICKHOUSE_URL"])
    assert (superset_user, redash_url, redash_key, superset_password) == ("", "http://redash", "", "")
    assert environment["PATH"] == os.environ["PATH"]


def test_printed_lines_are_passed_on_masked_while_the_notebook_runs(make: Make, kept: Path) -> None:
    heard: list[str] = []
    talks = f"""
import base64, pathlib, sys, time
heard = {str(kept.parent / "heard")!r}
print('first', flush=True)
while not pathlib.Path(heard).exists():
    time.sleep(0.05)
word = '-'.join(['correct', 'horse', 'battery'])
print(word[:8], end='', flush=True)
print(word[8:], 'on stdout')
print('10 %\\r20 %\\r30 %')
print('warned', file=sys.stderr)
print('without an end', end='')
"""
    encoded = """
import base64
word = '-'.join(['correct', 'horse', 'battery'])
for start in range(45, 58):  # the end of a line comes anywhere in it
    print(base64.encodebytes(b'x' * start + word.encode()).decode(), end='')
    pairs = (b'x' * (start - 30) + word.encode()).hex(' ')
    print(pairs[:95], pairs[96:], sep='\\n')
print('the end')
"""

    def say(line: str) -> None:
        heard.append(line)
        (kept.parent / "heard").touch()  # the notebook waits for this, so its output is passed on while it runs

    with pytest.raises(errors.NotebookError, match="shows a secret"):
        runner.run(make(talks, "print('next cell')", encoded), str(kept), {}, secrets=[SECRET], say=say)
    end = heard.index("next cell")
    assert heard[0] == "first"
    assert sorted(heard[1:end]) == sorted(["30 %", "warned", "without an end", f"{masking.MASK} on stdout"])
    assert heard[-1] == "the end"
    assert sum(line.count(masking.MASK) for line in heard[end:]) == 2 * 13
    assert not [line for line in heard if SECRET in line]


def test_an_empty_cell_is_not_a_failure(make: Make, kept: Path) -> None:
    runner.run(make("", "# only a comment", "x = 1"), str(kept), {})
    assert metadata(kept)["outcome"] == "succeeded"


def test_a_run_waits_only_for_its_kernel(make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    ready: list[bool] = []
    sleep, wait_for_ready = asyncio.sleep, engine.KernelClient.wait_for_ready

    async def sleeps(seconds: float) -> None:
        await sleep(seconds)
        slept.append(seconds)

    async def waits(client: Any, timeout: float | None = None) -> None:
        await wait_for_ready(client, timeout)
        ready.append(True)

    monkeypatch.setattr(asyncio, "sleep", sleeps)
    monkeypatch.setattr(engine.KernelClient, "wait_for_ready", waits)
    runner.run(make("x = 1"), str(kept), {})
    assert ready == [True]  # it is our way, without the pauses of Jupyter's
    assert engine.STEP in slept
    assert max(slept) < 0.1  # the step in which Jupyter would look whether the kernel has ended


def test_what_a_notebook_does_last_is_kept(make: Make, kept: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    last = f"""
import atexit, os, pathlib, sys
atexit.register(pathlib.Path({str(done)!r}).write_text, 'closed')
print('pid', os.getpid())
for number in range(20_000):
    print('line', number)
print('the last line', file=sys.stderr, end='')
"""
    runner.run(make(last), str(kept), {})
    outputs = nbformat.read(kept, 4).cells[-1].outputs
    printed = {name: "".join(out.text for out in outputs if out.name == name) for name in ("stdout", "stderr")}
    assert printed["stdout"].splitlines()[1:] == [f"line {number}" for number in range(20_000)]
    assert printed["stderr"] == "the last line"
    assert done.read_text() == "closed"
    assert not _exists(_kernel_pid(kept))


def test_a_kernel_that_is_done_is_not_interrupted(make: Make, kept: Path, tmp_path: Path) -> None:
    """Jupyter interrupts the kernel's group before it asks a kernel to end; a child in it hears that too."""
    heard = tmp_path / "heard"
    child = (
        "import pathlib, signal, sys\n"
        "def hear(number, _):\n"
        f"    pathlib.Path({str(heard)!r}).write_text(signal.Signals(number).name)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGINT, hear)\n"
        "signal.signal(signal.SIGTERM, hear)\n"  # with which a kernel ends its children
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    runner.run(
        make(
            "import subprocess, sys\n"
            f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
            "child.stdout.readline()"
        ),
        str(kept),
        {},
    )
    deadline = time.monotonic() + 20
    while not (heard.exists() and heard.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert heard.read_text() == "SIGTERM"


def test_a_kernel_that_is_slow_to_write_its_last_output_ends_by_itself(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced = []
    terminate = LocalProvisioner.terminate

    async def force(provisioner: LocalProvisioner, restart: bool = False) -> None:
        forced.append(provisioner.pid)
        await terminate(provisioner, restart)

    monkeypatch.setattr(LocalProvisioner, "terminate", force)
    # What a thread is given that was told to end may never be done; here it never is.
    slow = """
import threading
from ipykernel.iostream import IOPubThread

def make_slow(ending, schedule, stop):  # holds what it needs: at the end the notebook's variables are dropped
    current = threading.current_thread

    def slowly(thread, write):
        if current().name == 'Control' and ending.wait(0.2):
            return
        schedule(thread, write)

    def end(thread):
        ending.set()
        stop(thread)

    IOPubThread.schedule, IOPubThread.stop = slowly, end

make_slow(threading.Event(), IOPubThread.schedule, IOPubThread.stop)
"""
    runner.run(make(slow), str(kept), {})
    assert not forced


def test_a_kernel_that_does_not_end_is_killed(make: Make, kept: Path) -> None:
    last = "import atexit, os, time\natexit.register(time.sleep, 60)\nprint('pid', os.getpid())"
    began = time.monotonic()
    runner.run(make(last), str(kept), {})
    assert time.monotonic() - began < 30
    assert metadata(kept)["outcome"] == "succeeded"
    assert not _exists(_kernel_pid(kept))


def test_a_notebook_is_saved_once_for_each_cell_that_runs(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    write = store.write

    def writes(text: str, path: str, durable: bool = False) -> None:
        texts.append(text)
        write(text, path, durable)

    monkeypatch.setattr(store, "write", writes)
    runner.run(make("print('one')", "", "print('two')"), str(kept), {})
    # When the attempt begins, with the parameters, at the start of three cells, after the last, and with the outcome.
    assert ["one" in text.replace("print('one')", "") for text in texts] == [False] * 4 + [True] * 3
    assert ["two" in text.replace("print('two')", "") for text in texts] == [False] * 5 + [True] * 2


# --- the kernel's process, which starts before the rest -----------------------------------------------------------


def _printed(path: Path) -> list[str]:
    """What each code cell printed."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in cells]


def test_libraries_are_imported_before_the_first_cell_and_nothing_else(make: Make, kept: Path) -> None:
    first = "import sys\nprint([name in sys.modules for name in ('pandas', 'pulse.metrics', 'scrapbook', 'this')])"
    libraries = "import pandas as pd\nfrom pulse import metrics\nfrom pulse.execution import cells\ncells.glue(n=1)"
    runner.run(make(first, libraries, "import this"), str(kept), {})
    printed = _printed(kept)
    assert printed[1] == "[True, True, True, False]\n"
    assert "Beautiful is better than ugly." in printed[-1]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A program that ends at once, so that no kernel can come of it."""
    path = tmp_path / "broken.py"
    path.write_text("raise SystemExit(1)")
    return path


def test_what_a_notebook_shows_is_as_without_early_imports(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch, broken: Path
) -> None:
    shows = "import matplotlib.pyplot as plt\nimport pandas as pd\nplt.plot([1, 2])\npd.DataFrame({'a': [1]})"
    fails = "import pandas as pd\npd.DataFrame({'a': [1]})['b']"
    notebook, late = make(shows, "print(plt.get_backend())", fails), kept.with_name("late.1.ipynb")
    for path in (kept, late):
        with pytest.raises(errors.NotebookError, match="KeyError: 'b'"):
            runner.run(notebook, str(path), {})
        monkeypatch.setattr(prelude, "__file__", str(broken))
    early, ever = ([cell.get("outputs") for cell in nbformat.read(path, 4).cells] for path in (kept, late))
    assert early == ever
    assert {kind for outputs in early for out in outputs or [] for kind in out.get("data", {})} == {
        *["image/png", "text/html", "text/plain"]
    }


def test_two_runs_share_nothing(make: Make, kept: Path) -> None:
    shows = "import os, pandas\nprint(hasattr(pandas, 'left'), os.environ.get('LEFT'), 'mine' in dir(), os.getpid())"
    leaves = "pandas.left = mine = 1\nos.environ['LEFT'] = '1'"
    second = kept.with_name("small.2.ipynb")
    for path in (kept, second):
        runner.run(make(shows, leaves), str(path), {})
    first, again = (_printed(path)[1].split() for path in (kept, second))
    assert first[:3] == again[:3] == ["False", "None", "False"]
    assert first[3] != again[3]


def test_files_and_threads_that_a_notebook_leaves_behind_are_finished(make: Make, kept: Path, tmp_path: Path) -> None:
    last = f"""
import pathlib, threading, time
folder = pathlib.Path({str(tmp_path)!r})
left_open = open(folder / 'variable', 'w')
left_open.write('written')
class Circle:
    pass
circle = Circle()
circle.itself, circle.file = circle, open(folder / 'circle', 'w')
circle.file.write('written')
def later():
    time.sleep(0.5)
    (folder / 'thread').write_text('written')
threading.Thread(target=later).start()
"""
    runner.run(make(last), str(kept), {})
    assert [(tmp_path / name).read_text() for name in ("variable", "circle", "thread")] == ["written"] * 3


def test_a_kernel_is_started_as_ever_where_no_process_can_become_it(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prelude, "__file__", str(broken))
        runner.run(make("print('it runs')"), str(kept), {})
    assert "it runs\n" in _printed(kept)

    # A kernelspec with an environment and options of its own.
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-X", "dev", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "d", "language": "python", "env": {"OF_SPEC": "1"}}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for name, expected in (("options", "True 1\n"), ("environment", "False 1\n")):
        path = kept.with_name(f"{name}.1.ipynb")
        runner.run(make("import os, sys\nprint(sys.flags.dev_mode, os.environ['OF_SPEC'])"), str(path), {})
        assert expected in _printed(path)
        spec.write_text(spec.read_text().replace('"-X", "dev", ', ""))


def test_a_run_that_is_refused_leaves_no_process(make: Make, kept: Path) -> None:
    before = psutil.Process().children()
    with pytest.raises(errors.ParameterError):
        runner.run(make("x = 1"), str(kept), {"dya": "2026-11-22"})
    assert psutil.Process().children() == before


def test_a_run_that_is_killed_at_once_leaves_no_process(make: Make, kept: Path) -> None:
    code = "import pathlib; from pulse.execution import runner; runner.run(pathlib.Path({!r}), {!r}, {{}})"
    for moment in (0.0, 0.3, 0.6):
        run = code.format(str(make("x = 1")), str(kept.with_name(f"{moment}.ipynb")))
        process = psutil.Popen([sys.executable, "-c", run])
        deadline = time.monotonic() + 60
        while not (children := process.children()) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment)
        process.kill()
        process.wait(20)
        gone, left = psutil.wait_procs(children, timeout=30)
        assert (len(gone), left) == (1, [])


# --- a run that does not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "outcome", "said"),
    [
        ("raise ValueError('no rows for the day')", "failed", "ValueError: no rows for the day"),
        ("import sys\nsys.exit(0)", "stopped early", "code cells that did not run: 1"),
        ("import sys\nsys.exit('enough')", "failed", "SystemExit: enough"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died", "often for lack of memory"),
        (
            "raise ExceptionGroup('both sources', [ValueError('no feed'), TypeError('no messages: 0')])",
            "failed",
            "ExceptionGroup: both sources (2 sub-exceptions): ValueError: no feed; TypeError: no messages: 0",
        ),
        (
            "x: int = 1; raise ExceptionGroup('both', [AssertionError(), TimeoutError()])",
            "failed",
            "ExceptionGroup: both (2 sub-exceptions): AssertionError; TimeoutError",
        ),
        ("rows = 0\nassert rows > 0", "failed", "AssertionError in `assert rows > 0`"),
        ("def check():\n    raise RuntimeError\ncheck()", "failed", "RuntimeError in `check()`"),
        (
            "import asyncio\nasync def one():\n    raise ValueError('inside')\n"
            "async with asyncio.TaskGroup() as group:\n    group.create_task(one())",
            "failed",
            "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception): ValueError: inside",
        ),
        ("%no_such_magic", "failed", "UsageError: Line magic function `%no_such_magic` not found"),
        (
            "import sys\ndef ours(shell, kind, value, traceback, tb_offset=None):\n"
            "    print('something', file=sys.stderr)\n    print('ours says:', value, file=sys.stderr)\n"
            "get_ipython().set_custom_exc((Exception,), ours)\nraise ValueError('the reason')",
            "failed",
            "ours says: the reason",
        ),
    ],
)
def test_a_failure_names_the_cell_and_the_error(make: Make, kept: Path, cell: str, outcome: str, said: str) -> None:
    notebook = make("before = 1", cell, "after = 1")
    with pytest.raises(errors.NotebookError) as found:
        runner.run(notebook, str(kept), {})
    assert f"small {outcome} in cell 6 (Step 1): " in str(found.value)
    assert said in str(found.value)
    assert str(found.value).endswith(f"Archived at {kept}")
    about = metadata(kept)
    assert (about["outcome"], about["error"]["cell"]) == (outcome, 6)
    assert said in about["error"]["message"]


def test_a_cell_that_takes_too_long_is_stopped(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(60)")
    with pytest.raises(errors.NotebookError, match=r"timed out in cell 6 \(Step 1\)"):
        runner.run(notebook, str(kept), {}, cell_seconds=2)
    assert metadata(kept)["outcome"] == "timed out"
    assert not _alive(_kernel_pid(kept))


def test_on_sigterm_the_outcome_is_written_before_the_process_ends(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(60)", "after = 1")
    process = _run_elsewhere(notebook, kept)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    about = metadata(kept)
    assert (about["outcome"], about["error"]["cell"]) == ("terminated", 6)
    assert not _alive(_kernel_pid(kept))


def test_a_killed_run_counts_as_running_until_it_is_settled(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(60)")
    process = _run_elsewhere(notebook, kept)
    process.kill()
    process.wait(20)
    assert metadata(kept)["outcome"] == "running"
    root = kept.parent.parent
    assert "has no end: it is running, or was killed" in proof.verify(root).remarks[0]
    settling.settle(str(kept), str(root))
    assert (proof.verify(root).problems, proof.verify(root).remarks) == ([], [])
    about = metadata(kept)
    assert (about["outcome"], about["error"]["cell"]) == ("killed", 6)
    kernel = _kernel_pid(kept)
    deadline = time.monotonic() + 20
    while _alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _alive(kernel)  # the kernel notices that its parent is gone
    settling.settle(str(kept))
    assert metadata(kept) == about


def test_a_run_that_is_killed_while_its_kernel_ends_leaves_the_last_output(
    make: Make, kept: Path, tmp_path: Path
) -> None:
    ends = tmp_path / "ends"
    last = f"""
import atexit, pathlib, time
atexit.register(time.sleep, 60)
atexit.register(pathlib.Path({str(ends)!r}).touch)
print('the last line')
"""
    process = _run_elsewhere(make("import os\nprint('pid', os.getpid())", last), kept)
    deadline = time.monotonic() + 60
    while not ends.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait(20)
    node = nbformat.read(kept, 4)
    assert node.metadata["pulse"]["outcome"] == "running"
    assert node.cells[-1].outputs[0].text == "the last line\n"
    os.kill(_kernel_pid(kept), signal.SIGKILL)  # else it would sleep for a minute


def test_a_try_that_still_runs_is_left_alone_until_a_later_try_takes_its_place(make: Make, kept: Path) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(5)", "after = 1", "later = 2")
    root = kept.parent.parent
    process = _run_elsewhere(notebook, kept, stderr=subprocess.PIPE)
    settling.settle(str(kept), str(root))
    assert metadata(kept)["outcome"] == "running"  # because it does run
    settling.settle(str(kept), str(root), superseded=True)
    about = metadata(kept)
    assert (about["outcome"], about["error"]["message"]) == (
        "terminated",
        "a later try replaced it while it was still running",
    )
    second = kept.with_name("small.2.ipynb")
    runner.run(make("x = 1"), str(second), {}, root=str(root))
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"SupersededError: A later try of small replaced this one while it was still running" in complaint
    assert metadata(kept) == about  # it wrote nothing more
    assert metadata(second)["outcome"] == "succeeded"
    ends = [(entry["path"], entry["outcome"]) for entry, _ in manifest.read(root) if entry["what"] == "ended"]
    assert ends == [("2026-11-22/small.1.ipynb", "terminated"), ("2026-11-22/small.2.ipynb", "succeeded")]
    assert proof.verify(root).problems == []
    assert not _alive(_kernel_pid(kept))


def test_a_later_try_takes_the_place_of_one_on_another_machine(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = make("import os\nprint('pid', os.getpid())", "import time\ntime.sleep(3)", "after = 1")
    process = _run_elsewhere(notebook, kept, stderr=subprocess.PIPE)
    host = metadata(kept)["host"]
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    settling.settle(str(kept), str(kept.parent.parent), superseded=True)
    about = metadata(kept)
    said = f"a later try replaced it before {host} recorded its outcome"
    assert (about["outcome"], about["error"]["message"]) == ("terminated", said)
    _, complaint = process.communicate(timeout=60)
    assert b"SupersededError: A later try of small" in complaint
    assert metadata(kept) == about


class Store:
    """An object store, as papermill uses one: it holds texts by address, and nothing else."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def read(self, path: str) -> str:
        return self.texts[path]

    def write(self, text: str, path: str) -> None:
        self.texts[path] = text

    def listdir(self, folder: str) -> list[str]:
        return [path for path in self.texts if path.startswith(f"{folder}/")]

    def pretty_path(self, path: str) -> str:
        return path


def test_a_later_try_takes_the_place_of_a_running_one_in_an_object_store(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    monkeypatch.setattr(iorw.papermill_io, "_handlers", [("store://", store), *iorw.papermill_io._handlers])
    path = "store://bucket/etl/2026-11-22/small.1.ipynb"
    with pytest.raises(errors.SupersededError, match="replaced this one"):
        runner.run(
            make("print('first')", "after = 1"), path, {},
            say=lambda line: settling.settle(path, superseded=True),
        )  # fmt: skip
    about = json.loads(store.texts[path])["metadata"]["pulse"]
    assert (about["outcome"], about["error"]["message"]) == (
        "terminated",
        "a later try replaced it while it was still running",
    )
    again = path.replace(".1.", ".2.")
    runner.run(make("x = 1"), again, {})
    assert json.loads(store.texts[again])["metadata"]["pulse"]["outcome"] == "succeeded"


def _run_elsewhere(notebook: Path, kept: Path, stderr: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """Run a notebook in a separate process and return when the cell after the one that prints the pid runs."""
    code = (
        "import sys, pathlib; from pulse.execution import runner; "
        "runner.run(pathlib.Path(sys.argv[1]), sys.argv[2], {}, root=sys.argv[3])"
    )
    command = [sys.executable, "-c", code, str(notebook), str(kept), str(kept.parent.parent)]
    process = subprocess.Popen(command, stderr=stderr)
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


def _exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


def _alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# --- what is refused before it runs ----------------------------------------------------------------------------------


HOLDS_ITSELF: dict[str, Any] = {}
HOLDS_ITSELF["again"] = [HOLDS_ITSELF]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"dya": "2026-11-22"}, "has no parameter 'dya': did you mean 'day'?"),
        ({"colour": 1}, "has no parameter 'colour': it has day, limit, names, strict."),
        ({"limit": "many"}, "small.ipynb takes an int such as 5 for 'limit', not 'many'."),
        ({"strict": 1}, "small.ipynb takes a bool such as False for 'strict', not 1."),
        ({"limit": True}, "small.ipynb takes an int such as 5 for 'limit', not True."),
        ({"names": {1: "a"}}, "small.ipynb cannot take {1: …} for 'names': in JSON, keys are texts."),
        ({"names": {0: "a"}}, "small.ipynb cannot take {0: …} for 'names': in JSON, keys are texts."),
        ({"names": {"a": 1, None: "b"}}, "cannot take {None: …} for 'names': in JSON, keys are texts."),
        ({"names": HOLDS_ITSELF}, "cannot take this value for 'names': it contains itself or is nested too deeply."),
        ({"day": pd.NaT}, "cannot take NaT for 'day': JSON cannot hold a missing time."),
        ({"day": np.datetime64("NaT")}, "cannot take NaT for 'day'"),
        ({"names": {"a": np.array(["2026-11-22", "NaT"], "datetime64[ns]")}}, "cannot take NaT for 'names'"),
        ({"day": np.timedelta64(5, "ns")}, "cannot take a timedelta for 'day'"),
        ({"names": {"a": float("nan")}}, "cannot take nan for 'names': JSON has only finite numbers."),
        ({"day": Decimal("1.10")}, "cannot take a Decimal for 'day': give text, a number, a date,"),
        ({"day": b"x"}, "cannot take a bytes for 'day'"),
        ({"limit": SECRET}, "small.ipynb takes an int such as 5 for 'limit', not '•••'."),
        ({"names": {f"x{SECRET}": 1}}, "Parameter 'names' of small.ipynb holds a secret"),
        ({"day": base64.b64encode(f"u:{SECRET}".encode()).decode()}, "Parameter 'day' of small.ipynb holds a secret"),
        ({"day": f"http://u:{SECRET}@h"}, "Parameter 'day' of small.ipynb holds a secret"),
        ({"names": {"a": [SECRET]}}, "Parameter 'names' of small.ipynb holds a secret"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(
    make: Make, kept: Path, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.ParameterError) as found:
        runner.run(make("x = 1"), str(kept), parameters, secrets=[SECRET])
    assert said in str(found.value)
    assert SECRET not in str(found.value)
    assert not kept.exists()


def test_parameters_are_read_as_python(make: Make, kept: Path) -> None:
    """Defaults and comments contain `=`, `#` and quotes; there are annotations of all kinds, and a line for IPython."""
    cell = """
%matplotlib inline
where = "os=iOS"  # a filter: column=value
x = {}  # 0 = off
limit: int | None = None  # at most; None = all
ratio: Optional[float] = 0.5
name: "str" = 'a # b = "c"'
first, second = 1, "two"
days = [
    1,  # = Monday
    2,
]
since = date(2026, 11, 22)  # no literal: of any type
nothing_said: int
"""
    notebook = make(
        "print(where, x, limit, ratio, first, days, since)",
        parameters=f"from datetime import date\nfrom typing import Optional{cell}",
    )
    given = {"where": "os=tvOS", "x": {"a": 1}, "limit": 7, "ratio": 2, "first": 3, "days": (5, 6), "since": "today"}
    runner.run(notebook, str(kept), given)
    assert "os=tvOS {'a': 1} 7 2 3 [5, 6] today" in kept.read_text()
    assert metadata(kept)["parameters"] == {**given, "days": [5, 6]}
    known = attempt.parameters_of(notebook)
    assert list(known) == [
        *["where", "x", "limit", "ratio", "name", "first", "second", "days", "since", "nothing_said"]
    ]
    for wrong, said in [
        ({"limit": "7"}, "takes an int or None for 'limit', not '7'."),
        ({"ratio": "half"}, "takes a float or None such as 0.5 for 'ratio', not 'half'."),
        ({"name": 1}, "takes a str such as"),
        ({"second": 2}, "takes a str such as 'two' for 'second', not 2."),
        ({"days": "1,2"}, "takes a list such as [1, 2] for 'days', not '1,2'."),
        ({"wher": "x"}, "has no parameter 'wher': did you mean 'where'?"),
    ]:
        with pytest.raises(errors.ParameterError) as found:
            attempt.check(notebook, wrong)
        assert said in str(found.value)


def test_a_parameters_cell_may_use_the_syntax_of_ipython(make: Make) -> None:
    cell = """
files = !ls
limit?
sql = ("%d"
       % 5)
ratio = 10 \\
    % 3
text = '''
%s stays as it is
'''
"""
    known = attempt.parameters_of(make(parameters=cell))
    assert list(known) == ["files", "sql", "ratio", "text"]
    assert "%s stays" in known["text"].default


def test_a_proxys_password_is_masked_or_refused_if_it_is_too_short(
    make: Make, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:abc12@proxy.example.com:3128")
    with pytest.raises(PulseError, match=r"https_proxy: expected a password of at least 6 characters"):
        runner.run(make("x = 1"), str(kept), {})
    monkeypatch.setenv("https_proxy", "http://me:abc%2F1234@proxy.example.com:3128")
    with pytest.raises(errors.NotebookError, match="shows a secret"):
        runner.run(make("print('abc', '1234', sep='/')"), str(kept), {})


def test_a_parameters_cell_that_is_not_python_is_refused_in_one_sentence(make: Make) -> None:
    with pytest.raises(
        errors.ParameterError, match=r"The cell tagged 'parameters' of small.ipynb is not valid Python: .*"
    ):
        attempt.check(make(parameters="day = = 1"), {"day": "x"})


def test_numpy_and_pandas_values_reach_the_notebook_and_the_archive_is_valid_json(make: Make, kept: Path) -> None:
    given = {
        "day": date(2026, 11, 22),
        "limit": np.int64(3),
        "names": {"at": datetime(2026, 11, 22, 15, tzinfo=UTC), "list": np.array([1.5, 2.5]), "one": np.float32(0.5)},
        "days": [np.datetime64("2026-11-22", "ns"), *np.array(["2026-11-23"], "datetime64[D]")],
    }
    strange = """
from pulse.execution import cells
cells.glue(none=float('nan'), inf=[float('inf')], one=1)
print('half \\ud83d')
"""
    parameters = "day = ''; limit = 5; names = {}; days = []"
    runner.run(make("print(repr(day), repr(limit), names, days)", strange, parameters=parameters), str(kept), given)
    text = kept.read_text()
    assert "'2026-11-22' 3 {'at': '2026-11-22T15:00:00+00:00', 'list': [1.5, 2.5], 'one': 0.5}" in text
    assert "['2026-11-22T00:00:00', '2026-11-23T00:00:00']" in text

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads(kept.read_bytes(), parse_constant=refuse)
    assert read["metadata"]["pulse"]["parameters"]["limit"] == 3
    assert store.scraps(str(kept)) == {"inf": [None], "one": 1}
    assert "none is nan: there is nothing to hand on." in kept.read_text()


def test_an_output_with_nan_is_archived_as_valid_json(make: Make, kept: Path) -> None:
    shows = "from IPython.display import display\ndisplay({'application/json': {'a': float('nan')}}, raw=True)"
    runner.run(make(shows), str(kept), {})
    assert json.loads(kept.read_text(), parse_constant=lambda name: pytest.fail(name))


def test_a_missing_notebook_or_one_without_parameters_is_refused(make: Make, kept: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.ParameterError, match="no cell tagged 'parameters'"):
        runner.run(make("x = 1", parameters=None), str(kept), {})
    with pytest.raises(errors.ParameterError, match="There is no notebook at"):
        runner.run(tmp_path / "nowhere.ipynb", str(kept), {})


# --- the archive -----------------------------------------------------------------------------------------------------


def test_nothing_in_the_archive_is_overwritten(make: Make, kept: Path) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text("an earlier attempt")
    with pytest.raises(ArchiveError, match="already in the archive"):
        runner.run(make("x = 1"), str(kept), {})
    assert kept.read_text() == "an earlier attempt"


@pytest.mark.parametrize("place", ["/proc/pulse/small.1.ipynb", "/dev/full/small.1.ipynb"])
def test_an_archive_that_cannot_be_written_is_reported_in_one_sentence(make: Make, place: str) -> None:
    with pytest.raises(ArchiveError, match=r"cannot keep .*; make room or make it writable, or set PULSE_OUTPUT"):
        runner.run(make("x = 1"), place, {})


def test_a_full_archive_keeps_the_last_complete_notebook_and_says_so(make: Make, kept: Path, tmp_path: Path) -> None:
    notebook = make("print('x' * 300_000)", "after = 1")
    code = (
        "import resource, sys, pathlib, pulse.execution.runner as n\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"  # as if the disk were full
        "n.run(pathlib.Path(sys.argv[1]), sys.argv[2], {})"
    )
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-c", code, str(notebook), str(kept)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == (
        f"pulse.archive.ArchiveError: The archive cannot keep {kept} (File too large); "
        "make room or make it writable, or set PULSE_OUTPUT."
    )
    assert metadata(kept)["outcome"] == "running"
    assert list(kept.parent.iterdir()) == [kept]
    settling.settle(str(kept))
    assert metadata(kept)["outcome"] == "killed"


def test_a_run_that_the_manifest_cannot_record_leaves_no_notebook(make: Make, kept: Path) -> None:
    root = kept.parent.parent
    (root / "manifest.jsonl").mkdir(parents=True)
    with pytest.raises(ArchiveError, match=r"manifest\.jsonl cannot be (read|written)"):
        runner.run(make("x = 1"), str(kept), {}, root=str(root))
    assert not kept.exists()


def test_a_secret_in_an_output_is_masked_and_fails_the_run(make: Make, kept: Path) -> None:
    notebook = make("word = '-'.join(['correct', 'horse', 'battery'])\nprint('it is', word)", "raise ValueError(word)")
    with pytest.raises(errors.NotebookError) as found:
        runner.run(notebook, str(kept), {}, secrets=[SECRET])
    assert SECRET not in str(found.value)
    assert SECRET not in kept.read_text()
    assert f"it is {masking.MASK}" in json.dumps(json.loads(kept.read_text()), ensure_ascii=False)


def test_a_secret_in_an_otherwise_successful_run_fails_it(make: Make, kept: Path) -> None:
    secret = "p@ss/word+1"  # noqa: S105
    shown = make("from urllib.parse import quote\nprint(quote('p@ss' + '/word+1', safe=''))")
    with pytest.raises(errors.NotebookError, match=r"failed in cell 4 \(Step 0\): it shows a secret"):
        runner.run(shown, str(kept), {}, secrets=[secret])
    assert "p%40ss%2Fword%2B1" not in kept.read_text()
    assert metadata(kept)["outcome"] == "failed"


def test_different_run_ids_become_different_names() -> None:
    ids = [
        "scheduled__2026-11-22T02:00:00+00:00",
        "scheduled__2026-11-22T02:00:00-00:00",
        "../../etc",
        "x" * 250,
        "x" * 251,
    ]
    names = [runner.safe_name(text) for text in ids]
    assert len(set(names)) == len(ids)
    assert all(name.replace("_", "").isalnum() and len(name) <= 80 for name in names)
    assert names[0].startswith("scheduled_2026_11_22T02_00_00_00_00_")
