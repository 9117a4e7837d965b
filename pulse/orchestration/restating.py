"""The nightly tasks around restating: what the comparison found is handed on, and told where nothing else tells it."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from airflow.sdk import BaseOperator

from pulse import settings
from pulse.delivery.message import Message
from pulse.execution import store
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.sending import deliver
from pulse.orchestration.tasks import for_airflow

log = logging.getLogger(__name__)


def run_again(run: str) -> dict[str, Any]:
    """How a TriggerDagRunOperator runs another DAG and waits for its end: without a worker, and failing if it fails.

    Args:
        run: the id of the run. If there is one with this id, which happens in a retry, it is repeated.
    """
    return {
        "trigger_run_id": run,
        "reset_dag_run": True,
        "wait_for_completion": True,
        "deferrable": True,
        "poke_interval": 10,
        "fail_when_dag_is_paused": True,  # instead of waiting for a run that does not begin
        "execution_timeout": timedelta(hours=2),
    }


class ChangedDaysOperator(BaseOperator):
    """Hands on the days that are to be restated, and tells the alert chats of those that are kept.

    The source of a kept day has changed, but no number by more than the tolerance.

    Args:
        path: the path of the archived comparison, a NotebookOperator's output; templated.
    """

    template_fields = ("path",)

    def __init__(self, *, path: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context: Any) -> list[dict[str, str]]:
        """Read the comparison.

        Returns:
            For each day to restate the `day`, and the `run` that is to compute it: the same however often this night's
            run is repeated, so that no day is restated twice at a time.

        Raises:
            AirflowException: the alert chats cannot be told.
        """
        with for_airflow(context):
            found, config = store.scraps(self.path), connected_settings()
            if found["kept"]:
                tell_late_data(_late_of([date.fromisoformat(day) for day in found["kept"]], config), config)
            held = _held(config)
        days = [day for day in found["restate"] if day not in held]
        self.log.info("%d days were compared, %d are restated", found["compared"], len(days))
        if waiting := sorted(held & set(found["restate"])):
            self.log.info("held already, and waiting for a release: %s", ", ".join(waiting))
        night = context["dag_run"].run_id
        return [{"day": day, "run": f"restate__{day}__{night}"} for day in days]


def tell_late_data(late: Sequence[Any], config: settings.Settings) -> None:
    """Tell the alert chats about late data: one message a day, which is edited when more data arrives."""
    from pulse.reports.texts import late_data_notice

    for day in sorted({each.event_date for each in late}):
        found = [each for each in late if each.event_date == day]
        for each in found:
            log.warning("%s", each)
        rows = [(each.source, each.now - each.published) for each in found]
        message = Message(late_data_notice(day, rows, config.language))
        deliver("late_data", day, message, config.telegram_alert_chats, "", config)


def _held(config: settings.Settings) -> set[str]:
    """The days that are held: they were told, and computing them again would hold them again."""
    from pulse import clickhouse
    from pulse.publishing import holds

    return {str(hold.event_date) for hold in holds.held(clickhouse.connect(config))}


def _late_of(days: list[date], config: settings.Settings) -> list[Any]:
    from pulse.publishing.late_data import late_data

    return [late for day in days for late in late_data(day, config)]
