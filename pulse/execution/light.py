"""Imports papermill without the SDKs of every cloud, which it imports whether they are needed or not.

They take over a second of every task and every kernel. What an archive in an object store does need, `load_backend`
imports.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_HEAVY = ("papermill.s3", "papermill.adl", "papermill.abs", "gcsfs", "pyarrow.fs", "github")
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
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]  # None means: there is no such module
    try:
        yield
    finally:
        for name in blocked:
            del sys.modules[name]


def load_backend(path: str) -> None:
    """Give papermill the SDK that a path in an object store needs, which the light import left out."""
    scheme = path.partition("://")[0]
    if scheme != path and scheme in _BACKENDS:
        from papermill import iorw  # not at the top: `light_import` is defined here

        module, name = _BACKENDS[scheme]
        setattr(iorw, name, getattr(import_module(module), name))
