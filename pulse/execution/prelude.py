"""What a kernel's process does first: it imports what its notebook will import, then becomes the kernel.

`kernel.starting` runs this file as a program, before it is known which kernel the process is to be. Meanwhile the
caller does its own imports, checks the parameters and begins the record. Then the caller says the kernel's environment
and arguments through the socket that is standard input. If it says nothing because it is gone, the process ends.

Only libraries are imported that take long and do nothing else when imported. What a notebook runs, prints or reads
happens in its cells, as always; if an import fails here, it fails again in its cell.
"""

import ast
import atexit
import gc
import json
import os
import runpy
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

LAUNCHER = "ipykernel_launcher"
"""The program of a Python kernel, as its kernelspec names it."""

LIBRARIES = frozenset({"matplotlib", "numpy", "pandas", "pulse"})
"""What is imported early if the notebook imports it."""

YES = b"+"
"""What the process answers to its order."""

GLUE = "cells.glue("
"""With this a notebook hands on values, for which `pulse.execution.cells` imports scrapbook."""

INLINE = "module://matplotlib_inline.backend_inline"
"""The backend that ipykernel chooses for matplotlib unless MPLBACKEND names another; matplotlib reads it on import."""


def imported(notebook: Path) -> list[str]:
    """The modules that a notebook's cells import, by their full names, and `GLUE` if one glues.

    Names that are imported from a module are among them, since they may be modules.
    """
    names: list[str] = []
    for cell in json.loads(notebook.read_bytes())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        with suppress(SyntaxError):  # IPython's own syntax; its imports can wait for the cell
            for statement in ast.parse(source).body:
                if isinstance(statement, ast.Import):
                    names += [alias.name for alias in statement.names]
                elif isinstance(statement, ast.ImportFrom) and statement.module:
                    names += [statement.module, *(f"{statement.module}.{alias.name}" for alias in statement.names)]
        names += [GLUE] if GLUE in source else []
    return names


def import_early(names: list[str]) -> None:
    """Import those of the modules that are libraries, and what a kernel needs."""
    os.environ.setdefault("MPLBACKEND", INLINE)
    for name in ("ipykernel.ipkernel", "ipykernel.kernelapp", *names):
        if name.partition(".")[0] in LIBRARIES | {"ipykernel"}:
            with suppress(Exception):
                import_module(name)
    # Without the SDKs of clouds, as `cells.glue` imports it; a notebook that imports it by itself may need these.
    if GLUE in names and not {"papermill", "scrapbook"}.intersection(name.partition(".")[0] for name in names):
        from pulse.execution.light import light_import

        with light_import(), suppress(Exception):
            import_module("scrapbook")


def leave() -> NoReturn:
    """End the kernel's process once everything has run that runs at its end, without taking the libraries apart.

    That would take as long as importing some of them. As at any end of Python, threads are waited for that are no
    daemons, then what was registered with `atexit` runs. By that IPython also drops the notebook's variables, so that
    files that were left open are written. Only objects that a library's module holds are not dropped one by one.

    The thread that was told to end the kernel is waited for first. While it has not written its last output, ipykernel
    may stop the thread through which it writes, and it would wait for that for ten seconds.
    """
    from ipykernel.kernelapp import IPKernelApp

    control = IPKernelApp.instance().control_thread
    control.stop()
    control.join()
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing ends its processes
    atexit._run_exitfuncs()
    gc.collect()  # what the variables held in circles
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(notebook: Path) -> None:
    """Import what a notebook needs, wait for the order, and be the kernel."""
    gc.disable()  # looking for garbage is futile while modules are made
    with suppress(Exception):  # whatever is wrong with the notebook, its run will say it
        import_early(imported(notebook))
    gc.freeze()
    gc.enable()
    with socket.socket(fileno=os.dup(0)) as line:
        said = b"".join(iter(lambda: line.recv(65536), b""))
        if not said:
            return
        order = json.loads(said)
        line.sendall(YES)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["arguments"]
    sys.path[0] = ""
    runpy.run_module(LAUNCHER, run_name="__main__", alter_sys=True)
    leave()


if __name__ == "__main__":
    # Not this folder, whose modules have short names. The kernel then has its working directory there, as ever.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    main(Path(sys.argv[1]))
