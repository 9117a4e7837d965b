"""The messages that an archived notebook handed on: its scraps, checked."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pulse.delivery.message import Message, TelegramError
from pulse.settings import LANGUAGES


def handed_on(handed: Mapping[str, Any], notebook: str) -> Message:
    """The message that a notebook handed on, from its scraps: `text`, `chart`, `numbers`, `metrics`, `language`.

    Raises:
        TelegramError: there is no text, or a scrap has the wrong type; the text says what to do.
    """
    text, chart, asked = handed.get("text"), handed.get("chart"), handed.get("language") or ""
    if not isinstance(text, str) or not text.strip():
        found = ", ".join(handed) or "nothing"
        raise TelegramError(
            f"{notebook} handed on no text (what it handed on: {found}): end the notebook with "
            "`cells.glue(text=…)`, run it again, then clear this task."
        )
    if chart is not None and not isinstance(chart, bytes):
        raise TelegramError(f"The chart that {notebook} handed on is not a figure: `cells.glue(chart=figure)`.")
    language = next((known for known in LANGUAGES if known == asked), None)
    if asked and language is None:
        raise TelegramError(f"The language that {notebook} handed on is {asked!r}; expected one of {list(LANGUAGES)}.")
    try:
        numbers = {str(label): number for label, number in _pairs(handed.get("numbers"))}
        columns = [str(column) for column, _ in _pairs(handed.get("metrics"))]
    except (TypeError, ValueError):
        raise TelegramError(
            f"The numbers that {notebook} handed on are not pairs: "
            "`cells.glue(numbers=[('DAU', 1100)], metrics=[('app_users', 'users')])`."
        ) from None
    known = dict(zip(numbers, columns, strict=True)) if len(numbers) == len(columns) else {}
    return Message(text, chart, numbers, known, language or "")


def _pairs(handed: Any) -> Sequence[tuple[Any, Any]]:
    found = list((handed.items() if isinstance(handed, Mapping) else handed) or [])
    return [(name, value) for name, value in found]


def alerts_handed_on(handed: Mapping[str, Any], notebook: str) -> list[dict[str, Any]]:
    """The alerts that a notebook handed on, as `pulse.monitoring.alerts` makes them.

    Raises:
        TelegramError: it handed on no list.
    """
    found = handed.get("alerts")
    if not isinstance(found, list):
        raise TelegramError(
            f"{notebook} handed on no list of alerts (what it handed on: {', '.join(handed) or 'nothing'}): end the "
            "notebook with `cells.glue(alerts=[…])`, run it again, then clear this task."
        )
    return found


def alert(told: Mapping[str, Any], handed: Mapping[str, Any]) -> Message:
    """The message of an alert, with the chart that the notebook handed on beside it.

    Raises:
        TelegramError: a part of the alert is missing.
    """
    try:
        _, day = told["report"], date.fromisoformat(told["event_date"])
        return Message(
            str(told["text"]),
            handed[told["chart"]] if told["chart"] else None,
            silent=bool(told["silent"]),
            reply_to=(told["reply_to"], day) if told["reply_to"] else None,
            only_edits=bool(told["only_edits"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        which = told.get("report", told) if isinstance(told, Mapping) else told
        raise TelegramError(f"The alert {which!r} is not as pulse.monitoring.alerts makes them: {error!r}.") from None
