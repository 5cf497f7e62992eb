# Every target makes and fills .venv itself: a machine needs Python, a C compiler and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.filled
# Neighbours stay together, so that what a module's tests share is made in one process.
SPREAD := -n 2 --dist worksteal
# Random tests draw the same cases each time, so that a gate says the same of the same tree; another
# seed draws others: make check POLYOP_SEED=7
POLYOP_SEED ?= 0
export POLYOP_SEED
DRAWN := --hypothesis-seed=$(POLYOP_SEED)

.PHONY: demo test check soak stress laws bench opinfo capabilities format clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py
	$(BIN)/python examples/onnx_pipeline/pipeline.py
	$(BIN)/polyop check examples

test: $(STAMP)
	$(BIN)/python -m pytest $(SPREAD) $(DRAWN) tests

check: $(STAMP)
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/ruff check src tests bench examples
	$(BIN)/mypy
	$(BIN)/python -m pytest $(SPREAD) $(DRAWN) tests

# What a gate of one seed does not draw: random tests of ROUNDS seeds from POLYOP_SEED on.
ROUNDS ?= 10
soak: $(STAMP)
	set -e; for seed in $$(seq $(POLYOP_SEED) $$(($(POLYOP_SEED) + $(ROUNDS) - 1))); do \
	POLYOP_SEED=$$seed $(BIN)/python -m pytest $(SPREAD) -m hypothesis --hypothesis-seed=$$seed tests; \
	done

stress: $(STAMP)
	POLYOP_STRESS_SECONDS=30 POLYOP_STRESS_CYCLES=100000 $(BIN)/python -m pytest tests/test_stress.py

# Thousands of random programs; a seed of its own draws others: make laws POLYOP_SEED=7
laws: $(STAMP)
	POLYOP_LAWS=20 $(BIN)/python -m pytest $(SPREAD) $(DRAWN) tests/laws

bench: $(STAMP)
	$(BIN)/python bench/run.py
	$(BIN)/python bench/calls.py
	$(BIN)/python bench/bridges_torch.py --keep
	$(BIN)/python bench/bridges_jax.py
	$(BIN)/python bench/fused.py
	$(BIN)/python bench/fused.py --cores

opinfo: $(STAMP)
	POLYOP_OPINFO_REPORT=bench/opinfo.md $(BIN)/python -m pytest $(SPREAD) tests/opinfo

# What each example can do on each array library, tried; a wrong cell fails.
capabilities: $(STAMP)
	$(BIN)/polyop check examples --on numpy,torch,jax,dask --markdown docs/capabilities.md

format: $(STAMP)
	$(BIN)/ruff format src tests bench examples
	$(BIN)/ruff check --fix src tests bench examples

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# PyTorch first and pinned: other packages then find it, and take no other build.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist
