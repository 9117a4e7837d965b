"""A kernel's process and environment: the settings that are a notebook's business, and nothing else that is secret.

The settings take a fifth of a second to import, so the functions that need them import them: a process starts earlier.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pulse.execution import prelude

# The variables that a kernel inherits beside the settings: how programs, files and servers are found, and how Python
# behaves. Nothing else is inherited, since any other variable may hold a password.
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

PARENT = "JPY_PARENT_PID"

PATIENCE = 60.0
"""For how many seconds a process may import before it becomes a kernel, as papermill's limit for a kernel's start."""


# Proxies on the way to the server. A password in one of them is masked as ClickHouse's own is.
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


def inherited() -> dict[str, str]:
    """What a kernel inherits of this process's environment, as `PASSED` names it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED
        or name.upper() in PROXIES
        or name.startswith(PASSED_PREFIXES)
        or name.endswith(PASSED_SUFFIXES)
    }


def kernel_environment(given: Mapping[str, str]) -> dict[str, str]:
    """A kernel's environment: what is inherited, the settings of `settings.KERNEL`, and what is given."""
    from pulse import settings

    config = settings.load(**{name: given[name] for name in settings.KERNEL if given.get(name)})
    return {**inherited(), **given, **config.for_kernels, settings.IN_KERNEL: "1"}


@dataclass(frozen=True)
class Starting:
    """A process that imports what a kernel will need, and can become that kernel; with its environment so far."""

    process: "subprocess.Popen[bytes]"
    line: socket.socket
    environment: dict[str, str]

    def become(self, command: list[str], environment: Mapping[str, str]) -> bool:
        """Let the process become the kernel that Jupyter would start with a command.

        Args:
            command: what Jupyter would run.
            environment: of the kernel.

        Returns:
            Whether it does. It cannot if it has died, if the command is another program than ipykernel or another
            Python, or if the environment differs in more than the settings: libraries may have read it by now.
        """
        from pulse import settings

        changed = {name for name, value in environment.items() if self.environment.get(name) != value}
        if (
            command[:3] != [sys.executable, "-m", prelude.LAUNCHER]
            or changed - {*settings.KERNEL, settings.IN_KERNEL}
            or self.environment.keys() - environment.keys() - {PARENT}
        ):
            return False
        order = {"arguments": command[2:], "environment": {**environment, PARENT: self.environment[PARENT]}}
        try:
            self.line.sendall(json.dumps(order).encode())
            self.line.shutdown(socket.SHUT_WR)
            return self.line.recv(1) == prelude.YES
        except OSError:  # it has died, or takes too long
            return False


@contextmanager
def starting(notebook: Path, given: Mapping[str, str]) -> Iterator[Starting]:
    """Start the process of a notebook's kernel, which must have ended when the block does: else it is killed."""
    # By JPY_PARENT_PID, which it reads when it is imported, ipykernel notices that its parent is gone, and ends.
    environment = {**inherited(), **given, PARENT: str(os.getpid())}
    command = [sys.executable, prelude.__file__, str(notebook)]
    # A session of its own, as Jupyter gives a kernel: Ctrl-C is for the run, which then ends its kernel.
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    with ours:
        with theirs:
            process = subprocess.Popen(command, stdin=theirs.fileno(), env=environment, start_new_session=True)
        try:
            yield Starting(process, ours, environment)
        finally:
            process.kill()
            process.wait()


def proxy_passwords(variables: Mapping[str, str]) -> list[str]:
    """The passwords in the addresses of proxies.

    Raises:
        SettingsError: one of them is too short to be masked.
    """
    from pulse import settings

    found = []
    for name, address in variables.items():
        if name.upper() in PROXIES - {"NO_PROXY"} and (password := urlsplit(address).password):
            if len(unquote(password)) < settings.SHORTEST:
                raise settings.SettingsError(
                    f"{name}: expected a password of at least {settings.SHORTEST} characters: "
                    "a shorter one cannot be masked."
                )
            found += [password, unquote(password)]
    return found
