"""
# daily_report: yesterday's numbers in Telegram at 11:00

Runs every day at 11:00 local time. It waits until `etl` has published the event date, runs
`notebooks/reports/daily_report.ipynb`, and sends the text and the chart of the archived notebook to
`TELEGRAM_REPORT_CHATS`. If the day is not published by 11:30, the chats get a short notice, and the report follows as
soon as the day is published, until midnight.

A rerun with the same numbers sends nothing. A rerun with other numbers corrects the message in place. At the end,
`reconcile` checks that the report, the tables, Superset and Redash (if configured) all show the same numbers.

**When it fails**, the alert chat (`TELEGRAM_ALERT_CHATS`) gets one message for each event date. The last lines of the
failed task's log say why.

| task | what to do |
| --- | --- |
| wait_longer | the day was not published before midnight: repair `etl`, then trigger this DAG with that date |
| daily_report | open the archived notebook that the log names, fix the cause, then clear the task |
| deliver: a chat failed | do what the line says (start the bot, correct the token, …), then clear the task |
| deliver: a chat is unknown | look in the chat, then settle it with `pulse deliveries` as the line says |
| reconcile: a table differs | clear `etl` for that date |
| reconcile: the report differs | clear this run |
| reconcile: a dashboard differs | install the dashboard again |
"""

from datetime import datetime, time, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from pulse import settings
from pulse.orchestration.dates import EVENT_DATE, MACROS, event_date_param
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.operators import NotebookOperator, ReconcileOperator
from pulse.orchestration.sending import DeliverOperator, LateNoticeOperator
from pulse.orchestration.waiting import WaitForDay

config = settings.load()

with DAG(
    dag_id="daily_report",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 11 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=2,
    dagrun_timeout=timedelta(hours=20),
    params={
        "event_date": event_date_param(),
        "only_correct": Param(False, type="boolean", description="Correct the message that is there; send no new one."),
    },
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 2,
        "retry_delay": timedelta(minutes=2),
        "execution_timeout": timedelta(minutes=15),
    },
    tags=["daily"],
) as dag:
    day = {"event_date": EVENT_DATE}
    wait = WaitForDay(
        task_id="wait_for_day", **day, wait=timedelta(minutes=30), then="daily_report", otherwise="late_notice"
    )
    notice = LateNoticeOperator(task_id="late_notice", **day, deadline=time(11, 30), chats="report")
    wait_longer = WaitForDay(task_id="wait_longer", **day, wait=timedelta(hours=12, minutes=30), then="daily_report")
    report = NotebookOperator(
        task_id="daily_report",
        notebook="reports/daily_report",
        parameters=day,
        cell_seconds=300,
        trigger_rule="none_failed_min_one_success",
    )
    deliver = DeliverOperator(
        task_id="deliver",
        report="daily_report",
        **day,
        path=report.output,
        only_correct=dag.param("only_correct"),
        chats="report",
    )
    reconcile = ReconcileOperator(task_id="reconcile", **day, path=report.output)
    wait >> [notice, report]
    notice >> wait_longer >> report >> deliver >> reconcile
    tell_in_the_end(dag)
