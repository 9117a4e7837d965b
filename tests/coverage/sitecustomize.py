"""Measures every Python process that `make coverage` starts, even indirectly: Airflow, kernels, servers.

`make coverage` puts this folder on PYTHONPATH, which kernels inherit as well.
"""

import os
from pathlib import Path

import coverage

os.environ.setdefault("COVERAGE_PROCESS_START", str(Path(__file__).resolve().parents[2] / "pyproject.toml"))
coverage.process_startup()
