"""Notebooks as Airflow tasks; with `airflow_tell` and `airflow_plugin` the only module that imports Airflow."""

import asyncio
import difflib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from asgiref.sync import sync_to_async

from pulse import PulseError, archive, settings
from pulse.archive import ArchiveError, index, lives, manifest, proof
from pulse.execution import errors, light, runner, settling, store
from pulse.orchestration import plugin

with light.light_import():  # the provider imports papermill, and that every cloud's SDK
    from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, Param
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)
from airflow.triggers.base import BaseTrigger, TriggerEvent

Chats = Literal["report", "live", "alert"]

log = logging.getLogger(__name__)

EVENT_DATE = "{{ event_date(dag_run, params) }}"
"""The event date of a run, for a DAG that has `MACROS` and the parameter `event_date`."""

TRY = "{{ run_name(dag_run) }}_{{ ti.try_number }}"
"""A try's own name as staging tables bear it, for a DAG that has `MACROS`: a try that was given up may still be running
when the next one begins, and what both write would mix. Tasks after it find it by `try_of`.
"""

REASON, NOTEBOOK = "failure", "notebook"
"""What a task leaves as XComs for the DAG's last task: why it failed, and where its executed notebook is."""

TODAY = "{{ as_of(dag_run).date() }}"
"""The local day on which a run ends its interval, for a DAG that has `MACROS`."""

AS_OF = "{{ params.get('as_of') or as_of(dag_run).isoformat() }}"
"""The trigger form's moment, else the one at which a run's interval ends, for a DAG that has `MACROS`."""


def try_of(task_id: str) -> str:
    """The name (`TRY`) of the try of an earlier NotebookOperator that succeeded, as a template."""
    return f"{{{{ ti.xcom_pull('{task_id}', key='run') }}}}"


def event_date(dag_run: Any, params: dict[str, Any], zone: ZoneInfo | None = None) -> str:
    """The event date of a run as ISO text: the trigger form's, else the local day before the interval's end.

    A run without an interval (triggered over the API without a logical date) counts from the moment it was to run.
    """
    if params.get("event_date"):
        return str(params["event_date"])
    end = getattr(dag_run, "data_interval_end", None) or dag_run.run_after
    day: date = end.astimezone(zone or settings.load().zone).date()
    return str(day - timedelta(days=1))


def as_of(dag_run: Any, zone: ZoneInfo | None = None) -> datetime:
    """The moment up to which a run looks, in the configured time zone: its interval's end, or when it was to run."""
    end = getattr(dag_run, "data_interval_end", None) or dag_run.run_after
    return datetime.fromtimestamp(end.timestamp(), zone or settings.load().zone)


def run_name(dag_run: Any) -> str:
    """A run's id as tables and folders bear it."""
    return runner.safe_name(dag_run.run_id)


MACROS: dict[str, Callable[..., Any]] = {"as_of": as_of, "event_date": event_date, "run_name": run_name}
"""What `EVENT_DATE`, `TRY`, `TODAY` and `AS_OF` call: a DAG's `user_defined_macros`."""


def event_date_param() -> Param:
    """The trigger form's field for another event date than the schedule's."""
    return Param(
        None,
        type=["null", "string"],
        format="date",
        allOf=[{"format": plugin.ENDED_DAY}],
        title="Event date",
        description="The day to compute, such as 2026-11-22. Empty: the local day before the interval's end.",
    )


def as_of_param() -> Param:
    """The trigger form's field for another moment than the schedule's."""
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        allOf=[{"format": plugin.PAST_MOMENT}],
        title="As of",
        description="Look at the buckets that were over by then. Empty: by the interval's end.",
    )


class ArchiveLink(BaseOperatorLink):
    """The link from a notebook task to its executed notebook, with all of its tries."""

    name = "Executed notebook"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Where the archive shows this task's notebook; Airflow keeps it when the task ends, however it ended."""
        what = {"dag": ti_key.dag_id, "run_id": ti_key.run_id, "task": ti_key.task_id}
        return plugin.address(f"task?{urlencode(what)}")


