"""The archive's pages: the list of runs, one run, and two runs compared. Airflow serves them, `site` writes them.

A page loads nothing from elsewhere, its addresses are relative, and it contains its own style, so it looks the same at
any address and from disk. Its content security policy allows only our own scripts, by their hashes, and none from a
notebook (`/` goes to the search field; the list on disk filters itself).
"""

import base64
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pulse import archive
from pulse.archive import TEMPLATES, ArchiveError, executed
from pulse.archive.attempts import UNENDED, Attempt, day, shown
from pulse.archive.index import PAGE, Filter, Index
from pulse.settings import Settings

FOLDED = 12
"""If a pipeline has more runs than this on a day, they are folded."""


@dataclass(frozen=True)
class Look:
    """For whom pages are made, and where they are shown.

    `served`: a program serves them, and filters and compares on demand; otherwise they are files. `dags`: the pipelines
    that the reader may see; None means all. `framed`: they are shown within a page of Airflow.
    """

    settings: Settings
    served: bool = True
    dags: frozenset[str] | None = None
    framed: bool = False

    def sees(self, attempt: Attempt | None) -> bool:
        """Whether the attempt exists and this reader may see it."""
        return attempt is not None and (self.dags is None or attempt.dag in self.dags)


def policy(served: bool = True, finds: bool = False) -> str:
    """The content security policy of a page. `finds` is for the list on disk, which loads files beside it."""
    script = f" script-src {_hashed('keys.js')}"
    script += f" {_hashed('filter.js')} 'self' file:;" if finds else ";"
    framed = " frame-ancestors 'self';" if served else ""  # a page on disk cannot state this
    return (
        f"default-src 'none'; img-src data:;{script} style-src {_hashed('style.css')}; "
        f"form-action 'self'; base-uri 'none';{framed}"
    )


