# `make check` must pass before a change is merged; CI runs it, and then `make slow`.
.PHONY: quick check slow test style types coverage docs linkcheck pretrained options

# Number of parallel test processes: each needs one core and up to 1 GB.
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
	$(PYTEST) -m slow --durations=40

style:
	ruff check .
	ruff format --check .

types:
	mypy

# List the lines that no test reaches. Processes that tests start are measured in any directory.
coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage:
	coverage erase
	coverage run -m $(PYTEST)
	coverage combine
	coverage report

# Build the documentation site. A warning, such as a broken internal link or anchor, is an error.
docs:
	python -m sphinx -W --keep-going -c docs . build/docs/html
	@echo "Open build/docs/html/docs/index.html"

# Check the external links of the documents. It needs the internet, so `make docs` and CI omit it.
linkcheck:
	python -m sphinx -W --keep-going -b linkcheck -c docs . build/docs/linkcheck

# Train the pretrained network, and make the files that depend on it. DATA is a folder with MNIST.
DATA ?= data
pretrained:
	python docs/pretrained.py --data_dir $(DATA)
	python docs/screenshots.py --data_dir $(DATA)
	python docs/animation.py --data_dir $(DATA)

# List all options, for help, completion and early errors, after a change of a parser.
options:
	python -m mnist_lightning.cli.list_options
