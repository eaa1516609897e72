# Needs Python 3.11 or newer and make; everything else goes into .venv, which make creates itself.
PYTHON ?= python3
BIN := .venv/bin
# Test processes: one more than CI has cores, since each waits now and then.
WORKERS ?= 3

# The tests start thousands of processes, each of which would compile the node anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test long check soak bench lint clean

demo: .venv/installed            ## the main job on loopback: a node, a PACS, studies in, results out
	$(BIN)/pacsnode demo

test: lint                       ## all that a plain machine can run, some 13 minutes on two cores; PACSNODE_ORDER=7 shuffles
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder  # what a file starts, it starts once; long files first

long: .venv/installed            ## what takes minutes each: a small week, fifty kills, days that pass; after `make test`
	$(BIN)/pytest -m long -n $(WORKERS) --dist loadfile --timeout 900

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: .venv/installed           ## the shipped site file, the shipped rules and their `try:` cases
	PACSNODE_CONFIG=config/node.yaml $(BIN)/pacsnode check

soak: .venv/installed            ## long runs, before a release
	$(BIN)/pytest -m soak --timeout 7200

bench: .venv/installed           ## measure receiving, sending and turnaround beside peers, same data, same machine
	$(BIN)/pacsnode bench receive
	$(BIN)/pacsnode bench send
	$(BIN)/pacsnode bench turnaround

clean:                           ## remove what make made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