def list_page(opened: Index, look: Look, wanted: Filter, page: int = 1) -> str:
    """The list of the runs that match, by event date and pipeline."""
    listing = opened.search(wanted, page)
    pages = -(-listing.total // PAGE)
    if page > max(pages, 1):  # beyond the last page: show the last one
        return list_page(opened, look, wanted, max(pages, 1))
    asked = {name: value for name, value in vars(wanted).items() if name != "dags"}
    given = {name: value for name, value in asked.items() if value}

    def turn(number: int) -> str:
        if look.served:
            return "index.html?" + urlencode({**given, "page": number})
        return list_file(number)

    return _page(
        "list.html.j2",
        look,
        base="",
        finds=not look.served,
        days=_days(listing.attempts),
        listing=listing,
        asked=asked,
        given=given,
        outcomes=["not succeeded", *listing.choices["outcome"]],
        page=page,
        pages=pages,
        turn=turn,
        delivering=opened.delivering(listing.attempts),
    )


def list_file(number: int) -> str:
    """The name of the file with a page of the list."""
    return "index.html" if number == 1 else f"index-{number}.html"


def rows(opened: Index, look: Look, attempts: Sequence[Attempt]) -> list[str]:
    """The entries of attempts in the list, as HTML."""
    made = _page("rows.html.j2", look, base="", attempts=attempts, delivering=opened.delivering(attempts))
    return made.split("<!---->")[:-1]


def run_page(opened: Index, look: Look, path: str) -> str:
    """The page of one attempt: what is known about it, and the notebook, or why it cannot be shown.

    Raises:
        ArchiveError: there is no such attempt, or this reader may not see it.
    """
    attempt = _attempt(opened, look, path)
    content, missing = _content(opened, attempt)
    rendered = Markup()
    if content:
        from pulse.archive import render  # loads nbconvert, which the list does not need

        try:
            rendered = render.notebook(content)
        except ValueError as error:
            missing = f"The notebook cannot be shown: {error}."
    return _page(
        "run.html.j2",
        look,
        base=_up(f"run/{path}"),
        attempt=attempt,
        tries=opened.tries(attempt),
        siblings=opened.siblings(attempt),
        made_of=[each for each in opened.made_of(attempt) if look.sees(each)],
        used_by=[each for each in opened.used_by(attempt) if look.sees(each)],
        replaces=[each for each in opened.replaces(attempt) if look.sees(each)],
        replaced_by=[each for each in opened.replaced_by(attempt) if look.sees(each)],
        before=opened.before(attempt),
        others=opened.others(attempt) if look.served else [],
        delivered=opened.delivered(path),
        queries=_queries(content),
        proof=_proof(attempt, content),
        notebook=rendered,
        missing=missing,
        size=len(content),
    )


def compare_page(opened: Index, look: Look, left: str, right: str) -> str:
    """The page that compares two attempts.

    Raises:
        ArchiveError: one of them does not exist or is not a notebook, or this reader may not see it.
    """
    from pulse.archive.compare import compare  # loads nbconvert, which the list does not need

    one, other = _attempt(opened, look, left), _attempt(opened, look, right)
    contents = [_content(opened, each) for each in (one, other)]
    for _, missing in contents:
        if missing:
            raise ArchiveError(f"{left} and {right} cannot be compared: {missing}")
    try:
        comparison = compare(*(content for content, _ in contents))
    except ValueError as error:
        raise ArchiveError(f"{left} and {right} cannot be compared: {error}.") from None
    # The index has the outcomes, because a notebook cannot say that it has no end.
    comparison = replace(comparison, outcomes=(one.outcome, other.outcome))
    return _page(
        "compare.html.j2",
        look,
        base="" if look.served else _up(f"compare/{right}"),
        left=one,
        right=other,
        found=comparison,
        exceptions=comparison.exceptions(),
        others=opened.others(other) if look.served else [],
    )


def message_page(look: Look, title: str, text: str, base: str = "") -> str:
    """A page with one message."""
    return _page("message.html.j2", look, base=base, title=title, text=text)


# --- addresses -------------------------------------------------------------------------------------------------------


def notebook_path(address: str) -> str:
    """The path of the notebook whose page has this address below `run/`, `compare/` or `notebook/`."""
    return address.removesuffix(".html").removesuffix(".ipynb") + ".ipynb"


def _up(path: str) -> str:
    return "../" * path.count("/")


# --- what pages show -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """The attempts of one pipeline on one event date."""

    dag: str
    attempts: list[Attempt]

    @property
    def folded(self) -> bool:
        """Whether there are too many attempts to show more than their outcomes at first."""
        return len(self.attempts) > FOLDED

    @property
    def outcomes(self) -> dict[str, int]:
        """The number of attempts by outcome."""
        found: dict[str, int] = {}
        for each in self.attempts:
            found[each.outcome] = found.get(each.outcome, 0) + 1
        return found


def _days(attempts: Iterable[Attempt]) -> list[tuple[str, list[Group]]]:
    days = itertools.groupby(attempts, key=lambda each: each.event_date)
    return [(day, _groups(list(found))) for day, found in days]


def _groups(attempts: list[Attempt]) -> list[Group]:
    by_dag: dict[str, list[Attempt]] = {}
    for each in attempts:
        by_dag.setdefault(each.dag, []).append(each)
    return [Group(dag, found) for dag, found in sorted(by_dag.items())]


def _attempt(opened: Index, look: Look, path: str) -> Attempt:
    attempt = opened.attempt(path)
    if attempt is None or not look.sees(attempt):
        raise ArchiveError(f"The archive holds no run {path[:200]!r}.")
    return attempt


def _content(opened: Index, attempt: Attempt) -> tuple[bytes, str]:
    """The content of a notebook, and a sentence if it cannot be read."""
    if attempt.state == "thinned":
        return b"", "The notebook is no longer kept."
    try:
        return archive.find(opened.root, attempt.path).read_bytes(), ""
    except (ArchiveError, OSError):
        return b"", "The notebook is gone, or cannot be read. `pulse archive verify` says more."


def _proof(attempt: Attempt, content: bytes) -> tuple[str, str]:
    """Whether the notebook is as it was kept: a CSS class and a sentence."""
    if attempt.state == "thinned":
        return "gone", "Removed by retention; what is known about it stays."
    if not attempt.sha256:
        return (
            "open",
            "No end is recorded: it is running, or was cut off (killed, a full disk).",
        )
    if not content:
        return "changed", "It has been removed since it was kept. `pulse archive verify` says more."
    if archive.digest(content) != attempt.sha256:
        return "changed", "It has changed since it was kept: do not trust it. `pulse archive verify` says more."
    return "kept", "As it was kept: its SHA-256 is the one in the manifest."


def _queries(content: bytes) -> list[Mapping[str, Any]]:
    queries = executed.run(executed.read(content)).queries
    return [{"error": "", **each} for each in queries if "query_id" in each]


# --- making a page ---------------------------------------------------------------------------------------------------


def _page(template: str, look: Look, finds: bool = False, **values: Any) -> str:
    return (
        _environment()
        .get_template(template)
        .render(
            look=look,
            policy=policy(look.served, finds),
            style=_text("style.css"),
            keys=_text("keys.js"),
            script=_text("filter.js") if finds else "",
            when=lambda moment, form="%a %-d %b, %H:%M": _when(moment, look.settings, form),
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, took=_took, day=day, address=archive.address, tone=_tone)
    environment.globals.update(quote=quote)
    return environment


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{seconds:.1f} s"


def _when(moment: str, settings: Settings, form: str) -> str:
    try:
        return f"{datetime.fromisoformat(moment).astimezone(settings.zone):{form}}"
    except ValueError:
        return moment


def _tone(outcome: str) -> str:
    """The CSS class that colours an outcome."""
    return {"succeeded": "good", UNENDED: "busy", "": "busy"}.get(outcome, "bad")


@cache
def _text(name: str) -> str:
    return (TEMPLATES / name).read_text()


@cache
def _hashed(name: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(_text(name).encode()).digest()).decode()}'"
