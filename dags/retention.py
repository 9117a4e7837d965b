"""
# retention: what may go from the archive

Every night at 03:30 local time: takes out of the archive what is older than 30 days and quiet. What failed, alerted or
was sent stays, and so do the first and the last success of each notebook for an event date; the manifest keeps the
SHA-256, the parameters and the numbers of what goes. `pulse archive thin --dry-run` says what the next run takes.

**When it fails**, nothing is lost: the next night takes the rest. The failed task's log says in its last lines what the
archive's folder lacks (room, or the right to write).
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from pulse import settings
from pulse.airflow import ThinArchiveOperator, tell_failure

config = settings.load()

with DAG(
    dag_id="retention",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("30 3 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args={
        "owner": "analytics",
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=1),
        "on_failure_callback": tell_failure,
    },
    tags=["daily"],
):
    ThinArchiveOperator(task_id="thin", days=30)
