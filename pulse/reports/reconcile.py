"""One number, every surface: a day's numbers as the source, the tables, the report, Superset and Redash have them.

`daily_metrics` is the single source of the numbers that people see; the tables are compared among each other and with
the source as `pulse.publishing.agreement` does it, the report and the dashboards with `daily_metrics`. What is not
configured is not compared.
"""

import re
from collections.abc import Iterator
from datetime import date
from html import unescape
from pathlib import Path

from pulse import PulseError, clickhouse, settings, wording
from pulse.dashboards import redash, superset
from pulse.execution import notebooks
from pulse.metrics import SOURCES
from pulse.publishing import agreement
from pulse.publishing.agreement import MOST_SLICES, Numbers, differences, plain
from pulse.publishing.late_data import late_data

NUMBER = re.compile(r"<code>(.*?)</code>", re.DOTALL)  # how the report's text sets its numbers, a line each


class DisagreementError(PulseError):
    """A day has not the same numbers everywhere; the text says which, where."""


def reconcile(day: date, config: settings.Settings, report: str | None = None) -> list[str]:
    """Compare a day's numbers; gives what was compared, with each other or with `daily_metrics`.

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
    row = {name: plain(value) for name, value in frame.drop(columns="event_date").loc[0].items()}
    compared = ["user_activity", "dimension_activity"]
    different = list(agreement.disagreements(db, day, row))
    if agreement.is_recorded(db, day):
        late = {each.source for each in late_data(day, config)}
        current = [source for source in SOURCES if source not in late]
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
    """The counts of a day's slices as they are published, by `redash.slice_key`."""
    frame = db.read("select * from dimension_activity where event_date = {day:Date}", day=day)
    return {
        redash.slice_key(column, slice_["dimension"], slice_["dimension_value"]): slice_[column]
        for slice_ in frame.to_dict("records")
        for column in redash.COUNTS
    }


def _report(path: str, row: Numbers) -> Iterator[str]:
    """The numbers of an archived report's text, as readers see them, line by line."""
    handed = notebooks.scraps(path)
    shown = [unescape(number).strip() for number in NUMBER.findall(handed["text"])]
    metrics = [(column, wording.number(row[column], unit, handed["language"])) for column, unit in handed["metrics"]]
    if len(shown) != len(metrics):
        yield f"the report has {len(shown)} numbers where {len(metrics)} were expected"
        return
    for (column, expected), number in zip(metrics, shown, strict=True):
        if number != expected:
            yield f"{column} is {expected} in daily_metrics, {number} in the report"


def _newest_report(config: settings.Settings, day: date) -> str | None:
    if "://" in config.output:
        return None
    found = Path(config.output).glob(f"daily_report/{day}/*/daily_report.*.ipynb")
    newest_first = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return next((str(path) for path in newest_first if "metrics" in notebooks.scraps(str(path))), None)
