"""The life of a notebook in the manifest: which entry may follow which, and what retention may remove.

             ┌──── delivered ────┐
    begun ───┴──▶ ended ─────────┴──▶ thinned ──▶ begun
    adopted ──▶ delivered

An entry that must not follow the one before it is a forgery, even if its hash is right. It is reported and changes
nothing, so the earlier entry stays valid. `pulse.archive.proof`, the pages and retention all use these rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pulse import archive

Entry = dict[str, Any]

LEAST_DAYS = 30
"""The least number of days for which the archive keeps everything."""

FOLLOWS = {
    "": {"begun", "adopted"},
    "begun": {"ended", "delivered"},
    "ended": {"delivered", "thinned"},
    "adopted": {"delivered"},
    "thinned": {"begun"},
}
"""Which entries may follow each state of a notebook. All of them change the state, except `delivered`."""

DELIVERED = {"chat", "state", "did", "ref", "message_id"}
"""What an entry says about each delivery."""

_CLOCK = timedelta(hours=1)  # how far a clock may be set back without a remark
_AHEAD = timedelta(days=1)  # how far an entry may be dated in the future


@dataclass
class Life:
    """What the manifest says about one notebook."""

    path: str
    state: str = ""
    number: int = 0  # the number of the entry with which it began
    begun: str = ""
    ended: str = ""
    outcome: str = ""
    sha256: str = ""
    alerts: int | None = None  # None: an older entry, which does not record it
    sent: bool = False
    thinned: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is a success that is still kept."""
        return self.state in ("ended", "adopted") and self.outcome == "succeeded"


