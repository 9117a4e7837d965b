"""Incidents are a function of the verdicts: which anomalies are one story, when it opens, goes on and is over."""

import itertools
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from pulse.delivery.markup import MAX_CAPTION, length
from pulse.metrics import BUCKET
from pulse.monitoring import charts
from pulse.monitoring.alerts import alerts
from pulse.monitoring.explanation import Contribution, explain
from pulse.monitoring.history import known_until
from pulse.monitoring.incidents import Anomaly, Incident, Tick, fold
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
    """The first moment of a bucket, counted from noon."""
    return NOON + number * BUCKET


def anomaly(name: str, value: float = 40.0, expected: float = 100.0, score: float = 9.0) -> Anomaly:
    """A finding of a metric, or of `metric, dimension: value`."""
    signed = score if value > expected else -score
    direction = "spike" if value > expected else "drop"
    off = value / expected - 1
    return Anomaly(Series.parse(name), direction, value, expected, 0.9 * expected, 1.1 * expected, signed, off)  # type: ignore[arg-type]


def story(watch: Watch, *ticks: tuple[str, ...] | None, start: int = 0) -> list[Incident]:
    """The incidents of buckets in a row: the names of what was found in each, None where data was late."""
    return fold(ticks_of(*ticks, start=start), watch)


def ticks_of(*ticks: tuple[str, ...] | None, start: int = 0) -> list[Tick]:
    return [
        Tick(at(start + place), names is None, tuple(anomaly(name) for name in names or ()), names is not None)
        for place, names in enumerate(ticks)
    ]


def spans(incidents: list[Incident]) -> list[tuple[str, float, float | None]]:
    """Direction, opening and end in buckets from noon."""
    place = lambda moment: None if moment is None else (moment - NOON) / BUCKET  # noqa: E731
    return [(each.direction, place(each.opened), place(each.resolved)) for each in incidents]


def test_an_incident_opens_with_the_first_bucket_and_is_over_after_two_quiet_ones(watch: Watch) -> None:
    assert spans(story(watch, (), ("views",), ("views",), ())) == [("drop", 1, None)]
    (over,) = story(watch, (), ("views",), ("views",), (), ())
    assert spans([over]) == [("drop", 1, 3)]
    assert (over.state, over.updated) == ("resolved", at(2))


def test_one_quiet_bucket_does_not_end_it(watch: Watch) -> None:
    assert spans(story(watch, ("views",), (), ("views",), (), ())) == [("drop", 0, 3)]


def test_what_comes_back_soon_is_the_same_and_what_comes_back_late_is_another(watch: Watch) -> None:
    quiet = [()] * 4
    soon = story(watch, ("views",), *quiet, ("views",))
    assert spans(soon) == [("drop", 0, None)]
    late = story(watch, ("views",), *quiet, *quiet, *quiet, ("views",))
    assert [each[1] for each in spans(late)] == [0, 13]
    assert late[0].ref != late[1].ref


def test_it_grows_and_shrinks(watch: Watch) -> None:
    (one,) = story(watch, ("views, os: iOS",), ("views", "likes", "views, os: iOS"), ("likes",))
    assert [str(series) for series in one.series] == ["views, os: iOS", "views", "likes"]
    assert [str(series) for series in one.showing] == ["likes"]
    assert one.lead is not None
    assert str(one.lead.series) == "likes"


def test_the_whole_app_leads_before_slices_and_the_same_series_for_as_long_as_it_shows(watch: Watch) -> None:
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
        (("ctr",), 1),
    ],
)
def test_what_goes_the_same_way_in_a_part_or_a_slice_is_one_incident(
    watch: Watch, names: tuple[str, ...], count: int
) -> None:
    assert len(story(watch, names, names)) == count


