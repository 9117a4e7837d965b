"""Incidents: which anomalies are one story, from its opening to its end, and which slices explain it.

Pure: verdicts in, incidents out. Incidents are a function of the verdicts alone, made anew for the last days by every
run from how they stood before those, so that runs that overlap, repeat or come late leave the same table. Moments are
pandas' timestamps, as everything that is read from ClickHouse: what is added to them passes by the same on every day,
whatever the clocks do.
"""

import hashlib
import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from pulse import PulseError, messages
from pulse.messages import BUCKET, Language, Metric
from pulse.monitoring import detector
from pulse.monitoring.detector import Thresholds, Verdict, judge_tick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Direction = Literal["drop", "spike", "data_lag"]
State = Literal["open", "resolved", "withdrawn"]

TOTAL = ("total", "all")
NUMBERS = ("value", "expected", "lower", "upper", "score", "deviation")
# Of a day's quarters of an hour, how far back contributions are added up: single buckets of small slices say little.
EXPLAINED = 16
# Users who would have been there: with fewer, silence may be chance.
LEAST_MISSED = 10
# A dimension explains an incident when at least this share of the deviation lies elsewhere than the volume does.
LEAST_CONCENTRATION = 0.2


class WatchError(PulseError):
    """The file that says what is watched is wrong; the text names the entry and what was expected."""


class Series(NamedTuple):
    """A metric of a slice; of the app as a whole where dimension and value are `TOTAL`."""

    metric: str
    dimension: str
    dimension_value: str

    @property
    def is_total(self) -> bool:
        """Whether it is about all users."""
        return (self.dimension, self.dimension_value) == TOTAL

    def __str__(self) -> str:
        return self.metric if self.is_total else f"{self.metric}, {self.dimension}: {self.dimension_value}"

    @classmethod
    def parse(cls, text: str) -> "Series":
        """The series that is written so."""
        metric, _, rest = text.partition(", ")
        dimension, _, value = rest.partition(": ")
        return cls(metric, dimension, value) if rest else cls(metric, *TOTAL)


# --- what is watched --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """A metric that is watched: its names, how sensitive the monitoring is, and who is told by name."""

    metric: Metric
    of: str = ""  # of a share: what is counted
    per: str = ""  # of a share: what it is a share of
    thresholds: Thresholds = field(default_factory=Thresholds)
    owners: tuple[str, ...] = ()


class Snooze(NamedTuple):
    """A metric of which nothing is told until a day is over: of one slice (`os: iOS`), or of all where it is empty."""

    metric: str
    slice: str
    until: date


@dataclass(frozen=True)
class Watch:
    """`notebooks/monitoring/watch.toml`, checked; what its entries mean stands there."""

    metrics: Mapping[str, Watched]
    least_share: float = 0.02
    most_alerts: int = 5
    resolve_after: int = 2
    reopen_hours: float = 2.0
    holidays: tuple[date, ...] = ()
    country: str = ""
    snoozes: tuple[Snooze, ...] = ()

    def is_holiday(self, day: date) -> bool:
        """Whether a day is one of the listed ones or a public holiday of the country."""
        return day in self.holidays or (bool(self.country) and day in _public_holidays(self.country))

    def snoozed(self, incident: "Incident", now: datetime) -> bool:
        """Whether all that an incident shows is snoozed."""
        silent = [snooze for snooze in self.snoozes if now.date() <= snooze.until]
        return bool(incident.series) and all(
            any(
                series.metric == snooze.metric and snooze.slice in ("", f"{series.dimension}: {series.dimension_value}")
                for snooze in silent
            )
            for series in incident.series
        )

    @property
    def thresholds(self) -> dict[str, Thresholds]:
        """Each metric's."""
        return {name: watched.thresholds for name, watched in self.metrics.items()}


