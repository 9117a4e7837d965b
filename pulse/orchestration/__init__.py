"""Orchestration: what the DAGs are made of, and the Airflow that `pulse airflow` runs."""