NOT_OURS = (
    "input_nb",
    "output_nb",
    "kernel_name",
    "language_name",
    "kernel_conn_id",
    "nbconvert",
    "nbconvert_args",
)  # arguments of PapermillOperator


class NotebookOperator(PapermillOperator):
    """Runs a notebook of `notebooks/` and archives it, with the truth about how it ended.

    What PapermillOperator leaves open is decided here, on `pulse.execution`: parameters are checked against the
    notebook before it runs; every attempt is kept, at `<archive>/<dag>/<event date>/<run>/<notebook>.<try>.ipynb`; the
    task fails unless every cell ran, with the notebook's own error as the log's last line; connections reach the kernel
    by its environment alone. The archived notebook's path is the task's return value; the value of its parameter `run`,
    where it has one, is handed on under that key, once it succeeded.

    Args:
        notebook: its path below `notebooks/`, without the ending: `etl/load`.
        parameters: what to inject; templated.
        cell_seconds: the longest a cell may take; the task's `execution_timeout` bounds the whole.
        log_output: whether each line that the notebook prints stands in the task's log when it is printed.

    Raises:
        ValueError: another of PapermillOperator's arguments was given, which would have no effect here.
    """

    template_fields = ("parameters",)
    operator_extra_links = (ArchiveLink(),)

    def __init__(
        self,
        *,
        notebook: str,
        parameters: dict[str, Any] | None = None,
        cell_seconds: int | None = None,
        log_output: bool = True,
        **kwargs: Any,
    ) -> None:
        path = settings.ROOT / "notebooks" / f"{notebook}.ipynb"
        super().__init__(parameters=parameters or {}, log_output=log_output, **kwargs)
        if ignored := [name for name in NOT_OURS if getattr(self, name, None)]:
            raise ValueError(
                f"NotebookOperator has no {ignored[0]}: it runs a notebook of notebooks/ in a kernel of this machine's "
                f"python3 and archives it as it is; leave {ignored[0]} out, or use PapermillOperator."
            )
        self.input_nb = str(path)
        self.notebook = path.stem
        self.cell_seconds = cell_seconds

    def execute(self, context: Any) -> str:
        """Run the notebook; gives the path of the archived one.

        Raises:
            AirflowFailException: running it again would not help (a wrong parameter, date or setting).
            AirflowException: the notebook failed.
        """
        with _for_airflow(context):
            config = connected_settings()
            day = self.parameters.get("event_date")
            if day:
                config.event_day(day)
            instance, dag_run = context["ti"], context["dag_run"]
            folder = "/".join(
                [
                    config.output.rstrip("/"),
                    instance.dag_id,
                    day or str(dag_run.run_after.astimezone(config.zone).date()),
                    run_name(dag_run),
                ]
            )
            self.output_nb = _next_attempt(f"{folder}/{self.notebook}", instance.try_number, config.output)
            _leave(context, NOTEBOOK, self.output_nb)
            done = runner.run(
                Path(self.input_nb),
                self.output_nb,
                self.parameters,
                about={
                    "dag": instance.dag_id,
                    "task": instance.task_id,
                    "run_id": dag_run.run_id,
                    "try": instance.try_number,
                    "started_by": _starter(dag_run),
                },
                environment=config.for_kernels,
                secrets=config.secrets,
                cell_seconds=self.cell_seconds,
                root=config.output,
                say=self.log.info if self.log_output else None,
            )
        if "run" in self.parameters:
            instance.xcom_push("run", self.parameters["run"])
        queries = sum(query.get("seconds", 0) for query in done.queries)
        self.log.info("%s succeeded in %.1f s, %.1f of them in ClickHouse", self.notebook, done.seconds, queries)
        self.log.info("Archived at %s", done.path)
        return done.path


