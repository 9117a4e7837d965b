"""What readers read, in both languages: every number, word and dash by hand."""

from datetime import date, datetime, time, timedelta
from html.parser import HTMLParser

import pytest
from reported import DAY, METRICS, eight_days

from pulse import messages
from pulse.messages import GAP, Language, Metric, Row, Unit
from pulse.telegram import MAX_CAPTION, MAX_TEXT, length

both_languages = pytest.mark.parametrize("language", ["en", "ru"])

REPORT = """\
<b>Sunday 22 November 2026</b>
vs Sat 21 · Sun 15
🟦 <b>App</b>
<code> 1,100</code> +10.0% · −20.0% DAU
<code>   100</code> −20.0% · +25.0% in both
🟧 <b>Feed</b>
<code> 1,000</code> 0.0% · +25.0% DAU
<code>20,000</code> +25.0% · −20.0% views
<code> 4,000</code> −2.4% · −20.0% likes
<code> 20.0%</code> −5.6pp · 0.0pp CTR
🟩 <b>Messenger</b>
<code>   200</code> −20.0% · +25.0% DAU
<code> 3,000</code> +25.0% · −25.0% messages
<code>  1.25</code> +0.05 · 0.00 sent / received"""

REPORT_RU = """\
<b>Воскресенье, 22 ноября 2026</b>
к сб 21 · вс 15
🟦 <b>Приложение</b>
<code> 1 100</code> +10,0% · −20,0% DAU
<code>   100</code> −20,0% · +25,0% в обоих
🟧 <b>Лента</b>
<code> 1 000</code> 0,0% · +25,0% DAU
<code>20 000</code> +25,0% · −20,0% просмотры
<code> 4 000</code> −2,4% · −20,0% лайки
<code> 20,0%</code> −5,6пп · 0,0пп CTR
🟩 <b>Мессенджер</b>
<code>   200</code> −20,0% · +25,0% DAU
<code> 3 000</code> +25,0% · −25,0% сообщения
<code>  1,25</code> +0,05 · 0,00 отпр. / получ."""


def report(language: Language = "en", days: dict[date, Row] | None = None, link: str = "") -> str:
    """The report's text with ordinary spaces."""
    text = messages.daily_report(DAY, METRICS, eight_days() if days is None else days, language, link)
    return text.replace(GAP, " ")


def without(*days: int) -> dict[date, Row]:
    """The eight days without these days of November."""
    return {day: row for day, row in eight_days().items() if day.day not in days}


# --- the daily report -------------------------------------------------------------------------------------------------


def test_the_report_in_english() -> None:
    assert report("en") == REPORT


def test_the_report_in_russian() -> None:
    assert report("ru") == REPORT_RU


def test_columns_are_padded_with_spaces_that_neither_break_nor_get_lost() -> None:
    codes = [line.split("</code>")[0] for line in messages.daily_report(DAY, METRICS, eight_days(), "en").splitlines()]
    numbers = [code for code in codes if code.startswith("<code>")]
    assert len({len(number) for number in numbers}) == 1
    assert not any(" " in number for number in numbers)


@both_languages
def test_a_line_fits_a_phone(language: Language) -> None:
    assert all(len(line) <= 36 for line in _shown(report(language)).splitlines())


def test_without_views_there_is_a_dash_and_no_nan() -> None:
    days = eight_days()
    days[DAY] = {**days[DAY], "views": 0, "likes": 0, "ctr": float("nan"), "sent_per_received": None}
    text = report(days=days)
    assert "<code>    0</code> −100.0% · −100.0% views" in text
    assert "<code>    –</code> – · – CTR" in text
    assert "<code>    –</code> – · – sent / received" in text
    assert "nan" not in text.lower()
    assert "none" not in text.lower()


def test_after_a_day_without_views_there_is_no_change() -> None:
    days = eight_days()
    before = DAY - timedelta(days=1)
    days[before] = {**days[before], "views": 0, "ctr": None}
    assert "<code>20,000</code> – · −20.0% views" in report(days=days)
    assert "<code> 20.0%</code> – · 0.0pp CTR" in report(days=days)


def test_a_day_without_a_yesterday_is_compared_with_the_week_before_alone() -> None:
    text = report(days=without(21))
    assert "\nvs Sun 15\n" in text
    assert "<code> 1,100</code> −20.0% DAU" in text
    assert text.endswith("\n\nNo data for 1 day: Sat 21.")


def test_without_an_earlier_week_no_change_against_it_is_shown() -> None:
    text = report(days=without(15))
    assert "\nvs Sat 21\n" in text
    assert "<code> 1,100</code> +10.0% DAU" in text
    assert text.endswith("\n\nNo data for 1 day: Sun 15.")


