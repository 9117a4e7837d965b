"""What notebooks show: tables and messages as people read them, in JupyterLab and in the archive alike.

Tables are frames of text, so they look the same as HTML and as plain text, and Compare sees each cell. Messages are
HTML that the archive lets through: tags, no styles.
"""

import html
import re
from collections.abc import Collection
from datetime import date, datetime
from numbers import Integral, Real
from typing import Any

import pandas as pd
from IPython.display import HTML

SHARES = ("ctr", "deviation")
"""Columns that hold a share of one, wherever they appear."""

RATIOS = ("sent_per_received",)
"""Columns that hold a ratio: it has decimals also where it is whole."""

NOTHING = "–"


def table(data: pd.DataFrame | pd.Series, shares: Collection[str] = SHARES) -> pd.DataFrame:
    """A frame, or one row of it, to be shown: `13,892`, `20.3 %`, `Sun 22 Nov 2026`, `–` where there is nothing.

    Args:
        data: a frame with one metric a column (transpose what this returns, not what it takes), or a row of one.
        shares: the columns, or the row's names, that are shown in percent. What is named `…_id` stays as it is.
    """
    if isinstance(data, pd.Series):
        cells = [_cell(value, str(name), _whole([value]), shares) for name, value in data.items()]
        return pd.DataFrame({"": cells}, index=data.index)
    shown = pd.DataFrame(index=data.index)
    columns = []
    for place, name in enumerate(data.columns):
        values = list(data.iloc[:, place])
        whole = _whole(values)
        columns.append(pd.Series([_cell(value, str(name), whole, shares) for value in values], index=data.index))
    shown = pd.concat(columns, axis=1) if columns else shown
    shown.columns = data.columns
    if data.index.name is None and pd.api.types.is_integer_dtype(data.index):
        shown.index = pd.Index([""] * len(data))  # a row's number says nothing
    elif not isinstance(data.index, pd.MultiIndex):
        shown.index = pd.Index([_cell(value, "", False, ()) for value in data.index], name=data.index.name)
    return shown


def message(*texts: str) -> HTML:
    """Messages of Telegram's HTML as readers see them: their lines, their bold words, their links."""
    shown = "\n".join(f"<blockquote>{_lines(text)}</blockquote>" for text in texts)
    return _Message(shown or "no message", "\n\n".join(map(_plain, texts)) or "no message")


class _Message(HTML):
    def __init__(self, data: str, plain: str) -> None:
        super().__init__(data)  # type: ignore[no-untyped-call]  # IPython has no types here
        self.plain = plain

    def __repr__(self) -> str:
        return self.plain


def _lines(text: str) -> str:
    lines = re.sub(r"</?tg-[^>]*>", "", text).replace("\n", "<br>\n")
    # Spaces align numbers.
    return re.sub(r"(?<=<code>) +| (?= )", lambda spaces: "&nbsp;" * len(spaces[0]), lines)


def _plain(text: str) -> str:
    """The text without its tags, each link's address beside it."""
    linked = re.sub(r'<a href="([^"]*)">(.*?)</a>', r"\2 (\1)", text)
    return html.unescape(re.sub(r"</?[a-z][^>]*>", "", linked))


def _whole(values: list[Any]) -> bool:
    """Whether a column holds whole numbers, though NULLs may have made them floats."""
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
        value = float(value) if not isinstance(value, Integral) else int(value)
        if name.endswith("_id"):
            return str(value)
        if name in shares:
            return f"{100 * value:,.1f} %"
        if name in RATIOS:
            return f"{value:,.2f}"
        decimals = 0 if whole or abs(value) >= 1000 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{decimals}f}"
    if isinstance(value, datetime):
        at_midnight = (value.hour, value.minute, value.second) == (0, 0, 0) and value.tzinfo is None
        return f"{value:%a %-d %b %Y}" if at_midnight else f"{value:%a %-d %b %Y %H:%M}"
    if isinstance(value, date):
        return f"{value:%a %-d %b %Y}"
    return str(value)
