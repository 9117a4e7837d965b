"""An executed notebook as harmless HTML.

nbconvert makes the HTML, and nh3 removes everything that is not on a list: scripts, styles, forms, frames, and
addresses that a browser would fetch. The pages' content security policy forbids the same things again.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import nbformat
import nh3
from markupsafe import Markup
from nbconvert.exporters.html import HTMLExporter
from nbconvert.exporters.templateexporter import TemplateExporter
from nbconvert.filters.ansi import ansi2html
from nbconvert.filters.highlight import Highlight2HTML

from pulse.archive import TEMPLATES

TAGS = {
    "a", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1", "h2", "h3",
    "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "s", "small", "span", "strong", "sub", "summary",
    "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul",
}  # fmt: skip
ATTRIBUTES = {
    "*": {"class", "title"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "ol": {"start"},
    "details": {"open"},
}
# Our own classes, Pygments' tokens, and a terminal's colours; none that the page around the notebook uses.
CLASS = re.compile(r"nb-[a-z-]+|highlight|dataframe|ansi-[a-z-]+|[a-z][a-z0-9]{0,2}")
# Only pictures that are in the notebook itself. In an <img>, the scripts of an SVG do not run.
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*")
LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)


COLOURS = 50
"""How many changes of colour nbconvert gets at a time."""

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_ATTACHED = re.compile(r"!\[[^\]]*\]\(attachment:([^)\s]+)[^)]*\)")


def notebook(content: bytes) -> Markup:
    """The cells of a notebook as HTML, with code folded.

    Raises:
        ValueError: the content is not a notebook.
    """
    try:
        node = nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # nbformat raises many kinds of errors
        raise ValueError(f"it is not a notebook ({type(error).__name__})") from None
    node.metadata = nbformat.NotebookNode()  # the cells can be shown whatever is missing there
    for cell in node.cells:
        if cell.cell_type == "markdown":
            there = frozenset(cell.get("attachments") or {})
            cell.source = _ATTACHED.sub(partial(_attached, there), cell.source)
        cell.metadata = nbformat.NotebookNode({"tags": list(cell.metadata.get("tags") or [])})
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _shows(output)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about outputs that it cannot show
        try:
            html, _ = _exporter().from_notebook_node(node)
        except Exception as error:  # a notebook that was changed by hand can raise any error
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"its cells are not as Jupyter writes them ({said:.200})") from None
    return harmless(html)


def coloured(text: str) -> str:
    """Convert a terminal's output with its colours to HTML.

    nbconvert's time grows with the square of the number of colour changes, so it gets a few of them at a time, each
    time preceded by the codes that are still in effect.
    """
    tokens = _COLOUR.split(text)
    active: dict[str, str] = {}
    found = []
    for begin in range(0, len(tokens), 2 * COLOURS):  # the list alternates between texts and codes
        part = tokens[begin : begin + 2 * COLOURS]
        found.append(ansi2html("".join([*active.values(), *part])))
        for code in part[1::2]:
            active = _active_after(active, code)
    return "".join(found)


def _active_after(active: dict[str, str], code: str) -> dict[str, str]:
    """The codes in effect after one more: the last of each kind; none after a reset."""
    numbers = [int(number or 0) for number in code[2:-1].split(";")]
    if 38 in numbers or 48 in numbers:  # an extended colour, which has several numbers
        return {**active, "text" if 38 in numbers else "page": code}
    for number in numbers:
        tens = number // 10 - 6 * (number >= 90)
        kind = {3: "text", 4: "page"}.get(tens, "weight" if number in (1, 2, 22) else str(number % 20))
        active = {**active, kind: f"\x1b[{number}m"} if number else {}
    return active


def harmless(html: str) -> Markup:
    """Remove everything from HTML that is not on the lists above."""
    return Markup(  # noqa: S704
        nh3.clean(
            html,
            tags=TAGS,
            clean_content_tags={"script", "style", "template", "noscript", "iframe", "object", "textarea", "title"},
            attributes=ATTRIBUTES,
            attribute_filter=_attribute,
            url_schemes={"http", "https", "mailto", "data"},
            link_rel="noopener noreferrer",
        )
    )


def warm_up() -> None:
    """Load in advance what the first notebook would wait for."""
    empty = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1"), nbformat.v4.new_markdown_cell("*a*\n\n```sql\nselect 1\n```")]
    )
    notebook(nbformat.writes(empty).encode())


class _Exporter(HTMLExporter):
    """nbconvert's exporter without its last step, which parses the whole page again and takes longest."""

    def from_notebook_node(self, nb: Any, resources: Any = None, **options: Any) -> Any:
        # nbconvert has no types for these two calls.
        self.register_filter("ansi2html", coloured)  # type: ignore[no-untyped-call]
        highlight = Highlight2HTML(pygments_lexer="ipython3", parent=self)
        self.register_filter("highlight_code", highlight)  # type: ignore[no-untyped-call]
        return TemplateExporter.from_notebook_node(self, nb, resources, **options)


@cache
def _exporter() -> _Exporter:
    template = str(TEMPLATES / "notebook.html.j2")
    # nbconvert has no types for its constructor.
    return _Exporter(  # type: ignore[no-untyped-call]
        template_name="basic", template_file=template, exclude_anchor_links=True
    )


def _attached(there: frozenset[str], found: re.Match[str]) -> str:
    """A reference to an attachment, or a note that the attachment is missing, on which nbconvert would fail."""
    return found[0] if found[1] in there else f"*(the picture {found[1]} is missing)*"


def _shows(output: Mapping[str, Any]) -> bool:
    """Whether an output is meant for readers; records of queries and scraps without a picture are not."""
    kinds: Sequence[str] = list(output.get("data") or ["text/plain"])
    return any(not kind.startswith(("application/vnd.pulse", "application/scrapbook")) for kind in kinds)


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        return " ".join(filter(CLASS.fullmatch, value.split())) or None
    if name == "src":
        return value if PICTURE.fullmatch(value) else None
    if name == "href":
        return value if LINK.match(value) else None
    if name in ("width", "height"):
        return value if re.fullmatch(r"\d{1,4}", value) else None
    return value
