"""Incidents: which anomalies are one incident, when it opens and ends, what explains it and what the alerts say."""

import hashlib
import itertools
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulse.delivery.markup import MAX_CAPTION, length
from pulse.metrics import BUCKET
from pulse.monitoring import charts
from pulse.monitoring.alerts import alerts
from pulse.monitoring.explanation import Contribution, explain
from pulse.monitoring.history import known_until
from pulse.monitoring.incidents import Anomaly, Direction, Incident, Tick, fold
from pulse.monitoring.rows import adopt, carried, changed_rows, from_row, incident_rows
from pulse.monitoring.series import TOTAL, Series
from pulse.monitoring.texts import explanation_line, incident_text
from pulse.monitoring.watch import Watch, WatchError, load_watch
from pulse.settings import ROOT, Language

FILE = ROOT / "notebooks" / "monitoring" / "watch.toml"
NOON = datetime(2025, 3, 12, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return load_watch(FILE)


def at(number: int) -> datetime:
    """Return the first moment of a bucket; buckets are counted from noon."""
    return NOON + number * BUCKET


def anomaly(name: str, value: float = 40.0, expected: float = 100.0, score: float = 9.0) -> Anomaly:
    """Return an anomaly of a metric, or of `metric, dimension: value`."""
    signed = score if value > expected else -score
    direction: Direction = "spike" if value > expected else "drop"
    off = value / expected - 1
    return Anomaly(
        Series.parse(name), direction, value, expected, 0.9 * expected, 1.1 * expected, signed, off, window=1
    )


def incidents_of(watch: Watch, *ticks: tuple[str, ...] | None, start: int = 0) -> list[Incident]:
    """Return the incidents of consecutive buckets: each has its anomalies' names, or None if its data was late."""
    return fold(ticks_of(*ticks, start=start), watch)


def ticks_of(*ticks: tuple[str, ...] | None, start: int = 0) -> list[Tick]:
    return [
        Tick(at(start + position), names is None, tuple(anomaly(name) for name in names or ()), names is not None)
        for position, names in enumerate(ticks)
    ]


def spans(incidents: list[Incident]) -> list[tuple[str, float, float | None]]:
    """Return the direction of each incident, and its opening and end in buckets from noon."""
    return [
        (
            each.direction,
            (each.opened - NOON) / BUCKET,
            None if each.resolved is None else (each.resolved - NOON) / BUCKET,
        )
        for each in incidents
    ]


def test_an_incident_opens_with_its_first_bucket_and_ends_after_two_quiet_ones(watch: Watch) -> None:
    assert spans(incidents_of(watch, (), ("views",), ("views",), ())) == [("drop", 1, None)]
    (over,) = incidents_of(watch, (), ("views",), ("views",), (), ())
    assert spans([over]) == [("drop", 1, 3)]
    assert (over.state, over.updated) == ("resolved", at(2))


def test_one_quiet_bucket_does_not_end_an_incident(watch: Watch) -> None:
    assert spans(incidents_of(watch, ("views",), (), ("views",), (), ())) == [("drop", 0, 3)]


def test_an_anomaly_that_is_back_soon_is_the_same_incident_and_later_a_new_one(watch: Watch) -> None:
    quiet = [()] * 4
    soon = incidents_of(watch, ("views",), *quiet, ("views",))
    assert spans(soon) == [("drop", 0, None)]
    late = incidents_of(watch, ("views",), *quiet, *quiet, *quiet, ("views",))
    assert [each[1] for each in spans(late)] == [0, 13]
    assert late[0].ref != late[1].ref


@pytest.mark.parametrize(("bucket", "incidents"), [(8, 1), (9, 2)])
def test_an_incident_reopens_before_two_hours_have_passed_and_not_after(
    watch: Watch, bucket: int, incidents: int
) -> None:
    """The first drop ends with bucket 1; two hours later is bucket 9."""
    quiet = [()] * (bucket - 1)
    assert len(incidents_of(watch, ("views",), *quiet, ("views",))) == incidents


@pytest.mark.parametrize(("bucket", "references"), [(8, 1), (9, 0)])
def test_a_resolved_incident_is_carried_over_for_less_than_two_hours(
    watch: Watch, bucket: int, references: int
) -> None:
    stored = pd.DataFrame(incident_rows(incidents_of(watch, ("views",), (), ()), {}))
    assert len(carried(stored, at(bucket), watch)) == references


def test_the_app_as_a_whole_does_not_join_the_incidents_of_two_parts(watch: Watch) -> None:
    """Active users of the app drop with the feed, and in the next bucket with the messenger."""
    two = incidents_of(watch, ("views", "app_users"), ("messages_sent", "app_users"))
    assert [{series.metric for series in each.series} for each in two] == [
        {"views", "app_users"},
        {"messages_sent", "app_users"},
    ]


def test_active_users_of_the_app_do_not_join_two_parts_that_differ_in_slice(watch: Watch) -> None:
    names = ("views", "messages_sent, os: iOS", "app_users", "app_users, os: iOS")
    assert len(incidents_of(watch, names)) == 2


def test_active_users_of_the_app_alone_are_one_incident(watch: Watch) -> None:
    assert spans(incidents_of(watch, ("app_users",), ("app_users",), (), ())) == [("drop", 0, 2)]


def test_active_users_of_the_app_join_the_part_that_moves_the_same_way(watch: Watch) -> None:
    up, down = (anomaly("messages_sent", 300), anomaly("app_users", 300)), anomaly("views")
    spike, drop = sorted(fold([Tick(at(0), False, (down, *up))], watch), key=lambda each: each.direction, reverse=True)
    assert {series.metric for series in spike.series} == {"messages_sent", "app_users"}
    assert {series.metric for series in drop.series} == {"views"}


def test_a_share_joins_the_incident_of_its_own_slice_and_no_other(watch: Watch) -> None:
    """CTR is likes per view: it follows the views of its slice or of the whole app, but not those of another slice."""
    assert len(incidents_of(watch, ("views, os: iOS", "ctr, os: iOS"))) == 1
    assert len(incidents_of(watch, ("views", "ctr, os: iOS"))) == 1
    opposite = Tick(at(0), False, (anomaly("views, os: Android"), anomaly("ctr, os: iOS", 0.5, 0.2)))
    assert sorted(each.direction for each in fold([opposite], watch)) == ["drop", "spike"]


def test_shares_that_move_opposite_ways_are_two_incidents(watch: Watch) -> None:
    tick = Tick(at(0), False, (anomaly("ctr, os: iOS", 0.5, 0.2), anomaly("ctr, os: Android", 0.1, 0.2)))
    assert sorted(each.direction for each in fold([tick], watch)) == ["drop", "spike"]


def test_a_slice_that_is_furthest_off_leads_if_the_whole_app_is_normal(watch: Watch) -> None:
    slices = (anomaly("views, os: iOS", score=5), anomaly("views, os: Android", score=8))
    (one,) = fold([Tick(at(0), False, slices)], watch)
    assert one.lead is not None
    assert str(one.lead.series) == "views, os: Android"


def test_a_tick_of_which_nothing_is_known_does_not_end_an_incident(watch: Watch) -> None:
    unknown = [Tick(at(number), known=False) for number in range(1, 5)]
    (one,) = fold([*ticks_of(("views",)), *unknown], watch)
    assert (one.state, one.quiet) == ("open", 0)


def test_the_reference_of_an_incident_stays_the_same_between_versions(watch: Watch) -> None:
    """Stored incidents and messages are found by it. It is 8 hex digits of a hash of moment, direction and parts."""
    views, both = (incidents_of(watch, names)[0] for names in (("views", "app_users"), ("views", "messages_sent")))
    assert views.ref == hashlib.sha256(b"1741780800 drop feed").hexdigest()[:8]
    assert both.ref == hashlib.sha256(b"1741780800 drop feed messenger").hexdigest()[:8]


def test_an_incident_gains_and_loses_series(watch: Watch) -> None:
    (one,) = incidents_of(watch, ("views, os: iOS",), ("views", "likes", "views, os: iOS"), ("likes",))
    assert [str(series) for series in one.series] == ["views, os: iOS", "views", "likes"]
    assert [str(series) for series in one.showing] == ["likes"]
    assert one.lead is not None
    assert str(one.lead.series) == "likes"


def test_the_whole_app_leads_before_slices_and_keeps_the_lead_while_it_shows(watch: Watch) -> None:
    ticks = [
        Tick(at(0), False, (anomaly("views, os: iOS", score=50), anomaly("views", score=8), anomaly("likes", score=7))),
        Tick(at(1), False, (anomaly("views", score=6), anomaly("likes", score=20))),
    ]
    (one,) = fold(ticks, watch)
    assert one.lead is not None
    assert str(one.lead.series) == "views"
    assert one.lead.score == -6


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("views", "likes", "feed_users", "app_users"), 1),  # one part, and the app with it
        (("views", "messages_sent"), 1),  # the whole app at once
        (("views, os: iOS", "messages_sent, os: iOS"), 1),  # one slice of both parts
        (("views, os: iOS", "messages_sent, gender: male"), 2),  # nothing in common
        (("views, os: iOS", "likes, gender: male", "ctr, os: iOS"), 1),
        # The app as a whole joins another part's incident, but does not connect two of them.
        (("app_users, os: iOS", "app_users, gender: male", "views, os: iOS", "messages_sent, gender: male"), 2),
        (("ctr",), 1),
    ],
)
def test_anomalies_the_same_way_in_one_part_or_slice_are_one_incident(
    watch: Watch, names: tuple[str, ...], count: int
) -> None:
    assert len(incidents_of(watch, names, names)) == count


