"""What the pages list: an attempt to run a notebook, and what was sent from it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from pulse import archive

UNENDED = "no end recorded"
"""The outcome of an attempt without an end: it is still running, or was cut off before it could record an outcome."""


@dataclass(frozen=True)
class Delivered:
    """What was sent from a notebook to one chat."""

    at: str
    report: str
    event_date: str
    chat: str
    state: str
    did: str
    ref: str
    message_id: int


@dataclass(frozen=True)
class Attempt:
    """One attempt to run a notebook.

    `state` is `begun`, `ended`, `adopted` (it is older than the manifest) or `thinned` (retention removed it).
    `facts` holds what the notebook says about itself: `numbers`, `parameters`, `error`, `commit`, `title`, `alerts`.
    """

    path: str
    sha256: str
    dag: str
    event_date: str
    run: str
    run_id: str
    task: str
    notebook: str
    number: int
    outcome: str
    started: str
    seconds: float | None
    started_by: str
    facts: Mapping[str, Any]
    state: str

    @property
    def reference(self) -> str:
        """The run reference that messages show; empty until the attempt has ended."""
        return archive.ref(self.sha256)

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The key numbers that the notebook glued, by name, in order."""
        return dict(self.facts.get("numbers") or [])


def shown(value: Any) -> str:
    """Write a number for readers, with separators and few digits; return any other value as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isfinite(value) and value.is_integer():
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def day(text: str, form: str = "%A, %-d %B %Y") -> str:
    """Write an event date for readers; return a text that is not a date as it is."""
    try:
        return f"{date.fromisoformat(text):{form}}"
    except ValueError:
        return text
