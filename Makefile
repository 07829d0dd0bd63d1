# Commands on a fresh machine with Python 3.11 or newer. Each makes the virtual environment that it needs.
PYTHON ?= python3
CASE ?= examples/glioma
WORKERS ?= 2
CHECKS = .venv-test
DEMO = .venv-demo
LEARN = .venv-learn
LOWEST = .venv-lowest
DOCS = .venv-docs
BILL = .venv-sbom
PIP = bin/pip install --quiet --disable-pip-version-check
PYTEST = $(CHECKS)/bin/pytest -q -n $(WORKERS) --dist loadfile --max-worker-restart 0

.PHONY: help demo learn test test-fast nightly test-lowest judges judges-install coverage lint tables docs sbom audit wheel clean

help:  ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

demo: $(DEMO)/installed  ## Segment a simulated glioma, or CASE=folder, with a model of the package, without torch, into demo/
	$(DEMO)/bin/python examples/demo.py demo "$(CASE)"

learn: $(LEARN)/installed  ## Simulate phantoms, train on them, segment unseen ones, score and draw them, into learnt/
	$(LEARN)/bin/python examples/learn.py learnt

test: lint  ## Style, types, and all tests and doctests but the random ones of nightly
	$(PYTEST) -m "not nightly"

test-fast: $(CHECKS)/installed  ## What plain pytest runs: everything but the slow tests
	$(CHECKS)/bin/pytest -q

nightly: $(CHECKS)/installed  ## Random seeds, and property-based tests with many examples
	$(PYTEST) -m "nightly or hypothesis" --hypothesis-profile=nightly

test-lowest: $(LOWEST)/installed  ## What needs no torch, with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/pytest -q -m "not nightly"

judges: $(CHECKS)/installed  ## Compare the scores of evaluate with other tools; those that are not installed are counted
	$(CHECKS)/bin/pytest -q -m "not nightly" tests/judges

judges-install: $(CHECKS)/installed  ## Install these tools, each into an environment of its own in .venv-judges
	PYTHONPATH=tools $(CHECKS)/bin/python -m judges

coverage: $(CHECKS)/installed  ## As test, without style and types; fails below 90 % of the lines
	$(PYTEST) -m "not nightly" --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(CHECKS)/installed  ## Style, types, and the workflows against their schema
	$(CHECKS)/bin/ruff check .
	$(CHECKS)/bin/ruff format --check .
	$(CHECKS)/bin/mypy
	$(CHECKS)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(CHECKS)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml

tables: $(DOCS)/installed  ## Fill in the generated tables and the command line page
	$(DOCS)/bin/python -m documents

docs: $(DOCS)/installed  ## Build the site into site/; open site/index.html, no server needed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

audit: $(LEARN)/installed $(BILL)/installed  ## Look up known faults of the libraries for training; needs the network
	$(BILL)/$(PIP) pip-audit
	$(BILL)/bin/pip-audit --path "$$($(LEARN)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

wheel:  ## Build the wheel into dist/, install it into a fresh environment and segment with it
	$(PYTHON) tools/smoke.py dist

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/$(PIP) --constraint constraints.txt --editable .
	touch $@

$(LEARN)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LEARN)
	$(LEARN)/$(PIP) --constraint constraints.txt --editable '.[train]'
	touch $@

$(CHECKS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(CHECKS)
	$(CHECKS)/$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DOCS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/$(PIP) --constraint constraints.txt --editable '.[docs]'
	touch $@

$(BILL)/installed: $(DEMO)/installed
	$(PYTHON) -m venv $(BILL)
	$(BILL)/$(PIP) cyclonedx-bom
	touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/$(PIP) --constraint constraints-lowest.txt --editable '.[test]'
	touch $@

sbom: $(BILL)/installed  ## List the libraries of an install for segmenting, in CycloneDX, into dist/brainsegnet.cdx.json
	mkdir -p dist
	$(BILL)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file dist/brainsegnet.cdx.json $(DEMO)/bin/python

clean:  ## Remove what these commands made
	rm -rf $(DEMO) $(LEARN) $(CHECKS) $(LOWEST) $(DOCS) $(BILL) .venv-judges demo learnt build dist site .coverage
