"""The words and numbers of what is sent, in English and Russian: data in, Telegram's HTML out. Nothing is sent here.

A metric is one line: its name, its number, the change since the same day of the week before and since the day before,
and one word where the first of them is outside what such days usually do. The lines are the same and in the same order
every day, so that a reader finds each number at its place.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from html import escape
from itertools import groupby, pairwise
from statistics import quantiles
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote

if TYPE_CHECKING:
    from pulse.monitoring.incidents import Contribution, Finding, Incident, Series, Watch

Language: TypeAlias = Literal["en", "ru"]
Part: TypeAlias = Literal["app", "feed", "messenger"]
Unit: TypeAlias = Literal["users", "count", "share", "ratio"]
Row: TypeAlias = Mapping[str, float | None]
"""The metrics of a day by column; None or nan where one cannot be computed."""

DASH = "–"
GAP = "\N{NO-BREAK SPACE}"
BETWEEN = " · "
MOST_CHANGE = 1000  # a change of more than that says only that there was next to nothing before
MOST_REASON = 1000  # characters of an error: the whole of it stands in the log
BUCKET = timedelta(minutes=15)
MOST_NAME = 40  # characters of a slice's name
MOST_LINES = 12  # of incidents told in one message
_ENGLISH = re.compile(r"[<>]?[+−-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?%?")


@dataclass(frozen=True)
class Metric:
    """A metric as readers see it: a line of the text, a panel of the chart.

    Args:
        part: what it is about; a part's metrics stand together.
        column: where a row holds it.
        unit: `users` and `count` are whole numbers, their change in percent; a `share` is shown in percent, its change
            in percentage points; a `ratio` has two decimals, as has its change.
        en: its name in English, short: a phone has room for some ten letters beside the numbers.
        ru: its name in Russian.
    """

    part: Part
    column: str
    unit: Unit
    en: str
    ru: str

    def label(self, language: Language) -> str:
        """Its name."""
        return {"en": self.en, "ru": self.ru}[language]


# The squares have the colours of the chart.
SQUARES: dict[Part, str] = {"app": "🟦", "feed": "🟧", "messenger": "🟩"}
PARTS: dict[Language, dict[Part, str]] = {
    "en": {"app": "App", "feed": "Feed", "messenger": "Messenger"},
    "ru": {"app": "Приложение", "feed": "Лента", "messenger": "Мессенджер"},
}

TEXTS = {
    "en": {
        ",": ",",
        ".": ".",
        "pp": "pp",
        "vs": "vs",
        "unusual": "unusual",
        "no data": "no data",
        "long date": "{weekday} {day} {month} {year}",
        "so far": "{weekday} {day} {month}, by {time}",
        "provisional": "Provisional: the day is not over.",
        "silent": "No events yet today: {parts}.",
        "until": "{part}: data up to {time}, and compared up to then.",
        "missing": "No data for {days}: {list}.",
        "dashboard": "Dashboard for {day}",
        "late": "The report for {day} is late: the ETL has not published the day by {time}. "
        "It follows as soon as the data is there.",
        "late data": "<b>Late data</b> for {day}. Rows in the source since the day was published: {sources}. "
        "<code>pulse daily {iso}</code> publishes it anew.",
        "rows changed": "{source}, changed in place",
        "archive": "Archive: {count} notebooks, all as they were kept. Head of the chain <code>{head}</code>",
        "failed": "<b>{name} failed</b>",
        "failed day": "<b>{name} failed</b> for {day}",
        "not run": "<b>{name} has not run</b> since {time}: Airflow stood still, or is not asked to run it.",
        "not run day": "<b>{name} did not run</b> for {day}: Airflow stood still, or was not asked to run it.",
        "to do": "What to do: mend that, then clear the failed task in Airflow.",
        "to do often": "The next run tries again. If that fails too, it is not told again today: look into Airflow.",
        "to do not run": "What to do: see whether the scheduler runs, then trigger it with that date.",
        "to do not run often": "What to do: see whether the scheduler runs and whether the DAG is switched on.",
        "as logged": "{reason}",
        "users": "users",
        "instead": "{value} instead of {lower} – {upper}, in the 15 minutes to {time}",
        "in all": "over {span} to {time}; at last {value}, expected {lower} – {upper}",
        "since": "since {time}",
        "from to": "from {start} to {end}",
        "over": "Over: {what}",
        "withdrawn": "Taken back: {what}",
        "was none": "Data that came later is as expected.",
        "again": "As expected again since {time}: {what}.",
        "normal": "normal",
        "others normal": "others normal",
        "alike": "all slices alike",
        "mix": "shift between slices",
        "also": "also: {list}",
        "more": "and {count} more",
        "data is late": "Data is late",
        "no events": "No new events since {time}: what happened since is not known, not zero.",
        "data is there": "The data is there again",
        "many": "{count} incidents at once",
        "age": "age {value}",
        "unknown": "{dimension} unknown",
        "expected": "expected range",
        "per bucket": "per 15 minutes",
    },
    "ru": {
        ",": GAP,
        ".": ",",
        "pp": f"{GAP}п.{GAP}п.",
        "vs": "к",
        "unusual": "необычно",
        "no data": "нет данных",
        "long date": "{weekday}, {day} {month} {year}",
        "so far": "{weekday}, {day} {month}, на {time}",
        "provisional": "Предварительно: день ещё идёт.",
        "silent": "Сегодня ещё нет событий: {parts}.",
        "until": "{part}: данные есть до {time}, сравнение на то же время.",
        "missing": "Нет данных за {days}: {list}.",
        "dashboard": "Дашборд за {day}",
        "late": "Отчёт за {day} задерживается: к {time} данные за этот день ещё не опубликованы. "
        "Он придёт, как только они появятся.",
        "late data": "<b>Данные за {day} изменились</b> уже после публикации. Строк в источнике: {sources}. "
        "Пересчитать день: <code>pulse daily {iso}</code>",
        "rows changed": "{source} — столько же, но другие",
        "archive": "Архив цел, ноутбуков в нём: {count}. Голова цепочки <code>{head}</code>",
        "failed": "<b>{name}: сбой</b>",
        "failed day": "<b>{name}: сбой</b> за {day}",
        "not run": "<b>{name} не запускался</b> с {time}: Airflow стоял или запуск был выключен.",
        "not run day": "<b>{name} не запускался</b> за {day}: Airflow стоял или запуск был выключен.",
        "to do": "Что делать: устранить причину и перезапустить задачу в Airflow (Clear).",
        "to do often": "Следующий запуск попробует снова; о новом сбое сегодня уже не сообщим: загляните в Airflow.",
        "to do not run": "Что делать: проверить, работает ли планировщик, и запустить DAG с этой датой.",
        "to do not run often": "Что делать: проверить, работает ли планировщик и включён ли DAG.",
        "as logged": "дословно из журнала: {reason}",
        "users": "чел.",
        "instead": "{value} вместо {lower} – {upper} за 15 минут до {time}",
        "in all": "за {span} до {time}; в конце {value}, ожидалось {lower} – {upper}",
        "since": "с {time}",
        "from to": "с {start} до {end}",
        "over": "Закончилось: {what}",
        "withdrawn": "Отменено: {what}",
        "was none": "Данные, пришедшие позже, соответствуют ожиданиям.",
        "again": "Снова как ожидалось с {time}: {what}.",
        "normal": "в норме",
        "others normal": "остальные в норме",
        "alike": "во всех срезах одинаково",
        "mix": "сдвиг между срезами",
        "also": "также: {list}",
        "more": "и ещё {count}",
        "data is late": "Данные запаздывают",
        "no events": "Новых событий нет с {time}: что было с тех пор, неизвестно, это не ноль.",
        "data is there": "Данные снова поступают",
        "many": "Инцидентов сразу: {count}",
        "age": "возраст {value}",
        "unknown": "{dimension}: неизвестно",
        "expected": "ожидаемый диапазон",
        "per bucket": "за 15 минут",
    },
}
HOURS = {"en": ("hour", "hours", "hours"), "ru": ("час", "часа", "часов")}
DIMENSIONS = {
    "en": {"os": "os", "gender": "gender", "age_group": "age"},
    "ru": {"os": "ОС", "gender": "пол", "age_group": "возраст"},
}
# Values of dimensions that are words; any other is a name, and the same in every language.
VALUES: dict[Language, dict[str, dict[str, str]]] = {
    "en": {},
    "ru": {"gender": {"male": "мужчины", "female": "женщины"}},
}
POWERS = {"en": ("M", "B", "T"), "ru": (f"{GAP}млн", f"{GAP}млрд", f"{GAP}трлн")}
DAYS = {"en": ("day", "days", "days"), "ru": ("день", "дня", "дней")}

WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "ru": ("понедельник", "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье"),
}
SHORT_WEEKDAYS = {
    "en": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    "ru": ("пн", "вт", "ср", "чт", "пт", "сб", "вс"),
}
MONTHS = {
    "en": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "ru": (
        "января", "февраля", "марта", "апреля", "мая", "июня", "июля", "августа", "сентября", "октября", "ноября",
        "декабря",
    ),
}  # fmt: skip


# --- messages ---------------------------------------------------------------------------------------------------------


def daily_report(
    day: date, metrics: Sequence[Metric], days: Mapping[date, Row], language: Language, link: str = ""
) -> str:
    """The report of a day: each metric with its change against the same day of the week before and the day before.

    Args:
        day: the event date, one of `days`.
        metrics: what to show, in this order.
        days: the rows of the event date and, as far as they are there, of the seven days before; and of the same day
            in earlier weeks, which say what such days usually do (see `is_unusual`).
        language: of the text.
        link: the dashboard's address for that day, if there is one.

    Returns:
        Telegram's HTML. The nine metrics of the daily report fit a caption whatever the numbers.
    """
    earlier = {before: days[before] for before in compared(day) if before in days}
    missing = [before for before in _days_before(day, 7) if before not in days]
    unusual = [metric.column for metric in metrics if is_unusual(day, metric, days)]
    table = _table(metrics, days[day], earlier, language, unusual)
    lines = [f"<b>{capital(long_date(day, language))}</b>", *table]
    if missing or link:
        lines.append("")
    if missing:
        counted = f"{len(missing)} {plural(len(missing), DAYS[language], language)}"
        lines.append(word("missing", language, days=counted, list=_list_of(missing, language)))
    if link:
        lines.append(_dashboard(link, day, language))
    return "\n".join(lines)


def live_metrics(
    moment: datetime,
    metrics: Sequence[Metric],
    now: Row,
    earlier: Mapping[date, Row],
    language: Language,
    silent: Collection[Part] = (),
    until: Mapping[Part, datetime] | None = None,
) -> str:
    """Today so far, each metric with its change against earlier days up to the same time.

    Args:
        moment: until when, in local time.
        metrics: what to show, in this order.
        now: today's row.
        earlier: the rows to compare with.
        language: of the text.
        silent: the parts in which nothing has happened yet today.
        until: the parts whose data ends before the moment, each with when; its numbers are those up to then.
    """
    title = word("so far", language, **_date_words(moment.date(), language), time=f"{moment:%H:%M}")
    lines = [f"<b>{capital(title)}</b>", *_table(metrics, now, earlier, language), ""]
    if silent:
        lines.append(word("silent", language, parts=", ".join(PARTS[language][part] for part in silent)))
    for part, end in (until or {}).items():
        lines.append(word("until", language, part=PARTS[language][part], time=f"{end:%H:%M}"))
    return "\n".join([*lines, f"<i>{word('provisional', language)}</i>"])


def late_notice(day: date, deadline: time, language: Language) -> str:
    """What stands in the report's place while its data is not there."""
    return word("late", language, day=day_and_month(day, language), time=f"{deadline:%H:%M}")


