"""Fixtures: fourteen published months, and a real Superset that reads them."""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest
from published import metrics_of, publish, slice_metrics_of, slices_of
from pulse_sandbox import clickhouse_stand_in, superset_server

from pulse import clickhouse, schema, settings

DAYS = 430
WITH_USERS = 200  # the day this many days back also has users
VALUES = {
    "os": ["iOS", "Android", "unknown"],
    "gender": ["female", "male", "unknown"],
    "age": [str(age) for age in range(14, 74)] + ["unknown"],
}
ADD_UP = ("views", "likes", "messages_sent")
COUNTED = ["views", "likes", "messages_received", "messages_sent", "users_received", "users_sent"]


@dataclass(frozen=True)
class Published:
    """The content of the target tables: rows by day, and rows by day, dimension and value."""

    server: clickhouse_stand_in.Server
    daily: pd.DataFrame
    slices: pd.DataFrame

    @property
    def day(self) -> date:
        """The last published day."""
        return self.daily.index.max().date()

    @property
    def db(self) -> clickhouse.ClickHouse:
        """The database with the tables, as the user who has all rights."""
        return clickhouse.ClickHouse(self.server.url, "pulse", settings.load().zone)


@pytest.fixture(scope="package")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """Fourteen months in a sandbox whose reader may read them; each day has numbers that no other day has."""
    chance = random.Random(1)  # noqa: S311
    last = settings.load().event_day("yesterday")
    daily: list[dict[str, Any]] = []
    slices: list[dict[str, Any]] = []
    for back in range(DAYS):
        day = str(last - timedelta(days=back))
        views, sent, received = chance.randint(10**5, 10**6), chance.randint(10**4, 10**5), chance.randint(10**4, 10**5)
        likes = chance.randint(0, views)
        users = {name: chance.randint(1000, 9999) for name in ("feed_users", "messenger_users", "app_users")}
        ratios = {"ctr": likes / views, "sent_per_received": sent / received}
        messages = {"messages_sent": sent, "messages_received": received}
        both = {"both_users": chance.randint(1, 999)}
        daily.append({"event_date": day, **users, **both, "views": views, "likes": likes, **messages, **ratios})
        for dimension, values in VALUES.items():
            parts = {name: _split(daily[-1][name], len(values), chance) for name in ADD_UP}
            for place, value in enumerate(values):
                counts = {name: parts[name][place] if name in parts else chance.randint(0, 9999) for name in COUNTED}
                counts["app_users"] = chance.randint(100, 999)
                slices.append({"event_date": day, "dimension": dimension, "dimension_value": value, **counts})
    # One day also has users, and its other numbers are computed from them.
    day = str(last - timedelta(days=WITH_USERS))
    users = [_user(day, number, chance) for number in range(2_000)]
    daily[WITH_USERS] = metrics_of(last - timedelta(days=WITH_USERS), users) | {"event_date": day}
    slices = [each for each in slices if each["event_date"] != day]
    of_users, metrics_of_users = slices_of(users, partners=7), slice_metrics_of(users)
    for row, metrics in zip(of_users, metrics_of_users, strict=True):
        slices.append({**row, "app_users": metrics["app_users"]})
    key = ("event_date", "dimension", "dimension_value")
    with clickhouse_stand_in.running(tmp_path_factory.mktemp("published") / "data") as server:
        found = Published(server, _by_day(daily), _by_day(slices))
        schema.ensure(found.db)
        publish(
            found.db,
            user_activity=users,
            dimension_activity=[{name: row[name] for name in (*key, *COUNTED)} for row in slices],
            dimension_metrics=[
                {name: row[name] for name in (*key, "app_users")} for row in slices if row["event_date"] != day
            ]
            + metrics_of_users,
            daily_metrics=daily,
        )
        yield found


@pytest.fixture(scope="package")
def superset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[superset_server.Server]:
    """A freshly set up Superset."""
    subprocess.run(["make", ".superset/.installed"], cwd=settings.ROOT, check=True, capture_output=True)
    with superset_server.running(tmp_path_factory.mktemp("superset")) as server:
        yield server


@pytest.fixture
def config(published: Published, superset: superset_server.Server) -> settings.Settings:
    """The settings for this ClickHouse and this Superset."""
    return settings.load(**environment(published, superset))


def environment(published: Published, superset: superset_server.Server) -> dict[str, str]:
    """The same settings as environment variables."""
    return {
        "CLICKHOUSE_URL": published.server.url,
        "CLICKHOUSE_READER_URL": published.server.reader_url,
        "PULSE_DATABASE": "pulse",
        "SUPERSET_URL": superset.url,
        "SUPERSET_USER": superset.user,
        "SUPERSET_PASSWORD": superset.password,
    }


def unpublish(db: clickhouse.ClickHouse, day: date) -> None:
    """Remove a day from what dashboards read."""
    db.execute(
        "alter table pulse.publications delete where event_date = {day:Date} settings mutations_sync = 1", day=day
    )


def _user(day: str, number: int, chance: random.Random) -> dict[str, Any]:
    """A user who reads the feed, writes messages, does both, or only receives messages."""
    reads, writes = chance.choice([(True, False), (True, True), (False, True), (False, False)])
    return {
        "event_date": day,
        "user_id": str(number),
        **{dimension: chance.choice(values) for dimension, values in VALUES.items()},
        "feed_active": reads,
        "views": chance.randint(0, 500) if reads else 0,
        "likes": chance.randint(0, 99) if reads else 0,
        "messages_sent": chance.randint(1, 50) if writes else 0,
        "messages_received": chance.randint(0, 40) if writes or reads else 3,
    }


def _split(total: int, parts: int, chance: random.Random) -> list[int]:
    """Split a total into random numbers that add up to it."""
    cuts = sorted(chance.randint(0, total) for _ in range(parts - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


def _by_day(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.assign(event_date=pd.to_datetime(frame["event_date"])).set_index("event_date").sort_index()
