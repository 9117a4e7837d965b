"""What a message says beside its text: what was corrected, why the chart is missing, which run it comes from."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

from pulse import wording
from pulse.delivery.ledger import Claim
from pulse.delivery.markup import MAX_CAPTION, MAX_TEXT, cut, length
from pulse.delivery.message import Message
from pulse.delivery.rows import Content, LedgerRow
from pulse.delivery.standing import Standing
from pulse.settings import Language

MAX_PHOTO_BYTES = 10 * 1024 * 1024
CORRECTION_ROOM = 150  # characters kept free for the line about a correction, where a text has to be cut anyway


@dataclass(frozen=True)
class Composer:
    """Composes what a chat is to show.

    Args:
        message: what to say.
        language: of the notes and numbers.
        zone: in which times are given.
    """

    message: Message
    language: Language
    zone: ZoneInfo

    def content(self) -> Content:
        shown = {label: self._shown(value) for label, value in self.message.numbers.items()}
        digest = hashlib.sha256(json.dumps([self.message.text, shown], ensure_ascii=False).encode())
        digest.update(self.message.photo or b"")
        numbers = {self.message.columns.get(label, label): value for label, value in shown.items()}
        return Content(digest.hexdigest()[:32], numbers, self.message.photo is not None)

    def photo(self, claim: Claim) -> tuple[bytes | None, str]:
        """The photo to send; or None, and the reason why there is none or it cannot be sent."""
        photo = self.message.photo
        if photo is None:
            return None, self.words("no new photo") if had_photo(claim) else ""
        if length(self.message.text) > MAX_CAPTION:
            return None, self.words("long")
        if len(photo) > MAX_PHOTO_BYTES:
            return None, self.words("big")
        return photo, ""

    def html(self, claim: Claim, photo: bool, missing: str) -> str:
        """The text with its notes: what was corrected, that the chart is missing or old, which run it comes from."""
        limit = MAX_CAPTION if photo or had_photo(claim) else MAX_TEXT
        notes = []
        if missing:
            notes.append(self.words("old photo" if had_photo(claim) else "no photo", reason=missing))
        room = limit - sum(map(length, notes)) - 4
        text = self.message.text
        if length(text) > limit - sum(length(note) + 1 for note in notes) - bool(notes):
            spared = (length(self._source()) + 1 if self.message.ref else 0) + (
                CORRECTION_ROOM if claim.standing.last else 0
            )
            text = cut(text, room - spared)
        if claim.standing.last:
            notes.insert(0, self._correction(claim.standing, room - length(text)))
        marked = [f"<i>{escape(note, quote=False)}</i>" for note in notes if note]
        html = "\n".join([text, "", *marked]) if marked else text
        source = f"{html}{'' if marked else chr(10)}\n{self._source()}"
        return source if self.message.ref and length(source) <= limit else html

    def _source(self) -> str:
        """`run 3f9c2a71b0`: for copying, or as a link."""
        ref, word = escape(self.message.ref), self.words("run")
        if self.message.link:
            return f'<a href="{escape(self.message.link)}">{word} {ref}</a>'
        return f"{word} <code>{ref}</code>"

    def _correction(self, standing: Standing, room: int) -> str:
        """`corrected 12:40: DAU 15,210 → 15,384`, against the first version, the only one that notified people.

        A number that is back at its first value is named too: `taken back 13:10: DAU 15,384 → 15,210`.
        """
        now = datetime.now(self.zone)
        first = standing.first or standing.last
        assert first is not None
        same_day = first.at.astimezone(self.zone).date() == now.date()
        moment = f"{now:%H:%M}" if same_day else f"{now:%Y-%m-%d %H:%M}"
        corrected, taken_back = self._changes(first, standing)
        more = [self.words("also taken back", change=change) if corrected else change for change in taken_back]
        changes, how = [*corrected, *more], "corrected" if corrected else "taken back"
        for kept in range(len(changes), 0, -1):
            left_out = len(changes) - kept
            listed = [*changes[:kept], *([self.words("more", count=str(left_out))] if left_out else [])]
            line = self.words(how, time=moment, changes=", ".join(listed))
            if length(escape(line)) <= room:
                return line
        line = self.words("updated", time=moment)
        return line if length(line) <= room else ""

    def _changes(self, first: LedgerRow, standing: Standing) -> tuple[list[str], list[str]]:
        """The numbers that differ from the first version; and those that differed meanwhile and no longer do."""
        names = {self.message.columns.get(label, label): label for label in self.message.numbers}
        before, after = first.content.numbers, self.content().numbers
        since = [row.content.numbers for row in standing.published[standing.published.index(first) + 1 :]]
        corrected, taken_back = [], []
        for column in (column for column in after if column in before):
            meanwhile = [each[column] for each in since if each.get(column, after[column]) != after[column]]
            if before[column] != after[column]:
                corrected.append(self._change(names[column], before[column], after[column]))
            elif meanwhile:
                taken_back.append(self._change(names[column], meanwhile[-1], after[column]))
        return corrected, taken_back

    def _change(self, name: str, before: str, after: str) -> str:
        shown = [wording.localized(number, self.language) for number in (before, after)]
        return f"{name} {' → '.join(shown)}"

    def words(self, name: str, **values: str) -> str:
        return wording.word(name, self.language, **values)

    def _shown(self, value: str | float | None) -> str:
        """A number as English writes it, whatever language the message has."""
        if value is None:
            return wording.DASH
        if isinstance(value, str):
            return wording.neutral(value, self.language)
        return f"{value:,.2f}" if isinstance(value, float) and not value.is_integer() else f"{value:,.0f}"


def had_photo(claim: Claim) -> bool:
    """Whether the claim edits a message that has a photo."""
    return claim.row.action == "edit" and claim.standing.last is not None and claim.standing.last.content.photo
