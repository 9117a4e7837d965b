"""Notebooks as Airflow tasks, and the tasks that follow a report."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowSkipException

from pulse import settings
from pulse.delivery.message import Message
from pulse.execution import runner, settling, store
from pulse.execution.light import light_import
from pulse.orchestration.addresses import address
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.dates import run_name
from pulse.orchestration.sending import deliver
from pulse.orchestration.tasks import NOTEBOOK, for_airflow, leave

with light_import():
    from airflow.providers.papermill.operators.papermill import PapermillOperator


class ArchiveLink(BaseOperatorLink):
    """The link from a notebook task to its executed notebook, with all of its tries."""

    name = "Executed notebook"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Where the archive shows this task's notebook; Airflow keeps it when the task ends, however it ended."""
        what = {"dag": ti_key.dag_id, "run_id": ti_key.run_id, "task": ti_key.task_id}
        return address(f"task?{urlencode(what)}")


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
        """Run the notebook; returns the path of the archived one.

        Raises:
            AirflowFailException: running it again would not help (a wrong parameter, date or setting).
            AirflowException: the notebook failed.
        """
        with for_airflow(context):
            config = connected_settings()
            given: dict[str, Any] = self.parameters or {}  # by now with its templates filled in
            day = given.get("event_date")
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
            leave(context, NOTEBOOK, self.output_nb)
            done = runner.run(
                Path(str(self.input_nb)),
                self.output_nb,
                given,
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
        if "run" in given:
            instance.xcom_push("run", given["run"])
        queries = sum(query.get("seconds", 0) for query in done.queries)
        self.log.info("%s succeeded in %.1f s, %.1f of them in ClickHouse", self.notebook, done.seconds, queries)
        self.log.info("Archived at %s", done.path)
        return done.path


def _starter(dag_run: Any) -> str:
    """Who or what started a run: `scheduled`, or `manual, by admin`."""
    user = getattr(dag_run, "triggering_user_name", None)
    kind = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    return f"{kind}, by {user}" if user else kind


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
        with for_airflow(context):
            self._tell_late_data(late_data.late_days(day, config), config)
            compared = reconcile(day, config, self.path)
        self.log.info("The numbers of %s are the same in daily_metrics, %s", self.event_date, ", ".join(compared))
        return compared

    def _tell_late_data(self, late: Sequence[Any], config: settings.Settings) -> None:
        """Tell the alert chats which days' sources hold other rows than when they were published.

        Once; where more comes, the message is brought up to date.
        """
        from pulse.reports.texts import late_data_notice

        for day in sorted({each.event_date for each in late}):
            found = [each for each in late if each.event_date == day]
            for each in found:
                self.log.warning("%s", each)
            rows = [(each.source, each.now - each.published) for each in found]
            message = Message(late_data_notice(day, rows, config.language))
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
        with for_airflow(context):
            queries = redash.refresh(config)
        self.log.info("Redash answers %d queries anew from now on", queries)
        return queries


def _next_attempt(stem: str, number: int, root: str) -> str:
    """The archive's place for an attempt; an earlier one that was killed is told so, one that still runs is ended."""
    for earlier in range(1, number):
        settling.settle(f"{stem}.{earlier}.ipynb", root, superseded=True)
    while store.exists(f"{stem}.{number}.ipynb"):  # the metadata database was reset, the archive was not
        number += 1
    return f"{stem}.{number}.ipynb"
