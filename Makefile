# Everything a person or a machine does with the project. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help run test prove coverage docs up notebook archive superset bench lint lock install

PYTHON ?= python3
VENV := .venv
SUPERSET := .superset
PYTEST_ARGS ?=
# A file's tests stay together, and the files in their order: the long ones come first.
PYTEST = pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Compiled bytecode halves the time every notebook and task needs to start.
unexport PYTHONDONTWRITEBYTECODE

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed

run: install ## set up, then compute yesterday on the sandbox, through the real DAGs
	pulse sandbox run -- pulse daily

test: install $(SUPERSET)/.installed ## set up, then run all tests (the slowest are listed at the end)
	$(PYTEST)

prove: install $(SUPERSET)/.installed ## what takes longer than a test may: docs/operations/prove.md says what it showed
	$(PYTEST) -m prove

coverage: install $(SUPERSET)/.installed ## what of the code the tests run: all suites, and every process they start
	coverage erase
	PYTHONPATH=$(CURDIR)/tests/coverage COVERAGE_FILE=$(CURDIR)/.coverage \
	    $(PYTEST)
	coverage combine --quiet
	coverage report

docs: install ## the documentation as pages in docs/_build/html
	sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --jobs auto docs docs/_build/html

up: install ## the sandbox and Airflow with its UI, on this machine only, until Ctrl-C
	pulse sandbox run --live -- pulse airflow

notebook: install ## JupyterLab on the notebooks, with the sandbox behind them
	pulse sandbox run -- jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

superset: install $(SUPERSET)/.installed ## Superset with the dashboard, on this machine only, until Ctrl-C
	pulse sandbox run -- pulse sandbox superset

archive: install ## the archive as pages in site/, to open from disk or put on any web server
	pulse archive site

bench: install ## measure: time, memory, and the ways not taken
	python -m benchmarks.etl
	python -m benchmarks.sizes
	python -m benchmarks.backfill
	python -m benchmarks.monitoring
	python -m benchmarks.anomalies
	python -m benchmarks.archive

lint: install ## the checks that a commit must pass
	ruff format --check .
	ruff check .
	lint-imports --no-logo
	mypy
	sqlfluff lint --disable-progress-bar pulse
	nbstripout --keep-id --verify $$(git ls-files 'notebooks/*.ipynb')

lock: install ## pin the newest versions that pyproject.toml allows
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra dev --no-header --no-annotate \
	    --no-emit-package pulse --output-file requirements.lock pyproject.toml sandbox/pyproject.toml
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate \
	    --output-file dashboards/superset/requirements.lock dashboards/superset/requirements.in

# uv does not read pip's settings: a mirror configured there holds for it too.
into = index="$${PIP_INDEX_URL:-$$($(VENV)/bin/pip config get global.index-url 2>/dev/null)}"; \
	    $${index:+env UV_DEFAULT_INDEX="$$index"} $(VENV)/bin/uv pip install --quiet --python $(1)

# Superset's pins conflict with the rest, so it has an environment of its own.
$(SUPERSET)/.installed: dashboards/superset/requirements.lock | $(VENV)/.installed
	$(PYTHON) -m venv --without-pip $(SUPERSET)/venv
	$(call into,$(SUPERSET)/venv) -r dashboards/superset/requirements.lock
	touch $@

$(VENV)/.installed: requirements.lock pyproject.toml sandbox/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Pulse needs Python 3.11 or newer, and $(PYTHON) is %d.%d: run make with PYTHON=python3.11." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check uv
	$(call into,$(VENV)) -r requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV) --no-deps -e . -e sandbox
	touch $@
