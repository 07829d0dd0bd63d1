# Commands on a fresh machine with Python 3.11 or newer: `make demo`, `make learn` and `make test`.
PYTHON ?= python3
CASE ?= examples/glioma
CHECKS = .venv-test
DEMO = .venv-demo
LEARN = .venv-learn

.PHONY: demo learn test clean

demo: $(DEMO)/installed  ## Segment a grown glioma, or CASE=folder, with a model of the package, without torch, into demo/
	$(DEMO)/bin/python examples/demo.py demo "$(CASE)"

learn: $(LEARN)/installed  ## Grow phantoms, train on them, segment unseen ones, score them and draw them, into learnt/
	$(LEARN)/bin/python examples/learn.py learnt

test: $(CHECKS)/installed  ## Style, types, tests and doctests
	$(CHECKS)/bin/ruff check .
	$(CHECKS)/bin/ruff format --check .
	$(CHECKS)/bin/mypy
	$(CHECKS)/bin/pytest -q

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(LEARN)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LEARN)
	$(LEARN)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train]'
	touch $@

$(CHECKS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(CHECKS)
	$(CHECKS)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(DEMO) $(LEARN) $(CHECKS) demo learnt build dist
