# Two commands are enough on a fresh machine:
#   make train [ARGS="--config.seed=1 --workdir=runs/one"]
#   make test
PYTHON ?= python3
CONFIG ?= configs/base.py
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?= -n 2 --dist=loadfile --no-loadscope-reorder

.PHONY: train test check notebooks bench-frameworks bench-gallery bench-input bench-limits bench-prepare bench-ranker bench-resnet bench-quality bench-scaling bench-text bench-tables soak clean

train: $(VENV)/.installed
	$(BIN)/python -m umair_jax.train --config=$(CONFIG) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Makes colab/*.ipynb from colab/*.py; the outputs of cells that stay as they were are kept.
notebooks: $(VENV)/.installed-dev
	$(BIN)/jupytext --quiet --update --to ipynb colab/*.py

bench-frameworks: $(VENV)/.installed
	$(BIN)/python -m benchmarks.frameworks $(ARGS)

bench-gallery: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gallery $(ARGS)

bench-input: $(VENV)/.installed
	$(BIN)/python -m benchmarks.input $(ARGS)

# With the extra cuda, and without a GPU.
bench-limits: $(VENV)/.installed
	$(BIN)/python -m benchmarks.limits $(ARGS)

bench-prepare: $(VENV)/.installed
	$(BIN)/python -m benchmarks.prepare $(ARGS)

bench-quality: $(VENV)/.installed
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-ranker: $(VENV)/.installed
	$(BIN)/python -m benchmarks.ranker $(ARGS)

bench-scaling: $(VENV)/.installed
	$(BIN)/python -m benchmarks.scaling $(ARGS)

bench-text: $(VENV)/.installed
	$(BIN)/python -m benchmarks.text $(ARGS)

bench-resnet: $(VENV)/.installed
	$(BIN)/python -m benchmarks.resnet $(ARGS)

bench-tables: $(VENV)/.installed
	$(BIN)/python -m benchmarks.tables $(ARGS)

soak: $(VENV)/.installed
	$(BIN)/python -m benchmarks.soak $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(None if ok else f"umair_jax needs Python 3.11 to 3.13, found {sys.version.split()[0]}; run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing umair_jax into $(VENV): a minute or two, once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing umair_jax and its development tools into $(VENV): a few minutes, once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info
