"""The archive's nightly proof, run together with the real ledger and chats."""

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from archives import keep, now, place
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from pulse import clickhouse, schema, settings
from pulse.archive import manifest, proof
from pulse.orchestration.housekeeping import ThinArchiveOperator, VerifyArchiveOperator
from pulse.orchestration.sending import DeliverOperator

RUN = {"dag_run": SimpleNamespace(run_id="scheduled__1")}
DAY = "2026-11-22"


@pytest.fixture
def root(clickhouse_server: Server, chats: Telegram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive with a report that was sent, with its own database and chats."""
    monkeypatch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
    monkeypatch.setenv("PULSE_DATABASE", "proved")
    monkeypatch.setenv("PULSE_OUTPUT", str(tmp_path / "archive"))
    monkeypatch.setenv("TELEGRAM_API_URL", chats.server.url)
    monkeypatch.setenv("TELEGRAM_REPORT_CHATS", chats.new_chat())
    monkeypatch.setenv("TELEGRAM_ALERT_CHATS", chats.new_chat())
    db = clickhouse.connect()
    schema.ensure(db)
    keep(tmp_path / "archive", place("report"), text="<b>12</b>", numbers=[["DAU", "12"]])
    deliver(tmp_path / "archive")
    yield tmp_path / "archive"
    clickhouse.ClickHouse(clickhouse_server.url, "default", settings.load().zone).execute("drop database proved")


def deliver(root: Path, name: str = "report") -> None:
    """Send the report that an archived notebook made, as a DAG does."""
    path = str(root / place(name))
    DeliverOperator(task_id="deliver", report=name, event_date=DAY, path=path, chats="report").execute(RUN)


def tonight(day: str = DAY) -> str:
    task = VerifyArchiveOperator(task_id="verify", event_date=day, chats="alert")
    return str(task.execute(RUN))


def problems(root: Path) -> str:
    return "\n".join(proof.verify(root, outside=proof.ledger(clickhouse.connect(), root)).problems)


def test_each_nights_head_goes_to_the_alert_chat_and_the_next_proof_begins_there(root: Path, chats: Telegram) -> None:
    on_call = settings.load().telegram_alert_chats
    head = tonight()
    assert head == manifest.head(root)
    (line,) = chats.messages(on_call)
    assert line["text"] == f"Archive: 1 notebooks, all unchanged. Head of the chain {head}"
    assert line["silent"]
    tonight()  # nothing happened since: nothing is sent
    assert len(chats.messages(on_call)) == 1
    keep(root, place("later"))
    assert tonight() != head
    assert len(chats.messages(on_call)) == 2
    assert [each for _, each in proof.ledger(clickhouse.connect(), root).heads] == [head, manifest.head(root)]
    assert problems(root) == ""

    # Cut off the end of the chain and remove its notebook: nothing in the folder shows it.
    path = root / manifest.NAME
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    (root / place("later")).unlink()
    assert proof.verify(root).problems == []
    with pytest.raises(AirflowException, match=r"The archive is not as it was kept: .* noted on .* is gone"):
        tonight("2026-11-23")
    tonight("2026-11-24")  # the nightly proof reports it once; a proof by hand, as long as it lasts
    assert re.search("the entry .* noted on .* is gone", problems(root))


def test_an_archive_that_a_forger_started_again_is_reported(root: Path) -> None:
    tonight()
    for path in [*root.rglob("*.ipynb"), *root.glob("*.*")]:
        path.unlink()
    keep(root, place("report"), text="<b>21</b>", numbers=[["DAU", "21"]])
    assert proof.verify(root).problems == []
    with pytest.raises(AirflowException, match="started again"):
        tonight()


def test_another_archive_with_the_same_ledger_is_left_alone(root: Path, tmp_path: Path) -> None:
    tonight()
    keep(tmp_path / "other", place())
    assert problems(tmp_path / "other") == ""


def test_a_changed_notebook_is_reported_and_no_new_head_is_sent(root: Path, chats: Telegram) -> None:
    path = root / place("report")
    path.write_text(path.read_text().replace("12", "21"))
    with pytest.raises(AirflowException, match=r"not as it was kept: .*report\.1\.ipynb: changed \(it ended on"):
        tonight()
    assert chats.messages(settings.load().telegram_alert_chats) == []


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ({"ref": "0000000000"}, "delivery 0000000000 is unknown to the ledger: nothing was sent"),
        ({"chat": "-999"}, "has the chat -999, in the ledger"),
        ({"message_id": 4711}, "is message 4711, but a different one in the ledger"),
        ({"report": "other"}, "has the report other, in the ledger report"),
        ({"event_date": "2026-11-21"}, "has the event date 2026-11-21, in the ledger 2026-11-22"),
        ({"ref": ""}, "delivered by hand: it lacks the reference that every sent message has"),
        ({"ref": "", "did": "nothing"}, "delivered by hand: it lacks the reference that every sent message has"),
        ({"report": "", "ref": "0000000000"}, "delivered by hand: it names no report"),
        ({"did": "nothing", "message_id": 4711}, "is message 4711, but a different one in the ledger"),
    ],
)
def test_a_forged_delivery_contradicts_the_ledger(root: Path, forged: dict[str, Any], said: str) -> None:
    entry = next(entry for entry, _ in manifest.read(root) if entry["what"] == "delivered")
    assert problems(root) == ""
    told = {name: value for name, value in forged.items() if name in ("report", "event_date")}
    each = {**entry["deliveries"][0], **{name: value for name, value in forged.items() if name not in told}}
    entry = {"what": "delivered", "path": place("report"), "report": "report", "event_date": DAY, **told}
    manifest.append(root, {**entry, "at": now(), "deliveries": [each]})
    assert said in problems(root)


def test_a_failed_delivery_forged_as_sent_contradicts_the_ledger(root: Path) -> None:
    """The ledger has the delivery as failed; a forged line says that an earlier run had sent it."""
    keep(root, place("failing"), text="<b>1</b>", numbers=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TELEGRAM_REPORT_CHATS", "-4242")  # there is no such chat
        with pytest.raises(AirflowException):
            deliver(root, "failing")
    *_, entry = (entry for entry, _ in manifest.read(root) if entry["what"] == "delivered")
    assert problems(root) == ""
    each = {**entry["deliveries"][0], "state": "sent", "did": "nothing"}
    kept = {name: entry[name] for name in ("what", "path", "report", "event_date")}
    manifest.append(root, {**kept, "at": now(), "deliveries": [each]})
    assert "was sent according to the manifest, but not according to the ledger" in problems(root)


def test_a_planted_and_backdated_run_contradicts_an_earlier_head(root: Path) -> None:
    tonight()
    then = (datetime.now(UTC) - timedelta(days=60)).isoformat(timespec="seconds")
    keep(root, place("planted"), started=then)
    (first, second) = [line for line in problems(root).splitlines() if "dated back by hand" in line]
    assert re.match(rf"manifest\.jsonl, line \d+: dated {then:.10}.*, but the head before it was noted on", first)
    assert first != second


def test_a_delivery_claimed_for_another_run_contradicts_the_ledger(root: Path) -> None:
    keep(root, place("other"), text="<b>21</b>")
    task = DeliverOperator(
        task_id="deliver", report="other", event_date=DAY, path=str(root / place("other")), chats="report"
    )
    task.execute({"dag_run": SimpleNamespace(run_id="manual__2")})
    assert re.search(r"delivery \w+ was made by the run manual__2, not by scheduled__1", problems(root))


def test_a_ledger_younger_than_the_archive_is_only_a_remark(root: Path) -> None:
    db = clickhouse.connect()
    db.execute("truncate table deliveries")
    findings = proof.verify(root, outside=proof.ledger(db, root))
    assert findings.problems == []
    assert findings.remarks == ["1 deliveries are older than the ledger, and were not compared with it"]
    assert date.fromisoformat(DAY)


def test_a_missing_archive_is_an_alarm_only_if_there_was_one(
    root: Path, chats: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    tonight()
    shutil.rmtree(root)
    with pytest.raises(AirflowException):
        tonight()
    monkeypatch.setenv("PULSE_OUTPUT", str(root.parent / "nowhere"))
    with pytest.raises(AirflowSkipException, match=r"There is no archive at .*/nowhere yet"):
        tonight()
    with pytest.raises(AirflowSkipException, match=r"There is no archive at .*/nowhere yet"):
        ThinArchiveOperator(task_id="thin").execute({})
