"""
# etl: yesterday's activity, by user and by slice

Runs every day at 05:00 local time. The notebooks of `notebooks/etl/` turn the app's raw actions of the day before into
`user_activity`, `dimension_activity` and `daily_metrics`, which the 11:00 report, Superset and Redash read. At the end,
`refresh_dashboards` makes Redash run its queries again, because Redash caches their results.

**When it fails**, the alert chat gets one message for each event date. The last lines of the failed task's log name the
notebook, the cell and the error. Readers still see the earlier numbers: a day is published in one step, after all
checks.

| what the log says | what to do |
| --- | --- |
| No feed actions / No messages on … | the source is late or broken: ask its owner, then clear the task |
| the same, and the day really was empty | trigger the day with *allow_empty* |
| The totals of … differ | the source changed while it was read: clear the whole run |
| Users, Slices or The metrics of … are not what … | undo the wrong change in `transform`, then clear the run |
| … is held | the day was like that: answer `release` in *Required Actions*; if not: repair the source, run again |
| … are not there | the staging tables are dropped after a day: clear the whole run, not one task |
| The tables … are of schema version … | run `pulse upgrade`, or update Airflow's checkout |
| The view … reads the source differently | if the change in your `sources.sql` is meant, run `pulse upgrade` |
| No ClickHouse server answers | start the server; the task retries, then clear it |
| No Redash answers, or Redash refuses | the day is published; fix Redash, then clear the task |

**To compute a day again**, trigger the DAG with that event date. To compute many days, give the first event date and
the day after the last:
`airflow backfill create --dag-id etl --from-date 2026-11-01 --to-date 2026-11-08 --reprocess-behavior completed`. A
rerun replaces the day. The order of the days does not matter.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from pulse import settings
from pulse.orchestration.dates import EVENT_DATE, MACROS, TRY, event_date_param, try_of
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.holding import ReleaseOperator, TransformOperator
from pulse.orchestration.operators import NotebookOperator, RefreshDashboardsOperator

config = settings.load()
common = {"event_date": EVENT_DATE, "run": TRY}

with DAG(
    dag_id="etl",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=2,
    dagrun_timeout=timedelta(hours=24),
    params={
        "event_date": event_date_param(),
        "allow_empty": Param(False, type="boolean", description="Publish the day even if a source has no rows."),
    },
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "execution_timeout": timedelta(hours=1),
        "cell_seconds": 1800,
    },
    tags=["daily"],
) as dag:
    allow_empty = dag.param("allow_empty")
    extracts = [
        NotebookOperator(task_id=name, notebook=f"etl/{name}", parameters={**common, "allow_empty": allow_empty})
        for name in ("extract_feed", "extract_messages")
    ]
    # Each try has its own staging tables; the next task gets the names of the tries that succeeded.
    extracted = {"feed": try_of("extract_feed"), "messages": try_of("extract_messages")}
    transform = TransformOperator(
        task_id="transform", notebook="etl/transform", parameters={**common, "extracts": extracted}, release="release"
    )
    release = ReleaseOperator(task_id="release", event_date=EVENT_DATE, patience=timedelta(hours=20))
    load = NotebookOperator(
        task_id="load",
        notebook="etl/load",
        parameters={**common, "run": try_of("transform"), "extracts": extracted, "allow_empty": allow_empty},
        trigger_rule="none_failed",
    )
    extracts >> transform >> [release, load]
    release >> load >> RefreshDashboardsOperator(task_id="refresh_dashboards")
    tell_in_the_end(dag)
