"""Gives the tests of DAGs their own Airflow home."""

import os
import subprocess
import tempfile

import pytest

from pulse.settings import ROOT

# Set these before anything imports Airflow, which reads its configuration on import.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="pulse-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "dags")


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Create Airflow's tables in that home."""
    subprocess.run(["airflow", "db", "migrate"], check=True, capture_output=True)