def test_what_goes_the_other_way_is_another_but_for_a_share_of_what_it_is_a_share_of(watch: Watch) -> None:
    apart = fold([Tick(at(0), False, (anomaly("views"), anomaly("messages_sent", value=300)))], watch)
    assert sorted(each.direction for each in apart) == ["drop", "spike"]
    together = fold([Tick(at(0), False, (anomaly("views"), anomaly("ctr", value=0.5, expected=0.2)))], watch)
    assert [each.direction for each in together] == ["drop"]
    after = fold([Tick(at(0), False, (anomaly("views"),)), Tick(at(1), False, (anomaly("ctr", 0.5, 0.2),))], watch)
    assert spans(after) == [("drop", 0, None)]


def test_late_data_is_an_incident_of_its_own_and_says_nothing_of_others(watch: Watch) -> None:
    both = story(watch, ("views",), None, None, None, ("views",), (), ())
    assert spans(both) == [("drop", 0, 5), ("data_lag", 1, 4)]
    assert both[1].lead is None


def test_late_data_is_over_with_the_first_bucket_that_is_there(watch: Watch) -> None:
    assert spans(story(watch, None, None, ())) == [("data_lag", 0, 2)]


def test_that_data_was_late_is_not_forgotten_once_it_is_there(watch: Watch) -> None:
    came = [Tick(at(0), True, (anomaly("views"),)), Tick(at(1), True, (anomaly("views"),)), Tick(at(2)), Tick(at(3))]
    assert spans(fold(came, watch)) == [("data_lag", 0, 2), ("drop", 0, 2)]


def test_what_is_no_longer_watched_tells_of_nothing(watch: Watch) -> None:
    less = replace(watch, metrics={name: each for name, each in watch.metrics.items() if name != "messages_sent"})
    ticks = [
        Tick(at(0), False, (anomaly("views"), anomaly("messages_sent"))),
        Tick(at(1), False, (anomaly("messages_sent"),)),
    ]
    assert [[str(series) for series in each.series] for each in fold(ticks, less)] == [["views"]]


def test_ticks_in_any_order_and_twice_make_the_same(watch: Watch) -> None:
    names = ["views", "likes", "messages_sent, os: iOS", "ctr", "views, os: Android"]
    dice = random.Random(7)  # noqa: S311
    ticks = [
        Tick(at(place), dice.random() < 0.1, tuple(anomaly(name) for name in names if dice.random() < 0.2))
        for place in range(200)
    ]
    expected = fold(ticks, watch)
    assert len(expected) > 5
    assert len({each.ref for each in expected}) == len(expected)
    for _ in range(5):
        dice.shuffle(ticks)
        assert fold(ticks, watch) == expected


def test_an_incident_whose_beginning_data_moves_keeps_its_reference(watch: Watch) -> None:
    before = story(watch, (), ("views",), ("views",))
    stored = pd.DataFrame(incident_rows(before, {}))
    after = adopt(story(watch, ("views",), ("views",), ("views",)), stored)
    assert [each.ref for each in after] == [before[0].ref]
    assert after[0].opened == at(0)


def test_an_incident_that_later_data_takes_back_is_withdrawn_and_nothing_else_is_written_again(watch: Watch) -> None:
    both = story(watch, ("views",), (), (), ("messages_sent",))
    stored = pd.DataFrame(incident_rows(both, {}))
    assert changed_rows(incident_rows(both, {}), stored, at(0)) == []
    (gone,) = changed_rows(incident_rows(both[1:], {}), stored, at(0))
    assert (gone["incident"], gone["state"]) == (both[0].ref, "withdrawn")
    assert from_row(gone).lead == both[0].lead
    assert changed_rows(incident_rows(both[1:], {}), stored, at(1)) == []  # it was not made anew


QUIET: tuple[str, ...] = ()
HISTORIES = [
    [("views",)] * 20 + [QUIET] * 12,
    [("views",)] * 4 + [QUIET] + [("views", "likes")] * 8 + [QUIET] * 12,
    [("views",)] * 5 + [QUIET] * 6 + [("views",)] * 5 + [QUIET] * 12,  # over, and back within two hours
    [("views",)] * 3 + [QUIET] * 20,
]


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("start", range(1, 23, 3))
def test_incidents_carried_on_from_any_moment_are_those_made_from_the_beginning(
    watch: Watch, history: list[tuple[str, ...]], start: int
) -> None:
    whole = ticks_of(*history)
    expected = fold(whole, watch)
    for known in range(start, len(history)):  # what was last written, by a tick that saw so much
        stored = pd.DataFrame(incident_rows(fold(whole[: known + 1], watch), {}))
        before = carried(stored, at(start), watch)
        made = {each.ref: each for each in fold(whole[start:], watch, before)}
        for each in expected:
            if each.updated >= at(start):
                assert replace(made[each.ref], quiet=0) == replace(each, quiet=0)
        assert set(made) <= {incident.ref for incident in expected}


