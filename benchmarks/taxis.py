"""Half a year of taxi rides, a stand-in for those of New York: the detector on a series that is not an app's."""

from datetime import date, datetime, timedelta
from typing import TypeAlias

import numpy as np
import pandas as pd

from benchmarks import metrics
from benchmarks.ablation import WHOLE, left_out
from pulse.monitoring import detector

SEEN = 2400  # half-hours of history that the detector gets, a little more than it uses

HOLIDAYS = {
    date(2014, 7, 4), date(2014, 9, 1), date(2014, 10, 13), date(2014, 11, 11), date(2014, 11, 27),
    date(2014, 12, 25), date(2015, 1, 1), date(2015, 1, 19),
}  # fmt: skip
EVENTS = {  # the known events, each with the days on which an alert counts as right
    "marathon": (date(2014, 10, 31), date(2014, 11, 3)),
    "Thanksgiving": (date(2014, 11, 26), date(2014, 11, 30)),
    "Christmas": (date(2014, 12, 23), date(2014, 12, 28)),
    "New Year": (date(2014, 12, 29), date(2015, 1, 3)),
    "blizzard": (date(2015, 1, 25), date(2015, 1, 29)),
}


def stand_in(seed: int) -> pd.Series:
    """Taxi rides by half-hour, July 2014 to January 2015, as New York's: level, seasonality, weather, events."""
    random = np.random.default_rng([2014, seed])
    index = pd.date_range("2014-07-01", "2015-01-31 23:30", freq="30min")
    hours, weekday = (index.hour + index.minute / 60).to_numpy(), index.day_of_week.to_numpy()
    free = (weekday >= 5) | np.isin(index.date, np.array(sorted(HOLIDAYS)))
    working = np.interp(hours, [0, 4.5, 6, 8.5, 14, 16.5, 19, 22, 24], [11, 2.2, 5, 20, 19, 14.5, 26, 22, 11])
    leisure = np.interp(hours, [0, 3, 6, 9, 13, 19, 23, 24], [18, 9, 2.6, 7, 14, 17, 19, 18])
    rides = 1000 * np.where(free, leisure, working) * (1 + 0.03 * (weekday - 3) * ~free)
    rides *= np.exp(metrics.noise(random, len(index), 0.8, 0.03) + metrics.noise(random, len(index), 0.995, 0.04))
    for _ in range(60):  # rain, for a few hours
        at, lasts = int(random.integers(len(index))), int(random.integers(4, 16))
        rides[at : at + lasts] *= 1 + random.normal(0, 0.08)

    def change(start: str, end: str, factor: float) -> None:
        rides[index.slice_indexer(start, pd.Timestamp(end) - pd.Timedelta(1))] *= factor

    change("2014-11-02 01:00", "2014-11-02 02:00", 2.0)  # the hour that the clock change repeats
    change("2014-11-02 09:00", "2014-11-02 17:00", 1.2)
    change("2014-11-27 06:00", "2014-11-28 00:00", 0.65)
    change("2014-12-24 18:00", "2014-12-26 06:00", 0.5)
    change("2014-12-31 22:00", "2015-01-01 04:00", 1.7)
    change("2015-01-01 06:00", "2015-01-01 22:00", 0.75)
    change("2015-01-26 14:00", "2015-01-27 12:00", 0.15)
    return pd.Series(random.poisson(rides).astype(float), index)


Result: TypeAlias = tuple[int, int]
"""How many of the five events were found, and how many false alarms there were."""


def judge_taxis(rides: pd.Series, ablation: str = WHOLE) -> Result:
    """Judge every half-hour from the seventh week on. False alerts within a day count as one false alarm.

    Args:
        rides: the number of rides by half-hour.
        ablation: a key of `ABLATIONS`.
    """
    history, first = rides.to_frame("rides"), int(6 * metrics.WEEK / 2)
    found: set[str] = set()
    false: list[datetime] = []
    with left_out(ablation):
        for end in range(first + 1, len(rides) + 1):
            seen = history.iloc[max(0, end - SEEN) : end]
            if not detector.judge_tick(seen, is_holiday=HOLIDAYS)["rides"].is_anomaly:
                continue
            alert = seen.index[-1]
            explained = [name for name, (start, end) in EVENTS.items() if start <= alert.date() <= end]
            found.update(explained)
            if not explained and (not false or alert - false[-1] > timedelta(days=1)):
                false.append(alert)
    return len(found), len(false)
