"""Notebooks as Airflow tasks, and the tasks that follow a report."""

from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowSkipException

from pulse import settings
from pulse.execution import runner, settling, store
from pulse.execution.light import light_import
from pulse.orchestration.addresses import address
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.dates import run_name
from pulse.orchestration.restating import tell_late_data
from pulse.orchestration.tasks import NOTEBOOK, for_airflow, leave

with light_import():
    from airflow.providers.papermill.operators.papermill import PapermillOperator


class ArchiveLink(BaseOperatorLink):
    """The link from a notebook task to the archived notebooks of all its tries."""

    name = "Executed notebook"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the task's notebook in the archive. Airflow keeps it when the task ends, however it ended."""
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
    """Runs a notebook of `notebooks/` and archives it with the way it really ended.

    It uses `pulse.execution` for what PapermillOperator does not do. Parameters are checked against the notebook before
    it runs. Every try is kept, at `<archive>/<dag>/<event date>/<run>/<notebook>.<try>.ipynb`. The task fails unless
    every cell ran, and the notebook's error is the last line of the log. Connections reach the kernel only through its
    environment. The task returns the path of the archived notebook. If the notebook has a parameter `run`, its value is
    handed on under that key once the task has succeeded.

    Args:
        notebook: its path below `notebooks/` without the ending: `etl/load`.
        parameters: what the notebook gets; templated.
        cell_seconds: the time limit of each cell. The task's `execution_timeout` limits the whole.
        log_output: whether to log each line that the notebook prints as soon as it is printed.

    Raises:
        ValueError: an argument of PapermillOperator was given that has no effect here.
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
        """Run the notebook.

        Returns:
            The path of the archived notebook.

        Raises:
            AirflowFailException: a retry would not help (a wrong parameter, date or setting).
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
    """Compares a day's numbers wherever they are shown (`pulse.reports.reconcile`) and fails if any of them differ.

    It also tells the alert chats about late data: sources that hold other rows for this day or the six days before it
    than when that day was published.

    Args:
        event_date: the day; templated.
        path: the path of the archived report, a NotebookOperator's output; templated.
    """

    template_fields = ("event_date", "path")

    def __init__(self, *, event_date: str, path: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_date = event_date
        self.path = path

    def execute(self, context: Any) -> list[str]:
        """Compare the numbers.

        Returns:
            What was compared.

        Raises:
            AirflowException: some numbers differ, or something that is configured does not answer.
        """
        from pulse.publishing import late_data
        from pulse.reports.reconcile import reconcile

        day, config = date.fromisoformat(self.event_date), connected_settings()
        with for_airflow(context):
            tell_late_data(late_data.late_days(day, config), config)
            compared = reconcile(day, config, self.path)
        self.log.info("The numbers of %s are the same in daily_metrics, %s", self.event_date, ", ".join(compared))
        return compared


class RefreshDashboardsOperator(BaseOperator):
    """Makes Redash show a day as it was just published (`pulse.dashboards.redash.refresh`).

    Superset needs no refresh, because it does not cache the answers of the dashboard's datasets.
    """

    def execute(self, context: Any) -> int:
        """Refresh Redash.

        Returns:
            How many queries Redash will run again.

        Raises:
            AirflowSkipException: Redash is not configured.
            AirflowException: Redash does not answer, or the dashboard is not installed.
        """
        from pulse.dashboards import redash

        config = settings.load()
        if not config.redash_url or not config.redash_api_key.get_secret_value():
            raise AirflowSkipException("REDASH_URL and REDASH_API_KEY are not set: there is nothing to refresh.")
        with for_airflow(context):
            queries = redash.refresh(config)
        self.log.info("Redash will run %d queries again", queries)
        return queries


def _next_attempt(stem: str, number: int, root: str) -> str:
    """The archive's place for an attempt; an earlier one that was killed is told so, one that still runs is ended."""
    for earlier in range(1, number):
        settling.settle(f"{stem}.{earlier}.ipynb", root, superseded=True)
    while store.exists(f"{stem}.{number}.ipynb"):  # the metadata database was reset, the archive was not
        number += 1
    return f"{stem}.{number}.ipynb"
