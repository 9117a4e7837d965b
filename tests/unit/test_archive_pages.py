"""The archive's pages: what differs between two runs, and HTML that does no harm."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pulse import settings
from pulse.archive import ArchiveError, index, manifest, pages, proof, render, site
from pulse.archive.compare import compare
from pulse.archive.executed import key_numbers, number

SCRAP = "application/scrapbook.scrap.json+json"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *tags: str, **data: Any) -> dict[str, Any]:
    kinds = {"html": "text/html", "png": "image/png", "scrap": SCRAP, "svg": "image/svg+xml"}
    shown = [
        {"output_type": "display_data", "metadata": {}, "data": {kinds[kind]: what}} for kind, what in data.items()
    ]
    metadata = {"tags": list(tags)}
    return {"cell_type": "code", "metadata": metadata, "source": source, "execution_count": 1, "outputs": shown}


def made(*cells: dict[str, Any], **about: Any) -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"outcome": "succeeded", "commit": "c0ffee", "run_id": "manual__1", "started": started, **about}
    node = {"cells": list(cells), "metadata": {"pulse": about}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(node).encode()


def a_load(day: str, users: int, ctr: str, where: str = "day", run: str = "manual__1", chart: str = PNG) -> bytes:
    numbers = {"name": "numbers", "data": [["users", users], ["CTR", ctr], ["rows", 62]]}
    return made(
        text("# Load"),
        code("day = 'yesterday'", "parameters"),
        code(f"day = '{day}'", "injected-parameters"),
        text("## Does it add up?"),
        code(f"select users\nfrom t\nwhere {where}", html=f"<table><tr><td>{users}</td></tr></table>", png=chart),
        code("glue()", scrap=numbers),
        parameters={"day": day, "run": re.sub(r"\W+|__", "_", run)},
        run_id=run,
    )


# --- two runs --------------------------------------------------------------------------------------------------------


def test_what_is_not_the_same_is_said_in_one_line() -> None:
    found = compare(a_load("2026-11-21", 12_000, "21.3%"), a_load("2026-11-22", 13_500, "18.8%", run="manual__2"))
    assert found.exceptions() == ["day 2026-11-21 → 2026-11-22", "users +12.5%", "CTR −2.5 points"]
    by_name = {each.name: each for each in found.numbers}
    assert (by_name["users"].difference, by_name["users"].percent) == (1500, 12.5)
    assert (by_name["CTR"].difference, by_name["CTR"].percent, by_name["rows"].same) == (-2.5, None, True)
    assert found.code == []  # the injected parameters are no code
    ((table), (chart)) = (found.tables[0], found.charts[0])
    assert (table.title, table.same, chart.same) == ("Does it add up?", False, True)


def test_the_same_is_the_same() -> None:
    once, again = (a_load("2026-11-22", 13_500, "18.8%", run=f"manual__{number}") for number in (1, 2))
    assert compare(once, again).exceptions() == []


def test_changed_code_is_shown_line_by_line_and_cells_that_came_and_went_too() -> None:
    one = made(text("# A"), code("a = 1\nb = 2"), code("gone = 1"), text("## Rest"), code("z = 1"))
    other = made(text("# A"), code("a = 1\nb = 3"), text("## Rest"), code("z = 1"), code("came = 1"))
    found = compare(one, other)
    marked = [[(mark, line) for mark, line in each.lines if mark != " "] for each in found.code]
    assert marked == [[("-", "b = 2"), ("+", "b = 3")], [("-", "gone = 1")], [("+", "came = 1")]]
    assert [each.title for each in found.code] == ["A", "A", "Rest"]
    assert found.exceptions() == ["code of 3 cells"]


def test_a_failure_beside_a_success_says_so_first() -> None:
    one, other = made(code("a = 1")), made(code("a = 1"), outcome="timed out")
    assert compare(one, other).exceptions() == ["succeeded → timed out"]
    with pytest.raises(ValueError, match="it is no notebook"):
        compare(one, b"{")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("13,533", (13533, False)), ("13\N{NO-BREAK SPACE}533", (13533, False)), ("18.8%", (18.8, True)),
        ("1,14", (1.14, False)), ("−6.8%", (-6.8, True)), (62, (62, False)), ("1,234,567.5", (1234567.5, False)),
        ("–", None), (None, None), (True, None), ("2026-11-22", None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(written: Any, meant: Any) -> None:
    assert number(written) == meant


def test_units_and_names_are_no_key_numbers_and_hide_none() -> None:
    glued = {
        "text": "views 13,892",
        "numbers": [["views", "195,193"], ["CTR", "20.3%"], ["sent / received", "–"]],
        "language": "en",
        "metrics": [["views", "count"], ["ctr", "share"]],
        "rows": 62,
        "views": 7,
        "used": {"2026-11-22": "scheduled_1"},
        "times": [["from", "05:00"]],
    }
    assert key_numbers(glued) == {
        "views": "195,193", "CTR": "20.3%", "sent / received": "–", "rows": 62, "views (views)": 7,
    }  # fmt: skip


def test_two_reports_with_other_numbers_are_not_called_the_same() -> None:
    one, other = (
        made(
            code("a", scrap={"name": "numbers", "data": [["views", views]]}),
            code("b", scrap={"name": "metrics", "data": [["views", "count"]]}),
        )
        for views in ("195,193", "186,811")
    )
    assert compare(one, other).exceptions() == ["views −4.3%"]


# --- what a notebook may show ----------------------------------------------------------------------------------------


HARM = "|".join(
    [
        r"script|on\w+=|style=|id=|srcset|data:text|e\.vil|page-top",
        r"<(style|svg|i?frame|form|input|meta|base|link|object)",
    ]
)


@pytest.mark.parametrize(
    "harm",
    [
        "<script>x()</script>", "<img src=x onerror=x()>", "<svg><script>x()</script></svg>",
        "<iframe src=//e.vil></iframe>",
        "<a href='javascript:x()'>a</a>", "<a href='data:text/html,<script>x()</script>'>a</a>", "<style>*{}</style>",
        "<img src='https://e.vil/p.png'>", "<img src='data:text/html;base64,eA=='>",
        "<form action=//e.vil><input></form>",
        "<div style='position:fixed'>a</div>", "<div class='page-top head' id='x'>a</div>", "<meta http-equiv=refresh>",
        "<base href=//e.vil>", "<link rel=stylesheet href=//e.vil>", "<object data=//e.vil></object>",
        "<video src=//e.vil>",
        "<math><mi xlink:href='javascript:x()'>a</mi></math>", "<td background=//e.vil>",
        "<img src='a' srcset='//e.vil 2x'>",
        "<noscript><p title='</noscript><img src=x onerror=x()>'>",
        "<textarea><img title='</textarea><img onerror=x()>'>",
    ],
)  # fmt: skip
def test_harm_is_taken_out(harm: str) -> None:
    shown = [str(render.harmless(harm)), render.notebook(made(text(f"# A\n\n{harm}"), code(harm, html=harm)))]
    shown[1] = re.sub(r"(?s)<details.*?</details>", "", shown[1])  # the code itself is shown, as text
    for each in shown:
        tags = re.findall(r"<[^>]*>", each)
        assert not [tag for tag in tags if re.search(HARM, tag)], each


def test_what_people_want_to_see_stays() -> None:
    table = (
        '<table class="dataframe"><thead><tr><th scope="col" colspan="2">a</th></tr></thead><tr><td>1</td></tr></table>'
    )
    html = render.notebook(
        made(text("*a* [b](https://c.de)"), code("x = 1", html=table, png=PNG), code("print(1)", svg="<svg/>"))
    )
    assert table.replace("<tr><td>", "<tbody><tr><td>").replace("</table>", "</tbody></table>") in html
    assert f"data:image/png;base64,{PNG}" in html
    assert "data:image/svg+xml;base64," in html
    assert '<em>a</em> <a href="https://c.de" rel="noopener noreferrer">b</a>' in html
    assert '<details class="nb-code">' in html


def test_the_policy_names_the_pages_own_style_and_script_and_nothing_else() -> None:
    for name, served in (("style.css", True), ("filter.js", False)):
        content = (pages.TEMPLATES / name).read_bytes()
        expected = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert f"'sha256-{expected}'" in pages.policy(served)
    assert "script-src" not in pages.policy()
    for forbidden in ("unsafe", "http", "*"):
        assert forbidden not in pages.policy() + pages.policy(False)
    assert pages.policy().startswith("default-src 'none'; img-src data:;")


# --- whom it is shown to ---------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    for dag, day in (("etl", "2026-11-21"), ("etl", "2026-11-22"), ("payroll", "2026-11-22")):
        place = f"{dag}/{day}/run/load.1.ipynb"
        (root / place).parent.mkdir(parents=True)
        (root / place).write_bytes(a_load(day, 12_000 + len(dag), "20.0%"))
        ended = manifest.ending("succeeded", (root / place).read_bytes())
        manifest.append(root, {"what": "begun", "path": place}, {**ended, "path": place})
    return root


def test_a_reader_sees_only_the_pipelines_that_airflow_lets_them_see(root: Path) -> None:
    look = pages.Look(settings.load(), dags=frozenset({"etl"}))
    hidden, shown = "payroll/2026-11-22/run/load.1.ipynb", "etl/2026-11-22/run/load.1.ipynb"
    with index.opened(root) as opened:
        listed = pages.list_page(opened, look, index.Filter(dags=look.dags))
        assert ("payroll" in listed, "etl" in listed) == (False, True)
        assert "payroll" not in pages.run_page(opened, look, shown)
        for asked in (
            lambda: pages.run_page(opened, look, hidden),
            lambda: pages.compare_page(opened, look, hidden, shown),
            lambda: pages.compare_page(opened, look, shown, hidden),
        ):
            with pytest.raises(ArchiveError, match="holds no run"):
                asked()
        assert not look.sees(opened.attempt(hidden))


def test_the_site_is_made_of_what_changed_and_leaves_other_folders_alone(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert site.write(root, folder, settings.load()) == (3, 3)
    assert site.write(root, folder, settings.load()) == (3, 0)
    assert (folder / "run/etl/2026-11-22/run/load.1.html").exists()
    assert (folder / "run/etl/2026-11-22/run/load.1.ipynb").read_bytes() == (
        root / "etl/2026-11-22/run/load.1.ipynb"
    ).read_bytes()
    assert "Same as 21 November except" in (folder / "compare/etl/2026-11-22/run/load.1.html").read_text()
    with pytest.raises(ArchiveError, match="holds something else than the archive's pages"):
        site.write(root, tmp_path, settings.load())
    with pytest.raises(ArchiveError, match="is in the archive"):
        site.write(root, root / "site", settings.load())
    assert proof.verify(root).problems == []
