"""The chart of the week: what its axes, labels and lines say, and how it looks."""

from datetime import date, timedelta
from math import isnan
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from reported import DAY, METRICS, eight_days

from pulse.metrics import PARTS, DayMetrics
from pulse.reports import charts
from pulse.settings import Language
from pulse.wording import GAP

BASELINE = Path(__file__).parent / "baseline"
both_languages = pytest.mark.parametrize("language", ["en", "ru"])


def drawn(language: Language = "en", days: dict[date, DayMetrics] | None = None) -> Figure:
    """Return the chart as it will be saved."""
    figure = charts.week(DAY, METRICS, eight_days() if days is None else days, language)
    figure.draw_without_rendering()
    return figure


def panels(figure: Figure) -> list[Axes]:
    """Return the panels, in the order of the metrics."""
    return [axis for axis in figure.axes if axis.get_title(loc="left")]


def texts(figure: Figure) -> list[str]:
    """Return the texts above the panels: the finding, the day and the names of the parts."""
    return [text.get_text().replace(GAP, " ") for axis in figure.axes for text in axis.texts]


def labels(found: list[Text]) -> list[str]:
    return [label.get_text().replace(GAP, " ") for label in found]


def test_every_metric_has_a_panel_with_its_value() -> None:
    found = [(axis.get_title(loc="left"), axis.get_title(loc="right")) for axis in panels(drawn())]
    assert found == [
        ("DAU, users", "1,100"),
        ("feed & messenger", "100"),
        ("DAU, users", "1,000"),
        ("views", "20,000"),
        ("likes", "4,000"),
        ("CTR", "20.0%"),
        ("DAU, users", "200"),
        ("messages sent", "3,000"),
        ("sent / received", "1.25"),
    ]


def test_the_title_is_the_finding_and_the_parts_are_named() -> None:
    assert texts(drawn("en")) == [
        "DAU 1,100, −20.0% vs Sun 15, +10.0% vs Sat 21",
        "Sunday 22 November 2026",
        "App",
        "Feed",
        "Messenger",
    ]
    assert texts(drawn("ru")) == [
        "DAU 1 100, −20,0% к вс 15, +10,0% к сб 21",
        "Воскресенье, 22 ноября 2026",
        "Приложение",
        "Лента",
        "Мессенджер",
    ]


def test_the_lines_are_the_seven_days() -> None:
    week = [DAY - timedelta(days=back) for back in range(6, -1, -1)]
    for metric, axis in zip(METRICS, panels(drawn()), strict=True):
        line, event = axis.get_lines()
        assert list(line.get_xdata()) == list(range(7))
        assert list(line.get_ydata()) == [eight_days()[day][metric.column] for day in week]
        assert (list(event.get_xdata()), list(event.get_ydata())) == ([6], [eight_days()[DAY][metric.column]])


def test_the_week_is_grey_and_the_event_date_has_its_parts_colour() -> None:
    figure = drawn()
    for metric, axis in zip(METRICS, panels(figure), strict=True):
        line, event = axis.get_lines()
        assert to_hex(line.get_color()) == charts.GREY.lower()
        assert to_hex(event.get_color()) == PARTS[metric.part].color.lower()
        assert to_hex(axis.get_xticklabels()[-1].get_color()) == PARTS[metric.part].color.lower()
    named = {text.get_text(): to_hex(text.get_color()) for axis in figure.axes for text in axis.texts}
    assert [named[name] for name in ("App", "Feed", "Messenger")] == [part.color.lower() for part in PARTS.values()]


@pytest.mark.parametrize(
    ("language", "dates", "views", "ctr"),
    [
        ("en", ["Mon 16", "Thu 19", "Sun 22"], "20,000", "20.0%"),
        ("ru", ["пн 16", "чт 19", "вс 22"], "20 000", "20,0%"),
    ],
)
def test_axes_have_dates_and_units(language: Language, dates: list[str], views: str, ctr: str) -> None:
    found = panels(drawn(language))
    for axis in found:
        assert labels(axis.get_xticklabels()) == dates
        assert list(axis.get_xticks()) == [0, 3, 6]
        assert axis.get_xlim() == (-0.5, 6.5)
    assert views in labels(found[3].get_yticklabels())
    assert ctr in labels(found[5].get_yticklabels())


def test_a_change_by_a_percent_looks_like_one() -> None:
    days = {day: {**row, "app_users": 1_000 + (day == DAY) * 10} for day, row in eight_days().items()}
    low, high = panels(drawn(days=days))[0].get_ylim()
    assert 10 / (high - low) < 0.05


def test_missing_days_are_gaps() -> None:
    days = {day: row for day, row in eight_days().items() if day.day not in (18, 19)}
    for axis in panels(drawn(days=days)):
        values = axis.get_lines()[0].get_ydata()
        assert [isnan(value) for value in values] == [False, False, True, True, False, False, False]
        shaded = [patch.get_x() for patch in axis.patches if isinstance(patch, Rectangle)]
        assert shaded == [1.5, 2.5]


@both_languages
def test_what_the_shade_means_is_said_where_there_is_one(language: Language) -> None:
    words = {"en": "no data", "ru": "нет данных"}[language]
    assert words not in texts(drawn(language))
    assert words in texts(drawn(language, {day: row for day, row in eight_days().items() if day.day != 18}))
    # A published day for which this number cannot be computed is a gap, too.
    days = eight_days()
    days[DAY - timedelta(days=2)] = {**days[DAY - timedelta(days=2)], "ctr": None}
    figure = drawn(language, days)
    assert words in texts(figure)
    assert [bool(axis.patches) for axis in panels(figure)] == [metric.column == "ctr" for metric in METRICS]


