"""The record of one attempt: its notebook in the archive, from before it runs until its outcome is written."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulse import QUERY_MIME, archive
from pulse.archive import ArchiveError, index, manifest
from pulse.execution import store
from pulse.execution.errors import SupersededError
from pulse.execution.light import light_import, load_backend
from pulse.execution.masking import MASK, Mask
from pulse.execution.outcome import cell_number, cell_title, judge
from pulse.execution.parameters import finite
from pulse.settings import ROOT, in_object_store

with light_import():
    import nbformat


ENCODED = re.compile(r"([A-Za-z0-9+/=_-]{40,}|([0-9A-Fa-f]{2}[\s:-]?){16,})\s*$")
"""A line of base64 or hex, which the next line may continue."""


@dataclass(frozen=True)
class Book:
    """Tells the archive's manifest and index of one attempt; does nothing where the archive is in an object store."""

    root: Path | None
    path: str = ""

    @classmethod
    def of(cls, root: str, path: str) -> "Book":
        if not root or in_object_store(root):
            return cls(None)
        return cls(Path(root), archive.notebook_path(Path(root), path))

    def head(self) -> str:
        return manifest.head(self.root) if self.root else manifest.GENESIS

    def begun(self) -> None:
        self._say({"what": "begun"})

    def ended(self, outcome: str, text: str) -> None:
        self._say(manifest.ending(outcome, text.encode()))

    def settled(self, outcome: str, text: str) -> None:
        """Record the end of an attempt that could not do it itself, and its beginning if that is missing too."""
        known = self.root and index.attempt(self.root, self.path)
        self._say(*([] if known else [{"what": "begun"}]), manifest.ending(outcome, text.encode()))

    def _say(self, *entries: dict[str, Any]) -> None:
        if self.root:
            manifest.append(self.root, *({**entry, "path": self.path} for entry in entries))
            index.keep_up(self.root)


class Record:
    """One attempt's notebook in the archive, from before it runs until its outcome is written."""

    def __init__(
        self,
        path: str,
        notebook: Path,
        parameters: Mapping[str, Any],
        about: Mapping[str, Any],
        mask: Mask,
        book: Book,
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
            "process": process_identity(os.getpid()),
            "queries": [],
            "after": book.head(),
            **about,
        }

    def begin(self) -> None:
        """Write the notebook before it runs, so that even a run that is killed at once leaves a trace."""
        load_backend(self.path)
        if store.exists(self.path):
            raise ArchiveError(f"{self.path} is already in the archive, where nothing is overwritten: run again.")
        self.save()
        try:
            self.book.begun()
        except BaseException:
            Path(
                self.path
            ).unlink()  # a notebook that the manifest does not know would look as if somebody had put it there by hand
            raise

    def save(self) -> None:
        """Write the notebook in its present state."""
        with store.locked(self.path):
            self._write()

    def _write(self, durable: bool = False) -> str:
        """Write the notebook in its present state and return its text.

        Raises:
            SupersededError: a later try replaced this one.
        """
        if self.mark is not None and store.mark(self.path) != self.mark:
            raise SupersededError(
                f"A later try of {self.about['notebook']} replaced this one while it was still running; what this one "
                f"did does not count. Archived at {self.path}"
            )
        self._clean()
        self.about["queries"] = _queries(self.node)
        self.node.metadata["pulse"] = self.about
        text = store.as_text(self.node)
        store.write(text, self.path, durable)
        self.mark = store.mark(self.path, text)
        return text

    def _clean(self) -> None:
        """Mask every secret in the notebook and note the cells that showed one; NaN and infinity become null."""
        for position, cell in enumerate(self.node.cells):
            if (_clean(cell, self.mask) | _clean_streams(cell, self.mask)) and position not in self.leaks:
                self.leaks.append(position)
        if _clean(self.node.metadata, self.mask) and None not in self.leaks:
            self.leaks.append(None)

    def hear(self, stream: str, text: str) -> None:
        """Pass on the complete lines that the notebook prints.

        Lines of base64 or hex are held back until the next line is known: a secret may be spread over two of them.
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
        if self.say:
            for line in self.mask.text(text).split("\n"):
                self.say(line.rstrip("\r").rpartition("\r")[2])

    def hush(self) -> None:
        """Pass on what was held back, and a last line without its end; called when a cell is over."""
        for stream, rest in self.printed.items():
            if rest:
                self._pass_on(rest.removesuffix("\n"))
                self.printed[stream] = ""

    def end(self, error: BaseException | None) -> str | None:
        """Write the outcome; returns a sentence about the failure, None after a success."""
        outcome, cell, reason = judge(self.node, error)
        self._clean()
        if outcome == "succeeded" and self.leaks:
            cell = self.leaks[0]
            outcome, reason = "failed", f"it shows a secret (masked as {MASK} in the archive); take it out"
        self.about["outcome"] = outcome
        self.about["seconds"] = round(time.monotonic() - self.started, 3)
        if outcome != "succeeded":
            reason = self.mask.text(reason)
            self.about["error"] = {"cell": cell_number(self.node, cell), "message": reason}
        with store.locked(self.path):
            # The notebook goes to the disk first: the manifest must not know an end that a power cut may undo.
            self.book.ended(outcome, self._write(durable=True))
        if outcome == "succeeded":
            return None
        where = f" in cell {cell_number(self.node, cell)} ({cell_title(self.node, cell)})" if cell is not None else ""
        return f"{self.about['notebook']} {outcome}{where}: {reason}. Archived at {self.path}"


def commit() -> str:
    """The project's git commit, with `-dirty` if files differ from it; `unknown` outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _queries(node: Any) -> list[dict[str, Any]]:
    outputs = (output for cell in node.cells for output in cell.get("outputs", []))
    return [output["data"][QUERY_MIME] for output in outputs if QUERY_MIME in output.get("data", {})]


def _clean(value: Any, mask: Mask) -> bool:
    """Mask every text in a list or a dict in place, keys included; NaN and infinity become null.

    Returns:
        Whether there was a secret.
    """
    found = False
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        clean, name = item, key
        if isinstance(item, str):
            clean = mask.text(item)
            found = found or clean != item
        elif isinstance(item, float):
            clean = finite(item)
        elif isinstance(item, list | dict):
            found = _clean(item, mask) or found
        if isinstance(key, str) and (name := mask.text(key)) != key:
            found = True
            del value[key]
        if clean is not item or name is not key:
            value[name] = clean
    return found


def _clean_streams(cell: Any, mask: Mask) -> bool:
    """Mask secrets that are spread over several outputs of a cell, since printed text arrives in pieces.

    Returns:
        Whether there was a secret.
    """
    found = False
    run: list[Any] = []
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


def process_identity(pid: Any) -> str:
    """What distinguishes a process from a later one with the same pid; empty if it is gone or cannot be identified."""
    try:
        # The 20th field after the name, which may contain anything, is the start time.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{pid} since {fields[19]}"
