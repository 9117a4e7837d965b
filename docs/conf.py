"""How Sphinx builds the documentation: `make docs`."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Pulse"
author = "the Pulse authors"
copyright = "the Pulse authors"  # noqa: A001 (Sphinx's name)
release = metadata.version("pulse")

extensions = ["myst_nb", "generated"]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["mystnb.unknown_mime_type"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks need a ClickHouse; the archive has them executed

html_theme = "furo"
html_title = "Pulse"
html_static_path: list[str] = []
html_show_sourcelink = False