def late_data_notice(day: date, rows: "Sequence[tuple[str, int]]", language: Language) -> str:
    """That the source holds other rows of a published day than when it was published.

    Args:
        day: the day.
        rows: by source, how many rows there are more; negative where there are fewer, 0 where they are others.
        language: of the text.
    """
    signs = {True: "+", False: "−"}
    sources = ", ".join(
        f"{_escaped(source)} {signs[more > 0]}{number(abs(more), 'count', language)}"
        if more
        else word("rows changed", language, source=_escaped(source))
        for source, more in rows
    )
    return word("late data", language, day=day_and_month(day, language), iso=day, sources=sources)


def archive_notice(notebooks: int, head: str, language: Language) -> str:
    """The nightly line that takes the head of the archive's chain out of the archive."""
    return word("archive", language, count=number(notebooks, "count", language), head=head)


def failure_notice(
    name: str, reasons: Mapping[str, str], language: Language, day: date | None = None, often: bool = False
) -> str:
    """That a DAG failed, why, and what to do.

    Args:
        name: the DAG's.
        reasons: each failed task with its error; without a name, what happened to the run as a whole.
        language: of the text.
        day: the event date that it was about, if it was about one.
        often: whether the DAG runs again within the day by itself.
    """
    tasks: dict[str, list[str]] = {}
    for task, reason in reasons.items():
        tasks.setdefault(reason_in(" ".join(reason.split()), language), []).append(task)
    room = MOST_REASON // max(1, len(tasks))
    shown = {
        ", ".join(filter(None, names)): _escaped(reason if len(reason) <= room else f"{reason[: room - 1].rstrip()}…")
        for reason, names in tasks.items()
    }
    # One task, one line: the whole of it stands in a phone's notification.
    if len(shown) == 1 and len(reasons) == 1:
        ((task, reason),) = shown.items()
        lines = [f"{_failed(f'{name}.{task}' if task else name, language, day)}: {reason}"]
    else:
        lines = [_failed(name, language, day), *(f"{_escaped(task)}: {reason}" for task, reason in shown.items())]
    return "\n".join([*lines, word("to do often" if often else "to do", language)])