def test_opposite_directions_are_two_incidents_unless_one_is_a_share_of_the_other(watch: Watch) -> None:
    apart = fold([Tick(at(0), False, (anomaly("views"), anomaly("messages_sent", value=300)))], watch)
    assert sorted(each.direction for each in apart) == ["drop", "spike"]
    together = fold([Tick(at(0), False, (anomaly("views"), anomaly("ctr", value=0.5, expected=0.2)))], watch)
    assert [each.direction for each in together] == ["drop"]
    after = fold([Tick(at(0), False, (anomaly("views"),)), Tick(at(1), False, (anomaly("ctr", 0.5, 0.2),))], watch)
    assert spans(after) == [("drop", 0, None)]


def test_late_data_is_a_separate_incident_and_does_not_end_others(watch: Watch) -> None:
    both = incidents_of(watch, ("views",), None, None, None, ("views",), (), ())
    assert spans(both) == [("drop", 0, 5), ("data_lag", 1, 4)]
    assert both[1].lead is None


def test_late_data_ends_with_the_first_bucket_that_has_arrived(watch: Watch) -> None:
    assert spans(incidents_of(watch, None, None, ())) == [("data_lag", 0, 2)]


def test_late_data_stays_an_incident_after_it_has_arrived(watch: Watch) -> None:
    came = [Tick(at(0), True, (anomaly("views"),)), Tick(at(1), True, (anomaly("views"),)), Tick(at(2)), Tick(at(3))]
    assert spans(fold(came, watch)) == [("data_lag", 0, 2), ("drop", 0, 2)]


