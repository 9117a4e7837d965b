"""
# doctor: is everything that Pulse needs there and well?

Runs every night at 04:30 local time, before the ETL. It looks at what `pulse doctor` looks at: ClickHouse, rights,
clocks and zones, the tables' version, the source and its latest events, published days, chats, dashboards, the archive,
free space, packages, Airflow. If something needs attention, `TELEGRAM_ALERT_CHATS` get one message with a line for each
such thing and what to do about it. A night on which all is well sends nothing.

**When it fails**, the alert chat gets a message. Nothing depends on this DAG.

| task | what to do |
| --- | --- |
| doctor: a chat failed | do what the line says (start the bot, correct the token, …), then clear the task |
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from pulse import settings
from pulse.orchestration.dates import MACROS, TODAY
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.housekeeping import DoctorOperator

config = settings.load()

with DAG(
    dag_id="doctor",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("30 4 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(minutes=10),
    },
    tags=["daily"],
) as dag:
    DoctorOperator(task_id="doctor", event_date=TODAY, chats="alert")
    tell_in_the_end(dag)