def _starter(dag_run: Any) -> str:
    """Who or what started a run: `scheduled`, or `manual, by admin`."""
    user = getattr(dag_run, "triggering_user_name", None)
    kind = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    return f"{kind}, by {user}" if user else kind


def is_published(day: str) -> bool:
    """Whether the ETL has published a day.

    Raises:
        ClickHouseError: no server answers.
    """
    from pulse import clickhouse

    config = connected_settings()
    sql = "select count() from daily_metrics where event_date = {day:Date}"
    try:
        db = clickhouse.connect(config, clickhouse.PROBE_SECONDS)
        return bool(db.value(sql, day=config.event_day(day)))
    except clickhouse.ClickHouseError as error:
        if error.code in (60, 81):  # the ETL, which creates the table, has never run
            return False
        raise


class DayPublished(BaseTrigger):
    """Waits, in the triggerer and in nobody's slot, until a day is published or a moment has come.

    Its event says which: True where the day is published.
    """

    def __init__(self, event_date: str, until: str, seconds: float = 10.0) -> None:
        super().__init__()
        self.event_date = event_date
        self.until = until
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "pulse.orchestration.operators.DayPublished", {
            "event_date": self.event_date,
            "until": self.until,
            "seconds": self.seconds,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        until = datetime.fromisoformat(self.until)
        while True:
            try:
                # In a thread of its own: by default all of a process's triggers share one, and wait for each other.
                published = await sync_to_async(is_published, thread_sensitive=False)(self.event_date)
            except PulseError as error:  # the server may come back before the time is over
                self.log.warning("%s", error)
                published = False
            if published or datetime.now(UTC) >= until:
                yield TriggerEvent(published)
                return
            await asyncio.sleep(min(self.seconds, max(0.1, (until - datetime.now(UTC)).total_seconds())))


class WaitForDay(BaseBranchOperator):
    """Goes on when the event date is published; deferred until then, for as long as `wait`.

    Args:
        event_date: the day, templated.
        wait: how long.
        then: the task to go on with.
        otherwise: the task for when the time is over; None: this task fails.
    """

    template_fields = ("event_date",)

    def __init__(
        self, *, event_date: str, wait: timedelta, then: str, otherwise: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.execution_timeout = wait + timedelta(minutes=5)  # which bounds the wait too
        self.event_date = event_date
        self.wait = wait
        self.then = then
        self.otherwise = otherwise

    def execute(self, context: Any) -> Any:
        """Look once, then defer.

        Raises:
            AirflowFailException: the event date is none.
            AirflowException: no server answers.
        """
        with _for_airflow(context):
            if is_published(self.event_date):
                return self.do_branch(context, self.then)
        until = datetime.now(UTC) + self.wait
        self.log.info("%s is not published; waiting until %s", self.event_date, until.isoformat(timespec="minutes"))
        trigger = DayPublished(self.event_date, until.isoformat())
        return self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: bool) -> Any:
        """What the trigger found.

        Raises:
            AirflowFailException: the time is over and there is nothing to go on with.
        """
        if event:
            return self.do_branch(context, self.then)
        if self.otherwise:
            return self.do_branch(context, self.otherwise)
        reason = (
            f"{self.event_date} was not published within {self.wait}; repair etl, then trigger this DAG with that date."
        )
        with _for_airflow(context):
            raise AirflowFailException(reason)


class _ToChats(BaseOperator):
    """What operators that send share: which chats, about which day, and what the log says of it."""

    def __init__(self, *, chats: Chats, event_date: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_date = event_date
        self.chats = chats

    def send(self, report: str, message: Any, context: Any, path: str = "", event_date: str = "") -> list[str]:
        """Deliver a message, made by the archived notebook at `path`; gives the references of the deliveries.

        It is about the task's event date, or another.
        """
        config = connected_settings()
        recipients = {
            "report": config.telegram_report_chats,
            "live": config.telegram_live_chats,
            "alert": config.telegram_alert_chats,
        }[self.chats]
        run = context["dag_run"].run_id
        day = date.fromisoformat(event_date or self.event_date)
        done = deliver(report, day, message, recipients, path, config, run)
        for each in done:
            did = "nothing to do, it stands there already" if each.did == "nothing" else each.did
            self.log.info("%s of %s to chat %s: %s (%s)", report, day, each.chat, did, each.ref)
            if each.error:
                self.log.warning("%s", each.error)
        return [each.ref for each in done]


class DeliverOperator(_ToChats):
    """Sends what an archived notebook handed on: `text`, and where it has them `chart`, `numbers` and `metrics`.

    `numbers` are pairs of what readers call it and its number, in order, and `metrics` pairs of its column and unit in
    the same order, by which a number is known whatever it is called; `language` says in which they are written.

    What readers get is what is archived, and sending again recomputes nothing: see `pulse.delivery.sending.deliver`.

    Args:
        report: the report's name; with the event date and the chat, the key of a delivery.
        event_date: the day it is about, templated.
        path: the archived notebook's path, templated: a NotebookOperator's output.
        chats: which of the settings' chats get it.
    """

    template_fields = ("event_date", "path")

    def __init__(self, *, report: str, path: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report = report
        self.path = path

    def execute(self, context: Any) -> list[str]:
        """Deliver; gives the references of the deliveries.

        Raises:
            AirflowFailException: the notebook handed on nothing that can be sent, or a setting is wrong.
            AirflowException: some chats did not get it; the others did.
        """
        from pulse.delivery import handed_on

        with _for_airflow(context):
            message = handed_on.handed_on(store.scraps(self.path), Path(self.path).name)
            return self.send(self.report, message, context, self.path)


class DeliverAlertsOperator(_ToChats):
    """Sends the alerts that an archived notebook handed on: `alerts`, as `incidents.alerts` makes them.

    Each is a delivery of its own: sent once, edited in place while its incident lives. One that fails holds no other
    back.

    Args:
        path: the archived notebook's path, templated: a NotebookOperator's output.
        chats: which of the settings' chats get them.
    """

    template_fields = ("path",)

    def __init__(self, *, path: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context: Any) -> list[str]:
        """Deliver; gives the references of the deliveries.

        Raises:
            AirflowFailException: of those that did not get through, none ever can.
            AirflowException: some alerts did not reach some chats; the others did.
        """
        from pulse.delivery import handed_on, sending

        references: list[str] = []
        failures: list[PulseError] = []
        with _for_airflow(context):
            handed = store.scraps(self.path)
            for alert in handed_on.alerts_handed_on(handed, Path(self.path).name):
                try:
                    message = handed_on.alert(alert, handed)
                    references += self.send(alert["report"], message, context, self.path, alert["event_date"])
                except PulseError as error:
                    failures.append(error)
            if failures:
                told = "\n".join(dict.fromkeys(map(str, failures)))
                raise sending.TelegramError(told) if all(map(_is_for_good, failures)) else PulseError(told)
        return references


class LateNoticeOperator(_ToChats):
    """Tells the chats, once, that the report of a day is late.

    Args:
        event_date: the day, templated.
        chats: which of the settings' chats are told.
        deadline: the local time by which the day should have been published.
    """

    template_fields = ("event_date",)

    def __init__(self, *, deadline: time, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deadline = deadline

    def execute(self, context: Any) -> list[str]:
        """Send the notice; gives the references of the deliveries.

        Raises:
            AirflowException: some chats did not get it.
        """
        from pulse.delivery import sending
        from pulse.reports.texts import late_notice

        with _for_airflow(context):
            day = date.fromisoformat(self.event_date)
            text = late_notice(day, self.deadline, connected_settings().language)
            return self.send("late_notice", sending.Message(text), context)


class ReconcileOperator(BaseOperator):
    """Compares a day's numbers wherever they are shown: see `pulse.reports.reconcile`; a difference fails the task.

    Sources that hold other rows of the day, or of the six before it, than when it was published are told to the alert
    chats as late data.

    Args:
        event_date: the day, templated.
        path: the archived report's path, templated: a NotebookOperator's output.
    """

    template_fields = ("event_date", "path")

    def __init__(self, *, event_date: str, path: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_date = event_date
        self.path = path

    def execute(self, context: Any) -> list[str]:
        """Compare; gives what was compared.

        Raises:
            AirflowException: some numbers differ, or what is configured does not answer.
        """
        from pulse.publishing import late_data
        from pulse.reports.reconcile import reconcile

        day, config = date.fromisoformat(self.event_date), connected_settings()
        with _for_airflow(context):
            self._tell_late_data(late_data.late_days(day, config), config)
            compared = reconcile(day, config, self.path)
        self.log.info("The numbers of %s are the same in daily_metrics, %s", self.event_date, ", ".join(compared))
        return compared

    def _tell_late_data(self, late: Sequence[Any], config: settings.Settings) -> None:
        """Tell the alert chats which days' sources hold other rows than when they were published.

        Once; where more comes, the message is brought up to date.
        """
        from pulse.delivery import sending
        from pulse.reports.texts import late_data_notice

        for day in sorted({each.event_date for each in late}):
            found = [each for each in late if each.event_date == day]
            for each in found:
                self.log.warning("%s", each)
            rows = [(each.source, each.now - each.published) for each in found]
            message = sending.Message(late_data_notice(day, rows, config.language))
            deliver("late_data", day, message, config.telegram_alert_chats, "", config)


class RefreshDashboardsOperator(BaseOperator):
    """Has the dashboards show a day as it was published just now: see `pulse.dashboards.redash.refresh`.

    Superset keeps no answers of the dashboard's datasets, so there it is so without anybody's doing.
    """

    def execute(self, context: Any) -> int:
        """Refresh; gives how many queries will be computed anew.

        Raises:
            AirflowSkipException: no Redash is configured.
            AirflowException: it does not answer, or the dashboard is not installed.
        """
        from pulse.dashboards import redash

        config = settings.load()
        if not config.redash_url or not config.redash_api_key.get_secret_value():
            raise AirflowSkipException("REDASH_URL and REDASH_API_KEY are not set: there is nothing to refresh.")
        with _for_airflow(context):
            queries = redash.refresh(config)
        self.log.info("Redash answers %d queries anew from now on", queries)
        return queries


class ThinArchiveOperator(BaseOperator):
    """Takes out of the archive what its retention lets go: see `pulse.archive.retention`.

    Args:
        days: how long everything stays, 30 or more.
    """

    def __init__(self, *, days: int = lives.DAYS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.days = days

    def execute(self, context: Any) -> int:
        """Thin; gives how many notebooks are gone.

        Raises:
            AirflowSkipException: the archive has not begun, or is in an object store, whose own rules decide.
            AirflowException: the archive cannot be read or written.
        """
        output = settings.load().output
        if "://" in output:
            raise AirflowSkipException(f"{output} is an object store: what stays there is for its own rules to say.")
        if not Path(output).is_dir():
            raise AirflowSkipException(f"There is no archive at {output} yet; it begins with the first run.")
        with _for_airflow(context):
            gone = settling.settle_and_thin(Path(output), self.days)
        self.log.info("%d notebooks are gone; the manifest knows of them", len(gone))
        return len(gone)


class CleanTablesOperator(BaseOperator):
    """Drops what ClickHouse keeps no longer: see `pulse.publishing.keeping`."""

    def execute(self, context: Any) -> list[str]:
        """Clean; gives what was dropped.

        Raises:
            AirflowException: a partition cannot be dropped, or no server answers.
        """
        from pulse import clickhouse, schema
        from pulse.publishing import cleaning

        with _for_airflow(context):
            db = clickhouse.connect(connected_settings())
            schema.ensure(db)  # before the first run of all there is none of the tables
            dropped = cleaning.clean(db)
        self.log.info("%s", "\n".join(dropped) or "nothing to drop")
        return dropped


class CleanLogsOperator(BaseOperator):
    """Removes the logs of tasks and DAGs that have not been written to for a while, on this worker.

    Args:
        days: how long they stay.
    """

    def __init__(self, *, days: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.days = days

    def execute(self, context: Any) -> int:
        """Remove; gives how many logs are gone.

        Raises:
            AirflowException: a log cannot be removed.
        """
        from airflow.sdk.configuration import conf

        before, gone = datetime.now(UTC).timestamp() - self.days * 86400, 0
        with _for_airflow(context):
            folder = Path(conf.get("logging", "base_log_folder"))
            try:
                for path in list(folder.rglob("*.log")):
                    if path.lstat().st_mtime < before:
                        path.unlink()
                        gone += 1
                        for parent in itertools.takewhile(lambda each: each != folder, path.parents):
                            with suppress(OSError):  # there is something else in it
                                parent.rmdir()
            except OSError as error:
                raise PulseError(f"{error.filename} cannot be removed ({error.strerror}); make it writable.") from None
        self.log.info("%d logs are gone", gone)
        return gone


class VerifyArchiveOperator(_ToChats):
    """Proves the archive, and sends the head of its chain to the chats: see `pulse.archive.proof`.

    What stands in the chat is out of reach of whoever may write in the archive's folder; the ledger keeps it too, and
    the next night's proof begins there. A head is sent once, without a notification.
    """

    template_fields = ("event_date",)

    def execute(self, context: Any) -> str:
        """Verify; gives the head.

        Raises:
            AirflowSkipException: the archive has not begun, or is in an object store, which has no manifest.
            AirflowException: the archive is not as it was kept, or it or the ledger cannot be read.
        """
        from pulse import clickhouse, schema
        from pulse.delivery import sending
        from pulse.orchestration.texts import archive_notice

        with _for_airflow(context):
            config = connected_settings()
            if "://" in config.output:
                raise AirflowSkipException(f"{config.output} is an object store, whose own versioning is the proof.")
            root = Path(config.output)
            db = clickhouse.connect(config)
            schema.create_missing(db)
            outside = proof.ledger(db, root)
            if not root.is_dir() and not outside.heads:  # one that was there before is missed
                raise AirflowSkipException(f"There is no archive at {root} yet; it begins with the first run.")
            verdict = proof.verify(root, outside=outside, last_only=True)
            for line in verdict.remarks:
                self.log.info("%s", line)
            if verdict.problems == verdict.gone:  # a head that is gone is told once: the next one begins anew
                text = archive_notice(verdict.notebooks, verdict.head, config.language)
                numbers = {"head": verdict.head, "folder": str(root.resolve())}
                message = sending.Message(text, numbers=numbers, silent=True)
                self.send(f"{proof.NOTICE} {verdict.head[:16]}", message, context)
            if verdict.problems:
                raise ArchiveError(proof.sentence(verdict))
        self.log.info("%d notebooks, all as they were kept; head %s", verdict.notebooks, verdict.head)
        return verdict.head


def deliver(
    report: str, day: date, message: Any, chats: str, path: str, config: settings.Settings, run: str = ""
) -> list[Any]:
    """Deliver a message that says from which archived notebook it comes, and write into the archive what was sent."""
    from pulse.delivery import sending

    if not path or not store.exists(path):
        return sending.deliver(report, day, message, chats, run=run, settings=config)
    message = replace(message, ref=store.run_reference(path))
    root = None if "://" in config.output else Path(config.output)
    if root and config.archive_url:
        page = archive.address(archive.place(root, path))
        message = replace(message, link=f"{config.archive_url.rstrip('/')}/{page}")
    done: Sequence[Any] = ()
    try:
        done = sending.deliver(report, day, message, chats, run=run, settings=config)
    except sending.DeliveryError as error:
        done = error.deliveries
        raise
    finally:
        if root and done:
            _note(root, path, report, day, done)
    return list(done)


def _note(root: Path, path: str, report: str, day: date, done: Sequence[Any]) -> None:
    """Tell the archive what was sent. The ledger knows it: where the archive cannot be written, the sending stands."""
    try:
        manifest.delivered(root, archive.place(root, path), report, day, done)
        index.keep_up(root)
    except ArchiveError as error:
        log.warning("What was sent is in the ledger, but not in the archive: %s", error)


@contextmanager
def _for_airflow(context: Any) -> Iterator[None]:
    """Turn our errors into Airflow's: one sentence, and no second try where that would not help.

    The reason is left where the DAG's last task finds it, which tells it (`pulse.orchestration.failures`).
    """
    try:
        _check_conf(context)
        yield
    except PulseError as error:
        _leave(context, REASON, str(error))
        raise (AirflowFailException if _is_for_good(error) else AirflowException)(str(error)) from None
    except AirflowSkipException:
        raise
    except BaseException as error:
        _leave(context, REASON, str(error) or type(error).__name__)
        raise


def _is_for_good(error: PulseError) -> bool:
    """Whether another try would fail in the same way."""
    from pulse.delivery import sending

    if isinstance(error, sending.DeliveryError):
        return False
    return isinstance(error, (errors.ParameterError, settings.SettingsError, sending.TelegramError))


def _leave(context: Any, key: str, what: str) -> None:
    """Leave something for the DAG's last task; that this cannot be done is no reason to fail, or to fail otherwise."""
    try:
        context["ti"].xcom_push(key, what)
    except Exception as error:
        log.warning("The last task will not know the %s: %s", key, error)


def _check_conf(context: Any) -> None:
    """Refuse what a run was triggered with and no parameter has, as a notebook's would be.

    Raises:
        ParameterError: with the parameters that there are.
    """
    if "dag" not in context:  # a task executed by hand
        return
    known = list(context["dag"].params)
    for name in context["dag_run"].conf or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}'" if near else f"it has {', '.join(known) or 'none'}"
            raise errors.ParameterError(f"{context['dag'].dag_id} has no parameter '{name}': {meant}?")


def _next_attempt(stem: str, number: int, root: str) -> str:
    """The archive's place for an attempt; an earlier one that was killed is told so, one that still runs is ended."""
    for earlier in range(1, number):
        settling.settle(f"{stem}.{earlier}.ipynb", root, superseded=True)
    while store.exists(f"{stem}.{number}.ipynb"):  # the metadata database was reset, the archive was not
        number += 1
    return f"{stem}.{number}.ipynb"


def connected_settings() -> settings.Settings:
    """The settings, with Airflow's connections `clickhouse_default` and `telegram_default` where they exist."""
    overrides: dict[str, str] = {}
    if found := _connection("clickhouse_default"):
        secure = found.schema == "https" or found.extra_dejson.get("secure") or found.port in (443, 8443)
        scheme, port = ("https", found.port or 8443) if secure else ("http", found.port or 8123)
        user = f"{quote(found.login or 'default', safe='')}:{quote(found.password or '', safe='')}"
        overrides["CLICKHOUSE_URL"] = f"{scheme}://{user}@{found.host}:{port}"
    if found := _connection("telegram_default"):
        overrides["TELEGRAM_BOT_TOKEN"] = found.password or ""
        if found.host:
            port = f":{found.port}" if found.port else ""
            overrides["TELEGRAM_API_URL"] = f"{found.schema or 'https'}://{found.host}{port}"
    return settings.load(**overrides)


def _connection(name: str) -> Any:
    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
