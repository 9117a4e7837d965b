"""Charts for chats: data in, matplotlib figure out. How they look stands in `pulse.mplstyle` beside this file.

Read on a phone, some 400 px wide: two panels side by side, few and large words, the event date in its part's colour
against the week in grey. The colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from math import ceil, isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from pulse import messages
from pulse.messages import Language, Metric, Part, Row

if TYPE_CHECKING:
    from pandas import DataFrame

STYLE = Path(__file__).with_name("pulse.mplstyle")
COLORS: dict[Part, str] = {"app": "#0072B2", "feed": "#D55E00", "messenger": "#009E73"}
GREY = "#9A9A9A"
WORDS = "#666666"
NO_DATA = "#F1F1F1"
RANGE = "#DDDDDD"
ALARM = "#CC0033"

DAYS = 7
COLUMNS = 2
# In inches.
WIDTH, HEAD, HEADING, PANEL = 7.2, 0.6, 0.44, 1.4
INCIDENT_HEIGHT = 4.4
LEAST_SPAN = 0.2  # of the largest value: so a change by a percent looks like one


def week(day: date, metrics: Sequence[Metric], days: Mapping[date, Row], language: Language) -> Figure:
    """Each metric over the seven days that end with the event date, a panel each; a part's panels under its name.

    Args:
        day: the event date, one of `days`.
        metrics: what to draw; the first one is the finding in the title.
        days: rows by day; a day that is not among them is a gap.
        language: of titles, dates and numbers.

    Returns:
        A figure that pyplot no longer holds: nothing to close.
    """
    parts = [(part, list(group)) for part, group in groupby(metrics, key=lambda metric: metric.part)]
    heights = [HEAD]
    for _, group in parts:
        heights += [HEADING, *[PANEL] * ceil(len(group) / COLUMNS)]
    with plt.style.context(STYLE, after_reset=True):
        figure, axes = plt.subplots(
            len(heights),
            COLUMNS,
            figsize=(WIDTH, sum(heights)),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat:
            axis.set_axis_off()  # until something is drawn there
        _head(_whole_row(axes, 0), day, metrics[0], days, language)
        row = 1
        for part, group in parts:
            _heading(_whole_row(axes, row), part, language)
            for place, metric in enumerate(group):
                _panel(axes[row + 1 + place // COLUMNS, place % COLUMNS], day, metric, days, language)
            row += 1 + ceil(len(group) / COLUMNS)
    plt.close(figure)
    return figure


def incident(title: str, metric: Metric, band: "DataFrame", shown: Collection[datetime], language: Language) -> Figure:
    """A metric over the last day with its expected range, what is not as expected marked.

    Args:
        title: the finding.
        metric: what is drawn.
        band: one row per bucket, indexed by its first moment in local time: `value`, `expected`, `lower`, `upper`; NaN
            where one is not known.
        shown: the buckets that are marked.
        language: of dates and numbers.

    Returns:
        A figure that pyplot no longer holds.
    """
    moments = list(band.index)
    places = range(len(moments))
    with plt.style.context(STYLE, after_reset=True):
        figure, axis = plt.subplots(figsize=(WIDTH, INCIDENT_HEIGHT), layout="constrained")
        axis.fill_between(places, band["lower"], band["upper"], color=RANGE, linewidth=0)
        axis.plot(places, band["expected"], color=GREY, linewidth=1)
        axis.plot(places, band["value"], color=COLORS[metric.part])
        marked = [place for place in places if moments[place] in shown]
        axis.plot(marked, band["value"].iloc[marked], color=ALARM, marker="o", linestyle="none")
        for place in places:
            if isnan(band["value"].iloc[place]):
                axis.axvspan(place - 0.5, place + 0.5, color=NO_DATA, linewidth=0)
        axis.set_title(title, loc="left", size=16, weight="bold")
        axis.set_title(messages.word("per bucket", language), loc="right", color=WORDS, size=12)
        room = (band["upper"] - band["value"]).fillna(0.0).iloc[len(moments) // 5 : 4 * len(moments) // 5]
        if len(room) and room.max() > 0:
            place = moments.index(room.idxmax())  # where the words hide least
            words = messages.word("expected", language)
            axis.annotate(words, (place, band["upper"].iloc[place]), color=WORDS, ha="center", va="top")
        axis.set_xlim(-0.5, len(moments) + 0.5)
        full = [place for place in places if moments[place].minute == 0 and moments[place].hour % 6 == 0]
        axis.set_xticks(full, [_clock(moments[place], language) for place in full])
        axis.set_ylim(bottom=0 if metric.unit != "share" else None)
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=metric.unit in ("users", "count")))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: messages.compact(tick, metric.unit, language)))
    plt.close(figure)
    return figure


def _clock(moment: datetime, language: Language) -> str:
    """`06:00`; at midnight the day that begins."""
    return messages.short_date(moment.date(), language) if moment.hour == 0 else f"{moment:%H:%M}"


def _head(axis: Axes, day: date, metric: Metric, days: Mapping[date, Row], language: Language) -> None:
    """The finding, the first metric with its changes, over the day."""
    now = days[day][metric.column]
    changes = [
        f"{messages.change(now, days[before][metric.column], metric.unit, language)} "
        f"{messages.word('vs', language)} {messages.short_date(before, language)}"
        for before in messages.compared(day)
        if before in days
    ]
    finding = ", ".join([f"{metric.label(language)} {messages.compact(now, metric.unit, language)}", *changes])
    axis.text(0, 0.5, finding, size=16, weight="bold", in_layout=False)
    axis.text(0, 0, messages.capital(messages.long_date(day, language)), color=WORDS, in_layout=False)


def _heading(axis: Axes, part: Part, language: Language) -> None:
    """A part's name in its colour, under a line of it over all its panels."""
    axis.axhline(1, color=COLORS[part], linewidth=3)
    name = messages.PARTS[language][part]
    axis.text(0, 0.72, name, color=COLORS[part], size=17, weight="bold", va="top", in_layout=False)