def test_anomalies_of_metrics_no_longer_watched_are_ignored(watch: Watch) -> None:
    less = replace(watch, metrics={name: each for name, each in watch.metrics.items() if name != "messages_sent"})
    ticks = [
        Tick(at(0), False, (anomaly("views"), anomaly("messages_sent"))),
        Tick(at(1), False, (anomaly("messages_sent"),)),
    ]
    assert [[str(series) for series in each.series] for each in fold(ticks, less)] == [["views"]]


def test_the_order_of_the_ticks_does_not_matter(watch: Watch) -> None:
    names = ["views", "likes", "messages_sent, os: iOS", "ctr", "views, os: Android"]
    dice = random.Random(7)  # noqa: S311
    ticks = [
        Tick(at(position), dice.random() < 0.1, tuple(anomaly(name) for name in names if dice.random() < 0.2))
        for position in range(200)
    ]
    expected = fold(ticks, watch)
    assert len(expected) > 5
    assert len({each.ref for each in expected}) == len(expected)
    for _ in range(5):
        dice.shuffle(ticks)
        assert fold(ticks, watch) == expected


def test_an_incident_keeps_its_reference_if_late_data_moves_its_beginning(watch: Watch) -> None:
    before = incidents_of(watch, (), ("views",), ("views",))
    stored = pd.DataFrame(incident_rows(before, {}))
    after = adopt(incidents_of(watch, ("views",), ("views",), ("views",)), stored)
    assert [each.ref for each in after] == [before[0].ref]
    assert after[0].opened == at(0)


def test_only_an_incident_that_late_data_takes_back_is_written_again(watch: Watch) -> None:
    both = incidents_of(watch, ("views",), (), (), ("messages_sent",))
    stored = pd.DataFrame(incident_rows(both, {}))
    assert changed_rows(incident_rows(both, {}), stored, at(0)) == []
    (gone,) = changed_rows(incident_rows(both[1:], {}), stored, at(0))
    assert (gone["incident"], gone["state"]) == (both[0].ref, "withdrawn")
    assert from_row(gone).lead == both[0].lead
    assert (
        changed_rows(incident_rows(both[1:], {}), stored, at(1)) == []
    )  # it began before the span that is computed again


