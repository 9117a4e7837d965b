"""Waits until the ETL has published a day."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from pulse import PulseError
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.tasks import for_airflow


def is_published(day: str) -> bool:
    """Whether the ETL has published a day.

    Raises:
        ClickHouseError: no server answers.
        SettingsError: the day is not a date that has ended.
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


def held_day(day: str) -> Any:
    """The hold of a day that is held now; None if it is not held.

    Raises:
        ClickHouseError: no server answers.
    """
    from pulse import clickhouse
    from pulse.publishing import holds

    db = clickhouse.connect(connected_settings(), clickhouse.PROBE_SECONDS)
    return next(iter(holds.held(db, date.fromisoformat(day))), None)


class DayTrigger(BaseTrigger):
    """Waits in the triggerer until something is so of a day, or until a moment has come.

    Args:
        event_date: the day, as an ISO date.
        until: the moment, in ISO format with an offset.
        seconds: how long to wait between two looks.
    """

    def __init__(self, event_date: str, until: str, seconds: float = 10.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no types
        self.event_date = event_date
        self.until = until
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "event_date": self.event_date,
            "until": self.until,
            "seconds": self.seconds,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        until = datetime.fromisoformat(self.until)
        while True:
            try:
                # In a thread of its own: by default all of a process's triggers share one, and wait for each other.
                found = await sync_to_async(self.look, thread_sensitive=False)()
            except PulseError as error:  # the server may come back before the time is over
                self.log.warning("%s", error)
                found = False
            if found or datetime.now(UTC) >= until:
                yield TriggerEvent(self.event(found))
                return
            await asyncio.sleep(min(self.seconds, max(0.1, (until - datetime.now(UTC)).total_seconds())))

    def look(self) -> bool:
        """Whether it is so.

        Raises:
            PulseError: that cannot be found out now.
        """
        raise NotImplementedError

    def event(self, found: bool) -> Any:
        """What the task gets that waits."""
        return found


class DayPublished(DayTrigger):
    """Waits until a day is published. The event is True if it is."""

    def look(self) -> bool:
        """Whether the day is published."""
        return is_published(self.event_date)


class WaitForDay(BaseBranchOperator):
    """Continues when the event date is published; deferred until then.

    Args:
        event_date: the day; templated.
        wait: how long to wait.
        then: the task that follows once the day is published.
        otherwise: the task that follows when the time is over; if there is none, this task fails.
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
            AirflowFailException: the event date is not valid.
            AirflowException: no server answers.
        """
        with for_airflow(context):
            if is_published(self.event_date):
                return self.do_branch(context, self.then)
            hold = held_day(self.event_date)
        until = datetime.now(UTC) + self.wait
        self.log.info("%s", hold or f"{self.event_date} is not published yet")
        self.log.info("Waiting until %s", until.isoformat(timespec="minutes"))
        trigger = DayPublished(self.event_date, until.isoformat())
        return self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: bool) -> Any:
        """Continue with what the trigger found.

        Raises:
            AirflowFailException: the time is over and no task follows in that case.
        """
        if event:
            return self.do_branch(context, self.then)
        if self.otherwise:
            return self.do_branch(context, self.otherwise)
        with for_airflow(context):
            hold = held_day(self.event_date)
            late = f"{self.event_date} was not published within {self.wait}; "
            raise AirflowFailException(str(hold or f"{late}repair etl, then trigger this DAG with that date."))
