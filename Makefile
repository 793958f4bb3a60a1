# For people: demo, test, check, docs, kernels, clean. For patience: test-slow, fuzz.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

FUZZ ?=

.PHONY: demo test test-slow fuzz check docs kernels clean

demo: $(INSTALLED)
	$(BIN)/relational-rnn demo

test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/pytest -n 2 -m slow

# 30,000 odd and damaged inputs; FUZZ='--inputs 1000 --seed 7' for others.
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m fuzz $(FUZZ)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

# The compiled part of the CPU scan, in place; installing does the same.
kernels:
	$(PYTHON) hatch_build.py

clean:
	rm -f src/relational_rnn/ops/relational_scan/native/kernels.so
	rm -rf $(VENV) dist build site .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Exact versions come from constraints.txt; the package itself only asks for ranges.
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard src/relational_rnn/ops/relational_scan/native/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
