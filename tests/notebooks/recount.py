"""A second, independent count of a day's tables, row by row in plain Python, as `spec.md` defines each number.

It shares no code with the notebooks or with `reference`, and uses neither ClickHouse nor pandas. A row of the feed has
`user_id`, `action`, `time`, `os`, `gender` and `age`; a row of the messenger has `receiver_id` instead of `action`.
Rows may also have some of the optional attributes, which then make slices as well. A time is the number of nanoseconds
since 1970; an id is a number or a text; None stands for NULL.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Row = dict[str, Any]
ALWAYS = ("os", "gender", "age")
ATTRIBUTES = (*ALWAYS, "country", "city", "source", "exp_group")

# The columns of the rows that this module returns, in order.
USER_ACTIVITY = (
    "user_id", *ATTRIBUTES, "views", "likes", "messages_received", "messages_sent", "users_received",
    "users_sent", "feed_active",
)  # fmt: skip
DIMENSION_ACTIVITY = (
    "dimension", "dimension_value", "views", "likes", "messages_received", "messages_sent", "users_received",
    "users_sent",
)  # fmt: skip
DIMENSION_METRICS = (
    "dimension", "dimension_value", "feed_users", "messenger_users", "app_users", "both_users", "views", "likes", "ctr",
    "messages_sent", "messages_received", "sent_per_received",
)  # fmt: skip
DAILY_METRICS = (
    "feed_users", "messenger_users", "app_users", "both_users", "views", "likes", "ctr", "messages_sent",
    "messages_received", "sent_per_received",
)  # fmt: skip


def is_nameless(feed: list[Row], day: date, zone: ZoneInfo) -> bool:
    """Whether a day has feed actions, none of which is a view or a like: then it is not published."""
    rows = [row for row in feed if None not in (row["user_id"], row["time"]) and local_date(row["time"], zone) == day]
    return bool(rows) and not any(row["action"] in ("view", "like") for row in rows)


class User:
    """What a user did that day, and who they are."""

    def __init__(self) -> None:
        self.views = self.likes = self.sent = self.received = 0
        self.wrote_to: set[str] = set()
        self.heard_from: set[str] = set()
        self.in_feed = False
        self.names = dict.fromkeys(ATTRIBUTES, "unknown")

    @property
    def active(self) -> bool:
        """Whether they did anything, rather than only receive messages."""
        return self.in_feed or self.sent > 0


def recount(
    feed: list[Row],
    messages: list[Row],
    day: date,
    zone: ZoneInfo,
    lookback_days: int,
    optional: Collection[str] = (),
) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each table, in any order: one row per user, two per slice, and one for the day."""
    present = [attribute for attribute in ATTRIBUTES if attribute in ALWAYS or attribute in optional]
    feed = [row for row in feed if None not in (row["user_id"], row["time"])]
    messages = [row for row in messages if None not in (row["user_id"], row["receiver_id"], row["time"])]
    users: dict[str, User] = defaultdict(User)

    for row in feed:
        if local_date(row["time"], zone) == day:
            user = users[str(row["user_id"])]
            user.in_feed = True
            user.views += row["action"] == "view"
            user.likes += row["action"] == "like"
    for row in messages:
        if local_date(row["time"], zone) == day:
            sender, receiver = str(row["user_id"]), str(row["receiver_id"])
            users[sender].sent += 1
            users[sender].wrote_to.add(receiver)
            users[receiver].received += 1
            users[receiver].heard_from.add(sender)

    for name, user in users.items():
        days = {day} if user.active else {day - timedelta(days=back) for back in range(1, lookback_days + 1)}
        theirs = [
            row for row in feed + messages if str(row["user_id"]) == name and local_date(row["time"], zone) in days
        ]
        if theirs:
            latest = max(theirs, key=lambda row: row["time"])
            user.names |= {attribute: shown(attribute, latest[attribute]) for attribute in present}

    return {
        "user_activity": [
            (
                name, *user.names.values(), user.views, user.likes, user.received, user.sent, len(user.heard_from),
                len(user.wrote_to), user.in_feed,
            )
            for name, user in users.items()
        ],
        "dimension_activity": [
            (attribute, value, *slice_counts([user for user in users.values() if user.names[attribute] == value]))
            for attribute in present
            for value in {user.names[attribute] for user in users.values()}
        ],
        "dimension_metrics": [
            (attribute, value, *metrics([user for user in users.values() if user.names[attribute] == value]))
            for attribute in present
            for value in {user.names[attribute] for user in users.values()}
        ],
        "daily_metrics": [metrics(list(users.values()))],
    }  # fmt: skip


def slice_counts(users: list[User]) -> tuple[int, ...]:
    """Count what the users of a slice did; somebody who was the partner of several of them counts once."""
    return (
        sum(user.views for user in users),
        sum(user.likes for user in users),
        sum(user.received for user in users),
        sum(user.sent for user in users),
        len(set().union(*(user.heard_from for user in users))),
        len(set().union(*(user.wrote_to for user in users))),
    )


def metrics(users: list[User]) -> tuple[Any, ...]:
    """Count the metrics of a day, or of the users of a slice."""
    views, likes, sent = (sum(getattr(user, what) for user in users) for what in ("views", "likes", "sent"))
    received = sum(user.received for user in users if user.active)
    return (
        sum(user.in_feed for user in users),
        sum(user.sent > 0 for user in users),
        sum(user.active for user in users),
        sum(user.in_feed and user.sent > 0 for user in users),
        views,
        likes,
        likes / views if views else None,
        sent,
        received,
        sent / received if received else None,
    )


def local_date(nanoseconds: int, zone: ZoneInfo) -> date:
    """Return the local date at an instant."""
    return datetime.fromtimestamp(nanoseconds // 10**9, zone).date()


def shown(attribute: str, value: Any) -> str:
    """Return an attribute as the tables spell it."""
    text = "" if value is None else str(value)
    return "unknown" if text == "" or (attribute == "age" and text == "0") else text
