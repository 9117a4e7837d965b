"""The archive compared with its manifest, and with what is known of both elsewhere.

What `verify` finds:

- a notebook that was changed, removed, or added without a run; a line of the manifest that was changed, removed, added
  or moved;
- a line that was written by hand, with the right hash, in a notebook's life that does not allow it: a second end, a
  thinning that retention's rule does not know, an adoption after the beginning, a delivery that was made from another
  notebook (see `pulse.archive.lives`);
- a notebook that contradicts its own lines: another outcome, other alerts, another time, a copy of another one;
- where the ledger can be reached: a delivery that it does not know, or knows otherwise, and a head of the chain that
  went to the alert chat one night and that the chain does not pass through any more.

What it cannot find: whoever may write in the archive's folder may also run a notebook there, and nothing tells that
run from another. It cannot be dated back by more than a day past a head that the ledger knows, though, and can neither
replace nor remove one that was there before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse.archive import ArchiveError, digest, executed, manifest, walk
from pulse.archive.lives import Entry, Life, Lives, moment

if TYPE_CHECKING:
    from pulse.clickhouse import ClickHouse

NOTICE = "archive"
"""The report under which the ledger keeps the nightly line with the chain's head."""

_NOTED = timedelta(days=1)  # by how much the clocks of the archive and of the ledger may differ, and be set back
_CLOCKS = timedelta(minutes=10)  # by how much a notebook and the manifest may differ about the time


@dataclass
class Verdict:
    """What `verify` found: problems, each naming a notebook; remarks that prove nothing wrong; the chain's head."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notebooks: int = 0
    entries: int = 0
    head: str = manifest.GENESIS
    gone: list[str] = field(default_factory=list)  # the problems among them that are heads noted earlier


@dataclass(frozen=True)
class Outside:
    """What the ledger of deliveries knows, out of reach of whoever may write in the archive's folder."""

    since: datetime  # its first row's time
    claims: dict[str, dict[str, Any]]  # by reference: report, event_date, chat, sent, message_ids, run
    heads: list[tuple[str, str]]  # of this archive's chain: when noted, the head


@dataclass
class _Known:
    """What the manifest says as a whole."""

    lives: Lives = field(default_factory=Lives)
    times: list[datetime | None] = field(default_factory=list)  # of the entries, in their order
    hashes: dict[str, tuple[int, datetime | None]] = field(default_factory=lambda: {manifest.GENESIS: (0, None)})
    head: str = manifest.GENESIS
    entries: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def verify(root: Path, earlier: str = "", outside: Outside | None = None, last_only: bool = False) -> Verdict:
    """Compare the archive with its manifest.

    Args:
        root: the archive.
        earlier: a head noted before, or its first characters; the chain must still pass through it.
        outside: what the ledger knows (see `ledger`).
        last_only: of the heads that the ledger knows only the last one has to be in the chain, so that what was told
            once is not told every night.

    Raises:
        ArchiveError: there is no manifest, or it cannot be read.
    """
    if not (root / manifest.NAME).exists():
        raise ArchiveError(
            f"{root} has no manifest: the next run or `pulse archive index` begins it with the notebooks it finds."
        )
    known = _read(root)
    there = walk(root)
    found = _judged(root, {*there, *known.lives.by_place}, known)
    suspects = {place for place, problem, _ in found if problem}
    if suspects:  # a run may have ended between the manifest and the notebook: a second look clears the innocent
        known = _read(root)
        found = [each for each in found if each[0] not in suspects] + _judged(root, suspects, known)
    verdict = Verdict(known.problems, known.remarks, len(there), known.entries, known.head)
    for place, problem, remark in sorted(found):
        verdict.problems += [f"{place}: {problem}"] if problem else []
        verdict.remarks += [f"{place}: {remark}"] if remark else []
    if outside:
        _compare(known, outside, root, verdict)
        verdict.problems += _dated_back(known, outside)
    noted = [(f"noted on {at}", head) for at, head in (outside.heads if outside else [])]
    for when, head in [*(noted[-1:] if last_only else noted), *([("noted earlier", earlier)] if earlier else [])]:
        if not any(each.startswith(head.lower()) for each in known.hashes):
            verdict.gone.append(
                f"{manifest.NAME}: the entry {head} {when} is gone: the manifest was cut, rewritten or begun anew"
            )
    verdict.problems += verdict.gone
    return verdict


def sentence(verdict: Verdict, most: int = 3) -> str:
    """What is wrong with an archive, the first of it, in one line."""
    more = f"; and {len(verdict.problems) - most} more" if len(verdict.problems) > most else ""
    listed = "; ".join(verdict.problems[:most])
    return f"The archive is not as it was kept: {listed}{more}. `pulse archive verify` lists all of it."


def ledger(db: "ClickHouse", root: Path) -> Outside:
    """What the ledger knows of this archive's deliveries, and of its chain.

    Raises:
        ClickHouseError: it cannot be read.
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
            any(numbers) as told,
            toString(min(recorded_at)) as noted
        from deliveries
        group by claim, report, event_date, chat
        order by min(recorded_at)
    """
    rows = db.read(sql).to_dict("records")
    heads = []
    for row in rows:
        told = executed.read(row["told"].encode())
        if row["report"].startswith(f"{NOTICE} ") and row["sent"] and told.get("folder") == str(root.resolve()):
            heads.append((f"{row['noted']:.16}", str(told["head"])))
    since = moment(rows[0]["noted"]) if rows else datetime.max.replace(tzinfo=UTC)
    return Outside(since, {row["claim"]: row for row in rows}, heads)


