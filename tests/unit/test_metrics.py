"""Every place that writes out the list of metrics, the dimensions, the bucket or the week agrees with `pulse.metrics`.

The SQL of Pulse is written out where it runs. This file lists each statement and file that has to name all metrics or
dimensions of a table. After you add an entry to `pulse.metrics`, the tests that fail here show what is left to write.
A statement that names metrics and is not listed here also makes a test fail, so that no place is forgotten.
"""

import ast
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

import published
import pytest

from notebooks import etl, recount, reference
from pulse import metrics
from pulse.metrics import BUCKET, BY_COLUMN, DIMENSIONS, METRICS, WEEK, columns, shown_in
from pulse.settings import ROOT
from pulse.sources import definition

ATTRIBUTES = [dimension.column for dimension in DIMENSIONS]
REQUIRED = [dimension.column for dimension in DIMENSIONS if not dimension.optional]
WATCHED = [dimension.column for dimension in DIMENSIONS if dimension.is_watched]  # also those of the dashboards
USERS, SLICES, DAYS, BUCKETS = (
    columns(table) for table in ("user_activity", "dimension_activity", "daily_metrics", "metric_buckets")
)
COUNTED = [metric for metric in DAYS if not BY_COLUMN[metric].per]  # the others are ratios of these
DERIVED = ["app_users", "ctr", "sent_per_received"]  # made of other metrics of the day
ADDITIVE = [metric.column for metric in METRICS if metric.additive]


def counts(part: str = "") -> list[str]:
    """Return the counts of a user, which slices and days add up, for one part of the app or for all."""
    return [name for name in USERS if BY_COLUMN[name].unit == "count" and part in ("", BY_COLUMN[name].part)]


def live(part: str) -> list[str]:
    return [metric.column for metric in shown_in("live") if metric.part == part]


COUNTS_OF_SLICES = [*counts(), *(name for name in COUNTED if name != "app_users")]


@dataclass(frozen=True)
class Place:
    """A statement, or a whole file if `statement` is empty, and the names that it has to contain."""

    file: str
    statement: str
    names: list[str]

    def __str__(self) -> str:
        return f"{self.file}: {self.statement or 'the file'}"


