"""Incidents: which anomalies are one story, from its opening to its end.

Pure: findings in, incidents out. Incidents are a function of the verdicts alone. Every run computes those of the last
days again, from how older ones stood before them, so that runs that overlap, repeat or come late leave the same table.
Moments are pandas' timestamps, as ClickHouse's answers have them: what is added to them is elapsed time, on days of
clock changes too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from pulse.metrics import BUCKET
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.watch import Watch

Direction = Literal["drop", "spike", "data_lag"]
State = Literal["open", "resolved", "withdrawn"]


@dataclass(frozen=True)
class Finding:
    """A series that is not as expected in a bucket."""

    series: Series
    direction: Direction
    value: float
    expected: float
    lower: float
    upper: float
    score: float
    deviation: float  # over the window: as a share of what was expected; NaN where nothing was
    window: int = 1  # the buckets, this one the last, in which it shows most


@dataclass(frozen=True)
class Tick:
    """What the detector found in a bucket.

    Args:
        bucket: its first moment.
        late: its data was not there when it was first judged.
        findings: what is not as expected.
        known: by now something is known of it; else it says nothing of any incident.
    """

    bucket: datetime
    late: bool = False
    findings: tuple[Finding, ...] = ()
    known: bool = True


@dataclass(frozen=True)
class Incident:
    """A story of anomalies that share a cause.

    Args:
        ref: its reference, the same whenever it is made.
        opened: the first bucket that shows it.
        updated: the last one.
        resolved: the first moment at which nothing shows any more; None while it is open.
        lead: the series that shows it best, as it was in the last bucket that shows it; None for late data.
        series: all that showed it, in the order of appearance.
        showing: those that did in the last bucket.
        quiet: buckets since in which nothing shows.
    """

    ref: str
    direction: Direction
    opened: datetime
    updated: datetime
    lead: Finding | None = None
    series: tuple[Series, ...] = ()
    showing: tuple[Series, ...] = ()
    resolved: datetime | None = None
    quiet: int = 0
    state: State = "open"


def fold(ticks: Iterable[Tick], watch: Watch, carried: Sequence[Incident] = ()) -> list[Incident]:
    """The incidents that the ticks tell of, in the order of opening.

    Those that began before the first tick are `carried` into it; one of which the ticks tell nothing is left out.

    Anomalies of a bucket that share a cause open an incident or go on with one that is open, or was until lately; after
    `resolve_after` quiet buckets it is over. That data was late stays an incident when it has come. What is no longer
    watched tells of nothing.
    """
    incidents: list[Incident] = list(carried)
    for tick in sorted(ticks, key=lambda each: each.bucket):
        taken: set[str] = set()
        if tick.late:
            taken.add(_go_on(incidents, tick, "data_lag", [], watch))
        watched = [finding for finding in tick.findings if finding.series.metric in watch.metrics]
        for cause in _causes(watched, watch):
            taken.add(_go_on(incidents, tick, _direction(cause), cause, watch))
        for place, incident in enumerate(incidents):
            says = not tick.late if incident.direction == "data_lag" else tick.known
            if incident.state == "open" and incident.ref not in taken and says:
                incidents[place] = _rest(incident, watch)
    return [incident for incident in incidents if incident not in carried]


def _go_on(incidents: list[Incident], tick: Tick, direction: Direction, cause: list[Finding], watch: Watch) -> str:
    """Write a cause into the incident that it belongs to, or open one; gives its reference."""
    showing = tuple(finding.series for finding in cause)
    parts = _parts(showing, watch)
    for place, incident in enumerate(incidents):
        if _belongs(incident, tick, direction, cause, parts, watch):
            incidents[place] = replace(
                incident,
                state="open",
                resolved=None,
                quiet=0,
                updated=tick.bucket,
                lead=_lead(cause, incident.lead),
                series=tuple(dict.fromkeys([*incident.series, *showing])),
                showing=showing,
            )
            return incident.ref
    name = f"{tick.bucket.timestamp():.0f} {direction} {' '.join(sorted(parts))}"
    ref = hashlib.sha256(name.encode()).hexdigest()[:8]
    incidents.append(Incident(ref, direction, tick.bucket, tick.bucket, _lead(cause, None), showing, showing))
    return ref


def _belongs(
    incident: Incident, tick: Tick, direction: Direction, cause: list[Finding], parts: set[str], watch: Watch
) -> bool:
    if incident.updated == tick.bucket:  # it has a cause in this bucket already
        return False
    if incident.resolved and tick.bucket - incident.resolved >= timedelta(hours=watch.reopen_hours):
        return False
    if direction == "data_lag" or incident.direction == "data_lag":
        return direction == incident.direction and incident.state == "open"
    if _are_shares_of(cause, incident.series, watch):
        return True
    return direction == incident.direction and bool(parts & _parts(incident.series, watch))


def _rest(incident: Incident, watch: Watch) -> Incident:
    quiet = incident.quiet + 1
    if quiet < watch.resolve_after and incident.direction != "data_lag":
        return replace(incident, quiet=quiet)
    return replace(incident, quiet=quiet, state="resolved", resolved=incident.updated + BUCKET)


def _causes(findings: Sequence[Finding], watch: Watch) -> list[list[Finding]]:
    """The findings of a bucket by cause: those of a part that go the same way.

    Parts that go the same way in the app as a whole or in the same slice are one cause. Active users of the app go with
    the part that goes their way; a share goes with what it is a share of.
    """
    shares = [finding for finding in findings if watch.metrics[finding.series.metric].per]
    counts = [finding for finding in findings if finding not in shares]
    groups: dict[tuple[str, Direction], list[Finding]] = defaultdict(list)
    for finding in counts:
        groups[watch.metrics[finding.series.metric].metric.part, finding.direction].append(finding)
    causes: list[list[Finding]] = []
    for (_, direction), group in sorted(groups.items(), key=lambda item: item[0][0] == "app"):
        slices = {finding.series[1:] for finding in group}
        partner = next(
            (
                cause
                for cause in causes
                if _direction(cause) == direction and slices & {finding.series[1:] for finding in cause}
            ),
            None,
        )
        if partner is None:
            causes.append(list(group))
        else:
            partner += group
    for finding in shares:
        home = next(
            (cause for cause in causes if _are_shares_of([finding], [each.series for each in cause], watch)), None
        )
        home = home or next((cause for cause in causes if _is_share_way(cause, finding, watch)), None)
        if home is None:
            causes.append([finding])
        else:
            home.append(finding)
    return causes


def _is_share_way(cause: list[Finding], finding: Finding, watch: Watch) -> bool:
    """Whether a cause has only shares, and they go the way of this one."""
    return all(watch.metrics[each.series.metric].per for each in cause) and _direction(cause) == finding.direction


def _are_shares_of(findings: Sequence[Finding], series: Iterable[Series], watch: Watch) -> bool:
    """Whether all findings are shares of metrics that are among these series, of the same slice or as a whole."""
    there = set(series)
    return bool(findings) and all(
        any(
            name and ({Series(name, *TOTAL), Series(name, *finding.series[1:])} & there)
            for name in (watch.metrics[finding.series.metric].per, watch.metrics[finding.series.metric].of)
        )
        for finding in findings
    )


def _direction(cause: Sequence[Finding]) -> Direction:
    """Of the finding that stands for the cause: counts come before shares."""
    return cause[0].direction


def _parts(series: Iterable[Series], watch: Watch) -> set[str]:
    """The parts that series are about; the app as a whole only where they are about nothing else."""
    parts: set[str] = {watch.metrics[each.metric].metric.part for each in series}
    return parts - {"app"} or parts


def _lead(cause: Sequence[Finding], before: Finding | None) -> Finding | None:
    """The finding that shows a cause best: of the whole app before slices, the same one for as long as it shows."""
    if not cause:
        return before
    wholes = [finding for finding in cause if finding.series.is_total] or list(cause)
    same = [finding for finding in wholes if before and finding.series == before.series]
    return same[0] if same else max(wholes, key=lambda finding: abs(finding.score))
