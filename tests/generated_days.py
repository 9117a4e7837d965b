"""Profiles of an app's days, generated: quiet weeks, and what can go wrong with the data of a day.

An app has users of whom some come every day, and who do a little or, a few of them, a lot. Weekdays differ, the app
grows by two to five percent a week, more happens at the end of a month, and on public holidays 40 % less or 30 % more.
Fewer or more people come then, and each does a little less or more. Each row of a day is there, so a fault can be
planted row by row: rows lost at random, users lost, a load that broke off, an operating system that is gone, all rows
loaded twice.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from pulse.metrics import FEED, MESSAGES
from pulse.publishing.plausible import Profile

FIRST = date(2025, 9, 1)  # a Monday
WEEKS = 12
OS = np.array(["Android", "iOS", "web", "unknown"])
GENDERS = np.array(["female", "male", "unknown"])
HOURS = np.array([3, 2, 1, 1, 1, 1, 2, 4, 6, 6, 6, 6, 7, 7, 6, 6, 6, 7, 8, 9, 10, 10, 8, 6], dtype=float)
WEEKDAYS = {
    "evenings": (0.98, 0.96, 0.96, 0.97, 1.0, 1.06, 1.07),
    "office": (1.1, 1.15, 1.15, 1.1, 1.0, 0.35, 0.3),
}


@dataclass(frozen=True)
class Rows:
    """The rows of one source on one day."""

    user: Any
    hour: Any
    like: Any
    receiver: Any
    os: Any

    def only(self, kept: Any) -> "Rows":
        return Rows(*(column[kept] for column in (self.user, self.hour, self.like, self.receiver, self.os)))

    def twice(self) -> "Rows":
        return Rows(*(np.repeat(column, 2) for column in (self.user, self.hour, self.like, self.receiver, self.os)))


@dataclass(frozen=True)
class Day:
    """A day's rows of both sources."""

    event_date: date
    feed: Rows
    messages: Rows
    gender: Any
    age: Any
    above: float
    """How much above a usual day it is: 1.3 on some holidays."""

    @property
    def profile(self) -> Profile:
        """What the source holds of the day, counted row by row."""
        feed_users, feed_counts = np.unique(self.feed.user, return_counts=True)
        senders, sent_counts = np.unique(self.messages.user, return_counts=True)
        app = np.union1d(feed_users, senders)
        views, likes, sent = int((~self.feed.like).sum()), int(self.feed.like.sum()), len(self.messages.user)
        received = int(np.isin(self.messages.receiver, app).sum())
        metrics: dict[str, float] = {
            "app_users": len(app),
            "both_users": len(feed_users) + len(senders) - len(app),
            "feed_users": len(feed_users),
            "views": views,
            "likes": likes,
            "messenger_users": len(senders),
            "messages_sent": sent,
            "messages_received": received,
        }
        if views:
            metrics["ctr"] = likes / views
        if received:
            metrics["sent_per_received"] = sent / received
        slices = {}
        for source, rows in ((FEED, self.feed), (MESSAGES, self.messages)):
            users, first = np.unique(rows.user, return_index=True)
            named = (("os", rows.os[first]), ("gender", self.gender[users]), ("age", self.age[users]))
            for dimension, values in named:
                found, counts = np.unique(values, return_counts=True)
                slices[source, dimension] = dict(zip(map(str, found), map(int, counts), strict=True))
        return Profile(
            self.event_date,
            metrics,
            {
                FEED: np.bincount(self.feed.hour, minlength=24).tolist(),
                MESSAGES: np.bincount(self.messages.hour, minlength=24).tolist(),
            },
            {FEED: int((feed_counts % 2).sum()), MESSAGES: int((sent_counts % 2).sum())},
            slices,
        )