def not_run_notice(name: str, language: Language, day: date | None = None, since: str = "") -> str:
    """That a DAG was not run when it should have been: for an event date, or since a moment; and what to do."""
    if day is None:
        said = word("not run", language, name=_escaped(name), time=since)
        return f"{said}\n{word('to do not run often', language)}"
    said = word("not run day", language, name=_escaped(name), day=day_and_month(day, language))
    return f"{said}\n{word('to do not run', language)}"


def _failed(name: str, language: Language, day: date | None) -> str:
    if day is None:
        return word("failed", language, name=_escaped(name))
    return word("failed day", language, name=_escaped(name), day=day_and_month(day, language))


# What errors say, and what a Russian reader is told; whatever is not among them is quoted as the log has it.
REASONS = {
    r"(?P<day>\S+) was not published within (?P<wait>[\d:]+)": "{day} не опубликован за {wait}: почините etl, затем "
    "запустите этот DAG с этой датой.",
    r"No ClickHouse server answers at (?P<where>\S+);": "ClickHouse не отвечает по адресу {where}: проверьте "
    "CLICKHOUSE_URL и работает ли сервер.",
    r"(?P<some>\d+) of (?P<all>\d+) chats did not get (?P<report>.+?) of (?P<day>\d{4}-\d\d-\d\d)\. ?(?P<rest>.*)": (
        "{report} за {day} не дошёл до чатов: {some} из {all}. {rest}"
    ),
    r"The numbers of (?P<day>\S+) are not the same everywhere: (?P<rest>.*)": "Числа за {day} расходятся: {rest}",
    r"The archive cannot keep (?P<path>\S+) \(": "В архив нельзя записать {path}: освободите место, дайте право на "
    "запись или задайте PULSE_OUTPUT.",
    r"killed before it could say why": "задачу прервали извне или ей не хватило памяти: сама она ничего не сказала.",
    r"it took longer than it may, or was broken off by hand": "запуск шёл дольше положенного или прерван вручную.",
    **dict.fromkeys(
        (
            r"No feed actions on (?P<day>\S+) in (?P<table>\S+);",
            r"No messages on (?P<day>\S+) in (?P<table>\S+);",
        ),
        "в {table} нет строк за {day}: спросите владельца источника, затем перезапустите задачу. Если день и правда "
        "пуст, запустите его с allow_empty.",
    ),
    r"The totals of (?P<day>\S+) differ between users and slices": (
        "итоги за {day} не сходятся: источник изменился, пока его читали. Перезапустите весь запуск."
    ),
    r"of (?P<day>\S+) are not what": (
        "числа за {day} не прошли проверку: в transform ошибка. Исправьте ноутбук и перезапустите весь запуск."
    ),
    **dict.fromkeys(
        (
            r"are not there; run extract and transform for (?P<day>\S+)",
            r"are not there; run both extracts for (?P<day>\S+)",
        ),
        "промежуточных таблиц за {day} уже нет: перезапустите весь запуск, а не одну задачу.",
    ),
    r"The tables in (?P<db>\S+) are of schema version": (
        "у таблиц в {db} другая версия схемы: выполните pulse upgrade или обновите код."
    ),
    r"The view (?P<view>\S+) in (?P<db>\S+) reads the source differently": (
        "{view} в {db} читает источник не так, как pulse/sources.sql: если это намеренно, выполните pulse upgrade."
    ),
    r"The archive is not as it was kept: (?P<rest>.*)": (
        "архив изменён: {rest} Выясните, кто это сделал, и восстановите его из резервной копии."
    ),
    r"There is nothing to watch": "Следить не за чем: источник пуст, или время в нём другого часового пояса.",
}