def _whole_row(axes: NDArray[Any], row: int) -> Axes:
    """The first of a row's axes, in the place of all of them."""
    first: Axes = axes[row, 0]
    for other in axes[row, 1:]:
        other.remove()
    first.set_subplotspec(first.get_gridspec()[row, :])
    first.set(xlim=(0, 1), ylim=(0, 1))
    return first


def _panel(axis: Axes, day: date, metric: Metric, days: Mapping[date, Row], language: Language) -> None:
    """A metric's seven days: the line in grey, the event date in the part's colour, days without a row shaded."""
    shown = [day - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    values = [_value(days.get(each, {}).get(metric.column)) for each in shown]
    color, places = COLORS[metric.part], range(DAYS)

    axis.set_axis_on()
    axis.plot(places, values, color=GREY, marker="o")
    axis.plot(places[-1:], values[-1:], color=color, marker="o", markersize=10, linestyle="none")
    for place in places:
        if shown[place] not in days:
            axis.axvspan(place - 0.5, place + 0.5, color=NO_DATA, linewidth=0)

    unit = f", {messages.word('users', language)}" if metric.unit == "users" else ""
    axis.set_title(metric.label(language) + unit, loc="left")
    value = messages.compact(values[-1], metric.unit, language)
    axis.set_title(value, loc="right", color=color, weight="bold")

    axis.set_xlim(-0.5, DAYS - 0.5)
    labelled = places[:: (DAYS - 1) // 2]
    axis.set_xticks(labelled, [messages.short_date(shown[place], language) for place in labelled])
    axis.get_xticklabels()[-1].set(color=color, weight="bold")
    axis.set_ylim(*_limits(values))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=metric.unit in ("users", "count")))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: messages.compact(tick, metric.unit, language)))


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Where the axis begins and ends: around the values, so wide that small changes look small, hardly below zero."""
    known = [value for value in values if not isnan(value)] or [0.0]
    low, high = min(known), max(known)
    span = max(high - low, LEAST_SPAN * high) or 1.0
    middle = (low + high) / 2
    return max(middle - 0.65 * span, -0.1 * span), middle + 0.65 * span


def _value(value: float | None) -> float:
    return nan if value is None else float(value)
