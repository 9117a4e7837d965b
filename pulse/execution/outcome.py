"""What became of a run, judged by what really ran.

papermill's own record is not enough: it calls a dead kernel, a timeout and `sys.exit(0)` a success.
"""

import re
from typing import Any, NamedTuple

from pulse.execution.errors import TerminatedError
from pulse.execution.light import light_import

with light_import():
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import ERROR_MARKER_TAG

ADDED_BY_PAPERMILL = {"injected-parameters", ERROR_MARKER_TAG}
"""The tags of the cells that papermill adds to a notebook."""

GROUPED = re.compile(r"  +\| ((?:[A-Za-z_]\w*\.)*(?:[A-Za-z_]\w*: .+|\w*(?:Error|Exception|Group|Interrupt|Exit)))")
"""A line of the tree in which Python prints a group of exceptions, with the text of one of them."""

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Outcome(NamedTuple):
    """How a run ended: its outcome, the index of the cell at fault (None if no cell is), and the reason."""

    outcome: str
    cell: int | None
    reason: str


def judge(node: Any, error: BaseException | None) -> Outcome:
    """How a run ended.

    Args:
        node: the executed notebook.
        error: what papermill raised, if it raised anything.
    """
    if error is None:
        return _ended(node)
    last = _last_cell(node)
    if isinstance(error, PapermillExecutionError):
        return _failed(node, error, last)
    if isinstance(error, DeadKernelError):
        return Outcome("kernel died", last, "the kernel was killed or crashed, often for lack of memory")
    if isinstance(error, CellTimeoutError):
        return Outcome("timed out", last, "the cell took longer than it may")
    if isinstance(error, TerminatedError):
        return Outcome("terminated", last, "the run was stopped from outside (SIGTERM)")
    outcome = "failed" if isinstance(error, Exception) else "terminated"
    return Outcome(outcome, last, f"{type(error).__name__}: {error}")


def running_cell(node: Any) -> int | None:
    """The index of the cell that was running when the run broke off: the last code cell that papermill started."""
    started = [i for i, cell in enumerate(node.cells) if cell.metadata.get("papermill", {}).get("start_time")]
    code = [i for i in started if node.cells[i].cell_type == "code"]
    return code[-1] if code else None


def cell_number(node: Any, index: int | None) -> int | None:
    """The number of a cell in the notebook as it is in `notebooks/`, from 1, without the cells that papermill adds."""
    if index is None:
        return None
    tags = (cell.metadata.get("tags", []) for cell in node.cells[: index + 1])
    return sum(not ADDED_BY_PAPERMILL.intersection(each) for each in tags)


def cell_title(node: Any, index: int) -> str:
    """The heading above a cell, or its first line."""
    for cell in reversed(node.cells[: index + 1]):
        heading = re.search(r"^#+ (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return heading[1]
    return str(node.cells[index].source).strip().splitlines()[0][:60]


def _ended(node: Any) -> Outcome:
    """The outcome of a run that raised nothing: a success, unless a cell did not run or has an error."""
    missing = [index for index, cell in enumerate(node.cells) if _should_have_run(cell)]
    exited = _first_error(node)
    if exited is None and not missing:
        return Outcome("succeeded", None, "")
    at_fault = missing[0] if exited is None else exited
    return Outcome("stopped early", at_fault, f"code cells that did not run: {len(missing)}")


def _failed(node: Any, error: PapermillExecutionError, last: int | None) -> Outcome:
    """The outcome of a run in which a cell raised an error."""
    index = _first_error(node)
    if index is None:
        index = last
    reason = f"{error.ename}: {error.evalue}" if error.evalue.strip() else _raising_line(error)
    if index is not None and not _has_error(node.cells[index]):
        reason = _last_words(node.cells[index])
    return Outcome("failed", index, reason.rstrip("."))


def _last_cell(node: Any) -> int | None:
    """The cell that papermill marked as failed, else the one that was running."""
    marked = (i for i, cell in enumerate(node.cells) if cell.metadata.get("papermill", {}).get("exception"))
    return next(marked, running_cell(node))


def _should_have_run(cell: Any) -> bool:
    """Whether a cell holds code and did not run, though nobody asked for it to be skipped."""
    skipped = "skip-execution" in cell.metadata.get("tags", [])  # nbclient's own tag
    return (
        cell.cell_type == "code" and bool(cell.source.strip()) and cell.get("execution_count") is None and not skipped
    )


def _first_error(node: Any) -> int | None:
    return next((index for index, cell in enumerate(node.cells) if _has_error(cell)), None)


def _has_error(cell: Any) -> bool:
    return any(output.output_type == "error" for output in cell.get("outputs", []))


def _raising_line(error: PapermillExecutionError) -> str:
    """The reason of an error without a text: the line of the cell that raised it."""
    plain = COLOURS.sub("", "\n".join(error.traceback))
    line = re.search(r"^-+> +\d+ (.*)$", plain, re.MULTILINE)
    return f"{error.ename} in `{line[1].strip()}`" if line else str(error.ename)


def _last_words(cell: Any) -> str:
    """The reason of an error without an error output: what IPython, or a handler in the notebook, printed last."""
    printed = [output for output in cell.outputs if output.output_type == "stream"]
    for stream in dict.fromkeys(output.name for output in reversed(printed)):
        text = "".join(output.text for output in printed if output.name == stream)
        lines = [line.rstrip() for line in COLOURS.sub("", text).splitlines() if line.strip()]
        # In an exception group: the lines of its tree that name the errors, the group's own first.
        errors = [found[1] for line in lines if (found := GROUPED.fullmatch(line))]
        if errors:
            return f"{errors[0]}: {'; '.join(errors[1:])}" if errors[1:] else errors[0]
        if lines:
            return lines[-1].strip()
    return "an error that left no message"
