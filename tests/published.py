"""Publishes days without notebooks, for tests of the code that reads published days."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from pulse.clickhouse import ClickHouse

DIMENSIONS = ("os", "gender", "age", "country", "city", "source", "exp_group")
OPTIONAL = DIMENSIONS[3:]
COUNTS = ("views", "likes", "messages_received", "messages_sent")
DAYS_AN_INSERT = 90  # a server takes no more than 100 partitions in one insert

User = Mapping[str, Any]


def publish(db: ClickHouse, **tables: Iterable[Mapping[str, Any]]) -> None:
    """Publish the days of these rows, each as a new load; a table that is not given gets no rows.

    Args:
        db: the database with the tables.
        tables: the rows of `user_activity` and the other published tables, with their `event_date`.
    """
    load = uuid.uuid4().hex[:12]
    given = {
        table: [{**row, "event_date": str(row["event_date"]), "load": load} for row in rows]
        for table, rows in tables.items()
    }
    days = sorted({row["event_date"] for rows in given.values() for row in rows})
    for start in range(0, len(days), DAYS_AN_INSERT):
        some = set(days[start : start + DAYS_AN_INSERT])
        for table, rows in given.items():
            db.write([row for row in rows if row["event_date"] in some], f"{table}_loads")
    last = db.read("select toString(event_date) as day, max(step) as step from publications group by day")
    steps = dict(zip(last["day"], last["step"], strict=True))
    db.write(
        [{"event_date": day, "step": steps.get(day, 0) + 1, "load": load, "run": "by_a_test"} for day in days],
        "publications",
    )


def slices_of(users: Iterable[User], partners: int = 0) -> list[dict[str, Any]]:
    """Return the rows of `dimension_activity` for these users, each with this number of partners."""
    found: dict[tuple[Any, str, str], dict[str, Any]] = {}
    users = list(users)
    for user in users:
        for dimension in _present(users):
            key = (user["event_date"], dimension, user.get(dimension, "unknown"))
            row = found.setdefault(
                key, {**dict.fromkeys(COUNTS, 0), "users_received": partners, "users_sent": partners}
            )
            for count in COUNTS:
                row[count] += user.get(count, 0)
    return [
        {"event_date": day, "dimension": dimension, "dimension_value": value, **row}
        for (day, dimension, value), row in found.items()
    ]


def slice_metrics_of(users: Iterable[User]) -> list[dict[str, Any]]:
    """Return the rows of `dimension_metrics` for these users."""
    found: dict[tuple[Any, str, str], list[User]] = {}
    users = list(users)
    for user in users:
        for dimension in _present(users):
            found.setdefault((user["event_date"], dimension, user.get(dimension, "unknown")), []).append(user)
    return [
        {"dimension": dimension, "dimension_value": value, **metrics_of(day, slice_users)}
        for (day, dimension, value), slice_users in found.items()
    ]


def _present(users: list[User]) -> list[str]:
    """The dimensions of these users' source: the optional ones if a user has them."""
    return [name for name in DIMENSIONS if name not in OPTIONAL or any(name in user for user in users)]


def metrics_of(day: date, users: Iterable[User]) -> dict[str, Any]:
    """Return the row of `daily_metrics` for these users."""
    users = list(users)
    feed = [bool(user.get("feed_active")) for user in users]
    sent = [user.get("messages_sent", 0) for user in users]
    active = [reads or wrote > 0 for reads, wrote in zip(feed, sent, strict=True)]
    views, likes = (sum(user.get(count, 0) for user in users) for count in ("views", "likes"))
    received = sum(user.get("messages_received", 0) for user, is_active in zip(users, active, strict=True) if is_active)
    return {
        "event_date": day,
        "feed_users": sum(feed),
        "messenger_users": sum(wrote > 0 for wrote in sent),
        "app_users": sum(active),
        "both_users": sum(reads and wrote > 0 for reads, wrote in zip(feed, sent, strict=True)),
        "views": views,
        "likes": likes,
        "ctr": likes / views if views else None,
        "messages_sent": sum(sent),
        "messages_received": received,
        "sent_per_received": sum(sent) / received if received else None,
    }
