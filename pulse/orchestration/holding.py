"""The step between the transform and the load: a held day waits for a person, and any other day skips it.

`transform` judges the day (`pulse.publishing.plausible`) and says whether it is held. If it is not, the transform's own
task marks `release` as skipped, so on an ordinary day nothing is started for it. If it is, `release` tells the alert
chats and waits for the first of two answers: a person's in Airflow's form (*Required Actions*), or `pulse release`.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

from pulse.archive import executed
from pulse.execution import store
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.operators import NotebookOperator
from pulse.orchestration.tasks import for_airflow
from pulse.orchestration.waiting import DayTrigger, held_day

PUBLISH, FROM_NOW_ON, KEEP = "Publish", "Publish, and expect the same from now on", "Do not publish"
OPTIONS = [PUBLISH, FROM_NOW_ON, KEEP]


class TransformOperator(NotebookOperator, SkipMixin):
    """Runs the transform's notebook, and skips the task that waits for a release unless the notebook holds the day.

    Args:
        release: the task to skip.
    """

    def __init__(self, *, release: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release

    def execute(self, context: Any) -> str:
        """Run the notebook.

        Returns:
            The path of the archived notebook.

        Raises:
            AirflowException: as NotebookOperator; or some chats could not be told that the day is no longer held.
        """
        path = super().execute(context)
        with for_airflow(context):
            said = executed.scraps(store.load_node(path))
            if said.get("held"):
                return path
            if said.get("lifted"):
                _tell_last(str((self.parameters or {})["event_date"]), context)
        context["ti"].xcom_push("return_value", path)
        self.skip(ti=context["ti"], tasks=[context["dag"].get_task(self.release)])
        return path


class ReleaseOperator(HITLOperator, SkipMixin):
    """Waits until a person releases a held day, and then lets the load publish it.

    Where nobody can answer it does not wait: in a backfill, which would stand still, and in `pulse daily`, whose caller
    is told at once. Then, and if nobody answers or the answer is not to publish, the load is skipped and the day stays
    held; a later release is followed by a new run of the day.

    Args:
        event_date: the day; templated.
        patience: how long to wait; staging tables do not live much longer.
        wait: whether to wait at all.
    """

    template_fields = ("event_date", "subject", "body")

    def __init__(self, *, event_date: str, patience: timedelta, wait: bool = True, **kwargs: Any) -> None:
        kwargs.pop("params", None)  # the DAG's, which are no fields of this task's form
        super().__init__(
            subject=f"{event_date} is held: publish it?",
            options=OPTIONS,
            params={
                "because": Param("", type="string", title="Why", description="Everybody sees it in the alert chat.")
            },
            response_timeout=patience,
            execution_timeout=patience + timedelta(minutes=5),
            **kwargs,
        )
        self.event_date = event_date
        self.patience = patience
        self.wait = wait

    def execute(self, context: Any) -> Any:
        """Tell the alert chats, and wait.

        Raises:
            AirflowException: some chats did not get the message, or no server answers.
        """
        from pulse.publishing import plausible
        from pulse.reports import held

        with for_airflow(context):
            hold = held_day(self.event_date)
            if hold is None:  # it was released meanwhile
                return None
            self.log.warning("%s", hold)
            held.tell(hold, connected_settings(), context["dag_run"].run_id)
        if not self.wait or _is_backfill(context["dag_run"]):
            return self._leave_unpublished(context)
        self.body = "\n".join(f"- {line}" for line in plausible.lines(hold.findings, "en", most=20))
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            params=self.serialized_params,
        )
        until = datetime.now(UTC) + self.patience
        trigger = DayReleased(self.event_date, until.isoformat())
        return self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> Any:
        """Go on with the answer: of the form, or what the trigger found.

        Raises:
            AirflowException: the release cannot be recorded, or some chats did not get the message.
        """
        chosen = event.get("chosen_options") or []
        if not event.get("released") and (KEEP in chosen or not chosen):
            return self._leave_unpublished(context)
        with for_airflow(context):
            if chosen:
                self._release(event, FROM_NOW_ON in chosen)
            _tell_last(self.event_date, context)  # also after `pulse release`, which may have been before the message
        return None

    def _release(self, event: dict[str, Any], from_now_on: bool) -> None:
        from pulse import clickhouse
        from pulse.publishing import holds

        by = (event.get("responded_by_user") or {}).get("name") or "Airflow"
        because = str((event.get("params_input") or {}).get("because") or "")
        db = clickhouse.connect(connected_settings())
        if held_day(self.event_date):  # not by `pulse release` at the same moment
            holds.release(db, date.fromisoformat(self.event_date), by=by, because=because, from_now_on=from_now_on)

    def _leave_unpublished(self, context: Any) -> None:
        self.log.info("%s stays held. After `pulse release %s`, run the day again.", self.event_date, self.event_date)
        following = context["task"].get_direct_relatives(upstream=False)
        self.skip(ti=context["ti"], tasks=[task for task in following if not task.is_teardown])


class DayReleased(DayTrigger):
    """Waits until a held day is released. The event says whether it is `released`.

    An answer in Airflow's form resumes the task without it.
    """

    def look(self) -> bool:
        """Whether the day is no longer held."""
        return not held_day(self.event_date)

    def event(self, found: bool) -> dict[str, bool]:
        """An event like those of Airflow's form."""
        return {"released": found}


def _tell_last(day: str, context: Any) -> None:
    """Tell what became of a hold where it was told."""
    from pulse import clickhouse
    from pulse.publishing import holds
    from pulse.reports import held

    config = connected_settings()
    last = holds.last(clickhouse.connect(config), date.fromisoformat(day))
    if last and last.state != "held":
        held.tell(last, config, context["dag_run"].run_id)


def _is_backfill(dag_run: Any) -> bool:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type)) == "backfill"
