"""Words, numbers and dates as people read them, in English and Russian.

Babel knows how each language writes numbers, dates and plurals; the words are ours, each in both languages beside each
other. Rounding is Python's, so that both languages show the same digits.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from html import escape

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_decimal
from babel.units import format_unit

from pulse.metrics import BUCKET, Unit
from pulse.settings import Language

DASH = "–"
GAP = "\N{NO-BREAK SPACE}"
BETWEEN = " · "
LARGEST_CHANGE = 1000  # percent; a larger change only says that there was next to nothing before
ENGLISH_NUMBER = re.compile(r"[<>]?[+−-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?%?")


@dataclass(frozen=True)
class Word:
    """A word or a sentence in both languages; `{names}` are filled in."""

    en: str
    ru: str


WORDS = {
    # --- reports ---
    "pp": Word("pp", f"{GAP}п.{GAP}п."),
    "vs": Word("vs", "к"),
    "unusual": Word("unusual", "необычно"),
    "no data": Word("no data", "нет данных"),
    "so far": Word("{date}, by {time}", "{date}, на {time}"),
    "provisional": Word("Provisional: the day is not over.", "Предварительно: день ещё идёт."),
    "silent": Word("No events yet today: {parts}.", "Сегодня ещё нет событий: {parts}."),
    "until": Word(
        "{part}: data up to {time}, and compared up to then.",
        "{part}: данные есть до {time}, сравнение на то же время.",
    ),
    "missing": Word("No data for {days}: {list}.", "Нет данных за {days}: {list}."),
    "dashboard": Word("Dashboard for {day}", "Дашборд за {day}"),
    "late": Word(
        "The report for {day} is late: the ETL has not published the day by {time}. "
        "It follows as soon as the data is there.",
        "Отчёт за {day} задерживается: к {time} данные за этот день ещё не опубликованы. "
        "Он придёт, как только они появятся.",
    ),
    "late data": Word(
        "<b>Late data</b> for {day}. Rows in the source since the day was published: {sources}. "
        "<code>pulse daily {iso}</code> publishes the day again.",
        "<b>Данные за {day} изменились</b> уже после публикации. Строк в источнике: {sources}. "
        "Пересчитать день: <code>pulse daily {iso}</code>",
    ),
    "rows changed": Word("{source}, changed in place", "{source} — столько же, но другие"),
    "restated": Word("The source has changed since: {reason}.", "Источник с тех пор изменился: {reason}."),
    "source late": Word("late {what} of {times}", "{what} за {times} пришли с опозданием"),
    "source deleted": Word("deleted {what} of {times}", "{what} за {times} удалены"),
    "source doubled": Word("doubled {what} of {times}", "{what} за {times} задвоились"),
    "source changed": Word("changed {what} of {times}", "{what} за {times} изменены задним числом"),
    "feed_actions": Word("events", "события"),
    "message_actions": Word("messages", "сообщения"),
    "of a name": Word("{slice} {what}", "{what} {slice}"),
    "of a slice": Word("{what} ({slice})", "{what} ({slice})"),
    "users": Word("users", "чел."),
    # --- the pipeline ---
    "archive": Word(
        "Archive: {count} notebooks, all unchanged. Head of the chain <code>{head}</code>",
        "Архив цел, ноутбуков в нём: {count}. Голова цепочки <code>{head}</code>",
    ),
    "doctor": Word(
        "🩺 <b>The nightly check</b> found what needs attention:", "🩺 <b>Ночная проверка</b>: требует внимания"
    ),
    "failed": Word("<b>{name} failed</b>", "<b>{name}: сбой</b>"),
    "failed day": Word("<b>{name} failed</b> for {day}", "<b>{name}: сбой</b> за {day}"),
    "not run": Word(
        "<b>{name} has not run</b> since {time}: Airflow was down, or the DAG is switched off.",
        "<b>{name} не запускался</b> с {time}: Airflow стоял или запуск был выключен.",
    ),
    "not run day": Word(
        "<b>{name} did not run</b> for {day}: Airflow was down, or the DAG was switched off.",
        "<b>{name} не запускался</b> за {day}: Airflow стоял или запуск был выключен.",
    ),
    "to do": Word(
        "What to do: fix the cause, then clear the failed task in Airflow.",
        "Что делать: устранить причину и перезапустить задачу в Airflow (Clear).",
    ),
    "to do often": Word(
        "The next run tries again. If that fails too, you will not hear of it again today: look into Airflow.",
        "Следующий запуск попробует снова; о новом сбое сегодня уже не сообщим: загляните в Airflow.",
    ),
    "to do not run": Word(
        "What to do: check that the scheduler runs, then trigger the DAG with that date.",
        "Что делать: проверить, работает ли планировщик, и запустить DAG с этой датой.",
    ),
    "to do not run often": Word(
        "What to do: check that the scheduler runs and that the DAG is switched on.",
        "Что делать: проверить, работает ли планировщик и включён ли DAG.",
    ),
    "as logged": Word("{reason}", "дословно из журнала: {reason}"),
    # --- held days ---
    "held": Word(
        "<b>{day} is held</b>, not published: its data is far from that of the same weekdays before.",
        "<b>{day}: публикация приостановлена</b>, данные сильно отличаются от тех же дней прошлых недель.",
    ),
    "was held": Word(
        "<b>{day} was held:</b> its data was far from that of the same weekdays before.",
        "<b>{day}: публикация была приостановлена</b>, данные сильно отличались от тех же дней прошлых недель.",
    ),
    "to do held": Word(
        "If the day was like that: <code>pulse release {iso}</code>, or “Publish” in Airflow (Required Actions). "
        "If not: repair the source, then <code>pulse daily {iso}</code>.",
        "Если день и правда был таким: <code>pulse release {iso}</code> или «Publish» в Airflow (Required Actions). "
        "Если нет: исправьте источник, затем <code>pulse daily {iso}</code>.",
    ),
    "released": Word("<b>Released</b> by {by}.", "<b>Публикацию разрешил(а)</b> {by}."),
    "released because": Word("<b>Released</b> by {by}: {because}", "<b>Публикацию разрешил(а)</b> {by}: {because}"),
    "lifted": Word(
        "<b>No longer held:</b> the source has changed, and the day is as expected.",
        "<b>Больше не задерживается:</b> источник изменился, день теперь обычный.",
    ),
    "late held": Word(
        "The report for {day} is late: the day is held, because its data is unusual ({why}). "
        "It follows once somebody has looked at it.",
        "Отчёт за {day} задерживается: данные за день необычны ({why}), их проверяют. Он придёт после проверки.",
    ),
    "held metric": Word("{what}: {found}, expected {expected}", "{what}: {found}, ожидалось {expected}"),
    "held per user": Word(
        "rows per user in {what}: {found}, expected {expected}",
        "строк на пользователя в {what}: {found}, ожидалось {expected}",
    ),
    "held twice": Word(
        "{what} looks as if loaded twice: {found} of its users have an odd number of rows, expected {expected}",
        "{what}, похоже, загружена дважды: нечётное число строк у {found} пользователей, ожидалось {expected}",
    ),
    "held unknown": Word(
        "{what} unknown {where}: {found} of the users, expected {expected}",
        "{what} {where} — неизвестно: {found} пользователей, ожидалось {expected}",
    ),
    "held gone": Word(
        "{what} {where}: {found} users, expected about {expected}",
        "{what} {where}: пользователей {found}, ожидалось около {expected}",
    ),
    "held new": Word("{what} {where} is new: {found} users", "{what} {where} — новое значение, пользователей {found}"),
    "held hours": Word(
        "{what}: no rows in hours {hours} of the day, expected {expected}",
        "{what}: нет строк за часы {hours} от начала дня, ожидалось {expected}",
    ),
    "in source": Word("in {source}", "в {source}"),
    # --- alerts ---
    "instead": Word(
        "{value} instead of {lower} – {upper}, in the {span} to {time}",
        "{value} вместо {lower} – {upper} за {span} до {time}",
    ),
    "in all": Word(
        "over {span} to {time}; at last {value}, expected {lower} – {upper}",
        "за {span} до {time}; в конце {value}, ожидалось {lower} – {upper}",
    ),
    "since": Word("since {time}", "с {time}"),
    "from to": Word("from {start} to {end}", "с {start} до {end}"),
    "over": Word("Over: {what}", "Закончилось: {what}"),
    "withdrawn": Word("Taken back: {what}", "Отменено: {what}"),
    "was none": Word("Data that came later is as expected.", "Данные, пришедшие позже, соответствуют ожиданиям."),
    "again": Word("As expected again since {time}: {what}.", "Снова как ожидалось с {time}: {what}."),
    "normal": Word("normal", "в норме"),
    "others normal": Word("others normal", "остальные в норме"),
    "alike": Word("all slices alike", "во всех срезах одинаково"),
    "mix": Word("shift between slices", "сдвиг между срезами"),
    "also": Word("also: {list}", "также: {list}"),
    "more": Word("and {count} more", "и ещё {count}"),
    "data is late": Word("Data is late", "Данные запаздывают"),
    "no events": Word(
        "No new events since {time}: what happened since is not known, not zero.",
        "Новых событий нет с {time}: что было с тех пор, неизвестно, это не ноль.",
    ),
    "data is there": Word("The data is there again", "Данные снова поступают"),
    "many": Word("{count} incidents at once", "Инцидентов сразу: {count}"),
    "age": Word("age {value}", "возраст {value}"),
    "unknown": Word("{dimension} unknown", "{dimension}: неизвестно"),
    "expected": Word("expected range", "ожидаемый диапазон"),
    "per bucket": Word("per {span}", "за {span}"),
    # --- what is said about a message ---
    "corrected": Word("corrected {time}: {changes}", "исправлено {time}: {changes}"),
    "taken back": Word("taken back {time}: {changes}", "исправление отменено {time}: {changes}"),
    "also taken back": Word("taken back: {change}", "отменено: {change}"),
    "updated": Word("updated {time}", "обновлено {time}"),
    "no photo": Word("The chart could not be attached ({reason}).", "График не удалось приложить ({reason})."),
    "old photo": Word("The chart above is the earlier one ({reason}).", "График выше прежний ({reason})."),
    "no new photo": Word("there is no new one", "нового нет"),
    "long": Word("the text is too long for a caption", "текст слишком длинный для подписи"),
    "big": Word("it is larger than 10 MB", "он больше 10 МБ"),
    "refused": Word("Telegram did not take it", "Telegram его не принял"),
    "run": Word("run", "запуск"),
    "test": Word(
        "Test message of Pulse: reports will arrive here.",
        "Проверочное сообщение Pulse: отчёты будут приходить сюда.",
    ),
}

POWERS: dict[Language, tuple[str, str, str]] = {
    "en": ("M", "B", "T"),
    "ru": (f"{GAP}млн", f"{GAP}млрд", f"{GAP}трлн"),
}
LONG_DATES: dict[Language, str] = {"en": "EEEE d MMMM y", "ru": "EEEE, d MMMM y"}
LONG_DAYS: dict[Language, str] = {"en": "EEEE d MMMM", "ru": "EEEE, d MMMM"}


def word(name: str, language: Language, /, **values: str) -> str:
    """One of `WORDS` in a language, with its values filled in."""
    found = WORDS[name]
    return {"en": found.en, "ru": found.ru}[language].format(**values)


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def escaped(text: str) -> str:
    """A value for Telegram's HTML."""
    return escape(text, quote=False)


