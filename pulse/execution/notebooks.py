"""Check, run and archive a notebook, and say the truth about how it ended.

papermill executes; this module decides what may run, where the result is kept and what happened. papermill's own record
cannot be trusted for that: it calls a dead kernel, a timeout and `sys.exit(0)` a success.
"""

import base64
import fcntl
import hashlib
import io
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pulse import QUERY_MIME, PulseError, archive, settings
from pulse.archive import ArchiveError, index, manifest
from pulse.execution import parameters as offered
from pulse.execution.masking import MASK, Mask
from pulse.settings import ROOT, SHORTEST

# papermill imports every cloud's SDK whether it is needed or not: over a second of every task and every kernel. What an
# archive does need is loaded by `_load_backend`.
_HEAVY = ("papermill.s3", "papermill.adl", "papermill.abs", "gcsfs", "pyarrow.fs", "github")
_BACKENDS = {
    "s3": ("papermill.s3", "S3"),
    "gs": ("gcsfs", "GCSFileSystem"),
    "adl": ("papermill.adl", "ADL"),
    "abs": ("papermill.abs", "AzureBlobStore"),
    "hdfs": ("pyarrow.fs", "HadoopFileSystem"),
}


@contextmanager
def light_import() -> Iterator[None]:
    """Import papermill, and what builds on it, without what makes that slow."""
    blocked = [name for name in _HEAVY if name not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]  (None: "there is no such module")
    try:
        yield
    finally:
        for name in blocked:
            del sys.modules[name]


with light_import():
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import iorw
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import ERROR_MARKER_TAG
    from traitlets.config import Config

# What a kernel gets of this process's environment, beside the settings that are a notebook's business: how programs,
# files and servers are found, and how Python behaves. Nothing else: what is not here may be anybody's password.
PASSED = frozenset(
    """
    PATH HOME USER LOGNAME SHELL TERM TZ LANG LANGUAGE TMPDIR TMP TEMP VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV
    LD_LIBRARY_PATH LD_PRELOAD DYLD_LIBRARY_PATH MALLOC_ARENA_MAX XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME
    XDG_RUNTIME_DIR JUPYTER_PATH JUPYTER_DATA_DIR JUPYTER_CONFIG_DIR JUPYTER_RUNTIME_DIR JUPYTER_PLATFORM_DIRS
    IPYTHONDIR MPLCONFIGDIR MPLBACKEND PYTHONPATH PYTHONHOME PYTHONWARNINGS PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
    PYTHONUNBUFFERED PYTHONUTF8 PYTHONIOENCODING PYTHONFAULTHANDLER PYTHONHASHSEED PYTHONTZPATH SSL_CERT_FILE
    SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SYSTEMROOT
    """.split()  # noqa: SIM905
)
PASSED_PREFIXES = ("LC_",)
PASSED_SUFFIXES = ("_NUM_THREADS",)
GROUPED = re.compile(r"  +\| ((?:[A-Za-z_]\w*\.)*(?:[A-Za-z_]\w*: .+|\w*(?:Error|Exception|Group|Interrupt|Exit)))")
"""A line of the tree in which Python shows a group of exceptions, with the words of one of them."""

ENCODED = re.compile(r"([A-Za-z0-9+/=_-]{40,}|([0-9A-Fa-f]{2}[\s:-]?){16,})\s*$")
"""A line of base64 or hex that may go on in the next one."""

# The way to the server may lead through these; a password in one is masked as ClickHouse's own is.
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


class NotebookError(PulseError):
    """A notebook did not do all of its work; the text names the cell and the error."""


class ParameterError(NotebookError):
    """The notebook cannot be run with these parameters; running it again would not help."""


class SupersededError(NotebookError):
    """Another try took the place of this one while it still ran: whatever it does from there on does not count."""


class CheckError(PulseError):
    """Data is not what the notebook expects of it."""


class _TerminatedError(BaseException):
    """SIGTERM, as an exception; like KeyboardInterrupt no handler of ordinary errors may swallow it."""


@dataclass(frozen=True)
class Run:
    """An attempt that succeeded: where it is archived, what its queries did, and how long it took in seconds."""

    path: str
    seconds: float
    queries: list[dict[str, Any]] = field(default_factory=list)


