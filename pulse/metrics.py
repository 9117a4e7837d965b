"""The one list of what Pulse counts: metrics, the dimensions that split them, the length of a bucket, the week.

Everything that shows, checks or compares a metric reads this list: the report's and the live lists, the monitoring, the
checks of the ETL, `pulse reconcile`, the dashboards' installers and the data dictionary in the documentation. The SQL
stays written out where it runs; `tests/unit/test_metrics.py` names each statement and file that lacks an entry of this
list. So a new metric is an entry here, and then what that test says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, TypeAlias

from pulse.settings import Language

PartName: TypeAlias = Literal["app", "feed", "messenger"]
Unit: TypeAlias = Literal["users", "count", "share", "ratio"]
Table: TypeAlias = Literal[
    "user_activity", "dimension_activity", "dimension_metrics", "daily_metrics", "metric_buckets"
]
Shown: TypeAlias = Literal["report", "live"]
DayMetrics: TypeAlias = Mapping[str, float | None]
"""The metrics of a day by column; None or NaN where one cannot be computed."""

BUCKET = timedelta(minutes=15)
"""The step in which the monitoring counts and judges."""

WEEK = timedelta(days=7)
"""How far back the report compares a day with the same weekday, and how many days its chart shows."""

FEED, MESSAGES = "feed_actions", "message_actions"
"""The app's two sources, as the specification calls them."""

SOURCES = (FEED, MESSAGES)


@dataclass(frozen=True)
class Part:
    """A part of the product, under whose name its metrics stand together.

    Args:
        en: its name in English.
        ru: its name in Russian.
        color: of its lines in charts: Okabe and Ito's, which colour-blind readers can tell apart.
        square: the same colour in a message.
    """

    en: str
    ru: str
    color: str
    square: str

    def name(self, language: Language) -> str:
        """Its name in a language."""
        return {"en": self.en, "ru": self.ru}[language]


PARTS: Mapping[PartName, Part] = {
    "app": Part("App", "Приложение", "#0072B2", "🟦"),
    "feed": Part("Feed", "Лента", "#D55E00", "🟧"),
    "messenger": Part("Messenger", "Мессенджер", "#009E73", "🟩"),
}


@dataclass(frozen=True)
class Name:
    """What a metric is called in one language.

    Args:
        short: under the name of its part; a phone has room for about ten letters beside the numbers.
        alone: without its part beside it, as in an alert; the short name where empty.
        so_far: of a day that is not over yet; the short name where empty.
    """

    short: str
    alone: str = ""
    so_far: str = ""


@dataclass(frozen=True)
class Metric:
    """A number that Pulse computes.

    Args:
        column: its column, the same in every table that has it.
        part: the part of the product that it is about.
        unit: `users` and `count` are whole numbers, whose change is given in percent; a `share` is shown in percent and
            its change in percentage points; a `ratio` has two decimals, and so has its change.
        en: its names in English.
        ru: its names in Russian.
        formula: how it is computed, in words.
        sources: the app's tables that it is computed from.
        tables: the tables that have it as a column.
        shown: where readers see it. What the monitoring watches is listed in `notebooks/monitoring/watch.toml`.
        of: the numerator of a share or a ratio, a column.
        per: its denominator.
        additive: whether a day's number is the sum over its users, and over the slices of each dimension.
    """

    column: str
    part: PartName
    unit: Unit
    en: Name
    ru: Name
    formula: str
    sources: tuple[str, ...]
    tables: tuple[Table, ...]
    shown: tuple[Shown, ...] = ()
    of: str = ""
    per: str = ""
    additive: bool = False

    def name(self, language: Language) -> Name:
        """Its names in a language."""
        return {"en": self.en, "ru": self.ru}[language]

    def label(self, language: Language) -> str:
        """Its name under the name of its part."""
        return self.name(language).short

    def label_alone(self, language: Language) -> str:
        """Its name where its part is not named."""
        return self.name(language).alone or self.label(language)

    def label_so_far(self, language: Language) -> str:
        """Its name on a day that is not over."""
        return self.name(language).so_far or self.label(language)


