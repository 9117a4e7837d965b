"""The report's chart: each metric over the week that ends with the event date.

Two panels side by side, the event date in the colour of its part against the days before in grey.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import groupby
from math import ceil, isnan, nan
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pulse.figures import FINEST, GREY, NO_DATA, STYLE, WIDTH, WORDS, label_ticks
from pulse.metrics import PARTS, WEEK, DayMetrics, Metric, PartName
from pulse.reports.texts import compared
from pulse.settings import Language
from pulse.wording import capital, change, compact, long_date, short_date, word

WEEK_DAYS = WEEK // timedelta(days=1)
COLUMNS = 2
LONGEST_TITLE = 22  # characters over a panel: name, unit and value; a longer title goes without the unit, or smaller
# In inches.
HEAD, HEADING, PANEL = 0.6, 0.44, 1.4
LEAST_SPAN = 0.2  # of the largest value: so a change by a percent looks like one


def week(day: date, metrics: Sequence[Metric], days: Mapping[date, DayMetrics], language: Language) -> Figure:
    """Each metric over the week that ends with the event date, a panel each; a part's panels under its name.

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
            for position, metric in enumerate(group):
                _panel(axes[row + 1 + position // COLUMNS, position % COLUMNS], day, metric, days, language)
            row += 1 + ceil(len(group) / COLUMNS)
    plt.close(figure)
    return figure


def _head(axis: Axes, day: date, metric: Metric, days: Mapping[date, DayMetrics], language: Language) -> None:
    """The finding, the first metric with its changes, over the day."""
    now = days[day][metric.column]
    changes = [
        f"{change(now, days[before][metric.column], metric.unit, language)} "
        f"{word('vs', language)} {short_date(before, language)}"
        for before in compared(day)
        if before in days
    ]
    finding = ", ".join([f"{metric.label(language)} {compact(now, metric.unit, language)}", *changes])
    axis.text(0, 0.5, finding, size=16, weight="bold", in_layout=False)
    axis.text(0, 0, capital(long_date(day, language)), color=WORDS, in_layout=False)


def _heading(axis: Axes, part: PartName, language: Language) -> None:
    """A part's name in its colour, under a line of it over all its panels."""
    axis.axhline(1, color=PARTS[part].color, linewidth=3)
    name = PARTS[part].name(language)
    axis.text(0, 0.72, name, color=PARTS[part].color, size=17, weight="bold", va="top", in_layout=False)


def _whole_row(axes: NDArray[Any], row: int) -> Axes:
    """The first of a row's axes, in the place of all of them."""
    first: Axes = axes[row, 0]
    for other in axes[row, 1:]:
        other.remove()
    grid = first.get_gridspec()
    assert grid is not None  # subplots made it
    first.set_subplotspec(grid[row, :])
    first.set(xlim=(0, 1), ylim=(0, 1))
    return first


def _panel(axis: Axes, day: date, metric: Metric, days: Mapping[date, DayMetrics], language: Language) -> None:
    """A metric's week: the line in grey, the event date in the part's colour, days without a number shaded."""
    shown = _days_shown(day)
    values = _week(day, metric, days)
    color, positions = PARTS[metric.part].color, range(WEEK_DAYS)

    axis.set_axis_on()
    # A dot at the edge is drawn whole.
    axis.plot(positions, values, color=GREY, marker="o", clip_on=False, zorder=3)
    axis.plot(
        positions[-1:], values[-1:], color=color, marker="o", markersize=10, linestyle="none", clip_on=False, zorder=3
    )
    for position in positions:
        if isnan(values[position]):
            axis.axvspan(position - 0.5, position + 0.5, color=NO_DATA, linewidth=0)

    value, title = compact(values[-1], metric.unit, language), metric.label(language)
    unit = f", {word('users', language)}" if metric.unit == "users" else ""
    title += unit if len(title + unit + value) <= LONGEST_TITLE else ""
    size, begins = (14, 0.0) if len(title + value) <= LONGEST_TITLE else (12, -0.12)  # above the ticks' labels
    axis.set_title(title, loc="left", size=size, x=begins)
    axis.set_title(value, loc="right", color=color, weight="bold", size=size)

    axis.set_xlim(-0.5, WEEK_DAYS - 0.5)
    labelled = (0, (WEEK_DAYS - 1) // 2, WEEK_DAYS - 1)
    axis.set_xticks(labelled, [short_date(shown[position], language) for position in labelled])
    first, *_, last = axis.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set(color=color, weight="bold", ha="right")
    # Both ends of the line stand over the ends of their words, within the panel.
    axis.set_ylim(*_limits(values, FINEST[metric.unit]))
    label_ticks(axis, metric.unit, 3, language)


def _limits(values: Sequence[float], finest: float) -> tuple[float, float]:
    """Where the axis begins and ends: around the values, so wide that small changes look small, hardly below zero."""
    known = [value for value in values if not isnan(value)] or [0.0]
    low, high = min(known), max(known)
    span = max(high - low, LEAST_SPAN * high, 2 * finest)
    middle = (low + high) / 2
    return max(middle - 0.65 * span, -0.1 * span), middle + 0.65 * span


def _no_data(head: Axes, language: Language) -> None:
    """What the shaded days are, in the chart's head."""
    words = word("no data", language)
    box = {"facecolor": NO_DATA, "edgecolor": "none", "pad": 2}
    head.text(1, 0, words, color=WORDS, size=12, ha="right", bbox=box, in_layout=False)


def _days_shown(day: date) -> list[date]:
    return [day - timedelta(days=back) for back in range(WEEK_DAYS - 1, -1, -1)]


def _week(day: date, metric: Metric, days: Mapping[date, DayMetrics]) -> list[float]:
    """A metric's values of the week; NaN where there is no number."""
    return [_value(days.get(each, {}).get(metric.column)) for each in _days_shown(day)]


def _value(value: float | None) -> float:
    return nan if value is None else float(value)
