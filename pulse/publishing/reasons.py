"""Why a day was published again, in words: `+1.3%: late Android events of 21:00–23:00`."""

from collections.abc import Sequence

from pulse.metrics import DIMENSIONS
from pulse.publishing.restating import SourceChange
from pulse.settings import Language
from pulse.wording import change, escaped, word

MOST_TIMES = 2  # spans of hours that are named one by one; of more, the first and the last hour


def reason(sources: Sequence[SourceChange], language: Language) -> str:
    """What has changed in the sources of a day, as part of a sentence in Telegram's HTML; empty if nobody knows."""
    return "; ".join(_of(each, language) for each in sources)


def _of(source: SourceChange, language: Language) -> str:
    what = word(source.source, language)
    if source.slice:
        dimension, value = source.slice
        what = _of_slice(what, dimension, value, language)
    spans = source.hours if len(source.hours) <= MOST_TIMES else [[source.hours[0][0], source.hours[-1][1]]]
    times = ", ".join(f"{first}–{last}" for first, last in spans)
    said = word(f"source {source.kind}", language, what=what, times=times)
    share = change(source.now, source.published, "count", language)
    return f"{escaped(share)}: {said}" if share.startswith(("+", "−", ">", "<")) else said


def _of_slice(what: str, dimension: str, value: str, language: Language) -> str:
    """`Android events`, `events (age 40)`, `events (os unknown)`."""
    (found,) = (each for each in DIMENSIONS if each.column == dimension)
    if value == "unknown":
        return word("of a slice", language, what=what, slice=word("unknown", language, dimension=found.name(language)))
    if value.isdigit():
        return word("of a slice", language, what=what, slice=f"{found.name(language)} {value}")
    named = found.values_ru.get(value) if language == "ru" else None
    how = "of a slice" if named else "of a name"
    return word(how, language, what=what, slice=escaped(named or value))
