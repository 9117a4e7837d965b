"""The last task of a DAG reports failures of its own run and of runs that could not report, and missing runs."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from pulse import clickhouse, schema, settings
from pulse.archive import index


@pytest.fixture(scope="module")
def outside(
    airflow_database: None, clickhouse_server: Server, chats: Telegram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Set up what the DAGs talk to, except the app's database: tasks that read it fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
        patch.setenv("PULSE_DATABASE", "told")
        patch.setenv("PULSE_SOURCE_DATABASE", "no_such_app")
        patch.setenv("PULSE_OUTPUT", str(tmp_path_factory.mktemp("archive")))
        patch.setenv("TELEGRAM_API_URL", chats.server.url)
        # A DAG is paused when it is first stored in Airflow's database, and an earlier test may have stored them all.
        unpause = ["dags", "unpause", "--yes", "--treat-dag-id-as-regex", ".*"]
        for words in (["dags", "reserialize"], unpause):
            subprocess.run(["airflow", *words], check=True, capture_output=True)
        schema.ensure(clickhouse.connect())
        yield clickhouse_server


@pytest.fixture
def on_call(outside: Server, chats: Telegram, monkeypatch: pytest.MonkeyPatch) -> str:
    """The alert chat for one test."""
    chat = chats.new_chat()
    monkeypatch.setenv("TELEGRAM_ALERT_CHATS", chat)
    return chat


def _dag(name: str, look: bool = False) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    dag: Any = DagBag(dag_folder=str(settings.ROOT / "dags" / f"{name}.py")).dags[name]
    for task in dag.tasks:
        task.retries = 0
    dag.get_task("tell").look = look
    return dag


def _failing(name: str) -> Any:
    """Load a DAG whose notebooks are refused before a kernel starts, for tests where any failure will do."""
    from pulse.orchestration.operators import NotebookOperator

    dag = _dag(name)
    for task in dag.tasks:
        if isinstance(task, NotebookOperator):
            task.parameters = {**task.parameters, "wrong": 1}
    return dag


def _look() -> None:
    """Run a DAG that has nothing to report about itself, but looks at other runs."""
    run = _dag("retention", look=True).test(mark_success_pattern="thin|verify")
    assert {each.task_id: str(each.state) for each in run.get_task_instances()}["tell"] == "success"


def _was(dag: str, run_after: datetime, interval: tuple[datetime, datetime], state: str = "success") -> None:
    """Add a scheduled run to Airflow's database."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType

    with create_session() as session:
        session.add(
            DagRun(
                dag_id=dag,
                run_id=f"scheduled__{run_after.isoformat()}",
                logical_date=interval[0],
                data_interval=interval,
                run_after=run_after,
                run_type=DagRunType.SCHEDULED,
                state=state,
            )
        )


def _etl_of(day: date, state: str = "success") -> None:
    zone = settings.load().zone
    start, end = (datetime.combine(day + timedelta(days=n), datetime.min.time(), zone) for n in (0, 1))
    interval = (start + timedelta(hours=5)).astimezone(UTC), (end + timedelta(hours=5)).astimezone(UTC)
    _was("etl", interval[1], interval, state)


def _forget() -> None:
    """Delete all runs and all records of what was reported."""
    from airflow.models import Variable
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagRun).delete()
        session.query(Variable).delete()
    clickhouse.connect().execute("truncate table deliveries")


@pytest.fixture(autouse=True)
def no_runs(outside: Server) -> Iterator[None]:
    _forget()  # tests of other files leave runs, too
    yield
    _forget()


def test_a_failed_etl_is_reported_once_for_an_event_date(on_call: str, chats: Telegram) -> None:
    days = [settings.load().event_day("yesterday") - timedelta(days=20)]
    for dag in (_failing("etl"), _dag("etl")):  # the message shows the later failure
        assert str(dag.test(run_conf={"event_date": str(days[0])}).state) == "failed"
    told = chats.messages(on_call)
    assert len(told) == 1
    for day, message in zip(days, told, strict=True):
        assert message["text"].startswith(f"etl failed for {day:%-d %B}\nextract_feed")
        assert "no_such_app" in message["text"]
        assert "What to do: fix the cause" in message["text"]


def test_a_failed_live_metrics_is_reported_once_a_day(on_call: str, chats: Telegram) -> None:
    for dag in (_dag("live_metrics"), _failing("live_metrics")):
        assert str(dag.test().state) == "failed"
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("live_metrics.live_metrics failed: ")
    assert "The next run tries again" in told["text"]