QUIET: tuple[str, ...] = ()
HISTORIES = [
    [("views",)] * 20 + [QUIET] * 12,
    [("views",)] * 4 + [QUIET] + [("views", "likes")] * 8 + [QUIET] * 12,
    [("views",)] * 5 + [QUIET] * 6 + [("views",)] * 5 + [QUIET] * 12,  # over, and open again within two hours
    [("views",)] * 3 + [QUIET] * 20,
]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("start", range(1, 23, 3))
def test_incidents_continued_from_any_moment_equal_those_from_the_beginning(
    watch: Watch, history: list[tuple[str, ...]], start: int
) -> None:
    whole = ticks_of(*history)
    expected = fold(whole, watch)
    for known in range(start, len(history)):  # the last bucket that the run before has seen
        stored = pd.DataFrame(incident_rows(fold(whole[: known + 1], watch), {}))
        before = carried(stored, at(start), watch)
        made = {each.ref: each for each in fold(whole[start:], watch, before)}
        for each in expected:
            if each.updated >= at(start):
                assert replace(made[each.ref], quiet=0) == replace(each, quiet=0)
        assert set(made) <= {incident.ref for incident in expected}


def test_silence_is_late_data_only_when_users_are_expected() -> None:
    """For five weeks users come from 08:00 to 24:00 only; then, from some moment on, nobody comes."""
    buckets = pd.date_range(NOON - timedelta(days=35), NOON, freq=BUCKET, inclusive="left")
    users = [40 if moment.hour >= 8 else 0 for moment in buckets]

    def known(last: datetime, end: datetime) -> datetime:
        there = [position for position, moment in enumerate(buckets) if moment < last and users[position]]
        total = {"dimension": "total", "positions": [there], "app_users": [[users[position] for position in there]]}
        return known_until(pd.DataFrame(total), buckets[buckets < pd.Timestamp(end)], last)

    at_night, by_day = NOON - timedelta(hours=6), NOON - timedelta(hours=1)
    assert known(NOON - timedelta(hours=12), at_night) == at_night  # midnight to six
    assert known(by_day, NOON) == by_day
    assert known(by_day, by_day) == by_day


@pytest.mark.parametrize(("silent", "late"), [(9, False), (10, True)])
def test_silence_is_late_data_once_ten_users_are_missing(silent: int, late: bool) -> None:
    """One user came in every bucket of the weeks before."""
    buckets = pd.date_range(NOON - timedelta(days=35), NOON, freq=BUCKET, inclusive="left")
    positions = list(range(len(buckets) - silent))
    total = pd.DataFrame({"dimension": "total", "positions": [positions], "app_users": [[1] * len(positions)]})
    watermark = at(-silent)
    assert known_until(total, buckets, watermark) == (watermark if late else NOON)


@pytest.mark.parametrize("change", ["2025-03-30", "2025-10-26"])
def test_the_same_time_of_the_weeks_before_follows_local_time(change: str) -> None:
    """Users come from 08:00 to 24:00 Berlin time, and the clock changed at night: before eight nobody is missing."""
    end = pd.Timestamp(change, tz="Europe/Berlin") + timedelta(days=1)
    buckets = pd.date_range(end - timedelta(days=35), end, freq=BUCKET, inclusive="left")
    users = [40 if moment.hour >= 8 else 0 for moment in buckets]
    evening = max(moment for moment in buckets if moment < pd.Timestamp(change, tz="Europe/Berlin")) + BUCKET

    def known(until: str) -> datetime:
        seen = buckets[buckets < pd.Timestamp(f"{change} {until}", tz="Europe/Berlin")]
        there = [position for position, moment in enumerate(seen) if moment < evening and users[position]]
        total = {"dimension": "total", "positions": [there], "app_users": [[users[position] for position in there]]}
        return known_until(pd.DataFrame(total), seen, evening)

    assert known("08:00") == pd.Timestamp(f"{change} 08:00", tz="Europe/Berlin")
    assert known("09:00") == evening


# --- a repeated hour --------------------------------------------------------------------------------------------------


def around_the_change(buckets: range) -> list[pd.Timestamp]:
    """Return the first moments of buckets, counted from when Berlin's clocks went back from 03:00 to 02:00."""
    changed = pd.Timestamp("2025-10-26T01:00Z").tz_convert("Europe/Berlin")
    return [changed + number * BUCKET for number in buckets]


def test_an_incident_across_a_clock_change_lasts_its_elapsed_time(watch: Watch) -> None:
    """Views are down from 02:30 for an hour and a half. By local time that is until 03:00, half an hour later."""
    moments = around_the_change(range(-3, 7))
    ticks = [
        Tick(moment, False, (anomaly("views"),) if 1 <= position < 7 else ()) for position, moment in enumerate(moments)
    ]
    random.Random(1).shuffle(ticks)  # noqa: S311
    (one,) = fold(ticks, watch)
    assert one.resolved is not None
    assert (one.resolved.timestamp() - one.opened.timestamp()) / 3600 == 1.5
    told = incident_text(one, watch, (), "en", now=one.resolved)
    assert "02:30 CEST" in told
    assert "03:00" in told.splitlines()[-1]


