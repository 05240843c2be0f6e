# The commands of the house. Each sets up what it needs: a fresh machine needs Python 3.11 and a C toolchain only.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
HOME_DIR ?= .lens_assets
export LENS_ASSETS_HOME := $(abspath $(HOME_DIR))

.PHONY: help setup demo test test-slow ui closure bench accuracy lint lock docs clean distclean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.ready  ## the environment from the pinned requirements
$(VENV)/.ready: requirements.lock pyproject.toml deploy/setup.sh
	deploy/setup.sh $(VENV)
	@touch $@

demo: setup  ## the whole chain on the embedded mock release, with the completeness table at the end
	$(BIN)/lens-assets demo $(ARGS)

test: setup  ## lint, types, tests (the slow suites have their own target)
	deploy/setup-browser.sh
	deploy/setup-java.sh
	$(BIN)/ruff check lens_assets lens_assets_tests
	$(BIN)/ruff format --check lens_assets lens_assets_tests
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

test-slow: setup  ## the slow suites: kill -9 of a whole demo, large catalogues, the chain in a bucket
	deploy/setup-java.sh
	$(BIN)/pytest -m slow --no-cov

ui: setup  ## Dagster and MLflow user interfaces on localhost
	$(BIN)/lens-assets ui $(ARGS)

closure: setup  ## does the published interval hold the truth: thousands of true lenses, figure and numbers
	$(BIN)/lens-assets closure $(ARGS)

bench: setup  ## every benchmark, ratios against a named reference, as JSON lines in bench/
	$(BIN)/lens-assets bench all --json $(ARGS)

accuracy: setup  ## errors of the arc renderer measured again, and their tables in docs/injections.md (ten minutes)
	$(BIN)/python -m lens_assets.bench.accuracy

lint: setup  ## repair what can be repaired
	$(BIN)/ruff check --fix lens_assets lens_assets_tests
	$(BIN)/ruff format lens_assets lens_assets_tests

lock:  ## pin requirements.in and requirements-dev.in into requirements.lock
	deploy/lock.sh

docs: setup  ## the pages derived from the code: docs/columns.md, docs/parity.md
	$(BIN)/python -m lens_assets.science.columns.page > docs/columns.md.new
	mv docs/columns.md.new docs/columns.md
	$(BIN)/python -m lens_assets.science.detectors.parity > docs/parity.md.new
	mv docs/parity.md.new docs/parity.md

clean:  ## remove everything a run wrote (not the environment)
	rm -rf $(HOME_DIR) bench .pytest_cache .mypy_cache .ruff_cache .coverage
	find lens_assets lens_assets_tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## the environment too
	rm -rf $(VENV)
