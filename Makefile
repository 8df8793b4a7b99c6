# The two commands: make demo, make test. Both make the environment and install into it.
# The first Python from 3.11 on that runs here; PYTHON=... names another. A name may be a shim that does not run.
RUNS = -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" $(RUNS) && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
MEDIA ?=

.PHONY: demo test check docs bench lock notice clean

$(BIN)/python:
	@"$(PYTHON)" $(RUNS) || { echo "make: no Python 3.11 or newer with venv: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements.lock -e ".[dev]"
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/python -m examples.demo $(if $(MEDIA),--media "$(MEDIA)")

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of the documents, in build/site; a warning is an error.
docs: $(VENV)/.dev
	$(BIN)/python -m tools.llms_txt
	$(BIN)/zensical build --clean --strict

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.recall $(ARGS)
	$(BIN)/python -m benchmarks.ingest $(ARGS)
	$(BIN)/python -m benchmarks.memory $(ARGS)
	$(BIN)/python -m benchmarks.kernel $(ARGS)

# Pins every version that `make` installs. Run after a change of the dependencies.
lock: $(VENV)/.dev
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

# Writes NOTICE: the licences of what an installation brings.
notice: $(VENV)/.dev
	$(BIN)/python -m tools.notice

clean:
	rm -rf $(VENV) demo build dist
