"""The messages that readers get, in both languages: every number, word and dash is checked by hand."""

import re
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import pytest
from reported import DAY, METRICS, eight_days

from pulse import wording
from pulse.clickhouse import ClickHouse, ClickHouseError
from pulse.dashboards.links import dashboard_link
from pulse.delivery.markup import MAX_CAPTION, MAX_TEXT, length
from pulse.metrics import BY_COLUMN, DayMetrics, Name, PartName, Unit
from pulse.monitoring.texts import slice_name
from pulse.orchestration.texts import REASONS, failure_notice, not_run_notice, reason_in
from pulse.reports.texts import compared, daily_report, headline, late_notice, live_metrics
from pulse.reports.unusual import is_unusual
from pulse.settings import ROOT, Language
from pulse.wording import GAP

REASONS_FILE = ROOT / "pulse" / "orchestration" / "texts.py"
both_languages = pytest.mark.parametrize("language", ["en", "ru"])

REPORT = """\
<b>Sunday 22 November 2026</b>
vs Sun 15 · Sat 21
🟦 <b>App</b>
DAU <code>1,100</code> −20.0% · +10.0%
feed &amp; messenger <code>100</code> +25.0% · −20.0%
🟧 <b>Feed</b>
DAU <code>1,000</code> +25.0% · 0.0%
views <code>20,000</code> −20.0% · +25.0%
likes <code>4,000</code> −20.0% · −2.4%
CTR <code>20.0%</code> 0.0pp · −5.6pp
🟩 <b>Messenger</b>
DAU <code>200</code> +25.0% · −20.0%
messages sent <code>3,000</code> −25.0% · +25.0%
sent / received <code>1.25</code> 0.00 · +0.05"""

REPORT_RU = """\
<b>Воскресенье, 22 ноября 2026</b>
к вс 15 · сб 21
🟦 <b>Приложение</b>
DAU <code>1 100</code> −20,0% · +10,0%
лента и мессенджер <code>100</code> +25,0% · −20,0%
🟧 <b>Лента</b>
DAU <code>1 000</code> +25,0% · 0,0%
просмотры <code>20 000</code> −20,0% · +25,0%
лайки <code>4 000</code> −20,0% · −2,4%
CTR <code>20,0%</code> 0,0 п. п. · −5,6 п. п.
🟩 <b>Мессенджер</b>
DAU <code>200</code> +25,0% · −20,0%
отправлено <code>3 000</code> −25,0% · +25,0%
отпр. / получ. <code>1,25</code> 0,00 · +0,05"""


def report(language: Language = "en", days: dict[date, DayMetrics] | None = None, link: str = "") -> str:
    """Return the report's text with ordinary spaces."""
    text = daily_report(DAY, METRICS, eight_days() if days is None else days, language, link)
    return text.replace(GAP, " ")


def without(*days: int) -> dict[date, DayMetrics]:
    """Return the eight days without these days of November."""
    return {day: row for day, row in eight_days().items() if day.day not in days}


# --- the daily report -------------------------------------------------------------------------------------------------


def test_the_report_in_english() -> None:
    assert report("en") == REPORT


def test_the_report_in_russian() -> None:
    assert report("ru") == REPORT_RU


@both_languages
def test_numbers_and_changes_do_not_break_over_lines(language: Language) -> None:
    for line in daily_report(DAY, METRICS, eight_days(), language).splitlines():
        if "<code>" in line:
            _, rest = line.split("<code>")
            assert re.fullmatch(r"[^ ]+</code> [^ ]+ · [^ ]+", rest)


@both_languages
def test_a_line_fits_a_phone(language: Language) -> None:
    assert all(len(line) <= 38 for line in _shown(report(language)).splitlines())


def test_without_views_there_is_a_dash_and_no_nan() -> None:
    days = eight_days()
    days[DAY] = {**days[DAY], "views": 0, "likes": 0, "ctr": float("nan"), "sent_per_received": None}
    text = report(days=days)
    assert "views <code>0</code> −100.0% · −100.0%" in text
    assert "CTR <code>–</code> – · –" in text
    assert "sent / received <code>–</code> – · –" in text
    assert "nan" not in text.lower()
    assert "none" not in text.lower()