# --- numbers ----------------------------------------------------------------------------------------------------------


def number(value: float | None, unit: Unit, language: Language) -> str:
    """A number as readers see it: `13,533`, `19.4%`, `1.07`; a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    if unit == "share":
        return f"{_written(f'{100 * value:.1f}', language)}%"
    return _written(f"{value:.2f}" if unit == "ratio" else f"{round(value)}", language)


def change(value: float | None, before: float | None, unit: Unit, language: Language) -> str:
    """How a number changed: `+2.1%`, of a share `−0.3pp`, of a ratio `+0.02`; a dash where that cannot be computed."""
    if value is None or before is None or math.isnan(value) or math.isnan(before):
        return DASH
    now, then = float(value), float(before)  # ClickHouse's counts are unsigned, and so would their difference be
    if unit == "ratio":
        difference, decimals, ending = now - then, 2, ""
    elif unit == "share":
        difference, decimals, ending = 100 * (now - then), 1, word("pp", language)
    elif then == 0:
        return DASH
    else:
        difference, decimals, ending = 100 * (now - then) / then, 1, "%"
    if abs(difference) >= LARGEST_CHANGE:
        return f"{'>+' if difference > 0 else '<−'}{LARGEST_CHANGE - 1}{ending}"
    shown = f"{abs(difference):.{decimals}f}"
    sign = "" if float(shown) == 0 else "+" if difference > 0 else "−"
    return sign + _written(shown, language) + ending


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
            return _written(f"{mantissa:.3g}", language) + name + ending
    return localized(f"{scale * value:.1e}{ending}", language)


def counted(count: int, unit: str, language: Language) -> str:
    """How many days or hours: `3 days`, `21 день`.

    Args:
        count: how many.
        unit: `day`, `hour` or `minute`.
        language: of the words.
    """
    return str(format_unit(count, f"duration-{unit}", length="long", locale=language)).replace(GAP, " ")


def localized(text: str, language: Language) -> str:
    """A number that English writes `1,234.5` as another language writes it; any other text stays as it is."""
    return _marks_replaced(text, _marks("en"), _marks(language)) if ENGLISH_NUMBER.fullmatch(text) else text


def neutral(text: str, language: Language) -> str:
    """A number in a language as English writes it: `localized` undone."""
    english = _marks_replaced(text, _marks(language), _marks("en"))
    return english if ENGLISH_NUMBER.fullmatch(english) else text


def _written(digits: str, language: Language) -> str:
    """Rounded digits with the marks of a language."""
    decimals = digits.partition(".")[2]
    pattern = f"#,##0.{'0' * len(decimals)}" if decimals else "#,##0"
    return str(format_decimal(Decimal(digits), format=pattern, locale=language))


def _marks(language: Language) -> tuple[str, str]:
    """What a language puts between thousands, and before decimals."""
    symbols = Locale.parse(language).number_symbols["latn"]
    return symbols["group"], symbols["decimal"]


def _marks_replaced(text: str, marks: tuple[str, str], others: tuple[str, str]) -> str:
    replaced = dict(zip(marks, others, strict=True))
    return "".join(replaced.get(character, character) for character in text)


# --- dates ------------------------------------------------------------------------------------------------------------


def short_date(day: date, language: Language) -> str:
    """`Mon 16`."""
    return str(format_date(day, "EEE d", locale=language))


def day_and_month(day: date, language: Language) -> str:
    """`16 November`."""
    return str(format_date(day, "d MMMM", locale=language))


def long_day(day: date, language: Language) -> str:
    """`Monday 16 November`."""
    return str(format_date(day, LONG_DAYS[language], locale=language))


def long_date(day: date, language: Language) -> str:
    """`Monday 16 November 2026`."""
    return str(format_date(day, LONG_DATES[language], locale=language))


def clock_time(moment: datetime, now: datetime, language: Language) -> str:
    """`12:15`; on another day than now `Mon 23, 12:15`; in the hour that clocks repeat in autumn `02:15 CET`."""
    day = "" if moment.date() == now.date() else f"{short_date(moment.date(), language)}, "
    twice = moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
    return f"{day}{moment:%H:%M %Z}" if twice else f"{day}{moment:%H:%M}"


def listed_days(days: Sequence[date], language: Language) -> str:
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


def bucket_length(language: Language) -> str:
    """How long a bucket is: `15 minutes`."""
    return counted(BUCKET // timedelta(minutes=1), "minute", language)


def hours_of(buckets: int, language: Language) -> str:
    """How long that many buckets are, in whole hours: `3 hours`."""
    return counted(round(buckets * BUCKET / timedelta(hours=1)), "hour", language)