# --- judging ---------------------------------------------------------------------------------------------------------


def _read(root: Path) -> _Known:
    """All that the manifest says, where its chain is broken, and what was put into it by hand."""
    known = _Known()
    for number, (line, _) in enumerate(manifest.lines(root), 1):
        where = f"{manifest.NAME}, line {number}"
        entry = manifest.parsed(line)
        if not line.endswith(b"\n"):
            known.remarks.append(f"{where}: torn by a crash; the next run takes its place")
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


def _judged(root: Path, places: Iterable[str], known: _Known) -> list[tuple[str, str, str]]:
    """Each notebook with the problem or the remark that it gives rise to, one of them or none."""
    return [(place, *_judge(root / place, known.lives.by_place.get(place), known)) for place in places]


def _judge(path: Path, life: Life | None, known: _Known) -> tuple[str, str]:
    if path.is_symlink():
        return "a link, put there by hand", ""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        gone = life is not None and life.state and life.state != "thinned"
        return (f"removed ({_since(life)})" if gone else "", "")
    except IsADirectoryError:
        return "a folder, put in its place by hand", ""
    except OSError as error:
        return f"it cannot be read ({error.strerror}); make it readable", ""
    node = executed.read(content)
    if life is None or not life.state:
        if executed.untouched(node):
            return "", "cut off while it took its place; nothing had run"
        return "added by hand: no run put it there", ""
    same = digest(content) == life.sha256
    if life.state == "thinned":
        if same:
            return "", f"thinned on {life.thinned} and still there; the next thinning removes it"
        return f"added by hand: the one that stood there was thinned on {life.thinned}", ""
    if life.state == "begun":
        return "", f"began on {life.begun} and has no end: it is running, or was killed"
    return (_contradiction(node, life, known) if same else f"changed ({_since(life)})"), ""


def _contradiction(node: executed.Node, life: Life, known: _Known) -> str:
    """Where a notebook and the manifest do not say the same, though its SHA-256 is the manifest's."""
    about = executed.about(node)
    number, earliest = known.hashes.get(str(about.get("after", manifest.GENESIS)), (None, None))
    if number is None:
        return "it names an entry of the manifest that is gone: the manifest was rewritten"
    if number >= life.number:
        return "it names an entry of the manifest that is later than its own: the manifest was rewritten"
    if life.state == "adopted":
        return ""
    said, counted = str(about.get("outcome"))[:40], executed.alerts(node)
    if said != life.outcome:
        return f"it says {said}, the manifest {life.outcome}: one of them was changed by hand"
    if life.alerts not in (None, counted):
        return f"it has {counted} alerts, in the manifest {life.alerts}: one of them was changed by hand"
    try:
        started, begun = moment(str(about.get("started"))), moment(life.begun)
    except ValueError:
        return "it does not say when it started: no run wrote it"
    if not (earliest or begun) - _CLOCKS <= started <= begun + _CLOCKS:
        return f"it says that it started on {started:%Y-%m-%d at %H:%M}, and took its place on {life.begun}"
    return ""


def _compare(known: _Known, outside: Outside, root: Path, verdict: Verdict) -> None:
    """The manifest's deliveries beside the ledger's."""
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
                verdict.problems.append(
                    f"{manifest.NAME}, line {number}: delivery {each['ref']} {problem}{_about(entry)}"
                )
    if older:
        verdict.remarks.append(f"{older} deliveries are older than the ledger, and were not compared with it")


def _dated_back(known: _Known, outside: Outside) -> Iterable[str]:
    """The entries that came after a head that the ledger knows, and say that they are older than it."""
    noted = sorted((known.hashes[head][0], moment(at)) for at, head in outside.heads if head in known.hashes)
    latest: datetime | None = None
    for number, at in enumerate(known.times, 1):
        while noted and noted[0][0] < number:
            latest = max(filter(None, (latest, noted.pop(0)[1])))
        if latest and at and at < latest - _NOTED:
            yield (
                f"{manifest.NAME}, line {number}: dated {at:%Y-%m-%d %H:%M}, though the head before it was noted on "
                f"{latest:%Y-%m-%d %H:%M}: dated back by hand"
            )


def _difference(entry: Entry, told: Entry, claim: dict[str, Any] | None, root: Path) -> str:
    """Where the manifest and the ledger do not say the same of a delivery."""
    if claim is None:
        return "is unknown to the ledger: nothing was sent"
    for name, said, kept in (
        ("report", entry["report"], claim["report"]),
        ("event date", entry["event_date"], claim["day"]),
        ("chat", told["chat"], claim["chat"]),
    ):
        if said != kept:
            return f"has the {name} {said}, in the ledger {kept}"
    if told["state"] == "sent" and not claim["sent"]:
        return "was sent by the manifest's word, not by the ledger's"
    if told["state"] == "sent" and str(told["message_id"]) not in claim["message_ids"].split():
        return f"is message {told['message_id']}, in the ledger another"
    if told["did"] not in ("sent", "edited"):
        return ""  # it was sent by another run
    run = executed.about(executed.read(_content(root / entry["path"]))).get("run_id")
    if claim["made_by"] and run and run != claim["made_by"]:
        return f"was made by the run {claim['made_by']}, not by {run}"
    return ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _since(life: Life | None) -> str:
    if life is None or life.state == "adopted":
        return "it was there when the manifest began"
    return f"it ended on {life.ended}" if life.ended else f"it began on {life.begun}"


def _about(entry: Entry | None) -> str:
    return f" (it is about {entry['path'][:200]})" if entry and entry.get("path") else ""