def test_after_a_day_without_views_there_is_no_change() -> None:
    days = eight_days()
    before = DAY - timedelta(days=1)
    days[before] = {**days[before], "views": 0, "ctr": None}
    assert "views <code>20,000</code> −20.0% · –" in report(days=days)
    assert "CTR <code>20.0%</code> 0.0pp · –" in report(days=days)


def test_a_day_without_a_yesterday_is_compared_with_the_week_before_alone() -> None:
    text = report(days=without(21))
    assert "\nvs Sun 15\n" in text
    assert "DAU <code>1,100</code> −20.0%\n" in text
    assert text.endswith("\n\nNo data for 1 day: Sat 21.")


def test_without_an_earlier_week_no_change_against_it_is_shown() -> None:
    text = report(days=without(15))
    assert "\nvs Sat 21\n" in text
    assert "DAU <code>1,100</code> +10.0%\n" in text
    assert text.endswith("\n\nNo data for 1 day: Sun 15.")


def test_the_first_day_of_all_has_numbers_only() -> None:
    text = report(days={DAY: eight_days()[DAY]})
    assert "vs" not in text
    assert "DAU <code>1,100</code>\n" in text
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
    # The largest possible numbers are compared with the smallest, and every second day is missing. Even so, there is
    # room for the line of a correction.
    largest, smallest = 2**64 - 1, 1
    days: dict[date, DayMetrics] = {
        day: dict.fromkeys((metric.column for metric in METRICS), largest if day == DAY else smallest)
        for day in without(16, 18, 20)
    }
    text = daily_report(DAY, METRICS, days, language, "https://bi.example.com/" + "x" * 500)
    assert f"18{',' if language == 'en' else GAP}446" in text
    assert length(text) <= MAX_CAPTION - 150
    days[DAY], days[DAY - timedelta(days=1)] = days[DAY - timedelta(days=1)], days[DAY]
    assert length(daily_report(DAY, METRICS, days, language)) <= MAX_CAPTION - 150


def test_large_numbers_are_exact() -> None:
    assert wording.number(2**64 - 1, "count", "en") == "18,446,744,073,709,551,615"


def test_data_is_escaped() -> None:
    metric = replace(BY_COLUMN["views"], en=Name('<b>views & "more"</b>'))
    text = daily_report(DAY, [metric], eight_days(), "en", 'https://bi.example.com/?a=1&b="><script>')
    assert '&lt;b&gt;views &amp; "more"&lt;/b&gt;' in text
    assert 'href="https://bi.example.com/?a=1&amp;b=&quot;&gt;&lt;script&gt;"' in text
    assert _tags(text) == {"b", "code", "a"}


def test_a_change_beyond_bounds_stays_short_and_escaped() -> None:
    days = eight_days()
    days[DAY - timedelta(days=1)] = {**days[DAY - timedelta(days=1)], "views": 1}
    assert "views <code>20,000</code> −20.0% · &gt;+999%" in report(days=days)


def test_the_link_leads_to_the_day() -> None:
    address = dashboard_link("https://bi.example.com/", DAY)
    assert address.startswith(
        "https://bi.example.com/superset/dashboard/pulse/?native_filters=(NATIVE_FILTER-event_date:"
    )
    assert "time_range:%272026-11-22%20:%202026-11-23%27" in address
    assert " " not in address
    assert f'\n\n<a href="{address}">Dashboard for 22 November</a>' in report("en", link=address)
    assert f'\n\n<a href="{address}">Дашборд за 22 ноября</a>' in report("ru", link=address)
    assert dashboard_link("", DAY) == ""
    assert "href" not in report()


