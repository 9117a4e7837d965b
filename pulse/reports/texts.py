"""The texts of the reports: rows in, Telegram's HTML out.

A metric is one line: its name, its number, its change against the same weekday of the week before and against the day
before, and a word where the first change is unusual. The lines are the same and in the same order every day, so that a
reader finds each number in its place.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from itertools import groupby

from pulse.dashboards.links import anchor
from pulse.delivery.markup import MAX_CAPTION, length
from pulse.metrics import PARTS, WEEK, DayMetrics, Metric, PartName
from pulse.publishing import plausible
from pulse.publishing.holds import Hold
from pulse.publishing.reasons import reason
from pulse.publishing.restating import SourceChange
from pulse.reports.unusual import is_unusual
from pulse.settings import Language
from pulse.wording import (
    BETWEEN,
    capital,
    change,
    counted,
    day_and_month,
    escaped,
    listed_days,
    long_date,
    long_day,
    number,
    short_date,
    word,
)

DAY = timedelta(days=1)
ROOM_FOR_NOTES = 150  # characters of a caption that are left for what is said about a correction


def daily_report(
    day: date,
    metrics: Sequence[Metric],
    days: Mapping[date, DayMetrics],
    language: Language,
    link: str = "",
    changed: Sequence[SourceChange] = (),
) -> str:
    """The report of a day: each metric with its changes against the same weekday a week before and the day before.

    Args:
        day: the event date, one of `days`.
        metrics: what to show, in this order.
        days: the rows of the event date and of the week before it, as far as they are published; and of the same
            weekday in earlier weeks, from which `is_unusual` takes its baseline.
        language: of the text.
        link: the dashboard's address for that day, if there is a dashboard.
        changed: what had changed in the sources when the day was published again.

    Returns:
        Telegram's HTML. The metrics of the daily report fit a photo's caption whatever the numbers.
    """
    earlier = {before: days[before] for before in compared(day) if before in days}
    missing = [before for before in _week_before(day) if before not in days]
    unusual = [metric.column for metric in metrics if is_unusual(day, metric, days)]
    table = _table(metrics, days[day], earlier, language, unusual=unusual)
    lines = [f"<b>{capital(long_date(day, language))}</b>", *table]
    if missing or link:
        lines.append("")
    if missing:
        count = counted(len(missing), "day", language)
        lines.append(word("missing", language, days=count, list=listed_days(missing, language)))
    if link:
        lines.append(anchor(link, day, language))
    if changed:
        why = ["", word("restated", language, reason=reason(changed, language))]
        # The reason never costs the chart: beside a caption's text there is to be room for what was corrected.
        if length("\n".join(lines + why)) <= MAX_CAPTION - ROOM_FOR_NOTES:
            lines += why[bool(missing or link) :]
    return "\n".join(lines)


def live_metrics(
    moment: datetime,
    metrics: Sequence[Metric],
    now: DayMetrics,
    earlier: Mapping[date, DayMetrics],
    language: Language,
    silent: Collection[PartName] = (),
    until: Mapping[PartName, datetime] | None = None,
) -> str:
    """Today so far: each metric with its changes against earlier days up to the same time of day.

    Args:
        moment: until when, in local time.
        metrics: what to show, in this order.
        now: today's row.
        earlier: the rows to compare with, by day.
        language: of the text.
        silent: the parts in which nothing has happened yet today.
        until: the parts whose data ends before the moment, and when it ends; their numbers are those up to then.

    Returns:
        Telegram's HTML.
    """
    title = word("so far", language, date=long_day(moment.date(), language), time=f"{moment:%H:%M}")
    table = _table(metrics, now, earlier, language, label=Metric.label_so_far)
    lines = [f"<b>{capital(title)}</b>", *table, ""]
    if silent:
        lines.append(word("silent", language, parts=", ".join(PARTS[part].name(language) for part in silent)))
    for part, end in (until or {}).items():
        lines.append(word("until", language, part=PARTS[part].name(language), time=f"{end:%H:%M}"))
    return "\n".join([*lines, f"<i>{word('provisional', language)}</i>"])


def late_notice(day: date, deadline: time, language: Language, hold: Hold | None = None) -> str:
    """What readers get at the deadline when the day is not published yet; of a held day, that and why it is held."""
    if hold:
        why = escaped("; ".join(plausible.lines(hold.findings, language, most=1)))
        return word("late held", language, day=day_and_month(day, language), why=why)
    return word("late", language, day=day_and_month(day, language), time=f"{deadline:%H:%M}")


def late_data_notice(day: date, rows: Sequence[tuple[str, int]], language: Language) -> str:
    """The source no longer holds the rows that a day was published from.

    Args:
        day: the published day.
        rows: each source with how many rows it gained; negative where it lost rows, 0 where rows were changed.
        language: of the text.
    """
    sources = ", ".join(
        f"{escaped(source)} {'+' if more > 0 else '−'}{number(abs(more), 'count', language)}"
        if more
        else word("rows changed", language, source=escaped(source))
        for source, more in rows
    )
    return word("late data", language, day=day_and_month(day, language), iso=str(day), sources=sources)


def held_notice(hold: Hold, language: Language) -> str:
    """What the alert chats get about a held day: the numbers, and what to do; later, who released it."""
    day, iso = day_and_month(hold.event_date, language), str(hold.event_date)
    lines = [escaped(line) for line in plausible.lines(hold.findings, language)]
    if hold.state == "held":
        return "\n".join([word("held", language, day=day), *lines, word("to do held", language, iso=iso)])
    values = {"by": escaped(hold.said_by), "because": escaped(hold.because)}
    end = "lifted" if hold.state == "lifted" else "released because" if hold.because else "released"
    return "\n".join([word("was held", language, day=day), *lines, word(end, language, **values)])


def headline(
    metrics: Sequence[Metric],
    row: DayMetrics,
    language: Language,
    label: Callable[[Metric, Language], str] = Metric.label,
) -> dict[str, str]:
    """The numbers as shown, by the metrics' names: a later run says which of them it corrected.

    A name that occurs a second time gets its part: `DAU`, then `DAU (feed)`.
    """
    named: dict[str, str] = {}
    for metric in metrics:
        name = label(metric, language)
        if name in named:
            name = f"{name} ({PARTS[metric.part].name(language).lower()})"
        named[name] = number(row[metric.column], metric.unit, language)
    return named


def compared(day: date) -> tuple[date, date]:
    """The days that a day is compared with: the same weekday a week before, and the day before.

    Weekdays differ from each other, so the change against the day before alone would mislead.
    """
    return day - WEEK, day - DAY


def _week_before(day: date) -> list[date]:
    return [day - back * DAY for back in range(WEEK // DAY, 0, -1)]


def _table(
    metrics: Sequence[Metric],
    now: DayMetrics,
    earlier: Mapping[date, DayMetrics],
    language: Language,
    *,
    unusual: Collection[str] = (),
    label: Callable[[Metric, Language], str] = Metric.label,
) -> list[str]:
    """The days compared with; then a heading for each part, and a line for each metric.

    Only the numbers are in letters of equal width: on a small phone the whole line would not fit.
    """
    lines = []
    if earlier:
        lines.append(f"{word('vs', language)} {BETWEEN.join(short_date(day, language) for day in earlier)}")
    for part, group in groupby(metrics, key=lambda metric: metric.part):
        lines.append(f"{PARTS[part].square} <b>{PARTS[part].name(language)}</b>")
        for metric in group:
            value = now[metric.column]
            changes = (change(value, row[metric.column], metric.unit, language) for row in earlier.values())
            line = [
                escaped(label(metric, language)),
                f"<code>{escaped(number(value, metric.unit, language))}</code>",
                escaped(BETWEEN.join(changes)),
                word("unusual", language) if metric.column in unusual else "",
            ]
            lines.append(" ".join(filter(None, line)))
    return lines
