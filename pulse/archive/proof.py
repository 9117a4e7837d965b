"""Compares the archive with its manifest, and both with the ledger of deliveries.

`verify` finds:

- a notebook that was changed, removed, or added without a run; a line of the manifest that was changed, removed, added
  or moved;
- a line that was written by hand with the right hash, but must not follow the notebook's earlier lines: a second end, a
  thinning against retention's rule, an adoption after the manifest's start, a delivery that was made from another
  notebook (see `pulse.archive.lives`);
- a notebook that contradicts its own lines: another outcome, other alerts, another time, a copy of another notebook;
- if the ledger can be read: a delivery that the ledger does not have or has differently, and a head of the chain that
  went to the alert chat one night and is no longer in the chain.

It cannot find everything. Whoever can write in the archive's folder can also run a notebook there, and such a run looks
like any other. But nobody can date it back by more than a day past a head that the ledger knows, or use it to replace
or remove an earlier notebook.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from pulse.archive import ArchiveError, digest, executed, manifest, walk
from pulse.archive.lives import Entry, Life, Lives, moment

NOTICE = "archive"
"""The report under which the ledger keeps the nightly message with the chain's head."""

_NOTED = timedelta(days=1)  # how much the clocks of the archive and the ledger may differ, or be set back
_CLOCKS = timedelta(minutes=10)  # how much a notebook and the manifest may differ about the time


class Records(Protocol):
    """A result of the database: a frame of pandas, which the parsing of DAG files must not import."""

    def to_dict(self, orient: Literal["records"]) -> list[dict[Any, Any]]:
        """The rows."""
        ...


class Database(Protocol):
    """The part of `pulse.clickhouse.ClickHouse` that is needed here."""

    def read(self, sql: str) -> Records:
        """Run a SELECT."""
        ...


@dataclass
class Findings:
    """What `verify` found: problems, remarks about what is unusual but not wrong, and the head of the chain."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notebooks: int = 0
    entries: int = 0
    head: str = manifest.GENESIS
    gone: list[str] = field(default_factory=list)  # those problems that are heads missing from the chain


@dataclass(frozen=True)
class Outside:
    """What the ledger of deliveries knows. Whoever can write in the archive's folder cannot change it."""

    since: datetime  # the time of its first row
    claims: dict[str, dict[str, Any]]  # by reference: report, event_date, chat, sent, message_ids, run
    heads: list[tuple[str, str]]  # the heads of this archive's chain, each with the time when it was noted


@dataclass
class _Known:
    """Everything that the manifest says."""

    lives: Lives = field(default_factory=Lives)
    times: list[datetime | None] = field(default_factory=list)  # the times of the entries, in their order
    hashes: dict[str, tuple[int, datetime | None]] = field(default_factory=lambda: {manifest.GENESIS: (0, None)})
    head: str = manifest.GENESIS
    entries: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def verify(root: Path, earlier: str = "", outside: Outside | None = None, last_only: bool = False) -> Findings:
    """Compare the archive with its manifest.

    Args:
        root: the archive's root.
        earlier: a head that was noted earlier, or its first characters; it must still be in the chain.
        outside: what the ledger knows (see `ledger`).
        last_only: require only the last of the ledger's heads to be in the chain, so that a missing head is reported
            once and not every night.

    Raises:
        ArchiveError: there is no manifest, or it cannot be read.
    """
    if not (root / manifest.NAME).exists():
        raise ArchiveError(
            f"{root} has no manifest: the next run, or `pulse archive index`, starts one with the notebooks that are "
            "there."
        )
    known = _read(root)
    there = walk(root)
    found = _judged(root, {*there, *known.lives.by_path}, known)
    suspects = {path for path, problem, _ in found if problem}
    if suspects:  # a run may have ended after its entry was read and before its notebook was: so check again
        known = _read(root)
        found = [each for each in found if each[0] not in suspects] + _judged(root, suspects, known)
    findings = Findings(known.problems, known.remarks, len(there), known.entries, known.head)
    for path, problem, remark in sorted(found):
        findings.problems += [f"{path}: {problem}"] if problem else []
        findings.remarks += [f"{path}: {remark}"] if remark else []
    if outside:
        _compare(known, outside, root, findings)
        findings.problems += _dated_back(known, outside)
    noted = [(f"noted on {at}", head) for at, head in (outside.heads if outside else [])]
    for when, head in [*(noted[-1:] if last_only else noted), *([("noted earlier", earlier)] if earlier else [])]:
        if not any(each.startswith(head.lower()) for each in known.hashes):
            findings.gone.append(
                f"{manifest.NAME}: the entry {head} {when} is gone: the manifest was cut, rewritten or started again"
            )
    findings.problems += findings.gone
    return findings


