"""Notebooks as Airflow tasks; the only module that imports Airflow."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pulse import PulseError, notebooks, settings

with notebooks.light_import():  # the provider imports papermill, and that every cloud's SDK
    from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.sdk import BaseHook, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

EVENT_DATE = "{{ event_date(dag_run, params) }}"
"""The event date of a run, for a DAG that has `MACROS` and the parameter `event_date`."""

RUN = "{{ run_name(dag_run) }}"
"""The run's name as tables and folders bear it, for a DAG that has `MACROS`."""


def event_date(dag_run: Any, params: dict[str, Any], zone: ZoneInfo | None = None) -> str:
    """The event date of a run as ISO text: the trigger form's, else the local day before the interval's end.

    A run without an interval (triggered over the API without a logical date) counts from the moment it was to run.
    """
    if params.get("event_date"):
        return str(params["event_date"])
    end = getattr(dag_run, "data_interval_end", None) or dag_run.run_after
    day: date = end.astimezone(zone or settings.load().zone).date()
    return str(day - timedelta(days=1))


def run_name(dag_run: Any) -> str:
    """A run's id as tables and folders bear it."""
    return notebooks.safe_name(dag_run.run_id)


MACROS: dict[str, Callable[..., Any]] = {"event_date": event_date, "run_name": run_name}
"""What `EVENT_DATE` and `RUN` call: a DAG's `user_defined_macros`."""


def event_date_param() -> Param:
    """The trigger form's field for another event date than the schedule's."""
    return Param(
        None,
        type=["null", "string"],
        format="date",
        title="Event date",
        description="The day to compute, such as 2026-11-22. Empty: the local day before the interval's end.",
    )


class NotebookOperator(PapermillOperator):
    """Runs a notebook of `notebooks/` and archives it, with the truth about how it ended.

    What PapermillOperator leaves open is decided here, on `pulse.notebooks`: parameters are checked against the
    notebook before it runs; every attempt is kept, at `<archive>/<dag>/<event date>/<run>/<notebook>.<try>.ipynb`; the
    task fails unless every cell ran, with the notebook's own error as the log's last line; connections reach the kernel
    by its environment alone. The archived notebook's path is the task's return value.

    Args:
        notebook: its path below `notebooks/`, without the ending: `etl/load`.
        parameters: what to inject; templated.
        cell_seconds: the longest a cell may take; the task's `execution_timeout` bounds the whole.
    """

    template_fields = ("parameters",)

    def __init__(
        self,
        *,
        notebook: str,
        parameters: dict[str, Any] | None = None,
        cell_seconds: int | None = None,
        **kwargs: Any,
    ) -> None:
        path = settings.ROOT / "notebooks" / f"{notebook}.ipynb"
        super().__init__(input_nb=str(path), parameters=parameters or {}, **kwargs)
        self.notebook = path.stem
        self.cell_seconds = cell_seconds

    def execute(self, context: Any) -> str:
        """Run the notebook; gives the path of the archived one.

        Raises:
            AirflowFailException: running it again would not help (a wrong parameter, date or setting).
            AirflowException: the notebook failed.
        """
        try:
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
            self.output_nb = _next_attempt(f"{folder}/{self.notebook}", instance.try_number)
            done = notebooks.run(
                Path(self.input_nb),
                self.output_nb,
                self.parameters,
                about={
                    "dag": instance.dag_id,
                    "task": instance.task_id,
                    "run_id": dag_run.run_id,
                    "try": instance.try_number,
                    "started_by": str(dag_run.run_type),
                },
                environment={"CLICKHOUSE_URL": config.clickhouse_url.get_secret_value()},
                secrets=[*config.secrets, *settings.load().secrets],
                cell_seconds=self.cell_seconds,
            )
        except (notebooks.ParameterError, settings.SettingsError) as error:
            raise AirflowFailException(str(error)) from None
        except PulseError as error:
            raise AirflowException(str(error)) from None
        queries = sum(query.get("seconds", 0) for query in done.queries)
        self.log.info("%s succeeded in %.1f s, %.1f of them in ClickHouse", self.notebook, done.seconds, queries)
        self.log.info("Archived at %s", done.path)
        return done.path


def _next_attempt(stem: str, number: int) -> str:
    """The archive's place for an attempt; an earlier one that was killed is told so."""
    for earlier in range(1, number):
        notebooks.settle(f"{stem}.{earlier}.ipynb")
    while notebooks.exists(f"{stem}.{number}.ipynb"):  # the metadata database was reset, the archive was not
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
