"""Whether a day's numbers are the same wherever they are shown: the tables, the report, Superset and Redash.

`daily_metrics` is the single source of the numbers that people see. `pulse.publishing.agreement` compares the tables
with each other and with the source; here the report and the dashboards are compared with `daily_metrics`. What is not
configured is skipped.
"""

import re
from collections.abc import Iterator
from datetime import date
from html import unescape
from pathlib import Path

from pulse import PulseError, clickhouse, metrics, settings, wording
from pulse.dashboards import redash, superset
from pulse.dashboards.redash_widgets import slice_key
from pulse.execution import store
from pulse.publishing import agreement
from pulse.publishing.agreement import Numbers, differences, plain
from pulse.publishing.late_data import late_data
from pulse.publishing.slices import MOST_SLICES

NUMBER = re.compile(r"<code>(.*?)</code>", re.DOTALL)  # how the report's text marks its numbers, one on each line


class DisagreementError(PulseError):
    """A day's numbers differ somewhere; the text says which and where."""


def reconcile(day: date, config: settings.Settings, report: str | None = None) -> list[str]:
    """Compare a day's numbers wherever they are shown; returns what was compared.

    Args:
        day: the event date.
        config: where everything is.
        report: the path of the archived report; None for the newest one of that day on this machine, if there is one.

    Raises:
        DisagreementError: some numbers differ.
        PulseError: the day is not published, or a configured dashboard tool does not answer.
    """
    db = clickhouse.connect(config)
    published = db.rows("select * from daily_metrics where event_date = {day:Date}", day=day)
    if len(published) != 1:
        raise DisagreementError(f"daily_metrics has {len(published)} rows of {day}, not 1; run `pulse daily {day}`.")
    row = {name: plain(value) for name, value in published[0].items() if name != "event_date"}
    compared = ["user_activity", "dimension_activity", "dimension_metrics"]
    different = list(agreement.disagreements(db, day, row))
    if agreement.is_recorded(db, day):
        late = {each.source for each in late_data(day, config)}
        current = [source for source in metrics.SOURCES if source not in late]
        compared += current if late else ["the source"]
        different += agreement.source_disagreements(db, config, day, row, current)
    path = report or _newest_report(config, day)
    if path:
        compared.append("the report")
        different += _report(path, row)
    if config.superset_url and config.superset_user:
        compared.append("Superset")
        different += differences("Superset", superset.numbers(config, day), row)
    if config.redash_url and config.redash_api_key.get_secret_value():
        compared.append("Redash")
        numbers = {**row, **_slices(db, day)}
        for widget, shown in redash.shown(config, day):
            found = list(differences(f"Redash's '{widget}'", shown, numbers))
            different += found[:MOST_SLICES]
            if len(found) > MOST_SLICES:
                different.append(f"{len(found) - MOST_SLICES} more numbers of Redash's '{widget}' differ")
    if different:
        raise DisagreementError(f"The numbers of {day} are not the same everywhere: {'; '.join(different)}.")
    return compared


def _slices(db: clickhouse.ClickHouse, day: date) -> dict[str, float | None]:
    """The published numbers of a day's slices, by `slice_key`; what both tables have, as in `dimension_activity`."""
    found: dict[str, float | None] = {}
    for table in ("dimension_metrics", "dimension_activity"):
        published = db.rows(f"select * from {table} where event_date = {{day:Date}}", day=day)  # noqa: S608 (our own)
        found |= {
            slice_key(column, slice_["dimension"], slice_["dimension_value"]): slice_[column]
            for slice_ in published
            for column in metrics.columns(table)
        }
    return found


def _report(path: str, row: Numbers) -> Iterator[str]:
    """Compares the numbers in an archived report's text with the day's metrics, line by line."""
    handed = store.scraps(path)
    shown = [unescape(number).strip() for number in NUMBER.findall(handed["text"])]
    expected_by = [
        (column, wording.number(row[column], unit, handed["language"])) for column, unit in handed["metrics"]
    ]
    if len(shown) != len(expected_by):
        yield f"the report has {len(shown)} numbers where {len(expected_by)} were expected"
        return
    for (column, expected), number in zip(expected_by, shown, strict=True):
        if number != expected:
            yield f"{column} is {expected} in daily_metrics, {number} in the report"


def _newest_report(config: settings.Settings, day: date) -> str | None:
    if settings.in_object_store(config.output):
        return None
    found = Path(config.output).glob(f"daily_report/{day}/*/daily_report.*.ipynb")
    newest_first = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return next((str(path) for path in newest_first if "metrics" in store.scraps(str(path))), None)
