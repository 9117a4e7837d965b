"""Checks that an executed notebook can be read well by people who keep it as proof."""

import re
from pathlib import Path

import nbformat


def assert_worth_keeping(kept: Path) -> None:
    """Fail if a notebook shows unrounded floats, column types, or markup where readers expect text."""
    for cell in nbformat.read(kept, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = data.get("text/plain", "") + data.get("text/html", "") + output.get("text", "")
            assert not re.search(r"\d\.\d{4,}|&lt;b&gt;|dtype: |<class ", shown), shown
            assert "<b>" not in data.get("text/plain", "") + output.get("text", "")
