"""Rows that arrive after their day was published are reported to the alert chat once, as late data."""

from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from notebooks.etl import Etl
from pulse import settings
from pulse.orchestration.operators import ReconcileOperator

DAY, BEFORE = date(2025, 3, 12), date(2025, 3, 8)
RUN: dict[str, Any] = {"dag_run": SimpleNamespace(run_id="scheduled__1")}
IOS = ("iOS", "female", 25)


def reconcile() -> list[str]:
    return ReconcileOperator(task_id="reconcile", event_date=str(DAY), path=None).execute(RUN)


def test_late_data_is_reported_once_and_the_message_is_kept_up_to_date(
    clickhouse_server: Server, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Etl.fresh(clickhouse_server, DAY) as etl:
        for name, value in etl.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PULSE_OUTPUT", "/nonexistent")
        monkeypatch.setenv("TELEGRAM_API_URL", chats.server.url)
        monkeypatch.setenv("TELEGRAM_ALERT_CHATS", chats.new_chat())
        on_call = settings.load().telegram_alert_chats
        for day in (BEFORE, DAY):
            etl.feed((1, "view", f"{day} 10:00", *IOS))
            etl.messages((1, 2, f"{day} 10:00", *IOS))
            etl.run(day)
        assert reconcile() == ["user_activity", "dimension_activity", "dimension_metrics", "the source"]
        assert chats.messages(on_call) == []

        etl.feed((1, "view", f"{BEFORE} 23:00", *IOS), (1, "view", f"{BEFORE} 23:30", *IOS))
        for _ in range(2):
            reconcile()  # the day itself agrees with its source; an earlier day does not
            (told,) = chats.messages(on_call)
        assert told["text"] == (
            "Late data for 8 March. Rows in the source since the day was published: feed_actions +2. "
            "pulse daily 2025-03-08 publishes the day again."
        )
        etl.source.execute(
            "alter table {database:Identifier}.message_actions delete where true settings mutations_sync = 1",
            database=etl.source.database,
        )
        reconcile()
        messages = chats.messages(on_call)
        assert len(messages) == 2  # one message per event date
        assert "feed_actions +2, message_actions −1. " in messages[0]["text"]
        assert messages[1]["text"].startswith("Late data for 12 March. ")
        assert "message_actions −1. " in messages[1]["text"]

        etl.run(allow_empty=True)
        etl.run(BEFORE, allow_empty=True)
        reconcile()
        assert len(chats.messages(on_call)) == 2
        etl.db.execute(
            "alter table {database:Identifier}.daily_metrics_loads update likes = 9 where true"
            " settings mutations_sync = 1",
            database=etl.db.database,
        )
        with pytest.raises(AirflowException, match="likes is 9 in daily_metrics, 0 in user_activity"):
            reconcile()
