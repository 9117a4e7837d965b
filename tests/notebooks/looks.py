"""What an executed notebook shows, as whoever keeps it as proof wants to read it."""

import re
from pathlib import Path

import nbformat


def assert_worth_keeping(kept: Path) -> None:
    """No number with the digits of a float, no type of a column, no markup where readers see text."""
    for cell in nbformat.read(kept, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = data.get("text/plain", "") + data.get("text/html", "") + output.get("text", "")
            assert not re.search(r"\d\.\d{4,}|&lt;b&gt;|dtype: |<class ", shown), shown
            assert "<b>" not in data.get("text/plain", "") + output.get("text", "")