def expect(condition: bool, sentence: str) -> None:
    """Stop the notebook unless what it loaded is what it should be.

    Raises:
        CheckError: with the sentence, which says what was expected, what was found and what to do.
    """
    if not condition:
        raise CheckError(sentence)


def show(*what: Any) -> Any:
    """A frame, or a row of one, as a table with numbers, shares and days as people read them; texts as messages.

    A cell's last line; see `pulse.execution.show`. A table may be turned: `notebooks.show(frame).T`.
    """
    from pulse.execution import show as shown  # pandas, which no DAG file wants

    return shown.message(*what) if all(isinstance(each, str) for each in what) else shown.table(*what)


def glue(**values: Any) -> None:
    """Hand values on from a notebook with scrapbook, which refuses numpy's numbers and draws figures its own way.

    A matplotlib figure is handed on as the PNG that it saves, at its own size and resolution, and shown half as wide.
    What is no number (NaN, infinity) is not handed on, and None where it stands in a list or a dict: JSON has nothing
    for it.
    """
    with light_import():
        import scrapbook
    for name, value in values.items():
        if hasattr(value, "savefig"):
            from IPython.display import Image

            png = io.BytesIO()
            value.savefig(png, format="png")
            # Of twice the resolution: so it fits on a screen, and is sharp there.
            half = int.from_bytes(png.getvalue()[16:20]) // 2  # of the width in the PNG's header
            scrapbook.glue(name, Image(data=png.getvalue(), format="png", width=half), encoder="display")
        else:
            plain = _finite(value.tolist() if hasattr(value, "tolist") else value)
            if plain is None:
                print(f"{name} is {value}: there is nothing to hand on.")
            else:
                scrapbook.glue(name, plain)


def scraps(path: str) -> dict[str, Any]:
    """What an archived notebook handed on with `glue`: its values by name, an image as the bytes of its PNG.

    Raises:
        ArchiveError: there is no notebook at this path.
    """
    if not exists(path):
        raise ArchiveError(f"The archive holds no notebook at {path}; run it first.")
    with light_import():
        import scrapbook
    found: dict[str, Any] = {}
    for name, scrap in scrapbook.read_notebook(path).scraps.items():
        image = ((scrap.display or {}).get("data") or {}).get("image/png")
        found[name] = base64.b64decode(image) if image else scrap.data
    return found


def ref(path: str) -> str:
    """The short reference of an archived run, by which a message names it and `pulse archive show` finds it.

    Raises:
        ArchiveError: there is no notebook at this path.
    """
    if not exists(path):
        raise ArchiveError(f"The archive holds no notebook at {path}; run it first.")
    content = iorw.papermill_io.read(path).encode() if _scheme(path) else Path(path).read_bytes()
    return archive.ref(archive.digest(content))


def safe_name(text: str) -> str:
    """A run id as a name for files, object stores and tables: letters, digits and `_`, unique, at most 80 long."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{re.sub('[^A-Za-z0-9]+', '_', text).strip('_')[:73]}_{digest}"


def check(notebook: Path, given: Mapping[str, Any], mask: Mask | None = None) -> dict[str, Any]:
    """See that a notebook can be run with these parameters, without running it; gives them as they are archived.

    Raises:
        ParameterError: there is no such notebook, it has no cell tagged `parameters`, a parameter is not one of them,
            not of its type or nothing that JSON can hold, or holds a secret (parameters are archived in clear).
    """
    if not notebook.is_file():
        raise ParameterError(f"There is no notebook at {notebook}; check its name.")
    mask = mask or Mask([])
    try:
        fitting = offered.fit(parameters_of(notebook), given)
    except offered.UnfitError as error:
        end = "" if str(error).endswith("?") else "."
        raise ParameterError(mask.text(f"{notebook.name} {error}{end}")) from None
    for name, value in fitting.items():
        if mask.shows(value):
            raise ParameterError(
                f"Parameter '{name}' of {notebook.name} holds a secret, and parameters are archived in clear; "
                "pass it in the environment instead."
            )
    return fitting


def parameters_of(notebook: Path) -> dict[str, offered.Parameter]:
    """The parameters of a notebook, by name in their order.

    Raises:
        ParameterError: it has no cell tagged `parameters`, or that cell cannot be read.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    cell = next((cell for cell in cells if offered.TAG in cell.metadata.get("tags", [])), None)
    if cell is None:
        raise ParameterError(f"{notebook.name} has no cell tagged 'parameters'; tag the one with the defaults.")
    try:
        return offered.read(cell.source)
    except offered.UnfitError as error:
        raise ParameterError(f"The cell tagged 'parameters' of {notebook.name} {error}; correct it.") from None