def sentence(findings: Findings, most: int = 3) -> str:
    """The problems of an archive in one sentence, which names the first ones.

    Args:
        findings: what `verify` found.
        most: how many problems to name.
    """
    more = f"; and {len(findings.problems) - most} more" if len(findings.problems) > most else ""
    listed = "; ".join(findings.problems[:most])
    return f"The archive is not as it was kept: {listed}{more}. `pulse archive verify` lists all of them."


def ledger(db: Database, root: Path) -> Outside:
    """Read what the ledger knows about this archive's deliveries and its chain.

    Raises:
        ClickHouseError: the ledger cannot be read.
    """
    sql = """
        -- What became of each claim, one row per claim
        select
            claim,
            report,
            toString(event_date) as day,
            chat,
            countIf(state = 'sent') as sent,
            arrayStringConcat(groupUniqArray(toString(message_id)), ' ') as message_ids,
            any(run) as made_by,
            any(numbers) as headline,
            toString(min(recorded_at)) as noted
        from deliveries
        group by claim, report, event_date, chat
        order by min(recorded_at)
    """
    rows = db.read(sql).to_dict("records")
    heads = []
    for row in rows:
        notice = executed.read(row["headline"].encode())
        if row["report"].startswith(f"{NOTICE} ") and row["sent"] and notice.get("folder") == str(root.resolve()):
            heads.append((f"{row['noted']:.16}", str(notice["head"])))
    since = moment(rows[0]["noted"]) if rows else datetime.max.replace(tzinfo=UTC)
    return Outside(since, {row["claim"]: row for row in rows}, heads)


# --- judging ---------------------------------------------------------------------------------------------------------


def _read(root: Path) -> _Known:
    """Read the whole manifest, and find where its chain is broken and what was added to it by hand."""
    known = _Known()
    for number, (line, _) in enumerate(manifest.lines(root), 1):
        where = f"{manifest.NAME}, line {number}"
        entry = manifest.parsed(line)
        if not line.endswith(b"\n"):
            known.remarks.append(f"{where}: torn by a crash; the next run replaces it")
            break
        if entry is None or entry.get("hash") != manifest.bound(entry)["hash"]:
            known.problems.append(f"{where}: changed by hand{_about(entry)}")
        if entry is None:
            continue
        if entry.get("prev") != known.head:
            known.problems.append(
                f"{manifest.NAME}, before line {number}: entries were removed, added or moved by hand"
            )
        problem, remark = known.lives.take(number, entry)
        known.problems += [f"{where}: {problem}{_about(entry)}"] if problem else []
        known.remarks += [f"{where}: {remark}"] if remark else []
        known.head = str(entry.get("hash"))
        known.entries += 1
        known.times.append(known.lives.latest)
        known.hashes[known.head] = (number, known.lives.latest)
    return known


def _judged(root: Path, paths: Iterable[str], known: _Known) -> list[tuple[str, str, str]]:
    """The path of each notebook with its problem or its remark; at least one of the two is empty."""
    return [(path, *_judge(root / path, known.lives.by_path.get(path), known)) for path in paths]


def _judge(file: Path, life: Life | None, known: _Known) -> tuple[str, str]:
    if file.is_symlink():
        return "a link, put there by hand", ""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        gone = life is not None and life.state and life.state != "thinned"
        return (f"removed ({_since(life)})" if gone else "", "")
    except IsADirectoryError:
        return "a folder, put there by hand", ""
    except OSError as error:
        return f"cannot be read ({error.strerror}); make it readable", ""
    node = executed.read(content)
    if life is None or not life.state:
        if executed.untouched(node):
            return "", "cut off when it began; nothing had run"
        return "added by hand: no run put it there", ""
    same = digest(content) == life.sha256
    if life.state == "thinned":
        if same:
            return "", f"thinned on {life.thinned} and still there; the next thinning removes it"
        return f"added by hand: the notebook of this name was thinned on {life.thinned}", ""
    if life.state == "begun":
        return "", f"began on {life.begun} and has no end: it is running, or was killed"
    return (_contradiction(node, life, known) if same else f"changed ({_since(life)})"), ""


