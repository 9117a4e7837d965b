"""An executed notebook as HTML that can do no harm.

nbconvert makes the page, nh3 lets through only what is on a list: no script, no style, no form, no frame, no address
that is fetched. The pages' content security policy says the same once more to the browser.
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
# Its own classes, Pygments' tokens, the colours of a terminal: none that the page around it uses.
CLASS = re.compile(r"nb-[a-z-]+|highlight|dataframe|ansi-[a-z-]+|[a-z][a-z0-9]{0,2}")
# Pictures that are in the notebook itself; in an <img> an SVG's scripts do not run.
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*")
LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)


COLOURS = 50  # changes of colour that nbconvert gets at a time
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_ATTACHED = re.compile(r"!\[[^\]]*\]\(attachment:([^)\s]+)[^)]*\)")


def notebook(content: bytes) -> Markup:
    """A notebook's cells: text, figures and tables shown, code folded.

    Raises:
        ValueError: it is no notebook.
    """
    try:
        node = nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # whatever nbformat finds wrong with it, it finds in many ways
        raise ValueError(f"it is no notebook ({type(error).__name__})") from None
    node.metadata = nbformat.NotebookNode()  # whatever it lacks there, its cells can be shown
    for cell in node.cells:
        if cell.cell_type == "markdown":
            there = frozenset(cell.get("attachments") or {})
            cell.source = _ATTACHED.sub(partial(_attached, there), cell.source)
        cell.metadata = nbformat.NotebookNode({"tags": list(cell.metadata.get("tags") or [])})
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _shows(output)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of outputs that it cannot show
        try:
            html, _ = _exporter().from_notebook_node(node)
        except Exception as error:  # a notebook changed by hand may be wrong in as many ways as there are keys
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"its cells are not as Jupyter writes them ({said:.200})") from None
    return harmless(html)


def coloured(text: str) -> str:
    """What a terminal shows, as HTML; nbconvert's own way takes four times as long for twice as many colours.

    So it gets a few colours at a time, and before them those that still hold.
    """
    tokens = _COLOUR.split(text)
    holds: dict[str, str] = {}
    found = []
    for begin in range(0, len(tokens), 2 * COLOURS):  # texts, and the codes between them
        part = tokens[begin : begin + 2 * COLOURS]
        found.append(ansi2html("".join([*holds.values(), *part])))
        for code in part[1::2]:
            holds = _holding(holds, code)
    return "".join(found)


def _holding(holds: dict[str, str], code: str) -> dict[str, str]:
    """The codes that hold after another one: the last of each kind, none after a reset."""
    numbers = [int(number or 0) for number in code[2:-1].split(";")]
    if 38 in numbers or 48 in numbers:  # a colour out of many, which takes several numbers
        return {**holds, "text" if 38 in numbers else "page": code}
    for number in numbers:
        tens = number // 10 - 6 * (number >= 90)
        kind = {3: "text", 4: "page"}.get(tens, "weight" if number in (1, 2, 22) else str(number % 20))
        holds = {**holds, kind: f"\x1b[{number}m"} if number else {}
    return holds


def harmless(html: str) -> Markup:
    """HTML of a notebook with nothing left in it but what is on the lists above."""
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
    """Load what the first notebook would have to wait for."""
    empty = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1"), nbformat.v4.new_markdown_cell("*a*\n\n```sql\nselect 1\n```")]
    )
    notebook(nbformat.writes(empty).encode())


class _Exporter(HTMLExporter):
    """nbconvert's own, without its last step, which takes longer than all before it: reading the whole page again."""

    def from_notebook_node(self, nb: Any, resources: Any = None, **options: Any) -> Any:
        self.register_filter("ansi2html", coloured)
        self.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=self))
        return TemplateExporter.from_notebook_node(self, nb, resources, **options)


@cache
def _exporter() -> _Exporter:
    return _Exporter(
        template_name="basic", template_file=str(TEMPLATES / "notebook.html.j2"), exclude_anchor_links=True
    )


def _attached(there: frozenset[str], found: re.Match[str]) -> str:
    """A reference to an attachment, or that it is gone, which nbconvert would take for no notebook at all."""
    return found[0] if found[1] in there else f"*(the picture {found[1]} is gone)*"


def _shows(output: Mapping[str, Any]) -> bool:
    """Whether an output is for people: the records of queries and the scraps without a picture are not."""
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
