"""The archive's pages: the differences between two runs, and harmless HTML."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pulse import settings
from pulse.archive import ArchiveError, find, index, manifest, pages, proof, render, site
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


def test_the_differences_of_two_runs_are_summed_up_in_a_few_words() -> None:
    found = compare(a_load("2026-11-21", 12_000, "21.3%"), a_load("2026-11-22", 13_500, "18.8%", run="manual__2"))
    assert found.exceptions() == ["day 2026-11-21 → 2026-11-22", "users +12.5%", "CTR −2.5 points"]
    by_name = {each.name: each for each in found.numbers}
    assert (by_name["users"].difference, by_name["users"].percent) == (1500, 12.5)
    assert (by_name["CTR"].difference, by_name["CTR"].percent, by_name["rows"].same) == (-2.5, None, True)
    assert found.code == []  # injected parameters do not count as code
    ((table), (chart)) = (found.tables[0], found.charts[0])
    assert (table.title, table.same, chart.same) == ("Does it add up?", False, True)


def test_two_equal_runs_have_no_differences() -> None:
    once, again = (a_load("2026-11-22", 13_500, "18.8%", run=f"manual__{number}") for number in (1, 2))
    assert compare(once, again).exceptions() == []


def test_changed_added_and_removed_code_is_shown_line_by_line() -> None:
    one = made(text("# A"), code("a = 1\nb = 2"), code("gone = 1"), text("## Rest"), code("z = 1"))
    other = made(text("# A"), code("a = 1\nb = 3"), text("## Rest"), code("z = 1"), code("came = 1"))
    found = compare(one, other)
    marked = [[(mark, line) for mark, line in each.lines if mark != " "] for each in found.code]
    assert marked == [[("-", "b = 2"), ("+", "b = 3")], [("-", "gone = 1")], [("+", "came = 1")]]
    assert [each.title for each in found.code] == ["A", "A", "Rest"]
    assert found.exceptions() == ["code of 3 cells"]


def test_a_difference_of_outcomes_comes_first() -> None:
    one, other = made(code("a = 1")), made(code("a = 1"), outcome="timed out")
    assert compare(one, other).exceptions() == ["succeeded → timed out"]
    with pytest.raises(ValueError, match="it is not a notebook"):
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


def test_units_and_names_are_not_key_numbers_and_hide_none() -> None:
    glued = {
        "text": "views 13,892",
        "numbers": [["views", "195,193"], ["CTR", "20.3%"], ["sent / received", "–"]],
        "language": "en",
        "metrics": [["views", "count"], ["ctr", "share"]],
        "rows": 62,
        "views": 7,
        "loads": {"2026-11-22": "1234567890"},
        "times": [["from", "05:00"]],
    }
    assert key_numbers(glued) == {
        "views": "195,193", "CTR": "20.3%", "sent / received": "–", "rows": 62, "views (views)": 7,
    }  # fmt: skip


def test_two_reports_with_different_numbers_differ() -> None:
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
def test_harmful_html_is_removed(harm: str) -> None:
    shown = [str(render.harmless(harm)), render.notebook(made(text(f"# A\n\n{harm}"), code(harm, html=harm)))]
    shown[1] = re.sub(r"(?s)<details.*?</details>", "", shown[1])  # the code itself is shown, as text
    for each in shown:
        tags = re.findall(r"<[^>]*>", each)
        assert not [tag for tag in tags if re.search(HARM, tag)], each


def test_harmless_html_stays() -> None:
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


def test_the_content_policy_allows_only_our_own_style_and_scripts() -> None:
    for policy, names in ((pages.policy(), ("style.css", "keys.js")), (pages.policy(False, True), ("filter.js",))):
        for name in names:
            content = (pages.TEMPLATES / name).read_bytes()
            expected = base64.b64encode(hashlib.sha256(content).digest()).decode()
            assert f"'sha256-{expected}'" in policy
    for each in (pages.policy(), pages.policy(False)):
        for forbidden in ("unsafe", "http", "*", "'self' file:"):
            assert forbidden not in each
    assert pages.policy().startswith("default-src 'none'; img-src data:;")


# --- who may see what ------------------------------------------------------------------------------------------------


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


def test_a_reader_sees_only_the_pipelines_that_airflow_allows(root: Path) -> None:
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


def test_the_site_rewrites_only_changes_and_refuses_other_folders(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert site.write(root, folder, settings.load()) == (3, 3)
    assert site.write(root, folder, settings.load()) == (3, 0)
    assert (folder / "run/etl/2026-11-22/run/load.1.html").exists()
    assert (folder / "run/etl/2026-11-22/run/load.1.ipynb").read_bytes() == (
        root / "etl/2026-11-22/run/load.1.ipynb"
    ).read_bytes()
    assert "Same as 21 November except" in (folder / "compare/etl/2026-11-22/run/load.1.html").read_text()
    with pytest.raises(ArchiveError, match="holds something other than the archive's pages"):
        site.write(root, tmp_path, settings.load())
    with pytest.raises(ArchiveError, match="is in the archive"):
        site.write(root, root / "site", settings.load())
    assert proof.verify(root).problems == []


# --- comparisons -----------------------------------------------------------------------------------------------------


def sources(*cells: str, ids: Sequence[str] = ()) -> bytes:
    """Return a notebook with these code cells; without ids it has the older format."""
    listed = [
        {"cell_type": "code", "source": each, "outputs": [], "metadata": {}, "execution_count": 1} for each in cells
    ]
    for cell, name in zip(listed, ids, strict=False):
        cell["id"] = name
    node = {"cells": listed, "metadata": {}, "nbformat": 4, "nbformat_minor": 5 if ids else 4}
    return json.dumps(node).encode()


def changed_code(left: bytes, right: bytes) -> list[list[str]]:
    return [["".join(line) for line in each.lines] for each in compare(left, right).code]


def test_cells_are_matched_by_id_even_if_moved_or_changed() -> None:
    before = sources("a = 1", "b = 2", "c = 3", ids=["one", "two", "three"])
    after = sources("a = 1", "new = 0", "b = 20\nd = 4", "c = 3", ids=["one", "new", "two", "three"])
    assert changed_code(before, after) == [["+new = 0"], ["-b = 2", "+b = 20", "+d = 4"]]
    assert changed_code(after, before) == [["-new = 0"], ["-b = 20", "-d = 4", "+b = 2"]]


def test_without_ids_cells_are_matched_by_code_and_position() -> None:
    before, after = sources("a = 1", "b = 2", "c = 3"), sources("a = 1", "b = 20", "c = 3", "d = 4")
    assert changed_code(before, after) == [["-b = 2", "+b = 20"], ["+d = 4"]]
    assert changed_code(before, before) == []


def test_thousands_of_changed_lines_are_compared_quickly() -> None:
    """The test does not measure the time: if it were quadratic, the test would exceed its time limit."""
    before, after = ("\n".join(f"value_{n} = compute({n}, limit={limit})" for n in range(5_000)) for limit in (10, 11))
    ((lines),) = changed_code(sources(before, "b = 2"), sources(after, "b = 2"))
    assert len(lines) == 10_000


def test_a_comparison_says_that_a_run_has_no_end(root: Path) -> None:
    path = "etl/2026-11-23/run/load.1.ipynb"
    (root / path).parent.mkdir(parents=True)
    (root / path).write_bytes(a_load("2026-11-23", 1, "20.0%").replace(b'"succeeded"', b'"running"'))
    manifest.append(root, {"what": "begun", "path": path})
    with index.opened(root) as opened:
        html = pages.compare_page(opened, pages.Look(settings.load()), "etl/2026-11-22/run/load.1.ipynb", path)
    assert "succeeded → no end recorded" in html


# --- what cannot be shown --------------------------------------------------------------------------------------------


def odd(**changed: Any) -> bytes:
    """A notebook that Jupyter would not write."""
    return json.dumps({**json.loads(made(text("# Odd"), code("a = 1"))), **changed}).encode()


def glued(name: str, value: Any) -> dict[str, Any]:
    """A cell that glued a value."""
    scrap = {"name": name, "data": value, "encoder": "json", "version": 1}
    output = {"output_type": "display_data", "data": {"application/scrapbook.scrap.json+json": scrap}, "metadata": {}}
    return {"cell_type": "code", "source": "glue", "metadata": {}, "execution_count": 1, "outputs": [output]}


ODD = {
    "attachment": made(text("# Odd\n\n![a](attachment:a.png)")),
    "no kernel": odd(metadata={"kernelspec": {}, "language_info": {}, "pulse": {"outcome": "succeeded"}}),
    "no cells": odd(cells=7),
    "odd cells": odd(cells=[7, {"cell_type": "code"}, {"cell_type": "x", "source": 1}]),
    "odd outputs": odd(cells=[{"cell_type": "code", "source": ["a"], "outputs": 7, "metadata": []}]),
    "odd data": odd(cells=[code("a", png=7, html=["<b>", 1])]),
    "metadata": odd(metadata=7),
    "large number": odd(cells=[glued("checksum", 2**2000)]),
    "large seconds": odd(metadata={"pulse": {"outcome": "succeeded", "seconds": 10**30}}),
    "half a letter": odd(cells=[{"cell_type": "markdown", "source": "# Half \ud83d"}, code("print('\ud83d')")]),
    "no json": b"{",
    "bytes": b"\xff\xfe",
    "nothing": b"",
    "a list": b"[]",
    "deep": b"[" * 100_000,
}


@pytest.fixture
def odd_root(root: Path) -> Path:
    """An archive with notebooks that cannot be shown, and some whose files are gone."""
    for name, content in ODD.items():
        kept(root, f"odd/2026-11-22/{name.replace(' ', '_')}/odd.1.ipynb", content)
    for name in ("gone", "folder", "unreadable"):
        kept(root, f"odd/2026-11-22/{name}/odd.1.ipynb", made(text(f"# {name}")))
        (root / f"odd/2026-11-22/{name}/odd.1.ipynb").unlink()
    (root / "odd/2026-11-22/folder/odd.1.ipynb").mkdir()
    sent = {"report": "odd", "event_date": "2026-11-22"}
    told = {"chat": "-1", "state": "sent", "did": "sent", "ref": "r", "message_id": 10**30}
    place = "odd/2026-11-22/no_cells/odd.1.ipynb"
    by_hand(root, {"what": "delivered", "path": place, **sent, "deliveries": [told]})
    for path in ("odd/2026-11-22/.hidden/odd.1.ipynb", "odd/2026-11-22/a\\b/odd.1.ipynb", "../../outside.1.ipynb"):
        by_hand(root, {"what": "begun", "path": path})
        by_hand(root, {**manifest.ending("succeeded", b"{}"), "path": path})
    return root


def kept(root: Path, place: str, content: bytes) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_bytes(content)
    manifest.append(root, {"what": "begun", "path": place}, {**manifest.ending("succeeded", content), "path": place})


def by_hand(root: Path, entry: dict[str, Any]) -> None:
    whole = manifest.bound({"at": "2026-11-22T02:00:00+00:00", **entry, "prev": manifest.head(root)})
    with (root / "manifest.jsonl").open("a") as file:
        file.write(json.dumps(whole) + "\n")


def test_a_notebook_that_cannot_be_shown_affects_only_its_own_page(odd_root: Path) -> None:
    look = pages.Look(settings.load())
    with index.opened(odd_root) as opened:
        listed = opened.search(index.Filter(dag="odd")).attempts
        assert len(listed) == len(ODD) + 3
        assert "Odd" in pages.list_page(opened, look, index.Filter())
        for attempt in listed:
            html = pages.run_page(opened, look, attempt.path)
            assert attempt.reference in html
            with suppress(ArchiveError):  # a comparison, or a sentence that says why there is none
                assert "two runs" in pages.compare_page(opened, look, listed[0].path, attempt.path)
        said = {name: pages.run_page(opened, look, f"odd/2026-11-22/{name}/odd.1.ipynb") for name in ("gone", "folder")}
        assert all("The notebook is gone, or cannot be read." in html for html in said.values())
        shown = pages.run_page(opened, look, "odd/2026-11-22/attachment/odd.1.ipynb")
        assert "the picture a.png is missing" in shown
        assert "a = 1" in re.sub("<[^>]*>", "", pages.run_page(opened, look, "odd/2026-11-22/no_kernel/odd.1.ipynb"))
        assert opened.search(index.Filter(dag="odd")).total == len(listed)
    index.keep_up(odd_root)
    kept(odd_root, "etl/2026-11-23/run/load.1.ipynb", a_load("2026-11-23", 1, "20.0%"))  # the next run works as usual
    with index.opened(odd_root) as opened:
        assert opened.search(index.Filter(first="2026-11-23")).total == 1
    problems = "\n".join(proof.verify(odd_root).problems)
    assert "gone/odd.1.ipynb: removed" in problems
    assert "folder/odd.1.ipynb: a folder, put there by hand" in problems
    assert problems.count("its path is not one of the archive's") == 6


def test_the_site_shows_the_other_runs_and_stays_in_its_folder(odd_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er" / "site"
    runs, _ = site.write(odd_root, folder, settings.load())
    assert runs == 3 + len(ODD) + 3
    made_ = {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")}
    assert {f"run/odd/2026-11-22/{name.replace(' ', '_')}/odd.1.html" for name in ODD} <= made_
    assert "The notebook is gone" in (folder / "run/odd/2026-11-22/gone/odd.1.html").read_text()
    outside = [path for path in tmp_path.rglob("*outside*") if not path.is_relative_to(folder)]
    assert outside == []
    assert site.write(odd_root, folder, settings.load()) == (runs, 0)


@pytest.mark.parametrize("name", ["x/" + "y" * 3000 + ".ipynb", "a/b\udc80.ipynb", "x/" * 3000 + "y.ipynb"])
def test_a_name_that_no_disk_accepts_is_not_found(root: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match="holds no notebook"):
        find(root, name)


def test_coloured_output_is_converted_in_linear_time() -> None:
    line = "\x1b[32mINFO\x1b[0m a \x1b[1;31mlong\x1b[0m line\n"
    html = render.coloured(line * 20_000)
    assert html.count('<span class="ansi-green-fg">INFO</span>') == 20_000
    # The time is not measured, because machines are busy. Short output is converted as nbconvert converts it.
    assert render.coloured(line * 60) == render.ansi2html(line * 60)
    held = "\x1b[32m" + "a \x1b[1mb\x1b[22m " * 200 + "\x1b[0mc"
    plain = re.compile(r"</span><span[^>]*>")
    for each in (render.coloured(held), render.ansi2html(held)):
        assert plain.sub("", each).count("ansi-bold") <= 200
        assert re.sub("<[^>]*>", "", each) == "a b " * 200 + "c"
    assert "ansi-green-fg" in render.coloured(held)[-200:]


def test_changed_table_cells_are_marked_by_row_and_position() -> None:
    def table(*rows: tuple[str, ...]) -> str:
        return "<table>" + "".join(f"<tr>{''.join(f'<td>{x}</td>' for x in row)}</tr>" for row in rows) + "</table>"

    one = made(code("t", html=table(("iOS", "7", "1"), ("Android", "9", "2"))))
    now = table(("new", "4", "4"), ("iOS", "7", "3"), ("Android", "9", "2"))
    other = made(code("t", html=now))
    (pair,) = compare(one, other).tables
    assert pair.left is not None
    assert pair.right is not None
    marked = [re.findall(r'class="nb-moved">([^<]*)<', side) for side in (pair.left, pair.right)]
    assert marked == [["1"], ["new", "4", "4", "3"]]
    assert re.sub(' class="nb-moved"', "", pair.right) == render.harmless(
        table(("new", "4", "4"), ("iOS", "7", "3"), ("Android", "9", "2"))
    )


# --- from a number to what made it ------------------------------------------------------------------------------------


def test_a_report_links_to_the_run_that_published_its_numbers_and_back(root: Path, tmp_path: Path) -> None:
    for run, day in enumerate(("2026-11-21", "2026-11-22", "2026-11-22")):
        load = code("b", scrap={"name": "load", "data": f"load{run}"})
        for name, cell in (("extract_feed", code("a")), ("load", load)):
            kept(root, f"etl/{day}/run_{run}/{name}.1.ipynb", made(text(f"# {name}"), cell, number=run))
    loads = {"name": "loads", "data": {"2026-11-21": "load0", "2026-11-22": "load2"}}
    kept(root, "daily_report/2026-11-22/r/report.1.ipynb", made(text("# Report"), code("d", scrap=loads)))
    look = pages.Look(settings.load())
    with index.opened(root) as opened:
        report = opened.attempt("daily_report/2026-11-22/r/report.1.ipynb")
        assert report is not None
        published = [each.path for each in opened.made_of(report)]
        assert published == ["etl/2026-11-22/run_2/load.1.ipynb", "etl/2026-11-21/run_0/load.1.ipynb"]
        for name, used in (("load", True), ("extract_feed", True)):
            here = opened.attempt(f"etl/2026-11-22/run_2/{name}.1.ipynb")
            assert here is not None
            assert [each.path for each in opened.used_by(here)] == [report.path] * used
        unused = opened.attempt("etl/2026-11-22/run_1/load.1.ipynb")
        assert unused is not None
        assert opened.used_by(unused) == []  # another load replaced it before the report
        html = pages.run_page(opened, look, report.path)
        assert 'href="../../../../run/etl/2026-11-22/run_2/load.1.html"' in html
        html = pages.run_page(opened, look, published[0])
        assert 'href="../../../../run/daily_report/2026-11-22/r/report.1.html"' in html
        assert 'href="../../../../run/etl/2026-11-22/run_2/extract_feed.1.html"' in html
        limited = pages.Look(settings.load(), dags=frozenset({"daily_report"}))
        assert "etl/" not in pages.run_page(opened, limited, report.path)
    site.write(root, tmp_path / "site", settings.load())
    assert "run_2/load.1.html" in (tmp_path / "site/run/daily_report/2026-11-22/r/report.1.html").read_text()


def test_a_page_beyond_the_last_one_shows_the_last_one(root: Path) -> None:
    look = pages.Look(settings.load())
    with index.opened(root) as opened:
        first = pages.list_page(opened, look, index.Filter())
        assert "load.1.html" in first
        assert pages.list_page(opened, look, index.Filter(), 10**18) == first
        assert "Nothing matches" in pages.list_page(opened, look, index.Filter(dag="x"), 7)


def test_unended_attempts_do_not_look_running_nor_unsent_alerts_sent(root: Path) -> None:
    begun = made(text("# Full"), outcome="running")
    place = "etl/2026-11-23/run/full.1.ipynb"
    (root / place).parent.mkdir(parents=True)
    (root / place).write_bytes(begun)
    manifest.append(root, {"what": "begun", "path": place})
    kept(root, "buckets/2026-11-23/run/anomalies.1.ipynb", made(code("a", scrap={"name": "alerts", "data": [1]})))
    with index.opened(root) as opened:
        html = pages.list_page(opened, pages.Look(settings.load()), index.Filter())
        assert '<span class="outcome busy">no end recorded</span>' in html
        assert "running" not in html
        assert '<span class="fact"><b>1</b> alert, not sent</span>' in html
        sent = {"chat": "-1", "state": "sent", "did": "sent", "ref": "r", "message_id": 1}
        entry = {"what": "delivered", "path": "buckets/2026-11-23/run/anomalies.1.ipynb", "report": "alert"}
    manifest.append(root, {**entry, "event_date": "2026-11-23", "deliveries": [sent]})
    with index.opened(root) as opened:
        html = pages.list_page(opened, pages.Look(settings.load()), index.Filter())
    assert '<span class="fact alert"><b>1</b> alert</span>' in html
