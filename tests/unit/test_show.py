"""Notebooks show values as people read them: thousands, percent, days, dashes; and messages as in the chat."""

from datetime import date
from zoneinfo import ZoneInfo

import pandas as pd

from pulse.archive import render
from pulse.execution import show


def test_a_mixed_frame_is_shown_by_its_columns_however_it_is_turned() -> None:
    frame = pd.DataFrame(
        {
            "event_date": pd.to_datetime(["2026-11-21", "2026-11-22"]),
            "app_users": [13892, 5],
            "ctr": [0.20349, None],
            "sent_per_received": [1.0, 1.0512],
            "received": pd.array([None, 1234567], dtype="Int64"),
            "post_id": [1234567, 1],
            "os": ["iOS", None],
        }
    )
    shown = show.table(frame.set_index("event_date")).T
    assert list(shown.columns) == ["Sat 21 Nov 2026", "Sun 22 Nov 2026"]
    assert shown["Sat 21 Nov 2026"].to_dict() == {
        "app_users": "13,892", "ctr": "20.3 %", "sent_per_received": "1.00", "received": "–", "post_id": "1234567",
        "os": "iOS",
    }  # fmt: skip
    assert shown["Sun 22 Nov 2026"].tolist() == ["5", "–", "1.05", "1,234,567", "1", "–"]
    assert "13892.0" not in shown.to_html()


def test_a_row_is_shown_downwards_each_number_by_its_own_name() -> None:
    row = pd.DataFrame({"users": [15210], "ctr": [0.2], "sent_per_received": [1.0]}).loc[0]  # all floats now
    assert show.table(row)[""].to_dict() == {"users": "15,210", "ctr": "20.0 %", "sent_per_received": "1.00"}


def test_numbers_of_rows_say_nothing_and_names_of_rows_stay() -> None:
    shown = show.table(pd.DataFrame({"n": [1000, 2]}))
    assert list(shown.index) == ["", ""]
    some = pd.DataFrame({"n": range(70)}).tail(2)  # some of the rows, with their numbers in the whole frame
    assert list(show.table(some).index) == ["", ""]
    named = show.table(pd.DataFrame({"n": [1000, 2]}, index=[date(2026, 11, 22), date(2026, 11, 15)]))
    assert list(named.index) == ["Sun 22 Nov 2026", "Sun 15 Nov 2026"]
    pairs = pd.DataFrame({"dimension": ["os"], "value": ["iOS"], "n": [1]}).set_index(["dimension", "value"])
    assert list(show.table(pairs).index) == [("os", "iOS")]
    assert show.table(pd.DataFrame()).empty


def test_moments_are_shown_in_their_own_zone() -> None:
    moment = pd.Timestamp("2026-11-22T00:00", tz=ZoneInfo("Europe/Moscow"))
    assert show.table(pd.DataFrame({"opened": [moment]})).iat[0, 0] == "Sun 22 Nov 2026 00:00"


def test_a_message_is_shown_as_readers_see_it_and_the_archive_lets_it_through() -> None:
    text = (
        '<b>Sunday &amp; more</b>\n<code>  445</code> in both\n<a href="https://superset/x?a=1&amp;b=2">Dashboard</a>'
    )
    shown = show.message(text)
    assert "<b>Sunday &amp; more</b><br>\n<code>&nbsp;&nbsp;445</code> in both<br>" in shown.data
    assert repr(shown) == "Sunday & more\n  445 in both\nDashboard (https://superset/x?a=1&b=2)"
    assert repr(show.message(text, "two")).endswith("\n\ntwo")
    assert repr(show.message()) == "no message"
    kept = str(render.harmless(shown.data))
    assert "<b>Sunday &amp; more</b><br>" in kept
    assert 'href="https://superset/x?a=1&amp;b=2"' in kept