def _contradiction(node: executed.Node, life: Life, known: _Known) -> str:
    """How a notebook and the manifest differ although its SHA-256 is right; empty if they agree."""
    run = executed.run(node)
    after = manifest.GENESIS if run.after is None else run.after
    number, earliest = known.hashes.get(after, (None, None))
    if number is None:
        return "it names an entry of the manifest that is gone: the manifest was rewritten"
    if number >= life.number:
        return "it names an entry of the manifest that is later than its own: the manifest was rewritten"
    if life.state == "adopted":
        return ""
    said, counted = run.outcome[:40] or "nothing", executed.alerts(node)
    if said != life.outcome:
        return f"it says {said}, the manifest {life.outcome}: one of them was changed by hand"
    if life.alerts not in (None, counted):
        return f"it has {counted} alerts, in the manifest {life.alerts}: one of them was changed by hand"
    try:
        started, begun = moment(run.started), moment(life.begun)
    except ValueError:
        return "it does not say when it started: no run wrote it"
    if not (earliest or begun) - _CLOCKS <= started <= begun + _CLOCKS:
        return f"it says that it started on {started:%Y-%m-%d at %H:%M}, but the manifest has it from {life.begun}"
    return ""


def _compare(known: _Known, outside: Outside, root: Path, findings: Findings) -> None:
    """Compare the manifest's deliveries with the ledger's."""
    older = 0
    for number, entry in known.lives.deliveries:
        for each in entry["deliveries"]:
            if not each["ref"]:
                continue
            if moment(entry["at"]) + timedelta(seconds=1) < outside.since and each["ref"] not in outside.claims:
                older += 1
                continue
            problem = _difference(entry, each, outside.claims.get(each["ref"]), root)
            if problem:
                findings.problems.append(
                    f"{manifest.NAME}, line {number}: delivery {each['ref']} {problem}{_about(entry)}"
                )
    if older:
        findings.remarks.append(f"{older} deliveries are older than the ledger, and were not compared with it")


def _dated_back(known: _Known, outside: Outside) -> Iterable[str]:
    """The entries that follow a head that the ledger knows, although they claim to be older."""
    noted = sorted((known.hashes[head][0], moment(at)) for at, head in outside.heads if head in known.hashes)
    latest: datetime | None = None
    for number, at in enumerate(known.times, 1):
        while noted and noted[0][0] < number:
            latest = max(filter(None, (latest, noted.pop(0)[1])))
        if latest and at and at < latest - _NOTED:
            yield (
                f"{manifest.NAME}, line {number}: dated {at:%Y-%m-%d %H:%M}, but the head before it was noted on "
                f"{latest:%Y-%m-%d %H:%M}: dated back by hand"
            )


def _difference(entry: Entry, delivery: Entry, claim: dict[str, Any] | None, root: Path) -> str:
    """How the manifest and the ledger differ about a delivery; empty if they agree."""
    if claim is None:
        return "is unknown to the ledger: nothing was sent"
    for name, said, kept in (
        ("report", entry["report"], claim["report"]),
        ("event date", entry["event_date"], claim["day"]),
        ("chat", delivery["chat"], claim["chat"]),
    ):
        if said != kept:
            return f"has the {name} {said}, in the ledger {kept}"
    if delivery["state"] == "sent" and not claim["sent"]:
        return "was sent according to the manifest, but not according to the ledger"
    if delivery["state"] == "sent" and str(delivery["message_id"]) not in claim["message_ids"].split():
        return f"is message {delivery['message_id']}, but a different one in the ledger"
    if delivery["did"] not in ("sent", "edited"):
        return ""  # another run sent it
    run = executed.run(executed.read(_content(root / entry["path"]))).run_id
    if claim["made_by"] and run and run != claim["made_by"]:
        return f"was made by the run {claim['made_by']}, not by {run}"
    return ""


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _since(life: Life | None) -> str:
    if life is None or life.state == "adopted":
        return "it is older than the manifest"
    return f"it ended on {life.ended}" if life.ended else f"it began on {life.begun}"


def _about(entry: Entry | None) -> str:
    return f" (it is about {entry['path'][:200]})" if entry and entry.get("path") else ""
