# Commands on a fresh machine with Python 3.11 or newer: `make try`, `make demo` and `make test`.
PYTHON ?= python3
CHECKS = .venv-test
DEMO = .venv-demo
TRY = .venv-try

.PHONY: try demo test clean

try: $(TRY)/installed  ## Segment a grown glioma with a model of the package, without torch, into first/
	$(TRY)/bin/python examples/first_minute.py first

demo: $(DEMO)/installed  ## Grow phantoms, train on them, segment unseen ones, score them and draw them, into demo/
	$(DEMO)/bin/python examples/demo.py demo

test: $(CHECKS)/installed  ## Style, types, tests and doctests
	$(CHECKS)/bin/ruff check .
	$(CHECKS)/bin/ruff format --check .
	$(CHECKS)/bin/mypy
	$(CHECKS)/bin/pytest -q

$(TRY)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TRY)
	$(TRY)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train]'
	touch $@

$(CHECKS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(CHECKS)
	$(CHECKS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(TRY) $(DEMO) $(CHECKS) first demo build dist
