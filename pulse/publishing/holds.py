"""Held days: a day that is not plausible is not published until somebody releases it.

Table `day_holds` has one row for each time that a day was held, released, or lifted because it turned out as expected
when it was computed again. A release accepts what was found: if the source changes afterwards so that something else is
found, or the same much further out, the day is held again. A release *from now on* also covers what is found on the
days of the `WEEKS` after it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.publishing import plausible, profiles
from pulse.publishing.loads import PublishingError
from pulse.publishing.plausible import WEEKS, Finding, Profile
from pulse.settings import Settings

MISSING = (60, 81)
"""ClickHouse's errors for a table or database that the first run has yet to create."""


class HeldError(PublishingError):
    """A day is held, so it is not published; the text says why and what to do."""


@dataclass(frozen=True)
class Hold:
    """A step in the life of a held day."""

    event_date: date
    step: int
    state: Literal["held", "released", "lifted"]
    load: str
    run: str
    findings: tuple[Finding, ...]
    said_by: str = ""
    because: str = ""
    from_now_on: bool = False

    def covers(self, findings: Sequence[Finding]) -> bool:
        """Whether this accepts all of these findings."""
        return all(any(own.covers(each) for own in self.findings) for each in findings)

    def __str__(self) -> str:
        why = "; ".join(plausible.lines(self.findings, "en"))
        return (
            f"{self.event_date} is held, not published, because it is far from the same weekdays before: {why}. "
            f"`pulse release {self.event_date}` publishes it if it really was like that; "
            f"if not, repair the source and run `pulse daily {self.event_date}`."
        )


@dataclass(frozen=True)
class Verdict:
    """What was found out about a day that has just been computed."""

    findings: list[Finding]
    compared: list[date]
    """The days that it was compared with; none in the first week of a source."""
    hold: Hold | None
    """The hold, if the day is held."""
    accepted: Hold | None
    """The release that covers what was found."""
    lifted: bool
    """Whether an earlier hold of the day has ended, because it is as expected now."""

    def __str__(self) -> str:
        if self.hold:
            return str(self.hold)
        if not self.compared:
            return "there is no history yet, no earlier day with the same weekday: published without a comparison"
        weeks = f"compared with {len(self.compared)} of the same weekdays, since {min(self.compared)}"
        if self.accepted:
            return f"released by {self.accepted.said_by}: {'; '.join(plausible.lines(self.findings, 'en'))} ({weeks})"
        return f"plausible, {weeks}"


def judge(db: ClickHouse, config: Settings, profile: Profile, *, load: str, run: str) -> Verdict:
    """Judge a day that has just been computed, record what the source held of it, and hold it if it is not plausible.

    Args:
        db: where the tables are.
        config: how the source is read.
        profile: of the day.
        load: the load that is staged.
        run: the run that made it.

    Raises:
        ClickHouseError: no server answers, or the source cannot be read.
    """
    before = profiles.before(db, config, profile.event_date)
    profiles.keep(db, config, [profile])
    first = profile.event_date - timedelta(weeks=WEEKS)
    steps = _steps(db, first, profile.event_date)
    own = [each for each in steps if each.event_date == profile.event_date]
    releases = [each for each in steps if each.state == "released"]
    released = [each.event_date for each in releases]
    findings = plausible.judge(profile, before, released)
    compared = [each.event_date for each in plausible.compared(profile, before, released)]
    may = [each for each in releases if each.event_date == profile.event_date or each.from_now_on]
    accepted = next((each for each in may if each.covers(findings)), None) if findings else None
    hold, lifted = None, False
    if findings and not accepted:
        hold = _append(db, profile.event_date, own, "held", load=load, run=run, findings=tuple(findings))
    elif own and own[-1].state == "held":
        lifted = True
        _append(db, profile.event_date, own, "lifted", load=load, run=run, findings=own[-1].findings)
    return Verdict(findings, compared, hold, accepted, lifted)


def of_load(db: ClickHouse, day: date, load: str) -> Hold | None:
    """The hold of a load, unless its day was released as it is in this load.

    Raises:
        ClickHouseError: no server answers.
    """
    steps = _steps(db, day, day)
    hold = next((each for each in steps if each.state == "held" and each.load == load), None)
    if hold and any(each.state == "released" and each.covers(hold.findings) for each in steps):
        return None
    return hold


def held(db: ClickHouse, day: date | None = None) -> list[Hold]:
    """The days that are held now, in order: all, or at most the one that is given.

    Raises:
        ClickHouseError: no server answers.
    """
    try:
        steps = _steps(db, day or date(1970, 1, 1), day or date(2149, 1, 1))
    except ClickHouseError as error:
        if error.code in MISSING:
            return []
        raise
    last = {each.event_date: each for each in steps}
    return [each for each in last.values() if each.state == "held"]


def last(db: ClickHouse, day: date) -> Hold | None:
    """The latest step of a day that was ever held.

    Raises:
        ClickHouseError: no server answers.
    """
    steps = _steps(db, day, day)
    return steps[-1] if steps else None


def release(db: ClickHouse, day: date, *, by: str, because: str, from_now_on: bool = False) -> Hold:
    """Release a held day: what was found is accepted, and the day may be published.

    Args:
        db: where the tables are.
        day: the day.
        by: who releases it.
        because: why.
        from_now_on: whether the days of the following weeks may be like it, too.

    Raises:
        HeldError: the day is not held.
        ClickHouseError: it cannot be recorded.
    """
    steps = _steps(db, day, day)
    if not steps or steps[-1].state != "held":
        what = f"was {steps[-1].state} already" if steps else "is not held"
        raise HeldError(f"{day} {what}; `pulse release` lists the days that are held.")
    held = steps[-1]
    about = {"load": held.load, "run": held.run, "findings": held.findings}
    return _append(db, day, steps, "released", **about, said_by=by, because=because, from_now_on=from_now_on)


def _steps(db: ClickHouse, first: date, last: date) -> list[Hold]:
    """What happened to the days of a time that were ever held, by day and in order."""
    steps = """
    -- The steps of the days of a time that were ever held, one row each
    select toString(event_date) as day, step, state, load, run, findings, said_by, because, from_now_on
    from day_holds
    where event_date >= {first:Date} and event_date <= {last:Date}
    order by event_date, step, recorded_at
    """
    found = []
    for row in db.rows(steps, first=first, last=last):
        findings = tuple(Finding.of(each) for each in json.loads(row["findings"]))
        named = {name: row[name] for name in ("state", "load", "run", "said_by", "because")}
        found.append(
            Hold(
                date.fromisoformat(row["day"]),
                int(row["step"]),
                findings=findings,
                from_now_on=bool(row["from_now_on"]),
                **named,
            )
        )
    return found


def _append(db: ClickHouse, day: date, steps: Sequence[Hold], state: Any, **about: Any) -> Hold:
    hold = Hold(day, steps[-1].step + 1 if steps else 1, state, **about)
    row = {**vars(hold), "findings": json.dumps([each.record for each in hold.findings])}
    db.write([row], "day_holds")
    return hold
