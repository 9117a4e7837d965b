"""Check, run and archive a notebook, and say the truth about how it ended.

papermill executes; this module decides what may run, where the result is kept and what happened. papermill's own record
cannot be trusted for that: it calls a dead kernel, a timeout and `sys.exit(0)` a success.
"""

import ast
import base64
import difflib
import hashlib
import io
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pulse import QUERY_MIME, PulseError, archive
from pulse.archive import ArchiveError, index, manifest
from pulse.settings import ROOT

# papermill imports every cloud's SDK whether it is needed or not, and jsonschema builds a grammar for a format that no
# notebook uses: four seconds of every task and every kernel. What an archive does need is loaded by `_load_backend`.
_HEAVY = ("papermill.s3", "papermill.adl", "papermill.abs", "gcsfs", "pyarrow.fs", "github", "rfc3987_syntax")
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

MASK = "•••"
SHORTEST_SECRET = 6  # a shorter one would be found in ordinary words


class NotebookError(PulseError):
    """A notebook did not do all of its work; the text names the cell and the error."""


class ParameterError(NotebookError):
    """The notebook cannot be run with these parameters; running it again would not help."""


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


def glue(**values: Any) -> None:
    """Hand values on from a notebook with scrapbook, which refuses numpy's numbers and draws figures its own way.

    A matplotlib figure is handed on as the PNG that it saves, at its own size and resolution, and is shown.
    """
    with light_import():
        import scrapbook
    for name, value in values.items():
        if hasattr(value, "savefig"):
            from IPython.display import Image

            png = io.BytesIO()
            value.savefig(png, format="png")
            scrapbook.glue(name, Image(data=png.getvalue(), format="png"), encoder="display")
        else:
            scrapbook.glue(name, value.item() if hasattr(value, "item") else value)


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


def check(notebook: Path, parameters: Mapping[str, Any], secrets: Iterable[str] = ()) -> None:
    """See that a notebook can be run with these parameters, without running it.

    Raises:
        ParameterError: there is no such notebook, it has no cell tagged `parameters`, a parameter is not one of them or
            not of its default's type, or its value holds a secret (parameters are archived in clear).
    """
    if not notebook.is_file():
        raise ParameterError(f"There is no notebook at {notebook}; check its name.")
    node = nbformat.read(notebook, as_version=4)
    if not any("parameters" in cell.metadata.get("tags", []) for cell in node.cells):
        raise ParameterError(f"{notebook.name} has no cell tagged 'parameters'; tag the one with the defaults.")
    known = papermill.inspect_notebook(str(notebook))
    for name, value in parameters.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean '{near[0]}'" if near else f"it has {', '.join(known) or 'none'}"
            raise ParameterError(f"{notebook.name} has no parameter '{name}': {meant}?")
        default = _literal(known[name]["default"])
        if default is not None and not _fits(value, default):
            raise ParameterError(
                f"Parameter '{name}' of {notebook.name} takes a {type(default).__name__} such as {default!r}, "
                f"not {_mask(repr(value), secrets)}."
            )
        if _mask(str(value), secrets) != str(value):
            raise ParameterError(
                f"Parameter '{name}' of {notebook.name} holds a secret, and parameters are archived in clear; "
                "pass it in the environment instead."
            )


