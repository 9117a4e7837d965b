"""Shows tables and messages the way people read them, in JupyterLab and in the archive alike.

A table is a frame of texts, so it looks the same as HTML and as plain text, and the archive can compare each cell.
A message is HTML with tags but without styles, which the archive does not strip.
"""

import html
import re
from collections.abc import Collection
from datetime import date, datetime
from numbers import Integral, Real
from typing import Any

import pandas as pd
from IPython.display import HTML

from pulse.metrics import METRICS

SHARES = (*(metric.column for metric in METRICS if metric.unit == "share"), "deviation")
"""Columns that hold a share of 1 and are shown in percent."""

RATIOS = tuple(metric.column for metric in METRICS if metric.unit == "ratio")
"""Columns that hold a ratio, which is shown with decimals even if it is whole."""

NOTHING = "–"


def table(data: pd.DataFrame | pd.Series, shares: Collection[str] = SHARES) -> pd.DataFrame:
    """Write the values of a frame, or of one of its rows, for readers: `13,892`, `20.3 %`, `Sun 22 Nov 2026`, `–`.

    Args:
        data: a frame with one metric in each column (transpose what this returns, not what it gets), or one row.
        shares: the columns, or the names in the row, that are shown in percent. Columns named `…_id` stay as they are.

    Returns:
        A frame of texts.
    """
    if isinstance(data, pd.Series):
        cells = [_cell(value, str(name), _whole([value]), shares) for name, value in data.items()]
        return pd.DataFrame({"": cells}, index=data.index)
    shown = pd.DataFrame(index=data.index)
    columns = []
    for column, name in enumerate(data.columns):
        values = list(data.iloc[:, column])
        whole = _whole(values)
        columns.append(pd.Series([_cell(value, str(name), whole, shares) for value in values], index=data.index))
    shown = pd.concat(columns, axis=1) if columns else shown
    shown.columns = data.columns
    if data.index.name is None and pd.api.types.is_integer_dtype(data.index):
        shown.index = pd.Index([""] * len(data))  # the number of a row means nothing
    elif not isinstance(data.index, pd.MultiIndex):
        shown.index = pd.Index([_cell(value, "", False, ()) for value in data.index], name=data.index.name)
    return shown


def message(*texts: str) -> HTML:
    """Show messages in Telegram's HTML the way readers see them, with their lines, bold words and links."""
    shown = "\n".join(f"<blockquote>{_lines(text)}</blockquote>" for text in texts)
    return _Message(shown or "no message", "\n\n".join(map(_plain, texts)) or "no message")


class _Message(HTML):
    def __init__(self, data: str, plain: str) -> None:
        super().__init__(data)  # type: ignore[no-untyped-call]  # IPython is typed in part
        self.plain = plain

    def __repr__(self) -> str:
        return self.plain


def _lines(text: str) -> str:
    lines = re.sub(r"</?tg-[^>]*>", "", text).replace("\n", "<br>\n")
    # Spaces align numbers, and HTML would collapse them.
    return re.sub(r"(?<=<code>) +| (?= )", lambda spaces: "&nbsp;" * len(spaces[0]), lines)


def _plain(text: str) -> str:
    """The text without its tags, and with the address after each link."""
    linked = re.sub(r'<a href="([^"]*)">(.*?)</a>', r"\2 (\1)", text)
    return html.unescape(re.sub(r"</?[a-z][^>]*>", "", linked))


def _whole(values: list[Any]) -> bool:
    """Whether all numbers of a column are whole. NULLs may have turned them into floats."""
    numbers = [value for value in values if isinstance(value, Real) and not _missing(value)]
    return all(isinstance(value, Integral) or float(value).is_integer() for value in numbers)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value)


def _cell(value: Any, name: str, whole: bool, shares: Collection[str]) -> str:
    if _missing(value):
        return NOTHING
    if isinstance(value, bool | str) or type(value).__name__ == "bool":
        return str(value)
    if isinstance(value, Real):
        return _number(value, name, whole, shares)
    if isinstance(value, datetime):
        at_midnight = (value.hour, value.minute, value.second) == (0, 0, 0) and value.tzinfo is None
        return f"{value:%a %-d %b %Y}" if at_midnight else f"{value:%a %-d %b %Y %H:%M}"
    if isinstance(value, date):
        return f"{value:%a %-d %b %Y}"
    return str(value)


def _number(value: Real, name: str, whole: bool, shares: Collection[str]) -> str:
    if name.endswith("_id"):
        return str(value)
    number = int(value) if isinstance(value, Integral) else float(value)
    if name in shares:
        return f"{100 * number:,.1f} %"
    if name in RATIOS:
        return f"{number:,.2f}"
    decimals = 0 if whole or abs(number) >= 1000 else 2 if abs(number) >= 1 else 3
    return f"{number:,.{decimals}f}"
