# `make demo` and `make test` do everything on a fresh machine; both make .venv first if it is not there.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Tests of a group, which share what is expensive, go to one process (tests/conftest.py); the groups that take longest
# begin first. Tests of Ray often wait: one process more than two cores is faster, more would make them late.
PROCESSES ?= 3
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

.PHONY: demo lint docs quick test test-long coverage
demo: $(INSTALLED)
	$(BIN)/deepmlf search

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

# The site, build/site/index.html: any warning fails, and no page of it asks a network.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# No Ray, no browser, no server.
quick: $(INSTALLED)
	$(PYTEST) -m "not (slow or ray or cluster or browser or server or long)"

test: lint
	$(PYTEST) -m "not long"

test-long: $(INSTALLED)
	$(PYTEST) -m long

coverage: $(INSTALLED)
	$(PYTEST) -m "not long" --cov --cov-report=term
