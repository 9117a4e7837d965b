"""The nightly tasks: everything is looked at, the archive is verified and thinned, old rows and logs are deleted."""

import itertools
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from pulse import PulseError, settings
from pulse.archive import ArchiveError, lives, proof
from pulse.delivery.message import Message
from pulse.execution import settling
from pulse.orchestration.connections import connected_settings
from pulse.orchestration.sending import ToChats
from pulse.orchestration.tasks import for_airflow
from pulse.settings import in_object_store


class DoctorOperator(ToChats):
    """Looks at everything that Pulse needs (`pulse.doctor`) and sends what needs attention to the chats."""

    template_fields = ("event_date",)

    def execute(self, context: Any) -> list[str]:
        """Look at everything.

        Returns:
            What needs attention, a line each.

        Raises:
            AirflowException: the chats did not get the message.
        """
        from airflow.sdk.configuration import conf

        from pulse.doctor.examination import examine
        from pulse.orchestration.texts import doctor_notice

        with for_airflow(context):
            config = connected_settings()
            os.environ.setdefault("AIRFLOW__API__BASE_URL", conf.get("api", "base_url", fallback="") or "")
            found = examine(config)
            for each in found:
                (self.log.warning if each.state == "fault" else self.log.info)("%s: %s", each.what, each.said)
            faults = [(each.what, each.said) for each in found if each.state == "fault"]
            if faults:
                self.send("doctor", Message(doctor_notice(faults, config.language)), context)
        return [f"{what}: {said}" for what, said in faults]


class ThinArchiveOperator(BaseOperator):
    """Settles killed attempts and removes old notebooks that nobody needs (`pulse.archive.retention`).

    Args:
        days: for how many days everything is kept, 30 or more.
    """

    def __init__(self, *, days: int = lives.LEAST_DAYS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.days = days

    def execute(self, context: Any) -> int:
        """Thin the archive.

        Returns:
            How many notebooks were removed.

        Raises:
            AirflowSkipException: there is no archive yet, or it is in an object store, which has its own rules.
            AirflowException: the archive cannot be read or written.
        """
        output = settings.load().output
        if in_object_store(output):
            raise AirflowSkipException(f"{output} is an object store: what stays there is for its own rules to say.")
        if not Path(output).is_dir():
            raise AirflowSkipException(f"There is no archive at {output} yet; it begins with the first run.")
        with for_airflow(context):
            gone = settling.settle_and_thin(Path(output), self.days)
        self.log.info("%d notebooks are gone; the manifest knows of them", len(gone))
        return len(gone)


class CleanTablesOperator(BaseOperator):
    """Drops from ClickHouse what is not kept any longer (`pulse.publishing.keeping`)."""

    def execute(self, context: Any) -> list[str]:
        """Clean the tables.

        Returns:
            What was dropped.

        Raises:
            AirflowException: a partition cannot be dropped, or no server answers.
        """
        from pulse import clickhouse, schema
        from pulse.publishing import cleaning

        with for_airflow(context):
            db = clickhouse.connect(connected_settings())
            schema.ensure(db)  # before the first run of all there is none of the tables
            dropped = cleaning.clean(db)
        self.log.info("%s", "\n".join(dropped) or "nothing to drop")
        return dropped


class CleanLogsOperator(BaseOperator):
    """Removes old logs of tasks and DAGs on this worker.

    Args:
        days: for how many days after its last line a log is kept.
    """

    def __init__(self, *, days: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.days = days

    def execute(self, context: Any) -> int:
        """Remove the logs.

        Returns:
            How many were removed.

        Raises:
            AirflowException: a log cannot be removed.
        """
        from airflow.sdk.configuration import conf

        before, gone = datetime.now(UTC).timestamp() - self.days * 86400, 0
        with for_airflow(context):
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


class VerifyArchiveOperator(ToChats):
    """Verifies the archive and sends the head of its hash chain to the chats (`pulse.archive.proof`).

    Whoever can write in the archive's folder cannot change what is in the chat. The ledger of deliveries keeps the head
    too, and the next night's proof begins there. A head is sent once, without a notification.
    """

    template_fields = ("event_date",)

    def execute(self, context: Any) -> str:
        """Verify the archive.

        Returns:
            The head.

        Raises:
            AirflowSkipException: there is no archive yet, or it is in an object store and has no manifest.
            AirflowException: the archive is not as it was kept, or it or the ledger cannot be read.
        """
        from pulse import clickhouse, schema
        from pulse.orchestration.texts import archive_notice

        with for_airflow(context):
            config = connected_settings()
            if in_object_store(config.output):
                raise AirflowSkipException(f"{config.output} is an object store, whose own versioning is the proof.")
            root = Path(config.output)
            db = clickhouse.connect(config)
            schema.create_missing(db)
            outside = proof.ledger(db, root)
            if not root.is_dir() and not outside.heads:  # one that was there before is missed
                raise AirflowSkipException(f"There is no archive at {root} yet; it begins with the first run.")
            findings = proof.verify(root, outside=outside, last_only=True)
            for line in findings.remarks:
                self.log.info("%s", line)
            if findings.problems == findings.gone:  # a missing head is reported once; then a new chain of heads begins
                text = archive_notice(findings.notebooks, findings.head, config.language)
                numbers = {"head": findings.head, "folder": str(root.resolve())}
                message = Message(text, numbers=numbers, silent=True)
                self.send(f"{proof.NOTICE} {findings.head[:16]}", message, context)
            if findings.problems:
                raise ArchiveError(proof.sentence(findings))
        self.log.info("%d notebooks, all as they were kept; head %s", findings.notebooks, findings.head)
        return findings.head
