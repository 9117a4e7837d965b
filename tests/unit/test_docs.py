"""The documentation builds without warnings, its links lead somewhere, and generated pages say what the code says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pulse import metrics
from pulse.publishing import keeping
from pulse.settings import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "README.ru.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the pages as HTML."""
    out = tmp_path_factory.mktemp("docs")
    command = ["-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", str(DOCS), str(out)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def text_of(built: Path, page: str) -> str:
    """Return a page's text without markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", (built / f"{page}.html").read_text()).split())


def test_every_page_is_reached_from_the_index(built: Path) -> None:
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")} - {"index"}
    pages = {page for page in pages if not page.startswith(("_build", "generated"))}
    index = (built / "index.html").read_text()
    assert {page for page in pages if f'href="{page}.html"' not in index} == set()


def test_every_link_within_the_pages_leads_somewhere(built: Path) -> None:
    missing = []
    for path in built.rglob("*.html"):
        for href in re.findall(r'(?:href|src)="([^"#?:]+)(?:[#?][^"]*)?"', path.read_text()):
            if not (path.parent / href).resolve().exists():
                missing.append(f"{path.relative_to(built)}: {href}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_at_the_top_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^":]+)"', text)
    assert [link for link in found if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_a_readme_is_short(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 120


def test_every_setting_has_its_meaning(built: Path) -> None:
    named = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    shown = text_of(built, "generated/settings")
    assert [name for name in named if name not in shown] == []


def test_every_metric_and_dimension_is_in_the_dictionary(built: Path) -> None:
    shown = text_of(built, "generated/metrics")
    for metric in metrics.METRICS:
        assert metric.column in shown
        assert metric.label_alone("ru") in shown
    assert all(dimension.column in shown for dimension in metrics.DIMENSIONS)


def test_every_table_is_there_with_the_meaning_of_its_columns(built: Path) -> None:
    tables = re.findall(
        r"^create (?:table if not exists|or replace view) (\w+)", (ROOT / "pulse/schema.sql").read_text(), re.M
    )
    shown = text_of(built, "generated/tables")
    assert [table for table in tables if table not in shown] == []
    assert "distinct users" in shown


@pytest.mark.parametrize("table", ["user_activity", "dimension_activity", "dimension_metrics", "daily_metrics"])
@pytest.mark.usefixtures("built")
def test_every_metric_of_a_table_is_listed_there(table: metrics.Table) -> None:
    page = (DOCS / "generated" / "tables.md").read_text()
    section = page.split(f"## `{table}_loads`")[1].split("## ")[0]
    assert set(metrics.columns(table)) <= {*re.findall(r"^\| `(\w+)` \| `[A-Z]\w*", section, re.MULTILINE)}


def test_every_command_is_there(built: Path) -> None:
    shown = text_of(built, "generated/commands")
    wanted = ("daily", "archive verify", "archive thin", "deliveries arrived", "sandbox run")
    assert [command for command in wanted if f"pulse {command}" not in shown] == []


@pytest.mark.usefixtures("built")
def test_the_page_states_how_long_everything_is_kept() -> None:
    page = (DOCS / "generated" / "retention.md").read_text()
    stated = dict(re.findall(r"^\| (.+) \| (\d+(?: hour)?) \|$", page, re.MULTILINE))
    for kept in keeping.TABLES:
        assert stated[f"`{kept.table}`"] == str(kept.days)
    assert stated["the archive: quiet notebooks"] == str(keeping.ARCHIVE_DAYS)
    assert stated["Airflow's logs, and its database"] == str(keeping.LOG_DAYS)
    assert stated["staging tables of a run"] == str(keeping.STAGING_DAYS)
    assert stated["loads that were never published"] == str(keeping.UNPUBLISHED_DAYS)
    assert stated["users of loads that another one replaced"] == f"{keeping.REPLACED_HOURS} hour"
    assert stated["metrics and slices of such loads, for `pulse as-of`"] == str(keeping.REPLACED_DAYS)