def run(
    notebook: Path,
    path: str,
    parameters: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    cell_seconds: int | None = None,
    root: str = "",
    say: Callable[[str], None] | None = None,
) -> Run:
    """Run a notebook and keep it, whatever happens to it.

    The archived notebook's metadata say under `pulse`: `outcome` (`running`, `succeeded`, `failed`, `kernel died`,
    `timed out`, `stopped early`, `terminated`), `error`, `parameters`, `started`, `seconds`, `commit`, `queries` and
    what `about` adds.

    Args:
        notebook: the notebook to run; it stays as it is.
        path: where the executed one is kept: a local path or any that papermill can write. Nothing may be there yet.
        parameters: checked against the notebook first.
        about: what else the metadata should say (pipeline, run id, try …).
        environment: settings for the kernel that differ from this process's, by name (`CLICKHOUSE_URL`), and other
            variables. Of this process's environment it gets only what `PASSED` names, and nothing of `.env`.
        secrets: values that may not be archived, beside those of the settings; where one shows up, however it is
            spelled, it is masked and the run fails.
        cell_seconds: the longest a cell may take.
        root: the archive that the path is in; where it is a folder, its manifest and index tell of the attempt.
        say: is told each line that the notebook prints, masked, when it prints it.

    Raises:
        ParameterError: see `check`; nothing has run.
        ArchiveError: the place cannot be written or is taken; nothing has run.
        NotebookError: the notebook failed, or not every cell ran.
        SupersededError: another try took its place while it ran (`settle`).
        SettingsError: a setting is wrong; nothing has run.
    """
    variables = _kernel_environment(environment or {})
    config = settings.load(**{name: variables[name] for name in settings.KERNEL})
    mask = Mask([*config.secrets, *secrets, *_proxy_passwords(variables)])
    parameters = check(notebook, parameters, mask)
    record = _Record(path, notebook, parameters, about or {}, mask, _Book.of(root, path), say)
    record.begin()
    error: BaseException | None = None
    try:
        with _sigterm_raises(), _without_papermills_warning():
            papermill.execute_notebook(
                str(notebook),
                None,  # the record writes: masked, whole, and with the truth
                parameters=parameters,
                engine_name="pulse",
                progress_bar=False,
                execution_timeout=cell_seconds,
                record=record,
                environment=variables,
            )
    except BaseException as caught:
        error = caught
    if isinstance(error, SupersededError):
        raise error
    failure = record.end(error)
    if error is not None and not isinstance(error, Exception):
        raise SystemExit(143) if isinstance(error, _TerminatedError) else error
    if failure:
        raise NotebookError(failure) from None
    return Run(path, record.about["seconds"], record.about["queries"])


def settle(path: str, root: str = "", *, superseded: bool = False) -> None:
    """Say of an attempt that is still `running` what became of it, if it can no longer say so itself.

    One whose process is gone was killed. One that still runs on this machine is left alone, or, `superseded` by a later
    try, ended: it finds that out when it wants to write, stops and fails. So does one on another machine, of which
    nobody here knows whether it still runs.
    """
    _load_backend(path)
    if not _exists(path):
        return
    with _turn(path):
        node = iorw.load_notebook_node(path)
        about = node.metadata.get("pulse", {})
        elsewhere = about.get("host") != socket.gethostname()
        alive = not elsewhere and bool(about.get("process")) and _process(about.get("pid")) == about["process"]
        if about.get("outcome") != "running" or (alive and not superseded):
            return
        if alive:
            outcome, reason = "terminated", "a later try took its place while it still ran"
        elif superseded and elsewhere:
            outcome, reason = "terminated", f"a later try took its place before {about.get('host')} said how it ended"
        else:
            outcome, reason = "killed", "killed before it could say why"
        cell = _number(node, _running_cell(node))
        about.update(outcome=outcome, error={"cell": cell, "message": reason})
        text = _as_text(node)
        _write(text, path, durable=True)
        _Book.of(root, path).settled(outcome, text)