def test_the_time_to_reopen_is_elapsed_time_across_a_clock_change(watch: Watch) -> None:
    """A drop two hours after the end of an incident is a new one, although local time moved on by only one hour."""
    moments = around_the_change(range(-5, 6))
    drops = {0, 9}  # 01:45 summer time, over at 02:00; 03:00 winter time, two hours later
    ticks = [
        Tick(moment, False, (anomaly("views"),) if position in drops else ()) for position, moment in enumerate(moments)
    ]
    assert [one.opened for one in fold(ticks, watch)] == [moments[0], moments[9]]


def test_incidents_in_both_passes_of_a_repeated_hour_have_separate_messages(watch: Watch) -> None:
    summer, winter = around_the_change(range(-3, 2))[::4]  # 02:15, and 02:15 an hour later
    assert (f"{summer:%H:%M}", f"{winter:%H:%M}") == ("02:15", "02:15")
    many = [
        Incident(
            f"{opened:%z}{number}", "drop", opened, opened, anomaly(f"views, os: {number}"), resolved=opened + BUCKET
        )
        for opened in (summer, winter)
        for number in range(watch.most_alerts + 1)
    ]
    reports = [told["report"] for told in alerts(many, {}, watch, "en")]
    assert reports == ["incidents of 02:15", "incidents of 02:15 again"]


# --- the explanation --------------------------------------------------------------------------------------------------


def verdicts(metric: str, dimension: str, **slices: tuple[float, float]) -> list[dict[str, object]]:
    """Return a verdict for each slice, from its value and its expected value."""
    return [
        {"bucket": at(0), "metric": metric, "dimension": dimension, "dimension_value": name, "value": value,
         "expected": expected}
        for name, (value, expected) in slices.items()
    ]  # fmt: skip


def test_the_dimension_with_the_most_concentrated_deviation_explains_it(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(39, 100), iOS=(99, 100))
    rows += verdicts("views", "gender", male=(70, 101), female=(68, 99))
    (one,) = incidents_of(watch, ("views",))
    why = explain(pd.DataFrame(rows), one, watch)
    assert [(each.dimension_value, round(each.deviation, 2), each.off) for each in why] == [
        ("Android", -0.61, True),
        ("iOS", -0.01, False),
    ]
    assert sum(each.share for each in why) == pytest.approx(1)
    assert why[0].share == pytest.approx(61 / 62)
    assert explanation_line(one, why, watch, "en") == "Android −61.0%, iOS normal"
    assert explanation_line(one, why, watch, "ru") == "Android −61,0%, iOS в норме"


def test_the_text_about_a_slice_says_how_the_other_slices_are(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(39, 100), iOS=(99, 100)) + verdicts("views", "gender", male=(10, 100))
    (one,) = incidents_of(watch, ("views, os: Android",))
    why = explain(pd.DataFrame(rows), one, watch)
    assert explanation_line(one, why, watch, "en") == "iOS normal"


def test_no_slice_explains_a_deviation_that_all_share_alike(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(50, 100), iOS=(26, 50))
    (one,) = incidents_of(watch, ("views",))
    assert explain(pd.DataFrame(rows), one, watch) == []
    assert explanation_line(one, [], watch, "en") == "all slices alike"


@pytest.mark.parametrize(("ios", "android", "explained"), [(31, 69, False), (29, 71, True)])
def test_slices_explain_a_deviation_if_a_fifth_of_it_lies_elsewhere_than_the_volume(
    watch: Watch, ios: int, android: int, explained: bool
) -> None:
    """Each slice has half of the expected volume; of the 100 views that are missing, Android lacks 69 or 71."""
    rows = verdicts("views", "os", iOS=(200 - ios, 200), Android=(200 - android, 200))
    (one,) = incidents_of(watch, ("views",))
    assert bool(explain(pd.DataFrame(rows), one, watch)) == explained