def test_the_headline_names_every_number_once_in_the_reports_order() -> None:
    assert list(headline(METRICS, eight_days()[DAY], "en").items()) == [
        ("DAU", "1,100"),
        ("feed & messenger", "100"),
        ("DAU (feed)", "1,000"),
        ("views", "20,000"),
        ("likes", "4,000"),
        ("CTR", "20.0%"),
        ("DAU (messenger)", "200"),
        ("messages sent", "3,000"),
        ("sent / received", "1.25"),
    ]
    assert headline(METRICS, eight_days()[DAY], "ru")["DAU (мессенджер)"] == "200"


# --- what such days usually do ----------------------------------------------------------------------------------------

VIEWS, CTR = BY_COLUMN["views"], BY_COLUMN["ctr"]


def sundays(column: str, *values: float | None) -> dict[date, DayMetrics]:
    """Return Sundays up to the event date, the latest value last; None stands for a day that was not published."""
    days = {DAY - timedelta(weeks=back): value for back, value in enumerate(reversed(values))}
    return {day: {column: value} for day, value in days.items() if value is not None}


# From week to week the value alternately rises by a tenth and falls by an eleventh, which is ±0.0953 in logarithms.
# The lower quartile of these nine changes is −0.0953, the upper one +0.0953, and their distance is 0.1906. So the
# fence lies at ±(0.0953 + 3 · 0.1906) = ±0.667, a factor of 1.95.
USUAL = [100_000.0, 110_000.0] * 5


@pytest.mark.parametrize(
    ("then", "now", "unusual"),
    [
        (100_000, 194_000, False),
        (100_000, 196_000, True),
        (100_000, 52_000, False),  # 1 / 1.95 = 0.513
        (100_000, 51_000, True),
        (100_000, 0, True),
    ],
)
def test_a_change_is_unusual_beyond_three_times_the_spread_of_such_days(then: float, now: float, unusual: bool) -> None:
    days = sundays("views", *USUAL[:-1], then, now)
    assert is_unusual(DAY, VIEWS, days) is unusual
    said = daily_report(DAY, [VIEWS], days, "ru")
    assert said.splitlines()[3].endswith(" необычно") is unusual


def test_a_share_is_compared_in_points() -> None:
    # The changes are ±2 points and the quartiles, too, so the fence lies at ±(2 + 3 · 4) = ±14 points.
    usual = [0.20, 0.22] * 5
    assert not is_unusual(DAY, CTR, sundays("ctr", *usual, 0.22 + 0.135))
    assert is_unusual(DAY, CTR, sundays("ctr", *usual, 0.22 + 0.145))
    assert is_unusual(DAY, CTR, sundays("ctr", *usual, 0.22 - 0.145))
    assert not is_unusual(DAY, CTR, sundays("ctr", *[0.2] * 12, 0.209))  # less than a point is never unusual
    assert is_unusual(DAY, CTR, sundays("ctr", *[0.2] * 12, 0.211))


def test_a_young_installation_says_nothing() -> None:
    # Eight known changes besides the day's own need ten Sundays.
    assert is_unusual(DAY, VIEWS, sundays("views", *[100_000] * 9, 300_000))
    assert not is_unusual(DAY, VIEWS, sundays("views", *[100_000] * 8, 300_000))
    assert not is_unusual(DAY, VIEWS, sundays("views", 300_000))


def test_days_that_are_missing_are_no_changes() -> None:
    # Each missing day removes two of the eleven changes: one missing day leaves nine of them, two leave seven.
    assert is_unusual(DAY, VIEWS, sundays("views", *[1e5] * 3, None, *[1e5] * 8, 3e5))
    assert not is_unusual(DAY, VIEWS, sundays("views", *[1e5] * 3, None, 1e5, None, *[1e5] * 6, 3e5))
    assert not is_unusual(DAY, VIEWS, sundays("views", *[1e5] * 11, None, 3e5))
    assert not is_unusual(DAY, CTR, sundays("ctr", *[0.2] * 12, float("nan")))


def test_one_odd_day_among_the_past_ones_hides_nothing() -> None:
    odd = [100_000.0, 103_000.0] * 3 + [20_000.0] + [103_000.0, 100_000.0] * 2 + [103_000.0]
    assert is_unusual(DAY, VIEWS, sundays("views", *odd, 60_000))
    assert not is_unusual(DAY, VIEWS, sundays("views", *odd, 104_000))


