"""Values on their way to ClickHouse and back: bound parameters, inserted rows, and the columns of a result."""

import math
import re
import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

from pulse.clickhouse.errors import ClickHouseError


def bound(value: Any) -> str:
    """A value as ClickHouse reads it from a `param_…`: escaped as in tab-separated text.

    Raises:
        ClickHouseError: a time has no time zone.
    """
    if value is None:
        return "\\N"
    if isinstance(value, list | tuple):
        return "[" + ",".join(literal(item) for item in value) + "]"
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return _scalar(value)


def literal(value: Any) -> str:
    """A value as a literal in SQL, or inside an array that is bound.

    Raises:
        ClickHouseError: a time has no time zone.
    """
    if value is None:
        return "NULL"
    if isinstance(value, str):
        # Escaped twice: once as a string inside the array, once as the parameter's own text.
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return "'" + escaped.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r") + "'"
    return f"'{value}'" if isinstance(value, date) and not isinstance(value, datetime) else _scalar(value)


def as_json(cell: Any) -> Any:
    """A cell of a row to insert, as JSON can hold it; NaN, NaT and NA become None."""
    cell = cell.item() if hasattr(cell, "item") and not isinstance(cell, pd.Timestamp) else cell
    if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, datetime):
        return _scalar(cell) if cell.tzinfo else cell.isoformat(sep=" ")
    if isinstance(cell, date | Decimal | uuid.UUID):
        return str(cell)
    if isinstance(cell, list | tuple | set):
        return [as_json(item) for item in cell]
    return cell


def series(values: tuple[Any, ...], kind: str, zone: ZoneInfo) -> pd.Series:
    """One column of a JSON result as a series of pandas' own type.

    Args:
        values: the cells as JSON has them.
        kind: the column's ClickHouse type.
        zone: the time zone for a DateTime whose type names none.
    """
    while wrapped := re.fullmatch(r"(?:Nullable|LowCardinality)\((.*)\)", kind):
        kind = wrapped[1]
    missing = any(value is None for value in values)
    if re.fullmatch(r"U?Int(8|16|32|64)", kind):
        whole = [int(value) if isinstance(value, str) else value for value in values]  # quoted without our settings
        return pd.Series(whole, dtype=kind if missing else kind.lower())
    if kind.startswith(("Float", "BFloat")):
        return pd.Series(values, dtype="float64")
    if kind.startswith("DateTime"):
        if any(value is not None and not value.endswith("Z") for value in values):
            raise ClickHouseError(
                "This account may choose no settings (readonly = 1), so times cannot be read without doubt; "
                "use one with readonly = 2, or select toUnixTimestamp(…) or toString(…) instead."
            )
        named = re.search(r"'(.+)'", kind)
        return pd.to_datetime(pd.Series(values, dtype="object"), utc=True).dt.tz_convert(named[1] if named else zone)
    if kind.startswith("Date"):
        return pd.to_datetime(pd.Series(values, dtype="object"))
    if kind == "Bool":
        return pd.Series(values, dtype="boolean" if missing else "bool")
    if kind.startswith("Decimal"):
        return pd.Series([None if value is None else Decimal(value) for value in values], dtype="object")
    if kind.startswith(("String", "FixedString", "Enum", "UUID", "IPv")):
        return pd.Series(values, dtype="str")
    return pd.Series(list(values), dtype="object")


def _scalar(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ClickHouseError(f"The time {value} has no time zone; give an aware datetime.")
        moment = value.timestamp()
        return f"{moment:.6f}" if value.microsecond else f"{moment:.0f}"  # an instant, whatever the server's zone
    if isinstance(value, bool):
        return str(int(value))
    return str(value)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows, each by column name."""
    return [{str(name): cell for name, cell in row.items()} for row in frame.to_dict("records")]