def exists(path: str) -> bool:
    """Whether the archive holds something at this path."""
    _load_backend(path)
    return _exists(path)


@dataclass(frozen=True)
class _Book:
    """What the archive's manifest and index are told of one attempt: nothing where the archive is no folder."""

    root: Path | None
    place: str = ""

    @classmethod
    def of(cls, root: str, path: str) -> "_Book":
        if not root or _scheme(root):
            return cls(None)
        return cls(Path(root), archive.place(Path(root), path))

    def head(self) -> str:
        return manifest.head(self.root) if self.root else manifest.GENESIS

    def begun(self) -> None:
        self._say({"what": "begun"})

    def ended(self, outcome: str, text: str) -> None:
        self._say(manifest.ending(outcome, text.encode()))

    def settled(self, outcome: str, text: str) -> None:
        """What a later attempt says of one that could not: of one that was cut off at once, also that it had begun."""
        known = self.root and index.attempt(self.root, self.place)
        self._say(*([] if known else [{"what": "begun"}]), manifest.ending(outcome, text.encode()))

    def _say(self, *entries: dict[str, Any]) -> None:
        if self.root:
            manifest.append(self.root, *({**entry, "path": self.place} for entry in entries))
            index.keep_up(self.root)


class _Record:
    """One attempt's notebook in the archive, from before it runs until the truth about it is written."""

    def __init__(
        self,
        path: str,
        notebook: Path,
        parameters: Mapping[str, Any],
        about: Mapping[str, Any],
        mask: Mask,
        book: _Book,
        say: Callable[[str], None] | None,
    ) -> None:
        self.path = path
        self.book = book
        self.mask = mask
        self.say = say
        self.node = nbformat.read(notebook, as_version=4)
        self.leaks: list[int | None] = []
        self.mark: Any = None
        self.printed: dict[str, str] = {}
        self.started = time.monotonic()
        self.about: dict[str, Any] = {
            "notebook": notebook.stem,
            "outcome": "running",
            "error": None,
            "parameters": dict(parameters),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": None,
            "commit": commit(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "queries": [],
            "after": book.head(),
            **about,
        }

    def begin(self) -> None:
        """Take the place in the archive, so that even a run that is killed at once has left a trace."""
        _load_backend(self.path)
        if _exists(self.path):
            raise ArchiveError(f"{self.path} is already in the archive, where nothing is overwritten; run it anew.")
        self.save()
        try:
            self.book.begun()
        except BaseException:
            Path(self.path).unlink()  # an attempt that the manifest does not know of would look put there by hand
            raise

    def save(self) -> None:
        """Write the notebook as it stands."""
        with _turn(self.path):
            self._write()

    def _write(self, durable: bool = False) -> str:
        """Write the notebook as it stands, unless a later try took its place; gives its text.

        Raises:
            SupersededError: it did.
        """
        if self.mark is not None and _mark(self.path) != self.mark:
            raise SupersededError(
                f"A later try of {self.about['notebook']} took the place of this one while it still ran; what this one "
                f"did does not count. Archived at {self.path}"
            )
        self._clean()
        self.about["queries"] = _queries(self.node)
        self.node.metadata["pulse"] = self.about
        text = _as_text(self.node)
        _write(text, self.path, durable)
        self.mark = _mark(self.path, text)
        return text

    def _clean(self) -> None:
        """Mask every secret in the notebook, and see where there was one; what JSON has nothing for becomes null."""
        for position, cell in enumerate(self.node.cells):
            if (_clean(cell, self.mask) | _clean_streams(cell, self.mask)) and position not in self.leaks:
                self.leaks.append(position)
        if _clean(self.node.metadata, self.mask) and None not in self.leaks:
            self.leaks.append(None)

    def hear(self, stream: str, text: str) -> None:
        """What the notebook prints: its whole lines are passed on at once.

        Encoded lines are kept back until it is known how they go on: a secret may be spread over two of them.
        """
        if not self.say:
            return
        *lines, rest = (self.printed.get(stream, "") + text).split("\n")
        end = len(lines)
        while end and ENCODED.search(lines[end - 1]):
            end -= 1
        self.printed[stream] = "\n".join([*lines[end:], rest])
        if end:
            self._pass_on("\n".join(lines[:end]))

    def _pass_on(self, text: str) -> None:
        for line in self.mask.text(text).split("\n"):
            self.say(line.rstrip("\r").rpartition("\r")[2])

    def hush(self) -> None:
        """Pass on what is kept back, and what was printed without the end of a line; a cell is over."""
        for stream, rest in self.printed.items():
            if rest:
                self._pass_on(rest.removesuffix("\n"))
                self.printed[stream] = ""

    def end(self, error: BaseException | None) -> str | None:
        """Write how it ended; gives the sentence of the failure, None where there was none."""
        outcome, cell, reason = _judge(self.node, error)
        self._clean()
        if outcome == "succeeded" and self.leaks:
            cell = self.leaks[0]
            outcome, reason = "failed", f"it shows a secret (masked as {MASK} in the archive); take it out"
        self.about["outcome"] = outcome
        self.about["seconds"] = round(time.monotonic() - self.started, 3)
        if outcome != "succeeded":
            reason = self.mask.text(reason)
            self.about["error"] = {"cell": _number(self.node, cell), "message": reason}
        with _turn(self.path):
            # On the disk first: the manifest may not know of an end that a power cut takes back.
            self.book.ended(outcome, self._write(durable=True))
        if outcome == "succeeded":
            return None
        where = f" in cell {_number(self.node, cell)} ({_title(self.node, cell)})" if cell is not None else ""
        return f"{self.about['notebook']} {outcome}{where}: {reason}. Archived at {self.path}"


class _Manager(NotebookExecutionManager):
    """papermill's execution state, saved through the record instead of straight to a file."""

    record: _Record

    def save(self, **kwargs: Any) -> None:
        if kwargs.get("nb"):
            self.nb = kwargs["nb"]
        self.record.node = self.nb
        self.record.save()
        self.last_save_time = self.now()

    def cell_complete(self, *args: Any, **kwargs: Any) -> None:
        self.record.hush()
        super().cell_complete(*args, **kwargs)


class _Client(PapermillNotebookClient):
    """papermill's own client, which tells our record what is printed while it is printed."""

    def process_message(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        output = super().process_message(msg, *args, **kwargs)
        if msg["msg_type"] == "stream":
            self.nb_man.record.hear(msg["content"]["name"], msg["content"]["text"])
        return output


class _Engine(NBClientEngine):
    """papermill's own engine, with an environment for the kernel and our record of what happens."""

    @classmethod
    def execute_notebook(
        cls, nb: Any, kernel_name: str, *, record: _Record, environment: dict[str, str], **options: Any
    ) -> Any:
        manager = _Manager(nb, progress_bar=False)
        manager.record = record
        with tempfile.TemporaryDirectory(prefix="pulse-") as folder:
            # Sockets in a folder of ours: on a port of the machine everybody could listen to what passes.
            sockets = {"transport": "ipc", "connection_file": str(Path(folder) / "kernel.json")}
            client = _Client(
                manager,
                config=Config(KernelManager=sockets),
                kernel_name=kernel_name,
                timeout=options.get("execution_timeout"),
                startup_timeout=options["start_timeout"],
            )
            manager.notebook_start()
            try:
                client.execute(env=environment)
            finally:
                manager.notebook_complete()
        return manager.nb


papermill_engines.register("pulse", _Engine)


def commit() -> str:
    """The project's git commit, with `-dirty` where files differ from it; `unknown` outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _number(node: Any, index: int | None) -> int | None:
    """A cell's number in the notebook as it stands in `notebooks/`, counted from 1: without what papermill adds."""
    if index is None:
        return None
    added = {"injected-parameters", ERROR_MARKER_TAG}
    return sum(not added.intersection(cell.metadata.get("tags", [])) for cell in node.cells[: index + 1])


def _judge(node: Any, error: BaseException | None) -> tuple[str, int | None, str]:
    """The outcome, the index of the cell at fault and the reason, from the error and from what really ran."""
    ran = [index for index, cell in enumerate(node.cells) if cell.get("execution_count") is not None]
    at = next((i for i, cell in enumerate(node.cells) if cell.metadata.get("papermill", {}).get("exception")), None)
    last = at if at is not None else _running_cell(node)
    if isinstance(error, PapermillExecutionError):
        failed = next((i for i, cell in enumerate(node.cells) if _error_output(cell)), last)
        said = f"{error.ename}: {error.evalue}" if error.evalue.strip() else _where(error)
        if failed is not None and not _error_output(node.cells[failed]):
            said = _last_words(node.cells[failed])
        return "failed", failed, said.rstrip(".")
    if isinstance(error, DeadKernelError):
        return "kernel died", last, "the kernel was killed or crashed, often for lack of memory"
    if isinstance(error, CellTimeoutError):
        return "timed out", last, "the cell took longer than it may"
    if isinstance(error, _TerminatedError):
        return "terminated", last, "the run was stopped from outside (SIGTERM)"
    if error is not None:
        return "terminated" if not isinstance(error, Exception) else "failed", last, f"{type(error).__name__}: {error}"
    missing = [
        index
        for index, cell in enumerate(node.cells)
        if cell.cell_type == "code" and cell.source.strip() and index not in ran and not _skipped(cell)
    ]
    exited = next((i for i, cell in enumerate(node.cells) if _error_output(cell)), None)
    if missing or exited is not None:
        cell = exited if exited is not None else missing[0]
        return "stopped early", cell, f"code cells that did not run: {len(missing)}"
    return "succeeded", None, ""


def _where(error: PapermillExecutionError) -> str:
    """What stands for the words of an error that has none: the line of the cell that raised it."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    line = re.search(r"^-+> +\d+ (.*)$", plain, re.MULTILINE)
    return f"{error.ename} in `{line[1].strip()}`" if line else error.ename


def _running_cell(node: Any) -> int | None:
    """The cell that was running when the run broke off: the last one that papermill started."""
    started = [i for i, cell in enumerate(node.cells) if cell.metadata.get("papermill", {}).get("start_time")]
    code = [i for i in started if node.cells[i].cell_type == "code"]
    return code[-1] if code else None


def _skipped(cell: Any) -> bool:
    return "skip-execution" in cell.metadata.get("tags", [])  # nbclient's own tag


def _error_output(cell: Any) -> Any:
    return next((output for output in cell.get("outputs", []) if output.output_type == "error"), None)


def _title(node: Any, index: int) -> str:
    """The heading above a cell, or its first line."""
    for cell in reversed(node.cells[: index + 1]):
        heading = re.search(r"^#+ (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return heading[1]
    return node.cells[index].source.strip().splitlines()[0][:60]


def _queries(node: Any) -> list[dict[str, Any]]:
    outputs = (output for cell in node.cells for output in cell.get("outputs", []))
    return [output["data"][QUERY_MIME] for output in outputs if QUERY_MIME in output.get("data", {})]


def _last_words(cell: Any) -> str:
    """The reason of an error that left no error output: IPython, or a handler of the notebook's own, printed it."""
    printed = [output for output in cell.outputs if output.output_type == "stream"]
    for stream in dict.fromkeys(output.name for output in reversed(printed)):
        text = "".join(output.text for output in printed if output.name == stream)
        lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
        # An exception group: the lines of its tree that name the errors, its own first; those of code stand further in.
        errors = [found[1] for line in lines if (found := GROUPED.fullmatch(line))]
        if errors:
            return f"{errors[0]}: {'; '.join(errors[1:])}" if errors[1:] else errors[0]
        if lines:
            return lines[-1].strip()
    return "an error that left no message"


def _clean(value: Any, mask: Mask) -> bool:
    """Mask every text in a list or a dict in place, its keys too; says whether a secret was there.

    What JSON has nothing for (NaN, infinity) becomes null.
    """
    found = False
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        clean, name = item, key
        if isinstance(item, str):
            clean = mask.text(item)
            found = found or clean != item
        elif isinstance(item, float):
            clean = _finite(item)
        elif isinstance(item, list | dict):
            found = _clean(item, mask) or found
        if isinstance(key, str) and (name := mask.text(key)) != key:
            found = True
            del value[key]
        if clean is not item or name is not key:
            value[name] = clean
    return found


def _clean_streams(cell: Any, mask: Mask) -> bool:
    """Mask what only several outputs of a cell show together: what is printed comes in pieces of any length."""
    found, run = False, []
    for output in [*cell.get("outputs", []), None]:
        if output is not None and output.output_type == "stream" and (not run or run[0].name == output.name):
            run.append(output)
            continue
        together = "".join(each.text for each in run)
        if len(run) > 1 and (clean := mask.text(together)) != together:
            found, run[0].text = True, clean
            for each in run[1:]:
                each.text = ""
        run = [output] if output is not None and output.output_type == "stream" else []
    return found


def _finite(value: Any) -> Any:
    """A value in which what is no number (NaN, NaT, infinity) is None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def _as_text(node: Any) -> str:
    """A notebook's text; half a surrogate pair, for which UTF-8 has nothing, stays escaped."""
    return nbformat.writes(node).encode("utf-8", "backslashreplace").decode()


def _kernel_environment(given: Mapping[str, str]) -> dict[str, str]:
    """A kernel's environment: what `PASSED` names, the settings that are a notebook's business, and what is given."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED
        or name.upper() in PROXIES
        or name.startswith(PASSED_PREFIXES)
        or name.endswith(PASSED_SUFFIXES)
    }
    config = settings.load(**{name: given[name] for name in settings.KERNEL if given.get(name)})
    return {**found, **given, **config.for_kernels, settings.IN_KERNEL: "1"}


def _proxy_passwords(variables: Mapping[str, str]) -> list[str]:
    """The passwords in the addresses of proxies.

    Raises:
        SettingsError: one is too short to be masked.
    """
    found = []
    for name, address in variables.items():
        if name.upper() in PROXIES - {"NO_PROXY"} and (password := urlsplit(address).password):
            if len(unquote(password)) < SHORTEST:
                raise settings.SettingsError(
                    f"{name}: expected a password of at least {SHORTEST} characters: a shorter one cannot be masked."
                )
            found += [password, unquote(password)]
    return found


@contextmanager
def _without_papermills_warning() -> Iterator[None]:
    """papermill warns of parameters that its own reading of the cell does not find; `check` has read it as Python."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Passed unknown parameter")

    logger = logging.getLogger("papermill")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the truth can still be written before the process ends."""

    def terminate(*_: Any) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _process(pid: Any) -> str:
    """What tells a process from a later one of the same number; nothing where there is none, or no way to tell."""
    try:
        # After the name, which may hold anything, the 20th field is when it began.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{pid} since {fields[19]}"


@contextmanager
def _turn(path: str) -> Iterator[None]:
    """Let nobody else write this notebook meanwhile, where the archive is in a folder that can be locked."""
    if _scheme(path):
        yield
        return
    folder = Path(path).parent
    with suppress(OSError):  # `_write` says what is wrong with it
        folder.mkdir(parents=True, exist_ok=True)
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _mark(path: str, text: str | None = None) -> Any:
    """What tells a file that we wrote from one that somebody put in its place; in a store, its text, where known."""
    if _scheme(path):
        return hashlib.sha256((iorw.papermill_io.read(path) if text is None else text).encode()).digest()
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _scheme(path: str) -> str:
    return path.split("://", 1)[0] if "://" in path else ""


def _load_backend(path: str) -> None:
    """Give papermill the SDK that this path needs, which the light import left out."""
    if _scheme(path) in _BACKENDS:
        module, name = _BACKENDS[_scheme(path)]
        setattr(iorw, name, getattr(import_module(module), name))


def _exists(path: str) -> bool:
    if not _scheme(path):
        return Path(path).exists()
    folder, _, name = path.rpartition("/")
    return any(found.rstrip("/").rpartition("/")[2] == name for found in iorw.papermill_io.listdir(folder))


def _write(text: str, path: str, durable: bool = False) -> None:
    """Write a file of the archive whole or not at all; `durable`: it outlasts a power cut once this returns.

    Raises:
        ArchiveError: it cannot be written there.
    """
    try:
        if _scheme(path):
            iorw.papermill_io.write(text, path)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with part.open("x", encoding="utf-8") as file:  # its mode is what the umask leaves
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            archive.to_disk(target.parent)
    except OSError as error:
        raise ArchiveError(
            f"The archive cannot keep {path} ({error.strerror}); make room or make it writable, or set PULSE_OUTPUT."
        ) from None
