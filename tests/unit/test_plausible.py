"""Quiet weeks are never held; a day that lost data, or has it twice, always is."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from generated_days import FAULTS, App, Day, loaded_twice, os_lost, rows_lost, users_lost

from pulse.metrics import FEED, MESSAGES
from pulse.publishing import plausible
from pulse.publishing.plausible import Finding, Profile, judge

JUDGED = 8
"""How many weeks are judged with four weeks of history or more."""

# The users of the feed on a usual day; an office app has a third of them on weekends.
APPS = [(seed, users, shape) for seed in range(4) for users, shape in ((300, "evenings"), (1_000, "office"))]
MANY = [(seed, users, shape) for seed in range(100, 130) for users, shape in ((300, "evenings"), (1_000, "office"))]


def weeks(seed: int, users: int, shape: str) -> Iterator[tuple[int, Day, list[Profile]]]:
    """Yield each day of twelve quiet weeks with the number of its week and the profiles of the same weekdays before."""
    profiles: dict[date, Profile] = {}
    app = App(seed, users, shape)
    for number, event_date in enumerate(app.days):
        day = app.day(event_date)
        profiles[event_date] = day.profile
        before = [event_date - timedelta(weeks=back) for back in range(1, plausible.WEEKS + 1)]
        yield number // 7, day, [profiles[each] for each in before if each in profiles]


def check(seed: int, users: int, shape: str) -> None:
    dice = np.random.default_rng(seed)
    held, missed = [], []
    for week, day, before in weeks(seed, users, shape):
        if found := judge(day.profile, before):
            held.append((day.event_date, found))
        if week >= 12 - JUDGED:
            missed += [
                (day.event_date, fault.__name__) for fault in FAULTS if not judge(fault(day, dice).profile, before)
            ]
    assert held == []
    assert missed == []


@pytest.mark.parametrize(("seed", "users", "shape"), APPS)
def test_quiet_weeks_are_not_held_and_every_fault_is_on_every_day(seed: int, users: int, shape: str) -> None:
    """Growth, weekdays, ends of months, holidays with 40 % less and with 30 % more."""
    check(seed, users, shape)


@pytest.mark.prove
@pytest.mark.parametrize(("seed", "users", "shape"), MANY + [(seed, 20_000, "evenings") for seed in range(2)])
def test_many_quiet_weeks_are_not_held_and_nearly_every_fault_is(seed: int, users: int, shape: str) -> None:
    check(seed, users, shape)


def test_from_the_second_week_on_most_faults_are_found() -> None:
    """With one week to compare with, a loss of users can pass for a holiday; what explains itself is found."""
    for _, day, before in weeks(1, 1_000, "evenings"):
        if len(before) == 1:
            for fault in (rows_lost, os_lost, loaded_twice):
                assert judge(fault(day, np.random.default_rng(1)).profile, before), (day.event_date, fault)


# --- one rule after the other -----------------------------------------------------------------------------------------

DAY = date(2026, 11, 26)
METRICS = {
    "app_users": 1_000.0,
    "both_users": 200.0,
    "feed_users": 900.0,
    "views": 9_000.0,
    "likes": 1_800.0,
    "ctr": 0.2,
    "messenger_users": 300.0,
    "messages_sent": 1_200.0,
    "messages_received": 800.0,
    "sent_per_received": 1.5,
}
USUAL = Profile(
    DAY,
    METRICS,
    {FEED: [450] * 24, MESSAGES: [50] * 24},
    {FEED: 450, MESSAGES: 150},
    {(FEED, "os"): {"Android": 600, "iOS": 290, "unknown": 10}},
)
BEFORE = [replace(USUAL, event_date=DAY - timedelta(weeks=back)) for back in range(1, 9)]


def kinds(day: Profile, before: list[Profile] = BEFORE) -> list[tuple[str, str]]:
    return [(each.kind, each.what) for each in judge(day, before)]


def with_metrics(**changed: float) -> Profile:
    return replace(USUAL, metrics={**METRICS, **changed})


def with_os(**users: int) -> Profile:
    return replace(USUAL, slices={(FEED, "os"): users})


def test_a_day_like_those_before_is_plausible_and_so_is_one_without_history() -> None:
    assert judge(USUAL, BEFORE) == []
    nothing = replace(USUAL, metrics={}, hours={FEED: [0] * 24, MESSAGES: [0] * 24}, odd={}, slices={})
    assert judge(with_metrics(views=1.0), []) == []
    assert judge(with_metrics(views=1.0), [replace(nothing, event_date=each.event_date) for each in BEFORE]) == []


@pytest.mark.parametrize(
    ("views", "held"), [(3_600, True), (5_400, False), (9_000, False), (11_700, False), (25_000, True)]
)
def test_a_count_may_be_a_good_half_or_twice_the_usual(views: int, held: bool) -> None:
    assert (("metric", "views") in kinds(with_metrics(views=views))) == held


def test_a_value_is_gone_or_new_where_twenty_users_were_expected() -> None:
    assert kinds(with_os(Android=600, unknown=10)) == [("gone", "os iOS")]
    assert kinds(with_os(Android=600, iOS=5, unknown=10)) == [("gone", "os iOS")]
    assert kinds(with_os(Android=600, ios=290, unknown=10)) == [("gone", "os iOS"), ("new", "os ios")]
    assert kinds(with_os(Android=600, unknown=300)) == [("gone", "os iOS"), ("unknown", "os")]
    few = [
        replace(each, slices={(FEED, "os"): {"Android": 880, "Symbian": 9, "unknown": 11}}) for each in BEFORE
    ]  # one percent of the users: not told from chance
    assert kinds(with_os(Android=890, unknown=10), few) == []


def test_hours_without_rows_are_found_but_not_where_there_are_few_anyway() -> None:
    def hours(day: Profile, missing: set[int], rows: int = 450) -> Profile:
        return replace(day, hours={**day.hours, FEED: [0 if hour in missing else rows for hour in range(24)]})

    # 450 rows are those of 37.5 users: a single such hour may be empty by chance, two in a row may not.
    assert kinds(hours(USUAL, {3})) == []
    (found,) = judge(hours(USUAL, {3, 4}), BEFORE)
    assert (found.kind, found.what, found.hours, found.low) == ("hours", FEED, (3, 4), 900)
    short = replace(USUAL, hours={FEED: [470] * 23, MESSAGES: [52] * 23})  # clocks went forward
    assert kinds(short) == []


def test_rows_that_are_there_twice_are_found_even_on_a_holiday() -> None:
    half = {name: value if name in ("ctr", "sent_per_received") else 0.55 * value for name, value in METRICS.items()}
    holiday = replace(USUAL, metrics=half, hours={FEED: [250] * 24, MESSAGES: [28] * 24}, odd={FEED: 250, MESSAGES: 80})
    assert kinds(holiday) == []
    assert ("twice", FEED) in kinds(replace(holiday, odd={FEED: 0, MESSAGES: 80}))


def test_on_a_holiday_fewer_messages_are_received_than_by_chance() -> None:
    """With 60 % of the users, 36 % of the messages reach somebody who is there: nobody wrote differently."""
    scaled = {
        **{name: 0.6 * value for name, value in METRICS.items()},
        "ctr": 0.2,
        "messages_received": 0.36 * METRICS["messages_received"],
        "sent_per_received": METRICS["sent_per_received"] / 0.6,
    }
    hours = {FEED: [270] * 24, MESSAGES: [30] * 24}
    holiday = replace(USUAL, metrics=scaled, hours=hours, odd={FEED: 270, MESSAGES: 90})
    assert kinds(holiday) == []
    assert kinds(with_metrics(messages_received=80, sent_per_received=15.0)) == [("metric", "sent_per_received")]


def test_of_two_days_the_later_is_no_history_if_it_was_held_itself() -> None:
    bad = replace(BEFORE[0], metrics={name: 0.2 * value for name, value in METRICS.items()})
    again = replace(bad, event_date=DAY)
    assert plausible.compared(again, [bad, BEFORE[1]]) == [BEFORE[1]]
    assert judge(again, [bad, BEFORE[1]])
    assert plausible.compared(again, [bad, BEFORE[1]], [bad.event_date]) == [bad, BEFORE[1]]


def test_a_release_covers_the_same_but_not_much_more_and_not_the_opposite() -> None:
    held = Finding("metric", "views", 3_000, 8_000, 10_000)
    assert held.covers(replace(held, found=2_700))
    assert held.covers(replace(held, found=4_000))
    assert not held.covers(replace(held, found=1_500))
    assert not held.covers(replace(held, found=30_000))
    assert not held.covers(replace(held, what="likes"))
    hours = Finding("hours", FEED, 0, 900, 900, hours=(3, 4))
    assert hours.covers(replace(hours, hours=(4,)))
    assert not hours.covers(replace(hours, hours=(3, 4, 5)))


def test_a_finding_survives_json_and_is_said_in_both_languages() -> None:
    day = with_metrics(views=3_000.0, ctr=0.6)
    assert [Finding.of(each.record) for each in judge(day, BEFORE)] == judge(day, BEFORE)
    views = Finding("metric", "views", 1_234, 3_900, 5_200)
    assert views.line("en") == "views: 1,234, expected 3,900–5,200"
    assert (
        views.line("ru") == "просмотры: 1\N{NO-BREAK SPACE}234, ожидалось 3\N{NO-BREAK SPACE}900–5\N{NO-BREAK SPACE}200"
    )
    gone = Finding("gone", "os iOS", 0, 4_213, 4_213, FEED)
    assert gone.line("en") == "os iOS in feed_actions: 0 users, expected about 4,213"
    assert Finding("hours", FEED, 0, 900, 900, hours=(3, 4)).line("en") == (
        "feed_actions: no rows in hours 3–4 of the day, expected 900"
    )
    assert plausible.lines([views] * 7, "ru")[-1] == "и ещё 2"


def test_the_generated_faults_are_what_they_are_called() -> None:
    app = App(3, 1_000)
    day = app.day(app.days[2])
    dice = np.random.default_rng(0)
    rows = day.profile.rows(FEED)
    assert 0.27 < rows_lost(day, dice).profile.rows(FEED) / rows < 0.33
    assert 0.25 < users_lost(day, dice).profile.users(FEED) / day.profile.users(FEED) < 0.35
    assert loaded_twice(day, dice).profile.rows(FEED) == 2 * rows
    assert loaded_twice(day, dice).profile.users(FEED) == day.profile.users(FEED)
    assert "iOS" in day.profile.slices[FEED, "os"]
    assert "iOS" not in os_lost(day, dice).profile.slices[FEED, "os"]
