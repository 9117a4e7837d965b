"""Joins anomalies that share a cause into incidents, and follows each from its opening to its end.

Pure: verdicts in, incidents out, and nothing else matters. Every run computes the incidents of the last days again,
starting from how older ones stood, so runs that overlap, repeat or come late leave the same table.

Moments are pandas timestamps, as ClickHouse returns them: adding a timedelta to one adds elapsed time, on days of clock
changes too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from pulse.metrics import BUCKET, PartName
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.watch import Watch

Direction: TypeAlias = Literal["drop", "spike", "data_lag"]
State: TypeAlias = Literal["open", "resolved", "withdrawn"]


@dataclass(frozen=True)
class Anomaly:
    """A series that is out of its expected range in a bucket.

    Args:
        series: what is out of range.
        direction: `drop` or `spike`.
        value: what the bucket holds.
        expected: what it should hold.
        lower: the least that was expected.
        upper: the most that was expected.
        score: standard deviations from what was expected.
        deviation: over the window, as a share of what was expected; NaN if nothing was expected.
        window: how many buckets, this one the last of them, show the anomaly best.
    """

    series: Series
    direction: Direction
    value: float
    expected: float
    lower: float
    upper: float
    score: float
    deviation: float
    window: int


Cause: TypeAlias = list[Anomaly]
"""Anomalies of one bucket that share a cause; the first one's direction counts."""


@dataclass(frozen=True)
class Tick:
    """What the detector found in a bucket.

    Args:
        bucket: its first moment.
        late: whether its data was missing when it was first judged.
        anomalies: the series that are out of range.
        known: whether any series could be judged by now. A tick that is not known ends no incident.
    """

    bucket: datetime
    late: bool = False
    anomalies: tuple[Anomaly, ...] = ()
    known: bool = True


@dataclass(frozen=True)
class Incident:
    """Anomalies that share a cause, from the first bucket to the last, or a span of late data.

    Args:
        ref: its reference, the same in every run that computes it.
        direction: whether it is a drop, a spike or late data.
        opened: the first bucket that shows it.
        updated: the last bucket that shows it.
        lead: the series that shows it best, as it was in the last bucket that shows it; None for late data.
        series: all series that showed it, in the order of appearance.
        showing: the series that show it in the last bucket.
        resolved: the first moment that no longer shows it; None while it is open.
        quiet: how many buckets in a row have not shown it since.
        state: `open`, `resolved`, or `withdrawn` if data that came later took it back.
    """

    ref: str
    direction: Direction
    opened: datetime
    updated: datetime
    lead: Anomaly | None = None
    series: tuple[Series, ...] = ()
    showing: tuple[Series, ...] = ()
    resolved: datetime | None = None
    quiet: int = 0
    state: State = "open"


def fold(ticks: Iterable[Tick], watch: Watch, carried: Sequence[Incident] = ()) -> list[Incident]:
    """Compute the incidents of a span of ticks.

    Anomalies of a bucket that share a cause continue an incident that is open, or was until lately; otherwise they open
    a new one. An incident ends after `resolve_after` quiet buckets. Late data stays an incident after it has arrived.
    Anomalies of a metric that is no longer watched are ignored.

    Args:
        ticks: in any order; a tick for every bucket.
        watch: what is watched.
        carried: the incidents that began before the first tick, as they stood then.

    Returns:
        The incidents in the order of opening. A carried incident that the ticks do not change is left out.
    """
    incidents: list[Incident] = list(carried)
    for tick in sorted(ticks, key=lambda each: each.bucket):
        continued: set[str] = set()
        if tick.late:
            continued.add(_continue_or_open(incidents, tick, "data_lag", [], watch))
        watched = [anomaly for anomaly in tick.anomalies if anomaly.series.metric in watch.metrics]
        for cause in _causes(watched, watch):
            continued.add(_continue_or_open(incidents, tick, _direction(cause), cause, watch))
        for position, incident in enumerate(incidents):
            judged = not tick.late if incident.direction == "data_lag" else tick.known
            if incident.state == "open" and incident.ref not in continued and judged:
                incidents[position] = _after_quiet_bucket(incident, watch)
    return [incident for incident in incidents if incident not in carried]


