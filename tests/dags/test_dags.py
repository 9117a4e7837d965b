"""Rules that every DAG follows, and when and for which day the daily DAGs run."""

import itertools
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from pulse_sandbox.clickhouse_stand_in import Server

from dashboards.redash import KEY, Redash
from pulse import clickhouse, settings
from pulse.dashboards import redash
from pulse.execution import attempt
from pulse.orchestration.dates import as_of, event_date
from pulse.orchestration.failures import TellOperator
from pulse.orchestration.holding import ReleaseOperator
from pulse.orchestration.housekeeping import CleanLogsOperator, CleanTablesOperator, ThinArchiveOperator
from pulse.orchestration.operators import NotebookOperator
from pulse.orchestration.waiting import WaitForDay

DAGS = sorted((settings.ROOT / "dags").glob("*.py"))


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(settings.ROOT / "dags"))


@pytest.fixture(scope="module")
def etl(bag: Any) -> Any:
    return bag.dags["etl"]


def test_each_dag_file_defines_one_dag_with_the_files_name(bag: Any) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == [path.stem for path in DAGS]


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_a_dag_is_small_and_says_what_to_do_when_it_fails(path: Path, bag: Any) -> None:
    dag = bag.dags[path.stem]
    assert len(path.read_text().splitlines()) <= 90
    assert dag.doc_md.strip().startswith(f"# {path.stem}")
    assert "When it fails" in dag.doc_md
    assert dag.catchup is False
    assert dag.max_active_runs >= 1
    assert dag.start_date is not None
    assert str(dag.timetable.timezone) == settings.load().timezone


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_every_task_has_a_time_limit_and_a_retry(path: Path, bag: Any) -> None:
    for task in bag.dags[path.stem].tasks:
        assert task.execution_timeout, task.task_id
        if isinstance(task, WaitForDay | ReleaseOperator):  # deferred, so it takes no worker slot
            wait = task.wait if isinstance(task, WaitForDay) else task.patience
            assert timedelta(0) < task.execution_timeout - wait < timedelta(hours=1)
        else:
            assert task.execution_timeout <= timedelta(hours=2)
        assert task.retries >= 1, task.task_id
        assert task.owner != "airflow"


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_every_dag_ends_with_a_task_that_reports_failures(path: Path, bag: Any) -> None:
    dag = bag.dags[path.stem]
    (tell,) = [task for task in dag.tasks if isinstance(task, TellOperator)]
    assert tell.upstream_task_ids == {task.task_id for task in dag.tasks} - {tell.task_id}
    assert tell.is_teardown  # it runs however the others ended, and they alone decide the run's state
    assert not tell.on_failure_fail_dagrun
    assert tell.look
    assert tell.retries >= 3
    for task in dag.tasks:
        assert not task.on_failure_callback, task.task_id
        assert not task.on_retry_callback, task.task_id
    assert not dag.on_failure_callback


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_a_run_with_a_failed_task_is_a_failed_run(path: Path, bag: Any) -> None:
    """Airflow takes a run's state from its last tasks alone: a last task that always runs would hide a failure."""
    passed_on = {"all_success", "none_failed", "none_failed_min_one_success"}
    for task in bag.dags[path.stem].tasks:
        assert task.is_teardown or task.trigger_rule in passed_on, task.task_id


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_every_template_is_in_a_templated_field(path: Path, bag: Any) -> None:
    """A template in an attribute that Airflow does not render would be used literally."""
    for task in bag.dags[path.stem].tasks:
        written = {name for name, value in vars(task).items() if isinstance(value, str) and "{{" in value}
        assert written <= set(task.template_fields), task.task_id


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_notebook_tasks_pass_only_parameters_that_their_notebooks_have(path: Path, bag: Any) -> None:
    for task in bag.dags[path.stem].tasks:
        if isinstance(task, NotebookOperator):
            known = attempt.parameters_of(Path(task.input_nb))
            assert set(task.parameters) <= set(known), task.task_id


