"""The detector: what is an anomaly, what is not, and what it says of history that is not as it should be."""

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest

from pulse import anomalies
from pulse.anomalies import HistoryError, Verdict, judge, judge_tick

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
    rows = anomalies.band(history, last=3)
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