ETL = "notebooks/etl"
TREND = "dashboards/superset/bundle/datasets/Pulse"
PLACES = [
    Place(f"{ETL}/extract_feed.ipynb", "The day's feed activity, one row per user", counts("feed")),
    Place(f"{ETL}/extract_feed.ipynb", "What each attributes key means, one row per key", ATTRIBUTES),
    Place(f"{ETL}/extract_feed.ipynb", "The day in one row", counts("feed")),
    Place(f"{ETL}/extract_messages.ipynb", "The day's sent messages, one row per sender", ["messages_sent"]),
    Place(f"{ETL}/extract_messages.ipynb", "The day's received messages, one row per receiver", ["messages_received"]),
    Place(f"{ETL}/extract_messages.ipynb", "What each attributes key means, one row per key", ATTRIBUTES),
    Place(f"{ETL}/extract_messages.ipynb", "The day in one row", counts("messenger")),
    Place(f"{ETL}/transform.ipynb", "The latest earlier attributes of users who only received messages", ATTRIBUTES),
    Place(f"{ETL}/transform.ipynb", "The names of the attributes, one row per attributes key", ATTRIBUTES),
    Place(f"{ETL}/transform.ipynb", "The day's activity, one row per user", USERS),
    Place(f"{ETL}/transform.ipynb", "The day's user activity, one row per user", USERS + ATTRIBUTES),
    Place(f"{ETL}/transform.ipynb", "pairs = len(dimensions)", ["users_received", "users_sent"]),
    Place(f"{ETL}/transform.ipynb", "What the users of each slice did", ["app_users", *COUNTS_OF_SLICES]),
    Place(f"{ETL}/transform.ipynb", "The day's activity, one row per dimension and value", SLICES),
    Place(f"{ETL}/transform.ipynb", "The day's metrics of the slices, one row per dimension and value", DAYS),
    Place(f"{ETL}/transform.ipynb", "The day's metrics, one row", DAYS),
    Place(f"{ETL}/load.ipynb", "totals made in several ways", counts()),
    Place(f"{ETL}/load.ipynb", "Each column of the users as staged", USERS + ATTRIBUTES),
    Place(f"{ETL}/load.ipynb", "The users and their attributes, found again", ATTRIBUTES),
    Place(f"{ETL}/load.ipynb", "What the users did, as extracted", USERS),
    Place(f"{ETL}/load.ipynb", "The counts of the slices as their users make them", COUNTS_OF_SLICES),
    Place(f"{ETL}/load.ipynb", "again = [counts[[", [*counts(), "users_received", "users_sent"]),
    Place(f"{ETL}/load.ipynb", "The day's metrics from the extracts", [name for name in DAYS if name not in DERIVED]),
    Place(f"{ETL}/load.ipynb", 'again["app_users"] =', DERIVED),
    Place(f"{ETL}/load.ipynb", "sums = again.groupby", DERIVED),
    Place(f"{ETL}/load.ipynb", "The day by slice as this load has it", SLICES),
    Place("notebooks/monitoring/anomalies.ipynb", "What happened, one row per bucket", BUCKETS + WATCHED),
    Place("notebooks/monitoring/anomalies.ipynb", "The history of what is watched", BUCKETS),
    Place("notebooks/monitoring/replay.ipynb", "The history of what is watched", BUCKETS),
    Place("notebooks/monitoring/watch.toml", "", BUCKETS),
    Place("notebooks/reports/daily_report.ipynb", "The report's numbers", [m.column for m in shown_in("report")]),
    Place("notebooks/reports/live_metrics.ipynb", "The feed of a day up to a moment", live("feed")),
    Place("notebooks/reports/live_metrics.ipynb", "The messenger of a day up to a moment", live("messenger")),
    Place("pulse/publishing/slices.py", "What each attributes key means, one row per key", ATTRIBUTES),
    Place("pulse/publishing/slices.py", "countIf(users.feed_active) as feed_users", DAYS),
    Place("pulse/publishing/agreement.py", "The totals of a day, one row per dimension", ADDITIVE),
    Place("pulse/publishing/agreement.py", "The day's metrics as the source makes them", USERS + ATTRIBUTES),
    Place(
        "pulse/publishing/profiles.py",
        "The day's metrics, and of both sources",
        ["views", "likes", "messages_received"],
    ),
    Place(
        "pulse/sources/measures.py", "The day's metrics, one row", [name for name in DAYS if not BY_COLUMN[name].per]
    ),
    Place(
        "pulse/publishing/restating.py",
        "What the source makes of a day now",
        [name for name in DAYS if name not in DERIVED],
    ),
    Place("pulse/publishing/commands.py", "The largest slices of a day", SLICES),
    Place("pulse/schema.sql", "create table if not exists user_activity_loads", USERS + ATTRIBUTES),
    Place("pulse/schema.sql", "create table if not exists dimension_activity_loads", SLICES + ATTRIBUTES),
    Place("pulse/schema.sql", "create table if not exists dimension_metrics_loads", DAYS + ATTRIBUTES),
    Place("pulse/schema.sql", "create table if not exists daily_metrics_loads", DAYS),
    Place("pulse/schema.sql", "create or replace view user_activity ", USERS + ATTRIBUTES),
    Place("pulse/schema.sql", "create or replace view dimension_activity ", SLICES),
    Place("pulse/schema.sql", "create or replace view dimension_metrics ", DAYS),
    Place("pulse/schema.sql", "create or replace view daily_metrics ", DAYS),
    Place(
        "pulse/schema.sql",
        "create table if not exists metric_buckets",
        BUCKETS + [each.watched for each in DIMENSIONS if each.is_watched],
    ),
    Place("pulse/schema.sql", "create or replace view bucket_history", BUCKETS),
    *(
        Place(
            f"pulse/sources/presets/{preset}.sql",
            f"create or replace view {view}",
            ATTRIBUTES if preset == "course" else REQUIRED,
        )
        for preset in definition.presets()
        for view in definition.VIEWS
    ),
    Place("dashboards/redash/dashboard.yaml", "", WATCHED),
    Place("dashboards/redash/queries/day.yaml", "", DAYS),
    Place("dashboards/redash/queries/trend.yaml", "", DAYS),
    Place("pulse/sources/measures.py", "The day's metrics, one row", DAYS),
    Place("dashboards/redash/queries/slices.yaml", "", SLICES),
    Place(f"{TREND}/daily_trend.yaml", "", DAYS),
    Place(f"{TREND}/dimension_activity.yaml", "", SLICES + WATCHED),
    Place(f"{TREND}/dimension_trend.yaml", "", SLICES + WATCHED),
    Place("dashboards/superset/bundle/charts/slices.yaml", "", WATCHED),
    Place("dashboards/superset/bundle/dashboards/Pulse.yaml", "", [f"by_{name}" for name in WATCHED]),
    Place(
        "dashboards/superset/bundle/dashboards/Pulse.yaml",
        "",
        [f"CHART-{metric.column}{ending}" for metric in shown_in("report") for ending in ("", "_trend")],
    ),
]
CHOSEN = {
    ("notebooks/etl/extract_feed.ipynb", "cell 12"): "a few numbers for the archive's index",
    ("notebooks/etl/extract_messages.ipynb", "cell 12"): "the check that no message is missing",
    ("notebooks/etl/extract_messages.ipynb", "cell 14"): "a few numbers for the archive's index",
    ("notebooks/etl/load.ipynb", "cells.glue("): "a few numbers for the archive's index",
    ("notebooks/etl/transform.ipynb", "cells.glue("): "a few numbers for the archive's index",
    ("notebooks/reports/live_metrics.ipynb", "cell 18"): "which parts have users today",
    ("pulse/publishing/slices.py", "published as ("): "distinct partners, which no sum gives",
    ("pulse/publishing/profiles.py", "The users of both sources by value"): "how many rows a user has, not what for",
    ("pulse/publishing/restating.py", "Restating: which"): "the module's docstring",
    ("pulse/sources/views.py", "The views through which"): "the module's docstring",
    ("pulse/publishing/plausible.py", "In what a day is far"): "a word of the docstring is the name of a dimension",
    ("notebooks/etl/load.ipynb", "cell 2"): "a word of the code is the name of a dimension",
    ("sandbox", ""): "makes the demo events; the preset app fails where one of its columns is missing",
    ("pulse/migrations", ""): "what older versions looked like, which stays",
    ("pulse/monitoring/texts.py", ""): "an example in a docstring",
    ("dashboards/superset/bundle/charts", ""): "a chart shows what it is named for",
}
"""Where only some metrics are named, and why: by file or folder, and by statement where one has several."""


