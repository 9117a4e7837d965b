"""Which slices explain an incident."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from pulse.metrics import BUCKET
from pulse.monitoring.incidents import Incident
from pulse.monitoring.series import TOTAL
from pulse.monitoring.watch import Watch, Watched

EXPLAINED = 16  # the last buckets of an incident that are added up: single buckets of small slices say little
LEAST_CONCENTRATION = 0.2  # share of the deviation that must lie elsewhere than the volume does


@dataclass(frozen=True)
class Contribution:
    """What a slice contributes to a deviation.

    Args:
        dimension: of the slice.
        dimension_value: of the slice.
        deviation: how far the slice is off: for a count, as a share of what was expected of it; for a rate, as the
            difference from the expected rate.
        share: its share of the whole deviation; the shares of a dimension's slices add up to 1.
        mix: for a rate, the part of its contribution that comes from its size among the slices, as a difference of the
            whole rate.
        off: whether it moves the way of the whole and far enough to be named; otherwise it is called normal.
    """

    dimension: str
    dimension_value: str
    deviation: float
    share: float
    mix: float = 0.0
    off: bool = True


class Explanation(NamedTuple):
    """How a dimension's slices share a deviation.

    Args:
        contributions: of the slices.
        concentration: the share of the deviation, from 0 to 1, that lies elsewhere than the volume does.
    """

    contributions: list[Contribution]
    concentration: float


NOTHING = Explanation([], 0.0)


def explain(verdicts: pd.DataFrame, incident: Incident, watch: Watch) -> list[Contribution]:
    """Find the slices that carry an incident, in the dimension in which it is most concentrated.

    The contribution of a slice to a count is its deviation. Its contribution to a rate follows the shift-share
    decomposition: Σ wᵢ (rᵢ − r̂ᵢ) comes from the rates and Σ (wᵢ − ŵᵢ)(r̂ᵢ − r̂) from the mix, where rᵢ is the rate of
    a slice, wᵢ its share of the denominator, and a hat marks what was expected.

    Args:
        verdicts: rows of table `verdicts` for the incident's buckets.
        incident: what to explain.
        watch: what is watched.

    Returns:
        The contributions of one dimension's slices, the largest first. If the incident is about a slice, they are those
        of its own dimension. Empty if all slices move alike, or nothing is known of them.
    """
    if incident.lead is None:
        return []
    lead = incident.lead.series
    first = max(incident.opened, incident.updated - (EXPLAINED - 1) * BUCKET)
    recent = verdicts[(verdicts["bucket"] >= first) & (verdicts["bucket"] <= incident.updated)]
    recent = recent[(recent["dimension"] != TOTAL[0]) & recent["value"].notna() & recent["expected"].notna()]
    if not lead.is_total:  # readers want to know whether the other slices of its dimension are normal
        recent = recent[recent["dimension"] == lead.dimension]
    best = Explanation([], LEAST_CONCENTRATION if lead.is_total else -1.0)
    for dimension, rows in recent.groupby("dimension"):
        explanation = _explanation(str(dimension), rows, lead.metric, watch.metrics[lead.metric])
        if explanation.concentration > best.concentration:
            best = explanation
    return sorted(best.contributions, key=lambda each: each.share, reverse=True)


def _explanation(dimension: str, rows: pd.DataFrame, metric: str, watched: Watched) -> Explanation:
    """How the slices of a dimension share the deviation of a metric."""
    if watched.per:
        return _of_rate(dimension, rows, metric, watched)
    return _of_count(dimension, rows[rows["metric"] == metric], watched)


def _is_off(deviations: pd.Series, share: pd.Series, value: str, watched: Watched) -> bool:
    """Whether a slice moves the way of the whole, and at least half as far as the slice that moves furthest."""
    along = deviations.where(share > 0, 0.0).fillna(0.0).abs()
    return bool(along[value] >= max(watched.thresholds.effect, along.max() / 2))


def _of_count(dimension: str, rows: pd.DataFrame, watched: Watched) -> Explanation:
    """How the slices share the deviation of a count."""
    sums = rows.groupby("dimension_value")[["value", "expected"]].sum()
    off = sums["value"] - sums["expected"]
    if len(sums) < 2 or not off.sum() or not sums["expected"].sum():
        return NOTHING
    share, volume = off / off.sum(), sums["expected"] / sums["expected"].sum()
    relative = off / sums["expected"].where(sums["expected"] > 0)
    contributions = [
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
    return Explanation(contributions, float((share - volume).abs().sum() / 2))


def _of_rate(dimension: str, rows: pd.DataFrame, metric: str, watched: Watched) -> Explanation:
    """How the slices share the deviation of a rate."""
    table = rows.pivot_table(index="dimension_value", columns="metric", values=["value", "expected"], aggfunc="sum")
    counted = [("value", watched.of), ("value", watched.per), ("expected", watched.per)]
    rates = rows[rows["metric"] == metric].groupby("dimension_value")["expected"].mean()
    if any(column not in table.columns for column in counted) or len(rates) < 2:
        return NOTHING
    table = table.loc[table.index.intersection(rates.index)]
    count, per, per_expected = (table[column] for column in counted)
    if not per.sum() or not per_expected.sum():
        return NOTHING
    weight, weight_expected = per / per.sum(), per_expected / per_expected.sum()
    expected = rates[table.index]
    rate = (count / per.where(per > 0)).fillna(expected)
    by_rate = weight * (rate - expected)
    by_mix = (weight - weight_expected) * (expected - (weight_expected * expected).sum())
    whole = float((by_rate + by_mix).sum())
    if not whole:
        return NOTHING
    share = (by_rate + by_mix) / whole
    contributions = [
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
    from_mix = float(by_mix.abs().sum() / (by_rate.abs() + by_mix.abs()).sum())
    return Explanation(contributions, max(from_mix, float((share - weight_expected).abs().sum() / 2)))
