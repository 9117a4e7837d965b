"""The event dates and moments of runs: templates and macros for DAGs, and the fields of their trigger forms."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import Param

from pulse import settings
from pulse.execution.runner import safe_name
from pulse.orchestration import plugin

EVENT_DATE = "{{ event_date(dag_run, params) }}"
"""The event date of a run, for a DAG that has `MACROS` and the parameter `event_date`."""

TRY = "{{ run_name(dag_run) }}_{{ ti.try_number }}"
"""The name of a try in its staging tables, for a DAG that has `MACROS`. A try that Airflow gave up may still be running
when the next one begins, and their tables must not mix. Later tasks find the name by `try_of`."""

TODAY = "{{ as_of(dag_run).date() }}"
"""The local day on which a run's interval ends, for a DAG that has `MACROS`."""

AS_OF = "{{ params.get('as_of') or as_of(dag_run).isoformat() }}"
"""The moment of the trigger form, else the end of the run's interval, for a DAG that has `MACROS`."""


def try_of(task_id: str) -> str:
    """Template: the name (`TRY`) of the try of an earlier NotebookOperator that succeeded."""
    return f"{{{{ ti.xcom_pull('{task_id}', key='run') }}}}"


def event_date(dag_run: Any, params: dict[str, Any], zone: ZoneInfo | None = None) -> str:
    """The event date of a run: from the trigger form, or the local day before the end of the interval.

    Args:
        dag_run: the run. Without an interval, the time when it was to begin counts.
        params: the parameters of the run.
        zone: the configured time zone unless given.

    Returns:
        An ISO date.
    """
    if params.get("event_date"):
        return str(params["event_date"])
    end = getattr(dag_run, "data_interval_end", None) or dag_run.run_after
    day: date = end.astimezone(zone or settings.load().zone).date()
    return str(day - timedelta(days=1))


def as_of(dag_run: Any, zone: ZoneInfo | None = None) -> datetime:
    """The moment up to which a run looks: the end of its interval, or the time when it was to begin.

    Args:
        dag_run: the run.
        zone: the configured time zone unless given.
    """
    end = getattr(dag_run, "data_interval_end", None) or dag_run.run_after
    return datetime.fromtimestamp(end.timestamp(), zone or settings.load().zone)


def run_name(dag_run: Any) -> str:
    """A run's id as a name for tables and folders."""
    return safe_name(dag_run.run_id)


MACROS: dict[str, Callable[..., Any]] = {"as_of": as_of, "event_date": event_date, "run_name": run_name}
"""What `EVENT_DATE`, `TRY`, `TODAY` and `AS_OF` call: a DAG's `user_defined_macros`."""


def event_date_param() -> Param:
    """The trigger form's field for an event date other than the schedule's."""
    return Param(
        None,
        type=["null", "string"],
        format="date",
        allOf=[{"format": plugin.ENDED_DAY}],
        title="Event date",
        description="The day to compute, such as 2026-11-22. Empty: the local day before the interval's end.",
    )


def as_of_param() -> Param:
    """The trigger form's field for a moment other than the schedule's."""
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        allOf=[{"format": plugin.PAST_MOMENT}],
        title="As of",
        description="Look at the buckets that were over by then. Empty: by the interval's end.",
    )
