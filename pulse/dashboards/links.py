"""Links to the dashboard of a day."""

from datetime import date, timedelta
from html import escape
from urllib.parse import quote

from pulse.settings import Language
from pulse.wording import day_and_month, word


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
    """A day as Superset's date filters write it: from its midnight to the next one."""
    return f"{day} : {day + timedelta(days=1)}"


def anchor(link: str, day: date, language: Language) -> str:
    """The link to the dashboard of a day, in Telegram's HTML."""
    return f'<a href="{escape(link)}">{escape(word("dashboard", language, day=day_and_month(day, language)))}</a>'
