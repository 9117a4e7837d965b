"""Draws the chart of an incident: a metric over a day with its expected range."""

from collections.abc import Collection, Sequence
from datetime import datetime
from math import isnan

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pulse.figures import GREY, NO_DATA, STYLE, WIDTH, WORDS, label_ticks
from pulse.metrics import PARTS, Metric
from pulse.monitoring import detector
from pulse.monitoring.history import denominator
from pulse.monitoring.incidents import Incident
from pulse.monitoring.texts import incident_title
from pulse.monitoring.watch import Watch
from pulse.settings import Language
from pulse.wording import bucket_length, capital, short_date, word

RANGE = "#DDDDDD"
ALARM = "#CC0033"
HEIGHT = 4.4  # inches


def chart(incident: Incident, history: pd.DataFrame, watch: Watch, language: Language) -> Figure:
    """Draw the series that shows an incident best, over the day up to the last bucket that shows it.

    Args:
        incident: one with a leading series, which must be in the history.
        history: from `histories`.
        watch: what is watched.
        language: of the chart.

    Returns:
        A figure that pyplot no longer holds.
    """
    assert incident.lead is not None
    series = incident.lead.series
    watched = watch.metrics[series.metric]
    until = history[: incident.updated]
    band = detector.band(
        until[series],
        denominator=denominator(until, series, watch),
        kind="ratio" if watched.per else "count",
        is_holiday=watch.is_holiday,
        thresholds=watched.thresholds,
    )
    shown = [bucket for bucket in band.index if incident.opened <= bucket <= incident.updated]
    title = capital(incident_title(incident, watch, language))
    return draw(title, watched.metric, band, shown, language)


def draw(title: str, metric: Metric, band: pd.DataFrame, shown: Collection[datetime], language: Language) -> Figure:
    """Draw a metric with its expected range.

    Args:
        title: the finding.
        metric: what is drawn.
        band: one row per bucket, indexed by its first moment in local time: `value`, `expected`, `lower`, `upper`; NaN
            where a number is not known.
        shown: the buckets to mark as anomalies.
        language: of dates and numbers.

    Returns:
        A figure that pyplot no longer holds.
    """
    moments = list(band.index)
    positions = range(len(moments))
    with plt.style.context(STYLE, after_reset=True):
        figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
        axis.fill_between(positions, band["lower"], band["upper"], color=RANGE, linewidth=0)
        axis.plot(positions, band["expected"], color=GREY, linewidth=1)
        axis.plot(positions, band["value"], color=PARTS[metric.part].color)
        marked = [position for position in positions if moments[position] in shown]
        axis.plot(
            marked, band["value"].iloc[marked], color=ALARM, marker="o", linestyle="none", clip_on=False, zorder=3
        )
        gaps = [position for position in positions if isnan(band["value"].iloc[position])]
        for position in gaps:
            axis.axvspan(position - 0.5, position + 0.5, color=NO_DATA, linewidth=0)
        if gaps:
            words, across = word("no data", language), axis.get_xaxis_transform()
            axis.text(_widest(gaps), 0.02, words, transform=across, rotation=90, color=WORDS, size=11, ha="center")
        axis.set_title(title, loc="left", size=16, weight="bold")
        axis.set_title(word("per bucket", language, span=bucket_length(language)), loc="right", color=WORDS, size=12)
        room = (band["upper"] - band["value"]).fillna(0.0).iloc[len(moments) // 5 : 4 * len(moments) // 5]
        if len(room) and room.max() > 0:
            position = moments.index(room.idxmax())  # where the label hides least
            words = word("expected", language)
            axis.annotate(words, (position, band["upper"].iloc[position]), color=WORDS, ha="center", va="top")
        axis.set_xlim(-0.5, len(moments) + 0.5)
        full = [position for position in positions if moments[position].minute == 0 and moments[position].hour % 6 == 0]
        axis.set_xticks(full, [_clock(moments[position], language) for position in full])
        axis.set_ylim(bottom=0 if metric.unit != "share" else None)
        label_ticks(axis, metric.unit, 4, language)
    plt.close(figure)
    return figure


def _widest(gaps: Sequence[int]) -> float:
    """The middle of the longest run of consecutive positions; the positions are sorted."""
    runs: list[list[int]] = []
    for position in gaps:
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    longest = max(runs, key=len)
    return (longest[0] + longest[-1]) / 2


def _clock(moment: datetime, language: Language) -> str:
    """The label of a tick: the time, such as `06:00`, or at midnight the day that begins."""
    return short_date(moment.date(), language) if moment.hour == 0 else f"{moment:%H:%M}"
