# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`. Everything lands in .venv and .dlaws.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds torch. On Linux, PyPI's wheel brings several GB of CUDA: name an index with CPU builds here if you have one.
TORCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo demo-down compose-env test bench-backfill bench-rollout-requests chaos-training chaos-rollout check matrix format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z%-]*:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.installed ## Install everything into .venv

# Compiled bytecode halves the start of Airflow; some packages ship files for other Python versions, hence the leading dash.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt $(TORCH_ARGS) torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	-$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1
	touch $@

demo: install ## See the whole loop on real flights: train, drift, retrain, canary, promotion, rollback
	$(BIN)/dlaws demo

demo-down: install ## Stop what `make demo` left running
	$(BIN)/dlaws demo --down

# A module of the standard library only: it must run before anything is installed.
compose-env: ## Write .env with new passwords and keys for docker-compose.yaml
	$(PYTHON) scripts/compose_env.py

# The tests with a real Airflow come last and one by one: its scheduler wants the cores for itself. The others, mostly
# waits, are handed out by files, the longest first (tests/conftest.py).
PYTEST = mkdir -p .dlaws/tmp && TMPDIR=$(CURDIR)/.dlaws/tmp $(BIN)/pytest --basetemp=.dlaws/pytest
test: install ## Run all tests (real Airflow, real processes)
	$(PYTEST) tests/local tests/slurm tests/unit -n 2 --dist loadfile --no-loadscope-reorder
	$(PYTEST) tests/airflow tests/stack

bench-backfill: install ## Backfill six months of flights in a real Airflow; figures in benchmarks/results/backfill.json
	mkdir -p .dlaws/tmp && TMPDIR=$(CURDIR)/.dlaws/tmp DLAWS_BACKFILL_MONTHS=6 DLAWS_BACKFILL_RESULTS=benchmarks/results/backfill.json \
		$(BIN)/pytest --basetemp=.dlaws/pytest tests/airflow/test_backfill.py

bench-rollout-requests: install ## Promote and take back twenty models under 50 requests a second: [ROLLOUTS=20]
	mkdir -p .dlaws/tmp && TMPDIR=$(CURDIR)/.dlaws/tmp DLAWS_ROLLOUTS=$(or $(ROLLOUTS),20) \
		DLAWS_ROLLOUT_RESULTS=benchmarks/results/rollout_requests.json \
		$(BIN)/pytest --basetemp=.dlaws/pytest -s tests/local/test_rollout_requests.py

# Five rounds take about three minutes. Rounds of other seeds are added to the file, so that twenty can be run in slices.
chaos-training: install ## Kill worker, triggerer and scheduler while tasks train: [ROUNDS=20] [SEED=0]
	mkdir -p .dlaws/tmp && TMPDIR=$(CURDIR)/.dlaws/tmp DLAWS_CHAOS_ROUNDS=$(or $(ROUNDS),20) DLAWS_CHAOS_SEED=$(or $(SEED),0) \
		DLAWS_CHAOS_RESULTS=benchmarks/results/chaos_training.json \
		$(BIN)/pytest --basetemp=.dlaws/pytest -s tests/airflow/test_chaos_training.py

# The whole matrix: about 750 rollouts, half an hour and more.
chaos-rollout: install ## Kill a rollout at each API call it makes, and at random pairs of calls: [STRIDE=1] [PAIRS=10]
	mkdir -p .dlaws/tmp && TMPDIR=$(CURDIR)/.dlaws/tmp DLAWS_KILL_STRIDE=$(or $(STRIDE),1) DLAWS_KILL_PAIRS=$(or $(PAIRS),10) \
		$(BIN)/pytest --basetemp=.dlaws/pytest tests/local/test_rollout_kills.py

check: install ## Formatting, lint, types, import layers, size budgets
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_budgets.py

bench-%: install ## A benchmark: bench-sweep [SEED=0] and others in benchmarks/
	$(BIN)/python benchmarks/$(subst -,_,$*).py $(if $(SEED),--seed $(SEED)) $(if $(DATASET),--dataset $(DATASET))

# One version: make matrix ONLY=3.2.1. Needs Python 3.12 (on the PATH, from pyenv, or named in PYTHON312) and pip or uv.
matrix: install ## Install the wheel on every Airflow supported (MWAA's too) and run the loop there
	$(BIN)/python -m scripts.matrix $(if $(ONLY),--only $(ONLY))

format: install ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Resolve constraints.txt anew
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet $(TORCH_ARGS) torch
	$(VENV)-lock/bin/pip install --quiet ".[dev]"
	(head -1 constraints.txt; $(VENV)-lock/bin/pip freeze --exclude airflow-dlaws | sed 's/+cpu$$//') > constraints.new
	mv constraints.new constraints.txt && rm -rf $(VENV)-lock

clean: demo-down ## Remove what the demo and the tests wrote
	rm -rf .dlaws demo-report.html demo-report.json
