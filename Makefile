# Everything runs in .venv, which the first target that needs it makes.
#   make demo      set up and run the main job on real images
#   make test      the test suite
#   make install   only .venv/bin/napari-ptsam
#   make lint      ruff, mypy, import contracts
#   make docs      the documentation, into site/
# PYTHON=/path/to/python3.12 chooses another interpreter (3.11 or newer).

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
OUTPUT ?= demo-output
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
INPUTS := pyproject.toml constraints.txt Makefile

.PHONY: demo test install dev lint docs clean

demo: install
	$(BIN)/napari-ptsam demo -o $(OUTPUT)

test: dev
	$(BIN)/python -m pytest

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site

# The first Python of 3.11 or newer that can make an environment.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	    "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	        2>/dev/null || continue; \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV); exit; \
	done; \
	echo "No Python of 3.11 or newer with venv found. Install one (on Debian: apt install" \
	    "python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2; exit 1

# A stamp is touched last, so an interrupted set-up is done again.
$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	@echo "Installing napari-ptsam (about a minute)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	@touch $@
