"""A day that is far from the same weekdays before is held until somebody releases it; a quiet day never is.

The app is the sandbox's, whose days differ by weekday, grow and scatter. Faults are planted in its rows.
"""

import os
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import permutations
from unittest.mock import patch

import pytest
from pulse_sandbox.clickhouse_stand_in import Server
from pulse_sandbox.events import fill
from pulse_sandbox.events_app import App

from notebooks.etl import Etl
from pulse import schema, settings
from pulse.execution.errors import CheckError
from pulse.publishing import holds, plausible, profiles
from pulse.publishing.holds import HeldError

DAY = date(2025, 3, 12)  # a Wednesday
DAYS = 36
EVENTS = 20_000  # about 400 active users a day

FAULTS = {  # what a day's rows become
    "rows": "cityHash64(user_id, time) % 10 < 3",
    "os": "os is null or os != 'iOS'",
    "twice": "true",
    "end": "toHour(time, 'Europe/Moscow') < 13",
}
OF_DAY = "toDate(time, 'Europe/Moscow') = {day:Date}"


@pytest.fixture
def app(clickhouse_server: Server) -> Iterator[Etl]:
    """The sandbox's app over five weeks up to `DAY`, and a project without a published day."""
    with Etl.fresh(clickhouse_server, DAY) as etl, patch.dict(os.environ, etl.environment):
        made = App(etl.zone, etl.source.database, events_per_day=EVENTS)
        fill(clickhouse_server, made, until=DAY + timedelta(days=1), days=DAYS)
        yield etl


def plant(etl: Etl, fault: str, day: date = DAY) -> None:
    """Change the source's rows of a day."""
    for table in ("feed_actions", "message_actions"):
        etl.source.execute(f"create or replace table planted as {table}")
        for condition in ["true", "true"] if fault == "twice" else [FAULTS[fault]]:
            rows = f"select * from {{table:Identifier}} where {OF_DAY} and ({condition})"  # noqa: S608 (our own)
            etl.source.execute(f"insert into planted {rows}", table=table, day=day)
        etl.source.replace_partition(table, [day], "planted")


def is_published(etl: Etl, day: date = DAY) -> bool:
    return bool(etl.db.value("select count() from daily_metrics where event_date = {day:Date}", day=day))


def test_a_profile_is_the_same_from_the_staging_tables_and_from_the_source(app: Etl) -> None:
    config = settings.load()
    for day in (DAY, DAY - timedelta(days=3)):
        app.run(day)
        (kept,) = profiles._kept(app.db, config, [day])
        assert kept == profiles.of_source(app.db, config, day)
        assert sum(kept.hours["feed_actions"]) == app.source.value(
            f"select count() from feed_actions where {OF_DAY}",  # noqa: S608
            day=day,
        )
        assert kept.metrics == {
            name: value for name, value in app.metrics(day).items() if name != "event_date" and value is not None
        }


def test_a_day_with_a_fault_is_held_and_readers_see_nothing_of_it(app: Etl) -> None:
    for number, fault in enumerate(FAULTS):
        day = DAY - timedelta(days=number)
        plant(app, fault, day)
        with pytest.raises(CheckError, match=rf"^{day} is held, not published, because .*`pulse release {day}`"):
            app.run(day)
        assert not is_published(app, day)
    told = {str(hold.event_date): str(hold) for hold in holds.held(app.db)}
    assert list(told) == [str(DAY - timedelta(days=number)) for number in (3, 2, 1, 0)]
    assert "views: " in told[str(DAY)]
    assert "os iOS in feed_actions: 0 users, expected about " in told[str(DAY - timedelta(days=1))]
    assert "feed_actions looks as if loaded twice: 0.0% of its users have an odd" in told[str(DAY - timedelta(days=2))]
    assert "feed_actions: no rows in hours 13–23 of the day" in told[str(DAY - timedelta(days=3))]


