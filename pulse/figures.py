"""How figures look in a chat: the style, the colours and the ticks that all of them share.

They are read on a phone, about 400 px wide: few and large words, the finding as the title. The style sheet is
`pulse.mplstyle` beside this file.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from pulse.metrics import Unit
from pulse.settings import Language
from pulse.wording import compact

STYLE = Path(__file__).with_name("pulse.mplstyle")
GREY = "#9A9A9A"
WORDS = "#666666"
NO_DATA = "#F1F1F1"
WIDTH = 7.2  # inches
# The smallest difference between two numbers as shown: an axis has no finer ticks, and room for at least two of them.
FINEST: dict[Unit, float] = {"users": 1, "count": 1, "share": 0.001, "ratio": 0.01}


def label_ticks(axis: Axes, unit: Unit, bins: int, language: Language) -> None:
    """Few ticks at round numbers, no two of which look the same, written as a language writes them.

    Args:
        axis: with its limits set.
        unit: of its numbers.
        bins: at most how many intervals.
        language: of the numbers.
    """
    axis.yaxis.set_major_locator(_ticks(axis, unit, bins))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: compact(tick, unit, language)))


def _ticks(axis: Axes, unit: Unit, bins: int) -> MaxNLocator | MultipleLocator:
    """Few ticks at round numbers, no two of which are the same as shown."""
    ticks = MaxNLocator(nbins=bins, steps=[1, 2, 5, 10])  # so that all are shown without rounding
    low, high = axis.get_ylim()
    found = ticks.tick_values(low, high)
    return MultipleLocator(FINEST[unit]) if found[1] - found[0] < FINEST[unit] else ticks
