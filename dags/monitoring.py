"""
# monitoring: anomalies, every 15 minutes

Every quarter of an hour, five minutes after it is over: `notebooks/monitoring/anomalies.ipynb` counts what happened in
it, compares every metric and slice with its own past, and keeps the table `incidents`. The alerts go to
`TELEGRAM_ALERT_CHATS`: one message an incident, edited while it lives, with a silent reply once it is over. What is
watched, how closely, who is mentioned and what is snoozed stands in `notebooks/monitoring/watch.toml`.

A run that was missed is made up for by the next one. Too many alerts, or too few? `notebooks/monitoring/replay.ipynb`
shows what other thresholds would have told.

**When it fails**, the alert chat is told once a day, and the failed task's log says why in its last lines.

| what the log says | what to do |
| --- | --- |
| There is nothing to watch | the source is empty, or its times are in another time zone: ask its owner |
| watch.toml … | correct the entry that it names |
| No ClickHouse server answers | bring it back; the next run makes up for what was missed |
| a chat failed, or is unknown | do what the line says; the next run brings the message up to date |
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from pulse import settings
from pulse.orchestration.dates import AS_OF, MACROS, as_of_param
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.operators import NotebookOperator
from pulse.orchestration.sending import DeliverAlertsOperator

config = settings.load()

with DAG(
    dag_id="monitoring",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("5,20,35,50 * * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    params={"as_of": as_of_param()},
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 1,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(minutes=20),
    },
    tags=["monitoring"],
) as dag:
    anomalies = NotebookOperator(
        task_id="anomalies",
        notebook="monitoring/anomalies",
        parameters={"as_of": AS_OF},
        cell_seconds=900,
    )
    deliver = DeliverAlertsOperator(task_id="deliver", path=anomalies.output, chats="alert")
    anomalies >> deliver
    tell_in_the_end(dag)