def reason_in(reason: str, language: Language) -> str:
    """Why something failed, as a reader of that language is told: errors themselves are in English."""
    if language == "en":
        return reason
    for said, told in REASONS.items():
        if found := re.search(said, reason):
            return told.format(**found.groupdict()).rstrip()
    return word("as logged", language, reason=reason)


def incident(
    about: "Incident",
    watch: "Watch",
    contributions: "Sequence[Contribution]",
    language: Language,
    *,
    now: datetime,
    link: str = "",
) -> str:
    """An alert: what is wrong, how far from what is expected, since when, and what explains it; or that it is over.

    Args:
        about: the incident.
        watch: what is watched, for names and owners.
        contributions: of the slices; empty where all go alike.
        language: of the text.
        now: in local time, to leave out of times what everybody knows.
        link: the dashboard's address for the day, if there is one.
    """
    lines = [f"{_light(about)} <b>{_escaped(capital(incident_title(about, watch, language)))}</b>"]
    if about.lead is None:
        since = _moment(about.opened, now, language)
        lines += [] if about.resolved else [word("no events", language, time=since)]
    else:
        unit = watch.metrics[about.lead.series.metric].metric.unit
        value, lower, upper = (
            number(each, unit, language) for each in (about.lead.value, about.lead.lower, about.lead.upper)
        )
        until = _moment(about.updated + BUCKET, now, language)
        how = "in all" if _is_gradual(about.lead) else "instead"
        span = _hours(int(about.lead.window), language)
        lines.append(word(how, language, value=value, lower=lower, upper=upper, time=until, span=span))
    story = [word("was none", language)] if about.state == "withdrawn" else [_span(about, now, language)]
    if about.state != "withdrawn":
        story.append(explanation(about, contributions, watch, language))
    lines += filter(None, [_escaped(BETWEEN.join(filter(None, story)))])
    if others := _others(about, watch, language):
        lines.append(_escaped(word("also", language, list=others)))
    owners = [] if about.resolved else _owners(about, watch)
    if link or owners:
        board = [_dashboard(link, about.updated.date(), language)] if link else []
        lines += ["", BETWEEN.join([*board, *owners])]
    return "\n".join(lines)


