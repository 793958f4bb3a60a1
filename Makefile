# For people: demo, test, check, docs, kernels, clean. For patience: test-slow.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow check docs kernels clean

demo: $(INSTALLED)
	$(BIN)/relational-rnn demo

test: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/pytest -n 2 -m slow

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
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard src/relational_rnn/ops/relational_scan/native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