def test_chance_alone_is_not_unusual_in_a_tiny_app() -> None:
    # Five instead of three is a change of ln(6 / 4) = 0.41, which is less than 3 · √(1/6 + 1/4) = 1.94.
    assert not is_unusual(DAY, VIEWS, sundays("views", *[3] * 12, 5))
    assert not is_unusual(DAY, VIEWS, sundays("views", *[0] * 12, 1))
    # 900 instead of 300 is a change of ln(901 / 301) = 1.10, which is more than 3 · √(1/901 + 1/301) = 0.20.
    assert is_unusual(DAY, VIEWS, sundays("views", *[300] * 12, 900))


# --- the other messages -----------------------------------------------------------------------------------------------


def live(language: Language, silent: tuple[PartName, ...] = ()) -> str:
    """Return the text of the live metrics of a moment, with ordinary spaces."""
    earlier = {day: row for day, row in eight_days().items() if day.day in (15, 21)}
    days = {day: earlier[day] for day in compared(DAY)}
    moment = datetime(2026, 11, 22, 9, 5)
    return live_metrics(moment, METRICS[3:6], eight_days()[DAY], days, language, silent).replace(GAP, " ")


def test_live_metrics_say_the_time_and_that_they_are_provisional() -> None:
    assert live("en") == (
        "<b>Sunday 22 November, by 09:05</b>\nvs Sun 15 · Sat 21\n🟧 <b>Feed</b>\n"
        "views <code>20,000</code> −20.0% · +25.0%\nlikes <code>4,000</code> −20.0% · −2.4%\n"
        "CTR <code>20.0%</code> 0.0pp · −5.6pp\n\n<i>Provisional: the day is not over.</i>"
    )
    assert live("ru").startswith("<b>Воскресенье, 22 ноября, на 09:05</b>\nк вс 15 · сб 21\n")
    assert live("ru").endswith("\n\n<i>Предварительно: день ещё идёт.</i>")


def test_live_metrics_say_which_part_is_silent() -> None:
    assert "\n\nNo events yet today: Feed, Messenger.\n" in live("en", ("feed", "messenger"))
    assert "\n\nСегодня ещё нет событий: Мессенджер.\n" in live("ru", ("messenger",))


def test_live_metrics_say_up_to_when_data_is_there() -> None:
    until: dict[PartName, datetime] = {"feed": datetime(2026, 11, 22, 8, 30)}
    for language, said in (
        ("en", "\n\nFeed: data up to 08:30, and compared up to then.\n"),
        ("ru", "\n\nЛента: данные есть до 08:30, сравнение на то же время.\n"),
    ):
        moment = datetime(2026, 11, 22, 9, 5)
        assert said in live_metrics(moment, METRICS[3:6], eight_days()[DAY], {}, language, (), until)


def test_a_late_report_says_so() -> None:
    assert late_notice(DAY, time(11, 30), "en") == (
        "The report for 22 November is late: the ETL has not published the day by 11:30. "
        "It follows as soon as the data is there."
    )
    assert late_notice(date(2026, 5, 3), time(11, 30), "ru") == (
        "Отчёт за 3 мая задерживается: к 11:30 данные за этот день ещё не опубликованы. "
        "Он придёт, как только они появятся."
    )


def test_a_failure_is_told_with_its_reason_and_what_to_do() -> None:
    assert failure_notice("etl", {"load": "no <row> & no\nreport"}, "en") == (
        "<b>etl.load failed</b>: no &lt;row&gt; &amp; no report\n"
        "What to do: fix the cause, then clear the failed task in Airflow."
    )
    assert failure_notice("monitoring", {"anomalies": "why"}, "en", often=True) == (
        "<b>monitoring.anomalies failed</b>: why\n"
        "The next run tries again. If that fails too, you will not hear of it again today: look into Airflow."
    )
    assert failure_notice("daily_report", {"deliver": "почему"}, "ru", DAY).startswith(
        "<b>daily_report.deliver: сбой</b> за 22 ноября: дословно из журнала: почему\nЧто делать: "
    )


