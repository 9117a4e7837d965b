"""One attempt at a notebook: checks its parameters, runs it, and archives it whatever happens.

papermill executes; this module decides what may run, where the result is kept and what happened.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulse import settings
from pulse.execution import engine, parameters
from pulse.execution.errors import NotebookError, ParameterError, SupersededError, TerminatedError
from pulse.execution.kernel import Starting, kernel_environment, proxy_passwords
from pulse.execution.light import light_import
from pulse.execution.masking import Mask
from pulse.execution.record import Book, Record

with light_import():
    import nbformat


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
    about: Mapping[str, Any],
    environment: Mapping[str, str],
    secrets: Iterable[str],
    cell_seconds: int | None,
    root: str,
    say: Callable[[str], None] | None,
    process: Starting,
) -> dict[str, Any]:
    """Run a notebook and archive it, whatever its outcome.

    Arguments and errors are those of `runner.run`; `process` can become the kernel.

    Returns:
        What the archived notebook's metadata hold under `pulse`.
    """
    variables = kernel_environment(environment)
    config = settings.load(**{name: variables[name] for name in settings.KERNEL})
    mask = Mask([*config.secrets, *secrets, *proxy_passwords(variables)])
    parameters = check(notebook, parameters, mask)
    record = Record(path, notebook, parameters, about, mask, Book.of(root, path), say)
    record.begin()
    error: BaseException | None = None
    try:
        with _sigterm_raises():
            engine.execute(notebook, parameters, record, process, variables, cell_seconds)
    except BaseException as caught:
        error = caught
    if isinstance(error, SupersededError):
        raise error
    failure = record.end(error)
    if error is not None and not isinstance(error, Exception):
        raise SystemExit(143) if isinstance(error, TerminatedError) else error
    if failure:
        raise NotebookError(failure) from None
    return record.about


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