def load_watch(path: Path) -> Watch:
    """Read what is watched.

    Raises:
        WatchError: there is no such file, it is not TOML, or an entry is wrong.
    """
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise WatchError(f"{path} cannot be read ({error.strerror}); restore it.") from None
    except tomllib.TOMLDecodeError as error:
        raise WatchError(f"{path.name} is not TOML: {error}; correct it.") from None
    try:
        metrics = {name: _watched(name, dict(entry)) for name, entry in found.pop("metrics", {}).items()}
        snoozes = [
            Snooze(entry["metric"], entry.get("slice", ""), date.fromisoformat(str(entry["until"])))
            for entry in found.pop("snooze", [])
        ]
        holidays = tuple(date.fromisoformat(str(day)) for day in found.pop("holidays", []))
        watch = Watch(metrics, holidays=holidays, snoozes=tuple(snoozes), **found)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise WatchError(
            f"{path.name} has an entry that is wrong or unknown: {error}; its comments say what it takes."
        ) from None
    unknown = {snooze.metric for snooze in watch.snoozes} - set(metrics)
    shares = {name for watched in metrics.values() for name in (watched.of, watched.per) if name} - set(metrics)
    if not metrics or unknown or shares:
        wrong = ", ".join(sorted(unknown | shares)) or "no metric at all"
        raise WatchError(f"{path.name} names what it does not watch: {wrong}; add it under [metrics], or take it out.")
    if watch.country:
        _public_holidays(watch.country)
    return watch


def _watched(name: str, entry: dict[str, Any]) -> Watched:
    metric = Metric(entry.pop("part"), name, entry.pop("unit"), entry.pop("en"), entry.pop("ru"))
    rest = {key: entry.pop(key) for key in ("of", "per") if key in entry}
    owners = tuple(entry.pop("owners", ()))
    if (metric.unit == "share") != (len(rest) == 2):
        raise ValueError(f"{name}: a share, and only a share, has both of and per")
    return Watched(metric, **rest, thresholds=replace(Thresholds(), **entry), owners=owners)


@cache
def _public_holidays(country: str) -> Any:
    import holidays

    try:
        return holidays.country_holidays(country)
    except NotImplementedError:
        raise WatchError(
            f"watch.toml: '{country}' is no country whose holidays are known; give one such as RU."
        ) from None


# --- incidents --------------------------------------------------------------------------------------------------------


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


# --- histories and verdicts -------------------------------------------------------------------------------------------


def histories(slices: pd.DataFrame, buckets: pd.DatetimeIndex, watch: Watch, known_until: datetime) -> pd.DataFrame:
    """The metrics of each slice by bucket.

    Args:
        slices: one row per slice, the total among them: `dimension`, `dimension_value`, `places` (of buckets in
            `buckets`) and for each metric its values there, as arrays.
        buckets: the first moments of the buckets.
        watch: what is watched; a share's history is that of what it counts.
        known_until: the latest event of all.

    Returns:
        A column per `Series`. A bucket without a row is 0; before the first row of all, and from `known_until` on, NaN.
    """
    series = [Series(name, row.dimension, row.dimension_value) for row in slices.itertuples() for name in watch.metrics]
    values = np.zeros((len(buckets), len(series)), order="F")
    columns = {watched.of or name for name, watched in watch.metrics.items()}
    place = 0
    for row in slices.to_dict("records"):
        rows = np.asarray(row["places"], dtype=np.int64)
        counted = {name: np.asarray(row[name], dtype=np.float64) for name in columns}
        for name, watched in watch.metrics.items():
            values[rows, place] = counted[watched.of or name]
            place += 1
    total = slices[slices["dimension"] == TOTAL[0]]
    values[: min(map(min, total["places"]), default=len(buckets))] = np.nan
    values[np.asarray(buckets >= pd.Timestamp(known_until))] = np.nan
    return pd.DataFrame(values, index=buckets, columns=pd.Index(series, tupleize_cols=False))


def known_until(slices: pd.DataFrame, buckets: pd.DatetimeIndex, watermark: datetime) -> datetime:
    """Until when it is known what happened: the watermark, or the end of the buckets where silence since is ordinary.

    An app in which nothing happens at night is not late every night: silence says that data is late only where
    `LEAST_MISSED` users would have been expected in it, going by the same time of the weeks before.

    Args:
        slices: as for `histories`.
        buckets: as for `histories`.
        watermark: the latest event of all.
    """
    end = buckets[-1] + BUCKET
    total = slices[slices["dimension"] == TOTAL[0]]
    if watermark >= end or total.empty:
        return max(watermark, end)
    users = np.zeros(len(buckets))
    users[total["places"].iloc[0]] = total["app_users"].iloc[0]
    silent = np.flatnonzero(buckets >= pd.Timestamp(watermark))
    week = timedelta(days=7) // BUCKET
    # The same time is the same on the wall: where clocks were changed since, it is so many buckets from where it was.
    ahead = (buckets.tz_localize(None) - buckets.tz_convert("UTC").tz_localize(None)) // pd.Timedelta(BUCKET)
    earlier = []
    for back in (weeks * week for weeks in range(1, 5)):
        if len(silent) and silent[0] >= back:
            places = silent - back + ahead[silent] - ahead[silent - back]
            earlier.append(users[np.clip(places, 0, len(users) - 1)])
    missed = np.median(earlier, axis=0).sum() if earlier else math.inf
    return watermark if missed >= LEAST_MISSED else end


