# Checks before a change is merged. CI runs `make check` and `make slow`.
.PHONY: quick check slow test style types coverage reference

# The number of test processes: each takes one core and up to 1 GB.
WORKERS ?= 2
PYTEST = pytest -n $(WORKERS) --dist worksteal

# While you work: without tests that train, start processes or open a browser.
quick:
	ruff check .
	$(PYTEST) -m "not slow and not commands"

check: style types test

test:
	$(PYTEST) -m "not slow"

slow:
	$(PYTEST) -m slow

style:
	ruff check .
	ruff format --check .

types:
	mypy

# Which lines no test reaches. The tests' own processes count, whatever folder they run in.
coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage:
	coverage erase
	coverage run -m $(PYTEST)
	coverage combine
	coverage report

# docs/reference.md, from the signatures.
reference:
	python docs/make_reference.py