def test_the_first_day_of_all_has_numbers_only() -> None:
    text = report(days={DAY: eight_days()[DAY]})
    assert "vs" not in text
    assert "<code> 1,100</code> DAU" in text
    assert text.endswith("\n\nNo data for 7 days: Sun 15 – Sat 21.")


@pytest.mark.parametrize(
    ("missing", "english", "russian"),
    [
        ([18], "No data for 1 day: Wed 18.", "Нет данных за 1 день: ср 18."),
        ([18, 19], "No data for 2 days: Wed 18, Thu 19.", "Нет данных за 2 дня: ср 18, чт 19."),
        (
            [16, 17, 18, 20],
            "No data for 4 days: Mon 16 – Wed 18, Fri 20.",
            "Нет данных за 4 дня: пн 16 – ср 18, пт 20.",
        ),
        ([16, 17, 18, 19, 20], "No data for 5 days: Mon 16 – Fri 20.", "Нет данных за 5 дней: пн 16 – пт 20."),
    ],
)
def test_missing_days_are_said(missing: list[int], english: str, russian: str) -> None:
    assert report("en", without(*missing)).endswith(english)
    assert report("ru", without(*missing)).endswith(russian)


@both_languages
def test_the_caption_is_short_enough_whatever_the_numbers(language: Language) -> None:
    # The largest numbers there are, against the smallest; every second day is missing; a line for a correction is left.
    largest, smallest = 2**64 - 1, 1
    days: dict[date, Row] = {
        day: dict.fromkeys((metric.column for metric in METRICS), largest if day == DAY else smallest)
        for day in without(16, 18, 20)
    }
    text = messages.daily_report(DAY, METRICS, days, language, "https://bi.example.com/" + "x" * 500)
    assert f"18{',' if language == 'en' else GAP}446" in text
    assert length(text) <= MAX_CAPTION - 150
    days[DAY], days[DAY - timedelta(days=1)] = days[DAY - timedelta(days=1)], days[DAY]
    assert length(messages.daily_report(DAY, METRICS, days, language)) <= MAX_CAPTION - 150


def test_large_numbers_are_exact() -> None:
    assert messages.number(2**64 - 1, "count", "en") == "18,446,744,073,709,551,615"


def test_data_is_escaped() -> None:
    metric = Metric("feed", "views", "count", '<b>views & "more"</b>', "x")
    text = messages.daily_report(DAY, [metric], eight_days(), "en", 'https://bi.example.com/?a=1&b="><script>')
    assert '&lt;b&gt;views &amp; "more"&lt;/b&gt;' in text
    assert 'href="https://bi.example.com/?a=1&amp;b=&quot;&gt;&lt;script&gt;"' in text
    assert _tags(text) == {"b", "code", "a"}


def test_a_change_beyond_bounds_stays_short_and_escaped() -> None:
    days = eight_days()
    days[DAY - timedelta(days=1)] = {**days[DAY - timedelta(days=1)], "views": 1}
    assert "<code>20,000</code> &gt;+999% · −20.0% views" in report(days=days)


def test_the_link_leads_to_the_day() -> None:
    address = messages.dashboard_link("https://bi.example.com/", DAY)
    assert address.startswith(
        "https://bi.example.com/superset/dashboard/pulse/?native_filters=(NATIVE_FILTER-event_date:"
    )
    assert "time_range:%272026-11-22%20:%202026-11-23%27" in address
    assert " " not in address
    assert f'\n\n<a href="{address}">Dashboard for 22 November</a>' in report("en", link=address)
    assert f'\n\n<a href="{address}">Дашборд за 22 ноября</a>' in report("ru", link=address)
    assert messages.dashboard_link("", DAY) == ""
    assert "href" not in report()


def test_the_headline_names_every_number_once_in_the_reports_order() -> None:
    assert list(messages.headline(METRICS, eight_days()[DAY], "en").items()) == [
        ("DAU", "1,100"),
        ("in both", "100"),
        ("DAU (feed)", "1,000"),
        ("views", "20,000"),
        ("likes", "4,000"),
        ("CTR", "20.0%"),
        ("DAU (messenger)", "200"),
        ("messages", "3,000"),
        ("sent / received", "1.25"),
    ]
    assert messages.headline(METRICS, eight_days()[DAY], "ru")["DAU (мессенджер)"] == "200"


# --- the other messages -----------------------------------------------------------------------------------------------


def live(language: Language, silent: tuple[messages.Part, ...] = ()) -> str:
    """The live metrics of a moment with ordinary spaces."""
    earlier = {day: row for day, row in eight_days().items() if day.day in (15, 21)}
    days = {day: earlier[day] for day in messages.compared(DAY)}
    moment = datetime(2026, 11, 22, 9, 5)
    return messages.live_metrics(moment, METRICS[3:6], eight_days()[DAY], days, language, silent).replace(GAP, " ")


