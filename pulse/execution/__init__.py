"""Runs notebooks: checks their parameters, masks secrets, archives what was executed, records the outcome.

cells.py       what notebooks import: expect, show, glue
runner.py      runs a notebook
attempt.py     one attempt: what may run, where the result is kept, what happened
engine.py      executes it through papermill
parameters.py  the parameters that a notebook offers, and what may be given for them
kernel.py      the process and the environment of a kernel
prelude.py     what a kernel's process does before it is a kernel
record.py      the record of one attempt
outcome.py     how a run ended
settling.py    records the outcome of attempts that were cut off
store.py       executed notebooks in the archive: read, written, locked
masking.py     finds secrets in any spelling
show.py        tables and messages as people read them
light.py       imports papermill without the SDKs of every cloud
errors.py      what can go wrong with a notebook
"""
