"""The published tables, computed from the raw rows with pandas alone, as `spec.md` defines each number.

The code is written to be read, not for speed. It uses neither ClickHouse nor the notebooks.

The raw rows: `feed` has user_id, action, time, os, gender, age; `messages` has user_id (the sender), receiver_id, time,
and the sender's os, gender, age. Both may also have country, city, source and exp_group; where they do not, there are
no slices of it, and users are unknown in it. Times have a time zone.
"""

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

ATTRIBUTES = ["os", "gender", "age", "country", "city", "source", "exp_group"]
COUNTS = ["views", "likes", "messages_received", "messages_sent"]
PARTNERS = ["users_received", "users_sent"]


def expected_user_activity(
    feed: pd.DataFrame,
    messages: pd.DataFrame,
    day: date,
    zone: ZoneInfo,
    lookback_days: int = 30,
) -> pd.DataFrame:
    """Return one row per user who acted or received a message that day.

    Raises:
        ValueError: a user's latest two actions are at the same moment and differ in attributes; the specification
            does not say which of the two counts.
    """
    feed, messages = _with_local_day(feed, zone), _with_local_day(messages, zone)
    seen, sent = _on(feed, day), _on(messages, day)
    received = sent.assign(user_id=sent["receiver_id"], partner=sent["user_id"])
    users = sorted({*seen["user_id"], *sent["user_id"], *received["user_id"]})

    counts = {
        "views": seen[seen["action"] == "view"].groupby("user_id").size(),
        "likes": seen[seen["action"] == "like"].groupby("user_id").size(),
        "messages_received": received.groupby("user_id").size(),
        "messages_sent": sent.groupby("user_id").size(),
        "users_received": received.groupby("user_id")["partner"].nunique(),
        "users_sent": sent.groupby("user_id")["receiver_id"].nunique(),
    }
    activity = pd.DataFrame(counts, index=pd.Index(users, name="user_id")).fillna(0).astype("uint64")

    that_day = _latest_attributes([seen, sent])
    window = pd.Timestamp(day) - pd.Timedelta(days=lookback_days)
    earlier = [rows[(rows["day"] >= window) & (rows["day"] < pd.Timestamp(day))] for rows in (feed, messages)]
    passive = activity.index.difference(that_day.index)
    before = _latest_attributes([rows[rows["user_id"].isin(passive)] for rows in earlier])
    attributes = pd.concat([that_day, before]).reindex(activity.index)

    for position, attribute in enumerate(ATTRIBUTES):
        named = [_name(value) for value in attributes[attribute]] if attribute in attributes else "unknown"
        activity.insert(position, attribute, named)
    activity["age"] = activity["age"].replace("0", "unknown")
    activity["feed_active"] = activity.index.isin(seen["user_id"])
    activity = activity.reset_index()
    activity.insert(0, "event_date", pd.Timestamp(day))
    return activity


def expected_dimension_activity(
    feed: pd.DataFrame,
    messages: pd.DataFrame,
    day: date,
    zone: ZoneInfo,
    lookback_days: int = 30,
) -> pd.DataFrame:
    """Return one row per dimension and value, sorted by both; a partner counts once within a slice."""
    users = expected_user_activity(feed, messages, day, zone, lookback_days)
    sent = _on(_with_local_day(messages, zone), day)
    dimensions = []
    for dimension in _present(feed):
        value_of = users.set_index("user_id")[dimension]
        slices = users.groupby(dimension)[COUNTS].sum()
        slices["users_received"] = sent["user_id"].groupby(sent["receiver_id"].map(value_of)).nunique()
        slices["users_sent"] = sent["receiver_id"].groupby(sent["user_id"].map(value_of)).nunique()
        slices = slices.rename_axis("dimension_value").reset_index()
        slices.insert(0, "dimension", dimension)
        dimensions.append(slices)
    activity = pd.concat(dimensions).fillna(0).astype(dict.fromkeys(COUNTS + PARTNERS, "uint64"))
    activity.insert(0, "event_date", pd.Timestamp(day))
    return activity.sort_values(["dimension", "dimension_value"], ignore_index=True)