@dataclass
class Lives:
    """The lives of all notebooks in a manifest, which is read entry by entry."""

    by_path: dict[str, Life] = field(default_factory=dict)
    deliveries: list[tuple[int, Entry]] = field(default_factory=list)
    latest: datetime | None = None  # when the last entry was written
    _days: dict[tuple[str, str, str], list[Life]] = field(default_factory=dict)
    _sha256s: dict[str, str] = field(default_factory=dict)
    _claims: dict[str, str] = field(default_factory=dict)
    _opened: bool = False

    def take(self, number: int, entry: Entry) -> tuple[str, str]:
        """Process an entry. Returns the problem and the remark that it causes; each is empty if there is none."""
        try:
            return self._take(number, entry)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            return f"{entry.get('what')!s:.40}: not written by a run ({type(error).__name__})", ""

    def keeps(self, life: Life, at: str, days: int = LEAST_DAYS, alerts: int | None = None) -> str:
        """Why retention's rule keeps a notebook at some moment; empty if the notebook may be removed.

        Args:
            life: the notebook's life.
            at: the moment, in ISO format.
            days: for how many days everything is kept.
            alerts: how many alerts the notebook has, if the entry about its end does not record that.
        """
        if life.state != "ended":
            return {"adopted": "it is older than the manifest", "begun": "it has no end"}.get(
                life.state, "it is not there"
            )
        if life.outcome != "succeeded":
            return f"it did not succeed ({life.outcome})"
        if life.alerts if life.alerts is not None else alerts:
            return "it alerted"
        if life.sent:
            return "something was sent from it"
        if moment(at) - moment(life.ended) < timedelta(days=days):
            return f"it ended on {life.ended}, less than {days} days before"
        successes = [each.number for each in self._days[_day(life.path)] if each.counts]
        if life.number in (min(successes), max(successes)):
            which = "first" if life.number == min(successes) else "last"
            return f"it is the {which} success of its notebook for its event date"
        return ""

    def _take(self, number: int, entry: Entry) -> tuple[str, str]:
        what, path, at = entry["what"], entry["path"], moment(entry["at"])
        if not archive.is_notebook_path(path):
            return "its path is not one of the archive's", ""
        remark = self._clock(at)
        life = self.by_path.setdefault(path, Life(path))
        problem = self._forbidden(life, entry) or self._live(life, number, entry)
        self._opened = self._opened or what != "adopted"
        if at > datetime.now(UTC) + _AHEAD:
            problem = problem or f"{what}: dated {at:%Y-%m-%d}, which is in the future"
        return problem, remark

    def _clock(self, at: datetime) -> str:
        before, self.latest = self.latest, at
        if before is None or before - at < _CLOCK:
            return ""
        return f"dated {at:%Y-%m-%d %H:%M}, after one of {before:%Y-%m-%d %H:%M}: a clock was set back, or it is forged"

    def _forbidden(self, life: Life, entry: Entry) -> str:
        """Why an entry must not follow the notebook's earlier entries; empty if it may."""
        what, state = entry["what"], life.state
        known = {"begun": life.begun, "ended": life.ended, "thinned": life.thinned}.get(state, "")
        here = f"{state} on {known}" if known else state or "unknown to the manifest until then"
        if what not in {each for allowed in FOLLOWS.values() for each in allowed}:
            return f"{what!s:.40}: no run writes such an entry"
        if what not in FOLLOWS[state]:
            return f"{what} again, by hand: it was {here}" if what == state else f"{what} by hand: it was {here}"
        if what == "adopted" and self._opened:
            return "adopted by hand: only notebooks older than the manifest are adopted"
        if what == "thinned":
            if entry["sha256"] != life.sha256:
                return "thinned by hand: its SHA-256 is a different one"
            facts = (entry.get("stays") or {}).get("facts") or {}
            kept = self.keeps(life, entry["at"], LEAST_DAYS, facts.get("alerts"))
            return f"thinned by hand: the rule keeps it, since {kept}" if kept else ""
        return ""

    def _live(self, life: Life, number: int, entry: Entry) -> str:
        """Apply an entry that is allowed. Returns the problem that it causes, or an empty string."""
        what, at = entry["what"], str(entry["at"])
        if what == "begun":
            self.by_path[life.path] = Life(life.path, "begun", number, at)
        elif what == "thinned":
            life.state, life.thinned = "thinned", at
        elif what == "delivered":
            return self._sent(life, number, entry)
        else:
            life.state, life.sha256, life.outcome = what, str(entry["sha256"]), str(entry.get("outcome") or "")
            life.number = life.number or number
            life.ended = at if what == "ended" else ""
            life.alerts = entry.get("alerts")
            self._days.setdefault(_day(life.path), []).append(life)
            other = self._sha256s.setdefault(life.sha256, life.path)
            if what == "ended" and other != life.path:
                return f"{what} by hand: it is a copy of {other}"
        return ""

    def _sent(self, life: Life, number: int, entry: Entry) -> str:
        for each in entry["deliveries"]:
            if not each.keys() >= DELIVERED:
                raise KeyError(*DELIVERED - each.keys())
            life.sent = life.sent or each["state"] != "failed"
            if not each["ref"] and (each["did"] != "nothing" or each["message_id"]):
                return "delivered by hand: it lacks the reference that every sent message has"
            if each["ref"] and each["did"] in ("sent", "edited"):
                other = self._claims.setdefault(each["ref"], life.path)
                if other != life.path:
                    return f"delivered by hand: delivery {each['ref']} was made from {other}"
        if not entry["report"]:
            return "delivered by hand: it names no report"
        moment(entry["event_date"])  # raises an error if no run wrote it
        self.deliveries.append((number, entry))
        return ""


def read(entries: Iterable[Entry]) -> Lives:
    """Read the lives of all notebooks from the manifest's entries."""
    found = Lives()
    for number, entry in enumerate(entries, 1):
        found.take(number, entry)
    return found


def _day(path: str) -> tuple[str, str, str]:
    """The pipeline, event date and name of a notebook; retention keeps the first and the last success of each."""
    dag, day, _, name = (["", "", "", *path.split("/")])[-4:]
    return dag, day, name.removesuffix(".ipynb").rpartition(".")[0]


def moment(text: str) -> datetime:
    """Parse a moment as entries and notebooks write it; without an offset it is in UTC.

    Raises:
        ValueError: the text is not a moment.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
