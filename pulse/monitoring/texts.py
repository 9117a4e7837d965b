"""Writes the messages about incidents for the alert chats, as Telegram's HTML."""

from collections.abc import Sequence
from datetime import datetime

from pulse.dashboards.links import anchor
from pulse.metrics import BUCKET, DIMENSIONS, Unit
from pulse.monitoring.explanation import Contribution
from pulse.monitoring.incidents import Anomaly, Incident
from pulse.monitoring.series import Series
from pulse.monitoring.watch import Watch
from pulse.settings import Language
from pulse.wording import BETWEEN, bucket_length, capital, change, clock_time, escaped, hours_of, number, word

LONGEST_NAME = 40  # characters of a slice's name; longer ones are cut
MOST_LINES = 12  # incidents that one message lists
MOST_NAMED = 3  # slices that a line names as out of range


def incident_text(
    incident: Incident,
    watch: Watch,
    contributions: Sequence[Contribution],
    language: Language,
    *,
    now: datetime,
    link: str = "",
) -> str:
    """Write an alert: what is wrong, how far from the expected range, since when, and which slices explain it.

    Once the incident is over, the same message says that it is, and from when to when it lasted.

    Args:
        incident: what the message is about.
        watch: what is watched, for names and owners.
        contributions: of the slices; empty if all move alike.
        language: of the text.
        now: in local time; dates and times are shortened as far as this moment allows.
        link: the dashboard's address for the day, if there is one.
    """
    lines = [f"{_light(incident)} <b>{escaped(capital(incident_title(incident, watch, language)))}</b>"]
    lines += _range_lines(incident, watch, language, now)
    if incident.state == "withdrawn":
        lines.append(escaped(word("was none", language)))
    else:
        when, why = _span(incident, now, language), explanation_line(incident, contributions, watch, language)
        lines += filter(None, [escaped(BETWEEN.join(filter(None, [when, why])))])
    if others := _others(incident, watch, language):
        lines.append(escaped(word("also", language, list=others)))
    owners = [] if incident.resolved else _owners(incident, watch)
    if link or owners:
        board = [anchor(link, incident.updated.date(), language)] if link else []
        lines += ["", BETWEEN.join([*board, *owners])]
    return "\n".join(lines)


def _range_lines(incident: Incident, watch: Watch, language: Language, now: datetime) -> list[str]:
    """The line with the value and its expected range; for late data, since when there have been no events."""
    lead = incident.lead
    if lead is None:
        since = clock_time(incident.opened, now, language)
        return [] if incident.resolved else [word("no events", language, time=since)]
    unit = watch.metrics[lead.series.metric].metric.unit
    value, lower, upper = (number(each, unit, language) for each in (lead.value, lead.lower, lead.upper))
    until = clock_time(incident.updated + BUCKET, now, language)
    if _is_gradual(lead):
        how, span = "in all", hours_of(lead.window, language)
    else:
        how, span = "instead", bucket_length(language)
    return [word(how, language, value=value, lower=lower, upper=upper, time=until, span=span)]


def resolution_text(incident: Incident, watch: Watch, language: Language, *, now: datetime) -> str:
    """Write the reply to an alert once its incident is over."""
    moment = clock_time(incident.resolved or incident.updated, now, language)
    if incident.lead is None:
        return f"{_light(incident)} {word('data is there', language)} {word('since', language, time=moment)}."
    words = word("again", language, time=moment, what=_name(incident.lead.series, watch, language))
    return f"{_light(incident)} {escaped(words)}"


def summary_text(
    explained: Sequence[tuple[Incident, str]], watch: Watch, language: Language, *, now: datetime, link: str = ""
) -> str:
    """Write one alert for many incidents that opened together, with a line for each.

    Args:
        explained: the incidents, each with its `explanation_line`.
        watch: what is watched, for names and owners.
        language: of the text.
        now: in local time, as for `incident_text`.
        link: the dashboard's address for the day, if there is one.
    """
    lines = [f"🔴 <b>{word('many', language, count=str(len(explained)))}</b>"]
    shown = explained[:MOST_LINES]
    for incident, why in shown:
        details = BETWEEN.join(filter(None, [_span(incident, now, language), why]))
        lines.append(f"{_light(incident)} {escaped(incident_title(incident, watch, language))} ({escaped(details)})")
    if len(explained) > len(shown):
        lines.append(word("more", language, count=str(len(explained) - len(shown))))
    lasting = [incident for incident, _ in explained if not incident.resolved]
    owners = list(dict.fromkeys(owner for incident in lasting for owner in _owners(incident, watch)))
    if link:
        owners.insert(0, anchor(link, explained[0][0].updated.date(), language))
    return "\n".join([*lines, *(["", BETWEEN.join(owners)] if owners else [])])