def judge(
    history: pd.DataFrame, watch: Watch, lag_minutes: float = 0.0, thresholds: Mapping[str, Thresholds] | None = None
) -> dict[Series, Verdict]:
    """The verdict on the last bucket of each series.

    Args:
        history: of `histories`, up to the bucket to judge.
        watch: what is watched.
        lag_minutes: how late the data is.
        thresholds: others than those of `watch`, by metric.
    """
    by_metric = thresholds or watch.thresholds
    series: list[Series] = list(history.columns)
    kinds = {place: "ratio" for place, each in enumerate(series) if watch.metrics[each.metric].per}
    below = {place: denominator(history, series[place], watch) for place in kinds}
    verdicts = judge_tick(
        history.set_axis(range(len(series)), axis=1),
        denominators=pd.DataFrame(below) if below else None,
        kinds=kinds,
        lag_minutes=lag_minutes,
        is_holiday=watch.is_holiday,
        thresholds={place: by_metric[each.metric] for place, each in enumerate(series)},
    )
    return {each: verdicts[place] for place, each in enumerate(series)}


def denominator(history: pd.DataFrame, series: Series, watch: Watch) -> pd.Series | None:
    """What a share is a share of; None for what is no share."""
    per = watch.metrics[series.metric].per
    return history[Series(per, *series[1:])] if per else None


def verdict_rows(bucket: datetime, verdicts: Mapping[Series, Verdict]) -> list[dict[str, Any]]:
    """Rows for table `verdicts`: one a series, and where nothing can be said because the data is late, one without.

    Judged again once the data is there, the series' rows say what it holds; the other one goes on saying it was late.
    """
    said = ("kind", "is_anomaly", *NUMBERS, "window")
    found = [
        {"bucket": bucket, **series._asdict(), **{name: _finite(getattr(verdict, name)) for name in said}}
        for series, verdict in verdicts.items()
    ]
    kinds = {verdict.kind for verdict in verdicts.values()}
    if "data_lag" in kinds and kinds <= {"data_lag", "unknown"}:
        found.append(
            {"bucket": bucket, **Series("", *TOTAL)._asdict(), "kind": "data_lag", "is_anomaly": False, "window": 1}
        )
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unchanged(verdicts: pd.DataFrame, history: pd.DataFrame, watch: Watch) -> set[datetime]:
    """The buckets that were judged, none of their series was late, and that held then what they hold now.

    Args:
        verdicts: rows of table `verdicts`: `bucket`, the columns of a series, `kind`, `value`.
        history: of `histories`.
        watch: what is watched.
    """
    verdicts = verdicts[verdicts["metric"] != ""]
    late = verdicts["bucket"][verdicts["kind"] == "data_lag"]
    columns = {tuple(series): place for place, series in enumerate(history) if not watch.metrics[series.metric].per}
    keys = zip(verdicts["metric"], verdicts["dimension"], verdicts["dimension_value"], strict=True)
    column = np.array([columns.get(key, -1) for key in keys], dtype=np.int64)
    counted = verdicts[column >= 0]
    now = history.to_numpy()[history.index.get_indexer(counted["bucket"]), column[column >= 0]]
    same = np.isclose(now, counted["value"].to_numpy(dtype=float, na_value=np.nan), rtol=0, atol=0, equal_nan=True)
    changed = counted["bucket"][~same]
    return set(verdicts["bucket"].unique()) - set(late.unique()) - set(changed.unique())


# --- as they stand in ClickHouse --------------------------------------------------------------------------------------


def ticks(verdicts: pd.DataFrame) -> list[Tick]:
    """The ticks of rows of table `verdicts`."""
    findings: dict[datetime, list[Finding]] = {bucket: [] for bucket in verdicts["bucket"]}
    for row in verdicts[verdicts["is_anomaly"]].to_dict("records"):
        series = Series(row["metric"], row["dimension"], row["dimension_value"])
        findings[row["bucket"]].append(_finding(series, row))
    of_series = verdicts["metric"] != ""
    late = set(verdicts["bucket"][~of_series])
    known = set(verdicts["bucket"][of_series & ~verdicts["kind"].isin(["data_lag", "unknown"])])
    return [Tick(bucket, bucket in late, tuple(found), bucket in known) for bucket, found in findings.items()]


