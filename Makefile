# What has to hold before a change goes in; CI runs the same.
.PHONY: check test style types coverage reference

# Tests beside each other: each takes one core and up to 1 GB.
WORKERS ?= 2

check: style types test

test:
	pytest -n $(WORKERS) --dist worksteal

style:
	ruff check .
	ruff format --check .

types:
	mypy

# Which lines no test reaches. The tests' own processes count, whatever folder they run in.
coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage:
	coverage erase
	coverage run -m pytest -n $(WORKERS) --dist worksteal
	coverage combine
	coverage report

# docs/reference.md, from the signatures.
reference:
	python docs/make_reference.py