def test_live_metrics_say_the_time_and_that_they_are_provisional() -> None:
    assert live("en") == (
        "<b>Sunday 22 November, by 09:05</b>\nvs Sat 21 · Sun 15\n🟧 <b>Feed</b>\n"
        "<code>20,000</code> +25.0% · −20.0% views\n<code> 4,000</code> −2.4% · −20.0% likes\n"
        "<code> 20.0%</code> −5.6pp · 0.0pp CTR\n\n<i>Provisional: the day is not over.</i>"
    )
    assert live("ru").startswith("<b>Воскресенье, 22 ноября, к 09:05</b>\nк сб 21 · вс 15\n")
    assert live("ru").endswith("\n\n<i>Предварительно: день ещё идёт.</i>")


def test_live_metrics_say_which_part_is_silent() -> None:
    assert "\n\nNo events yet today: Feed, Messenger.\n" in live("en", ("feed", "messenger"))
    assert "\n\nСегодня ещё нет событий: Мессенджер.\n" in live("ru", ("messenger",))


def test_a_late_report_says_so() -> None:
    assert messages.late_notice(DAY, time(11, 30), "en") == (
        "The report for 22 November is late: the ETL has not published the day by 11:30. "
        "It follows as soon as the data is there."
    )
    assert messages.late_notice(date(2026, 5, 3), time(11, 30), "ru") == (
        "Отчёт за 3 мая задерживается: к 11:30 данные за этот день ещё не опубликованы. "
        "Он придёт, как только они появятся."
    )


def test_a_failure_is_told_with_its_reason_and_what_to_do() -> None:
    assert messages.failure_notice("etl", {"load": "no <row> & no\nreport"}, "en") == (
        "<b>etl.load failed</b>: no &lt;row&gt; &amp; no report\n"
        "What to do: mend that, then clear the failed task in Airflow."
    )
    assert messages.failure_notice("monitoring", {"anomalies": "why"}, "en", often=True) == (
        "<b>monitoring.anomalies failed</b>: why\n"
        "The next run tries again. If that fails too, it is not told again today: look into Airflow."
    )
    assert messages.failure_notice("daily_report", {"deliver": "почему"}, "ru", DAY).startswith(
        "<b>daily_report.deliver: сбой</b> за 22 ноября: почему\nЧто делать: "
    )


def test_several_tasks_that_failed_are_told_in_one_message_a_reason_once() -> None:
    same = {"extract_feed": "no server", "extract_messages": "no server"}
    first, second, _ = messages.failure_notice("etl", same, "en", DAY).splitlines()
    assert first == "<b>etl failed</b> for 22 November"
    assert second == "extract_feed, extract_messages: no server"
    lines = messages.failure_notice(
        "etl", {"extract_feed": "empty", "extract_messages": "late"}, "en", DAY
    ).splitlines()
    assert lines[1:3] == ["extract_feed: empty", "extract_messages: late"]
    assert messages.failure_notice("etl", {"": "it took too long"}, "en", DAY).startswith(
        "<b>etl failed</b> for 22 November: it took too long"
    )


def test_a_long_reason_is_cut_before_it_is_escaped() -> None:
    for reasons in ({"load": "<" * 5000}, {f"task_{n}": f"{n}{'<' * 5000}" for n in range(9)}):
        text = messages.failure_notice("daily_report", reasons, "en")
        assert "&lt;…" in text
        assert length(text) < MAX_TEXT


def test_a_dag_that_did_not_run_is_told_with_what_to_do() -> None:
    assert messages.not_run_notice("etl", "en", DAY) == (
        "<b>etl did not run</b> for 22 November: Airflow stood still, or was not asked to run it.\n"
        "What to do: see whether the scheduler runs, then trigger it with that date."
    )
    assert messages.not_run_notice("monitoring", "ru", since="13:05, 22.11.").startswith(
        "<b>monitoring не запускался</b> с 13:05, 22.11.: "
    )


