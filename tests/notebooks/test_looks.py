"""An executed notebook is worth keeping: it shows numbers as people read them, and messages as readers see them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from notebooks.looks import assert_worth_keeping

from notebooks.etl import Etl
from pulse.archive import render
from pulse.execution import runner
from pulse.settings import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


def test_the_report_in_the_archive(etl: Etl, tmp_path: Path) -> None:
    etl.feed(*[(user, "view", "09:30", "iOS", "male", 25) for user in range(1, 101) for _ in range(15)])
    etl.feed(*[(user, "like", "09:31", "iOS", "male", 25) for user in range(1, 101) for _ in range(3)])
    etl.messages(*[(user, user + 1, "10:00", "Android", "female", 31) for user in range(1, 41)])
    etl.run()
    kept = tmp_path / "daily_report.ipynb"
    given = {"event_date": str(etl.day)}
    runner.run(ROOT / "notebooks/reports/daily_report.ipynb", str(kept), given, environment=etl.environment)
    html = str(render.notebook(kept.read_bytes()))
    assert re.search(r"<th>views</th>\s*<td>1,500</td>", html)
    assert re.search(r"<th>ctr</th>\s*<td>20.0 %</td>", html)
    assert re.search(r"<th>sent_per_received</th>\s*<td>1.00</td>", html)
    assert "Wed 12 Mar 2025" in html
    assert re.search(r"<blockquote>.*<b>Wednesday 12 March 2025</b><br>", html, re.DOTALL)
    assert 'width="540"' in html  # the chart: half of its 1,080 pixels
    assert_worth_keeping(kept)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_table_and_message_is_shown_by_show(path: Path) -> None:
    """A cell that ends with a value shows it with `cells.show`; what a cell prints is a sentence."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            last = ast.parse(cell.source).body[-1]
            if isinstance(last, ast.Expr):
                said = ast.unparse(last)
                assert re.match(
                    r"cells\.(show|expect|glue)\(|print\(|db\.(execute|write)\(|clickhouse\.|schema\.", said
                ), said
            printed = [ast.unparse(node) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            assert not [each for each in printed if re.match(r"print\((text|found|frame|metrics|.*db\.read)", each)]