def incident_over(about: "Incident", watch: "Watch", language: Language, *, now: datetime) -> str:
    """What is said below an alert once its incident is over."""
    moment = _moment(about.resolved or about.updated, now, language)
    if about.lead is None:
        return f"{_light(about)} {word('data is there', language)} {word('since', language, time=moment)}."
    words = word("again", language, time=moment, what=_name(about.lead.series, watch, language))
    return f"{_light(about)} {_escaped(words)}"


def incidents_at_once(
    found: "Sequence[tuple[Incident, str]]", watch: "Watch", language: Language, *, now: datetime, link: str = ""
) -> str:
    """One alert for many incidents that opened together: a line each, with what explains it."""
    lines = [f"🔴 <b>{word('many', language, count=str(len(found)))}</b>"]
    shown = found[:MOST_LINES]
    for about, why in shown:
        story = BETWEEN.join(filter(None, [_span(about, now, language), why]))
        lines.append(f"{_light(about)} {_escaped(incident_title(about, watch, language))} ({_escaped(story)})")
    if len(found) > len(shown):
        lines.append(word("more", language, count=str(len(found) - len(shown))))
    owners = list(dict.fromkeys(owner for about, _ in found if not about.resolved for owner in _owners(about, watch)))
    if link:
        owners.insert(0, _dashboard(link, found[0][0].updated.date(), language))
    return "\n".join([*lines, *(["", BETWEEN.join(owners)] if owners else [])])


def incident_title(about: "Incident", watch: "Watch", language: Language) -> str:
    """An incident in a few words: `views −61.0% (Android)`; once it is over, that it is."""
    if about.lead is None:
        return word("data is there" if about.resolved else "data is late", language)
    metric = watch.metrics[about.lead.series.metric].metric
    due = about.lead.expected
    moved = change(
        due * (1 + about.lead.deviation) if _is_gradual(about.lead) else about.lead.value, due, metric.unit, language
    )
    what = f"{_name(about.lead.series, watch, language)} {moved}"
    if about.state == "withdrawn":
        return word("withdrawn", language, what=what)
    return word("over", language, what=what) if about.resolved else what