def test_several_tasks_that_failed_are_told_in_one_message_a_reason_once() -> None:
    same = {"extract_feed": "no server", "extract_messages": "no server"}
    first, second, _ = failure_notice("etl", same, "en", DAY).splitlines()
    assert first == "<b>etl failed</b> for 22 November"
    assert second == "extract_feed, extract_messages: no server"
    lines = failure_notice("etl", {"extract_feed": "empty", "extract_messages": "late"}, "en", DAY).splitlines()
    assert lines[1:3] == ["extract_feed: empty", "extract_messages: late"]
    assert failure_notice("etl", {"": "it took too long"}, "en", DAY).startswith(
        "<b>etl failed</b> for 22 November: it took too long"
    )


def test_a_long_reason_is_cut_before_it_is_escaped() -> None:
    for reasons in ({"load": "<" * 5000}, {f"task_{n}": f"{n}{'<' * 5000}" for n in range(9)}):
        text = failure_notice("daily_report", reasons, "en")
        assert "&lt;…" in text
        assert length(text) < MAX_TEXT


def test_a_dag_that_did_not_run_is_told_with_what_to_do() -> None:
    assert not_run_notice("etl", "en", DAY) == (
        "<b>etl did not run</b> for 22 November: Airflow was down, or the DAG was switched off.\n"
        "What to do: check that the scheduler runs, then trigger the DAG with that date."
    )
    assert not_run_notice("monitoring", "ru", since="13:05, 22.11.").startswith(
        "<b>monitoring не запускался</b> с 13:05, 22.11.: "
    )


def test_common_reasons_are_told_in_russian() -> None:
    assert reason_in("2026-11-22 was not published within 12:30:00; repair etl, …", "ru") == (
        "2026-11-22 не опубликован за 12:30:00: почините etl, затем запустите этот DAG с этой датой."
    )
    assert reason_in("1 of 2 chats did not get late_notice of 2026-11-22. -1: why", "ru") == (
        "late_notice за 2026-11-22 не дошёл до чатов: 1 из 2. -1: why"
    )
    with pytest.raises(ClickHouseError) as raised:
        ClickHouse("http://default:@127.0.0.1:9", "pulse", ZoneInfo("Europe/Moscow")).value("select 1")
    assert reason_in(str(raised.value), "ru").startswith("ClickHouse не отвечает по адресу ")
    assert reason_in("it broke: {x}", "ru") == "дословно из журнала: it broke: {x}"
    assert reason_in("it broke: {x}", "en") == "it broke: {x}"


@pytest.mark.parametrize(
    "said",
    [
        "No feed actions on 2026-11-22 in app.feed_actions; wait for the source and run again, or set allow_empty if …",
        "No messages on 2026-11-22 in app.message_actions; wait for the source and run again, or set allow_empty if …",
        "The totals of 2026-11-22 differ between users and slices; nothing is published: …",
        "Users of 2026-11-22 are not what was extracted, by their age; nothing is published",
        "Slices of 2026-11-22 are not what their users did; nothing is published: …",
        "The metrics of 2026-11-22 are not what was extracted; nothing is published: …",
        "users__x of run x are not there; run extract and transform for 2026-11-22 first (staging goes a day after …)",
        "feed_users__x are not there; run both extracts for 2026-11-22 first (staging goes a day after it was made)",
        "The tables in pulse are of schema version 5, and this checkout's is 6; run `pulse upgrade` (…).",
        "The view feed_events in pulse reads the source differently from PULSE_SOURCE and PULSE_SOURCE_DATABASE …",
        "The archive is not as it was kept: etl/…/load.1.ipynb: changed. `pulse archive verify` lists all of it.",
    ],
)
def test_what_the_dags_pages_list_is_told_in_russian(said: str) -> None:
    told = reason_in(f"CheckError: {said}", "ru")
    assert re.search("[а-я]{4}", told)
    assert not told.startswith("дословно из журнала")
    assert not re.search("nothing is published|first|run `", told)


