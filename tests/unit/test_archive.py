"""The archive proves that it is unchanged: the manifest's chain, tampering with it, and the index made from it."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archives import begin, end, keep, notebook, now, place, write

from benchmarks.archive import fill
from pulse import PulseError, settings
from pulse.archive import (
    ArchiveError,
    commands,
    digest,
    find,
    index,
    index_upkeep,
    manifest,
    pages,
    proof,
    retention,
    walk,
)
from pulse.execution import settling, store

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of three days, with one failure."""
    for day in ("2026-11-20", "2026-11-21", "2026-11-22"):
        keep(tmp_path, place(day=day), rows=62, views=5292)
    keep(tmp_path, place("extract_feed"), "failed")
    return tmp_path


def problems(root: Path, head: str = "") -> list[str]:
    return proof.verify(root, head).problems


# --- the chain -------------------------------------------------------------------------------------------------------


def test_an_unchanged_archive_has_no_problems(root: Path) -> None:
    findings = proof.verify(root)
    assert (findings.problems, findings.remarks, findings.notebooks, findings.entries) == ([], [], 4, 8)
    assert findings.head == manifest.head(root)


def test_the_hash_chain_can_be_checked_without_our_code(root: Path) -> None:
    before = "0" * 64
    for line in (root / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        stated = entry.pop("hash")
        assert entry["prev"] == before
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        before = hashlib.sha256(text.encode()).hexdigest()
        assert before == stated
    said = subprocess.run(["sha256sum", root / place()], capture_output=True, text=True, check=True).stdout
    assert said.split()[0] in (root / "manifest.jsonl").read_text()


def changed(root: Path) -> str:
    path = root / place()
    path.write_text(path.read_text().replace("5292", "9292"))
    return rf"{re.escape(place())}: changed \(it ended on 20"


def removed(root: Path) -> str:
    (root / place()).unlink()
    return rf"{re.escape(place())}: removed \(it ended on 20"


def added(root: Path) -> str:
    where = place("extra")
    (root / where).write_text((root / place()).read_text())
    return f"{re.escape(where)}: added by hand: no run put it there"


def replaced_by_another_days(root: Path) -> str:
    (root / place()).write_text((root / place(day="2026-11-21")).read_text())
    return f"{re.escape(place())}: changed"


def renamed(root: Path) -> str:
    (root / place()).rename(root / place(number=2))
    return f"{re.escape(place())}: removed.*{re.escape(place(number=2))}: added by hand"


def linked(root: Path) -> str:
    (root / place("secrets")).symlink_to("/etc/hostname")
    return f"{re.escape(place('secrets'))}: a link, put there by hand"


def an_entry_changed(root: Path) -> str:
    path = root / "manifest.jsonl"
    path.write_text(path.read_text().replace('"failed"', '"succeeded"'))
    return f"manifest.jsonl, line 8: changed by hand .*{re.escape(place('extract_feed'))}"


def an_entry_removed(root: Path) -> str:
    path = root / "manifest.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    return "manifest.jsonl, before line 3: entries were removed, added or moved by hand"


def entries_swapped(root: Path) -> str:
    path = root / "manifest.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:4], lines[5], lines[4], *lines[6:]]))
    return "before line 5: entries were removed, added or moved"


def a_notebook_and_its_entries_removed_from_the_end(root: Path) -> str:
    path = root / "manifest.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    return f"{re.escape(place('extract_feed'))}: added by hand"


def the_manifest_begun_anew(root: Path) -> str:
    (root / "manifest.jsonl").unlink()
    keep(root, place("later"))
    return f"{re.escape(place())}: it names an entry of the manifest that is gone: the manifest was rewritten"


@pytest.mark.parametrize(
    "tamper",
    [
        changed, removed, added, replaced_by_another_days, renamed, linked, an_entry_changed, an_entry_removed,
        entries_swapped, a_notebook_and_its_entries_removed_from_the_end, the_manifest_begun_anew,
    ],
)  # fmt: skip
def test_tampering_is_reported_with_its_place(root: Path, tamper: Callable[[Path], str]) -> None:
    assert problems(root) == []
    said = tamper(root)
    assert re.search(said, "\n".join(problems(root)), re.DOTALL), problems(root)


# --- forgeries with the project's own functions ----------------------------------------------------------------------


def about_whom(report: str = "daily_report", ref: str = "abc", **other: Any) -> dict[str, Any]:
    """Return an entry about a delivery, as a task writes it."""
    each = {"chat": "-1001", "state": "sent", "did": "sent", "ref": ref, "message_id": 7, **other}
    return {"what": "delivered", "report": report, "event_date": "2026-11-22", "deliveries": [each]}


def a_second_end(root: Path) -> str:
    text = (root / place()).read_text().replace("5292", "9292")
    end(root, place(), "succeeded", text)
    return rf"line 9: ended again, by hand: it was ended on .*{re.escape(place())}: changed"


def a_failure_made_a_success(root: Path) -> str:
    where = place("extract_feed")
    end(root, where, "succeeded", (root / where).read_text().replace('"failed"', '"succeeded"'))
    return "line 9: ended again, by hand"


def begun_anew(root: Path) -> str:
    after = manifest.head(root)
    begin(root, place())
    end(root, place(), "succeeded", notebook("succeeded", after, rows=62, views=9292))
    return "line 9: begun by hand: it was ended on .*line 10: ended again"


def a_failed_run_thinned(root: Path) -> str:
    return thin_by_hand(root, place("extract_feed"), "it did not succeed \\(failed\\)")


def a_fresh_run_thinned(root: Path) -> str:
    for number in (2, 3):
        keep(root, place(number=number))
    return thin_by_hand(root, place(number=2), "it ended on .*, less than 30 days before")


def the_only_run_of_a_day_thinned(root: Path) -> str:
    keep(root, place("older", day="2026-08-01"), started=(datetime.now(UTC) - timedelta(days=90)).isoformat())
    return thin_by_hand(root, place("older", day="2026-08-01"), "it is the first success of its notebook")


def an_alert_thinned(root: Path) -> str:
    for hour in (1, 2, 3):
        at = (datetime.now(UTC) - timedelta(days=90, hours=-hour)).isoformat()
        keep(root, place("anomalies", number=hour), started=at, alerts=["DAU is low"])
    return thin_by_hand(root, place("anomalies", number=2), "it alerted")


def what_was_sent_thinned(root: Path) -> str:
    for hour in (1, 2, 3):
        at = (datetime.now(UTC) - timedelta(days=90, hours=-hour)).isoformat()
        keep(root, place("report", number=hour), started=at)
    manifest.append(root, {**about_whom(), "path": place("report", number=2)})
    return thin_by_hand(root, place("report", number=2), "something was sent from it")


def thin_by_hand(root: Path, where: str, why: str) -> str:
    """Remove a notebook and write the entry that retention writes."""
    with index.opened(root) as opened:
        attempt = opened.attempt(where)
    assert attempt is not None
    manifest.append(root, retention._entry(attempt, datetime.now(UTC)))
    (root / where).unlink()
    return f"thinned by hand: the rule keeps it, since {why}.*{re.escape(where)}: removed"


def planted_and_adopted(root: Path) -> str:
    text = notebook(rows=1)
    write(root / place("planted"), text)
    manifest.append(root, {"what": "adopted", "path": place("planted"), "sha256": digest(text.encode())})
    return "line 9: adopted by hand: only notebooks older than the manifest are adopted"


def planted_and_ended(root: Path) -> str:
    end(root, place("planted"), "succeeded", notebook(rows=1))
    return "line 9: ended by hand: it was unknown to the manifest"


def copied_under_another_name(root: Path) -> str:
    begin(root, place("copy"))
    end(root, place("copy"), "succeeded", (root / place()).read_text())
    return rf"line 10: ended by hand: it is a copy of {re.escape(place())}"


def dated_back(root: Path) -> str:
    then = (datetime.now(UTC) - timedelta(days=5)).isoformat(timespec="seconds")
    after = manifest.head(root)
    begin(root, place("late"))
    end(root, place("late"), "succeeded", notebook("succeeded", after, then, place="late"))
    return rf"{re.escape(place('late'))}: it says that it started on {then:.10}.*, but the manifest has it from"


def dated_ahead(root: Path) -> str:
    keep(root, place("soon"), started=(datetime.now(UTC) + timedelta(days=40)).isoformat(timespec="seconds"))
    return "line 9: begun: dated 2.*, which is in the future"


def another_outcome_than_the_notebooks(root: Path) -> str:
    begin(root, place("other"))
    text = notebook("failed", place="other")
    write(root / place("other"), text)
    manifest.append(root, {**manifest.ending("succeeded", text.encode()), "path": place("other")})
    return rf"{re.escape(place('other'))}: it says failed, the manifest succeeded"


def another_number_of_alerts(root: Path) -> str:
    after = manifest.head(root)
    begin(root, place("other"))
    text = notebook("succeeded", after, alerts=["DAU is low"])
    write(root / place("other"), text)
    manifest.append(root, {**manifest.ending("succeeded", text.encode()), "path": place("other"), "alerts": 0})
    return rf"{re.escape(place('other'))}: it has 1 alerts, in the manifest 0"


def a_delivery_claimed_for_another_notebook(root: Path) -> str:
    manifest.append(root, {**about_whom(), "path": place()}, {**about_whom(), "path": place(day="2026-11-21")})
    return rf"line 10: delivered by hand: delivery abc was made from {re.escape(place())}"


def a_delivery_from_nothing(root: Path) -> str:
    manifest.append(root, {**about_whom(), "path": place("nothing")})
    return "line 9: delivered by hand: it was unknown to the manifest"


def a_path_that_leads_out(root: Path) -> str:
    line_by_hand(root, {"what": "begun", "path": "../../outside.1.ipynb"})
    return "line 9: its path is not one of the archive's"


def a_kind_that_no_run_writes(root: Path) -> str:
    manifest.append(root, {"what": "pardoned", "path": place()})
    return "line 9: pardoned: no run writes such an entry"


def nonsense_of_the_right_hash(root: Path) -> str:
    entries: list[dict[str, Any]] = [
        {"what": "delivered", "path": place()},
        {"what": "delivered", "path": place(), "deliveries": [7], "report": "r", "event_date": "2026-11-22"},
        {**about_whom(), "path": place(), "event_date": "soon"},
        {"what": "thinned", "path": place()},
        {"what": "begun", "path": place("x"), "at": "yesterday"},
    ]
    for entry in entries:
        manifest.append(root, entry)
    return ".*".join(f"line {9 + number}: .*not written by a run" for number in range(len(entries)))


def line_by_hand(root: Path, entry: dict[str, Any]) -> None:
    """Write a line with the right hashes that `append` would refuse."""
    whole = manifest.bound({"at": now(), **entry, "prev": manifest.head(root)})
    with (root / "manifest.jsonl").open("a") as file:
        file.write(json.dumps(whole, sort_keys=True, ensure_ascii=False) + "\n")


@pytest.mark.parametrize(
    "forge",
    [
        a_second_end, a_failure_made_a_success, begun_anew, a_failed_run_thinned, a_fresh_run_thinned,
        the_only_run_of_a_day_thinned, an_alert_thinned, what_was_sent_thinned, planted_and_adopted, planted_and_ended,
        copied_under_another_name, dated_back, dated_ahead, another_outcome_than_the_notebooks,
        another_number_of_alerts, a_delivery_claimed_for_another_notebook, a_delivery_from_nothing,
        a_path_that_leads_out, a_kind_that_no_run_writes, nonsense_of_the_right_hash,
    ],
)  # fmt: skip
def test_a_forged_line_with_a_right_hash_is_reported(root: Path, forge: Callable[[Path], str]) -> None:
    with index.opened(root) as opened:
        before = opened.all()
    said = forge(root)
    found = "\n".join(problems(root))
    assert re.search(said, found, re.DOTALL), found
    assert not re.search("changed by hand \\(it is|removed, added or moved", found)  # the chain itself holds
    with index.opened(root) as opened:  # the pages keep showing the earlier entry
        assert {each.path: each.sha256 for each in opened.all()}.items() >= {e.path: e.sha256 for e in before}.items()


def test_what_retention_removes_is_not_reported_as_a_forgery(tmp_path: Path) -> None:
    for hour in range(1, 6):
        at = (datetime.now(UTC) - timedelta(days=90, hours=-hour)).isoformat()
        keep(tmp_path, place("anomalies", number=hour), started=at, alerts=[])
    assert len(settling.settle_and_thin(tmp_path)) == 3
    findings = proof.verify(tmp_path)
    assert (findings.problems, findings.remarks, findings.notebooks) == ([], [], 2)
    with pytest.raises(ArchiveError, match="keeps everything for 30 days at least"):
        settling.settle_and_thin(tmp_path, days=7)


def test_a_path_outside_the_archive_is_not_recorded(root: Path) -> None:
    for where in ("../x/y.1.ipynb", "etl/.hidden/x.1.ipynb", "etl\\x/y.1.ipynb", "x.1.ipynb", "/etc/passwd"):
        with pytest.raises(ArchiveError, match="keeps notebooks as"):
            manifest.append(root, {"what": "begun", "path": where})
    assert problems(root) == []


def test_a_clock_that_was_set_back_is_a_remark(root: Path) -> None:
    keep(root, place("back"), started=(datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds"))
    findings = proof.verify(root)
    assert re.search("a clock was set back, or it is forged", findings.remarks[0])


def test_an_unreadable_notebook_is_reported_on_its_own_line(root: Path) -> None:
    path = root / place()
    path.unlink()
    path.mkdir()
    (root / place(day="2026-11-21")).write_bytes(b"\xff{")
    where = [place(), place(day="2026-11-21")]
    assert [line.split(": ")[1].split(" (")[0] for line in sorted(problems(root), reverse=True)] == [
        "a folder, put there by hand",
        "changed",
    ], where


def test_an_earlier_head_reveals_that_the_end_of_the_chain_was_cut_off(root: Path) -> None:
    head = proof.verify(root).head
    keep(root, place("later"))
    assert problems(root, head) == problems(root, head[:12]) == []
    path = root / "manifest.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    for gone in ("extract_feed", "later"):
        (root / place(gone)).unlink()
    assert problems(root) == []  # a chain alone does not show that its end was cut off
    assert problems(root, head) == [
        f"manifest.jsonl: the entry {head} noted earlier is gone: the manifest was cut, rewritten or started again"
    ]


def test_the_hash_of_an_entry_is_that_of_its_canonical_json() -> None:
    """Old chains stay valid: the JSON has sorted keys, no spaces, and letters of other alphabets as they are."""
    entry = {"what": "begun", "path": "etl/день/load.1.ipynb", "at": "2026-11-22"}
    canonical = '{"at":"2026-11-22","path":"etl/день/load.1.ipynb","what":"begun"}'
    assert manifest.bound(entry)["hash"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert manifest.bound({**entry, "hash": "another"}) == manifest.bound(entry)


def test_many_writers_make_one_chain(tmp_path: Path) -> None:
    def work(writer: int) -> None:
        for number in range(25):
            keep(tmp_path, place(f"n{writer}", number=number))

    writers = [FORK.Process(target=work, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        if (tmp_path / "manifest.jsonl").exists():
            assert problems(tmp_path) == []  # while they write, there are no problems
    for each in writers:
        each.join()
    findings = proof.verify(tmp_path)
    assert (findings.problems, findings.remarks, findings.notebooks, findings.entries) == ([], [], 100, 200)


def test_a_writer_killed_at_any_moment_breaks_nothing(tmp_path: Path) -> None:
    def work(writer: int) -> None:
        for number in range(10_000):
            keep(tmp_path, place(f"n{writer}", number=number))

    for round_ in range(8):
        writer = FORK.Process(target=work, args=(round_,))
        writer.start()
        time.sleep(0.05 + 0.013 * round_)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        keep(tmp_path, place("next", number=round_))
        findings = proof.verify(tmp_path)
        assert findings.problems == []
        # At most one attempt of each writer was running; it is not mistaken for one that was added by hand.
        assert len(findings.remarks) <= round_ + 1


def test_a_torn_last_line_is_a_remark_and_is_replaced(root: Path) -> None:
    path = root / "manifest.jsonl"
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last) // 2])
    findings = proof.verify(root)
    assert findings.problems == []
    assert re.search("line 8: torn by a crash", findings.remarks[0])
    assert "extract_feed" in findings.remarks[1]  # which now has no end
    keep(root, place("after"))
    assert problems(root) == []
    assert len(path.read_bytes().splitlines()) == 9


def test_a_full_disk_leaves_the_manifest_unchanged(root: Path) -> None:
    before = (root / "manifest.jsonl").read_bytes()
    code = f"""
import resource, signal, sys
from pathlib import Path
from pulse.archive import manifest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 40}, -1))
manifest.append(Path(sys.argv[1]), {{"what": "begun", "path": "etl/2026-11-22/run/load.1.ipynb"}})
"""
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True)
    assert "ArchiveError: The manifest" in done.stderr
    assert (root / "manifest.jsonl").read_bytes() == before
    keep(root, place("after"))
    assert problems(root) == []


def test_notebooks_older_than_the_manifest_are_adopted_once(root: Path) -> None:
    for path in root.rglob("*.ipynb"):
        node = json.loads(path.read_text())
        del node["metadata"]["pulse"]["after"]  # as in notebooks older than manifests
        path.write_text(json.dumps(node))
    (root / "manifest.jsonl").unlink()
    with pytest.raises(ArchiveError, match="has no manifest: the next run, or `pulse archive index`, starts one"):
        proof.verify(root)
    assert index.rebuild(root) == 4
    keep(root, place("new"))
    assert problems(root) == []
    assert changed(root)
    (said,) = problems(root)
    assert said == f"{place()}: changed (it is older than the manifest)"


# --- which paths are allowed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside.1.ipynb", "etl/../../outside.1.ipynb", "/etc/passwd", "etl/.hidden/x.1.ipynb", "manifest.jsonl",
        "etl//x.1.ipynb", "etl\\..\\x.1.ipynb", "etl/\0.ipynb", "outside.1.ipynb", "etl/linked.1.ipynb",
        "", "etl/out/o.1.ipynb", "%2e%2e/outside.1.ipynb", "x" * 5000,
    ],
)  # fmt: skip
def test_no_path_reaches_a_file_outside_the_archive(tmp_path: Path, name: str) -> None:
    root = tmp_path / "archive"
    keep(root, place())
    outside = tmp_path / "outside"
    outside.mkdir()
    for secret in (tmp_path / "outside.1.ipynb", outside / "o.1.ipynb", root / "outside.1.ipynb"):
        secret.write_text("{}")
    (root / "etl" / "linked.1.ipynb").symlink_to(tmp_path / "outside.1.ipynb")
    (root / "etl" / "out").symlink_to(outside)
    (root / "etl" / ".hidden").mkdir()
    (root / "etl" / ".hidden" / "x.1.ipynb").write_text("{}")
    with pytest.raises(ArchiveError, match="holds no notebook"):
        find(root, name)
    assert find(root, place()).is_file()


def test_an_editors_checkpoints_do_not_belong_to_the_archive(root: Path) -> None:
    folder = (root / place()).parent / ".ipynb_checkpoints"
    folder.mkdir()
    (folder / "load.1-checkpoint.ipynb").write_text("{}")
    assert len(walk(root)) == 4
    assert problems(root) == []


# --- the index -------------------------------------------------------------------------------------------------------


def paths(root: Path, **wanted: str) -> list[str]:
    with index.opened(root) as opened:
        return [each.path for each in opened.search(index.Filter(**wanted)).attempts]


def test_the_index_finds_by_day_notebook_outcome_and_words(root: Path) -> None:
    keep(root, place("daily_report", dag="daily_report"), numbers=[["DAU", "13,533"], ["CTR", "18.8%"]])
    assert paths(root, first="2026-11-21", last="2026-11-21") == [place(day="2026-11-21")]
    assert paths(root, outcome="not succeeded") == paths(root, outcome="failed") == [place("extract_feed")]
    assert paths(root, notebook="load", first="2026-11-22") == [place()]
    assert (
        paths(root, text="dau 13,533") == paths(root, dag="daily_report") == [place("daily_report", dag="daily_report")]
    )
    assert paths(root, text="NO rows") == [place("extract_feed")]
    assert paths(root, text="no'; drop table attempts; --") == []
    with index.opened(root) as opened:
        listing = opened.search(index.Filter(dags=frozenset({"daily_report"})))
        assert (listing.total, listing.choices["dag"]) == (1, ["daily_report"])
        assert listing.attempts[0].numbers == {"DAU": "13,533", "CTR": "18.8%"}
        assert [day.event_date for day in opened.search(index.Filter(), page=2, size=2).attempts] == [
            "2026-11-22",
            "2026-11-21",
        ]


@pytest.mark.parametrize(
    "asked",
    [
        "13,806", "13806", "13 806", "13\N{NO-BREAK SPACE}806", "1380", "0.1977", "0,1977", "19.8%", "-1001234",
        "1001234567890",
        "чел", "TYPO", "18.8", "sunday", "22 November", "scheduled__1", "c0ffee", "not_enough", "enough", "a b", "1,5",
        "4711", "app/2026", "-5000", "−5 000", "1 234,56", "1234.56", "1234,56", "0d6c7b1e-query", "98,765", "98765",
    ],
)  # fmt: skip
def test_search_finds_what_a_page_shows_in_any_spelling(root: Path, asked: str) -> None:
    where = place("report", dag="daily_report")
    keep(root, where, users=13_806, ctr=0.1977345, numbers=[["CTR", "19.8%"], ["ratio", "1,5"]], text="1\u00a0234 чел.")
    sent = {"chat": "-1001234567890", "state": "sent", "did": "sent", "ref": "a1b2", "message_id": 4711}
    manifest.append(
        root, {"what": "delivered", "path": where, "report": "r", "event_date": "2026-11-22", "deliveries": [sent]}
    )
    node = json.loads(notebook("failed", manifest.head(root), place="cells"))
    html = "<table><tr><td>CTR</td><td>18.8</td></tr></table>"
    node["cells"] += [
        {"cell_type": "markdown", "metadata": {}, "source": ["A TYPO\n", "a b"]},
        {
            "cell_type": "code", "metadata": {}, "source": "x = not_enough", "execution_count": 2,
            "outputs": [
                {"output_type": "display_data", "metadata": {}, "data": {"text/html": [html]}},
                {"output_type": "stream", "name": "stdout", "text": ["app/2026 1,5; −5 000; 1 234,56"]},
            ],
        },
    ]  # fmt: skip
    node["metadata"]["pulse"]["queries"] = [{"id": "0d6c7b1e-query", "read_rows": 98_765}, 7]
    begin(root, place("cells"))
    end(root, place("cells"), "failed", json.dumps(node))
    found = paths(root, text=asked)
    assert {where, place("cells")} & set(found), asked
    assert paths(root, text="13807") == paths(root, text="0.1978") == paths(root, text="22,5") == []


def test_punctuation_alone_finds_nothing_and_breaks_nothing(root: Path) -> None:
    for asked in ('"', "*", "' or 1", '") OR (', "--", "a* NOT b", "\0", "NEAR(a b)", "чч" * 500):
        assert paths(root, text=asked) == []
    assert len(paths(root, text=" ")) == 4


def test_the_list_is_read_from_one_covering_index_for_every_reader(root: Path) -> None:
    """This keeps the list fast for a hundred thousand runs; `make prove` measures it."""
    with index.opened(root) as opened:
        for wanted in (index.Filter(), index.Filter(dags=frozenset({"etl", "x"})), index.Filter(outcome="failed")):
            where, values = wanted.where()
            sql = f"explain query plan select path from attempts where {where} order by {index.ORDER} limit 200"  # noqa: S608
            plan = [row[3] for row in opened._db.execute(sql, values)]
            assert plan == ["SCAN attempts USING COVERING INDEX by_date"], (wanted, plan)
        assert opened._total(index.Filter(outcome="failed")) == 1


def test_no_savepoint_of_the_index_stays_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each open one slows all later statements down, so that 100,000 runs took half an hour."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    line_by_hand(
        root, {"what": "delivered", "path": place(), "deliveries": [7], "report": "r", "event_date": "2026-11-22"}
    )
    index.rebuild(root)
    assert statements.count("savepoint entry") == statements.count("release entry") > 0
    assert "rollback to entry" in statements


@pytest.mark.timeout(900)
@pytest.mark.parametrize("runs", [2_000, pytest.param(100_000, marks=pytest.mark.prove)])
def test_many_runs_are_listed_and_searched_in_a_second(tmp_path: Path, runs: int) -> None:
    fill(tmp_path, runs)
    index.rebuild(tmp_path)
    look = pages.Look(settings.load(), dags=frozenset({"monitoring"}))
    for wanted, number in (({}, 1), ({}, runs // 250), ({"text": "far below"}, 1), ({"outcome": "not succeeded"}, 2)):
        begun = time.process_time()
        with index.opened(tmp_path) as opened:
            html = pages.list_page(opened, look, index.Filter(**wanted, dags=look.dags), number)
        assert time.process_time() - begun < 1, wanted
        shown = html.count('<li class="run')
        assert shown == 200 or (runs < 100_000 and shown > 5), wanted  # with fewer runs, the last page may be shorter
    findings = proof.verify(tmp_path)
    assert (findings.problems, findings.notebooks) == ([], runs)


def test_a_page_number_too_large_for_the_database_is_an_empty_page(root: Path) -> None:
    with index.opened(root) as opened:
        assert opened.search(index.Filter(), page=10**30).attempts == []
        assert opened.search(index.Filter(), page=10**30).total == 4


def test_a_report_without_recorded_loads_read_the_last_load_before_it(tmp_path: Path) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    for hour, (name, dag, outcome) in enumerate(
        [
            ("extract_feed", "etl", "succeeded"), ("load", "etl", "succeeded"), ("report", "daily", "succeeded"),
            ("load", "etl", "failed"), ("report", "daily", "failed"), ("load", "etl", "succeeded"),
            ("report", "daily", "succeeded"),
        ]
    ):  # fmt: skip
        where = place(name, dag=dag, number=hour)
        keep(tmp_path, where, outcome, started=(at + timedelta(hours=hour)).isoformat(timespec="seconds"))
    with index.opened(tmp_path) as opened:
        made = {each.number: [one.number for one in opened.made_of(each)] for each in opened.all()}
        used = [one.number for one in opened.used_by(opened.attempt(place("load", number=5)))]  # type: ignore[arg-type]
    assert made == {0: [], 1: [], 2: [1], 3: [], 4: [1], 5: [], 6: [5]}
    assert 6 in used


def test_a_run_reference_finds_its_run(root: Path) -> None:
    sha256 = keep(root, place("one"), rows=1)
    with index.opened(root) as opened:
        (found,) = opened.by_reference(sha256[:10])
        assert (found.path, found.reference, opened.by_reference(sha256.upper())) == (
            place("one"),
            sha256[:10],
            [found],
        )
        assert opened.by_reference("zzzz") == []


def test_a_deleted_broken_or_old_index_is_made_again(root: Path) -> None:
    with index.opened(root) as opened:
        kept = opened.all()
    assert len(kept) == 4
    (root / index_upkeep.NAME).unlink()
    with index.opened(root) as opened:
        assert opened.all() == kept
    assert index.rebuild(root) == 4
    (root / index_upkeep.NAME).write_text("no database" * 1000)
    with pytest.raises(ArchiveError, match=r"index\.sqlite cannot be used .*: delete it, and it will be rebuilt"):
        paths(root)
    (root / index_upkeep.NAME).unlink()
    connection = sqlite3.connect(root / index_upkeep.NAME)
    connection.execute("create table attempts (older text)")
    connection.close()
    with index.opened(root) as opened:
        assert opened.all() == kept


def test_another_manifest_makes_another_index(root: Path) -> None:
    assert len(paths(root)) == 4
    for path in [*root.rglob("*.ipynb"), root / "manifest.jsonl"]:
        path.unlink()
    keep(root, place("only"))
    assert paths(root) == [place("only")]
    (root / "manifest.jsonl").unlink()
    keep(root, place("more" * 40))
    for number in range(2, 6):
        keep(root, place("more", number=number))  # now the manifest is longer than what the index has read of it
    assert len(paths(root)) == 6


def test_the_index_knows_the_run_to_compare_with_and_the_deliveries(root: Path) -> None:
    sent = {"chat": "-1001", "state": "sent", "did": "sent", "ref": "abc", "message_id": 7}
    manifest.append(
        root, {"what": "delivered", "path": place(), "report": "r", "event_date": "2026-11-22", "deliveries": [sent]}
    )
    with index.opened(root) as opened:
        today = opened.attempt(place())
        assert today is not None
        before = opened.before(today)
        assert before is not None
        assert before.path == place(day="2026-11-21")
        (delivery,) = opened.delivered(place())
        assert (delivery.chat, delivery.message_id) == ("-1001", 7)
        assert opened.delivering(opened.all()) == {place()}
    assert digest((root / place()).read_bytes()) == today.sha256


def test_an_unknown_reference_is_answered_with_a_valid_example(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_OUTPUT", str(root))
    sha256 = keep(root, place("newest", day="2026-11-23"))
    for typed in ("3f9c2a71b0", "zzzz", "3f"):
        with pytest.raises(PulseError) as caught:
            commands.show(typed)
        said, newest, reference = str(caught.value).partition(" The newest run is ")
        assert said.count(typed) == 1
        assert newest + reference == f" The newest run is {sha256[:10]}, newest of 2026-11-23."


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_the_mode_of_every_file_follows_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        store.write("{}", str(tmp_path / place()), durable=True)
        keep(tmp_path, place("other"))
        index.keep_up(tmp_path)
    finally:
        os.umask(before)
    files = [tmp_path / place(), tmp_path / manifest.NAME, tmp_path / index_upkeep.NAME]
    assert [path.stat().st_mode & 0o777 for path in files] == [mode] * 3
    assert not list(tmp_path.rglob("*.part"))


# --- retention -------------------------------------------------------------------------------------------------------

NOW = datetime.now(UTC)
OLD = str((NOW - timedelta(days=40)).date())


def moment(hour: int, minute: int = 0, days_ago: int = 40) -> str:
    return (NOW - timedelta(days=days_ago)).replace(hour=hour, minute=minute).isoformat(timespec="seconds")


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """Monitoring runs of 40 days ago and of yesterday, with an alert at 05, a failure at 06 and a delivery from 07."""
    for days_ago in (40, 1):
        for hour in range(3, 10):
            day = str((NOW - timedelta(days=days_ago)).date())
            where = f"monitoring/{day}/run_{hour:02}/anomalies.1.ipynb"
            outcome = "failed" if hour == 6 else "succeeded"
            alerts = ["DAU is low"] if hour == 5 else []
            keep(tmp_path, where, outcome, started=moment(hour, 0, days_ago), alerts=alerts, checked=hour)
    sent = {"chat": "-1", "state": "sent", "did": "sent", "ref": "x", "message_id": 1}
    manifest.append(
        tmp_path,
        {"what": "delivered", "path": f"monitoring/{OLD}/run_07/anomalies.1.ipynb", "report": "alert",
         "event_date": OLD, "deliveries": [sent]},
    )  # fmt: skip
    return tmp_path


def test_quiet_runs_are_removed_but_alerts_failures_and_deliveries_stay(watched: Path) -> None:
    gone = settling.settle_and_thin(watched, now=NOW)
    # Of the quiet runs (03, 04, 08, 09) the first and the last stay; all of yesterday's stay.
    assert gone == [f"monitoring/{OLD}/run_{hour}/anomalies.1.ipynb" for hour in ("08", "04")]
    assert len(walk(watched)) == 12
    findings = proof.verify(watched)
    assert (findings.problems, findings.remarks) == ([], [])
    assert not (watched / f"monitoring/{OLD}/run_08").exists()
    assert settling.settle_and_thin(watched, now=NOW) == []


def test_the_record_of_a_thinned_run_survives_a_rebuild_of_the_index(watched: Path) -> None:
    with index.opened(watched) as opened:
        before = opened.attempt(f"monitoring/{OLD}/run_08/anomalies.1.ipynb")
    assert before is not None
    settling.settle_and_thin(watched, now=NOW)
    index.rebuild(watched)
    with index.opened(watched) as opened:
        assert opened.by_reference(before.reference) == [replace(before, state="thinned")]
        assert len(opened.all()) == 14
    assert paths(watched, text=before.reference) == [before.path]


def test_a_thinned_notebook_that_comes_back_changed_is_reported(watched: Path) -> None:
    path = watched / f"monitoring/{OLD}/run_08/anomalies.1.ipynb"
    text = path.read_text()
    settling.settle_and_thin(watched, now=NOW)
    write(path, text.replace("DAU", "dau").replace("succeeded", "failed"))
    assert re.search(
        r"run_08/anomalies\.1\.ipynb: added by hand: the notebook of this name was thinned", problems(watched)[0]
    )
    write(path, text)  # as after a crash between the entry and the removal
    assert problems(watched) == []
    assert settling.settle_and_thin(watched, now=NOW) == []
    assert not path.exists()


def test_a_notebook_that_was_changed_by_hand_is_never_removed(watched: Path) -> None:
    path = watched / f"monitoring/{OLD}/run_08/anomalies.1.ipynb"
    path.write_text(path.read_text().replace("c0ffee", "decaff"))
    assert len(settling.settle_and_thin(watched, now=NOW)) == 1
    assert re.search(r"run_08/anomalies\.1\.ipynb: changed", problems(watched)[0])


def test_a_run_that_was_killed_long_ago_gets_its_end(tmp_path: Path) -> None:
    watched = tmp_path
    killed, unsaid = f"etl/{OLD}/a/load.1.ipynb", f"etl/{OLD}/b/load.1.ipynb"
    for where in (killed, unsaid):
        begin(watched, where, moment(5))
    write(watched / unsaid, notebook("failed", started=moment(5)))  # killed between the notebook and the manifest
    assert len(proof.verify(watched).remarks) == 2
    settling.settle_and_thin(watched, now=NOW)
    findings = proof.verify(watched)
    assert (findings.problems, findings.remarks) == ([], [])
    with index.opened(watched) as opened:
        assert [opened.attempt(where).outcome for where in (killed, unsaid)] == ["killed", "failed"]  # type: ignore[union-attr]
