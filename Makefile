# make demo | test | chaos | lint | clean. Each sets up .venv by itself, once; the second call installs nothing.

# The first Python on PATH that is new enough; `make PYTHON=...` names another one.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11; do \
  "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && exit; done; echo python3)
BIN := .venv/bin
STAMP := .venv/.installed

export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: demo test chaos lint clean setup
.DEFAULT_GOAL := help

.PHONY: help
help:
	@head -n 1 Makefile

setup: $(STAMP)

# The checkout runs as `python -m pipelines` and is not installed: an editable install would put a folder `wave` behind
# Python's own module of that name. So only what pyproject.toml requires is installed, at the versions of constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
	  echo "make: '$(PYTHON) -m venv' failed; on Debian install python3-venv" >&2; rm -rf .venv; exit 1; }
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*p["dependencies"], *sum(p["optional-dependencies"].values(), []), sep="\n")' > .venv/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -r .venv/requirements.txt
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m pipelines run pipelines/experiments/digits.toml
	@echo
	@echo "Browse the registry: $(BIN)/mlflow ui   (then open http://127.0.0.1:5000)"

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not chaos and not slow"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not chaos and slow" --durations 12

chaos: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
