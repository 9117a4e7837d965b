"""The reason why a day was published again, in both languages."""

import pytest

from pulse.publishing.reasons import reason
from pulse.publishing.restating import SourceChange
from pulse.wording import GAP

LATE = SourceChange("feed_actions", "late", 1000, 1013, [["21:00", "23:00"]], ["os", "Android"])


@pytest.mark.parametrize(
    ("change", "en", "ru"),
    [
        (
            LATE,
            "+1.3%: late Android events of 21:00–23:00",
            "+1,3%: события Android за 21:00–23:00 пришли с опозданием",
        ),
        (
            SourceChange("message_actions", "deleted", 1000, 996, [["09:00", "10:00"]], ["gender", "male"]),
            "−0.4%: deleted male messages of 09:00–10:00",
            "−0,4%: сообщения (мужчины) за 09:00–10:00 удалены",
        ),
        (
            SourceChange("feed_actions", "doubled", 1000, 2000, [["00:00", "24:00"]], ["age", "40"]),
            "+100.0%: doubled events (age 40) of 00:00–24:00",
            "+100,0%: события (возраст 40) за 00:00–24:00 задвоились",
        ),
        (
            SourceChange(
                "feed_actions", "changed", 10, 10, [["01:00", "02:00"], ["05:00", "06:00"]], ["os", "unknown"]
            ),
            "changed events (os unknown) of 01:00–02:00, 05:00–06:00",
            "события (ОС: неизвестно) за 01:00–02:00, 05:00–06:00 изменены задним числом",
        ),
        (
            SourceChange("feed_actions", "late", 10, 11, [["01:00", "02:00"], ["05:00", "06:00"], ["09:00", "12:00"]]),
            "+10.0%: late events of 01:00–12:00",
            "+10,0%: события за 01:00–12:00 пришли с опозданием",
        ),
        (
            SourceChange("feed_actions", "late", 10, 11, [["01:00", "02:00"]], ["os", "<b>"]),
            "+10.0%: late &lt;b&gt; events of 01:00–02:00",
            "+10,0%: события &lt;b&gt; за 01:00–02:00 пришли с опозданием",
        ),
    ],
)
def test_it_is_said_as_people_say_it(change: SourceChange, en: str, ru: str) -> None:
    assert reason([change], "en") == en
    assert reason([change], "ru").replace(GAP, " ") == ru


def test_both_sources_may_have_changed() -> None:
    other = SourceChange("message_actions", "doubled", 100, 150, [["21:00", "22:00"]])
    said = reason([LATE, other], "en")
    assert said == "+1.3%: late Android events of 21:00–23:00; +50.0%: doubled messages of 21:00–22:00"
    assert reason([], "en") == ""
