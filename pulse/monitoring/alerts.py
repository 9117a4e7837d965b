"""Makes the messages about incidents for the alert chats."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, TypedDict

from pulse.dashboards.links import dashboard_link
from pulse.monitoring import texts
from pulse.monitoring.explanation import Contribution
from pulse.monitoring.incidents import Incident
from pulse.monitoring.watch import Watch
from pulse.settings import Language

Reasons: TypeAlias = Mapping[str, Sequence[Contribution]]
"""The contributions that explain an incident, by its reference."""


class Alert(TypedDict):
    """A message for the task that delivers alerts.

    Args:
        report: with `event_date`, the key of the delivery.
        event_date: the day on which the incident opened, as an ISO date.
        text: Telegram's HTML.
        chart: the name of the scrap with the chart, if there is one.
        silent: whether it arrives without a sound.
        only_edits: whether it may only edit a message that was sent before.
        reply_to: the report of the message that it answers, if it is an answer.
    """

    report: str
    event_date: str
    text: str
    chart: str | None
    silent: bool
    only_edits: bool
    reply_to: str | None


def alerts(
    incidents: Sequence[Incident], reasons: Reasons, watch: Watch, language: Language, superset_url: str = ""
) -> list[Alert]:
    """Make the messages about incidents, in the order of sending.

    Each incident has one message, which is edited as long as the incident lasts, and a reply once it is over. If more
    than `most_alerts` incidents opened in the same bucket, one message is about all of them. A message depends on its
    incident alone, so sending it again changes nothing.

    Args:
        incidents: what the messages are about.
        reasons: what explains them.
        watch: what is watched, for names and owners.
        language: of the messages.
        superset_url: where the dashboard is; empty for no link.
    """
    together: dict[datetime, list[Incident]] = defaultdict(list)
    for incident in incidents:
        together[incident.opened].append(incident)
    messages: list[Alert] = []
    for opened, group in sorted(together.items()):
        link = dashboard_link(superset_url, opened.date())
        if len(group) > watch.most_alerts:
            messages.append(_summary(opened, group, reasons, watch, language, link))
            continue
        for incident in group:
            message = _alert(incident, reasons, watch, language, link)
            messages.append(message)
            if incident.resolved and incident.state == "resolved":
                messages.append(_reply(incident, incident.resolved, message, watch, language))
    return messages


def _summary(
    opened: datetime, group: Sequence[Incident], reasons: Reasons, watch: Watch, language: Language, link: str
) -> Alert:
    """The message about many incidents that opened in the same bucket."""
    now = max(incident.updated for incident in group)
    explained = [
        (incident, texts.explanation_line(incident, reasons.get(incident.ref, ()), watch, language))
        for incident in group
    ]
    return Alert(
        event_date=str(opened.date()),
        only_edits=False,
        reply_to=None,
        report=f"incidents of {_clock(opened)}",
        text=texts.summary_text(explained, watch, language, now=now, link=link),
        chart=None,
        silent=all(incident.resolved for incident in group),
    )


def _alert(incident: Incident, reasons: Reasons, watch: Watch, language: Language, link: str) -> Alert:
    """The message about an incident."""
    now, why = incident.resolved or incident.updated, reasons.get(incident.ref, ())
    return Alert(
        event_date=str(incident.opened.date()),
        only_edits=incident.state == "withdrawn",
        reply_to=None,
        report=f"incident {incident.ref}",
        text=texts.incident_text(incident, watch, why, language, now=now, link=link),
        chart=f"chart_{incident.ref}",
        silent=incident.resolved is not None,
    )


def _reply(incident: Incident, resolved: datetime, message: Alert, watch: Watch, language: Language) -> Alert:
    """The reply to an incident's message once it is over."""
    return Alert(
        event_date=message["event_date"],
        only_edits=False,
        reply_to=message["report"],
        report=f"incident {incident.ref} over {_clock(resolved)}",
        text=texts.resolution_text(incident, watch, language, now=resolved),
        chart=None,
        silent=True,
    )


def _clock(moment: datetime) -> str:
    """The time of day in a delivery's key. In an hour that a clock change repeats, the second pass says `again`."""
    return f"{moment:%H:%M} again" if moment.fold else f"{moment:%H:%M}"
