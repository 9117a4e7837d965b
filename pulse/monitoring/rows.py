"""Verdicts and incidents as rows of their tables in ClickHouse."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from pulse.metrics import BUCKET
from pulse.monitoring.detector import Verdict
from pulse.monitoring.explanation import Contribution
from pulse.monitoring.incidents import Finding, Incident, Tick
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.watch import Watch

NUMBERS = ("value", "expected", "lower", "upper", "score", "deviation")


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


def incident_rows(incidents: Sequence[Incident], reasons: Mapping[str, Sequence[Contribution]]) -> list[dict[str, Any]]:
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


def changed_rows(new: Sequence[Mapping[str, Any]], stored: pd.DataFrame, start: datetime) -> list[dict[str, Any]]:
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