def test_an_unknown_parameter_in_a_trigger_is_refused_and_reported(on_call: str, chats: Telegram) -> None:
    run = _dag("etl").test(run_conf={"event_dat": "2026-11-20"})
    assert {each.task_id: str(each.state) for each in run.get_task_instances()}["extract_feed"] == "failed"
    (told,) = chats.messages(on_call)
    assert "etl has no parameter 'event_dat': did you mean 'event_date'?" in told["text"]


def test_a_failure_of_the_ledger_itself_is_reported(
    on_call: str, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken, pytest.MonkeyPatch.context() as patch:
        taken.bind(("127.0.0.1", 0))  # nothing answers here
        patch.setenv("CLICKHOUSE_URL", f"http://pulse:hush-hush-hush@127.0.0.1:{taken.getsockname()[1]}")
        for dag in (_dag("monitoring"), _failing("monitoring")):
            assert str(dag.test().state) == "failed"
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("monitoring.anomalies failed: ")
    assert "No ClickHouse server answers" in told["text"]
    assert "hush" not in told["text"]
    _look()  # the ledger answers again, but does not know that this was reported
    assert len(chats.messages(on_call)) == 1


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.prove)])
def test_failures_while_ledger_and_telegram_are_down_are_reported_afterwards_once(
    on_call: str, chats: Telegram, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As in a network outage: afterwards, the failure of each day is reported once to each chat."""
    other = chats.new_chat()
    yesterday = settings.load().event_day("yesterday")
    days = [yesterday - timedelta(days=n) for n in range(number)][::-1]
    with socket.socket() as taken, pytest.MonkeyPatch.context() as patch:
        taken.bind(("127.0.0.1", 0))  # nothing answers here
        patch.setenv("CLICKHOUSE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        patch.setenv("TELEGRAM_ALERT_CHATS", f"{on_call},{other}")
        for day in days:
            with pytest.MonkeyPatch.context() as cut:
                cut.setenv("TELEGRAM_API_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
                run = _failing("etl").test(run_conf={"event_date": str(day)})
                assert {each.task_id: str(each.state) for each in run.get_task_instances()}["tell"] == "failed"
        patch.setenv("TELEGRAM_ALERT_CHATS", f"{on_call},-4242")  # the second chat does not exist
        for day in days:
            _failing("etl").test(run_conf={"event_date": str(day)})
        patch.setenv("TELEGRAM_ALERT_CHATS", f"{on_call},{other}")
        for day in days:
            run = _failing("etl").test(run_conf={"event_date": str(day)})
            assert {each.task_id: str(each.state) for each in run.get_task_instances()}["tell"] == "success"
    monkeypatch.setenv("TELEGRAM_ALERT_CHATS", f"{on_call},{other}")
    _look()  # the ledger answers again, but does not know that these were reported
    for chat in (on_call, other):
        told = [message["text"].partition("\n")[0] for message in chats.messages(chat)]
        assert told == [f"etl failed for {day:%-d %B}" for day in days]


def test_a_dag_file_that_cannot_be_read_is_reported_once_a_day(
    on_call: str, chats: Telegram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(settings.ROOT / "dags", tmp_path / "dags")
    broken = tmp_path / "dags" / "live_metrics.py"
    broken.write_text(broken.read_text() + "\n<<<<<<< ours\n")
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    for _ in range(2):
        _look()
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("live_metrics failed: dags/live_metrics.py cannot be read: SyntaxError: invalid syn")


def test_a_failed_nightly_run_does_not_promise_another_run_today(on_call: str, chats: Telegram) -> None:
    manifest = Path(settings.load().output) / "manifest.jsonl"
    before = manifest.read_bytes() if manifest.exists() else None
    manifest.write_text('{"forged": 1}\n')
    try:
        assert str(_dag("retention").test().state) == "failed"
    finally:
        manifest.unlink() if before is None else manifest.write_bytes(before)
    (told,) = chats.messages(on_call)
    assert told["text"].startswith("retention")
    assert "What to do: fix the cause" in told["text"]
    assert "next run tries again" not in told["text"]


def test_after_a_long_standstill_every_missing_day_of_the_last_week_is_reported(on_call: str, chats: Telegram) -> None:
    yesterday = settings.load().event_day("yesterday")
    _etl_of(yesterday - timedelta(days=12))
    _look()
    told = [message["text"] for message in chats.messages(on_call)]
    for back in range(1, 6):
        assert any(f"etl did not run for {yesterday - timedelta(days=back):%-d %B}:" in text for text in told)
    assert len(told) <= 7


def test_an_unreported_failure_is_reported_by_the_next_run_of_another_dag(
    on_call: str, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = settings.load().event_day("yesterday")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TELEGRAM_ALERT_CHATS", "-4242")  # there is no such chat
        run = _failing("etl").test(run_conf={"event_date": str(day)})
        assert {each.task_id: str(each.state) for each in run.get_task_instances()}["tell"] == "failed"
    for _ in range(2):
        _look()
    (told,) = chats.messages(on_call)
    assert told["text"].startswith(f"etl failed for {day:%-d %B}\n")
    assert "has no parameter 'wrong'" in told["text"]


def test_a_run_that_airflow_stopped_is_reported_by_the_next_run(on_call: str, chats: Telegram) -> None:
    day = settings.load().event_day("yesterday") - timedelta(days=4)
    _etl_of(day, "failed")  # none of its tasks failed
    for n in (1, 2, 3, 4):
        _etl_of(day + timedelta(days=n))
    _look()
    (told,) = chats.messages(on_call)
    assert told["text"].startswith(f"etl failed for {day:%-d %B}: it took longer than it may, or was broken off")


def test_a_missing_day_is_reported_once_unless_it_was_run_by_hand(on_call: str, chats: Telegram) -> None:
    yesterday = settings.load().event_day("yesterday")
    days = [yesterday - timedelta(days=n) for n in (5, 4, 3, 2)]
    _etl_of(days[0])  # the first known run of the schedule
    _etl_of(days[3])
    _etl_of(yesterday - timedelta(days=1))
    by_hand = Path(settings.load().output) / "etl" / str(days[1]) / "by_hand" / "load.1.ipynb"
    by_hand.parent.mkdir(parents=True)
    _attempt(by_hand, "")
    for _ in range(2):
        _look()
    told = [message["text"] for message in chats.messages(on_call)]
    missing = [text for text in told if f"etl did not run for {days[2]:%-d %B}:" in text]
    assert len(missing) == 1
    assert "trigger the DAG with that date" in missing[0]
    assert not any(f"for {day:%-d %B}" in text for day in (days[0], days[1], days[3]) for text in told)
    # Yesterday's run is due at 05:00; it counts as missing from a quarter of an hour later.
    due = datetime.now(settings.load().zone).time() >= datetime.min.time().replace(hour=5, minute=15)
    assert len(told) == 1 + due


def test_nothing_is_reported_missing_before_the_first_scheduled_run(on_call: str, chats: Telegram) -> None:
    _look()
    assert chats.messages(on_call) == []


def test_a_frequent_dag_that_has_stopped_running_is_reported(on_call: str, chats: Telegram) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    last = now - timedelta(hours=2)
    _was("monitoring", last, (last - timedelta(minutes=15), last))
    for _ in range(2):
        _look()
    (told,) = chats.messages(on_call)
    local = last.astimezone(settings.load().zone)
    assert told["text"].startswith(f"monitoring has not run since {local:%H:%M}, ")


def _attempt(path: Path, code: str) -> None:
    """Run a one-cell notebook in its own process, and wait until it ends."""
    import nbformat

    source = path.parent / "source.txt"
    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    node.cells = [nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(code)]
    nbformat.write(node, source)
    dag, _, run = path.parts[-4:-1]
    about = {"dag": dag, "task": path.stem.split(".")[0], "run_id": run, "try": 1, "started_by": "by hand"}
    program = (
        f"from pathlib import Path; from pulse.execution import runner; "
        f"runner.run(Path({str(source)!r}), {str(path)!r}, {{}}, about={about!r}, "
        f"root={settings.load().output!r})"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True)


def test_an_attempt_that_was_killed_unnoticed_is_settled_by_the_next_run(on_call: str) -> None:
    """The attempt was killed with its whole process, in a run that Airflow lists as finished."""
    root = Path(settings.load().output)
    day = settings.load().event_day("yesterday") - timedelta(days=30)
    run = _failing("live_metrics").test()
    path = root / "live_metrics" / str(day) / run.run_id / "live_metrics.1.ipynb"
    path.parent.mkdir(parents=True)
    _attempt(path, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    with index.opened(root) as opened:
        assert opened.attempt(str(path.relative_to(root))).outcome in ("running", "no end recorded")  # type: ignore[union-attr]
    _look()
    with index.opened(root) as opened:
        assert opened.attempt(str(path.relative_to(root))).outcome == "killed"  # type: ignore[union-attr]
