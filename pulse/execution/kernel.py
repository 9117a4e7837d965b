"""The environment of a kernel: the settings that are a notebook's business, and nothing that may be a password."""

import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from pulse import settings
from pulse.settings import SHORTEST

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


# Proxies on the way to the server. A password in one of them is masked as ClickHouse's own is.
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})


def kernel_environment(given: Mapping[str, str]) -> dict[str, str]:
    """A kernel's environment: what `PASSED` names, the settings of `settings.KERNEL`, and what is given."""
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


def proxy_passwords(variables: Mapping[str, str]) -> list[str]:
    """The passwords in the addresses of proxies.

    Raises:
        SettingsError: one of them is too short to be masked.
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