def test_parsing_the_dags_imports_no_data_library() -> None:
    """DAG files only declare DAGs, so parsing them imports no library that is slow to import."""
    code = (
        "import runpy, sys\n"
        "slow = {'pandas', 'matplotlib', 'pandahouse', 'chdb', 'scrapbook', 'boto3', 'gcsfs', 'telegram'}\n"
        "for path in sys.argv[1:]: runpy.run_path(path); print('read', path, sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, DAGS)], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("read ")] == [
        f"read {path} []" for path in DAGS
    ]


def test_etl_runs_both_extracts_then_transform_then_load_then_the_refresh(etl: Any) -> None:
    after = {task.task_id: sorted(task.upstream_task_ids) for task in etl.tasks}
    after.pop("tell")
    assert after == {
        "extract_feed": [],
        "extract_messages": [],
        "transform": ["extract_feed", "extract_messages"],
        "release": ["transform"],
        "load": ["release", "transform"],
        "refresh_dashboards": ["load"],
    }


def test_later_tasks_read_the_staging_tables_of_the_try_that_succeeded(etl: Any) -> None:
    class Instance:
        """The part of Airflow's task instance that the templates use."""

        def __init__(self, number: int) -> None:
            self.try_number = number

        def xcom_pull(self, task: str, key: str) -> str:
            return f"{key} of {task}"

    def rendered(task: str, number: int, allow_empty: bool = False) -> dict[str, Any]:
        run = SimpleNamespace(
            run_id="night", run_after=datetime(2026, 11, 23, 2, tzinfo=UTC), data_interval_end=None, conf={}
        )
        context = {
            "ti": Instance(number),
            "dag_run": run,
            "params": {"allow_empty": allow_empty},
            **etl.user_defined_macros,
        }
        found: dict[str, Any] = etl.get_task(task).render_template(etl.get_task(task).parameters, context)
        return found

    for task in ("extract_feed", "extract_messages", "transform"):
        assert rendered(task, 1)["run"] != rendered(task, 2)["run"], task
    whole = {"feed": "run of extract_feed", "messages": "run of extract_messages"}
    assert rendered("transform", 1)["extracts"] == rendered("load", 1)["extracts"] == whole
    assert rendered("load", 1)["run"] == rendered("load", 2)["run"] == "run of transform"
    for allowed in (False, True):  # the form's choice also reaches the load, which publishes the empty day
        assert {rendered(task, 1, allowed)["allow_empty"] for task in ("extract_feed", "extract_messages", "load")} == {
            allowed
        }


def test_redash_runs_its_queries_again_after_the_load(
    clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch, etl: Any
) -> None:
    task = etl.get_task("refresh_dashboards")
    with pytest.raises(AirflowSkipException, match="REDASH_URL and REDASH_API_KEY are not set"):
        task.execute({})
    with Redash().serving() as tool:
        monkeypatch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
        monkeypatch.setenv("CLICKHOUSE_READER_URL", clickhouse_server.reader_url)
        monkeypatch.setenv("REDASH_URL", tool.url)
        monkeypatch.setenv("REDASH_API_KEY", KEY)
        with pytest.raises(AirflowException, match=r"not installed in Redash .* run `pulse dashboards redash`"):
            task.execute({})
        redash.install(settings.load())
        before = {number: query["query"] for number, query in tool.queries.items()}
        assert task.execute({}) == 4
        assert all(query["query"] != before[number] for number, query in tool.queries.items())
    with pytest.raises(AirflowException, match="No Redash answers at"):
        task.execute({})


# --- the schedule and the event date ---------------------------------------------------------------------------------


