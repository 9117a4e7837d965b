"""DAGs as Airflow loads them, in a home of their own."""

import os
import subprocess
import tempfile

import pytest

from pulse.settings import ROOT

# Before anything imports Airflow, which reads its configuration on import.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="pulse-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "dags")


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's tables, in that home."""
    subprocess.run(["airflow", "db", "migrate"], check=True, capture_output=True)
