"""
# monitoring: anomalies, every 15 minutes

Runs five minutes after the end of every quarter of an hour. `notebooks/monitoring/anomalies.ipynb` counts the events of
the last bucket, compares every metric and slice with its own past, and updates the table `incidents`. The alerts go to
`TELEGRAM_ALERT_CHATS`: one message for each incident, edited while the incident is open, with a silent reply when it is
over. `notebooks/monitoring/watch.toml` says what is watched, with which thresholds, who is mentioned and what is
snoozed.

The next run catches up on buckets that were missed. If there are too many alerts, or too few, see in
`notebooks/monitoring/replay.ipynb` which alerts other thresholds would have sent.

**When it fails**, the alert chat gets one message a day. The last lines of the failed task's log say why.

| what the log says | what to do |
| --- | --- |
| There is nothing to watch | the source is empty, or its times are in another time zone: ask its owner |
| watch.toml … | correct the entry that it names |
| No ClickHouse server answers | start the server; the next run catches up |
| a chat failed, or is unknown | do what the line says; the next run updates the message |
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