# --- numbers, words, dates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "english", "russian"),
    [
        (0, "users", "0", "0"),
        (1_234_567, "count", "1,234,567", "1 234 567"),
        (0.12345, "share", "12.3%", "12,3%"),
        (12.5, "share", "1,250.0%", "1 250,0%"),
        (1.0, "ratio", "1.00", "1,00"),
        (None, "count", "–", "–"),
        (float("nan"), "share", "–", "–"),
    ],
)
def test_numbers(value: float | None, unit: Unit, english: str, russian: str) -> None:
    assert messages.number(value, unit, "en") == english
    assert messages.number(value, unit, "ru").replace(GAP, " ") == russian


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("1,234,567", "1 234 567"), ("12.5%", "12,5%"), ("−0.02", "−0,02"), (">+999%", ">+999%"), ("–", "–"),
        ("1.", "1."),        ("at 12.30, or so", "at 12.30, or so"),
    ],
)  # fmt: skip
def test_a_number_changes_its_language_and_back(english: str, russian: str) -> None:
    shown = russian.replace(" ", GAP) if english[0].isdigit() else russian
    assert messages.localised(english, "ru") == shown
    assert messages.neutral(shown, "ru") == english
    assert messages.localised(english, "en") == messages.neutral(english, "en") == english


@pytest.mark.parametrize(
    ("value", "before", "unit", "shown"),
    [
        (110, 100, "users", "+10.0%"),
        (90, 100, "count", "−10.0%"),
        (10_001, 10_000, "count", "0.0%"),
        (9_999, 10_000, "count", "0.0%"),
        (5, 0, "count", "–"),
        (0, 0, "count", "–"),
        (0, 5, "count", "−100.0%"),
        (11_000, 1_000, "count", ">+999%"),
        (0.2, 0.203, "share", "−0.3pp"),
        (0.2, 0, "share", "+20.0pp"),
        (1.25, 1.5, "ratio", "−0.25"),
        (1, 5_000, "ratio", "<−999"),
        (1, None, "count", "–"),
        (None, 1, "share", "–"),
        (float("nan"), 1, "ratio", "–"),
    ],
)
def test_changes(value: float | None, before: float | None, unit: Unit, shown: str) -> None:
    assert messages.change(value, before, unit, "en") == shown


@pytest.mark.parametrize(
    ("value", "unit", "english", "russian"),
    [
        (999_999, "count", "999,999", "999 999"),
        (999.5, "ratio", "999.50", "999,50"),
        (999_999, "ratio", "999,999", "999 999"),
        (1_000_000, "count", "1M", "1 млн"),
        (1_234_567, "users", "1.23M", "1,23 млн"),
        (999_950_000, "count", "1B", "1 млрд"),
        (2.5e12, "count", "2.5T", "2,5 трлн"),
        (1.8e19, "count", "1.8e+19", "1,8e+19"),
        (0.196, "share", "19.6%", "19,6%"),
        (50_000, "share", "5M%", "5 млн%"),
        (None, "count", "–", "–"),
    ],
)
def test_compact_numbers(value: float | None, unit: Unit, english: str, russian: str) -> None:
    assert messages.compact(value, unit, "en") == english
    assert messages.compact(value, unit, "ru").replace(GAP, " ") == russian


@pytest.mark.parametrize(
    ("form", "counts"),
    [("день", (1, 21, 101, 1001)), ("дня", (2, 3, 4, 22, 104)), ("дней", (0, 5, 11, 12, 14, 20, 25, 100, 111, 112))],
)
def test_russian_plural_forms(form: str, counts: tuple[int, ...]) -> None:
    assert {messages.plural(count, messages.DAYS["ru"], "ru") for count in counts} == {form}


def test_english_plural_forms() -> None:
    assert [messages.plural(count, messages.DAYS["en"], "en") for count in (0, 1, 2, 21)] == [
        "days",
        "day",
        "days",
        "days",
    ]


def test_dates() -> None:
    monday = date(2026, 11, 16)
    assert messages.short_date(monday, "en") == "Mon 16"
    assert messages.short_date(monday, "ru") == "пн 16"
    assert messages.long_date(monday, "en") == "Monday 16 November 2026"
    assert messages.long_date(monday, "ru") == "понедельник, 16 ноября 2026"
    assert messages.day_and_month(date(2026, 8, 1), "ru") == "1 августа"
    week = [monday + timedelta(days=day) for day in range(7)]
    assert [messages.short_date(day, "ru")[:2] for day in week] == ["пн", "вт", "ср", "чт", "пт", "сб", "вс"]


def test_both_languages_have_the_same_texts() -> None:
    assert messages.TEXTS["en"].keys() == messages.TEXTS["ru"].keys()
    assert messages.PARTS["en"].keys() == messages.PARTS["ru"].keys() == messages.SQUARES.keys()
    for words in (messages.WEEKDAYS, messages.SHORT_WEEKDAYS, messages.MONTHS, messages.POWERS):
        assert len(words["en"]) == len(words["ru"])


class _Reader(HTMLParser):
    """Collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader


def _tags(text: str) -> set[str]:
    return _read(text).tags


def _shown(text: str) -> str:
    return _read(text).text
