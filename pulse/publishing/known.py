"""What was known about a day at the end of another day: the metrics that were published then, beside those of now."""

import itertools
import math
from datetime import date, datetime, timedelta

from pulse import PulseError, settings
from pulse.clickhouse import ClickHouse
from pulse.metrics import BY_COLUMN, columns
from pulse.publishing import keeping, loads, reasons, restating
from pulse.publishing.loads import Published
from pulse.wording import change, number


def as_of(db: ClickHouse, config: settings.Settings, known: date, day: date) -> list[str]:
    """What was published about a day at the end of another day, against what is published now, as lines of text.

    Args:
        db: where the published tables are.
        config: when a day ends, and the language of the numbers.
        known: the day at whose end something was known, in the configured zone.
        day: the event date.

    Raises:
        PulseError: the day is not published.
        ClickHouseError: no server answers.
    """
    history = loads.history(db, day)
    if not history:
        raise PulseError(f"{day} is not published in {config.database}; run `pulse daily {day}`.")
    end = datetime.combine(known + timedelta(days=1), datetime.min.time(), config.zone)
    before = [number for number, each in enumerate(history) if each.at < end]
    if not before:
        first = history[0]
        return [
            f"At the end of {known} nothing was published about {day}: that was first done on "
            f"{_clock(first.at, config)}, by run {first.run}."
        ]
    then, now = history[before[-1]], history[-1]
    lines = [f"{day}, as it was known at the end of {known}:", f"  then  run {then.run}, {_clock(then.at, config)}"]
    if then.load == now.load:
        lines += ["  now   the same"]
    else:
        lines += [f"  now   run {now.run}, {_clock(now.at, config)}"]
    return [*lines, "", *_metrics(db, config, day, then, now), *_steps(db, config, day, history[before[-1] :])]


def _metrics(db: ClickHouse, config: settings.Settings, day: date, then: Published, now: Published) -> list[str]:
    """Each metric then and now."""
    both = """
    -- The metrics of two loads of a day, one row per load
    select * except event_date
    from daily_metrics_loads
    where event_date = {day:Date} and load in {loads:Array(String)}
    """
    rows = {row["load"]: row for row in db.rows(both, day=day, loads=[then.load, now.load])}
    if then.load not in rows:
        return [
            f"The numbers of run {then.run} are gone: those of replaced loads are kept for {keeping.REPLACED_DAYS} "
            "days, and were not kept at all by versions before schema version 9."
        ]
    lines = []
    for name in columns("daily_metrics"):
        unit = BY_COLUMN[name].unit
        earlier, later = (_plain(rows[each.load][name]) for each in (then, now))
        line = f"  {name:<20}{number(earlier, unit, 'en'):>14}"
        if earlier != later:
            line += f"  → {number(later, unit, 'en'):>14}  {change(later, earlier, unit, 'en')}"
        lines.append(line)
    return lines


def _steps(db: ClickHouse, config: settings.Settings, day: date, history: list[Published]) -> list[str]:
    """Each publication since, and why it was made, if that is known."""
    if len(history) == 1:
        return []
    why = restating.reasons(db, day)
    lines = ["", "Published again since:"]
    for before, after in itertools.pairwise(history):
        said = reasons.reason(restating.sources_in(why.get(before.load, "")), "en")
        lines.append(f"  {_clock(after.at, config)}, by run {after.run}: {said or 'nobody recorded why'}")
    return lines


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _clock(moment: datetime, config: settings.Settings) -> str:
    return f"{moment.astimezone(config.zone):%Y-%m-%d %H:%M}"
