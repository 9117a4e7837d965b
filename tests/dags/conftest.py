"""DAGs as Airflow loads them, in a home of their own."""

import os
import tempfile

from pulse.settings import ROOT

# Before anything imports Airflow, which reads its configuration on import.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="pulse-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "dags")