def _finding(series: Series, row: Mapping[str, Any]) -> Finding:
    numbers = {name: math.nan if row[name] is None else float(row[name]) for name in NUMBERS}
    return Finding(series, "drop" if numbers["score"] < 0 else "spike", **numbers, window=int(row["window"]))


def carried(stored: pd.DataFrame, start: datetime, watch: Watch) -> list[Incident]:
    """The incidents that began before a moment and could still go on then, as they stood at it, the earliest first.

    With them nobody has to read what was judged since they began, however long they have been open.

    Args:
        stored: rows of table `incidents`.
        start: the moment; the ticks from it on are to be folded.
        watch: what is watched.
    """
    found = []
    known = [row for row in stored.to_dict("records") if row["state"] != "withdrawn" and row["opened"] < start]
    for incident in map(from_row, sorted(known, key=lambda row: row["opened"])):
        if incident.resolved is None or incident.resolved > start:
            updated = min(incident.updated, start - BUCKET)
            found.append(replace(incident, state="open", resolved=None, updated=updated))
        elif start - incident.resolved < timedelta(hours=watch.reopen_hours):
            found.append(incident)
    return found


def adopt(incidents: Sequence[Incident], stored: pd.DataFrame) -> list[Incident]:
    """The incidents, each with the reference under which it is known.

    Data that comes late may move an incident's beginning, and with it the reference that is made from it; the message
    about it stays the same.
    """
    made, stands = {incident.ref for incident in incidents}, set(stored["incident"])
    known = [row for row in stored.to_dict("records") if row["incident"] not in made and row["state"] != "withdrawn"]
    found = []
    for incident in incidents:
        end = incident.resolved or datetime.max.replace(tzinfo=incident.opened.tzinfo)
        same = next(
            (
                row
                for row in known
                if row["direction"] == incident.direction and row["opened"] < end and incident.opened <= row["updated"]
            ),
            None,
        )
        if same and incident.ref not in stands:
            known.remove(same)
            incident = replace(incident, ref=same["incident"])
        found.append(incident)
    return found


def rows(incidents: Sequence[Incident], reasons: "Mapping[str, Sequence[Contribution]]") -> list[dict[str, Any]]:
    """Rows for table `incidents`, with what explains each as evidence."""
    found = []
    for incident in incidents:
        lead = incident.lead
        numbers = {name: getattr(lead, name) if lead else 0.0 for name in NUMBERS}
        found.append(
            {
                "incident": incident.ref,
                "state": incident.state,
                "direction": incident.direction,
                "opened": incident.opened,
                "updated": incident.updated,
                "resolved": incident.resolved,
                **(lead.series if lead else Series("", *TOTAL))._asdict(),
                **{name: _finite(value) for name, value in numbers.items()},
                "window": lead.window if lead else 1,
                "series": [str(each) for each in incident.series],
                "showing": [str(each) for each in incident.showing],
                "evidence": json.dumps([asdict(each) for each in reasons.get(incident.ref, ())], ensure_ascii=False),
            }
        )
    return found


def from_row(row: Mapping[str, Any]) -> Incident:
    """The incident of a row of table `incidents`."""
    lead = None
    if row["metric"]:
        series = Series(row["metric"], row["dimension"], row["dimension_value"])
        lead = _finding(series, row)
    return Incident(
        row["incident"],
        row["direction"],
        row["opened"],
        row["updated"],
        lead,
        tuple(map(Series.parse, row["series"])),
        tuple(map(Series.parse, row["showing"])),
        None if pd.isna(row["resolved"]) else row["resolved"],
        state=row["state"],
    )


def changed(new: Sequence[Mapping[str, Any]], stored: pd.DataFrame, start: datetime) -> list[dict[str, Any]]:
    """The rows to write: those that say something else than the stored ones, and what is to be withdrawn.

    Args:
        new: the rows of all incidents since `start`.
        stored: rows of table `incidents`.
        start: from when on the incidents were made anew.
    """
    before = {row["incident"]: row for row in stored.to_dict("records")}
    written = [dict(row) for row in new if row["incident"] not in before or not _same(row, before[row["incident"]])]
    made = {row["incident"] for row in new}
    for ref, row in before.items():
        if ref not in made and row["opened"] >= start and row["state"] != "withdrawn":
            gone = {name: value for name, value in row.items() if name != "recorded_at"}
            written.append({**gone, "state": "withdrawn", "resolved": row["updated"] + BUCKET})
    return written


