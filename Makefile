# make course   set up, run every notebook, report times        make lab    JupyterLab on your own copies
# make test     lint, unit tests, notebooks                     make test-all   everything, everywhere
# make notebooks   execute and store all notebooks              make site   the course as web pages, in site/
# make clean    remove what can be made again, not models       make test-browser   notebooks in JupyterLab, pages
# make test-oldest   unit tests with the oldest packages that are allowed
#
# Each target first sets up what it needs: in an active conda or virtual environment it installs there,
# otherwise it makes .venv. PYTHON=python3.12 chooses the interpreter that .venv is made from.

PYTHON ?= python3
ENVIRONMENT := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
BIN := $(ENVIRONMENT)/bin
# The environment is up to date when it was last set up from this folder with this pyproject.toml.
STAMP := $(ENVIRONMENT)/.edm_lesson
WANTED := $(CURDIR) $(shell cksum < pyproject.toml)
VERSION := -c "import sys; print('%d.%d' % sys.version_info[:2])"
PYTEST := "$(BIN)/python" -m pytest -n 2

# Two processes that compute at once must not spin for each other's cores.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help setup course lab site notebooks lint unit nbval test test-browser test-oldest test-installed test-devices test-all clean

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

setup:
	@if [ ! -x "$(BIN)/python" ]; then \
		if [ -n "$(VIRTUAL_ENV)$(CONDA_PREFIX)" ]; then \
			echo "The active environment, $(ENVIRONMENT), has no Python. Install one there, or deactivate it."; exit 1; \
		fi; \
		rm -f "$(BIN)"/python* "$(STAMP)"; \
		"$(PYTHON)" -m venv "$(ENVIRONMENT)" || exit 1; \
	fi
ifeq ($(origin PYTHON),command line)
	@asked=$$("$(PYTHON)" $(VERSION)) && there=$$("$(BIN)/python" $(VERSION)) || exit 1; \
	if [ "$$asked" != "$$there" ]; then \
		echo "$(ENVIRONMENT) has Python $$there, not $$asked as PYTHON=$(PYTHON) asks."; \
		echo "Remove .venv (or deactivate the environment), and another is made."; exit 1; \
	fi
endif
	@if [ "$$(cat "$(STAMP)" 2>/dev/null)" != "$(WANTED)" ] || [ ! -x "$(BIN)/edm-lesson" ]; then \
		echo "Setting up $(ENVIRONMENT) (a few minutes the first time)"; \
		if ! "$(BIN)/python" -m pip --version >/dev/null 2>&1 && ! "$(BIN)/python" -m ensurepip; then \
			echo "$(ENVIRONMENT) has no pip, and its Python brings none. Remove it, install what Python needs for venv"; \
			echo "(Debian: sudo apt-get install python3-venv), and try again."; exit 1; \
		fi; \
		"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e ".[notebooks,test]" \
		&& echo "$(WANTED)" > "$(STAMP)"; \
	fi

course: setup
	"$(BIN)/edm-lesson" course $(ARGS)

lab: setup
	"$(BIN)/edm-lesson" lab $(ARGS)

# The course and the API as web pages. They need no PyTorch, hence an environment of their own.
DOCS := .venv-docs/bin
site:
	@if [ "$$(cat .venv-docs/.edm_lesson 2>/dev/null)" != "$(WANTED)" ]; then \
		"$(PYTHON)" -m venv --clear .venv-docs \
		&& $(DOCS)/python -m pip install --quiet --disable-pip-version-check --upgrade pip \
		&& $(DOCS)/python -m pip install --quiet --group docs \
		&& echo "$(WANTED)" > .venv-docs/.edm_lesson; \
	fi
	rm -rf site
	$(DOCS)/python -m sphinx --fail-on-warning --keep-going --quiet docs site
	@rm -rf jupyter_execute # MyST-NB's copies
	@echo "Open site/index.html in a browser"

notebooks: setup
	"$(BIN)/edm-lesson" course --store $(ARGS)

lint: setup
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

unit: setup
	$(PYTEST) tests

# Strict: every stored output is compared with a fresh run, and every slider moved. A file's cells stay in one process;
# two kernels at a time, with a thread each.
nbval: setup
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(PYTEST) --dist loadfile --nbval --nbval-current-env -p moving_sliders -p no:cacheprovider notebooks

test: lint unit nbval
	"$(BIN)/edm-lesson" course --only 00,07

# All notebooks in JupyterLab in Chromium, or ONLY=00,02, and the pages; CHROMIUM=path chooses another browser.
# Screenshots: runs/browser.
CHROMIUM ?= $(shell command -v chromium || command -v google-chrome)
BROWSER := chromium fonts-dejavu-core
test-browser: setup site
	@"$(BIN)/python" -c "import playwright" 2>/dev/null \
		|| "$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e ".[browser]"
	@if [ -n "$(CHROMIUM)" ] && [ -n "$$(fc-list 2>/dev/null)" ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get -qq update && apt-get -qq install --no-install-recommends $(BROWSER); \
	else \
		echo "The browser tests need Chromium and a font. Debian: sudo apt-get install $(BROWSER)."; \
		echo "Elsewhere: install Chromium or Chrome, and make test-browser CHROMIUM=/its/path."; \
		exit 1; \
	fi
	CHROMIUM="$(CHROMIUM)" "$(BIN)/python" -m pytest tests/browser $(if $(ONLY),--only $(ONLY))

# The unit tests with the lower bounds of pyproject.toml, in an environment of their own that is made anew.
OLDEST ?= python3.11
OLD := .venv-oldest/bin
test-oldest:
	"$(OLDEST)" -m venv --clear .venv-oldest
	$(OLD)/python -m pip install --quiet --disable-pip-version-check uv
	$(OLD)/uv pip install --quiet --python $(OLD)/python --resolution lowest-direct -e ".[notebooks,test]"
	$(OLD)/python -m pytest -n 2 $(or $(TESTS),tests)

# The wheel where there is no repository, and notebooks on something like Colab: in environments made for it.
test-installed: setup
	"$(BIN)/python" -m pytest -m installs tests

# Notebooks where the best device is another than the CPU: a stand-in, which refuses what a GPU refuses.
test-devices: setup
	$(PYTEST) -m devices tests

test-all: lint unit nbval test-installed test-devices
	"$(BIN)/edm-lesson" course
	$(MAKE) test-browser

clean:
	rm -rf runs/course runs/browser site build dist docs/api docs/data docs/notebooks docs/README.md
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@if [ -d runs ]; then echo "What else is in runs, such as trained models, is yours to remove."; fi
