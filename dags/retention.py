"""
# retention: the proof of the archive, and what may go

Every night at 03:30 local time: `verify` proves the archive (`pulse archive verify`), and sends the head of its chain
to `TELEGRAM_ALERT_CHATS`, without a notification: from there nobody who can write in the folder can take it back.

Then `thin` takes out what is older than 30 days and quiet: not from an archive that somebody changed, where it may be
evidence. What failed, alerted or was sent stays, and so do the first and the last success of each notebook for an event
date; the manifest keeps the SHA-256, the parameters and the numbers of what goes. `pulse archive thin --dry-run` says
what the next run takes. Airflow's own logs go after 90 days.

`clean_tables` drops from ClickHouse what is kept no longer: months of buckets, verdicts and incidents, loads and
staging tables that nobody reads. `clean_logs` removes Airflow's logs. What is kept how long stands in
`pulse/publishing/keeping.py`.

**When it fails**, the alert chat is told, and nothing is lost: the next night takes the rest. The failed task's log
says why in its last lines.

| task | what to do |
| --- | --- |
| thin, clean_logs | give the archive's folder what it lacks: room, or the right to write |
| clean_tables | see that ClickHouse answers and that its user may drop partitions |
| verify names a notebook or a line | somebody changed the archive: find out who; restore it from a backup |
| verify: a head noted earlier is gone | the same, unless you began the archive anew yourself: it is told once |
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
