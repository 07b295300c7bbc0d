# The two commands of the README. Each makes its own virtual environment from the pinned versions.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED := 0

# What users call: their docstrings are complete. Of the others numpydoc is asked nothing.
DOCUMENTED := $(addprefix deblend_batch/, __init__.py config.py demo.py detect/field.py engine/plan.py \
	engine/run.py evaluation/evaluate.py field/layout.py ingest/ingest.py models/card.py models/model.py \
	models/registry.py simulate/fields/field.py simulate/pairs/pairset.py train/run.py)

.PHONY: demo test lint fuzz lock audit azurite clean

demo: $(VENV)/.installed
	$(BIN)/deblend-batch demo --output demo

test: lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/numpydoc lint $(DOCUMENTED)

# Altered files of every format that is read, for FUZZ_SECONDS in all; what is found goes to build/findings.
FUZZ_SECONDS ?= 120
fuzz: $(VENV)/.installed
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# After a change of constraints.txt or pyproject.toml.
lock: $(VENV)/.installed
	$(BIN)/python deploy/lock.py

# Known vulnerabilities of every pinned version, torch's too; needs a network that reaches pip-audit's database.
audit:
	$(PYTHON) -m venv .audit
	.audit/bin/pip install -q 'pip-audit>=2.10'
	.audit/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt

# The server that the tests of az:// need; they skip without it. Half a minute and 370 MB, with Node.js.
azurite:
	npm install --prefix .azurite --no-audit --no-fund azurite@3.37.0

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .audit .azurite demo build dist *.egg-info
