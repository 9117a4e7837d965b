"""One number, every surface: a day's numbers as the tables, the report, Superset and Redash have them, side by side.

`daily_metrics` is the single source; everything else is compared with it. What is not configured is not compared.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date
from html import unescape
from pathlib import Path
from typing import Any

from pulse import PulseError, clickhouse, messages, notebooks, settings
from pulse.dashboards import redash, superset

NUMBER = re.compile(r"<code>(.*?)</code>", re.DOTALL)  # how the report's text sets its numbers, a line each

# Slices of a dimension add up to these; distinct users do not add up, and received is counted otherwise there.
SUMS = ("views", "likes", "messages_sent")

Numbers = Mapping[str, float | None]


class DisagreementError(PulseError):
    """A day has not the same numbers everywhere; the text says which, where."""


def reconcile(day: date, config: settings.Settings, report: str | None = None) -> list[str]:
    """Compare a day's numbers; gives what was compared with `daily_metrics`.

    Args:
        day: the event date.
        config: where everything is.
        report: the archived report's path; None: the newest one of that day, if there is one on this machine.

    Raises:
        DisagreementError: some differ.
        PulseError: the day is not published, or something that is configured does not answer.
    """
    db = clickhouse.connect(config)
    frame = db.read("select * from daily_metrics where event_date = {day:Date}", day=day)
    if len(frame) != 1:
        raise DisagreementError(f"daily_metrics has {len(frame)} rows of {day}, not 1; run `pulse daily {day}`.")
    row = {name: _plain(value) for name, value in frame.drop(columns="event_date").loc[0].items()}
    compared, different = ["dimension_activity"], list(_slices(db, day, row))
    path = report or _newest_report(config, day)
    if path:
        compared.append("the report")
        different += _report(path, row)
    if config.superset_url and config.superset_user:
        compared.append("Superset")
        different += _differences("Superset", superset.numbers(config, day), row)
    if config.redash_url and config.redash_api_key.get_secret_value():
        compared.append("Redash")
        for widget, numbers in redash.shown(config, day):
            different += _differences(f"Redash's '{widget}'", numbers, row)
    if different:
        raise DisagreementError(f"The numbers of {day} are not the same everywhere: {'; '.join(different)}.")
    return compared


def _slices(db: clickhouse.ClickHouse, day: date, row: Numbers) -> Iterator[str]:
    sums = """
    -- The totals of a day, one row per dimension
    select dimension, sum(views) as views, sum(likes) as likes, sum(messages_sent) as messages_sent
    from dimension_activity
    where event_date = {day:Date}
    group by dimension
    order by dimension
    """
    found = {record["dimension"]: record for record in db.read(sums, day=day).to_dict("records")}
    for dimension in ("os", "gender", "age"):
        totals = found.get(dimension, dict.fromkeys(SUMS, 0))
        yield from _differences(f"dimension_activity by {dimension}", {name: totals[name] for name in SUMS}, row)


def _report(path: str, row: Numbers) -> Iterator[str]:
    """The numbers of an archived report's text, as readers see them, line by line."""
    handed = notebooks.scraps(path)
    shown = [unescape(number).strip() for number in NUMBER.findall(handed["text"])]
    metrics = [(column, messages.number(row[column], unit, handed["language"])) for column, unit in handed["metrics"]]
    if len(shown) != len(metrics):
        yield f"the report has {len(shown)} numbers where {len(metrics)} were expected"
        return
    for (column, expected), number in zip(metrics, shown, strict=True):
        if number != expected:
            yield f"{column} is {expected} in daily_metrics, {number} in the report"


def _differences(where: str, found: Numbers, row: Numbers) -> Iterator[str]:
    for column, value in found.items():
        expected = row[column]
        same = value is None if expected is None else value is not None and math.isclose(value, expected, rel_tol=1e-9)
        if not same:
            yield f"{column} is {_shown(expected)} in daily_metrics, {_shown(value)} in {where}"


def _newest_report(config: settings.Settings, day: date) -> str | None:
    if "://" in config.output:
        return None
    found = Path(config.output).glob(f"daily_report/{day}/*/daily_report.*.ipynb")
    newest_first = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return next((str(path) for path in newest_first if "metrics" in notebooks.scraps(str(path))), None)


def _plain(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else value


def _shown(value: float | None) -> str:
    return messages.DASH if value is None else f"{value:,.10g}"
