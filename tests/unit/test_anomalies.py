"""The detector: what is an anomaly, what is not, and what it says of history that is not as it should be."""

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest

from benchmarks import anomalies as benchmark
from benchmarks import metrics
from pulse.monitoring import detector
from pulse.monitoring.detector import HistoryError, Thresholds, Verdict, judge, judge_tick

DAY = 96


def rhythm(days: float = 42, *, level: float = 10_000, seed: int = 1, minutes: int = 15, tz: str | None = None):
    """A metric by bucket, from a Friday on: more by day than by night, less at weekends, with the noise of counting."""
    index = pd.date_range("2024-03-01", periods=int(days * 24 * 60 / minutes), freq=f"{minutes}min", tz=tz)
    hours = index.hour.to_numpy() + index.minute.to_numpy() / 60
    mean = level * (0.6 + 0.4 * np.sin((hours - 9) / 12 * np.pi)) * np.where(index.day_of_week >= 5, 0.8, 1)
    return pd.Series(np.random.default_rng(seed).poisson(mean).astype(float), index)


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
def test_half_of_it_missing_or_half_too_much_is_seen_at_once(factor: float, kind: str) -> None:
    history = rhythm()
    verdict = judge(with_last(history, history.iloc[-1] * factor))
    assert verdict.kind == kind
    assert verdict.is_anomaly
    assert verdict.deviation == pytest.approx(factor - 1, abs=0.1)
    assert not verdict.lower <= verdict.value <= verdict.upper


def test_a_late_source_is_told_as_late_and_never_as_a_drop() -> None:
    history = with_last(rhythm(), 0, 2)
    assert judge(history, lag_minutes=30).kind == "data_lag"
    assert judge(history, lag_minutes=15).kind == "data_lag"
    assert judge(with_last(rhythm(), math.nan), lag_minutes=40).kind == "data_lag"


def test_a_lag_of_less_than_a_bucket_explains_its_share_and_no_more() -> None:
    history = rhythm()
    two_thirds = with_last(history, history.iloc[-1] * 2 / 3)
    assert judge(two_thirds).kind == "drop"
    assert judge(two_thirds, lag_minutes=5).kind == "data_lag"
    assert judge(history, lag_minutes=5).kind == "normal"
    assert judge(with_last(history, 0), lag_minutes=5).kind == "drop"


def test_no_row_is_unknown() -> None:
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
def test_too_little_to_judge_by_is_unknown(history: pd.Series) -> None:
    verdict = judge(history)
    assert verdict.kind == "unknown"
    assert not verdict.is_anomaly


def test_a_history_without_times_is_a_sentence() -> None:
    with pytest.raises(HistoryError, match="DatetimeIndex"):
        judge(pd.Series([1.0, 2.0]))
    with pytest.raises(HistoryError, match="denominator"):
        judge(rhythm(), kind="ratio")


def test_a_tick_gives_the_verdicts_of_its_series() -> None:
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


def test_the_band_is_that_of_the_verdicts() -> None:
    history = rhythm()
    rows = detector.band(history, last=3)
    assert list(rows.columns) == ["value", "expected", "lower", "upper"]
    assert list(rows.index) == list(history.index[-3:])
    verdict: Verdict = judge(history.iloc[:-1])
    assert tuple(rows.iloc[1]) == (verdict.value, verdict.expected, verdict.lower, verdict.upper)