def test_silence_is_late_data_only_where_somebody_would_have_been_there() -> None:
    """Five weeks in which users come from 08:00 to 24:00 only; then nobody from a moment on."""
    buckets = pd.date_range(NOON - timedelta(days=35), NOON, freq="15min", inclusive="left")
    users = [40 if moment.hour >= 8 else 0 for moment in buckets]

    def known(last: datetime, end: datetime) -> datetime:
        there = [place for place, moment in enumerate(buckets) if moment < last and users[place]]
        total = {"dimension": "total", "places": [there], "app_users": [[users[place] for place in there]]}
        return known_until(pd.DataFrame(total), buckets[buckets < end], last)

    at_night, by_day = NOON - timedelta(hours=6), NOON - timedelta(hours=1)
    assert known(NOON - timedelta(hours=12), at_night) == at_night  # midnight to six
    assert known(by_day, NOON) == by_day
    assert known(by_day, by_day) == by_day


@pytest.mark.parametrize("change", ["2025-03-30", "2025-10-26"])
def test_the_same_time_of_the_weeks_before_is_the_walls(change: str) -> None:
    """Users come from 08:00 to 24:00 by Berlin's clock, which changed in the morning: until eight nobody is missed."""
    end = pd.Timestamp(change, tz="Europe/Berlin") + timedelta(days=1)
    buckets = pd.date_range(end - timedelta(days=35), end, freq="15min", inclusive="left")
    users = [40 if moment.hour >= 8 else 0 for moment in buckets]
    evening = max(moment for moment in buckets if moment < pd.Timestamp(change, tz="Europe/Berlin")) + BUCKET

    def known(until: str) -> datetime:
        seen = buckets[buckets < pd.Timestamp(f"{change} {until}", tz="Europe/Berlin")]
        there = [place for place, moment in enumerate(seen) if moment < evening and users[place]]
        total = {"dimension": "total", "places": [there], "app_users": [[users[place] for place in there]]}
        return known_until(pd.DataFrame(total), seen, evening)

    assert known("08:00") == pd.Timestamp(f"{change} 08:00", tz="Europe/Berlin")
    assert known("09:00") == evening


# --- the hour that comes twice ----------------------------------------------------------------------------------------


def around_the_change(buckets: range) -> list[pd.Timestamp]:
    """The first moments of buckets, counted from when Berlin's clocks went back from 03:00 to 02:00."""
    changed = pd.Timestamp("2025-10-26T01:00Z").tz_convert("Europe/Berlin")
    return [changed + number * BUCKET for number in buckets]


def test_an_incident_lasts_as_long_as_it_does_when_clocks_are_set_back(watch: Watch) -> None:
    """Views are down from 02:30 for an hour and a half: on the wall until 03:00, which is half an hour later."""
    moments = around_the_change(range(-3, 7))
    ticks = [Tick(moment, False, (anomaly("views"),) if 1 <= place < 7 else ()) for place, moment in enumerate(moments)]
    random.Random(1).shuffle(ticks)  # noqa: S311
    (one,) = fold(ticks, watch)
    assert (one.resolved.timestamp() - one.opened.timestamp()) / 3600 == 1.5
    told = incident_text(one, watch, (), "en", now=one.resolved)
    assert "02:30 CEST" in told
    assert "03:00" in told.splitlines()[-1]


