"""Data for the tests of the report's text and chart: eight days whose changes are easy to see."""

from datetime import date, timedelta

from pulse.metrics import DayMetrics, shown_in

DAY = date(2026, 11, 22)  # a Sunday

METRICS = shown_in("report")

_ROWS = [  # from Sunday to Sunday, in the order of the metrics
    (1_375, 80, 800, 25_000, 5_000, 0.2, 160, 4_000, 1.25),
    (1_200, 90, 900, 21_000, 4_200, 0.2, 210, 3_300, 1.3),
    (1_150, 95, 910, 20_500, 4_305, 0.21, 240, 3_200, 1.28),
    (1_120, 98, 920, 20_000, 4_000, 0.2, 260, 3_100, 1.27),
    (1_130, 101, 930, 19_000, 3_990, 0.21, 255, 3_000, 1.26),
    (1_090, 110, 960, 18_000, 3_960, 0.22, 245, 2_800, 1.24),
    (1_000, 125, 1_000, 16_000, 4_100, 0.25625, 250, 2_400, 1.2),
    (1_100, 100, 1_000, 20_000, 4_000, 0.2, 200, 3_000, 1.25),
]
assert len(_ROWS[0]) == len(METRICS), "tests/unit/reported.py lacks a number of a metric that the report shows"


def eight_days() -> dict[date, DayMetrics]:
    """Return the rows by day, from the Sunday before to the event date."""
    columns = [metric.column for metric in METRICS]
    return {DAY - timedelta(days=7 - number): dict(zip(columns, row, strict=True)) for number, row in enumerate(_ROWS)}