def _continue_or_open(incidents: list[Incident], tick: Tick, direction: Direction, cause: Cause, watch: Watch) -> str:
    """Add a cause to the incident that it continues, or open a new one; returns the incident's reference."""
    showing = tuple(anomaly.series for anomaly in cause)
    for position, incident in enumerate(incidents):
        if _continues(incident, tick, direction, cause, watch):
            incidents[position] = replace(
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
    name = f"{tick.bucket.timestamp():.0f} {direction} {' '.join(sorted(_parts(showing, watch)))}"
    ref = hashlib.sha256(name.encode()).hexdigest()[:8]
    incidents.append(Incident(ref, direction, tick.bucket, tick.bucket, _lead(cause, None), showing, showing))
    return ref


def _continues(incident: Incident, tick: Tick, direction: Direction, cause: Cause, watch: Watch) -> bool:
    """Whether a cause continues an incident."""
    if incident.updated == tick.bucket:  # another cause of this bucket continues it already
        return False
    if incident.resolved and tick.bucket - incident.resolved >= timedelta(hours=watch.reopen_hours):
        return False
    if direction == "data_lag":
        return direction == incident.direction and incident.state == "open"
    if _are_shares_of(cause, incident.series, watch):
        return True
    parts = _parts((anomaly.series for anomaly in cause), watch)
    return direction == incident.direction and bool(parts & _parts(incident.series, watch))


def _after_quiet_bucket(incident: Incident, watch: Watch) -> Incident:
    quiet = incident.quiet + 1
    if quiet < watch.resolve_after and incident.direction != "data_lag":
        return replace(incident, quiet=quiet)
    return replace(incident, quiet=quiet, state="resolved", resolved=incident.updated + BUCKET)


def _causes(anomalies: Sequence[Anomaly], watch: Watch) -> list[Cause]:
    """Divide the anomalies of a bucket by cause.

    Counts of one part of the product that move the same way share a cause. So do parts that move the same way in the
    app as a whole or in the same slice. A share has the same cause as its numerator or denominator.
    """
    causes: list[Cause] = []
    for group in _counts_by_part(anomalies, watch):
        _add(group, _same_way_and_slice(causes, group), causes)
    for anomaly in anomalies:
        if _is_share(anomaly, watch):
            _add([anomaly], _cause_of_share(causes, anomaly, watch), causes)
    return causes


def _add(group: Cause, to: Cause | None, causes: list[Cause]) -> None:
    """Add anomalies to a cause, or to the causes as a new one."""
    if to is None:
        causes.append(group)
    else:
        to += group


def _counts_by_part(anomalies: Iterable[Anomaly], watch: Watch) -> list[Cause]:
    """The counts by part and direction, those of the app as a whole last, so that they can join another part's."""
    groups: dict[tuple[PartName, Direction], Cause] = defaultdict(list)
    for anomaly in anomalies:
        if not _is_share(anomaly, watch):
            groups[watch.metrics[anomaly.series.metric].metric.part, anomaly.direction].append(anomaly)
    return [group for _, group in sorted(groups.items(), key=lambda item: item[0][0] == "app")]


def _same_way_and_slice(causes: Iterable[Cause], group: Cause) -> Cause | None:
    """The first cause that moves the same way as a group, in a slice that the group has too."""
    slices = {anomaly.series[1:] for anomaly in group}
    for cause in causes:
        if _direction(cause) == _direction(group) and slices & {anomaly.series[1:] for anomaly in cause}:
            return cause
    return None


def _cause_of_share(causes: Sequence[Cause], share: Anomaly, watch: Watch) -> Cause | None:
    """The first cause that has a share's numerator or denominator, or else only shares that move the same way."""
    for cause in causes:
        if _are_shares_of([share], [anomaly.series for anomaly in cause], watch):
            return cause
    for cause in causes:
        if _direction(cause) == share.direction and all(_is_share(anomaly, watch) for anomaly in cause):
            return cause
    return None


def _is_share(anomaly: Anomaly, watch: Watch) -> bool:
    return bool(watch.metrics[anomaly.series.metric].per)


def _are_shares_of(anomalies: Sequence[Anomaly], series: Iterable[Series], watch: Watch) -> bool:
    """Whether all anomalies are shares of metrics among these series, of the same slice or of the app as a whole."""
    there = set(series)

    def is_share_of_one(share: Series) -> bool:
        watched = watch.metrics[share.metric]
        divided = [name for name in (watched.per, watched.of) if name]
        return any({Series(name, *TOTAL), Series(name, *share[1:])} & there for name in divided)

    return bool(anomalies) and all(is_share_of_one(anomaly.series) for anomaly in anomalies)


def _direction(cause: Cause) -> Direction:
    """The direction of the first anomaly; counts come before shares."""
    return cause[0].direction


def _parts(series: Iterable[Series], watch: Watch) -> set[PartName]:
    """The parts of the product that series belong to; `app` only if they belong to no other."""
    parts = {watch.metrics[each.metric].metric.part for each in series}
    return parts - {"app"} or parts


def _lead(cause: Cause, before: Anomaly | None) -> Anomaly | None:
    """The anomaly that shows a cause best.

    The app as a whole comes before slices, and the series that led so far stays for as long as it shows.
    """
    if not cause:
        return before
    candidates = [anomaly for anomaly in cause if anomaly.series.is_total] or cause
    same = [anomaly for anomaly in candidates if before and anomaly.series == before.series]
    return same[0] if same else max(candidates, key=lambda anomaly: abs(anomaly.score))
