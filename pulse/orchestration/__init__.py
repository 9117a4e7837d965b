"""What the DAGs are made of, and the Airflow that `pulse airflow` runs.

dates.py         event dates and moments: templates, macros, form fields
operators.py     NotebookOperator, and the tasks that follow a report
waiting.py       waits until a day is published
holding.py       a held day waits until it is released
sending.py       tasks that send
housekeeping.py  the nightly tasks
failures.py      the last task of every DAG, which reports failures
texts.py         what the alert chat is told about the pipeline
tasks.py         what every task shares
connections.py   settings, with Airflow's connections before them
plugin.py        the archive in Airflow's menu; archive_app.py has its pages
server.py        Airflow with all of its parts on one machine
"""