def test_slices_explain_a_rate_if_a_fifth_lies_elsewhere_than_the_volume(watch: Watch) -> None:
    """By hand: each slice has half of the views, so Android's share of the deviation is its share of the lost likes."""
    (one,) = fold([Tick(at(0), False, (anomaly("ctr", 0.15, 0.2),))], watch)
    for android, explained in ((69, False), (71, True)):
        likes = {"iOS": 200 - (100 - android), "Android": 200 - android}
        rows = verdicts("likes", "os", **{name: (value, 200) for name, value in likes.items()})
        rows += verdicts("views", "os", iOS=(1000, 1000), Android=(1000, 1000))
        rows += verdicts("ctr", "os", **{name: (value / 1000, 0.2) for name, value in likes.items()})
        assert bool(explain(pd.DataFrame(rows), one, watch)) == explained


def test_only_the_last_sixteen_buckets_of_an_incident_explain_it(watch: Watch) -> None:
    """Android was down in the first two buckets, and iOS in the sixteen after the first."""
    rows = [
        {**row, "bucket": at(number)}
        for number in range(17)
        for row in verdicts(
            "views", "os", Android=({0: 0, 1: 20}.get(number, 100), 100), iOS=(40 if number else 100, 100)
        )
    ]
    (one,) = incidents_of(watch, *[("views",)] * 17)
    why = explain(pd.DataFrame(rows), one, watch)
    assert [(each.dimension_value, each.deviation) for each in why] == [("iOS", -0.6), ("Android", -0.05)]


def test_a_slice_is_named_if_it_moves_at_least_half_as_far_as_the_furthest(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(20, 100), iOS=(60, 100), web=(61, 100), tv=(100, 100))
    (one,) = incidents_of(watch, ("views",))
    assert {each.dimension_value: each.off for each in explain(pd.DataFrame(rows), one, watch)} == {
        "Android": True, "iOS": True, "web": False, "tv": False,
    }  # fmt: skip


def test_a_slice_that_moves_less_than_the_least_effect_is_normal(watch: Watch) -> None:
    """The least effect is 7.5 %."""
    rows = verdicts("views", "os", Android=(93, 100), iOS=(100, 100)) + verdicts("views", "os", web=(1000, 1000))
    (one,) = incidents_of(watch, ("views",))
    assert [each.off for each in explain(pd.DataFrame(rows), one, watch)] == [False, False, False]


def test_a_dimension_of_one_slice_explains_nothing(watch: Watch) -> None:
    alone = pd.DataFrame(verdicts("views", "os", iOS=(10, 100)))
    (whole,), (slice_,) = incidents_of(watch, ("views",)), incidents_of(watch, ("views, os: iOS",))
    assert explain(alone, whole, watch) == explain(alone, slice_, watch) == []


def test_late_data_is_not_explained(watch: Watch) -> None:
    (late,) = incidents_of(watch, None)
    assert explain(pd.DataFrame(verdicts("views", "os", Android=(39, 100), iOS=(99, 100))), late, watch) == []


def test_a_rate_is_explained_by_the_rates_of_slices_and_by_their_mix(watch: Watch) -> None:
    """By hand: both are expected at 20 %; iOS, with half of the views, falls to 10 %, so the whole falls to 15 %."""
    expected = {"likes": (100, 100), "views": (500, 500), "ctr": (0.2, 0.2)}
    rows = []
    for name, (value, due) in {"likes": (50, 100), "views": (500, 500), "ctr": (0.1, 0.2)}.items():
        rows += verdicts(name, "os", iOS=(value, due), Android=expected[name])
    (one,) = fold([Tick(at(0), False, (anomaly("ctr", 0.15, 0.2),))], watch)
    why = explain(pd.DataFrame(rows), one, watch)
    assert [(each.dimension_value, round(each.deviation, 3), round(each.share, 3)) for each in why] == [
        ("iOS", -0.1, 1.0),
        ("Android", 0.0, 0.0),
    ]
    assert explanation_line(one, why, watch, "en") == "iOS −10.0pp, Android normal"

    # The rates stay at 30 % and 10 %, and iOS, the better one, shrinks from half of the views to a fifth: 20 % → 14 %.
    rows = []
    for name, ios, android in (
        ("likes", (60, 150), (80, 50)), ("views", (200, 500), (800, 500)), ("ctr", (0.3, 0.3), (0.1, 0.1)),
    ):  # fmt: skip
        rows += verdicts(name, "os", iOS=ios, Android=android)
    why = explain(pd.DataFrame(rows), one, watch)
    assert sum(each.mix for each in why) == pytest.approx(-0.06)
    assert "shift between slices −6.0pp" in explanation_line(one, why, watch, "en")


