# make demo and make test need Python 3.11 or newer, pip and make; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVICE ?= cpu
BENCHMARKS ?= $(patsubst benchmarks/bench_%.py,%,$(wildcard benchmarks/bench_*.py))

# The networks of the tests are so small that a second thread costs more than it brings.
ONE := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install demo test quick faults fuzz docs bench bench-check format clean

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

install: $(INSTALLED) ## Create .venv from pinned versions, if it is missing or outdated

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("upi needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[cli,zoo,pretrained,transformers,explainers,dev]'
	touch $@

demo: $(INSTALLED) ## Train a digit classifier, audit its explanations, write runs/demo/report.html
	$(BIN)/upi demo --out runs/demo --force

test: $(INSTALLED) ## Lint, check types, build the documentation, run the whole test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build
	$(ONE) $(BIN)/python -m pytest

quick: $(INSTALLED) ## Lint, check types, run the tests of modules that are quick
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(ONE) $(BIN)/python -m pytest -q -m "not slow"

faults: $(INSTALLED) ## Kill runs a hundred times, fill disks, send signals (half an hour)
	UPI_KILLS=100 $(BIN)/python -m pytest -q tests/faults

FUZZ ?= perturbation subspace classifier hardened weights safe-weights state audit-toml sweep-toml audit-json metrics config entry picture parquet
RUNS ?= 1000000
fuzz: $(INSTALLED) ## Feed every reader a million broken files (RUNS=), guided by coverage (hours)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[fuzz]'
	for name in $(FUZZ); do $(BIN)/python -m tests.fuzz $$name -runs=$(RUNS) -timeout=2 -rss_limit_mb=4096 || exit 1; done

docs: $(INSTALLED) ## Build the documentation, docs/_build/index.html
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

bench: $(INSTALLED) ## Measure speed and memory beside the alternatives (half an hour), write docs/benchmarks.md
	mkdir -p benchmarks/results/$(DEVICE)
	for name in $(BENCHMARKS); do $(BIN)/python -m pytest benchmarks/bench_$$name.py -o python_files='bench_*.py' \
		-o filterwarnings=default -p no:cacheprovider -q --device $(DEVICE) \
		--benchmark-json=benchmarks/results/$(DEVICE)/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.tables

bench-check: $(INSTALLED) ## Name what became slower than the kept ratios by more than 10 % (a minute)
	$(BIN)/python -m benchmarks.check

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove .venv and caches, keep runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build