def test_a_holiday_is_like_a_sunday() -> None:
    history = rhythm(42.5)  # its last day is a Friday
    history.iloc[-DAY // 2 :] *= 0.8
    assert judge(history).kind == "drop"
    assert judge(history, is_holiday={date(2024, 4, 12)}).kind == "normal"
    assert judge(history, is_holiday=lambda day: day == date(2024, 4, 12)).kind == "normal"
    assert judge(history, is_holiday=pd.Series(history.index.date == date(2024, 4, 12), history.index)).kind == "normal"


@pytest.mark.parametrize("changed", [1.0, 0.4])
def test_a_holiday_may_go_like_its_own_weekday(changed: float) -> None:
    """Sundays hold much less here; this Friday is a holiday, and does as Fridays do, or as Sundays do."""
    history = rhythm(42.5)
    history *= np.where(history.index.day_of_week == 6, 0.4, 1)
    history.iloc[-DAY // 2 :] *= changed
    assert judge(history, is_holiday={date(2024, 4, 12)}).kind == "normal"
    assert judge(with_last(history, history.iloc[-1] / 20, 4), is_holiday={date(2024, 4, 12)}).kind == "drop"


@pytest.mark.parametrize("changed", [1.0, 2.0])
def test_the_evening_before_a_holiday_may_go_like_a_fridays(changed: float) -> None:
    history = rhythm(41.9)  # up to the evening of a Thursday
    evening = history.index.hour >= 18
    history *= np.where((history.index.day_of_week == 4) & evening, 2, 1)
    tonight = (history.index.date == date(2024, 4, 11)) & evening
    lively = history * np.where(tonight, changed, 1)
    assert judge(lively, is_holiday={date(2024, 4, 12)}).kind == "normal"
    assert judge(lively).kind == ("normal" if changed == 1 else "spike")
    assert judge(history * np.where(tonight, 3, 1), is_holiday={date(2024, 4, 12)}).kind == "spike"


def verdicts(history: pd.Series, buckets: int, **given: object) -> list[Verdict]:
    """Those of the last so many buckets, each by its own past."""
    return [judge(history.iloc[:end], **given) for end in range(len(history) - buckets + 1, len(history) + 1)]


def during(history: pd.Series, start: int, end: int, factor: float) -> pd.Series:
    """The history with so much of it left from one bucket up to another, counted from the end."""
    changed = history.copy()
    changed.iloc[start:end] = np.round(changed.iloc[start:end] * factor)
    return changed


def test_what_is_over_is_not_told_again() -> None:
    history = during(rhythm(), -32, -16, 0.0)
    kinds = [verdict.kind for verdict in verdicts(history, 32)]
    assert kinds == ["drop"] * 16 + ["normal"] * 16


@pytest.mark.parametrize("days", [1, 7])
def test_yesterdays_outage_does_not_echo(days: int) -> None:
    past = DAY * days
    history = during(rhythm(), -past - 32, -past, 0.0)
    assert {verdict.kind for verdict in verdicts(history, 32)} == {"normal"}


def test_an_outage_of_days_goes_on_being_one_and_its_end_is_no_spike() -> None:
    history = during(rhythm(), -2 * DAY, -1, 0.0)
    assert [verdict.kind for verdict in verdicts(history, 3)] == ["drop", "drop", "normal"]


def test_a_level_that_stays_is_told_and_then_taken_as_it_is() -> None:
    history = during(rhythm(), -3 * DAY, len(rhythm()), 0.6)
    kinds = [verdict.kind for verdict in verdicts(history, 3 * DAY)]
    assert kinds[:8] == ["drop"] * 8
    assert set(kinds[-DAY:]) == {"normal"}
    back = verdicts(with_last(history, history.iloc[-1] / 0.6), 1)[0]
    assert back.kind == "normal"  # as it was before: no spike


def test_a_slow_leak_is_found_before_a_quarter_is_lost() -> None:
    history = rhythm()
    history.iloc[-32:] *= np.linspace(1, 0.5, 32)
    first = next(number for number, verdict in enumerate(verdicts(history, 32)) if verdict.kind == "drop")
    assert first <= 16


def test_what_is_small_but_lasts_is_found_in_a_longer_window() -> None:
    history = during(rhythm(), -20, len(rhythm()), 0.88)
    drops = [verdict for verdict in verdicts(history, 4) if verdict.kind == "drop"]
    assert {verdict.window for verdict in drops} == {16}
    assert drops[-1].deviation == pytest.approx(-0.12, abs=0.02)


def test_a_ratio_may_drop_while_its_counts_do_not() -> None:
    views, likes = rhythm(), rhythm(level=2000, seed=2)
    fewer = during(likes, -4, len(likes), 0.7)
    assert judge(likes, denominator=views, kind="ratio").kind == "normal"
    verdict = judge(fewer, denominator=views, kind="ratio")
    assert verdict.kind == "drop"
    assert verdict.value == fewer.iloc[-1] / views.iloc[-1]
    assert verdict.value < verdict.lower < verdict.expected < verdict.upper < 1
    assert judge(fewer / views, denominator=views, kind="ratio") == verdict


def test_a_value_may_be_below_zero() -> None:
    history = rhythm() / 1000 - 12
    assert judge(history, kind="value").kind == "normal"
    assert judge(with_last(history, history.iloc[-1] - 4), kind="value").kind == "drop"


@pytest.mark.parametrize("days", [17.5, 18.5])
def test_days_that_only_other_weekdays_came_before_do_not_say_how_far_off_is_ordinary(days: float) -> None:
    """No weekday is like another here: the first week's days are far off all that came before them."""
    history = rhythm(days)
    history = (history * np.array([1, 1.3, 0.8, 1.2, 0.9, 0.5, 0.6])[history.index.day_of_week]).round()
    assert judge(history).kind == "normal"
    assert judge(with_last(history, history.iloc[-1] * 0.6)).kind == "drop"


def test_few_events_are_judged_by_chance() -> None:
    few = rhythm(level=3).iloc[: -DAY // 2]  # up to noon
    assert judge(few).kind == "normal"
    assert judge(with_last(few, 0)).kind == "normal"
    assert judge(with_last(few, 0, 24)).kind == "drop"


def test_a_holiday_is_no_reference() -> None:
    history = rhythm(49.5)  # its last day is a Friday
    for week in range(1, 4):
        past = 7 * DAY * week
        history = during(history, -past - DAY // 2, -past, 0.3)
    holidays = {date(2024, 4, 19) - pd.Timedelta(days=7 * week) for week in range(1, 4)}
    assert judge(history).kind == "spike"
    assert judge(history, is_holiday=holidays).kind == "normal"


@pytest.mark.parametrize("start", ["2024-02-25", "2024-10-01"])
def test_daylight_saving_moves_no_rhythm(start: str) -> None:
    """The clocks of Berlin change on 31 March and 27 October 2024; the app's rhythm keeps to them."""
    index = pd.date_range(start, periods=42 * DAY, freq="15min", tz="Europe/Berlin")
    hours = index.hour.to_numpy() + index.minute.to_numpy() / 60
    mean = 10_000 * (0.6 + 0.4 * np.sin((hours - 9) / 12 * np.pi))
    history = pd.Series(np.random.default_rng(1).poisson(mean).astype(float), index)
    ends = range(len(history) - 14 * DAY, len(history), 13)
    assert {judge(history.iloc[:end]).kind for end in ends} == {"normal"}


def test_clocks_that_go_back_and_forth_within_the_history_move_no_rhythm() -> None:
    """In Casablanca they go back for Ramadan, from 23 February to 6 April 2025; before and after it, they are alike."""
    index = pd.date_range("2025-02-16", periods=52 * DAY, freq="15min", tz="Africa/Casablanca")
    assert index[0].utcoffset() == index[-1].utcoffset() != index[20 * DAY].utcoffset()
    hours = index.hour.to_numpy() + index.minute.to_numpy() / 60
    steep = 10_000.0 * (1 + 9 * ((hours >= 8) & (hours < 20)))
    history = pd.Series(np.random.default_rng(1).poisson(steep).astype(float), index)
    assert {judge(history.iloc[:end]).kind for end in range(len(history) - DAY, len(history))} == {"normal"}


def test_odd_rows_do_not_matter() -> None:
    history = rhythm()
    plain = judge(history)
    assert judge(history.sample(frac=1, random_state=1)) == plain
    assert judge(pd.concat([history.iloc[:100] * 2, history])) == plain
    assert judge(history.drop(history.index[-12 * DAY : -9 * DAY])).kind == "normal"
    odd = history.copy()
    odd.iloc[-200:-190] = [math.inf, -math.inf, -5, 1e300, math.nan] * 2
    assert judge(odd).kind == "normal"
    assert judge(history.astype("Int64")) == plain


def test_nothing_at_all_is_normal_where_nothing_ever_is() -> None:
    nothing = rhythm() * 0
    assert judge(nothing).kind == "normal"
    assert judge(with_last(nothing, 500)).kind == "spike"


def test_half_hours_are_buckets_too_and_seven_minutes_are_not() -> None:
    history = rhythm(minutes=30)
    assert judge(history).kind == "normal"
    assert judge(with_last(history, 0)).kind == "drop"
    with pytest.raises(HistoryError, match="7 minutes"):
        judge(rhythm(minutes=7))


def test_of_many_series_one_must_stand_out_more() -> None:
    """A drop that one series alone is told of is not told among many that are as they should be."""
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


def test_events_are_found_in_metrics_that_nobody_tuned() -> None:
    """The benchmark's own score, of one made-up app over four days."""
    score = benchmark.measure(metrics.make(200, groups=1, scored_days=4))
    assert score.recall >= 0.8
    assert score.per_week <= 0.5
    assert score.late > 0
    assert score.late_told == score.late
    assert score.late_as_drop == 0


def test_a_blizzard_is_found_in_taxi_rides() -> None:
    rides = benchmark.taxis(3).loc["2014-12-15":"2015-01-27"]
    assert benchmark.judge_taxis(rides) == (1, 0)


@pytest.mark.parametrize(
    ("timezone", "change"),
    [
        ("Europe/Berlin", "2025-10-26T01:00Z"),
        ("America/Havana", "2025-11-02T05:00Z"),  # back to midnight
        ("Australia/Lord_Howe", "2025-04-05T15:00Z"),  # by half an hour
        ("Antarctica/Troll", "2025-10-26T01:00Z"),  # by two hours
    ],
)
def test_every_bucket_of_the_hour_that_comes_twice_is_judged(timezone: str, change: str) -> None:
    end = pd.Timestamp(change).tz_convert(timezone) + pd.Timedelta(hours=4)
    index = pd.date_range(end - pd.Timedelta(days=46), end, freq="15min")
    history = pd.Series(100.0 + np.arange(len(index)) % 7, index)
    for moment in index[-24:]:
        assert judge(history[:moment]).kind == "normal", moment