def test_a_rate_is_explained_by_rates_and_mix_at_once(watch: Watch) -> None:
    """By hand: of 1,000 views iOS has 600 and not 500, at 10 % and not 30 %; Android is at 10 % as ever.

    The rates lower the whole by 0.6 · 0.2 = 12 points. The mix raises it by 0.1 · (0.3 - 0.2) = 1 point for each.
    """
    rows = verdicts("likes", "os", iOS=(60, 150), Android=(40, 50), web=(0, 0))
    rows += verdicts("views", "os", iOS=(600, 500), Android=(400, 500), web=(0, 0))
    rows += verdicts("ctr", "os", iOS=(0.1, 0.3), Android=(0.1, 0.1), web=(0.2, 0.2))
    (one,) = fold([Tick(at(0), False, (anomaly("ctr", 0.1, 0.2),))], watch)
    why = explain(pd.DataFrame(rows), one, watch)
    assert [(each.dimension_value, round(each.share, 6), round(each.mix, 6), each.off) for each in why] == [
        ("iOS", 1.1, 0.01, True),
        ("web", 0.0, 0.0, False),
        ("Android", -0.1, 0.01, False),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        verdicts("ctr", "os", iOS=(0.1, 0.3), Android=(0.1, 0.1)),  # nothing is known of likes and views
        [
            row
            for name, due in (("likes", 50), ("views", 500), ("ctr", 0.1))
            for row in verdicts(name, "os", iOS=(0, due), Android=(0, due))
        ],  # nobody viewed anything, so there is no rate
    ],
)
def test_a_rate_without_counts_is_not_explained(watch: Watch, rows: list[dict[str, object]]) -> None:
    (one,) = fold([Tick(at(0), False, (anomaly("ctr", 0.1, 0.2),))], watch)
    assert explain(pd.DataFrame(rows), one, watch) == []


def test_a_slice_of_which_nothing_was_expected_is_left_out(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(39, 100), iOS=(99, 100), new=(5, 0), rare=(0, 1))
    (one,) = incidents_of(watch, ("views",))
    why = explain(pd.DataFrame(rows), one, watch)
    assert {each.dimension_value: round(each.deviation, 2) for each in why} == {
        "Android": -0.61, "iOS": -0.01, "rare": -1.0,
    }  # fmt: skip


# --- the messages -----------------------------------------------------------------------------------------------------


def test_an_incident_has_one_message_and_a_reply_when_it_is_over(watch: Watch) -> None:
    (open_,) = alerts(incidents_of(watch, ("views",)), {}, watch, "en")
    assert open_["report"].startswith("incident ")
    assert not open_["silent"]
    main, reply = alerts(incidents_of(watch, ("views",), (), ()), {}, watch, "en")
    assert main["report"] == open_["report"] == reply["reply_to"]
    assert reply["silent"]
    assert main["chart"] == open_["chart"]


def test_more_than_five_incidents_at_once_are_one_message(watch: Watch) -> None:
    many = [
        Incident(f"{number:08d}", "drop", at(0), at(0), anomaly(f"views, os: {number}"), (Series("views", "os", "x"),))
        for number in range(watch.most_alerts + 1)
    ]
    (told,) = alerts(many, {}, watch, "en")
    assert told["text"].startswith(f"🔴 <b>{len(many)} incidents at once</b>")
    assert told["text"].count("views") == len(many)
    assert len(alerts(many[1:], {}, watch, "en")) == watch.most_alerts


def test_an_incident_of_snoozed_series_alone_is_snoozed_until_the_day_is_over(tmp_path: Path) -> None:
    text = FILE.read_text() + '\n[[snooze]]\nmetric = "views"\nslice = "os: iOS"\nuntil = 2025-03-12\n'
    path = tmp_path / "watch.toml"
    path.write_text(text)
    watch = load_watch(path)
    (slice_,), (whole,) = incidents_of(watch, ("views, os: iOS",)), incidents_of(watch, ("views", "views, os: iOS"))
    assert watch.snoozed(slice_.series, NOON)
    assert not watch.snoozed(slice_.series, NOON + timedelta(days=1))
    assert not watch.snoozed(whole.series, NOON)


