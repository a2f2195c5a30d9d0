# `make` shows what there is to make. Each goal sets itself up; nothing but Python 3.11 or newer is needed beforehand.
# On Debian and Ubuntu: apt-get install python3 python3-venv git make

PYTHON ?= python3
SOAK_SECONDS ?= 300
PROCESSES ?= 2
BIN = .venv/bin
PIP = $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test check soak bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     train and show a classifier on sample images, on this computer: under 5 minutes, nothing rented"
	@echo "make test     run the tests; on Debian as root it brings a Docker engine, elsewhere it says what is missing;"
	@echo "              in two processes; PROCESSES=1 runs them one after the other"
	@echo "make check    ruff, mypy --strict, import-linter, shellcheck"
	@echo "make soak     slow and random tests, for SOAK_SECONDS ($(SOAK_SECONDS))"
	@echo "make bench    the ratios that the README names, measured side by side"
	@echo "make clean    remove what the others made, except images and containers"

demo: .venv/installed
	$(BIN)/tlvm demo

test: .venv/developing
	tests/setup/docker-engine
	$(BIN)/python -m pytest $(if $(filter-out 1,$(PROCESSES)),-n $(PROCESSES))

check: .venv/developing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy orchestrator tests
	$(BIN)/mypy --python-version 3.10 remote
	$(BIN)/lint-imports
	$(BIN)/shellcheck $$(grep -rlE '^#!.*[/ ](ba)?sh$$' .ci configs infra tests/setup)

# Exit 5 of pytest: no test was selected.
soak: .venv/developing
	tests/setup/docker-engine
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m 'soak and not gpu' || [ $$? -eq 5 ]

bench: .venv/developing
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What a user has: tlvm[train]. The constraints are the versions that were tested together.
.venv/installed: pyproject.toml constraints.txt
	@tests/setup/virtual-environment "$(PYTHON)"
	$(PIP) --editable '.[train]'
	@touch $@

# And what the tests and checks need on top.
.venv/developing: .venv/installed
	$(PIP) --group dev
	@touch $@
