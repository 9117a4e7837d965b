"""Executes a notebook through papermill, with the record in place of papermill's own file, in a kernel of our own.

What papermill and the Jupyter libraries wait for longer than needed is done here without the wait: each time they poll
in steps of 0.1 or 0.2 seconds.
"""

import asyncio
import logging
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from pulse.execution.kernel import Starting
from pulse.execution.light import light_import
from pulse.execution.record import Record

with light_import():
    import papermill
    import zmq
    from jupyter_client.asynchronous.client import AsyncKernelClient
    from jupyter_client.provisioning.local_provisioner import LocalProvisioner
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
    from traitlets.config import Config

STEP = 0.005
"""In seconds: how often we look whether a kernel has ended."""

PROMPT = 2.5
"""For how many seconds we look that often, half of the time that Jupyter gives a kernel; most need a tenth of one."""

RECONNECT = 10
"""In milliseconds: how often we try to connect to a kernel that is starting."""


def execute(
    notebook: Path,
    parameters: Mapping[str, Any],
    record: Record,
    process: Starting,
    environment: Mapping[str, str],
    seconds: int | None,
) -> None:
    """Run a notebook in a kernel; the record saves it on the way.

    Args:
        notebook: the notebook.
        parameters: checked before.
        record: of this attempt.
        process: becomes the kernel if it can.
        environment: of the kernel.
        seconds: the longest that a cell may take.

    Raises:
        PapermillExecutionError: a cell raised an error.
        CellTimeoutError, DeadKernelError: as they say.
    """
    with _without_papermills_warning():
        papermill.execute_notebook(
            str(notebook),
            None,  # the record writes the notebook: masked, whole, and with the real outcome
            parameters=parameters,
            engine_name="pulse",
            progress_bar=False,
            execution_timeout=seconds,
            record=record,
            process=process,
            environment=environment,
        )


class _Manager(NotebookExecutionManager):
    """papermill's execution state, saved by the record instead of directly to a file.

    papermill saves at the start and at the end of every cell. Between the end of one cell and the start of the next
    that has code, nothing happens that could be lost. So the record saves at the start of each cell with code, whenever
    papermill does so while it runs, and once after the last.
    """

    record: Record
    between_cells = False

    def save(self, **kwargs: Any) -> None:
        if kwargs.get("nb"):
            self.nb = kwargs["nb"]
        self.record.node = self.nb
        if self.between_cells:
            return
        self.record.save()
        self.last_save_time = self.now()

    def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        self.between_cells = cell.cell_type != "code" or not cell.source.strip()
        super().cell_start(cell, cell_index, **kwargs)

    def cell_complete(self, *args: Any, **kwargs: Any) -> None:
        self.record.hush()
        self.between_cells = True
        super().cell_complete(*args, **kwargs)


class KernelClient(AsyncKernelClient):
    """Jupyter's client of a kernel, which does not listen for silence before the first cell."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Return once the kernel answers and its output arrives.

        Jupyter's own way then waits until no message has come for 0.2 seconds. That is not needed here: nbclient takes
        a message for a cell's output only if the message says so.

        Raises:
            RuntimeError: the kernel died, or did not answer in time.
        """
        deadline = time.monotonic() + (timeout or float("inf"))
        while not await self._answers():
            if not await self.is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")

    async def _answers(self) -> bool:
        """Whether a question is answered, and the output that belongs to it arrives: the first may be lost."""
        question = self.kernel_info()
        try:
            while (await self.get_shell_msg(timeout=1))["parent_header"].get("msg_id") != question:
                pass
            while (await self.get_iopub_msg(timeout=0.2))["parent_header"].get("msg_id") != question:
                pass
        except Empty:
            return False
        return True


class _Provisioner(LocalProvisioner):
    """Has a process that is there become the kernel if it can, and notices at once when the kernel has ended."""

    starting: Starting
    done = False
    """Whether the kernel has run all of its cells."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Let the process become the kernel; where it cannot, start the kernel as Jupyter does."""
        if kwargs.get("cwd") or not self.starting.become(cmd, kwargs["env"]):
            return await super().launch_kernel(cmd, **kwargs)
        self.process = self.starting.process
        self.pid = self.pgid = self.process.pid  # it leads its session, hence its group
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Send a signal, but no interrupt to a kernel that is done.

        Jupyter interrupts every kernel before it asks it to end. That could meet it while it still tells that its last
        cell has ended, and it would complain on the screen.
        """
        if not (self.done and signum == signal.SIGINT):
            await super().send_signal(signum)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Wait for a kernel that was asked to end; Jupyter's own wait, in longer steps, then has nothing to do."""
        deadline = time.monotonic() + PROMPT
        while await self.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(STEP)

    def get_shutdown_wait_time(self, recommended: float = 5.0) -> float:
        """How many seconds are left after `PROMPT`: then the kernel is killed."""
        return super().get_shutdown_wait_time(recommended) - PROMPT


class _Client(PapermillNotebookClient):
    """papermill's client, with our kernel, which also passes printed text to the record while the cell runs."""

    def __init__(self, *args: Any, starting: Starting, **options: Any) -> None:
        super().__init__(*args, **options)
        self.starting = starting

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        manager.client_factory = KernelClient
        manager.context.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
        if "kernel_provisioner" not in manager.kernel_spec.metadata:  # else it says how its kernels are started
            manager.provisioner = _Provisioner(parent=manager, kernel_spec=manager.kernel_spec)
            manager.provisioner.starting = self.starting
        return manager

    def papermill_execute_cells(self) -> None:
        try:
            super().papermill_execute_cells()
            if isinstance(self.km.provisioner, _Provisioner):
                self.km.provisioner.done = True
        finally:
            self.nb_man.record.save()  # before the kernel ends, which may take seconds

    def process_message(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        output = super().process_message(msg, *args, **kwargs)
        if msg["msg_type"] == "stream":
            self.nb_man.record.hear(msg["content"]["name"], msg["content"]["text"])
        return output


class _Engine(NBClientEngine):
    """papermill's engine, with an environment for the kernel, and with the record."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        *,
        record: Record,
        process: Starting,
        environment: dict[str, str],
        **options: Any,
    ) -> Any:
        manager = _Manager(nb, progress_bar=False)
        manager.record = record
        with tempfile.TemporaryDirectory(prefix="pulse-") as folder:
            # Sockets in a private folder: on a TCP port, every user of the machine could listen.
            sockets = {"transport": "ipc", "connection_file": str(Path(folder) / "kernel.json")}
            client = _Client(
                manager,
                config=Config(KernelManager=sockets),
                starting=process,
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


@contextmanager
def _without_papermills_warning() -> Iterator[None]:
    """Suppress papermill's warning about unknown parameters: its own parser misses some that `check` has found."""

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Passed unknown parameter")

    logger = logging.getLogger("papermill")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