@cache
def statements(file: str) -> list[tuple[str, str]]:
    """Return the statements of a file, each with a name: cells and SQL strings, SQL statements, or the whole file."""
    text = (ROOT / file).read_text()
    if file.endswith(".ipynb"):
        cells = [(number, "".join(cell["source"])) for number, cell in enumerate(json.loads(text)["cells"])]
        code = [(f"cell {number}", source) for number, source in cells if "`" not in source or '"""' in source]
        strings = [
            (f"cell {number}", sql) for number, source in cells for sql in re.findall(r'"""(.*?)"""', source, re.S)
        ]
        return strings + [(name, re.sub(r'""".*?"""', "", source, flags=re.S)) for name, source in code]
    if file.endswith(".sql"):
        return [(part.strip()[:60], part) for part in text.split(";\n")]
    if file.endswith(".py"):
        return [(found.strip()[:60], found) for found in _strings(ast.parse(text)) if "\n" in found]
    return [("", text.replace("\\n", "\n"))]


def _strings(node: ast.AST) -> Iterator[str]:
    """Yield the strings in Python code; an f-string counts as one string."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def named(text: str) -> set[str]:
    """Return the words of a text; `CHART-views` is one of them, and so is the `views` in it."""
    return {*re.findall(r"[\w-]+", text), *re.findall(r"\w+", text)}


def texts_of(place: Place) -> list[str]:
    return [text for _, text in statements(place.file) if place.statement in text]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_no_metric_and_no_dimension_is_missing_in(place: Place) -> None:
    found = texts_of(place)
    assert found, f"{place} is not there any more: correct the list of places."
    missing = [name for name in place.names if not any(name in named(text) for text in found)]
    assert not missing, f"{place} lacks {', '.join(missing)}"


def test_no_other_place_names_several_metrics_or_dimensions() -> None:
    unlisted = []
    for file in _tracked():
        if any(file.startswith(folder) for folder, statement in CHOSEN if not statement):
            continue
        listed = [place.statement for place in PLACES if place.file == file]
        chosen = [statement for name, statement in CHOSEN if name == file]
        for name, text in statements(file):
            words = named(text)
            if len(words & {*BY_COLUMN}) < 2 and len(words & {*ATTRIBUTES}) < 2:
                continue
            if not any(each in text for each in listed) and not any(each == name or each in text for each in chosen):
                unlisted.append(f"{file}: {name}")
    assert not unlisted


def test_what_is_chosen_on_purpose_is_still_there() -> None:
    for name, _ in CHOSEN:
        assert (ROOT / name).exists(), name


def test_every_metric_of_the_report_has_its_charts() -> None:
    charts = ROOT / "dashboards/superset/bundle/charts"
    wanted = [f"{metric.column}{ending}.yaml" for metric in shown_in("report") for ending in ("", "_trend")]
    wanted += [f"by_{name}.yaml" for name in WATCHED]
    assert [name for name in wanted if not (charts / name).exists()] == []


def test_a_share_and_a_ratio_name_what_they_divide() -> None:
    for metric in METRICS:
        assert bool(metric.of and metric.per) == (metric.unit in ("share", "ratio")), metric.column
        assert {metric.of, metric.per} - {""} <= {*BY_COLUMN}, metric.column


def test_every_metric_has_names_and_a_formula() -> None:
    assert len(BY_COLUMN) == len(METRICS)
    for metric in METRICS:
        assert metric.label("en"), metric.column
        assert metric.label("ru"), metric.column
        assert len(metric.formula) > 10, metric.column


MINUTES, SECONDS = BUCKET // timedelta(minutes=1), BUCKET // timedelta(seconds=1)
START_OF_BUCKET = {15: "toStartOfFifteenMinutes(time)"}.get(
    MINUTES, f"toStartOfInterval(time, interval {MINUTES} minute)"
)
WEEK_DAYS = WEEK // timedelta(days=1)
HEADLINES = [f"dashboards/superset/bundle/charts/{metric.column}.yaml" for metric in shown_in("report")]


@pytest.mark.parametrize(
    ("file", "written", "times"),
    [
        ("notebooks/monitoring/anomalies.ipynb", START_OF_BUCKET, 4),
        ("pulse/schema.sql", f"dateDiff('second', {{start:DateTime64(6)}}, bucket), {SECONDS})", 1),
        ("pulse/schema.sql", f"the first moment of the {MINUTES} minutes", 1),
        ("dags/monitoring.py", f"every {MINUTES} minutes", 1),
    ],
)
def test_the_length_of_a_bucket_is_the_lists(file: str, written: str, times: int) -> None:
    assert (ROOT / file).read_text().count(written) == times, f"{file} should have {times} times: {written}"


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("dashboards/redash/queries/day.yaml", f"arrayJoin(range({WEEK_DAYS + 1}))"),
        *((file, f"compare_lag: {WEEK_DAYS}\n") for file in HEADLINES),
        *((file, f"comparator: {WEEK_DAYS}\n") for file in HEADLINES),
        *((file, f'"op": "<=", "val": {WEEK_DAYS}}}') for file in HEADLINES),
    ],
)
def test_the_week_of_the_dashboards_is_the_lists(file: str, written: str) -> None:
    assert written in re.sub(r"\n  (?=\S)", " ", (ROOT / file).read_text()) or written in (ROOT / file).read_text(), (
        f"{file} should say: {written}"
    )


@pytest.mark.parametrize(
    ("file", "listed"),
    [
        ("tests/notebooks/etl.py: the columns of a test's source", [*etl.ATTRIBUTES, *etl.OPTIONAL]),
        ("tests/notebooks/reference.py", reference.ATTRIBUTES),
        ("tests/notebooks/recount.py", recount.ATTRIBUTES),
        ("tests/published.py", published.DIMENSIONS),
    ],
)
def test_the_tests_own_lists_have_every_dimension(file: str, listed: Iterable[str]) -> None:
    """Their lists are separate because what they compute must not depend on the code under test."""
    assert list(listed) == ATTRIBUTES, file


def test_dimensions_and_metrics_do_not_share_a_name() -> None:
    assert not {*ATTRIBUTES} & {*BY_COLUMN}
    assert metrics.SOURCES == (metrics.FEED, metrics.MESSAGES)


def _tracked() -> list[str]:
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    production = [file for file in found if not file.startswith(("tests/", "benchmarks/", "docs/"))]
    known = (".ipynb", ".sql", ".py", ".yaml", ".toml")
    return [
        file
        for file in production
        if file.endswith(known) and Path(ROOT / file).exists() and file != "pulse/metrics.py"
    ]