def explanation(about: "Incident", contributions: "Sequence[Contribution]", watch: "Watch", language: Language) -> str:
    """Which slices carry a deviation and which do not, in one line: `Android −61.0%, iOS normal`.

    Of an incident of a slice, how the others are.
    """
    if about.lead is None:
        return ""
    lead = about.lead.series
    unit = watch.metrics[lead.metric].metric.unit
    others = [each for each in contributions if (each.dimension, each.dimension_value) != lead[1:]]
    if not others:
        return word("alike", language) if lead.is_total else ""
    off = [each for each in others if each.off][:3]
    normal = [each for each in others if not each.off]
    names = {each: slice_name(each.dimension, each.dimension_value, language) for each in others}
    said = [f"{names[each]} {_difference(each.deviation, unit, language)}" for each in off]
    mix = sum(each.mix for each in contributions)
    if unit == "share" and abs(mix) > sum(abs(each.deviation) for each in off):
        said.append(f"{word('mix', language)} {_difference(mix, unit, language)}")
    if len(normal) == 1:
        said.append(f"{names[normal[0]]} {word('normal', language)}")
    elif normal:
        said.append(word("others normal", language))
    return ", ".join(said)


def slice_name(dimension: str, value: str, language: Language) -> str:
    """A slice as readers know it: `Android`, `age 25–34`, `os unknown`."""
    if value == "unknown":
        return word("unknown", language, dimension=DIMENSIONS[language].get(dimension, dimension))
    if known := VALUES[language].get(dimension, {}).get(value.lower()):
        return known
    value = value if len(value) <= MOST_NAME else f"{value[: MOST_NAME - 1]}…"
    return word("age", language, value=value) if dimension == "age_group" else value


def headline(metrics: Sequence[Metric], row: Row, language: Language) -> dict[str, str]:
    """The numbers as shown by what they are called, to tell what a correction changed.

    A name that occurs again bears its part: `DAU`, then `DAU (feed)`.
    """
    named: dict[str, str] = {}
    for metric in metrics:
        label = metric.label(language)
        name = f"{label} ({PARTS[language][metric.part].lower()})" if label in named else label
        named[name] = number(row[metric.column], metric.unit, language)
    return named


def dashboard_link(superset_url: str, day: date) -> str:
    """The address of the Superset dashboard `pulse` on a day; empty where there is no Superset.

    The dashboard's date filter has the id `NATIVE_FILTER-event_date`; its state travels in the address (in rison).
    """
    if not superset_url:
        return ""
    span = f"'{time_range(day)}'"
    name = "NATIVE_FILTER-event_date"
    state = f"({name}:(extraFormData:(time_range:{span}),filterState:(value:{span}),id:{name},ownState:()))"
    return f"{superset_url.rstrip('/')}/superset/dashboard/pulse/?native_filters={quote(state, safe='():,')}"


def time_range(day: date) -> str:
    """A day as Superset's date filters say it: from its midnight to the next one."""
    return f"{day} : {day + timedelta(days=1)}"


# --- numbers ----------------------------------------------------------------------------------------------------------


def number(value: float | None, unit: Unit, language: Language) -> str:
    """A number as readers see it: `13,533`, `19.4%`, `1.07`; a dash for one that is not there."""
    if value is None or math.isnan(value):
        return DASH
    text = {"share": f"{value:,.1%}", "ratio": f"{value:,.2f}"}.get(unit, f"{round(value):,}")
    return _localised(text, language)


def change(value: float | None, before: float | None, unit: Unit, language: Language) -> str:
    """How a number changed: `+2.1%`, of a share `−0.3pp`, of a ratio `+0.02`; a dash where that cannot be told."""
    if value is None or before is None or math.isnan(value) or math.isnan(before):
        return DASH
    now, then = float(value), float(before)  # the difference of two unsigned integers would be one, too
    if unit == "ratio":
        difference, decimals, ending = now - then, 2, ""
    elif unit == "share":
        difference, decimals, ending = 100 * (now - then), 1, word("pp", language)
    elif then == 0:
        return DASH
    else:
        difference, decimals, ending = 100 * (now - then) / then, 1, "%"
    if abs(difference) >= MOST_CHANGE:
        return f"{'>+' if difference > 0 else '<−'}{MOST_CHANGE - 1}{ending}"
    shown = f"{abs(difference):.{decimals}f}"
    sign = "" if float(shown) == 0 else "+" if difference > 0 else "−"
    return _localised(f"{sign}{shown}", language) + ending


# What days of a week usually do is told by so many weeks at most, and by so many at least.
MOST_WEEKS, LEAST_WEEKS = 12, 8
# How far beyond the quartiles is unusual, in distances between them: what Tukey called far out.
FENCE = 3.0
# A change of a share or of a ratio that is never unusual, however little there usually is.
LEAST_CHANGE: dict[Unit, float] = {"share": 0.01, "ratio": 0.05}


