"""What the alert chat is told: the messages about incidents."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pulse.dashboards.links import dashboard_link
from pulse.monitoring import texts
from pulse.monitoring.explanation import Contribution
from pulse.monitoring.incidents import Incident
from pulse.monitoring.watch import Watch
from pulse.settings import Language


def alerts(
    stories: Sequence[Incident],
    reasons: Mapping[str, Sequence[Contribution]],
    watch: Watch,
    language: Language,
    superset_url: str = "",
) -> list[dict[str, Any]]:
    """The messages about incidents: one each, edited while it lives, and a reply once it is over.

    More than `most_alerts` that opened in the same bucket are told in one message.

    Returns:
        For `DeliverAlertsOperator`, in the order of sending: `report` and `event_date` (the key of the delivery),
        `text`, `chart` (the name of the scrap that has it), `silent`, `only_edits`, `reply_to` (the report that is
        answered). What a message says depends on its incident alone, so that telling it again changes nothing.
    """
    told: list[dict[str, Any]] = []
    together: dict[datetime, list[Incident]] = defaultdict(list)
    for story in stories:
        together[story.opened].append(story)
    for opened, group in sorted(together.items()):
        day = opened.date()
        shared = {"event_date": str(day), "only_edits": False, "reply_to": None}
        link = dashboard_link(superset_url, day)
        if len(group) > watch.most_alerts:
            now = max(story.updated for story in group)
            lines = [(story, texts.explanation(story, reasons.get(story.ref, ()), watch, language)) for story in group]
            text = texts.incidents_at_once(lines, watch, language, now=now, link=link)
            over = all(story.resolved for story in group)
            report = f"incidents of {_clock(opened)}"
            told.append({**shared, "report": report, "text": text, "chart": None, "silent": over})
            continue
        for story in group:
            now, why = story.resolved or story.updated, reasons.get(story.ref, ())
            message = {
                "report": f"incident {story.ref}",
                "text": texts.incident(story, watch, why, language, now=now, link=link),
                "chart": f"chart_{story.ref}",
                "silent": story.resolved is not None,
            }
            told.append({**shared, **message, "only_edits": story.state == "withdrawn"})
            if story.resolved and story.state == "resolved":
                reply = {
                    "report": f"incident {story.ref} over {_clock(story.resolved)}",
                    "text": texts.incident_over(story, watch, language, now=now),
                    "chart": None,
                    "silent": True,
                    "reply_to": message["report"],
                }
                told.append({**shared, **reply})
    return told


def _clock(moment: datetime) -> str:
    """The time of day in a delivery's key: the hour that comes twice has two of each."""
    return f"{moment:%H:%M} again" if moment.fold else f"{moment:%H:%M}"