def _intervals(dag: Any, first: datetime, count: int, timezone: str = "Europe/Berlin") -> list[Any]:
    """Returns the next data intervals from a moment on, as the scheduler would make them."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    timetable = CronDataIntervalTimetable(dag.timetable.expression, timezone=pendulum.timezone(timezone))
    restriction = TimeRestriction(earliest=pendulum.instance(first), latest=None, catchup=True)
    found: list[Any] = []
    while len(found) < count:
        last = found[-1] if found else None
        found.append(
            timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction).data_interval
        )
    return found


@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)])
def test_etl_runs_at_five_for_the_day_before_when_clocks_change(etl: Any, change: date) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime.combine(change - timedelta(days=3), datetime.min.time(), tzinfo=berlin)
    intervals = _intervals(etl, start, 6)
    assert {interval.end.astimezone(berlin).strftime("%H:%M") for interval in intervals} == {"05:00"}
    days = [event_date(SimpleNamespace(data_interval_end=interval.end), {}, berlin) for interval in intervals]
    assert days == [str(interval.end.astimezone(berlin).date() - timedelta(days=1)) for interval in intervals]
    assert len(set(days)) == 6
    assert str(change) in days


CHANGES = [  # when clocks went forward, and back
    ("Europe/Berlin", "2025-03-30T01:00Z", "2025-10-26T01:00Z"),
    ("America/New_York", "2025-03-09T07:00Z", "2025-11-02T06:00Z"),
    ("America/Havana", "2025-03-09T05:00Z", "2025-11-02T05:00Z"),  # forward at midnight, back to midnight
    ("Australia/Lord_Howe", "2025-10-04T15:30Z", "2025-04-05T15:00Z"),  # by half an hour
    ("Pacific/Chatham", "2025-09-27T14:00Z", "2025-04-05T14:00Z"),  # at 2:45 and 3:45
    ("Antarctica/Troll", "2025-03-30T01:00Z", "2025-10-26T01:00Z"),  # by two hours
]


@pytest.mark.parametrize(("timezone", "forward", "back"), CHANGES)
def test_monitoring_runs_every_quarter_of_an_hour_when_clocks_change(
    bag: Any, monkeypatch: pytest.MonkeyPatch, timezone: str, forward: str, back: str
) -> None:
    """Its `as_of` is exactly the end of the interval, also when read back from the text that the notebook gets."""
    monkeypatch.setenv("PULSE_TIMEZONE", timezone)
    config = settings.load()
    for change in (forward, back):
        changed = datetime.fromisoformat(change)
        ends = [each.end for each in _intervals(bag.dags["monitoring"], changed - timedelta(hours=3), 24, timezone)]
        assert ends[0] < changed < ends[-1] - timedelta(hours=2)
        assert {later.timestamp() - earlier.timestamp() for earlier, later in itertools.pairwise(ends)} == {900}
        for end in ends:
            text = as_of(SimpleNamespace(data_interval_end=end), config.zone).isoformat()
            assert config.moment(text).timestamp() == end.timestamp()


@pytest.mark.parametrize("name", ["etl", "daily_report", "retention"])
@pytest.mark.parametrize(("timezone", "forward", "back"), CHANGES)
def test_a_daily_dag_runs_once_a_day_at_its_hour_when_clocks_change(
    bag: Any, name: str, timezone: str, forward: str, back: str
) -> None:
    minute, hour = map(int, bag.dags[name].timetable.expression.split()[:2])
    zone = ZoneInfo(timezone)
    for change in (forward, back):
        changed = datetime.fromisoformat(change)
        ends = [
            each.end.astimezone(zone) for each in _intervals(bag.dags[name], changed - timedelta(days=3), 6, timezone)
        ]
        days = [end.date() for end in ends]
        assert days == [days[0] + timedelta(days=number) for number in range(6)]
        assert {(end.hour, end.minute) for end in ends if end.date() != changed.astimezone(zone).date()} == {
            (hour, minute)
        }


@pytest.mark.parametrize(
    ("end", "day"),
    [
        (datetime(2026, 11, 22, 20, 59, tzinfo=UTC), "2026-11-21"),  # 23:59 in Moscow
        (datetime(2026, 11, 22, 21, 0, tzinfo=UTC), "2026-11-22"),  # midnight in Moscow
        (datetime(2026, 11, 23, 2, 0, tzinfo=UTC), "2026-11-22"),  # 05:00 in Moscow
    ],
)
def test_the_event_date_is_the_local_day_before(end: datetime, day: str) -> None:
    assert event_date(SimpleNamespace(data_interval_end=end), {}, ZoneInfo("Europe/Moscow")) == day


def test_a_date_from_the_trigger_form_wins_over_the_interval() -> None:
    run = SimpleNamespace(data_interval_end=datetime(2026, 11, 23, 2, tzinfo=UTC))
    assert event_date(run, {"event_date": "2026-01-02"}) == "2026-01-02"
    assert event_date(run, {"event_date": None}, ZoneInfo("Europe/Moscow")) == "2026-11-22"


def test_without_an_interval_the_event_date_is_the_day_before_the_planned_start() -> None:
    run = SimpleNamespace(data_interval_end=None, run_after=datetime(2026, 11, 23, 9, tzinfo=UTC))
    assert event_date(run, {}, ZoneInfo("Europe/Moscow")) == "2026-11-22"


@pytest.mark.parametrize("given", ["2026-13-45", "yesterday", "22.11.2026"])
def test_the_trigger_form_refuses_an_invalid_date(etl: Any, given: str) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        etl.params.get_param("event_date").resolve(given)


def test_old_logs_are_removed_and_recent_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    now = datetime.now(UTC).timestamp()
    for name, days in (("old", 91), ("young", 89)):
        path = tmp_path / "dag_id=etl" / f"run_id={name}" / "attempt=1.log"
        path.parent.mkdir(parents=True)
        path.write_text("said")
        for each in (path, path.parent):
            os.utime(each, (now - days * 86400,) * 2)
    assert CleanLogsOperator(task_id="clean_logs", days=90).execute({}) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["dag_id=etl", "run_id=young", "attempt=1.log"]


def test_the_trigger_form_refuses_a_future_day_or_moment(bag: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    today = datetime.now(settings.load().zone).date()
    for name, given, said in (
        ("etl", str(today), "day that has ended"),
        ("daily_report", "2999-01-01", "day that has ended"),
        ("monitoring", "2999-01-01T00:00:00+03:00", "moment that has come"),
    ):
        parameter = bag.dags[name].params.get_param("as_of" if name == "monitoring" else "event_date")
        with pytest.raises(ParamValidationError, match=f"'{re.escape(given)}' is not a '{said}'"):
            parameter.resolve(given)
        assert parameter.resolve(None) is None
    assert bag.dags["etl"].params.get_param("event_date").resolve("2026-11-20") == "2026-11-20"


def test_retention_cleans_clickhouse_and_says_what_stops_it(
    clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    clean = CleanTablesOperator(task_id="clean_tables")
    monkeypatch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
    monkeypatch.setenv("PULSE_DATABASE", "cleaned")
    assert clean.execute({}) == []  # before the very first run
    db = clickhouse.connect()
    db.execute("insert into verdicts (bucket) select now() - interval 200 day")
    (dropped,) = clean.execute({})
    assert re.fullmatch(r"verdicts \d{6}", dropped)
    monkeypatch.setenv("CLICKHOUSE_URL", "http://127.0.0.1:9")
    with pytest.raises(AirflowException, match=r"No ClickHouse server answers"):
        clean.execute({})


def test_retention_leaves_a_young_archive_and_an_object_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowSkipException

    thin = ThinArchiveOperator(task_id="thin")
    monkeypatch.setenv("PULSE_OUTPUT", str(tmp_path))
    assert thin.execute({}) == 0
    (tmp_path / "manifest.jsonl").unlink(missing_ok=True)
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(AirflowException, match=r"manifest\.jsonl cannot be"):
        thin.execute({})
    monkeypatch.setenv("PULSE_OUTPUT", "s3://bucket/archive")
    with pytest.raises(AirflowSkipException, match="is an object store"):
        thin.execute({})