def is_unusual(day: date, metric: Metric, days: Mapping[date, Row]) -> bool:
    """Whether a day's change against the same day of the week before is outside what such days usually do.

    What they usually do: the changes of the same weekday over the past 12 weeks, each against the week before it, as
    many of them as are known; of fewer than eight nothing is said. Outside is what lies farther beyond their quartiles
    than three times the distance between these: of days as ever that is one line in 70 with eight weeks, in 160 with
    twelve (normal noise of a day and a slow drift, simulated), and an odd day among the past ones changes little.

    A count changes by its ratio, where half weighs as much as double; a share and a ratio by their difference. Less
    than three standard deviations of counting by chance, a percentage point or 0.05 is never unusual: so says a tiny
    app nothing.
    """
    weeks = [day - timedelta(weeks=back) for back in range(MOST_WEEKS + 2)]
    values = [_known(days.get(each, {}).get(metric.column)) for each in weeks]
    pairs = list(pairwise(values))
    now, *past = (_moved(*pair, metric.unit) for pair in pairs)
    usual = [each for each in past if each is not None]
    if now is None or len(usual) < LEAST_WEEKS:
        return False
    lower, middle, upper = quantiles(usual, n=4, method="inclusive")
    fence = FENCE * (upper - lower)
    chance = math.sqrt(sum(1 / (value + 1) for value in pairs[0] if value is not None))  # of a count's logarithm
    least = LEAST_CHANGE.get(metric.unit, FENCE * chance)
    return abs(now - middle) > least and not lower - fence <= now <= upper + fence


def _moved(value: float | None, before: float | None, unit: Unit) -> float | None:
    """How far a value moved, on the scale on which its changes are compared."""
    if value is None or before is None:
        return None
    return value - before if unit in LEAST_CHANGE else math.log((value + 1) / (before + 1))  # a zero is a number too


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def compact(value: float | None, unit: Unit, language: Language) -> str:
    """A number where there is little room: in full below a million, then `1.2M`, `35B`, and at last a power of ten."""
    scale, ending = (100, "%") if unit == "share" else (1, "")
    if unit == "ratio" and value is not None and abs(value) >= 1000:
        unit = "count"  # its decimals say nothing any more
    if value is None or math.isnan(value) or abs(scale * value) < 1e6:
        return number(value, unit, language)
    for power, name in reversed(list(enumerate(POWERS[language], start=2))):
        mantissa = scale * value / 1000**power
        if 0.9995 <= abs(mantissa) < 999.5:
            return _localised(f"{mantissa:.3g}", language) + name + ending
    return _localised(f"{scale * value:.1e}{ending}", language)


def plural(count: int, forms: tuple[str, str, str], language: Language) -> str:
    """The form of a word that goes with a number: for 1, for 2 to 4, for 5 and more, as each language counts."""
    if language == "en":
        return forms[0] if count == 1 else forms[1]
    if count % 10 == 1 and count % 100 != 11:
        return forms[0]
    return forms[1] if count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14) else forms[2]


# --- dates ------------------------------------------------------------------------------------------------------------


def short_date(day: date, language: Language) -> str:
    """`Mon 16`."""
    return f"{SHORT_WEEKDAYS[language][day.weekday()]} {day.day}"


def day_and_month(day: date, language: Language) -> str:
    """`16 November`."""
    return f"{day.day} {MONTHS[language][day.month - 1]}"


def long_date(day: date, language: Language) -> str:
    """`Monday 16 November 2026`."""
    return word("long date", language, **_date_words(day, language))


# --- small parts ------------------------------------------------------------------------------------------------------


def _table(
    metrics: Sequence[Metric], now: Row, earlier: Mapping[date, Row], language: Language, unusual: Collection[str] = ()
) -> list[str]:
    """The days compared with, then a heading a part and a line a metric: its name, its number, its changes.

    The numbers alone are in letters of one width, which set them apart: on a small phone the whole line would not fit.
    """
    numbers = [number(now[metric.column], metric.unit, language) for metric in metrics]
    lines = []
    if earlier:
        lines.append(f"{word('vs', language)} {BETWEEN.join(short_date(day, language) for day in earlier)}")
    for part, group in groupby(zip(metrics, numbers, strict=True), key=lambda pair: pair[0].part):
        lines.append(f"{SQUARES[part]} <b>{PARTS[language][part]}</b>")
        for metric, shown in group:
            changes = (
                change(now[metric.column], row[metric.column], metric.unit, language) for row in earlier.values()
            )
            said = [_escaped(BETWEEN.join(changes)), word("unusual", language) if metric.column in unusual else ""]
            line = [_escaped(metric.label(language)), f"<code>{_escaped(shown)}</code>", *said]
            lines.append(" ".join(filter(None, line)))
    return lines


