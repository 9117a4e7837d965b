"""Runs a notebook. This module imports little, so that the kernel's process starts before all that a run needs."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse.execution.kernel import starting


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
        ParameterError: see `attempt.check`; nothing has run.
        ArchiveError: the path cannot be written or is taken; nothing has run.
        NotebookError: the notebook failed, or not every cell ran.
        SupersededError: a later try replaced this one while it was running (`pulse.execution.settling`).
        SettingsError: a setting is wrong; nothing has run.
    """
    with starting(notebook, environment or {}) as process:
        from pulse.execution import attempt  # while the kernel's process does imports of its own

        about = attempt.run(
            notebook,
            path,
            parameters,
            about=about or {},
            environment=environment or {},
            secrets=secrets,
            cell_seconds=cell_seconds,
            root=root,
            say=say,
            process=process,
        )
    return Run(path, about["seconds"], about["queries"])