def test_an_incident_comes_back_only_for_as_long_as_that_is(watch: Watch) -> None:
    """Two hours after its end another drop is news of its own, though the clock on the wall went on by one only."""
    moments = around_the_change(range(-5, 6))
    drops = {0, 9}  # 01:45 summer time, over at 02:00; 03:00 winter time, two hours later
    ticks = [Tick(moment, False, (anomaly("views"),) if place in drops else ()) for place, moment in enumerate(moments)]
    assert [one.opened for one in fold(ticks, watch)] == [moments[0], moments[9]]


def test_what_happens_in_both_hours_of_the_same_name_is_told_twice(watch: Watch) -> None:
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
    """A verdict a slice: value and expected."""
    return [
        {"bucket": at(0), "metric": metric, "dimension": dimension, "dimension_value": name, "value": value,
         "expected": expected}
        for name, (value, expected) in slices.items()
    ]  # fmt: skip


def test_the_dimension_in_which_the_deviation_is_concentrated_explains_it(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(39, 100), iOS=(99, 100))
    rows += verdicts("views", "gender", male=(70, 101), female=(68, 99))
    (one,) = story(watch, ("views",))
    why = explain(pd.DataFrame(rows), one, watch)
    assert [(each.dimension_value, round(each.deviation, 2), each.off) for each in why] == [
        ("Android", -0.61, True),
        ("iOS", -0.01, False),
    ]
    assert sum(each.share for each in why) == pytest.approx(1)
    assert why[0].share == pytest.approx(61 / 62)
    assert explanation_line(one, why, watch, "en") == "Android −61.0%, iOS normal"
    assert explanation_line(one, why, watch, "ru") == "Android −61,0%, iOS в норме"


def test_an_incident_of_a_slice_says_how_the_others_are(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(39, 100), iOS=(99, 100)) + verdicts("views", "gender", male=(10, 100))
    (one,) = story(watch, ("views, os: Android",))
    why = explain(pd.DataFrame(rows), one, watch)
    assert explanation_line(one, why, watch, "en") == "iOS normal"


def test_where_all_slices_go_alike_none_explains_it(watch: Watch) -> None:
    rows = verdicts("views", "os", Android=(50, 100), iOS=(26, 50))
    (one,) = story(watch, ("views",))
    assert explain(pd.DataFrame(rows), one, watch) == []
    assert explanation_line(one, [], watch, "en") == "all slices alike"


def test_a_rate_is_explained_by_rates_and_by_the_mix(watch: Watch) -> None:
    """By hand: 20 % expected of both; iOS falls to 10 % with half of the views, so the whole falls to 15 %."""
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


# --- what is told -----------------------------------------------------------------------------------------------------


def test_an_incident_is_told_once_edited_and_answered_when_it_is_over(watch: Watch) -> None:
    (open_,) = alerts(story(watch, ("views",)), {}, watch, "en")
    assert open_["report"].startswith("incident ")
    assert not open_["silent"]
    main, reply = alerts(story(watch, ("views",), (), ()), {}, watch, "en")
    assert main["report"] == open_["report"] == reply["reply_to"]
    assert reply["silent"]
    assert main["chart"] == open_["chart"]


def test_more_than_a_few_at_once_are_one_message(watch: Watch) -> None:
    many = [
        Incident(f"{number:08d}", "drop", at(0), at(0), anomaly(f"views, os: {number}"), (Series("views", "os", "x"),))
        for number in range(watch.most_alerts + 1)
    ]
    (told,) = alerts(many, {}, watch, "en")
    assert told["text"].startswith(f"🔴 <b>{len(many)} incidents at once</b>")
    assert told["text"].count("views") == len(many)
    assert len(alerts(many[1:], {}, watch, "en")) == watch.most_alerts


def test_what_is_snoozed_is_not_told(tmp_path: Path) -> None:
    text = FILE.read_text() + '\n[[snooze]]\nmetric = "views"\nslice = "os: iOS"\nuntil = 2025-03-12\n'
    path = tmp_path / "watch.toml"
    path.write_text(text)
    watch = load_watch(path)
    (slice_,), (whole,) = story(watch, ("views, os: iOS",)), story(watch, ("views", "views, os: iOS"))
    assert watch.snoozed(slice_.series, NOON)
    assert not watch.snoozed(slice_.series, NOON + timedelta(days=1))
    assert not watch.snoozed(whole.series, NOON)


