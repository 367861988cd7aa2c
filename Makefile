# Everything runs in .venv, which the first target that needs it makes.
#   make demo      set up and run the main job on real images
#   make test      the test suite
#   make test-core the same without napari, Qt and the tests that need them
#   make install   only .venv/bin/napari-ptsam
#   make napari    napari with the plugin
#   make lint      ruff, mypy, import contracts
#   make docs      the documentation, into site/
#   make backbone  the embedded backbone's weights, from nothing (hours; goes on when run again)
# PYTHON=/path/to/python3.12 chooses another interpreter (3.11 or newer).

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
OUTPUT ?= demo-output
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
INPUTS := pyproject.toml constraints.txt Makefile
# Test files side by side, each with one thread: tests are small, and threads wait for each other.
# Apart from those of whole commands, which start processes and interrupt them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
ASIDE := -n auto --maxprocesses 8 --dist loadfile --ignore=tests/widgets
COMMANDS := tests/test_cli_job.py

.PHONY: demo test test-core install napari dev lint docs backbone clean

demo: install
	$(BIN)/napari-ptsam demo -o $(OUTPUT)

# In two runs: the plugins of napari and Qt for pytest would slow down the tests of the core, and
# keep them from starting where Qt lacks a system library.
test: dev
	$(PYTEST) -p no:napari -p no:pytest-qt $(ASIDE) --ignore=$(COMMANDS)
	$(PYTEST) -p no:napari -p no:pytest-qt $(COMMANDS)
	@if error=$$($(BIN)/python -c 'import qtpy.QtWidgets' 2>&1); then \
	    $(BIN)/python -m pytest tests/widgets; \
	else \
	    echo "Not run: tests/widgets, because Qt does not start here: $${error##*$$'\n'}"; \
	fi

test-core: $(VENV)/.installed-core
	$(PYTEST) $(ASIDE) --ignore=$(COMMANDS)
	$(PYTEST) $(COMMANDS)

napari: $(VENV)/.installed-napari
	$(BIN)/napari --with napari-ptsam

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# Folder of the scenes and of the runs; some 12 GB.
BACKBONE ?= output/backbone

backbone: dev
	$(BIN)/python -m pretraining.pool $(BACKBONE)/pool
	$(BIN)/python -m pretraining.train pretraining/recipe.toml --pool $(BACKBONE)/pool \
	    --run $(BACKBONE)/run
	$(BIN)/python -m pretraining.export $(BACKBONE)/run -o $(BACKBONE)/without-clicks.safetensors
	$(BIN)/python -m pretraining.clicks pretraining/clicks.toml --pool $(BACKBONE)/pool \
	    --backbone $(BACKBONE)/without-clicks.safetensors --run $(BACKBONE)/clicks
	$(BIN)/python -m pretraining.export $(BACKBONE)/run --clicks $(BACKBONE)/clicks

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

$(VENV)/.installed-core: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev,gui-test]'
	@touch $@

$(VENV)/.installed-napari: $(VENV)/.installed
	$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	@touch $@
