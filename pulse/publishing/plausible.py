"""Whether a day is plausible: what its source held, compared with the same weekdays before.

`judge` decides from profiles alone (`pulse.publishing.profiles`), so the order in which days are computed does not
matter. The limits are wide: a public holiday, the end of a month or steady growth passes, while 30 % of the usual
volume, rows that were loaded twice, or an operating system that is gone do not. Counting noise widens them, so that a
small app is not held for a quiet day. What is too small to tell from chance is not judged: a value of an attribute
counts as gone only where at least 20 users were expected.

What is compared, with the limits for a large app and eight weeks of history:

    metric     a number of `daily_metrics`: counts from half to two and a half times the usual, ratios 0.6 to 1.7 times
    per user   a source's rows for each of its users: 0.65 to 1.55 times
    twice      the share of users with an odd number of rows: next to none where all rows were loaded twice
    unknown    the share of users whose attribute is unknown: 15 percentage points above the usual
    gone       a value of an attribute: none of its users, or less than a fifth of them
    new        a value of an attribute that was never there: 5 % of the users
    hours      hours without a single row, where the earlier days had many
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import combinations
from statistics import median
from typing import Any, Literal, TypeAlias

from pulse.metrics import BY_COLUMN, DIMENSIONS, FEED, MESSAGES, Dimension, Metric, columns
from pulse.settings import Language
from pulse.wording import DASH, number, word

WEEKS = 8
"""How many of the same weekdays before a day is compared with."""

TOP = 200
"""How many values of an attribute a profile keeps, the largest."""

UNKNOWN = "unknown"

DERIVED = ("messages_received",)
"""What is not judged: on a day with half as many users a quarter as many messages reach somebody who is there. It is
judged by `sent_per_received`, for which that is taken into account."""

LOWEST, HIGHEST = math.log(1.95), math.log(2.5)  # of counts, as logarithms of ratios
RATIO = math.log(1.65)  # of CTR and of sent / received
PER_USER = math.log(1.5)
FEW_WEEKS = 0.3  # the limits are wider by this share where there is one week of history, by half of it with two, …
SIGMAS = 3.25  # of counting noise
GROWTH = (-0.04, 0.08)  # a week: what counts as steady growth
LEAST = 20.0  # users: what is expected to be fewer is not judged
COLLAPSED, LEAST_COLLAPSED = 0.2, 60.0
NEW = 0.05
MORE_UNKNOWN = 0.15
HEAVY = 2.2  # how much more a user's rows scatter than the users: the root of 1 + their squared variation
FURTHER = math.log(1.25)  # how much further out than a released day a day may be that its release covers

Kind: TypeAlias = Literal["hours", "gone", "new", "unknown", "twice", "per user", "metric"]
KINDS: tuple[Kind, ...] = ("hours", "gone", "new", "unknown", "twice", "per user", "metric")
"""In the order in which people read them: what explains the others comes first."""

PARTS: Mapping[str, str] = {FEED: "feed_users", MESSAGES: "messenger_users"}
"""The two sources, and the metric that counts the users of each."""


@dataclass(frozen=True)
class Profile:
    """What the source held of a day.

    Args:
        event_date: the day.
        metrics: the columns of `daily_metrics`, without those that could not be computed.
        hours: the rows of each source, by hour since the day began; a day has 23 to 25.
        odd: of each source, the users with an odd number of rows.
        slices: by source and dimension, the users of each value: the `TOP` largest. A user has the attributes of the
            latest action in that source.
    """

    event_date: date
    metrics: Mapping[str, float]
    hours: Mapping[str, Sequence[int]]
    odd: Mapping[str, int]
    slices: Mapping[tuple[str, str], Mapping[str, int]]

    @property
    def is_empty(self) -> bool:
        """Whether the source holds nothing of the day: it is no history."""
        return not any(map(sum, self.hours.values()))

    def users(self, source: str) -> float:
        """How many users a source has."""
        return self.metrics.get(PARTS[source], 0.0)

    def rows(self, source: str) -> int:
        """How many rows a source has."""
        return sum(self.hours.get(source, ()))


@dataclass(frozen=True)
class Finding:
    """In what a day is far from the same weekdays before.

    Args:
        kind: what was compared.
        what: of which metric, source, or value: `views`, `feed_actions`, `os iOS`.
        found: the day's number.
        low: the lowest that the same weekdays before let expect, adjusted for growth.
        high: the highest.
        source: whose rows it is about; empty if that is in `what`.
        hours: the hours without rows, since the day began.
    """

    kind: Kind
    what: str
    found: float
    low: float
    high: float
    source: str = ""
    hours: tuple[int, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Finding":
        """The finding that `record` made a record of."""
        return cls(**{**record, "hours": tuple(record["hours"])})

    @property
    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @property
    def distance(self) -> float:
        """How far out it is, as the logarithm of a ratio; negative below what was expected."""
        middle = math.sqrt(max(self.low, 1e-9) * max(self.high, 1e-9))
        return math.log(max(self.found, 1e-9) / middle)

    def covers(self, other: "Finding") -> bool:
        """Whether somebody who accepted this one has accepted the other: the same thing, and hardly further out."""
        if (self.kind, self.what, self.source) != (other.kind, other.what, other.source):
            return False
        if self.kind == "hours":
            return set(other.hours) <= set(self.hours)
        if self.kind in ("gone", "new", "twice"):
            return True
        if self.kind == "unknown":
            return other.found <= self.found + MORE_UNKNOWN / 2
        same_side = (self.distance > 0) == (other.distance > 0)
        return same_side and abs(other.distance) <= abs(self.distance) + FURTHER

    def line(self, language: Language) -> str:
        """A line for people: what, the number, and what was expected."""
        where = word("in source", language, source=self.source) if self.source else ""
        if self.kind == "metric":
            metric = BY_COLUMN[self.what]
            found, expected = number(self.found, metric.unit, language), self._range(metric, language)
            return word("held metric", language, what=metric.label_alone(language), found=found, expected=expected)
        if self.kind == "per user":
            found, low, high = (number(value, "ratio", language) for value in (self.found, self.low, self.high))
            return word("held per user", language, what=self.what, found=found, expected=_between(low, high))
        if self.kind == "hours":
            first, last = str(self.hours[0]), str(self.hours[-1])
            expected = number(self.low, "count", language)
            return word("held hours", language, what=self.what, hours=_between(first, last), expected=expected)
        if self.kind in ("twice", "unknown"):
            found, low, high = (number(value, "share", language) for value in (self.found, self.low, self.high))
            return word(
                f"held {self.kind}", language, what=self.what, where=where, found=found, expected=_between(low, high)
            )
        found, expected = (number(value, "count", language) for value in (self.found, self.low))
        return word(f"held {self.kind}", language, what=self.what, where=where, found=found, expected=expected)

    def __str__(self) -> str:
        return self.line("en")

    def _range(self, metric: Metric, language: Language) -> str:
        return _between(*(number(value, metric.unit, language) for value in (self.low, self.high)))


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low}{DASH}{high}"


def compared(day: Profile, before: Collection[Profile], released: Collection[date] = ()) -> list[Profile]:
    """The days that a day is compared with, the latest first: of the same weekdays before, those with rows.

    Of only two, the later one is left out if it is not plausible itself and nobody released it: a mean of both would
    hide the next such day. Of three or more, the median is right without that.
    """
    history = sorted((each for each in before if not each.is_empty), key=lambda each: each.event_date, reverse=True)
    if len(history) == 2 and history[0].event_date not in released and list(_findings(history[0], history[1:])):
        return history[1:]
    return history


def judge(day: Profile, before: Collection[Profile], released: Collection[date] = ()) -> list[Finding]:
    """In what a day is far from the same weekdays before; empty if it is plausible, or if there is no history.

    Args:
        day: the day.
        before: the same weekday of the weeks before, as far as the source has them.
        released: the held days that somebody released.
    """
    history = compared(day, before, released)
    found = list(_findings(day, history)) if history else []
    return sorted(found, key=lambda each: (KINDS.index(each.kind), -abs(each.distance)))


def _findings(day: Profile, history: Sequence[Profile]) -> Iterator[Finding]:
    for source in PARTS:
        yield from _hours(day, history, source)
        yield from _twice(day, history, source)
        yield from _per_user(day, history, source)
        for dimension in DIMENSIONS:
            yield from _values(day, history, source, dimension)
    for column in columns("daily_metrics"):
        yield from _metric(day, history, BY_COLUMN[column])


# --- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Usual:
    """What the days before let expect of a number, as logarithms."""

    middle: float
    low: float
    high: float
    scatter: float
    weeks: int

    @classmethod
    def of(cls, day: date, values: Sequence[tuple[date, float]]) -> "_Usual":
        """Of what a number was on days before, carried on to this day by the growth that most pairs of them show."""
        points = [((day - before).days / 7, math.log(max(value, 0.5))) for before, value in values]
        slopes = [(later - earlier) / (back - nearer) for (nearer, later), (back, earlier) in combinations(points, 2)]
        slope = min(max(median(slopes), GROWTH[0]), GROWTH[1]) if len(points) >= 6 else 0.0
        slope *= 0.5  # overrated growth makes a quiet holiday look like a loss, and overrated decline lets a loss pass
        carried = [value + slope * weeks for weeks, value in points]
        middle = median(carried)
        # Of fewer days, one holiday would pass for scatter.
        scatter = 1.4826 * median(abs(value - middle) for value in carried) if len(points) >= 6 else 0.0
        return cls(middle, min(carried), max(carried), scatter, len(points))

    def is_far(self, value: float, limit: float, noise: float) -> bool:
        """Whether a number is further than a limit, which is wider with little history, noise and scatter."""
        widened = math.hypot(limit * (1 + FEW_WEEKS / self.weeks), SIGMAS * noise * math.sqrt(1 + 1.57 / self.weeks))
        return abs(math.log(max(value, 0.5)) - self.middle) > max(widened, 3 * self.scatter)


def _metric(day: Profile, history: Sequence[Profile], metric: Metric) -> Iterator[Finding]:
    """A metric of the day. A count scatters by the users who make it, and the more the fewer they are."""
    name = metric.column
    earlier = [each for each in history if name in each.metrics]
    if not earlier or name not in day.metrics or name in DERIVED:
        return
    if metric.unit == "users":
        users, heavy = median(each.metrics[name] for each in earlier), 1.0
    else:
        made_by = "feed_users" if metric.part == "feed" else "messenger_users"
        users, heavy = median(each.metrics.get(made_by, 0.0) for each in earlier), HEAVY
    is_ratio = metric.unit in ("share", "ratio")
    if is_ratio:
        users = min(users, day.metrics.get(made_by, 0.0))
    if users < LEAST:
        return
    usual = _Usual.of(day.event_date, [(each.event_date, _scaled(each, metric)) for each in earlier])
    value = _scaled(day, metric)
    limit = RATIO if is_ratio else HIGHEST if math.log(max(value, 0.5)) > usual.middle else LOWEST
    is_far = usual.is_far(value, limit, heavy / math.sqrt(users))
    if is_far and name == "sent_per_received":
        # With fewer users, fewer receivers are there: what every message's chance to be received is for each of them.
        chances = [(each.event_date, _scaled(each, metric) * each.metrics["app_users"]) for each in earlier]
        by_users = _Usual.of(day.event_date, chances)
        is_far = by_users.is_far(value * day.metrics["app_users"], limit, heavy / math.sqrt(users))
    if is_far:
        values = [each.metrics[name] for each in earlier]
        low, high = (min(values), max(values)) if is_ratio else (math.exp(usual.low), math.exp(usual.high))
        yield Finding("metric", name, day.metrics[name], low, high)


def _scaled(profile: Profile, metric: Metric) -> float:
    """A metric as a number that is far above a half, which stands for nothing in logarithms."""
    return profile.metrics[metric.column] * (1 if metric.unit in ("users", "count") else 1e6)


def _per_user(day: Profile, history: Sequence[Profile], source: str) -> Iterator[Finding]:
    """The rows of a source for each of its users: twice as many where everything was loaded twice."""
    values = [(each.event_date, each.rows(source) / each.users(source)) for each in history if each.users(source)]
    users = min([day.users(source), *(each.users(source) for each in history)])
    if not values or users < LEAST:
        return
    usual = _Usual.of(day.event_date, values)
    value = day.rows(source) / day.users(source)
    if usual.is_far(value, PER_USER, 1.1 / math.sqrt(users)):
        yield Finding("per user", source, value, math.exp(usual.low), math.exp(usual.high))


def _twice(day: Profile, history: Sequence[Profile], source: str) -> Iterator[Finding]:
    """The share of users with an odd number of rows: about a half, and none where every row is there twice."""
    users = day.users(source)
    shares = [each.odd[source] / each.users(source) for each in history if each.users(source) and source in each.odd]
    if not shares or users < LEAST or source not in day.odd:
        return
    usual, share = median(shares), day.odd[source] / users
    noise = math.sqrt(usual * (1 - usual) / users)
    if usual >= 0.2 and share < 0.4 * usual and usual - share > 4 * noise:
        yield Finding("twice", source, share, min(shares), max(shares))


# --- attributes and hours ---------------------------------------------------------------------------------------------


def _values(day: Profile, history: Sequence[Profile], source: str, attribute: Dimension) -> Iterator[Finding]:
    """The values of an attribute that are gone or new, if that is unusual; and the users of whom it is unknown."""
    dimension = attribute.column
    key = (source, dimension)
    now, earlier = day.slices.get(key, {}), [each.slices[key] for each in history if each.slices.get(key)]
    total = sum(now.values())
    if not earlier or not total:
        return
    totals = [sum(each.values()) for each in earlier]
    least = min(now.values()) if len(now) >= TOP else 0  # of values that were left out there are at most as many users
    values = {value for each in earlier for value in each} - {UNKNOWN} if attribute.is_steady else set()
    for value in sorted(values):
        counts = [each.get(value, 0) for each in earlier]
        share = min(0.95, median(count / all_of for count, all_of in zip(counts, totals, strict=True)))
        count = now.get(value, least)
        # By the users of the other values, of whom nobody is missing if it is this value alone that is gone.
        expected = (total - count) * share / (1 - share)
        is_gone = count == 0 and min(expected, 2 * median(counts)) >= LEAST
        if is_gone or (count < COLLAPSED * expected and min(expected, 2 * median(counts)) >= LEAST_COLLAPSED):
            yield Finding("gone", f"{dimension} {value}", count, expected, expected, source)
    if attribute.is_steady and all(len(each) < TOP for each in earlier):
        for value, count in now.items():
            if value != UNKNOWN and count >= max(LEAST, NEW * total) and not any(value in each for each in earlier):
                yield Finding("new", f"{dimension} {value}", count, 0.0, 0.0, source)
    shares = [each.get(UNKNOWN, 0) / all_of for each, all_of in zip(earlier, totals, strict=True)]
    share, usual = now.get(UNKNOWN, 0) / total, median(shares)
    if total >= LEAST and share - usual > MORE_UNKNOWN + 4 * math.sqrt(max(usual * (1 - usual), 0.02) / total):
        yield Finding("unknown", dimension, share, min(shares), max(shares), source)


def _hours(day: Profile, history: Sequence[Profile], source: str) -> Iterator[Finding]:
    """The hours without rows that usually have those of many users: rows come in visits, so users count."""
    now, earlier = day.hours.get(source, ()), [each for each in history if each.users(source)]
    if not earlier or not sum(now):
        return
    found: list[int] = []
    for hour in range(len(now) + 1):
        if hour < len(now) and not now[hour]:
            found.append(hour)
            continue
        users, rows = (sum(_usual_in(earlier, source, each, of) for each in found) for of in ("users", "rows"))
        if users >= 2 * LEAST:  # twice: on a holiday there are fewer
            yield Finding("hours", source, 0.0, rows, rows, hours=tuple(found))
        found = []


def _usual_in(earlier: Sequence[Profile], source: str, hour: int, of: str) -> float:
    """The usual rows of an hour, or by how many users they would be if each had as many rows as over the whole day."""
    there = [each for each in earlier if hour < len(each.hours[source])]
    share = (lambda each: each.users(source) / each.rows(source)) if of == "users" else (lambda each: 1.0)
    return median(each.hours[source][hour] * share(each) for each in there) if there else 0.0


def lines(findings: Sequence[Finding], language: Language, most: int = 5) -> list[str]:
    """The findings as lines, the most telling first; how many more there are stands in the last one."""
    shown = [each.line(language) for each in findings[:most]]
    if len(findings) > most:
        shown.append(word("more", language, count=str(len(findings) - most)))
    return shown
