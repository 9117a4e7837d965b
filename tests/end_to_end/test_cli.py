"""The `pulse` command: bad input gives one sentence and a non-zero exit code."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from telegram_chats import Telegram

from notebooks.etl import Etl
from pulse import settings
from pulse.delivery.message import DeliveryError, Message

PULSE = str(Path(sys.executable).parent / "pulse")


def run(*words: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [PULSE, *words], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    return done.returncode, (done.stdout + done.stderr).strip()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing answers, reserved while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://pulse:hush-hush-hush@127.0.0.1:{taken.getsockname()[1]}"


NEED_A_SERVER = ("daily", "backfill 2026-03-15 2026-03-16", "show", "deliveries", "reconcile")


def test_no_server_is_one_sentence(nobody: str) -> None:
    with ThreadPoolExecutor() as side_by_side:  # each tries several times before it gives up
        found = side_by_side.map(lambda command: run(*command.split(), CLICKHOUSE_URL=nobody), NEED_A_SERVER)
    for code, said in found:
        assert code == 1
        assert "No ClickHouse server answers at http://127.0.0.1:" in said
        assert len(said.splitlines()) == 1
        assert "hush" not in said


def test_a_wrong_password_is_one_sentence(clickhouse_server: Server) -> None:
    code, said = run("show", CLICKHOUSE_URL=f"http://pulse:wrong-wrong@127.0.0.1:{clickhouse_server.port}")
    assert code == 1
    assert said.endswith("Check the user and the password in CLICKHOUSE_URL.")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "day"),
    [("daily", "2026-13-45"), ("backfill 2026-01-01", "2026-02-30"), ("show", "tomorrow"), ("reconcile", "2999-01-01")],
)
def test_an_impossible_date_is_one_sentence(command: str, day: str) -> None:
    code, said = run(*command.split(), day)
    assert code == 1
    assert day in said
    assert "give" in said
    assert len(said.splitlines()) == 1


def test_a_range_that_ends_before_it_begins_is_one_sentence() -> None:
    code, said = run("backfill", "2026-03-16", "2026-03-15")
    assert (code, said) == (
        1, "The first day, 2026-03-16, is after the last, 2026-03-15; give the earlier one first."
    )  # fmt: skip


def test_a_backfill_publishes_day_after_day_and_stops_at_one_that_fails(
    clickhouse_server: Server, chats: Telegram, tmp_path: Path
) -> None:
    first = date(2026, 3, 15)
    on_call = chats.new_chat()
    with Etl.fresh(clickhouse_server, first) as etl:
        etl.feed((1, "view", f"{first} 10:00", "iOS", "female", 25))
        etl.messages((1, 2, f"{first} 10:00", "iOS", "female", 25))
        places = {
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "PULSE_OUTPUT": str(tmp_path / "archive"),
            "TELEGRAM_API_URL": chats.server.url,
            "TELEGRAM_ALERT_CHATS": on_call,
        }
        code, said = run("backfill", str(first), str(first + timedelta(days=1)), **etl.environment, **places)
        published = etl.db.read("select toString(event_date) as day, app_users from daily_metrics order by day")
    assert code == 1
    assert "2026-03-15 is published, 1 of 2\n" in said
    assert "etl failed for 2026-03-16: extract_" in said
    assert "No feed actions on 2026-03-16" in said
    assert [tuple(row) for row in published.to_numpy()] == [("2026-03-15", 1)]
    (told,) = chats.messages(on_call)
    assert "16 March" in told["text"]


def test_a_day_that_is_not_published_says_how_to_publish_it(clickhouse_server: Server) -> None:
    from pulse import clickhouse, schema

    schema.ensure(clickhouse.ClickHouse(clickhouse_server.url, "shown", settings.load().zone))
    code, said = run("show", "2020-01-01", CLICKHOUSE_URL=clickhouse_server.url, PULSE_DATABASE="shown")
    assert (code, said) == (1, "2020-01-01 is not published in shown; run `pulse daily 2020-01-01`.")


def test_a_wrong_setting_is_one_sentence() -> None:
    code, said = run("show", PULSE_TIMEZONE="Mars/Olympus")
    assert (code, len(said.splitlines())) == (1, 1)
    assert "PULSE_TIMEZONE" in said


def test_a_command_that_is_not_there_is_one_sentence(clickhouse_server: Server, chats: Telegram) -> None:
    own = {"CLICKHOUSE_URL": clickhouse_server.url, "TELEGRAM_BOT_TOKEN": "123:an-own-bot"}
    assert run("sandbox", "run", "--", "no-such-command", **own) == (
        1,
        "There is no command no-such-command; check its name.",
    )
    code, _ = run("sandbox", "run", "--", "sh", "-c", "exit 7", **own)
    assert code == 7


def test_a_test_message_says_where_it_arrived_or_what_is_wrong(chats: Telegram) -> None:
    chat = chats.new_chat()
    code, said = run("telegram", "test", chat, TELEGRAM_API_URL=chats.server.url)
    assert code == 0, said
    assert "arrived" in said
    code, said = run("telegram", "test", "-4242", TELEGRAM_API_URL=chats.server.url)
    assert code == 1
    assert len(said.splitlines()) == 1
    assert "-4242" in said


@pytest.mark.parametrize("tool", ["superset", "redash"])
def test_dashboards_that_are_nowhere_say_what_to_set(tool: str) -> None:
    code, said = run("dashboards", tool, SUPERSET_URL="", REDASH_URL="")
    assert (code, said) == (1, f"There is no {tool.capitalize()} to talk to: set {tool.upper()}_URL.")


def test_the_archive_says_what_it_cannot_do_in_one_sentence(tmp_path: Path) -> None:
    remote, empty = {"PULSE_OUTPUT": "s3://bucket/archive"}, {"PULSE_OUTPUT": str(tmp_path)}
    for words in (["verify"], ["show", "3f9c2a71b0"], ["site", str(tmp_path / "site")], ["thin"], ["index"]):
        code, said = run("archive", *words, **remote)
        assert (code, len(said.splitlines())) == (1, 1), said
        assert "copy or mount it, and set PULSE_OUTPUT to the folder" in said
    assert run("archive", "verify", **empty)[1].endswith("starts one with the notebooks that are there.")
    for ref in ("3f9c2a71b0", "x", "'; --"):
        code, said = run("archive", "show", ref, **empty)
        assert (code, len(said.splitlines())) == (1, 1), said
        assert said.startswith(f"No run has the reference {ref!r}")
    code, said = run("archive", "show", "3f9c2a71b0", PULSE_OUTPUT=str(tmp_path / "nowhere"))
    assert (code, said) == (1, f"There is no archive at {tmp_path / 'nowhere'} yet; it begins with the first run.")


def test_deliveries_says_when_nothing_is_open(clickhouse_server: Server) -> None:
    code, said = run("deliveries", CLICKHOUSE_URL=clickhouse_server.url, PULSE_DATABASE="nothing_sent")
    assert (code, said) == (0, "No delivery needs attention.")
    code, said = run("deliveries", "resend", "abc", CLICKHOUSE_URL=clickhouse_server.url, PULSE_DATABASE="nothing_sent")
    assert code == 1
    assert len(said.splitlines()) == 1


def test_deliveries_lists_a_day_and_takes_a_failed_one_off_the_list(clickhouse_server: Server, chats: Telegram) -> None:
    from datetime import date

    from pulse import clickhouse, schema
    from pulse.delivery import sending

    outside = {
        "CLICKHOUSE_URL": clickhouse_server.url,
        "PULSE_DATABASE": "some_sent",
        "TELEGRAM_API_URL": chats.server.url,
    }
    config, day = settings.load(**outside), date(2026, 3, 16)
    schema.ensure(clickhouse.connect(config))
    good, gone = chats.new_chat(), chats.new_chat()
    chats.fault("kicked", gone)
    with pytest.raises(DeliveryError) as raised:
        sending.deliver("daily_report", day, Message("DAU 1"), [good, gone], settings=config)
    sent, failed = raised.value.deliveries
    line = "{0.ref}  2026-03-16  daily_report  chat {0.chat}  {0.state}"
    code, said = run("deliveries", **outside)
    assert (code, said.splitlines()[0]) == (0, line.format(failed))
    assert f"`pulse deliveries dismiss {failed.ref}`" in said
    code, said = run("deliveries", "--date", "2026-03-16", **outside)
    assert line.format(sent) in said.splitlines()
    assert line.format(failed) in said.splitlines()
    code, said = run("deliveries", "dismiss", failed.ref, **outside)
    assert (code, said) == (
        0, f"daily_report of 2026-03-16 to chat {gone} is off the list; a later run may still send it."
    )  # fmt: skip
    assert run("deliveries", **outside) == (0, "No delivery needs attention.")
    assert run("deliveries", "--date", "2026-03-15", **outside) == (0, "Nothing was sent for 2026-03-15.")