def test_owners_are_mentioned_while_the_incident_lasts(tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    path.write_text(FILE.read_text().replace("owners = []", 'owners = ["@anna", "@ben"]'))
    watch = load_watch(path)
    (told,) = alerts(incidents_of(watch, ("views", "likes")), {}, watch, "en")
    assert told["text"].endswith("\n\n@anna · @ben")
    over, _ = alerts(incidents_of(watch, ("views",), (), ()), {}, watch, "en")
    assert "@anna" not in over["text"]


def test_markup_in_names_of_slices_is_escaped(watch: Watch) -> None:
    (told,) = alerts(incidents_of(watch, ("views, os: <b>bold</b> & co",)), {}, watch, "en")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in told["text"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_longest_alert_fits_a_caption(watch: Watch, language: Language) -> None:
    long = "long & <very> long " * 20
    names = [f"{metric}, os: {long}" for metric in watch.metrics]
    (one,) = fold([Tick(at(0), False, tuple(anomaly(name, 1e18, 1e17) for name in names))], watch)
    why = [Contribution("os", f"{position} {long}", 1e9, 0.3) for position in range(5)]
    link = "https://bi.example.com/superset/dashboard/pulse/"
    text = incident_text(one, watch, why, language, now=at(500), link=link)
    assert length(text) <= MAX_CAPTION - 150
    assert "<very>" not in text


def test_a_deviation_over_hours_is_described_over_hours(watch: Watch) -> None:
    leak = replace(anomaly("views", 95, 100), deviation=-0.12, window=16)
    (one,) = fold([Tick(at(0), False, (leak,))], watch)
    title, range_, *_ = incident_text(one, watch, [], "en", now=at(1)).splitlines()
    assert title == "🔴 <b>Views −12.0%</b>"
    assert range_ == "over 4 hours to 12:15; at last 95, expected 90 – 110"
    assert "за 4 часа до 12:15" in incident_text(one, watch, [], "ru", now=at(1))


def test_the_chart_shows_the_metric_its_range_and_the_anomalies(watch: Watch) -> None:
    moments = pd.date_range(NOON - timedelta(days=1), NOON, freq=BUCKET, inclusive="left")
    values = [100.0 + position % 7 for position in range(timedelta(days=1) // BUCKET)]
    values[40] = float("nan")
    band = pd.DataFrame({"value": values, "expected": 100.0, "lower": 80.0, "upper": 120.0}, index=moments)
    figure = charts.draw("Views −61.0%", watch.metrics["views"].metric, band, list(moments[-3:]), "en")
    (axis,) = figure.axes
    expected, shown, marked = axis.get_lines()
    assert set(np.asarray(expected.get_ydata())) == {100.0}
    assert list(np.asarray(shown.get_ydata())) == pytest.approx(values, nan_ok=True)
    assert list(np.asarray(marked.get_xdata())) == [93, 94, 95]
    assert axis.get_title(loc="left") == "Views −61.0%"
    assert axis.get_title(loc="right") == "per 15 minutes"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["12:00", "18:00", "Wed 12", "06:00"]
    assert [text.get_text() for text in axis.texts] == ["no data", "expected range"]
    assert axis.texts[0].get_position()[0] == 40


def test_every_series_can_be_read_from_its_text(watch: Watch) -> None:
    for metric, value in itertools.product(watch.metrics, ["iOS", "a, b: c", "", "🐈"]):
        assert Series.parse(str(Series(metric, "os", value))) == Series(metric, "os", value)
        assert Series.parse(str(Series(metric, *TOTAL))) == Series(metric, *TOTAL)


# --- the file ---------------------------------------------------------------------------------------------------------


def _with(tmp_path: Path, old: str, new: str) -> Path:
    path = tmp_path / "watch.toml"
    path.write_text(FILE.read_text().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("owners = []", "onwers = []", "watch.toml has a wrong or unknown entry: .*onwers"),
        ("most_alerts = 5", "most_alert = 5", "watch.toml has a wrong or unknown entry: .*most_alert"),
        ("[metrics.views]\nowners = []", "", "watch.toml names metrics that it does not watch: views"),
        ("holidays = []", "holidays = [", "watch.toml is not TOML: "),
        ('country = ""', 'country = "Atlantis"', "'Atlantis' is not a country whose holidays are known"),
        (
            "[metrics.views]",
            "[metrics.sights]",
            "sights is not a metric of metric_buckets",
        ),
        ("[metrics.views]", "[metrics.sent_per_received]", "sent_per_received is not a metric of metric_buckets"),
    ],
)
def test_a_wrong_entry_of_watch_toml_is_an_error_that_names_it(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(WatchError, match=said):
        load_watch(_with(tmp_path, old, new))
    with pytest.raises(WatchError, match="cannot be read"):
        load_watch(tmp_path / "nothing.toml")


def test_the_holidays_are_those_listed_and_those_of_the_country(tmp_path: Path) -> None:
    watch = load_watch(_with(tmp_path, 'holidays = []\ncountry = ""', 'holidays = [2026-11-25]\ncountry = "RU"'))
    assert [day for day in (date(2026, 11, 25), date(2026, 5, 9), date(2026, 11, 24)) if watch.is_holiday(day)] == [
        date(2026, 11, 25),
        date(2026, 5, 9),
    ]
