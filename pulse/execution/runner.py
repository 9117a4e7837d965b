"""Checks a notebook's parameters, runs it, and archives it whatever happens.

papermill executes; this module decides what may run, where the result is kept and what happened.
"""

import hashlib
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse import settings
from pulse.execution import engine, parameters
from pulse.execution.errors import NotebookError, ParameterError, SupersededError, TerminatedError
from pulse.execution.kernel import kernel_environment, proxy_passwords
from pulse.execution.light import light_import
from pulse.execution.masking import Mask
from pulse.execution.record import Book, Record

with light_import():
    import nbformat


@dataclass(frozen=True)
class Run:
    """A successful attempt: where it is archived, how many seconds it took, and what its queries did."""

    path: str
    seconds: float
    queries: list[dict[str, Any]] = field(default_factory=list)


def safe_name(text: str) -> str:
    """A run id as a unique name for files, object stores and tables: letters, digits and `_`, at most 80 characters."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{re.sub('[^A-Za-z0-9]+', '_', text).strip('_')[:73]}_{digest}"


def check(notebook: Path, given: Mapping[str, Any], mask: Mask | None = None) -> dict[str, Any]:
    """Check that a notebook can be run with these parameters; returns them as they are archived.

    Raises:
        ParameterError: there is no such notebook, or it has no cell tagged `parameters`; a parameter is unknown, has
            the wrong type, cannot be written as JSON, or contains a secret (parameters are archived in clear).
    """
    if not notebook.is_file():
        raise ParameterError(f"There is no notebook at {notebook}; check its name.")
    mask = mask or Mask([])
    try:
        fitting = parameters.fit(parameters_of(notebook), given)
    except parameters.UnfitError as error:
        end = "" if str(error).endswith("?") else "."
        raise ParameterError(mask.text(f"{notebook.name} {error}{end}")) from None
    for name, value in fitting.items():
        if mask.shows(value):
            raise ParameterError(
                f"Parameter '{name}' of {notebook.name} holds a secret, and parameters are archived in clear; "
                "pass it in the environment instead."
            )
    return fitting


def parameters_of(notebook: Path) -> dict[str, parameters.Parameter]:
    """The parameters of a notebook by name, in their order.

    Raises:
        ParameterError: it has no cell tagged `parameters`, or that cell cannot be read.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    cell = next((cell for cell in cells if parameters.TAG in cell.metadata.get("tags", [])), None)
    if cell is None:
        raise ParameterError(f"{notebook.name} has no cell tagged 'parameters'; tag the one with the defaults.")
    try:
        return parameters.read_cell(cell.source)
    except parameters.UnfitError as error:
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
    """Run a notebook and archive it, whatever its outcome.

    The archived notebook's metadata hold under `pulse`: `outcome` (`running`, `succeeded`, `failed`, `kernel died`,
    `timed out`, `stopped early`, `terminated`), `error`, `parameters`, `started`, `seconds`, `commit`, `queries` and
    what `about` adds.

    Args:
        notebook: the notebook to run; it is not changed.
        path: where the executed notebook is kept: a local path or any other that papermill can write. Nothing may be
            there yet.
        parameters: checked against the notebook first.
        about: what else to write into the metadata (pipeline, run id, try …).
        environment: settings for the kernel that differ from this process's, by name (`CLICKHOUSE_URL`), and other
            variables. From this process's environment the kernel inherits only what `kernel.PASSED` names, and nothing
            from `.env`.
        secrets: values that must not be archived, beside those of the settings. A secret in the notebook, in any
            spelling, is masked, and the run fails.
        cell_seconds: the longest that a cell may take.
        root: the archive's root; if it is a folder, its manifest and index record the attempt.
        say: called with each line that the notebook prints, masked, as soon as it is printed.

    Raises:
        ParameterError: see `check`; nothing has run.
        ArchiveError: the path cannot be written or is taken; nothing has run.
        NotebookError: the notebook failed, or not every cell ran.
        SupersededError: a later try replaced this one while it was running (`pulse.execution.settling`).
        SettingsError: a setting is wrong; nothing has run.
    """
    variables = kernel_environment(environment or {})
    config = settings.load(**{name: variables[name] for name in settings.KERNEL})
    mask = Mask([*config.secrets, *secrets, *proxy_passwords(variables)])
    parameters = check(notebook, parameters, mask)
    record = Record(path, notebook, parameters, about or {}, mask, Book.of(root, path), say)
    record.begin()
    error: BaseException | None = None
    try:
        with _sigterm_raises():
            engine.execute(notebook, parameters, record, variables, cell_seconds)
    except BaseException as caught:
        error = caught
    if isinstance(error, SupersededError):
        raise error
    failure = record.end(error)
    if error is not None and not isinstance(error, Exception):
        raise SystemExit(143) if isinstance(error, TerminatedError) else error
    if failure:
        raise NotebookError(failure) from None
    return Run(path, record.about["seconds"], record.about["queries"])


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the outcome can still be written before the process ends."""

    def terminate(*_: Any) -> None:
        raise TerminatedError

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