@pytest.mark.parametrize(
    ("value", "language"),
    [(0, "en"), (1, "ru"), (2, "en"), (3, "ru"), (7, "en"), (0.0004, "ru"), (0.004, "en"), (0.004, "ru"), (0.3, "en")],
)
def test_no_two_ticks_say_the_same_and_the_dot_stands_on_its_own(value: float, language: Language) -> None:
    days: dict[date, DayMetrics] = {day: dict.fromkeys(eight_days()[DAY], value) for day in eight_days()}
    for metric, axis in zip(METRICS, panels(drawn(language, days)), strict=True):
        low, high = axis.get_ylim()
        ticks = {
            round(tick, 6): label for tick, label in zip(axis.get_yticks(), labels(axis.get_yticklabels()), strict=True)
        }
        shown = [label for tick, label in ticks.items() if low <= tick <= high]
        assert len(shown) >= 2
        assert len(set(shown)) == len(shown)
        # A gridline lies exactly at the value that its label says: no label is rounded.
        finest = charts.FINEST[metric.unit]
        assert all(abs(tick / finest - round(tick / finest)) < 1e-6 for tick in ticks)
        # If a gridline has the same label as the value, the value lies on it.
        same = [tick for tick, label in ticks.items() if label == axis.get_title(loc="right").replace(GAP, " ")]
        whole = metric.unit in ("users", "count") and value == int(value)
        assert not whole or same == [] or same == [value]


def test_dots_at_the_edge_are_whole_and_dates_stay_within_their_panel() -> None:
    days: dict[date, DayMetrics] = {day: dict.fromkeys(eight_days()[DAY], 0) for day in eight_days()}
    figure = drawn(days=days)
    for axis in panels(figure):
        assert not any(line.get_clip_on() for line in axis.get_lines())
        box = axis.get_window_extent()
        for label in axis.get_xticklabels():
            assert label.get_window_extent().x0 >= box.x0 - 1
            assert label.get_window_extent().x1 <= box.x1 + 1


def test_a_first_day_and_a_day_without_views_are_drawn_without_nan() -> None:
    row = {**eight_days()[DAY], "views": 0, "likes": 0, "ctr": float("nan"), "sent_per_received": None}
    figure = drawn(days={DAY: row})
    found = panels(figure)
    assert found[3].get_title(loc="right") == "0"
    assert [found[place].get_title(loc="right") for place in (5, 8)] == ["–", "–"]
    written = [text.get_text() for text in figure.findobj(Text)]
    assert not [text for text in written if "nan" in text.lower() or "none" in text.lower()]
    assert texts(figure)[0] == "DAU 1,100"


@pytest.mark.parametrize(
    ("value", "language"), [(3, "en"), (999_999, "ru"), (123_456_789, "en"), (2**64 - 1, "en"), (2**64 - 1, "ru")]
)
def test_no_label_runs_into_another_whatever_the_numbers(value: int, language: Language) -> None:
    days: dict[date, DayMetrics] = {day: dict.fromkeys(eight_days()[DAY], value) for day in eight_days()}
    figure = drawn(language, days)
    edge = figure.bbox
    for axis in panels(figure):
        titles = [text for text in axis.get_children() if isinstance(text, Text) and text.get_text()]
        boxes = [text.get_window_extent() for text in titles]
        assert len(boxes) == 2
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])
        for label in [*axis.get_yticklabels(), *axis.get_xticklabels()]:
            box = label.get_window_extent()
            assert box.x0 >= edge.x0 - 1
            assert box.x1 <= edge.x1 + 1
    for axis in figure.axes:
        assert all(text.get_window_extent().x1 <= edge.x1 for text in axis.texts)


def test_it_is_a_photo_that_a_phone_can_read() -> None:
    figure = drawn()
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    assert width == 1080
    assert width + height <= 10_000
    assert height / width < 1.3  # with its caption it fits one screen
    at_phone = 400 / width * figure.dpi / 72
    sizes = [text.get_fontsize() * at_phone for text in figure.findobj(Text) if text.get_text()]
    assert min(sizes) >= 9
    assert to_hex(figure.get_facecolor()) == "#ffffff"  # a background of its own, whatever the chat's is


def test_nothing_is_left_behind() -> None:
    before = (plt.get_fignums(), dict(plt.rcParams))
    drawn()
    assert (plt.get_fignums(), dict(plt.rcParams)) == before


def test_the_same_data_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        drawn().savefig(tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


ADVICE = "look at the picture; if it is meant, copy it to tests/unit/baseline/"


@both_languages
def test_it_looks_as_it_should(language: Language, tmp_path: Path) -> None:
    days = {day: row for day, row in eight_days().items() if day.day not in (18, 19) or language == "en"}
    picture = tmp_path / f"week_{language}.png"
    charts.week(DAY, METRICS, days, language).savefig(picture, dpi=60)
    expected = BASELINE / picture.name
    assert expected.is_file(), f"{picture}: {ADVICE}"
    difference = compare_images(str(expected), str(picture), tol=4)
    assert difference is None, f"{difference}\n{ADVICE}"
