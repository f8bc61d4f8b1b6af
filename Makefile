# `make demo` and `make test` set everything up by themselves; they need Python 3.11 or 3.12 and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header
PYTEST_ARGS ?=

.PHONY: help demo test test-apiserver lint format benchmark requirements wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/.local  ## train, tune, deploy and canary the digits model as a ZenML pipeline
	$(BIN)/python examples/digits/run.py --fresh .demo

test: $(VENV)/.dev  ## run all tests that need no cluster
	$(BIN)/python -m pytest tests/unit tests/local --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

test-apiserver: $(VENV)/.dev  ## run the tests that need a Kubernetes API server; builds one with Go
	KAPTAIN_ZEN_REQUIRE_TIERS=apiserver $(BIN)/python -m pytest tests/apiserver $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## mend formatting and what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.local  ## print speed ratios, each measured side by side in one run
	$(BIN)/python -m benchmarks

wheel: $(VENV)/.dev  ## build the wheel and the sdist into dist/
	$(BIN)/python -m hatchling build

requirements: $(VENV)/.uv  ## make the pinned environments anew from pyproject.toml
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra local -o requirements/local.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra local --extra dev -c requirements/local.txt -o requirements/dev.txt

clean:  ## remove what the targets above have made
	rm -rf $(VENV) .demo dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 13) and f"kaptain-zen needs Python 3.11 or 3.12, not {v[0]}.{v[1]}. Try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# uv installs much faster than pip; where it cannot be had, pip does the same.
$(VENV)/.uv: requirements/uv.txt | $(BIN)/python
	-@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.local $(VENV)/.dev: $(VENV)/.%: requirements/%.txt pyproject.toml | $(VENV)/.uv
	@echo "Installing requirements/$*.txt into $(VENV) ..."
	@if [ -x $(BIN)/uv ]; then install="$(BIN)/uv pip install --quiet --python $(BIN)/python"; \
	else install="$(BIN)/python -m pip install --quiet --disable-pip-version-check"; fi; \
	$$install --require-hashes -r $< && $$install --no-deps --no-build-isolation -e .
	@touch $@
