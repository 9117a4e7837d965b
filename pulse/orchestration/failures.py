"""The last task of every DAG: it reports failures to the alert chats, those of tasks that died included.

A process that is killed cannot report it, so callbacks would miss it, in the task's process as well as in the DAG
processor. A separate task reports instead. It starts once all other tasks of the run are over, whatever their state (as
a teardown, which Airflow ignores in the run's own state). A failed task leaves its reason in the XCom `REASON`; for a
task that was killed before it could, the attempt in the archive is settled.

A run that Airflow itself broke off, or that never started, has no last task. The next run of any DAG notices that: each
checks all DAGs for runs that are missing, for failed runs that were not reported, and the archive for attempts that
seem to run although their task is over.

There is one message for each DAG and day: the event date for DAGs that have one, else the local day. The ledger of
deliveries sees to that. If the ledger cannot be reached, which may be what failed, an Airflow variable remembers what
was reported.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Variable

from pulse import PulseError, settings
from pulse.archive import ArchiveError, index
from pulse.delivery.access import chat_list
from pulse.delivery.message import Message, TelegramError
from pulse.execution import masking, settling
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.dates import as_of, event_date
from pulse.orchestration.sending import deliver
from pulse.orchestration.tasks import NOTEBOOK, REASON
from pulse.settings import in_object_store

GRACE = timedelta(minutes=15)
"""How late a run may start before it counts as missing."""

LOOK_BACK = timedelta(days=7)
"""How far back runs with event dates are checked."""

LOST = timedelta(hours=24)
"""After how long a running attempt counts as killed if Airflow does not know its task."""

KILLED = "killed before it could say why, for lack of memory or from outside"
TOLD = "pulse_told_without_the_ledger"
ALIVE = frozenset({"running", "queued", "scheduled", "deferred", "restarting", "up_for_retry", "up_for_reschedule"})


def tell_in_the_end(dag: DAG) -> None:
    """Add the last task to a DAG that has all others."""
    others = list(dag.tasks)
    last = TellOperator(
        task_id="tell",
        dag=dag,
        retries=3,
        retry_delay=timedelta(minutes=1),
        execution_timeout=timedelta(minutes=10),
    )
    others >> last.as_teardown()


@dataclass(frozen=True)
class _Run:
    """A run, its own or another, and the day under which its failure is told."""

    dag: str
    run_id: str
    day: date
    daily: bool
    often: bool
    """Whether its DAG runs again within the day by itself."""

    @property
    def report(self) -> str:
        return f"failure of {self.dag}"


class TellOperator(BaseOperator):
    """Reports what failed in its run, then looks for what could not report itself.

    Args:
        look: whether to look at other runs too. `pulse daily` does not, because it keeps no schedule.
    """

    def __init__(self, *, look: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = look

    def execute(self, context: Any) -> None:
        """Report, and look.

        Raises:
            PulseError: the alert chats cannot be reached. The next look tries again.
        """
        desk = _Desk(context["ti"], connected_settings(), self.log)
        desk.tell_failures(_run(context["dag"], context["dag_run"]))
        if self.look:
            try:
                desk.look()
            except PulseError as error:  # it keeps nothing from being told that this run had to tell
                self.log.warning("The look at other runs was broken off, the next run's goes on: %s", error)


class _Desk:
    """What is told and looked after in one run of the last task."""

    def __init__(self, instance: Any, config: settings.Settings, log: Any) -> None:
        self.instance = instance
        self.config = config
        self.log = log

    # --- telling ------------------------------------------------------------------------------------------------------

    def tell_failures(self, run: _Run, broken_off: bool = False) -> None:
        """Tell why a run failed, if it did."""
        from pulse.orchestration import texts

        reasons, path = self._reasons(run)
        if not reasons and broken_off:
            reasons = {"": "it took longer than it may, or was broken off by hand"}
        if not reasons:
            return
        day = run.day if run.daily else None
        self._tell(
            run.report,
            run.day,
            texts.failure_notice(run.dag, reasons, self.config.language, day, run.often),
            path,
        )

    def _reasons(self, run: _Run) -> tuple[dict[str, str], str]:
        """Why tasks of a run failed, by task, and where an executed notebook of one of them is."""
        reasons, path = {}, ""
        for task, state in sorted(self._states(run.dag, run.run_id).items()):
            if state == "failed" and task != self.instance.task_id:
                notebook = self._left(run, task, NOTEBOOK) or ""
                if notebook:
                    settling.settle(notebook, self.config.output)
                reasons[task] = self._masked(self._left(run, task, REASON) or KILLED)
                path = path or notebook
        return reasons, path

    def _tell(self, report: str, day: date, text: str, path: str = "") -> None:
        told = self._told_without_ledger(report, day)
        chats = [chat for chat in chat_list(self.config.telegram_alert_chats) if chat not in told]
        if not chats:
            return
        try:
            done = deliver(report, day, Message(text), ",".join(chats), path, self.config)
        except TelegramError:
            raise
        except PulseError as error:
            self.log.warning("The ledger is not there (%s); the alert chats are told without it.", error)
            self._tell_without_ledger(report, day, text, chats)
        else:
            for each in done:
                self.log.info("%s of %s to chat %s: %s (%s)", report, day, each.chat, each.did, each.ref)

    def _tell_without_ledger(self, report: str, day: date, text: str, chats: list[str]) -> None:
        from pulse.delivery import unrecorded

        missing = []
        for chat in chats:
            told = self._told_without_ledger(report, day)
            self._remember(report, day, [*told, chat])  # before: told too little rather than every quarter of an hour
            try:
                unrecorded.send_unrecorded(text, chat, self.config)
            except TelegramError as error:  # it certainly did not get it: the next look tries again
                self._remember(report, day, told)
                missing.append(f"{error}")
        if missing:
            raise TelegramError("\n".join(missing))

    def _told_without_ledger(self, report: str, day: date) -> list[str]:
        """The chats that were."""
        return list(Variable.get(TOLD, default={}, deserialize_json=True).get(f"{report} {day}", []))

    def _remember(self, report: str, day: date, chats: list[str]) -> None:
        known = Variable.get(TOLD, default={}, deserialize_json=True)
        last = str(_today(self.config) - LOOK_BACK - timedelta(days=2))  # of older ones nobody asks any more
        kept = {key: value for key, value in known.items() if key.rpartition(" ")[2] >= last}
        told = json.dumps({**kept, f"{report} {day}": chats})
        Variable.set(TOLD, told, description="Failures told without the ledger: to which chats.")

    # --- looking ------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at all DAGs of the project, and at the archive."""
        self._settle()
        now = datetime.now(UTC)
        told = self._told(now)
        dags, unreadable = _dags()
        for name, reason in unreadable.items():
            self._tell_unreadable(name, reason, told)
        for dag in dags:
            if not self._asked_to_run(dag.dag_id):
                continue
            for run in self._failed(dag, now):
                if (run.report, run.day) not in told:
                    self.tell_failures(run, broken_off=True)
                    told.add((run.report, run.day))
            self._look_for_missing(dag, now, told)

    def _tell_unreadable(self, name: str, reason: str, told: set[tuple[str, date]]) -> None:
        """Tell of a DAG whose file cannot be read, so that it does not run: once a day."""
        from pulse.orchestration import texts

        report, today = f"failure of {name}", _today(self.config)
        if (report, today) not in told:
            said = {"": f"dags/{name}.py cannot be read: {self._masked(reason)}"}
            self._tell(report, today, texts.failure_notice(name, said, self.config.language))

    def _settle(self) -> None:
        """Say of attempts that the archive takes for running, and whose task is over, that they were killed."""
        if in_object_store(self.config.output):
            return  # no index; a task's own attempts are settled by the last task of its run
        try:
            with index.opened(Path(self.config.output)) as opened:
                running = [
                    attempt
                    for outcome in ("running", "no end recorded")
                    for attempt in opened.search(index.Filter(outcome=outcome)).attempts
                ]
        except ArchiveError:
            return  # there is no archive yet
        for attempt in running:
            states = self._states(attempt.dag, attempt.run_id)
            state = states.get(attempt.task, "unknown")
            if state in ALIVE or (state == "unknown" and _age(attempt.started) < LOST):
                continue
            self.log.info("%s was killed, and is settled now", attempt.path)
            settling.settle(str(Path(self.config.output) / attempt.path), self.config.output)

    def _told(self, now: datetime) -> set[tuple[str, date]]:
        """What the ledger knows as told, or as tried without an answer."""
        from pulse import clickhouse

        sql = """
        -- The failures of the last days that were told, one row each
        select distinct report, toString(event_date) as day
        from deliveries
        where event_date >= {first:Date} and report like 'failure of %' and state in ('sent', 'unknown')
        """
        frame = clickhouse.connect(self.config).read(sql, first=(now - LOOK_BACK - timedelta(days=2)).date())
        return {(report, date.fromisoformat(day)) for report, day in zip(frame["report"], frame["day"], strict=True)}

    def _failed(self, dag: DAG, now: datetime) -> Iterator[_Run]:
        """The failed runs of a DAG, the latest first: within the look for one with event dates, else of today."""
        before, daily = now + timedelta(minutes=1), _is_daily(dag)
        while found := self._before(dag.dag_id, before, "failed"):
            run = _run(dag, found)
            if found.logical_date < now - LOOK_BACK or (not daily and run.day < _today(self.config)):
                return
            yield run
            if not daily:
                return
            before = found.logical_date

    def _look_for_missing(self, dag: DAG, now: datetime, told: set[tuple[str, date]]) -> None:
        """Tell of the runs that a DAG should have had: each event date, else only that none came since."""
        from pulse.orchestration import texts

        expected = _expected(dag, now)
        report = f"failure of {dag.dag_id}"
        if not _is_daily(dag):
            last = self._before(dag.dag_id, now + timedelta(minutes=1))
            if not (last and expected) or last.logical_date >= expected[-1].logical_date:
                return
            today, since = _today(self.config), as_of(last, self.config.zone)
            if (report, today) not in told:
                text = texts.not_run_notice(dag.dag_id, self.config.language, since=f"{since:%H:%M}, {since:%-d.%m}.")
                self._tell(report, today, text)
            return
        there = [self._count(dag.dag_id, each.logical_date) > 0 for each in expected]
        began = bool(expected) and self._before(dag.dag_id, expected[0].logical_date) is not None
        first = 0 if began else there.index(True) if True in there else len(there)  # none is missing of before it began
        for each, is_there in zip(expected[first:], there[first:], strict=True):
            day = date.fromisoformat(event_date(each, {}, self.config.zone))
            if not is_there and (report, day) not in told and not self._done_otherwise(dag.dag_id, day):
                self._tell(report, day, texts.not_run_notice(dag.dag_id, self.config.language, day))

    def _done_otherwise(self, dag: str, day: date) -> bool:
        """Whether somebody ran it for that day by hand."""
        with suppress(ArchiveError):
            if not in_object_store(self.config.output):
                wanted = index.Filter(dag=dag, first=str(day), last=str(day), outcome="succeeded")
                with index.opened(Path(self.config.output)) as opened:
                    return opened.search(wanted).total > 0
        return False

    # --- what Airflow knows -------------------------------------------------------------------------------------------

    def _states(self, dag: str, run_id: str) -> dict[str, str | None]:
        return dict(self.instance.get_task_states(dag_id=dag, run_ids=[run_id]).get(run_id) or {})

    def _left(self, run: _Run, task: str, key: str) -> Any:
        return self.instance.xcom_pull(task_ids=task, dag_id=run.dag, run_id=run.run_id, key=key)

    def _count(self, dag: str, logical_date: datetime) -> int:
        return int(self.instance.get_dr_count(dag_id=dag, logical_dates=[logical_date]))

    def _before(self, dag: str, moment: datetime, state: str | None = None) -> Any:
        """The latest run of any DAG before a moment; the instance's own method knows only its own DAG."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import GetPreviousDagRun

        asked = GetPreviousDagRun(dag_id=dag, logical_date=moment, state=state)
        answer: Any = task_runner.SUPERVISOR_COMMS.send(msg=asked)
        return answer.dag_run

    def _asked_to_run(self, dag: str) -> bool:
        """Whether Airflow knows a DAG, and nobody has switched it off."""
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            return not self.instance.get_dag(dag).is_paused
        except AirflowRuntimeError:
            return False

    def _masked(self, reason: str) -> str:
        for secret in self.config.secrets:
            reason = reason.replace(secret, masking.MASK)
        return reason


def _today(config: settings.Settings) -> date:
    """The local day."""
    return datetime.now(config.zone).date()


def _is_daily(dag: Any) -> bool:
    """Whether a DAG is about event dates."""
    return "event_date" in dag.params


def _run(dag: Any, dag_run: Any) -> _Run:
    daily = _is_daily(dag)
    day = date.fromisoformat(event_date(dag_run, dag_run.conf or {})) if daily else as_of(dag_run).date()
    often = not daily and len(_expected(dag, datetime.now(UTC))) > 1  # of the last 24 hours
    return _Run(dag.dag_id, dag_run.run_id, day, daily, often)


def _dags() -> tuple[list[DAG], dict[str, str]]:
    """The project's DAGs that run by a schedule; and the files that cannot be read, by name, each with the reason."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(settings.ROOT / "dags"))
    errors = {Path(path).stem: error.strip().splitlines()[-1] for path, error in bag.import_errors.items()}
    return [dag for dag in bag.dags.values() if dag.timetable.can_be_scheduled], errors


def _expected(dag: DAG, now: datetime) -> list[Any]:
    """The intervals of a DAG within the look that should have begun by now."""
    import pendulum
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    timetable: Any = coerce_to_core_timetable(dag.timetable)
    earliest = now - (LOOK_BACK if _is_daily(dag) else timedelta(days=1))
    restriction = TimeRestriction(earliest=pendulum.instance(earliest), latest=None, catchup=True)
    found: list[Any] = []
    interval = None
    while info := timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction):
        if info.run_after > now - GRACE:
            break
        interval = info.data_interval
        found.append(_Interval(info.logical_date, interval.start, interval.end, info.run_after))
    return found


@dataclass(frozen=True)
class _Interval:
    """A run that should have been, with what `event_date` reads of one."""

    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    run_after: datetime


def _age(started: str) -> timedelta:
    """How long ago an attempt began."""
    return datetime.now(UTC) - datetime.fromisoformat(started) if started else LOST
