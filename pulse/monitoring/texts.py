"""What the alert chat is told about an incident: data in, Telegram's HTML out."""

from collections.abc import Sequence
from datetime import datetime

from pulse.dashboards.links import anchor
from pulse.metrics import BUCKET, DIMENSIONS, Unit
from pulse.monitoring.explanation import Contribution
from pulse.monitoring.incidents import Finding, Incident
from pulse.monitoring.series import Series
from pulse.monitoring.watch import Watch
from pulse.settings import Language
from pulse.wording import BETWEEN, bucket_length, capital, change, clock_time, escaped, hours_of, number, word

LONGEST_NAME = 40  # characters of a slice's name
MOST_LINES = 12  # incidents that one message lists


def incident(
    about: Incident,
    watch: Watch,
    contributions: Sequence[Contribution],
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
    lines = [f"{_light(about)} <b>{escaped(capital(incident_title(about, watch, language)))}</b>"]
    if about.lead is None:
        since = clock_time(about.opened, now, language)
        lines += [] if about.resolved else [word("no events", language, time=since)]
    else:
        unit = watch.metrics[about.lead.series.metric].metric.unit
        value, lower, upper = (
            number(each, unit, language) for each in (about.lead.value, about.lead.lower, about.lead.upper)
        )
        until = clock_time(about.updated + BUCKET, now, language)
        how = "in all" if _is_gradual(about.lead) else "instead"
        span = hours_of(about.lead.window, language) if how == "in all" else bucket_length(language)
        lines.append(word(how, language, value=value, lower=lower, upper=upper, time=until, span=span))
    story = [word("was none", language)] if about.state == "withdrawn" else [_span(about, now, language)]
    if about.state != "withdrawn":
        story.append(explanation(about, contributions, watch, language))
    lines += filter(None, [escaped(BETWEEN.join(filter(None, story)))])
    if others := _others(about, watch, language):
        lines.append(escaped(word("also", language, list=others)))
    owners = [] if about.resolved else _owners(about, watch)
    if link or owners:
        board = [anchor(link, about.updated.date(), language)] if link else []
        lines += ["", BETWEEN.join([*board, *owners])]
    return "\n".join(lines)


def incident_over(about: Incident, watch: Watch, language: Language, *, now: datetime) -> str:
    """What is said below an alert once its incident is over."""
    moment = clock_time(about.resolved or about.updated, now, language)
    if about.lead is None:
        return f"{_light(about)} {word('data is there', language)} {word('since', language, time=moment)}."
    words = word("again", language, time=moment, what=_name(about.lead.series, watch, language))
    return f"{_light(about)} {escaped(words)}"


def incidents_at_once(
    found: Sequence[tuple[Incident, str]], watch: Watch, language: Language, *, now: datetime, link: str = ""
) -> str:
    """One alert for many incidents that opened together: a line each, with what explains it."""
    lines = [f"🔴 <b>{word('many', language, count=str(len(found)))}</b>"]
    shown = found[:MOST_LINES]
    for about, why in shown:
        story = BETWEEN.join(filter(None, [_span(about, now, language), why]))
        lines.append(f"{_light(about)} {escaped(incident_title(about, watch, language))} ({escaped(story)})")
    if len(found) > len(shown):
        lines.append(word("more", language, count=str(len(found) - len(shown))))
    owners = list(dict.fromkeys(owner for about, _ in found if not about.resolved for owner in _owners(about, watch)))
    if link:
        owners.insert(0, anchor(link, found[0][0].updated.date(), language))
    return "\n".join([*lines, *(["", BETWEEN.join(owners)] if owners else [])])


def incident_title(about: Incident, watch: Watch, language: Language) -> str:
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


def explanation(about: Incident, contributions: Sequence[Contribution], watch: Watch, language: Language) -> str:
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
    """A slice as readers know it: `Android`, `age 25–34`, `os unknown`.

    Args:
        dimension: by the monitoring's name.
        value: of the slice.
        language: of the words.
    """
    known = next((each for each in DIMENSIONS if each.watched == dimension), None)
    if value == "unknown":
        return word("unknown", language, dimension=known.name(language) if known else dimension)
    if known and language == "ru" and value.lower() in known.values_ru:
        return known.values_ru[value.lower()]
    value = value if len(value) <= LONGEST_NAME else f"{value[: LONGEST_NAME - 1]}…"
    return word("age", language, value=value) if dimension == "age_group" else value


def _light(about: Incident) -> str:
    if about.resolved:
        return "🟢"
    return {"drop": "🔴", "spike": "🟠", "data_lag": "⚪"}[about.direction]


def _name(series: Series, watch: Watch, language: Language) -> str:
    label = watch.metrics[series.metric].metric.label_alone(language)
    return label if series.is_total else f"{label} ({slice_name(*series[1:], language)})"


def _others(about: Incident, watch: Watch, language: Language) -> str:
    """The other metrics that showed it, whole or in slices."""
    lead = about.lead.series.metric if about.lead else ""
    names = dict.fromkeys(series.metric for series in about.series if series.metric != lead)
    return ", ".join(watch.metrics[name].metric.label_alone(language) for name in names if name in watch.metrics)


def _owners(about: Incident, watch: Watch) -> list[str]:
    found = dict.fromkeys(owner for series in about.series for owner in watch.metrics[series.metric].owners)
    return [escaped(owner) for owner in found]


def _span(about: Incident, now: datetime, language: Language) -> str:
    start = clock_time(about.opened, now, language)
    if about.resolved is None:
        return word("since", language, time=start) if about.lead else ""
    return word("from to", language, start=start, end=clock_time(about.resolved, now, language))


def _is_gradual(lead: Finding) -> bool:
    """Whether the last bucket alone is within its range: it is off over a longer window only."""
    return lead.window > 1 and lead.lower <= lead.value <= lead.upper


def _difference(difference: float, unit: Unit, language: Language) -> str:
    """A change that is known already: of a share as a difference, else as a share of what was before."""
    return change(difference, 0.0, unit, language) if unit == "share" else change(1 + difference, 1.0, unit, language)