METRICS: tuple[Metric, ...] = (
    Metric(
        "app_users",
        "app",
        "users",
        Name("DAU", alone="active users"),
        Name("DAU", alone="активные пользователи"),
        "distinct users who did anything in the feed or sent a message",
        SOURCES,
        ("dimension_metrics", "daily_metrics", "metric_buckets"),
        ("report",),
    ),
    Metric(
        "both_users",
        "app",
        "users",
        Name("feed & messenger"),
        Name("лента и мессенджер"),
        "distinct users who did anything in the feed and sent a message",
        SOURCES,
        (
            "dimension_metrics",
            "daily_metrics",
        ),
        ("report",),
    ),
    Metric(
        "feed_users",
        "feed",
        "users",
        Name("DAU", alone="feed users", so_far="active users"),
        Name("DAU", alone="пользователи ленты", so_far="пользователи"),
        "distinct users who did anything in the feed",
        (FEED,),
        ("dimension_metrics", "daily_metrics", "metric_buckets"),
        ("report", "live"),
    ),
    Metric(
        "views",
        "feed",
        "count",
        Name("views"),
        Name("просмотры"),
        "feed actions `view`",
        (FEED,),
        ("user_activity", "dimension_activity", "dimension_metrics", "daily_metrics", "metric_buckets"),
        ("report", "live"),
        additive=True,
    ),
    Metric(
        "likes",
        "feed",
        "count",
        Name("likes"),
        Name("лайки"),
        "feed actions `like`",
        (FEED,),
        ("user_activity", "dimension_activity", "dimension_metrics", "daily_metrics", "metric_buckets"),
        ("report", "live"),
        additive=True,
    ),
    Metric(
        "ctr",
        "feed",
        "share",
        Name("CTR"),
        Name("CTR"),
        "likes / views; none where there are no views",
        (FEED,),
        (
            "dimension_metrics",
            "daily_metrics",
        ),
        ("report", "live"),
        of="likes",
        per="views",
    ),
    Metric(
        "messenger_users",
        "messenger",
        "users",
        Name("DAU", alone="users sending", so_far="active users"),
        Name("DAU", alone="пишущие пользователи", so_far="пользователи"),
        "distinct users who sent a message",
        (MESSAGES,),
        ("dimension_metrics", "daily_metrics", "metric_buckets"),
        ("report", "live"),
    ),
    Metric(
        "messages_sent",
        "messenger",
        "count",
        Name("messages sent"),
        Name("отправлено", alone="отправленные сообщения"),
        "messages, by their sender",
        (MESSAGES,),
        ("user_activity", "dimension_activity", "dimension_metrics", "daily_metrics", "metric_buckets"),
        ("report", "live"),
        additive=True,
    ),
    Metric(
        "messages_received",
        "messenger",
        "count",
        Name("messages received"),
        Name("получено"),
        "messages, by their receiver; in `daily_metrics` and `dimension_metrics` only those to active users",
        SOURCES,
        ("user_activity", "dimension_activity", "dimension_metrics", "daily_metrics"),
    ),
    Metric(
        "sent_per_received",
        "messenger",
        "ratio",
        Name("sent / received"),
        Name("отпр. / получ."),
        "messages sent / messages received; none where none was received",
        SOURCES,
        (
            "dimension_metrics",
            "daily_metrics",
        ),
        ("report",),
        of="messages_sent",
        per="messages_received",
    ),
    Metric(
        "users_received",
        "messenger",
        "users",
        Name("senders"),
        Name("отправители"),
        "distinct users from whom the user, or the users of the slice, received messages",
        (MESSAGES,),
        ("user_activity", "dimension_activity"),
    ),
    Metric(
        "users_sent",
        "messenger",
        "users",
        Name("receivers"),
        Name("получатели"),
        "distinct users to whom the user, or the users of the slice, sent messages",
        (MESSAGES,),
        ("user_activity", "dimension_activity"),
    ),
)
"""In the order in which readers see them."""

BY_COLUMN: Mapping[str, Metric] = {metric.column: metric for metric in METRICS}


@dataclass(frozen=True)
class Dimension:
    """An attribute of users by which counts are split into slices.

    Args:
        column: its column in every `sources.sql` and in `user_activity`, and its name in `dimension_activity`.
        en: what readers call it in English.
        ru: and in Russian.
        watched_as: its name in the monitoring, where that groups its values; the column where empty.
        values_ru: those of its values that are words, in Russian.
        optional: whether a source may lack it. Then a day has no slices of it.
        is_watched: whether the monitoring counts it in every bucket and the dashboards have a chart of it: not one with
            thousands of values.
        is_steady: whether its values are usually the same from week to week, so that one that is gone or new is a
            reason to hold the day.
    """

    column: str
    en: str
    ru: str
    watched_as: str = ""
    values_ru: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False
    is_watched: bool = True
    is_steady: bool = True

    @property
    def watched(self) -> str:
        """Its name in `metric_buckets`, `verdicts` and `incidents`."""
        return self.watched_as or self.column

    def name(self, language: Language) -> str:
        """What readers call it."""
        return {"en": self.en, "ru": self.ru}[language]


DIMENSIONS: tuple[Dimension, ...] = (
    Dimension("os", "os", "ОС"),
    Dimension("gender", "gender", "пол", values_ru={"male": "мужчины", "female": "женщины"}),
    Dimension("age", "age", "возраст", watched_as="age_group"),
    Dimension("country", "country", "страна", optional=True, is_watched=False),
    Dimension("city", "city", "город", optional=True, is_watched=False),
    Dimension("source", "source", "источник", optional=True, is_watched=False, is_steady=False),
    Dimension("exp_group", "experiment group", "группа эксперимента", optional=True, is_watched=False, is_steady=False),
)
"""The attributes by which `dimension_activity` and `dimension_metrics` split a day, those that its source has, and the
monitoring its buckets."""


def columns(table: Table) -> list[str]:
    """The metrics that a table has as columns, in the order of the list."""
    return [metric.column for metric in METRICS if table in metric.tables]


def shown_in(where: Shown) -> list[Metric]:
    """The metrics that readers see in a place, in their order."""
    return [metric for metric in METRICS if where in metric.shown]
