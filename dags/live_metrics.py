"""
# live_metrics: today so far, every hour

Runs every hour from 09:00 to 23:00 local time. `notebooks/reports/live_metrics.ipynb` compares today so far with the
same time yesterday and a week ago. Each chat of `TELEGRAM_LIVE_CHATS` has one message a day, which is edited in place,
so nobody gets a notification every hour.

**When it fails**, the alert chat gets one message a day. Nothing is lost: the next run updates the message. The last
lines of the failed task's log say why. If a chat is `unknown`, settle it with `pulse deliveries`.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from pulse import settings
from pulse.orchestration.dates import AS_OF, MACROS, TODAY
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.operators import NotebookOperator
from pulse.orchestration.sending import DeliverOperator

config = settings.load()

with DAG(
    dag_id="live_metrics",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 9-23 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=50),
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 1,
        "retry_delay": timedelta(minutes=2),
        "execution_timeout": timedelta(minutes=15),
    },
    tags=["live"],
) as dag:
    metrics = NotebookOperator(
        task_id="live_metrics", notebook="reports/live_metrics", parameters={"as_of": AS_OF}, cell_seconds=300
    )
    deliver = DeliverOperator(
        task_id="deliver", report="live_metrics", event_date=TODAY, path=metrics.output, chats="live"
    )
    metrics >> deliver
    tell_in_the_end(dag)