def test_owners_are_mentioned_while_it_lasts(tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    path.write_text(FILE.read_text().replace("owners = []", 'owners = ["@anna", "@ben"]'))
    watch = load_watch(path)
    (told,) = alerts(story(watch, ("views", "likes")), {}, watch, "en")
    assert told["text"].endswith("\n\n@anna · @ben")
    over, _ = alerts(story(watch, ("views",), (), ()), {}, watch, "en")
    assert "@anna" not in over["text"]


def test_hostile_names_are_shown_and_not_obeyed(watch: Watch) -> None:
    (told,) = alerts(story(watch, ("views, os: <b>bold</b> & co",)), {}, watch, "en")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in told["text"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_an_alert_fits_a_caption_whatever_it_says(watch: Watch, language: Language) -> None:
    long = "long & <very> long " * 20
    names = [f"{metric}, os: {long}" for metric in watch.metrics]
    (one,) = fold([Tick(at(0), False, tuple(anomaly(name, 1e18, 1e17) for name in names))], watch)
    why = [Contribution("os", f"{place} {long}", 1e9, 0.3) for place in range(5)]
    link = "https://bi.example.com/superset/dashboard/pulse/"
    text = incident_text(one, watch, why, language, now=at(500), link=link)
    assert length(text) <= MAX_CAPTION - 150
    assert "<very>" not in text


def test_a_deviation_of_hours_is_told_as_one_of_hours(watch: Watch) -> None:
    leak = replace(anomaly("views", 95, 100), deviation=-0.12, window=16)
    (one,) = fold([Tick(at(0), False, (leak,))], watch)
    title, range_, *_ = incident_text(one, watch, [], "en", now=at(1)).splitlines()
    assert title == "🔴 <b>Views −12.0%</b>"
    assert range_ == "over 4 hours to 12:15; at last 95, expected 90 – 110"
    assert "за 4 часа до 12:15" in incident_text(one, watch, [], "ru", now=at(1))


def test_the_chart_shows_the_metric_its_range_and_what_is_marked(watch: Watch) -> None:
    moments = pd.date_range(NOON - timedelta(days=1), NOON, freq="15min", inclusive="left")
    values = [100.0 + place % 7 for place in range(96)]
    values[40] = float("nan")
    band = pd.DataFrame({"value": values, "expected": 100.0, "lower": 80.0, "upper": 120.0}, index=moments)
    figure = charts.draw("Views −61.0%", watch.metrics["views"].metric, band, list(moments[-3:]), "en")
    (axis,) = figure.axes
    expected, shown, marked = axis.get_lines()
    assert set(expected.get_ydata()) == {100.0}
    assert list(shown.get_ydata()) == pytest.approx(values, nan_ok=True)
    assert list(marked.get_xdata()) == [93, 94, 95]
    assert axis.get_title(loc="left") == "Views −61.0%"
    assert axis.get_title(loc="right") == "per 15 minutes"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["12:00", "18:00", "Wed 12", "06:00"]
    assert [text.get_text() for text in axis.texts] == ["no data", "expected range"]
    assert axis.texts[0].get_position()[0] == 40


def test_every_series_reads_back(watch: Watch) -> None:
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
def test_a_wrong_entry_is_a_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(WatchError, match=said):
        load_watch(_with(tmp_path, old, new))
    with pytest.raises(WatchError, match="cannot be read"):
        load_watch(tmp_path / "nothing.toml")


def test_holidays_are_those_listed_and_those_of_the_country(tmp_path: Path) -> None:
    watch = load_watch(_with(tmp_path, 'holidays = []\ncountry = ""', 'holidays = [2026-11-25]\ncountry = "RU"'))
    assert [day for day in (date(2026, 11, 25), date(2026, 5, 9), date(2026, 11, 24)) if watch.is_holiday(day)] == [
        date(2026, 11, 25),
        date(2026, 5, 9),
    ]