class App:
    """An app with as many daily users of its feed as asked for, on a usual day of its first week."""

    def __init__(self, seed: int, users: int, shape: str = "evenings") -> None:
        self.dice = np.random.default_rng(seed)
        self.week = WEEKDAYS[shape]
        self.growth = self.dice.uniform(0.02, 0.05)
        accounts = int(3.2 * users * 1.3 * (1 + self.growth) ** WEEKS)
        self.comes = self.dice.beta(0.8, 1.6, accounts)
        self.rate = self.dice.lognormal(2.2, 0.8, accounts)
        self.os = self.dice.choice(4, accounts, p=[0.55, 0.35, 0.08, 0.02])
        self.gender = GENDERS[self.dice.choice(3, accounts, p=[0.5, 0.45, 0.05])]
        self.age = self.dice.integers(16, 60, accounts).astype(str)
        self.writes = self.dice.random(accounts) < 0.4
        self.users = users
        self.days = [FIRST + timedelta(days=number) for number in range(7 * WEEKS)]
        # Public holidays do not follow each other by whole weeks: a weekday has at most one of each kind.
        weeks, weekdays = self.dice.permutation(WEEKS), [self.dice.permutation(7)[:number] for number in (5, 4)]
        self.special = {
            self.days[7 * week + weekday]: level
            for week, (weekday, level) in zip(
                weeks, [(each, 0.6) for each in weekdays[0]] + [(each, 1.3) for each in weekdays[1]], strict=False
            )
        }

    def day(self, event_date: date) -> Day:
        """A day's rows."""
        weeks = (event_date - FIRST).days / 7
        holiday = self.special.get(event_date, 1.0)
        end_of_month = 1.15 if (event_date + timedelta(days=2)).day <= 2 else 1.0
        per_user = holiday**0.15 * self.dice.normal(1, 0.03)
        level = holiday**0.85 * end_of_month * self.week[event_date.weekday()] * (1 + self.growth) ** weeks
        wanted = self.users * level * self.dice.normal(1, 0.04)
        chance = np.minimum(1.0, self.comes * wanted / self.comes.sum())
        here = np.flatnonzero(self.dice.random(len(chance)) < chance)
        return Day(
            event_date,
            self._rows(here[self.dice.random(len(here)) < 0.9], per_user),
            self._rows(here[self.writes[here]], 0.5 * per_user),
            self.gender,
            self.age,
            max(1.0, holiday * end_of_month),
        )

    def _rows(self, users: Any, per_user: float) -> Rows:
        counts = 1 + self.dice.poisson(self.rate[users] * per_user)
        user = np.repeat(users, counts)
        visit = self.dice.choice(24, len(users), p=HOURS / HOURS.sum())
        stays = self.dice.random(len(user)) < 0.6
        hour = np.where(stays, np.repeat(visit, counts), self.dice.choice(24, len(user), p=HOURS / HOURS.sum()))
        like = self.dice.random(len(user)) < 0.21
        receiver = self.dice.integers(0, len(self.rate), len(user))
        return Rows(user, hour, like, receiver, OS[self.os[user]])


def rows_lost(day: Day, dice: Any) -> Day:
    """Keep 30 % of the rows, at random."""
    feed, messages = (rows.only(dice.random(len(rows.user)) < 0.3) for rows in (day.feed, day.messages))
    return replace(day, feed=feed, messages=messages)


def users_lost(day: Day, dice: Any) -> Day:
    """Keep the rows of some users: 30 % of a usual day's."""
    kept = dice.random(len(day.gender)) < 0.3 / day.above
    return replace(day, feed=day.feed.only(kept[day.feed.user]), messages=day.messages.only(kept[day.messages.user]))


def end_lost(day: Day, dice: Any) -> Day:
    """Keep the first 30 % of the rows, as if the load had broken off."""
    cut = [
        rows.only(np.argsort(rows.hour, kind="stable")[: int(0.3 * len(rows.user))])
        for rows in (day.feed, day.messages)
    ]
    return replace(day, feed=cut[0], messages=cut[1])


def os_lost(day: Day, dice: Any) -> Day:
    """Lose the rows of iOS."""
    return replace(day, feed=day.feed.only(day.feed.os != "iOS"), messages=day.messages.only(day.messages.os != "iOS"))


def os_unknown(day: Day, dice: Any) -> Day:
    """Lose what is known of iOS, but no rows."""
    feed, messages = (
        replace(rows, os=np.where(rows.os == "iOS", "unknown", rows.os)) for rows in (day.feed, day.messages)
    )
    return replace(day, feed=feed, messages=messages)


def loaded_twice(day: Day, dice: Any) -> Day:
    """Every row is there twice."""
    return replace(day, feed=day.feed.twice(), messages=day.messages.twice())


FAULTS = (rows_lost, users_lost, end_lost, os_lost, os_unknown, loaded_twice)