def incident_title(incident: Incident, watch: Watch, language: Language) -> str:
    """An incident in a few words, such as `views −61.0% (Android)`; once it is over, the title says so."""
    lead = incident.lead
    if lead is None:
        return word("data is there" if incident.resolved else "data is late", language)
    unit = watch.metrics[lead.series.metric].metric.unit
    value = lead.expected * (1 + lead.deviation) if _is_gradual(lead) else lead.value
    what = f"{_name(lead.series, watch, language)} {change(value, lead.expected, unit, language)}"
    if incident.state == "withdrawn":
        return word("withdrawn", language, what=what)
    return word("over", language, what=what) if incident.resolved else what


def explanation_line(
    incident: Incident, contributions: Sequence[Contribution], watch: Watch, language: Language
) -> str:
    """Which slices carry a deviation and which do not, in one line such as `Android −61.0%, iOS normal`.

    For an incident of a slice, the line is about the other slices of its dimension.
    """
    if incident.lead is None:
        return ""
    lead = incident.lead.series
    unit = watch.metrics[lead.metric].metric.unit
    others = [each for each in contributions if (each.dimension, each.dimension_value) != lead[1:]]
    if not others:
        return word("alike", language) if lead.is_total else ""
    off = [each for each in others if each.off][:MOST_NAMED]
    normal = [each for each in others if not each.off]
    names = {each: slice_name(each.dimension, each.dimension_value, language) for each in others}
    items = [f"{names[each]} {_difference(each.deviation, unit, language)}" for each in off]
    mix = sum(each.mix for each in contributions)
    if unit == "share" and abs(mix) > sum(abs(each.deviation) for each in off):
        items.append(f"{word('mix', language)} {_difference(mix, unit, language)}")
    if len(normal) == 1:
        items.append(f"{names[normal[0]]} {word('normal', language)}")
    elif normal:
        items.append(word("others normal", language))
    return ", ".join(items)


def slice_name(dimension: str, value: str, language: Language) -> str:
    """The name by which readers know a slice, such as `Android`, `age 25–34` or `os unknown`.

    Args:
        dimension: the monitoring's name of it.
        value: of the slice.
        language: of the name.
    """
    known = next((each for each in DIMENSIONS if each.watched == dimension), None)
    if value == "unknown":
        return word("unknown", language, dimension=known.name(language) if known else dimension)
    if known and language == "ru" and value.lower() in known.values_ru:
        return known.values_ru[value.lower()]
    value = value if len(value) <= LONGEST_NAME else f"{value[: LONGEST_NAME - 1]}…"
    return word("age", language, value=value) if dimension == "age_group" else value


def _light(incident: Incident) -> str:
    if incident.resolved:
        return "🟢"
    return {"drop": "🔴", "spike": "🟠", "data_lag": "⚪"}[incident.direction]


def _name(series: Series, watch: Watch, language: Language) -> str:
    label = watch.metrics[series.metric].metric.label_alone(language)
    return label if series.is_total else f"{label} ({slice_name(*series[1:], language)})"


def _others(incident: Incident, watch: Watch, language: Language) -> str:
    """The other metrics that showed the incident, in the app as a whole or in a slice."""
    lead = incident.lead.series.metric if incident.lead else ""
    names = dict.fromkeys(series.metric for series in incident.series if series.metric != lead)
    return ", ".join(watch.metrics[name].metric.label_alone(language) for name in names if name in watch.metrics)


def _owners(incident: Incident, watch: Watch) -> list[str]:
    owners = dict.fromkeys(owner for series in incident.series for owner in watch.metrics[series.metric].owners)
    return [escaped(owner) for owner in owners]


def _span(incident: Incident, now: datetime, language: Language) -> str:
    start = clock_time(incident.opened, now, language)
    if incident.resolved is None:
        return word("since", language, time=start) if incident.lead else ""
    return word("from to", language, start=start, end=clock_time(incident.resolved, now, language))


def _is_gradual(lead: Anomaly) -> bool:
    """Whether the last bucket alone is in its expected range, so that only a longer window shows the anomaly."""
    return lead.window > 1 and lead.lower <= lead.value <= lead.upper


def _difference(difference: float, unit: Unit, language: Language) -> str:
    """A change in words.

    Args:
        difference: for a share, the difference; for other units, a share of the earlier value.
        unit: of the metric.
        language: of the text.
    """
    return change(difference, 0.0, unit, language) if unit == "share" else change(1 + difference, 1.0, unit, language)
