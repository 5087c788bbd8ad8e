# The first Python on PATH that is new enough; `make PYTHON=...` names another one.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11; do \
  "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && exit; done; echo python3)
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export NO_MKDOCS_2_WARNING ?= 1

.PHONY: help setup demo test fast chaos lint format docs generate clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Every target sets up .venv on first use. PYTHON=python3.12 chooses the interpreter."

setup: $(STAMP)  ## create .venv with everything at the versions of constraints.txt

# No `pip install -e .` here: the library's folder is called `wave`, and so is a module of Python's standard library. An
# editable install appends the checkout to sys.path, behind the standard library, so `import wave` would find that module.
# Commands run from the checkout's root instead, where `python -m` puts the checkout first.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
	  echo "make: '$(PYTHON) -m venv' failed; on Debian install python3-venv" >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*p["dependencies"], *sum(p["optional-dependencies"].values(), []), sep="\n")' > .venv/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -r .venv/requirements.txt
	@touch $(STAMP)

demo: $(STAMP)  ## the whole pipeline on handwritten digits, minutes on two cores, no network
	$(BIN)/python -m pipelines run pipelines/experiments/digits.toml
	@echo
	@echo "Browse the registry: $(BIN)/mlflow ui   (then open http://127.0.0.1:5000)"

test: lint docs  ## linters, types, documentation and every test but chaos
	$(PYTEST) -n 2 --dist loadfile -m "not chaos and not slow"
	$(PYTEST) -n 2 --dist loadfile -m "not chaos and slow" --durations 12

fast: $(STAMP)  ## only the tests that take less than about ten seconds each
	$(PYTEST) -n 2 --dist loadfile -m "not chaos and not slow"

chaos: $(STAMP)  ## tests that kill processes of running clusters, fill disks and damage files
	$(PYTEST) tests/chaos

lint: $(STAMP)  ## check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright

format: $(STAMP)  ## fix formatting and what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)  ## build the documentation into build/site; a broken link or an undocumented setting fails
	$(BIN)/python -m docs.generate --check
	$(BIN)/mkdocs build --strict --quiet

generate: $(STAMP)  ## rewrite the reference pages and pictures that come from the code
	$(BIN)/python -m docs.generate

clean:  ## remove .venv, builds and caches; runs, data and the registry stay
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
