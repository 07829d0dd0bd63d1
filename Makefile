# Two commands on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
CHECKS = .venv-test
DEMO = .venv-demo

.PHONY: demo test clean

demo: $(DEMO)/installed  ## Grow phantoms, train on them, segment unseen ones, score them and draw them, into demo/
	$(DEMO)/bin/python examples/demo.py demo

test: $(CHECKS)/installed  ## Style, types, tests and doctests
	$(CHECKS)/bin/ruff check .
	$(CHECKS)/bin/ruff format --check .
	$(CHECKS)/bin/mypy
	$(CHECKS)/bin/pytest -q

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train]'
	touch $@

$(CHECKS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(CHECKS)
	$(CHECKS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(DEMO) $(CHECKS) demo build dist