def test_a_release_publishes_what_was_held_and_nothing_else(app: Etl) -> None:
    app.run()
    before = app.everything()
    plant(app, "os")
    with pytest.raises(CheckError, match="os iOS"):
        app.run()
    assert app.everything().equals(before)  # of a day that was published, readers still see that
    with pytest.raises(HeldError, match=r"is not held; `pulse release` lists"):
        holds.release(app.db, DAY - timedelta(days=1), by="anna", because="")
    holds.release(app.db, DAY, by="anna", because="iOS was out of the shop")
    assert holds.held(app.db) == []
    app.run(steps=["load"])  # the load that was held goes on
    assert not app.everything().equals(before)
    app.run()  # and so does the day when it is computed again
    with pytest.raises(HeldError, match=r"was released already; `pulse release` lists"):
        holds.release(app.db, DAY, by="boris", because="")

    plant(app, "rows")  # the source has changed: something else is wrong now
    with pytest.raises(CheckError, match="is held"):
        app.run()
    assert [hold.event_date for hold in holds.held(app.db)] == [DAY]


def test_a_hold_ends_when_the_source_is_repaired(app: Etl) -> None:
    plant(app, "twice")
    with pytest.raises(CheckError, match="is held"):
        app.run()
    other = App(app.zone, app.source.database, seed=2, events_per_day=EVENTS)
    fill(app.server, other, until=DAY + timedelta(days=1), days=1)
    app.run()
    assert is_published(app)
    assert holds.held(app.db) == []
    last = holds.last(app.db, DAY)
    assert last is not None
    assert last.state == "lifted"


def test_from_now_on_covers_the_following_days_and_a_release_alone_does_not(app: Etl) -> None:
    following = DAY - timedelta(days=1), DAY
    for day in (DAY - timedelta(days=2), *following):
        plant(app, "os", day)
        with pytest.raises(CheckError, match="is held"):
            app.run(day)
    first = DAY - timedelta(days=2)
    holds.release(app.db, first, by="anna", because="")
    with pytest.raises(CheckError, match="is held"):
        app.run(following[0])
    holds.release(app.db, following[0], by="anna", because="iOS is discontinued", from_now_on=True)
    app.run(DAY)
    assert is_published(app)


@pytest.mark.parametrize(
    "orders",
    [[(0, 1, 2, 3, 4), (3, 0, 4, 2, 1)], pytest.param([*permutations(range(5))][::12], marks=pytest.mark.prove)],
)
def test_the_order_in_which_days_are_computed_does_not_matter(app: Etl, orders: list[tuple[int, ...]]) -> None:
    days = [DAY - timedelta(days=back) for back in (0, 1, 7, 8, 14)]
    plant(app, "rows", days[2])
    plant(app, "os", days[3])
    verdicts = []
    schema.ensure(app.db)
    for order in orders:
        for table in ("day_profiles", "day_holds"):
            app.db.execute(f"truncate table {table}")
        for place in order:
            try:
                app.run(days[place])
            except CheckError as error:
                assert "is held" in str(error)  # noqa: PT017
        verdicts.append([(hold.event_date, hold.findings) for hold in holds.held(app.db)])
    assert [day for day, _ in verdicts[0]] == [days[3], days[2]]
    assert all(each == verdicts[0] for each in verdicts)


def test_a_source_without_history_is_published_and_says_so(etl: Etl, capsys: pytest.CaptureFixture[str]) -> None:
    with patch.dict(os.environ, etl.environment):
        etl.feed(*[(user, "view", "10:00", "iOS", "female", 25) for user in range(500)])
        etl.messages((1, 2, "10:00", "iOS", "female", 25))
        etl.run()
        assert is_published(etl)
        (profile,) = profiles._kept(etl.db, settings.load(), [DAY])
        verdict = holds.judge(etl.db, settings.load(), profile, load="a load", run="a run")
        assert str(verdict).startswith("there is no history yet")
        assert verdict.compared == []


@pytest.mark.prove
@pytest.mark.parametrize(("seed", "events"), [(1, 300_000), (1, 20_000), (2, 20_000), (3, 5_000)])
def test_no_day_of_the_sandbox_is_held(clickhouse_server: Server, seed: int, events: int) -> None:
    with Etl.fresh(clickhouse_server, DAY) as etl, patch.dict(os.environ, etl.environment):
        made = App(etl.zone, etl.source.database, seed=seed, events_per_day=events)
        fill(clickhouse_server, made, until=DAY + timedelta(days=1), days=60)
        schema.ensure(etl.db, etl.reads)
        config = settings.load()
        days = [DAY - timedelta(days=back) for back in range(60)]
        found = {day: profiles.of_source(etl.db, config, day) for day in days}
        held = {day: plausible.judge(found[day], profiles.before(etl.db, config, day)) for day in days}
        assert {day: findings for day, findings in held.items() if findings} == {}
