"""The app whose demo events are made: its size, its growth, and the rhythm of its days."""

import hashlib
import random
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from math import pi, sin
from pathlib import Path
from zoneinfo import ZoneInfo

from pulse_sandbox import SandboxError

LEVEL_DAY = date(2026, 11, 1)
"""The day on which the app has the size that was asked for."""

GROWTH = 0.03
"""By what share of its size on `LEVEL_DAY` the app grows each month."""

STEP = 900
"""The length in seconds of the intervals within which the rhythm is constant."""

_RECIPE = ("events.py", "events_app.py", "events_sql.py")
"""The files of this package that decide which events a day has."""


@dataclass(frozen=True)
class Kind:
    """One half of the app: its share of the events, and how they are spread over the week and the day."""

    name: str
    share: float
    week: tuple[float, ...]  # weights of the days from Monday; 1 is a usual day
    hours: tuple[int, ...]  # weights of the hours from midnight, in local time
    pause: int  # the longest time between two actions of a visit, in seconds


FEED = Kind(
    name="feed",
    share=0.8,
    week=(0.98, 0.96, 0.96, 0.97, 1.0, 1.06, 1.07),
    hours=(30, 20, 13, 9, 7, 8, 14, 26, 40, 46, 48, 50, 54, 56, 52, 50, 52, 58, 68, 78, 86, 88, 74, 50),
    pause=30,
)
MESSAGES = Kind(
    name="message",
    share=0.2,
    week=(1.05, 1.06, 1.05, 1.04, 1.02, 0.88, 0.90),
    hours=(26, 16, 10, 7, 5, 6, 12, 28, 44, 54, 60, 64, 68, 66, 64, 64, 66, 70, 76, 82, 84, 78, 62, 42),
    pause=60,
)


@dataclass(frozen=True)
class App:
    """The app whose events are made. Equal apps have equal events.

    `events_per_day` is the size of a usual day at `LEVEL_DAY`, with four feed actions for each message; single days
    deviate by a few percent. `users` is the number of accounts at `LEVEL_DAY`; 0 means one account for eight events.

    Raises:
        SandboxError: `events_per_day` is less than 1, or another number is negative.
    """

    zone: ZoneInfo
    database: str = "app"
    seed: int = 1
    events_per_day: int = 300_000
    users: int = 0

    def __post_init__(self) -> None:
        if self.events_per_day < 1 or self.users < 0 or self.seed < 0:
            raise SandboxError(
                "Expected at least one event a day, and a number of users and a seed that are not negative; "
                f"found events_per_day={self.events_per_day}, users={self.users}, seed={self.seed}."
            )

    @property
    def accounts(self) -> int:
        """The number of accounts at `LEVEL_DAY`."""
        return max(20, self.users or self.events_per_day // 8)

    @property
    def recipe(self) -> str:
        """Everything besides the day that its events depend on, including the code that makes them."""
        code = b"".join((Path(__file__).parent / name).read_bytes() for name in _RECIPE)
        text = hashlib.sha256(code).hexdigest()[:12]
        return f"seed={self.seed} events_per_day={self.events_per_day} users={self.accounts} zone={self.zone} by={text}"

    def growth(self, day: date) -> float:
        """The app's size that day relative to `LEVEL_DAY`, limited so that distant days are still plausible."""
        return min(4.0, max(0.2, 1 + GROWTH * (day - LEVEL_DAY).days / 30.4))

    def population(self, day: date) -> int:
        """The number of accounts that day, a multiple of 20: of every 20, each kind of user has fixed numbers."""
        return max(20, int(self.accounts * self.growth(day)) // 20 * 20)

    def bounds(self, day: date) -> tuple[int, int]:
        """The first seconds, since 1970, of a local day and of the next one: 23 to 25 hours apart at clock changes."""
        following = day + timedelta(days=1)
        return self._midnight(day), self._midnight(following)

    def _midnight(self, day: date) -> int:
        return int(datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp())


def moments(app: App, day: date, kind: Kind, dice: random.Random) -> list[int]:
    """The seconds since the day's start that divide it into 1,000 parts with equally many visits.

    The rhythm follows local time, so a day of 23 hours has no events in the hour that is skipped.
    """
    start, following = app.bounds(day)
    weights = []
    for second in range(start, following, STEP):
        local = datetime.fromtimestamp(second, app.zone)
        clock = local.hour + local.minute / 60
        if day.weekday() >= 5:
            clock -= 1.5 * sin(pi * clock / 24)  # people get up later; at midnight the days must still meet
        hour, between = divmod(clock, 1)
        level = kind.hours[int(hour)] * (1 - between) + kind.hours[(int(hour) + 1) % 24] * between
        weights.append(level * dice.uniform(0.94, 1.06))
    reached = [0.0, *accumulate(weights)]
    moments = []
    for part in range(1000):
        target = reached[-1] * part / 1000
        step = bisect_right(reached, target) - 1
        moments.append(int(STEP * (step + (target - reached[step]) / weights[step])))
    return [*moments, following - start]