def _same(new: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    for name, value in new.items():
        there = stored[name]
        if value is None or (not isinstance(value, list) and pd.isna(value)):
            if not pd.isna(there):
                return False
        elif isinstance(value, float):
            if not math.isclose(value, there, rel_tol=1e-9, abs_tol=1e-12):
                return False
        elif value != there:
            return False
    return True


# --- what is told -----------------------------------------------------------------------------------------------------


def alerts(
    stories: Sequence[Incident],
    reasons: "Mapping[str, Sequence[Contribution]]",
    watch: Watch,
    language: Language,
    superset_url: str = "",
) -> list[dict[str, Any]]:
    """The messages about incidents: one each, edited while it lives, and a reply once it is over.

    More than `most_alerts` that opened in the same bucket are told in one message.

    Returns:
        For `DeliverAlertsOperator`, in the order of sending: `report` and `event_date` (the key of the delivery),
        `text`, `chart` (the name of the scrap that has it), `silent`, `only_edits`, `reply_to` (the report that is
        answered). What a message says depends on its incident alone, so that telling it again changes nothing.
    """
    told: list[dict[str, Any]] = []
    together: dict[datetime, list[Incident]] = defaultdict(list)
    for story in stories:
        together[story.opened].append(story)
    for opened, group in sorted(together.items()):
        day = opened.date()
        shared = {"event_date": str(day), "only_edits": False, "reply_to": None}
        link = messages.dashboard_link(superset_url, day)
        if len(group) > watch.most_alerts:
            now = max(story.updated for story in group)
            lines = [
                (story, messages.explanation(story, reasons.get(story.ref, ()), watch, language)) for story in group
            ]
            text = messages.incidents_at_once(lines, watch, language, now=now, link=link)
            over = all(story.resolved for story in group)
            report = f"incidents of {_clock(opened)}"
            told.append({**shared, "report": report, "text": text, "chart": None, "silent": over})
            continue
        for story in group:
            now, why = story.resolved or story.updated, reasons.get(story.ref, ())
            message = {
                "report": f"incident {story.ref}",
                "text": messages.incident(story, watch, why, language, now=now, link=link),
                "chart": f"chart_{story.ref}",
                "silent": story.resolved is not None,
            }
            told.append({**shared, **message, "only_edits": story.state == "withdrawn"})
            if story.resolved and story.state == "resolved":
                reply = {
                    "report": f"incident {story.ref} over {_clock(story.resolved)}",
                    "text": messages.incident_over(story, watch, language, now=now),
                    "chart": None,
                    "silent": True,
                    "reply_to": message["report"],
                }
                told.append({**shared, **reply})
    return told


def _clock(moment: datetime) -> str:
    """The time of day in a delivery's key: the hour that comes twice has two of each."""
    return f"{moment:%H:%M} again" if moment.fold else f"{moment:%H:%M}"


def chart(story: Incident, history: pd.DataFrame, watch: Watch, language: Language) -> "Figure":
    """The series that shows an incident best, over the day to the last bucket that shows it, with its expected range.

    Args:
        story: an incident that has a leading series, which is in the history.
        history: of `histories`.
        watch: what is watched.
        language: of the chart.
    """
    from pulse.reports import charts

    assert story.lead is not None
    series = story.lead.series
    watched = watch.metrics[series.metric]
    until = history[: story.updated]
    band = detector.band(
        until[series],
        denominator=denominator(until, series, watch),
        kind="ratio" if watched.per else "count",
        is_holiday=watch.is_holiday,
        thresholds=watched.thresholds,
    )
    shown = [bucket for bucket in band.index if story.opened <= bucket <= story.updated]
    title = messages.capital(messages.incident_title(story, watch, language))
    return charts.incident(title, watched.metric, band, shown, language)


# --- the explanation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contribution:
    """What a slice contributes to a deviation.

    Args:
        dimension: of the slice.
        dimension_value: of the slice.
        deviation: how far it is off: a share of what was expected of it; of a rate, the difference.
        share: of the whole deviation; all slices of a dimension add up to 1.
        mix: of a rate, the part of its contribution that comes from its size among the slices, as a difference of the
            whole rate.
        off: whether it goes the way of the whole, and far enough to be named; else it counts as normal.
    """

    dimension: str
    dimension_value: str
    deviation: float
    share: float
    mix: float = 0.0
    off: bool = True


def explain(verdicts: pd.DataFrame, incident: Incident, watch: Watch) -> list[Contribution]:
    """The slices that carry an incident: of the dimension that tells most, the largest contribution first.

    Args:
        verdicts: rows of table `verdicts` of the incident's buckets.
        incident: what to explain.
        watch: what is watched.

    Returns:
        Contributions of one dimension's slices, for an incident of a slice of its own dimension's; empty where all
        slices go alike, or nothing is known of them.

    The contribution of a slice to a count is its deviation. That of a rate follows the shift-share decomposition:
    Σ wᵢ (rᵢ − r̂ᵢ) by rates and Σ (wᵢ − ŵᵢ)(r̂ᵢ − r̂) by the mix, with wᵢ a slice's share of the denominator.
    """
    if incident.lead is None:
        return []
    name = incident.lead.series.metric
    watched = watch.metrics[name]
    first = max(incident.opened, incident.updated - (EXPLAINED - 1) * BUCKET)
    recent = verdicts[(verdicts["bucket"] >= first) & (verdicts["bucket"] <= incident.updated)]
    recent = recent[(recent["dimension"] != TOTAL[0]) & recent["value"].notna() & recent["expected"].notna()]
    if not incident.lead.series.is_total:  # the other slices of its dimension: are they as usual?
        recent = recent[recent["dimension"] == incident.lead.series.dimension]
    best: list[Contribution] = []
    most = LEAST_CONCENTRATION if incident.lead.series.is_total else -1.0
    for dimension, group in recent.groupby("dimension"):
        if watched.per:
            found, concentration = _of_rate(str(dimension), group, name, watched)
        else:
            found, concentration = _of_count(str(dimension), group[group["metric"] == name], watched)
        if concentration > most:
            best, most = found, concentration
    return sorted(best, key=lambda each: each.share, reverse=True)


def _is_off(deviations: pd.Series, share: pd.Series, value: str, watched: Watched) -> bool:
    """Whether a slice goes the way of the whole, and at least half as far as the slice that goes furthest."""
    along = deviations.where(share > 0, 0.0).fillna(0.0).abs()
    return bool(along[value] >= max(watched.thresholds.effect, along.max() / 2))


def _of_count(dimension: str, group: pd.DataFrame, watched: Watched) -> tuple[list[Contribution], float]:
    sums = group.groupby("dimension_value")[["value", "expected"]].sum()
    off = sums["value"] - sums["expected"]
    if len(sums) < 2 or not off.sum() or not sums["expected"].sum():
        return [], 0.0
    share, volume = off / off.sum(), sums["expected"] / sums["expected"].sum()
    relative = off / sums["expected"].where(sums["expected"] > 0)
    found = [
        Contribution(
            dimension,
            str(value),
            float(relative[value]),
            float(share[value]),
            off=_is_off(relative, share, str(value), watched),
        )
        for value in sums.index
        if pd.notna(relative[value])
    ]
    return found, float((share - volume).abs().sum() / 2)


def _of_rate(dimension: str, group: pd.DataFrame, name: str, watched: Watched) -> tuple[list[Contribution], float]:
    table = group.pivot_table(index="dimension_value", columns="metric", values=["value", "expected"], aggfunc="sum")
    counted = [("value", watched.of), ("value", watched.per), ("expected", watched.per)]
    rates = group[group["metric"] == name].groupby("dimension_value")["expected"].mean()
    if any(column not in table.columns for column in counted) or len(rates) < 2:
        return [], 0.0
    table = table.loc[table.index.intersection(rates.index)]
    count, per, per_expected = (table[column] for column in counted)
    if not per.sum() or not per_expected.sum():
        return [], 0.0
    weight, weight_expected = per / per.sum(), per_expected / per_expected.sum()
    expected = rates[table.index]
    rate = (count / per.where(per > 0)).fillna(expected)
    by_rate = weight * (rate - expected)
    by_mix = (weight - weight_expected) * (expected - (weight_expected * expected).sum())
    whole = float((by_rate + by_mix).sum())
    if not whole:
        return [], 0.0
    share = (by_rate + by_mix) / whole
    found = [
        Contribution(
            dimension,
            str(value),
            float(rate[value] - expected[value]),
            float(share[value]),
            float(by_mix[value]),
            off=_is_off(rate / expected.where(expected > 0) - 1, share, str(value), watched),
        )
        for value in table.index
    ]
    moved = float(by_mix.abs().sum() / (by_rate.abs() + by_mix.abs()).sum())
    return found, max(moved, float((share - weight_expected).abs().sum() / 2))
