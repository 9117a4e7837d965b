"""Which slices explain an incident."""

from dataclasses import dataclass

import pandas as pd

from pulse.metrics import BUCKET
from pulse.monitoring.incidents import Incident
from pulse.monitoring.series import TOTAL
from pulse.monitoring.watch import Watch, Watched

# Of the incident's buckets, how many of the last ones are added up: single buckets of small slices say little.
EXPLAINED = 16
# A dimension explains an incident when at least this share of the deviation lies elsewhere than the volume does.
LEAST_CONCENTRATION = 0.2


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