def _dashboard(link: str, day: date, language: Language) -> str:
    """The link to the dashboard of a day."""
    return f'<a href="{escape(link)}">{escape(word("dashboard", language, day=day_and_month(day, language)))}</a>'


def _light(about: "Incident") -> str:
    if about.resolved:
        return "🟢"
    return {"drop": "🔴", "spike": "🟠", "data_lag": "⚪"}[about.direction]


def _name(series: "Series", watch: "Watch", language: Language) -> str:
    label = watch.metrics[series.metric].metric.label(language)
    return label if series.is_total else f"{label} ({slice_name(*series[1:], language)})"


def _others(about: "Incident", watch: "Watch", language: Language) -> str:
    """The other metrics that showed it, whole or in slices."""
    lead = about.lead.series.metric if about.lead else ""
    names = dict.fromkeys(series.metric for series in about.series if series.metric != lead)
    return ", ".join(watch.metrics[name].metric.label(language) for name in names if name in watch.metrics)


def _owners(about: "Incident", watch: "Watch") -> list[str]:
    found = dict.fromkeys(owner for series in about.series for owner in watch.metrics[series.metric].owners)
    return [_escaped(owner) for owner in found]


def _span(about: "Incident", now: datetime, language: Language) -> str:
    start = _moment(about.opened, now, language)
    if about.resolved is None:
        return word("since", language, time=start) if about.lead else ""
    return word("from to", language, start=start, end=_moment(about.resolved, now, language))


def _is_gradual(lead: "Finding") -> bool:
    """Whether the last bucket alone is within its range: it is off over a longer window only."""
    return lead.window > 1 and lead.lower <= lead.value <= lead.upper


def _hours(buckets: int, language: Language) -> str:
    """How long so many buckets are, in whole hours."""
    hours = round(buckets / 4)
    return f"{hours} {plural(hours, HOURS[language], language)}"


def _moment(moment: datetime, now: datetime, language: Language) -> str:
    """`12:15`; on another day than now `Mon 23, 12:15`; in the hour that comes twice `02:15 CET`."""
    day = "" if moment.date() == now.date() else f"{short_date(moment.date(), language)}, "
    twice = moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
    return f"{day}{moment:%H:%M %Z}" if twice else f"{day}{moment:%H:%M}"


def _difference(difference: float, unit: Unit, language: Language) -> str:
    """A change that is known already: of a share as a difference, else as a share of what was before."""
    return change(difference, 0.0, unit, language) if unit == "share" else change(1 + difference, 1.0, unit, language)


def compared(day: date) -> tuple[date, date]:
    """The days that a day is compared with: the same day of the week before, and the one before.

    A week has its rhythm, so the day before differs by that alone.
    """
    return day - timedelta(days=7), day - timedelta(days=1)


def _days_before(day: date, count: int) -> list[date]:
    return [day - timedelta(days=back) for back in range(count, 0, -1)]


def _list_of(days: Sequence[date], language: Language) -> str:
    """Days as `Wed 18, Thu 19`, three or more in a row as `Mon 16 – Wed 18`."""
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    shown = []
    for run in runs:
        names = [short_date(day, language) for day in run]
        shown += [f"{names[0]} {DASH} {names[-1]}"] if len(run) > 2 else names
    return ", ".join(shown)


def _date_words(day: date, language: Language) -> dict[str, str]:
    return {
        "weekday": WEEKDAYS[language][day.weekday()],
        "day": str(day.day),
        "month": MONTHS[language][day.month - 1],
        "year": str(day.year),
    }


def word(name: str, language: Language, /, **values: str) -> str:
    """One of `TEXTS`, with its values put in."""
    return TEXTS[language][name].format(**values)


def localised(text: str, language: Language) -> str:
    """A number that English writes `1,234.5`, as another language writes it; any other text as it is."""
    return _localised(text, language) if _ENGLISH.fullmatch(text) else text


def neutral(text: str, language: Language) -> str:
    """A number as English writes it, out of what a reader of another language sees: `localised` undone."""
    marks = {word(mark, language): mark for mark in (".", ",")}
    english = "".join(marks.get(character, character) for character in text)
    return english if _ENGLISH.fullmatch(english) else text


def _localised(text: str, language: Language) -> str:
    marks = {mark: word(mark, language) for mark in (",", ".")}
    return "".join(marks.get(character, character) for character in text)


def capital(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def _escaped(text: str) -> str:
    return escape(text, quote=False)
