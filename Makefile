# make demo: install, then encode, decode and convert a bundled sample.
# make test: install with the tools for development, then run every test.
# make docs: build the documentation into site/; a broken link or reference is an error.
# make web: build the page that works in a browser into web/dist; needs Node.js and npm.
# make examples: draw the figures of docs/examples anew, in minutes; -j2 uses two cores.
# make lock: after make test, choose anew the versions that both install.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs web examples lock samples clean

demo: $(VENV)/.installed
	$(BIN)/python samples/demo.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/zensical build --strict --clean

web: $(VENV)/.installed-dev web/node_modules/.package-lock.json
	$(BIN)/python tools/web.py

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	npm ci --prefix web --ignore-scripts --no-audit --no-fund
	touch $@

samples: $(VENV)/.installed
	$(BIN)/python samples/make_samples.py

EXAMPLES := $(filter-out examples/common.py,$(wildcard examples/*.py))
.PHONY: $(EXAMPLES)

examples: $(EXAMPLES)

$(EXAMPLES): $(VENV)/.installed-dev
	$(BIN)/python $@

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
	--custom-compile-command 'make lock' pyproject.toml -
BUILD = $(BIN)/python -c \
	"import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'])"

lock:
	$(BUILD) | $(COMPILE) --extra dev --output-file requirements/dev.txt
	$(BUILD) | $(COMPILE) --constraint requirements/dev.txt --output-file requirements/base.txt

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/pip pyproject.toml requirements/base.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/base.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-dev: $(BIN)/pip pyproject.toml requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info demo site .cache web/dist web/node_modules
