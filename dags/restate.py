"""
# restate: days whose source has changed are computed again

Runs every night at 04:00 local time. `notebooks/etl/restate.ipynb` compares the published days of the last 30 days with
the app's tables: rows that came late, are gone, are doubled or were changed. It reads only days of which ClickHouse has
other parts on disk than the night before.

Each day of which a number changed by more than `restate_tolerance` (0.1 %) is computed again by a run of `etl`, which
takes two days at a time. Then a run of `daily_report` corrects the day's message in place, with the reason; where there
is no message, none is sent. Smaller changes are recorded, and told to `TELEGRAM_ALERT_CHATS` as late data. `pulse as-of
2026-11-03 2026-11-01` shows what was believed before, and the archive links the new run with the one it replaced.

**When it fails**, the alert chat gets a message. Nothing is lost: a day that is not published again is compared and
restated the next night, as long as it is not older than 30 days.

| task | what to do |
| --- | --- |
| restate | the last lines of its log name the cell and the error; clear the task |
| changed_days | make sure that Telegram answers, then clear the task |
| again.etl | see the runbook of `etl`; if the day really is empty now, trigger `etl` with *allow_empty* |
| again.etl took two hours | the day is held: answer `release` in *Required Actions*, or `pulse release` |
| again.daily_report | see the runbook of `daily_report` |

A day older than that is restated by hand: `pulse daily 2026-09-01`.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task_group

from pulse import settings
from pulse.orchestration.dates import EVENT_DATE, MACROS, event_date_param
from pulse.orchestration.failures import tell_in_the_end
from pulse.orchestration.operators import NotebookOperator
from pulse.orchestration.restating import ChangedDaysOperator, run_again

config = settings.load()

with DAG(
    dag_id="restate",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 4 * * *", timezone=config.timezone),
    start_date=datetime(2026, 1, 1, tzinfo=config.zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=20),
    params={
        "event_date": event_date_param(),
        "days": Param(30, type="integer", minimum=1, maximum=366, description="How many days up to it are compared."),
        "restate_tolerance": Param(
            0.001,
            type="number",
            minimum=0,
            maximum=0.999,
            description="Keep days that changed by no more: 0.001 is 0.1 %.",
        ),
    },
    user_defined_macros=MACROS,
    default_args={
        "owner": "analytics",
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=1),
        "cell_seconds": 1800,
    },
    tags=["daily"],
) as dag:
    compared = NotebookOperator(
        task_id="restate",
        notebook="etl/restate",
        parameters={
            "event_date": EVENT_DATE,
            "days": dag.param("days"),
            "restate_tolerance": dag.param("restate_tolerance"),
        },
    )
    changed = ChangedDaysOperator(task_id="changed_days", path=compared.output)

    @task_group
    def again(day: str, run: str) -> None:
        """One changed day; `etl` itself runs no more than two days at a time."""
        etl = TriggerDagRunOperator(task_id="etl", trigger_dag_id="etl", conf={"event_date": day}, **run_again(run))
        corrected = {"event_date": day, "only_correct": True}
        etl >> TriggerDagRunOperator(
            task_id="daily_report", trigger_dag_id="daily_report", conf=corrected, **run_again(run)
        )

    again.expand_kwargs(changed.output)
    tell_in_the_end(dag)
