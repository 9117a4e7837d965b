"""The sandbox publishes those days before yesterday that are missing, with the numbers of the source."""

import threading
from datetime import timedelta

import pytest
from pulse_sandbox import history
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App

from pulse import clickhouse, settings

VIEWS = """
-- Views by local day as the source has them, one row per day
select toString(toDate(time, {zone:String})) as day, countIf(action = 'view') as views
from history_app.feed_actions
group by day
order by day
"""


@pytest.mark.not_across("00:00", seconds=30)
@pytest.mark.prove
def test_days_are_published_where_they_are_missing(clickhouse_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_URL", clickhouse_server.url)
    monkeypatch.setenv("PULSE_DATABASE", "history")
    monkeypatch.setenv("PULSE_SOURCE_DATABASE", "history_app")
    config, db = settings.load(), clickhouse.connect()
    fill(clickhouse_server, App(config.zone, "history_app", events_per_day=2_000), days=4)
    days = [config.event_day("yesterday") - timedelta(days=back) for back in (3, 2, 1)]

    enough = threading.Event()
    enough.set()
    assert history.publish(3, enough) == []
    monkeypatch.setattr(enough, "is_set", iter([*[False] * 6, True]).__next__)  # in the middle of the second day
    assert history.publish(3, enough) == days[2:]
    assert db.read("select toString(event_date) as day from daily_metrics")["day"].tolist() == [str(days[2])]
    assert history.publish(3) == days[1::-1]  # the newest first, because people look at those most
    views = db.read(VIEWS, zone=config.timezone).set_index("day")["views"]
    published = db.read("select toString(event_date) as day, views from daily_metrics order by day")
    assert published.set_index("day")["views"].equals(views[:3])  # yesterday is left to the pipeline
    assert not db.value("select count() from system.tables where database = 'history' and position(name, '__') > 0")

    update = "alter table history.daily_metrics_loads update views = 1 where event_date = {day:Date}"
    db.execute(f"{update} settings mutations_sync = 1", day=days[0])
    db.execute(
        "alter table history.publications delete where event_date = {day:Date} settings mutations_sync = 1", day=days[1]
    )
    assert history.publish(3) == [days[1]]
    assert db.read("select views from daily_metrics order by event_date")["views"].tolist() == [1, *views[1:3]]
