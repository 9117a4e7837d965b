"""
# retention: verify the archive, and remove what is old

Runs every night at 03:30 local time. `verify` checks that nobody changed the archive (`pulse archive verify`) and sends
the head of its hash chain to `TELEGRAM_ALERT_CHATS`, without a notification. Whoever can write in the archive's folder
cannot change that message.

`thin` then removes old notebooks. It keeps those that failed, alerted or were sent, and the first and the last success
of each notebook for an event date. The manifest keeps the SHA-256, the parameters and the numbers of what is removed.
If `verify` fails, `thin` does not run, because the notebooks may be evidence. `pulse archive thin --dry-run` lists what
the next run would remove.

`clean_tables` drops old months of buckets, verdicts and incidents from ClickHouse, and loads and staging tables that
nobody reads any more. `clean_logs` removes Airflow's old logs. `pulse/publishing/keeping.py` says how long everything
is kept.

**When it fails**, the alert chat gets a message. Nothing is lost: the next night removes the rest. The last lines of
the failed task's log say why.

| task | what to do |
| --- | --- |
| thin, clean_logs | make room in the folder that the log names, or make it writable |
| clean_tables | make sure that ClickHouse answers and that its user may drop partitions |
| verify: a notebook or a line changed | find out who changed the archive, and restore it from a backup |
| verify: an earlier head is missing | the same, unless you started a new archive; it is reported once |
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from pulse import settings
from pulse.orchestration.dates import MACROS, TODAY
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.housekeeping import (
    CleanLogsOperator,
    CleanTablesOperator,
    ThinArchiveOperator,
    VerifyArchiveOperator,
)
from pulse.publishing import keeping

config = settings.load()

with DAG(
    dag_id="retention",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("30 3 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=1),
    },
    tags=["daily"],
) as dag:
    verify = VerifyArchiveOperator(task_id="verify", event_date=TODAY, chats="alert")
    verify >> ThinArchiveOperator(task_id="thin", days=keeping.ARCHIVE_DAYS)
    CleanLogsOperator(task_id="clean_logs", days=keeping.LOG_DAYS)
    CleanTablesOperator(task_id="clean_tables")
    tell_in_the_end(dag)
