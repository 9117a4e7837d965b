"""The detector: which buckets are anomalies, which are not, and how it handles histories with faults."""

import math
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks import metrics, taxis
from benchmarks.ablation import ABLATIONS, ALONE, WHOLE, left_out
from benchmarks.scoring import measure
from pulse.metrics import BUCKET
from pulse.monitoring import detector
from pulse.monitoring.detector import Thresholds, Verdict, judge, judge_tick
from pulse.monitoring.grid import HistoryError

DAY = timedelta(days=1) // BUCKET


def rhythm(
    days: float = 42, *, level: float = 10_000, seed: int = 1, minutes: int = 15, tz: str | None = None
) -> pd.Series:
    """Return a metric by bucket from a Friday on: more by day than by night, less at weekends, with counting noise."""
    index = pd.date_range("2024-03-01", periods=int(days * 24 * 60 / minutes), freq=f"{minutes}min", tz=tz)
    hours = index.hour.to_numpy() + index.minute.to_numpy() / 60
    mean = level * (0.6 + 0.4 * np.sin((hours - 9) / 12 * np.pi)) * np.where(index.day_of_week >= 5, 0.8, 1)
    return pd.Series(np.random.default_rng(seed).poisson(mean).astype(float), index)


def moments(history: pd.Series) -> pd.DatetimeIndex:
    """Return when the buckets of a history begin."""
    return pd.DatetimeIndex(history.index)


def with_last(history: pd.Series, value: float, buckets: int = 1) -> pd.Series:
    changed = history.copy()
    changed.iloc[-buckets:] = value
    return changed


def test_an_ordinary_bucket_is_normal_and_lies_in_its_expected_range() -> None:
    verdict = judge(rhythm())
    assert verdict.kind == "normal"
    assert not verdict.is_anomaly
    assert verdict.lower < verdict.value < verdict.upper


@pytest.mark.parametrize(("factor", "kind"), [(0.5, "drop"), (0.0, "drop"), (1.5, "spike")])
def test_half_missing_or_half_too_much_is_an_anomaly_at_once(factor: float, kind: str) -> None:
    history = rhythm()
    verdict = judge(with_last(history, history.iloc[-1] * factor))
    assert verdict.kind == kind
    assert verdict.is_anomaly
    assert verdict.deviation == pytest.approx(factor - 1, abs=0.1)
    assert not verdict.lower <= verdict.value <= verdict.upper


def test_buckets_of_a_late_source_are_late_and_never_a_drop() -> None:
    history = with_last(rhythm(), 0, 2)
    assert judge(history, lag_minutes=30).kind == "data_lag"
    assert judge(history, lag_minutes=15).kind == "data_lag"
    assert judge(with_last(rhythm(), math.nan), lag_minutes=40).kind == "data_lag"


def test_a_lag_shorter_than_a_bucket_excuses_its_share_of_the_bucket() -> None:
    history = rhythm()
    two_thirds = with_last(history, history.iloc[-1] * 2 / 3)
    assert judge(two_thirds).kind == "drop"
    assert judge(two_thirds, lag_minutes=5).kind == "data_lag"
    assert judge(history, lag_minutes=5).kind == "normal"
    assert judge(with_last(history, 0), lag_minutes=5).kind == "drop"


def test_a_bucket_without_a_row_is_unknown() -> None:
    assert judge(with_last(rhythm(), math.nan)).kind == "unknown"


@pytest.mark.parametrize(
    "history",
    [
        pd.Series([], index=pd.DatetimeIndex([]), dtype=float),
        rhythm(1 / DAY),
        rhythm(2 / DAY),
        rhythm(1),
        rhythm() * math.nan,
        with_last(rhythm(), math.inf),
        with_last(rhythm(), -5),
    ],
)
def test_a_bucket_with_too_little_history_is_unknown(history: pd.Series) -> None:
    verdict = judge(history)
    assert verdict.kind == "unknown"
    assert not verdict.is_anomaly


def test_a_history_without_times_or_denominator_is_an_error() -> None:
    with pytest.raises(HistoryError, match="DatetimeIndex"):
        judge(pd.Series([1.0, 2.0]))
    with pytest.raises(HistoryError, match="denominator"):
        judge(rhythm(), kind="ratio")


