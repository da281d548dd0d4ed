# Targets a newcomer needs: quickstart, test, lint. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# as `kfpbench` does: OpenMP threads that spin while they wait are starved by any other busy process
export OMP_WAIT_POLICY ?= PASSIVE
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow test-all lint format asv asv-compare asv-publish speed clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

quickstart: $(VENV)/.installed ## Install, run suites/quickstart.yaml, print where the report is
	$(BIN)/kfpbench run suites/quickstart.yaml

test: $(VENV)/.dev ## Run the tests, but the slow ones, in two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: $(VENV)/.dev ## Run the slow tests alone, one after the other: some of them measure times
	$(BIN)/python -m pytest -m slow

test-all: test test-slow ## Run all tests

lint: $(VENV)/.dev ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# asv: BENCH is a regular expression of benchmark names, COMMITS a range for git rev-list, ASV_ENV linked or virtualenv
BENCH ?= .
ASV_ENV ?= linked
BASE ?= HEAD~1
HEAD ?= HEAD
FACTOR ?= 1.5
ROUNDS ?= 4
# times of one thread repeat better
asv asv-compare: export OMP_NUM_THREADS ?= 1

asv: $(VENV)/.dev ## Run the asv benchmarks on this commit, or on COMMITS=..., and keep the results
	@$(BIN)/asv machine --yes > /dev/null # prints questions, and answers them itself
ifdef COMMITS
	$(BIN)/asv run "$(COMMITS)" --environment $(ASV_ENV) --bench "$(BENCH)" --show-stderr
else
	@git diff --quiet HEAD -- kfpbench baselines pyproject.toml || \
	  { echo "kfpbench/ differs from the commit under which its times would be stored: commit first"; exit 2; }
	$(BIN)/asv run --python=same --set-commit-hash=$$(git rev-parse HEAD) --bench "$(BENCH)" --show-stderr
endif

asv-compare: $(VENV)/.dev ## Run them on BASE and HEAD by turns; fails where HEAD takes FACTOR (1.5) times as much
	$(BIN)/python suites/asv_tools/compare.py "$(BASE)" "$(HEAD)" --factor $(FACTOR) --rounds $(ROUNDS) \
	  --environment $(ASV_ENV) --bench "$(BENCH)"

asv-publish: $(VENV)/.dev ## Build the site of all stored results, .asv/html; look at it with `.venv/bin/asv preview`
	$(BIN)/asv publish
	$(BIN)/python suites/asv_tools/local_scripts.py .asv/html

speed: $(VENV)/.dev ## Print what the eigensolvers cost: against a peer, at large N, and with growing N (half an hour)
	for part in peers large krylov scaling; do $(BIN)/python suites/asv/spectral_ratios.py $$part || exit 1; done

clean: ## Remove what the targets above made
	rm -rf $(VENV) .asv .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kfpbench needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (one to three minutes the first time)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	@touch $@
