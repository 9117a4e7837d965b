"""Tasks that send: what archived notebooks handed on, and notices; and what was sent, recorded in the archive."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

from airflow.sdk import BaseOperator

from pulse import PulseError, archive, settings
from pulse.archive import ArchiveError, index, manifest
from pulse.delivery.message import Delivery, DeliveryError, Message, TelegramError
from pulse.execution import store
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.tasks import for_airflow, is_for_good
from pulse.orchestration.waiting import held_day
from pulse.settings import in_object_store

Chats = Literal["report", "live", "alert"]

log = logging.getLogger(__name__)

# `pulse.delivery.sending` loads pandas and the bot's client, which the scheduler should not load to parse a DAG file.


class ToChats(BaseOperator):
    """What all operators that send have in common.

    Args:
        chats: which of the settings' chats get the message.
        event_date: the day that the message is about; templated.
    """

    def __init__(self, *, chats: Chats, event_date: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_date = event_date
        self.chats = chats

    def send(self, report: str, message: Any, context: Any, path: str = "", event_date: str = "") -> list[str]:
        """Deliver a message and log what was done.

        Args:
            report: the report's name; with the event date and the chat it is the key of a delivery.
            message: the message.
            context: the task's context.
            path: the path of the archived notebook that made the message, if there is one.
            event_date: the day that it is about, if that is not the task's.

        Returns:
            The references of the deliveries.
        """
        config = connected_settings()
        recipients = config.chats[self.chats]
        run = context["dag_run"].run_id
        day = date.fromisoformat(event_date or self.event_date)
        done = deliver(report, day, message, recipients, path, config, run)
        for each in done:
            did = "nothing to do, the chat is up to date" if each.did == "nothing" else each.did
            self.log.info("%s of %s to chat %s: %s (%s)", report, day, each.chat, did, each.ref)
            if each.error:
                self.log.warning("%s", each.error)
        return [each.ref for each in done]


class DeliverOperator(ToChats):
    """Sends what an archived notebook handed on.

    That is `text`, and `chart`, `numbers`, `metrics` and `language` if the notebook has them.

    `numbers` are pairs of a label and a number, in order. `metrics` are pairs of a column and a unit in the same order:
    they identify a number whatever its label is. `language` is the language of the labels.

    Readers get what is archived. Sending again computes nothing again; see `pulse.delivery.sending.deliver`.

    Args:
        report: the report's name; with the event date and the chat it is the key of a delivery.
        event_date: the day that it is about; templated.
        path: the path of the archived notebook, a NotebookOperator's output; templated.
        only_correct: whether to send nothing where there is no message to correct; templated.
        chats: which of the settings' chats get it.
    """

    template_fields = ("event_date", "path", "only_correct")

    def __init__(self, *, report: str, path: Any, only_correct: Any = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report = report
        self.path = path
        self.only_correct = only_correct

    def execute(self, context: Any) -> list[str]:
        """Deliver the message.

        Returns:
            The references of the deliveries.

        Raises:
            AirflowFailException: the notebook handed on nothing that can be sent, or a setting is wrong.
            AirflowException: some chats did not get the message; the others did.
        """
        from pulse.delivery import handed_on

        with for_airflow(context):
            message = handed_on.handed_on(store.scraps(self.path), Path(self.path).name)
            message = replace(message, only_edits=bool(self.only_correct))
            return self.send(self.report, message, context, self.path)


class DeliverAlertsOperator(ToChats):
    """Sends the `alerts` that an archived notebook handed on, which `pulse.monitoring.alerts` makes.

    Each alert is its own delivery: it is sent once and edited while its incident is open. If one fails, the others are
    still sent.

    Args:
        path: the path of the archived notebook, a NotebookOperator's output; templated.
        chats: which of the settings' chats get them.
    """

    template_fields = ("path",)

    def __init__(self, *, path: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context: Any) -> list[str]:
        """Deliver the alerts.

        Returns:
            The references of the deliveries.

        Raises:
            AirflowFailException: some alerts did not reach some chats, and no retry can help any of these.
            AirflowException: some alerts did not reach some chats; the others did.
        """
        from pulse.delivery import handed_on

        references: list[str] = []
        failures: list[PulseError] = []
        with for_airflow(context):
            handed = store.scraps(self.path)
            for alert in handed_on.alerts_handed_on(handed, Path(self.path).name):
                try:
                    message = handed_on.alert(alert, handed)
                    references += self.send(alert["report"], message, context, self.path, alert["event_date"])
                except PulseError as error:
                    failures.append(error)
            if failures:
                told = "\n".join(dict.fromkeys(map(str, failures)))
                raise TelegramError(told) if all(map(is_for_good, failures)) else PulseError(told)
        return references


class LateNoticeOperator(ToChats):
    """Tells the chats once that the report of a day is late.

    Args:
        event_date: the day; templated.
        chats: which of the settings' chats get the notice.
        deadline: the local time by which the day should have been published.
    """

    template_fields = ("event_date",)

    def __init__(self, *, deadline: time, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deadline = deadline

    def execute(self, context: Any) -> list[str]:
        """Send the notice.

        Returns:
            The references of the deliveries.

        Raises:
            AirflowException: some chats did not get it.
        """
        from pulse.reports.texts import late_notice

        with for_airflow(context):
            day = date.fromisoformat(self.event_date)
            text = late_notice(day, self.deadline, connected_settings().language, held_day(self.event_date))
            return self.send("late_notice", Message(text), context)


def deliver(
    report: str, day: date, message: Message, chats: str, path: str, config: settings.Settings, run: str = ""
) -> list[Delivery]:
    """Deliver a message with the reference of the archived notebook it comes from, and record that in the archive."""
    from pulse.delivery import sending

    if not path or not store.exists(path):
        return sending.deliver(report, day, message, chats, run=run, settings=config)
    message = replace(message, ref=store.run_reference(path))
    root = None if in_object_store(config.output) else Path(config.output)
    if root and config.archive_url:
        page = archive.address(archive.notebook_path(root, path))
        message = replace(message, link=f"{config.archive_url.rstrip('/')}/{page}")
    done: Sequence[Delivery] = ()
    try:
        done = sending.deliver(report, day, message, chats, run=run, settings=config)
    except DeliveryError as error:
        done = error.deliveries
        raise
    finally:
        if root and done:
            _note(root, path, report, day, done)
    return list(done)


def _note(root: Path, path: str, report: str, day: date, done: Sequence[Delivery]) -> None:
    """Tell the archive what was sent. The ledger knows it: where the archive cannot be written, the sending stands."""
    try:
        manifest.delivered(root, archive.notebook_path(root, path), report, day, done)
        index.keep_up(root)
    except ArchiveError as error:
        log.warning("What was sent is in the ledger, but not in the archive: %s", error)
