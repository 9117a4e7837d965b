"""Turns verdicts and incidents into rows of their tables in ClickHouse, and rows into ticks and incidents."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from pulse.metrics import BUCKET
from pulse.monitoring.detector import Verdict
from pulse.monitoring.explanation import Contribution
from pulse.monitoring.history import series_of
from pulse.monitoring.incidents import Anomaly, Incident, Tick
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.watch import Watch

TableRow: TypeAlias = dict[str, Any]
"""A row of one of the monitoring's tables, by column."""

NUMBERS = ("value", "expected", "lower", "upper", "score", "deviation")


def verdict_rows(bucket: datetime, verdicts: Mapping[Series, Verdict]) -> list[TableRow]:
    """Make rows for table `verdicts`, one per series.

    If no series can be judged because the data is late, there is one more row, without a metric. Once the data has
    arrived, the bucket is judged again and the series' rows are replaced; the row without a metric stays, as a record
    that the data was late.
    """
    columns = ("kind", "is_anomaly", *NUMBERS, "window")
    rows = [
        {"bucket": bucket, **series._asdict(), **{name: _finite(getattr(verdict, name)) for name in columns}}
        for series, verdict in verdicts.items()
    ]
    kinds = {verdict.kind for verdict in verdicts.values()}
    if "data_lag" in kinds and kinds <= {"data_lag", "unknown"}:
        rows.append(
            {"bucket": bucket, **Series("", *TOTAL)._asdict(), "kind": "data_lag", "is_anomaly": False, "window": 1}
        )
    return rows


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(frame: pd.DataFrame) -> list[TableRow]:
    """The rows of a frame, by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def unchanged(verdicts: pd.DataFrame, history: pd.DataFrame, watch: Watch) -> set[datetime]:
    """Find the buckets that need not be judged again: no series was late, and all hold what they held when judged.

    Args:
        verdicts: rows of table `verdicts`: `bucket`, the columns of a series, `kind`, `value`.
        history: from `histories`.
        watch: what is watched.
    """
    verdicts = verdicts[verdicts["metric"] != ""]
    late = verdicts["bucket"][verdicts["kind"] == "data_lag"]
    columns = {
        tuple(series): position
        for position, series in enumerate(series_of(history))
        if not watch.metrics[series.metric].per
    }
    keys = zip(verdicts["metric"], verdicts["dimension"], verdicts["dimension_value"], strict=True)
    column = np.array([columns.get(key, -1) for key in keys], dtype=np.int64)
    counted = verdicts[column >= 0]
    now = history.to_numpy()[history.index.get_indexer(pd.Index(counted["bucket"])), column[column >= 0]]
    same = np.isclose(now, counted["value"].to_numpy(dtype=float, na_value=np.nan), rtol=0, atol=0, equal_nan=True)
    changed = counted["bucket"][~same]
    return set(verdicts["bucket"].unique()) - set(late.unique()) - set(changed.unique())


def ticks(verdicts: pd.DataFrame) -> list[Tick]:
    """Read the ticks from rows of table `verdicts`."""
    anomalies: dict[datetime, list[Anomaly]] = {bucket: [] for bucket in verdicts["bucket"]}
    for row in _records(verdicts[verdicts["is_anomaly"]]):
        anomalies[row["bucket"]].append(_anomaly(row))
    of_series = verdicts["metric"] != ""
    late = set(verdicts["bucket"][~of_series])
    known = set(verdicts["bucket"][of_series & ~verdicts["kind"].isin(["data_lag", "unknown"])])
    return [Tick(bucket, bucket in late, tuple(some), bucket in known) for bucket, some in anomalies.items()]


def _anomaly(row: Mapping[str, Any]) -> Anomaly:
    series = Series(row["metric"], row["dimension"], row["dimension_value"])
    numbers = {name: math.nan if row[name] is None else float(row[name]) for name in NUMBERS}
    return Anomaly(series, "drop" if numbers["score"] < 0 else "spike", **numbers, window=int(row["window"]))


def carried(stored: pd.DataFrame, start: datetime, watch: Watch) -> list[Incident]:
    """Find the incidents that began before a moment and may go on after it, as they stood at that moment.

    With them no run has to read all verdicts since an incident began, however long it has been open.

    Args:
        stored: rows of table `incidents`.
        start: the moment from which on ticks will be folded.
        watch: what is watched.

    Returns:
        The incidents in the order of opening.
    """
    incidents = []
    before = [row for row in _records(stored) if row["state"] != "withdrawn" and row["opened"] < start]
    for incident in map(from_row, sorted(before, key=lambda row: row["opened"])):
        if incident.resolved is None or incident.resolved > start:
            updated = min(incident.updated, start - BUCKET)
            incidents.append(replace(incident, state="open", resolved=None, updated=updated))
        elif start - incident.resolved < timedelta(hours=watch.reopen_hours):
            incidents.append(incident)
    return incidents


def adopt(incidents: Sequence[Incident], stored: pd.DataFrame) -> list[Incident]:
    """Give the incidents the references under which they are stored.

    Data that comes late may move the beginning of an incident, and with it the reference that is made from it. With the
    stored reference, the message about it stays the same.
    """
    made, known = {incident.ref for incident in incidents}, set(stored["incident"])
    free = [row for row in _records(stored) if row["incident"] not in made and row["state"] != "withdrawn"]
    adopted = []
    for incident in incidents:
        same = next((row for row in free if _overlaps(incident, row)), None)
        if same and incident.ref not in known:
            free.remove(same)
            incident = replace(incident, ref=same["incident"])
        adopted.append(incident)
    return adopted


def _overlaps(incident: Incident, row: TableRow) -> bool:
    """Whether a stored incident has the same direction as an incident, and a bucket in common with it."""
    end = incident.resolved or datetime.max.replace(tzinfo=incident.opened.tzinfo)
    in_time = row["opened"] < end and incident.opened <= row["updated"]
    return bool(row["direction"] == incident.direction and in_time)


def incident_rows(incidents: Sequence[Incident], reasons: Mapping[str, Sequence[Contribution]]) -> list[TableRow]:
    """Make rows for table `incidents`, with the contributions that explain each as evidence."""
    rows = []
    for incident in incidents:
        lead = incident.lead
        numbers = {name: getattr(lead, name) if lead else 0.0 for name in NUMBERS}
        rows.append(
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
    return rows


def from_row(row: Mapping[str, Any]) -> Incident:
    """Read the incident from a row of table `incidents`."""
    lead = _anomaly(row) if row["metric"] else None
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


def changed_rows(new: Sequence[TableRow], stored: pd.DataFrame, start: datetime) -> list[TableRow]:
    """Find the rows to write: those that differ from the stored ones, and those of incidents to withdraw.

    Args:
        new: the rows of all incidents since `start`.
        stored: rows of table `incidents`.
        start: the moment from which on the incidents were computed again.
    """
    before = {row["incident"]: row for row in _records(stored)}
    to_write = [dict(row) for row in new if row["incident"] not in before or not _same(row, before[row["incident"]])]
    made = {row["incident"] for row in new}
    for ref, row in before.items():
        if ref not in made and row["opened"] >= start and row["state"] != "withdrawn":
            gone = {name: value for name, value in row.items() if name != "recorded_at"}
            to_write.append({**gone, "state": "withdrawn", "resolved": row["updated"] + BUCKET})
    return to_write


def _same(new: TableRow, stored: TableRow) -> bool:
    """Whether a stored row says the same as a new one; numbers may differ in their last digits."""
    return all(_equal(value, stored[name]) for name, value in new.items())


def _equal(value: Any, stored: Any) -> bool:
    if isinstance(value, list):
        return bool(value == stored)
    if pd.isna(value):
        return bool(pd.isna(stored))
    if isinstance(value, float):
        return math.isclose(value, stored, rel_tol=1e-9, abs_tol=1e-12)
    return bool(value == stored)
