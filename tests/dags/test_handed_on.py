"""Deliver tasks send a notebook's results: an error in one is reported in one sentence and the others are sent."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from pulse import clickhouse, schema

RUN = {"dag_run": SimpleNamespace(run_id="by hand")}


@pytest.fixture(autouse=True)
def outside(clickhouse_server: Server, chats: Telegram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set up everything that the tasks talk to, through their settings. Returns the chat."""
    chat = chats.new_chat()
    monkeypatch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
    monkeypatch.setenv("PULSE_DATABASE", "handed")
    monkeypatch.setenv("PULSE_OUTPUT", str(tmp_path))
    monkeypatch.setenv("TELEGRAM_API_URL", chats.server.url)
    for kind in ("REPORT", "ALERT"):
        monkeypatch.setenv(f"TELEGRAM_{kind}_CHATS", chat)
    schema.ensure(clickhouse.connect())
    return chat


def archived(folder: Path, **handed: Any) -> str:
    """Write an executed notebook that glued these values. Returns its path."""
    cell = nbformat.v4.new_code_cell("cells.glue(…)")
    for name, value in handed.items():
        scrap = {"name": name, "data": value, "encoder": "json", "version": 1}
        data, about = {"application/scrapbook.scrap.json+json": scrap}, {"scrapbook": {"name": name, "data": True}}
        cell.outputs.append(nbformat.v4.new_output("display_data", data, metadata=about))
    path = folder / "own.1.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {}}), path)
    return str(path)


def deliver(path: str, report: str) -> list[str]:
    from pulse.orchestration.sending import DeliverOperator

    task = DeliverOperator(task_id="deliver", report=report, event_date="2026-03-16", path=path, chats="report")
    return task.execute(RUN)


@pytest.mark.parametrize(
    ("handed", "said"),
    [
        ({}, r"own\.1\.ipynb handed on no text \(what it handed on: nothing\): end the notebook with `cells\.glue"),
        ({"numbers": [], "txt": "x"}, r"handed on no text \(what it handed on: numbers, txt\)"),
        ({"text": "  "}, "handed on no text"),
        ({"text": 3}, "handed on no text"),
        ({"text": "x", "chart": "chart.png"}, "is not a figure: `cells.glue"),
        ({"text": "x", "numbers": [["DAU", 1, 2]]}, r"numbers that own\.1\.ipynb handed on are not pairs"),
        ({"text": "x", "numbers": 5}, "are not pairs"),
        ({"text": "x", "language": "fr"}, "language that .* is 'fr'"),
    ],
)
def test_scraps_that_cannot_be_sent_fail_in_one_sentence_without_a_retry(
    tmp_path: Path, chats: Telegram, outside: str, handed: dict[str, Any], said: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=said) as raised:
        deliver(archived(tmp_path, **handed), "own")
    assert "\n" not in str(raised.value)
    assert chats.messages(outside) == []


def test_numbers_are_identified_by_their_columns(tmp_path: Path, chats: Telegram, outside: str) -> None:
    first = {"text": "one", "numbers": [["DAU", "2,258"], ["likes", "7"]], "language": "en"}
    deliver(archived(tmp_path, **first, metrics=[["users", "users"], ["likes", "count"]]), "columns")
    gap = "\N{NO-BREAK SPACE}"
    then = {"text": "два", "numbers": [["DAU (лента)", f"2{gap}258"], ["лайки", "8"]], "language": "ru"}
    deliver(archived(tmp_path, **then, metrics=[["users", "users"], ["likes", "count"]]), "columns")
    text, _, said, _run = chats.texts(outside)[0].split("\n")
    assert text == "два"
    assert said.startswith("исправлено ")
    assert said.endswith(": лайки 7 → 8")


def alert(report: str, text: Any = "fell", **more: Any) -> dict[str, Any]:
    shared = {"event_date": "2026-03-16", "chart": None, "silent": False, "only_edits": False, "reply_to": None}
    return {"report": report, "text": text, **shared, **more}


def tell(path: str) -> list[str]:
    from pulse.orchestration.sending import DeliverAlertsOperator

    return DeliverAlertsOperator(task_id="deliver", path=path, chats="alert").execute(RUN)


def test_an_alert_that_is_too_long_is_cut_and_the_others_are_sent(
    tmp_path: Path, chats: Telegram, outside: str
) -> None:
    long = "<b>views</b> fell " * 600
    assert len(tell(archived(tmp_path, alerts=[alert("first", long), alert("second")]))) == 2
    first, second = chats.texts(outside)
    assert len(first) <= 4096
    assert first.splitlines()[0].endswith(("views…", "fell…"))
    assert second.startswith("fell")


@pytest.mark.parametrize(
    "wrong",
    [
        alert("first", "  "),
        {"report": "first"},
        alert("first", chart="gone"),
        alert("first", event_date="16.03."),
        "first",
    ],
)
def test_the_other_alerts_are_sent_when_one_cannot_be(
    tmp_path: Path, chats: Telegram, outside: str, wrong: Any
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"has no text|is not as pulse\.monitoring\.alerts"):
        tell(archived(tmp_path, alerts=[wrong, alert("second")]))
    assert [text.split("\n")[0] for text in chats.texts(outside)] == ["fell"]


def test_an_alert_is_retried_when_a_retry_may_help(tmp_path: Path, chats: Telegram, outside: str) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    path = archived(tmp_path, alerts=[alert("first"), {"report": "second"}, alert("third")])
    chats.fault("kicked", outside)
    with pytest.raises(AirflowException, match="add the bot to the group again") as raised:
        tell(path)
    assert not isinstance(raised.value, AirflowFailException)
    assert len(chats.texts(outside)) == 1


def test_a_missing_list_of_alerts_fails_in_one_sentence(tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"own\.1\.ipynb handed on no list of alerts \(.*: text\)"):
        tell(archived(tmp_path, text="x"))