def test_judging_series_together_returns_the_verdict_of_each() -> None:
    views, likes = rhythm(level=5000), rhythm(level=1000, seed=2)
    messages = rhythm(level=300, seed=3)
    messages.iloc[-1] = 0
    frame = pd.DataFrame({"messages": messages, "views": views, "ctr": likes})
    verdicts = judge_tick(frame, denominators=pd.DataFrame({"ctr": views}), kinds={"ctr": "ratio"})
    assert verdicts == {
        "messages": judge(messages),
        "views": judge(views),
        "ctr": judge(likes, denominator=views, kind="ratio"),
    }
    assert [verdict.kind for verdict in verdicts.values()] == ["drop", "normal", "normal"]


def test_the_band_of_a_chart_holds_the_ranges_of_the_verdicts() -> None:
    history = rhythm()
    rows = detector.band(history, last=3)
    assert list(rows.columns) == ["value", "expected", "lower", "upper"]
    assert list(rows.index) == list(history.index[-3:])
    verdict: Verdict = judge(history.iloc[:-1])
    assert tuple(rows.iloc[1]) == (verdict.value, verdict.expected, verdict.lower, verdict.upper)


def test_a_holiday_may_run_like_a_sunday() -> None:
    history = rhythm(42.5)  # its last day is a Friday
    history.iloc[-DAY // 2 :] *= 0.8
    assert judge(history).kind == "drop"
    assert judge(history, is_holiday={date(2024, 4, 12)}).kind == "normal"
    assert judge(history, is_holiday=lambda day: day == date(2024, 4, 12)).kind == "normal"
    assert (
        judge(history, is_holiday=pd.Series(moments(history).date == date(2024, 4, 12), history.index)).kind == "normal"
    )


@pytest.mark.parametrize("changed", [1.0, 0.4])
def test_a_holiday_may_run_like_its_own_weekday(changed: float) -> None:
    """Sundays have much lower values here. This Friday is a holiday and runs like other Fridays, or like a Sunday."""
    history = rhythm(42.5)
    history *= np.where(moments(history).day_of_week == 6, 0.4, 1)
    history.iloc[-DAY // 2 :] *= changed
    assert judge(history, is_holiday={date(2024, 4, 12)}).kind == "normal"
    assert judge(with_last(history, history.iloc[-1] / 20, 4), is_holiday={date(2024, 4, 12)}).kind == "drop"


@pytest.mark.parametrize("changed", [1.0, 2.0])
def test_the_evening_before_a_holiday_may_run_like_a_friday_evening(changed: float) -> None:
    history = rhythm(41.9)  # up to the evening of a Thursday
    evening = moments(history).hour >= 18
    history *= np.where((moments(history).day_of_week == 4) & evening, 2, 1)
    tonight = (moments(history).date == date(2024, 4, 11)) & evening
    lively = history * np.where(tonight, changed, 1)
    assert judge(lively, is_holiday={date(2024, 4, 12)}).kind == "normal"
    assert judge(lively).kind == ("normal" if changed == 1 else "spike")
    assert judge(history * np.where(tonight, 3, 1), is_holiday={date(2024, 4, 12)}).kind == "spike"


def verdicts(history: pd.Series, buckets: int) -> list[Verdict]:
    """Return the verdicts on the last buckets, each judged from its own past."""
    return [judge(history.iloc[:end]) for end in range(len(history) - buckets + 1, len(history) + 1)]


def during(history: pd.Series, start: int, end: int, factor: float) -> pd.Series:
    """Return the history with a span multiplied by a factor; the span is given in buckets from the end."""
    changed = history.copy()
    changed.iloc[start:end] = np.round(changed.iloc[start:end] * factor)
    return changed


def test_buckets_after_an_outage_are_normal() -> None:
    history = during(rhythm(), -32, -16, 0.0)
    kinds = [verdict.kind for verdict in verdicts(history, 32)]
    assert kinds == ["drop"] * 16 + ["normal"] * 16


@pytest.mark.parametrize("days", [1, 7])
def test_an_outage_causes_no_alert_a_day_or_a_week_later(days: int) -> None:
    past = DAY * days
    history = during(rhythm(), -past - 32, -past, 0.0)
    assert {verdict.kind for verdict in verdicts(history, 32)} == {"normal"}


def test_an_outage_of_days_stays_a_drop_and_its_end_is_normal() -> None:
    history = during(rhythm(), -2 * DAY, -1, 0.0)
    assert [verdict.kind for verdict in verdicts(history, 3)] == ["drop", "drop", "normal"]


def test_a_new_level_is_a_drop_at_first_and_normal_after_two_days() -> None:
    history = during(rhythm(), -3 * DAY, len(rhythm()), 0.6)
    kinds = [verdict.kind for verdict in verdicts(history, 3 * DAY)]
    assert kinds[:8] == ["drop"] * 8
    assert set(kinds[-DAY:]) == {"normal"}
    back = verdicts(with_last(history, history.iloc[-1] / 0.6), 1)[0]
    assert back.kind == "normal"  # as before the drop, so not a spike


def test_a_slow_leak_is_found_before_a_quarter_is_lost() -> None:
    history = rhythm()
    history.iloc[-32:] *= np.linspace(1, 0.5, 32)
    first = next(number for number, verdict in enumerate(verdicts(history, 32)) if verdict.kind == "drop")
    assert first <= 16


def test_a_small_deviation_that_lasts_is_found_in_a_longer_window() -> None:
    history = during(rhythm(), -20, len(rhythm()), 0.88)
    drops = [verdict for verdict in verdicts(history, 4) if verdict.kind == "drop"]
    assert {verdict.window for verdict in drops} == {16}
    assert drops[-1].deviation == pytest.approx(-0.12, abs=0.02)


def test_a_drop_of_a_ratio_is_found() -> None:
    views, likes = rhythm(), rhythm(level=2000, seed=2)
    fewer = during(likes, -4, len(likes), 0.7)
    assert judge(likes, denominator=views, kind="ratio").kind == "normal"
    verdict = judge(fewer, denominator=views, kind="ratio")
    assert verdict.kind == "drop"
    assert verdict.value == fewer.iloc[-1] / views.iloc[-1]
    assert verdict.value < verdict.lower < verdict.expected < verdict.upper < 1
    assert judge(fewer / views, denominator=views, kind="ratio") == verdict


def test_values_below_zero_can_be_judged() -> None:
    history = rhythm() / 1000 - 12
    assert judge(history, kind="value").kind == "normal"
    assert judge(with_last(history, history.iloc[-1] - 4), kind="value").kind == "drop"


@pytest.mark.parametrize("days", [17.5, 18.5])
def test_days_without_an_earlier_day_of_their_weekday_do_not_widen_the_range(days: float) -> None:
    """All weekdays differ here, so the days of the first week differ much from all days before them."""
    history = rhythm(days)
    history = (history * np.array([1, 1.3, 0.8, 1.2, 0.9, 0.5, 0.6])[moments(history).day_of_week]).round()
    assert judge(history).kind == "normal"
    assert judge(with_last(history, history.iloc[-1] * 0.6)).kind == "drop"


def test_a_single_empty_bucket_of_a_rare_event_is_normal() -> None:
    few = rhythm(level=3).iloc[: -DAY // 2]  # up to noon
    assert judge(few).kind == "normal"
    assert judge(with_last(few, 0)).kind == "normal"
    assert judge(with_last(few, 0, 24)).kind == "drop"


def test_no_day_is_compared_with_an_earlier_holiday() -> None:
    history = rhythm(49.5)  # its last day is a Friday
    for week in range(1, 4):
        past = 7 * DAY * week
        history = during(history, -past - DAY // 2, -past, 0.3)
    holidays = {date(2024, 4, 19) - timedelta(days=7 * week) for week in range(1, 4)}
    assert judge(history).kind == "spike"
    assert judge(history, is_holiday=holidays).kind == "normal"


@pytest.mark.parametrize("start", ["2024-02-25", "2024-10-01"])
def test_ordinary_buckets_stay_normal_across_clock_changes(start: str) -> None:
    """Berlin's clocks change on 31 March and 27 October 2024, and the app's rhythm follows local time."""
    index = pd.date_range(start, periods=42 * DAY, freq="15min", tz="Europe/Berlin")
    hours = index.hour.to_numpy() + index.minute.to_numpy() / 60
    mean = 10_000 * (0.6 + 0.4 * np.sin((hours - 9) / 12 * np.pi))
    history = pd.Series(np.random.default_rng(1).poisson(mean).astype(float), index)
    ends = range(len(history) - 14 * DAY, len(history), 13)
    assert {judge(history.iloc[:end]).kind for end in ends} == {"normal"}


def test_ordinary_buckets_stay_normal_across_two_clock_changes() -> None:
    """Casablanca sets its clocks back for Ramadan, from 23 February to 6 April 2025, and then forward again."""
    index = pd.date_range("2025-02-16", periods=52 * DAY, freq="15min", tz="Africa/Casablanca")
    assert index[0].utcoffset() == index[-1].utcoffset() != index[20 * DAY].utcoffset()
    hours = index.hour.to_numpy() + index.minute.to_numpy() / 60
    steep = 10_000.0 * (1 + 9 * ((hours >= 8) & (hours < 20)))
    history = pd.Series(np.random.default_rng(1).poisson(steep).astype(float), index)
    assert {judge(history.iloc[:end]).kind for end in range(len(history) - DAY, len(history))} == {"normal"}


def test_shuffled_repeated_missing_and_absurd_rows_do_not_matter() -> None:
    history = rhythm()
    plain = judge(history)
    assert judge(history.sample(frac=1, random_state=1)) == plain
    assert judge(pd.concat([history.iloc[:100] * 2, history])) == plain
    assert judge(history.drop(history.index[-12 * DAY : -9 * DAY])).kind == "normal"
    odd = history.copy()
    odd.iloc[-200:-190] = [math.inf, -math.inf, -5, 1e300, math.nan] * 2
    assert judge(odd).kind == "normal"
    assert judge(history.astype("Int64")) == plain


def test_zero_is_normal_in_a_series_of_zeros() -> None:
    nothing = rhythm() * 0
    assert judge(nothing).kind == "normal"
    assert judge(with_last(nothing, 500)).kind == "spike"


def test_buckets_of_half_an_hour_work_and_those_of_seven_minutes_do_not() -> None:
    history = rhythm(minutes=30)
    assert judge(history).kind == "normal"
    assert judge(with_last(history, 0)).kind == "drop"
    with pytest.raises(HistoryError, match="7 minutes"):
        judge(rhythm(minutes=7))


def test_a_faint_drop_of_one_series_among_many_is_not_an_anomaly() -> None:
    """The same drop is an anomaly if the series is judged alone, or if all series show it."""
    history, by_score = rhythm(), Thresholds(effect=0.01)
    expected = round(judge(history).expected)
    faint = next(
        faint
        for faint in (with_last(history, expected - missing) for missing in range(100, 3000, 20))
        if judge(faint, thresholds=by_score).is_anomaly
    )
    others = {f"other {number}": rhythm(seed=number) for number in range(2, 60)}
    alone = judge_tick(pd.DataFrame({"faint": faint, **others}), thresholds=by_score)
    assert not alone["faint"].is_anomaly
    together = judge_tick(pd.DataFrame({f"faint {number}": faint for number in range(60)}), thresholds=by_score)
    assert all(verdict.is_anomaly for verdict in together.values())


def test_events_are_found_in_metrics_by_which_nothing_was_tuned() -> None:
    """The benchmark's score for one made-up app over four days."""
    score = measure(metrics.make(200, groups=1, scored_days=4))
    assert score.recall >= 0.8
    assert score.per_week <= 0.5
    assert score.late > 0
    assert score.late_told == score.late
    assert score.late_as_drop == 0


def test_a_blizzard_is_found_in_taxi_rides() -> None:
    rides = taxis.stand_in(3).loc["2014-12-15":"2015-01-27"]
    assert taxis.judge_taxis(rides) == (1, 0)


@pytest.mark.parametrize(
    ("timezone", "change"),
    [
        ("Europe/Berlin", "2025-10-26T01:00Z"),
        ("America/Havana", "2025-11-02T05:00Z"),  # back to midnight
        ("Australia/Lord_Howe", "2025-04-05T15:00Z"),  # by half an hour
        ("Antarctica/Troll", "2025-10-26T01:00Z"),  # by two hours
    ],
)
def test_both_passes_of_a_repeated_hour_are_judged_normal(timezone: str, change: str) -> None:
    end = pd.Timestamp(change).tz_convert(timezone) + pd.Timedelta(hours=4)
    index = pd.date_range(end - pd.Timedelta(days=46), end, freq="15min")
    history = pd.Series(100.0 + np.arange(len(index)) % 7, index)
    for moment in index[-24:]:
        assert judge(history[:moment]).kind == "normal", moment


# --- constants of the rule, by hand -----------------------------------------------------------------------------------


def constant(days: float, level: float) -> pd.Series:
    """Return a metric that never changes, so that its expected range depends only on the rule's constants."""
    return rhythm(days) * 0 + level


@pytest.mark.parametrize(("left", "kind"), [(0.24, "drop"), (0.26, "normal")])
def test_a_day_below_a_quarter_of_the_weeks_level_is_an_outage_not_a_new_level(left: float, kind: str) -> None:
    history = during(constant(42, 1_000_000), -2 * DAY, 42 * DAY, left)
    assert judge(history).kind == kind


@pytest.mark.parametrize(("days", "wider"), [(42, 1.0), (10, 1.1)])
def test_the_range_is_a_tenth_wider_with_few_days_of_the_same_weekday(days: float, wider: float) -> None:
    """With many events the least effect decides the range: 4.25 times the threshold in a single bucket."""
    history = constant(days, 1e8)
    upper = judge(history, thresholds=Thresholds(effect=0.08)).upper
    assert upper / 1e8 - 1 == pytest.approx(0.08 * 4.25 * wider)
    lower = judge(history, thresholds=Thresholds(effect=0.08)).lower
    assert 1 - lower / 1e8 == pytest.approx(0.08 * 4.25 * wider)


@pytest.mark.parametrize(("days", "wider"), [(42, 1.0), (10, 1.1)])
def test_the_range_of_few_events_comes_from_the_least_score(days: float, wider: float) -> None:
    """By hand: twice the root of a count has a standard deviation of 1; one bucket needs 1.3 times the least score."""
    upper = judge(constant(days, 100), thresholds=Thresholds(score=4, effect=0.01)).upper
    score = 4 * wider * 1.3 * (1 + 0.5 / math.sqrt(100 + 3 / 8))
    assert 2 * (math.sqrt(upper + 3 / 8) - math.sqrt(100 + 3 / 8)) == pytest.approx(score)


@pytest.mark.parametrize(("missing", "kind"), [(0.2, "normal"), (0.215, "drop")])
def test_a_drop_of_hours_is_over_once_less_than_three_quarters_of_it_show(missing: float, kind: str) -> None:
    """By hand: three hours lack 30 %; the last hour must lack x ≥ 0.75 (12 · 0.3 + 4 x) / 16, which is 20.8 %."""
    history = during(during(constant(42, 1_000_000), -16, -4, 0.7), -4, 42 * DAY, 1 - missing)
    verdict = judge(history)
    assert verdict.kind == kind
    assert kind == "normal" or verdict.window == 16


def test_a_count_of_fifty_is_expected_half_from_its_neighbours() -> None:
    """By hand: 60 events between two buckets of 45, so 50 on average; the expected value lies halfway, at 55."""
    history = constant(42, 45)
    at_the_time = moments(history).time == history.index[-1].time()
    verdict = judge(history.where(~at_the_time, 60.0))
    assert verdict.expected == pytest.approx(55)


@pytest.fixture(scope="module")
def every_rule() -> dict[str, list[dict[str, Verdict]]]:
    """The verdicts on three days of a made-up app, for each rule of the benchmark's table."""
    app = metrics.make(1, training_days=14, scored_days=3, groups=1)
    history, denominators = app.history(), app.denominators()
    verdicts: dict[str, list[dict[str, Verdict]]] = {}
    for name in ABLATIONS:
        with left_out(name):
            verdicts[name] = [
                judge_tick(
                    history.iloc[:end],
                    denominators=denominators.iloc[:end],
                    kinds=dict.fromkeys(app.bottom, "ratio"),
                    is_holiday=app.holidays,
                )
                for end in range(app.scored + 1, len(history), 5)
            ]
    return verdicts


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != ALONE])
def test_leaving_out_any_part_of_the_rule_changes_verdicts(
    every_rule: dict[str, list[dict[str, Verdict]]], name: str
) -> None:
    assert repr(every_rule[name]) != repr(every_rule[ALONE])


def test_the_benchmark_leaves_the_rule_as_it_was() -> None:
    history = with_last(rhythm(), 9_000)
    before = judge(history)
    for name in ABLATIONS:
        with left_out(name):
            judge(history)
    assert judge(history) == before
    with left_out(WHOLE):
        assert judge(history) == before
