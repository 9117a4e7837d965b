"""What the alert chat is told about the pipeline itself: failures, runs that are missing, the archive's head."""

import re
from collections.abc import Mapping, Sequence
from datetime import date

from pulse.settings import Language
from pulse.wording import day_and_month, escaped, number, word

LONGEST_REASON = 1000  # characters of an error; the log has all of it

# Errors are in English. A Russian reader gets the sentence on the right for what matches on the left; an error that
# matches nothing is quoted from the log.
REASONS = {
    r"(?P<day>\S+) was not published within (?P<wait>[\d:]+)": "{day} не опубликован за {wait}: почините etl, затем "
    "запустите этот DAG с этой датой.",
    r"(?P<day>\S+) is held, not published, because it is far from": (
        "{day} не опубликован: данные сильно отличаются от тех же дней прошлых недель. "
        "Если день и правда был таким, выполните pulse release {day}."
    ),
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
        "{view} в {db} читает источник не так, как задано в PULSE_SOURCE: если это намеренно, выполните pulse upgrade."
    ),
    r"The archive is not as it was kept: (?P<rest>.*)": (
        "архив изменён: {rest} Выясните, кто это сделал, и восстановите его из резервной копии."
    ),
    r"There is nothing to watch": "Следить не за чем: источник пуст, или время в нём другого часового пояса.",
}


def archive_notice(notebooks: int, head: str, language: Language) -> str:
    """The nightly message with the head of the archive's hash chain, which is a copy of it outside the archive."""
    return word("archive", language, count=number(notebooks, "count", language), head=head)


def doctor_notice(faults: Sequence[tuple[str, str]], language: Language) -> str:
    """What the nightly check found, one line for each thing: its name, and what is wrong with it."""
    room = LONGEST_REASON // max(1, len(faults))
    lines = [f"• {escaped(what)}: {escaped(_cut(reason_in(said, language), room))}" for what, said in faults]
    return "\n".join([word("doctor", language), *lines])


def failure_notice(
    name: str, reasons: Mapping[str, str], language: Language, day: date | None = None, often: bool = False
) -> str:
    """The message that a DAG failed, with the reasons and what to do.

    Args:
        name: the DAG's name.
        reasons: the error of each failed task, by task; under an empty name, what happened to the run as a whole.
        language: the language of the text.
        day: the event date of the run, if it has one.
        often: whether the schedule makes another run within the day.
    """
    tasks: dict[str, list[str]] = {}
    for task, reason in reasons.items():
        tasks.setdefault(reason_in(" ".join(reason.split()), language), []).append(task)
    room = LONGEST_REASON // max(1, len(tasks))
    shown = {", ".join(filter(None, names)): escaped(_cut(reason, room)) for reason, names in tasks.items()}
    # One task makes one line, which a phone's notification shows in full.
    if len(shown) == 1 and len(reasons) == 1:
        ((task, reason),) = shown.items()
        lines = [f"{_failed(f'{name}.{task}' if task else name, language, day)}: {reason}"]
    else:
        lines = [_failed(name, language, day), *(f"{escaped(task)}: {reason}" for task, reason in shown.items())]
    return "\n".join([*lines, word("to do often" if often else "to do", language)])


def not_run_notice(name: str, language: Language, day: date | None = None, since: str = "") -> str:
    """The message that a DAG did not run when it should have, with what to do.

    Args:
        name: the DAG's name.
        language: the language of the text.
        day: the event date for which it did not run, if it has event dates.
        since: the time of its last run, if it has none.
    """
    if day is None:
        said = word("not run", language, name=escaped(name), time=since)
        return f"{said}\n{word('to do not run often', language)}"
    said = word("not run day", language, name=escaped(name), day=day_and_month(day, language))
    return f"{said}\n{word('to do not run', language)}"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1].rstrip()}…"


def _failed(name: str, language: Language, day: date | None) -> str:
    if day is None:
        return word("failed", language, name=escaped(name))
    return word("failed day", language, name=escaped(name), day=day_and_month(day, language))


def reason_in(reason: str, language: Language) -> str:
    """An error in the reader's language."""
    if language == "en":
        return reason
    for said, told in REASONS.items():
        if found := re.search(said, reason):
            return told.format(**found.groupdict()).rstrip()
    return word("as logged", language, reason=reason)
