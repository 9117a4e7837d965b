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
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from pulse import messages
from pulse.messages import Language, Metric, Part, Row, Unit

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
MOST_TITLE = 22  # characters over a panel: its name, unit and value; what has no room is left out, or smaller
# In inches.
WIDTH, HEAD, HEADING, PANEL = 7.2, 0.6, 0.44, 1.4
INCIDENT_HEIGHT = 4.4
LEAST_SPAN = 0.2  # of the largest value: so a change by a percent looks like one
# The least that two numbers as shown differ by: an axis has no finer ticks, and room for two of them at least.
FINEST: dict[Unit, float] = {"users": 1, "count": 1, "share": 0.001, "ratio": 0.01}


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
        head = _whole_row(axes, 0)
        _head(head, day, metrics[0], days, language)
        if any(isnan(value) for metric in metrics for value in _week(day, metric, days)):
            _no_data(head, language)
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
        axis.plot(
            marked, band["value"].iloc[marked], color=ALARM, marker="o", linestyle="none", clip_on=False, zorder=3
        )
        gaps = [place for place in places if isnan(band["value"].iloc[place])]
        for place in gaps:
            axis.axvspan(place - 0.5, place + 0.5, color=NO_DATA, linewidth=0)
        if gaps:
            words, across = messages.word("no data", language), axis.get_xaxis_transform()
            axis.text(_widest(gaps), 0.02, words, transform=across, rotation=90, color=WORDS, size=11, ha="center")
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
        axis.yaxis.set_major_locator(_ticks(axis, metric.unit, 4))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: messages.compact(tick, metric.unit, language)))
    plt.close(figure)
    return figure


def _widest(gaps: Sequence[int]) -> float:
    """The middle of the longest run among these places, which are in order."""
    runs: list[list[int]] = []
    for place in gaps:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    longest = max(runs, key=len)
    return (longest[0] + longest[-1]) / 2


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
    """A metric's seven days: the line in grey, the event date in the part's colour, days without a number shaded."""
    shown = _seven_days(day)
    values = _week(day, metric, days)
    color, places = COLORS[metric.part], range(DAYS)

    axis.set_axis_on()
    # A dot at the edge is drawn whole.
    axis.plot(places, values, color=GREY, marker="o", clip_on=False, zorder=3)
    axis.plot(
        places[-1:], values[-1:], color=color, marker="o", markersize=10, linestyle="none", clip_on=False, zorder=3
    )
    for place in places:
        if isnan(values[place]):
            axis.axvspan(place - 0.5, place + 0.5, color=NO_DATA, linewidth=0)

    value, title = messages.compact(values[-1], metric.unit, language), metric.label(language)
    unit = f", {messages.word('users', language)}" if metric.unit == "users" else ""
    title += unit if len(title + unit + value) <= MOST_TITLE else ""
    size, begins = (14, 0.0) if len(title + value) <= MOST_TITLE else (12, -0.12)  # above the ticks' labels
    axis.set_title(title, loc="left", size=size, x=begins)
    axis.set_title(value, loc="right", color=color, weight="bold", size=size)

    axis.set_xlim(-0.5, DAYS - 0.5)
    labelled = places[:: (DAYS - 1) // 2]
    axis.set_xticks(labelled, [messages.short_date(shown[place], language) for place in labelled])
    first, *_, last = axis.get_xticklabels()
    first.set_ha("left")
    last.set(color=color, weight="bold", ha="right")
    # Both ends of the line stand over the ends of their words, within the panel.
    axis.set_ylim(*_limits(values, FINEST[metric.unit]))
    axis.yaxis.set_major_locator(_ticks(axis, metric.unit, 3))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: messages.compact(tick, metric.unit, language)))


def _limits(values: Sequence[float], finest: float) -> tuple[float, float]:
    """Where the axis begins and ends: around the values, so wide that small changes look small, hardly below zero."""
    known = [value for value in values if not isnan(value)] or [0.0]
    low, high = min(known), max(known)
    span = max(high - low, LEAST_SPAN * high, 2 * finest)
    middle = (low + high) / 2
    return max(middle - 0.65 * span, -0.1 * span), middle + 0.65 * span


def _ticks(axis: Axes, unit: Unit, bins: int) -> MaxNLocator | MultipleLocator:
    """Few ticks at round numbers, no two of which are the same as shown."""
    ticks = MaxNLocator(nbins=bins, steps=[1, 2, 5, 10])  # so that all are shown without rounding
    low, high = axis.get_ylim()
    found = ticks.tick_values(low, high)
    return MultipleLocator(FINEST[unit]) if found[1] - found[0] < FINEST[unit] else ticks


def _no_data(head: Axes, language: Language) -> None:
    """What the shaded days are, in the chart's head."""
    words = messages.word("no data", language)
    box = {"facecolor": NO_DATA, "edgecolor": "none", "pad": 2}
    head.text(1, 0, words, color=WORDS, size=12, ha="right", bbox=box, in_layout=False)


def _seven_days(day: date) -> list[date]:
    return [day - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]


def _week(day: date, metric: Metric, days: Mapping[date, Row]) -> list[float]:
    """A metric's seven days; NaN where there is no number."""
    return [_value(days.get(each, {}).get(metric.column)) for each in _seven_days(day)]


def _value(value: float | None) -> float:
    return nan if value is None else float(value)