def run(
    notebook: Path,
    path: str,
    parameters: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    cell_seconds: int | None = None,
    root: str = "",
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
        environment: variables of the kernel, beside those of this process.
        secrets: values that may not be archived; where one shows up it is masked and the run fails.
        cell_seconds: the longest a cell may take.
        root: the archive that the path is in; where it is a folder, its manifest and index tell of the attempt.

    Raises:
        ParameterError: see `check`; nothing has run.
        ArchiveError: the place cannot be written or is taken; nothing has run.
        NotebookError: the notebook failed, or not every cell ran.
    """
    secrets = _variants(secrets)
    check(notebook, parameters, secrets)
    record = _Record(path, notebook, parameters, about or {}, secrets, _Book.of(root, path))
    record.begin()
    error: BaseException | None = None
    try:
        with _sigterm_raises():
            papermill.execute_notebook(
                str(notebook),
                None,  # the record writes: masked, whole, and with the truth
                parameters=dict(parameters),
                engine_name="pulse",
                progress_bar=False,
                execution_timeout=cell_seconds,
                record=record,
                environment={**_kernel_environment(), **(environment or {})},
            )
    except BaseException as caught:
        error = caught
    failure = record.end(error)
    if error is not None and not isinstance(error, Exception):
        raise SystemExit(143) if isinstance(error, _TerminatedError) else error
    if failure:
        raise NotebookError(failure) from None
    return Run(path, record.about["seconds"], record.about["queries"])


def settle(path: str, root: str = "") -> None:
    """Say of an attempt still `running` when a later one starts that it was killed: it could not do so itself."""
    _load_backend(path)
    if not _exists(path):
        return
    node = iorw.load_notebook_node(path)
    about = node.metadata.get("pulse", {})
    if about.get("outcome") == "running":
        cell = _number(node, _running_cell(node))
        about.update(outcome="killed", error={"cell": cell, "message": "killed before it could say why"})
        text = nbformat.writes(node)
        _write(text, path, durable=True)
        _Book.of(root, path).settled("killed", text)


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
        secrets: list[str],
        book: _Book,
    ) -> None:
        self.path = path
        self.book = book
        self.secrets = secrets
        self.node = nbformat.read(notebook, as_version=4)
        self.leaks: list[int] = []
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

    def save(self, durable: bool = False) -> str:
        """Write the notebook as it stands; gives its text."""
        for position, cell in enumerate(self.node.cells):
            if _mask_cell(cell, self.secrets) and position not in self.leaks:
                self.leaks.append(position)
        self.about["queries"] = _queries(self.node)
        self.node.metadata["pulse"] = self.about
        text = nbformat.writes(self.node)
        _write(text, self.path, durable)
        return text

    def end(self, error: BaseException | None) -> str | None:
        """Write how it ended; gives the sentence of the failure, None where there was none."""
        outcome, cell, reason = _judge(self.node, error)
        if outcome == "succeeded" and self.leaks:
            cell = self.leaks[0]
            outcome, reason = "failed", f"it shows a secret (masked as {MASK} in the archive); take it out"
        self.about["outcome"] = outcome
        self.about["seconds"] = round(time.monotonic() - self.started, 3)
        if outcome != "succeeded":
            reason = _mask(reason, self.secrets)
            self.about["error"] = {"cell": _number(self.node, cell), "message": reason}
        # On the disk first: the manifest may not know of an end that a power cut takes back.
        self.book.ended(outcome, self.save(durable=True))
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
            client = PapermillNotebookClient(
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
        return "failed", failed, f"{error.ename}: {error.evalue}".strip().rstrip(".")
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


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _variants(secrets: Iterable[str]) -> list[str]:
    """The secrets as they may show up, the longest first: as they are, and as they stand in an address."""
    found = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote(secret))}
    return sorted((form for form in found if len(form) >= SHORTEST_SECRET), key=len, reverse=True)


def _mask(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _mask_cell(cell: Any, secrets: Sequence[str]) -> bool:
    """Mask every string of a cell in place; says whether a secret was there."""
    found = False

    def masked(value: Any) -> Any:
        nonlocal found
        if isinstance(value, str):
            clean = _mask(value, secrets)
            found = found or clean != value
            return clean
        if isinstance(value, list):
            return [masked(item) for item in value]
        if isinstance(value, dict):
            for key in value:
                value[key] = masked(value[key])
        return value

    masked(cell)
    return found


def _kernel_environment() -> dict[str, str]:
    """This process's environment without what holds secrets that are none of a notebook's: Airflow's, the bot's."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AIRFLOW_") and name != "TELEGRAM_BOT_TOKEN"
    }


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