def test_the_reasons_are_those_that_the_project_gives() -> None:
    given = "\n".join(
        path.read_text()
        for path in (ROOT / "pulse").glob("**/*.py")
        if path != ROOT / "pulse" / "orchestration" / "texts.py"
    )
    given += "\n".join(path.read_text() for path in (ROOT / "notebooks").glob("**/*.ipynb"))
    for pattern in REASONS:
        longest = max(re.split(r"\(\?P.*?\)+|\\.", pattern), key=len).strip(" ;:(.*")
        assert len(longest) > 10
        assert longest in given, longest


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
    assert wording.number(value, unit, "en") == english
    assert wording.number(value, unit, "ru").replace(GAP, " ") == russian


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("1,234,567", "1 234 567"), ("12.5%", "12,5%"), ("−0.02", "−0,02"), (">+999%", ">+999%"), ("–", "–"),
        ("1.", "1."),        ("at 12.30, or so", "at 12.30, or so"),
    ],
)  # fmt: skip
def test_a_number_changes_its_language_and_back(english: str, russian: str) -> None:
    shown = russian.replace(" ", GAP) if english[0].isdigit() else russian
    assert wording.localized(english, "ru") == shown
    assert wording.neutral(shown, "ru") == english
    assert wording.localized(english, "en") == wording.neutral(english, "en") == english


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
    assert wording.change(value, before, unit, "en") == shown


def test_points_in_russian_are_no_decimals() -> None:
    assert wording.change(0.2, 0.2034, "share", "ru") == f"−0,3{GAP}п.{GAP}п."
    assert wording.change(15, 0.2, "share", "ru") == f">+999{GAP}п.{GAP}п."


def test_slices_have_names_in_both_languages() -> None:
    assert [slice_name("gender", value, "ru") for value in ("male", "female", "Female", "x")] == [
        "мужчины", "женщины", "женщины", "x",
    ]  # fmt: skip
    assert slice_name("gender", "male", "en") == "male"
    assert slice_name("gender", "unknown", "ru") == "пол: неизвестно"
    assert slice_name("os", "male", "ru") == "male"


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
    assert wording.compact(value, unit, "en") == english
    assert wording.compact(value, unit, "ru").replace(GAP, " ") == russian


@pytest.mark.parametrize(
    ("form", "counts"),
    [("день", (1, 21, 101, 1001)), ("дня", (2, 3, 4, 22, 104)), ("дней", (0, 5, 11, 12, 14, 20, 25, 100, 111, 112))],
)
def test_russian_plural_forms(form: str, counts: tuple[int, ...]) -> None:
    assert {wording.counted(count, "day", "ru") for count in counts} == {
        f"{count:,} {form}".replace(",", " ") for count in counts
    }


def test_english_plural_forms() -> None:
    shown = [wording.counted(count, "day", "en") for count in (0, 1, 2, 21)]
    assert shown == ["0 days", "1 day", "2 days", "21 days"]


def test_dates() -> None:
    monday = date(2026, 11, 16)
    assert wording.short_date(monday, "en") == "Mon 16"
    assert wording.short_date(monday, "ru") == "пн 16"
    assert wording.long_date(monday, "en") == "Monday 16 November 2026"
    assert wording.long_date(monday, "ru") == "понедельник, 16 ноября 2026"
    assert wording.day_and_month(date(2026, 8, 1), "ru") == "1 августа"
    week = [monday + timedelta(days=day) for day in range(7)]
    assert [wording.short_date(day, "ru")[:2] for day in week] == ["пн", "вт", "ср", "чт", "пт", "сб", "вс"]


def test_every_word_fills_in_the_same_values_in_both_languages() -> None:
    for name, word in wording.WORDS.items():
        assert set(re.findall(r"{\w+}", word.en)) == set(re.findall(r"{\w+}", word.ru)), name
        assert word.en, name
        assert word.ru, name


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