def expected_dimension_metrics(
    feed: pd.DataFrame,
    messages: pd.DataFrame,
    day: date,
    zone: ZoneInfo,
    lookback_days: int = 30,
) -> pd.DataFrame:
    """Return one row per dimension and value, sorted by both: the day's metrics of the slice's users.

    A message counts as sent in its sender's slice, and as received, if its receiver was active, in the receiver's.
    """
    users = expected_user_activity(feed, messages, day, zone, lookback_days)
    seen, sent = _on(_with_local_day(feed, zone), day), _on(_with_local_day(messages, zone), day)
    readers, writers = set(seen["user_id"]), set(sent["user_id"])
    rows = []
    for dimension in _present(feed):
        value_of = users.set_index("user_id")[dimension]
        for value, group in value_of.groupby(value_of):
            here = set(group.index)
            views, likes = (
                int((seen["user_id"].isin(here) & (seen["action"] == action)).sum()) for action in ("view", "like")
            )
            wrote = int(sent["user_id"].isin(here).sum())
            received = int(sent["receiver_id"].isin(here & (readers | writers)).sum())
            rows.append(
                {
                    "event_date": pd.Timestamp(day),
                    "dimension": dimension,
                    "dimension_value": value,
                    "feed_users": len(here & readers),
                    "messenger_users": len(here & writers),
                    "app_users": len(here & (readers | writers)),
                    "both_users": len(here & readers & writers),
                    "views": views,
                    "likes": likes,
                    "ctr": likes / views if views else float("nan"),
                    "messages_sent": wrote,
                    "messages_received": received,
                    "sent_per_received": wrote / received if received else float("nan"),
                }
            )
    return pd.DataFrame(rows).sort_values(["dimension", "dimension_value"], ignore_index=True)


def expected_daily_metrics(
    feed: pd.DataFrame,
    messages: pd.DataFrame,
    day: date,
    zone: ZoneInfo,
    lookback_days: int = 30,
) -> pd.DataFrame:
    """Return one row. `lookback_days` makes no difference, because the report's numbers do not use attributes."""
    seen, sent = _on(_with_local_day(feed, zone), day), _on(_with_local_day(messages, zone), day)
    readers, writers = set(seen["user_id"]), set(sent["user_id"])
    views, likes = (seen["action"] == "view").sum(), (seen["action"] == "like").sum()
    received = sent["receiver_id"].isin(readers | writers).sum()
    metrics = {
        "event_date": pd.Timestamp(day),
        "feed_users": len(readers),
        "messenger_users": len(writers),
        "app_users": len(readers | writers),
        "both_users": len(readers & writers),
        "views": views,
        "likes": likes,
        "ctr": likes / views if views else float("nan"),
        "messages_sent": len(sent),
        "messages_received": received,
        "sent_per_received": len(sent) / received if received else float("nan"),
    }
    return pd.DataFrame([metrics])


def _with_local_day(rows: pd.DataFrame, zone: ZoneInfo) -> pd.DataFrame:
    """Return the rows that have ids and a time, each with its local date."""
    rows = rows.dropna(subset=[column for column in ("user_id", "receiver_id", "time") if column in rows])
    ids = {column: "str" for column in ("user_id", "receiver_id") if column in rows}
    return rows.astype(ids).assign(day=rows["time"].dt.tz_convert(zone).dt.tz_localize(None).dt.normalize())


def _on(rows: pd.DataFrame, day: date) -> pd.DataFrame:
    return rows[rows["day"] == pd.Timestamp(day)]


def _latest_attributes(sources: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the attributes of each user's latest action in any of the sources, by user."""
    attributes = _present(sources[0])
    actions = pd.concat(
        [rows[["user_id", "time", *attributes]].astype(dict.fromkeys(attributes, object)) for rows in sources]
    )
    latest = actions[actions["time"] == actions.groupby("user_id")["time"].transform("max")]
    latest = latest.drop_duplicates(["user_id", *attributes]).set_index("user_id")
    if not latest.index.is_unique:
        users = latest.index[latest.index.duplicated()].tolist()
        raise ValueError(
            f"Users {users} have two latest actions that differ in attributes; give their rows other times."
        )
    return latest[attributes]


def _present(rows: pd.DataFrame) -> list[str]:
    return [attribute for attribute in ATTRIBUTES if attribute in rows]


def _name(value: Any) -> str:
    """Return an attribute as the tables spell it."""
    return "unknown" if pd.isna(value) or value == "" else str(value)
