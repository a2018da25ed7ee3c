# paywatch: everything by one command each, on a machine with Python 3.11 and make.
# `make` lists the commands. Nothing is installed outside this directory.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH ?= all
BENCH_ARGS ?=
TAKEOVER_ARGS ?=
KILLS_ARGS ?=
CROWD_ARGS ?=
OUTAGE_ARGS ?=
SOAK_ARGS ?=
FUZZ_ARGS ?=
FUZZ := .fuzz
SEEDS ?= 0-19
SIM_ARGS ?=
PLANTED_ARGS ?=
CRASH_ARGS ?=

PIP_COMPILE := $(BIN)/pip-compile --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	--no-header --no-annotate --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check sim planted lint format docs bench takeover backfill-kills \
	crowd outage soak fuzz crash-points lock wheel clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv and install paywatch in it, every package checked by its hash

# The stamp comes last: a set-up that was broken off is begun again.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'paywatch needs Python 3.11 or newer: make PYTHON=python3.11 …' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Watch checkout sessions being paid on a simulated ledger (DEMO_ARGS=--once: three)
	$(BIN)/paywatch demo $(DEMO_ARGS)

test: $(STAMP) ## Run all tests, on an embedded PostgreSQL (TEST_ARGS='-k name')
	$(BIN)/pytest -n auto $(TEST_ARGS)

check: lint test ## What has to pass before a change is made: lint, types, layers, tests

sim: $(STAMP) ## Simulate seeds of everything that can go wrong (SEEDS=0-99 SIM_ARGS=--twice)
	PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(SEEDS) $(SIM_ARGS)

planted: $(STAMP) ## Plant wrong changes in copies, and see each caught (PLANTED_ARGS=--help)
	PYTHONPATH=tests $(BIN)/python -m planted $(PLANTED_ARGS)

lint: $(STAMP) ## Check style, types and the layers between modules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP) ## Write the pages that follow from the code and from measured figures
	$(BIN)/python docs/states.py
	PYTHONPATH=tests $(BIN)/python -m bench render

bench: $(STAMP) ## Measure all that is quick, or one (BENCH=settling BENCH_ARGS='--rounds 9 --save')
	PYTHONPATH=tests $(BIN)/python -m bench $(BENCH) $(BENCH_ARGS)

takeover: $(STAMP) ## Measure how soon another daemon leads when the leader is lost (TAKEOVER_ARGS=--help)
	PYTHONPATH=tests $(BIN)/python tests/chaos/takeover.py $(TAKEOVER_ARGS)

backfill-kills: $(STAMP) ## kill -9 backfills at 50 random points (KILLS_ARGS='--times 200 --seed 7')
	PYTHONPATH=tests $(BIN)/python tests/chaos/backfill_kills.py $(KILLS_ARGS)

crowd: $(STAMP) ## Watch 10,000 accounts on a busy network (CROWD_ARGS=--help)
	PYTHONPATH=tests $(BIN)/python -m bench.crowd $(CROWD_ARGS)

outage: $(STAMP) ## Take every Horizon away for a simulated day (OUTAGE_ARGS=--help)
	PYTHONPATH=tests $(BIN)/python tests/chaos/outage.py $(OUTAGE_ARGS)

soak: $(STAMP) ## An hour at a steady rate with faults: does anything grow? (SOAK_ARGS='--minutes 5')
	PYTHONPATH=tests $(BIN)/python tests/chaos/soak.py $(SOAK_ARGS)

fuzz: $(STAMP) $(FUZZ)/.installed ## Fuzz every parser, guided by coverage (FUZZ_ARGS='--seconds 600')
	PYTHONPATH=tests:$(FUZZ)/atheris $(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

# The fuzzer is in a directory of its own: it has wheels for Linux only, and no test needs it.
$(FUZZ)/.installed: $(STAMP) requirements/fuzz.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--upgrade --target $(FUZZ)/atheris -r requirements/fuzz.txt
	@touch $@

crash-points: $(STAMP) ## Kill, freeze and cut off the daemon at every named point (CRASH_ARGS=--help)
	PYTHONPATH=tests $(BIN)/python tests/chaos/crash_points.py $(CRASH_ARGS)

lock: $(STAMP) ## Pin the dependencies of pyproject.toml again (PIP_COMPILE_ARGS=--upgrade)
	$(PIP_COMPILE) $(PIP_COMPILE_ARGS) --extra embedded --extra dev \
		-o requirements/dev.txt pyproject.toml
	$(PIP_COMPILE) $(PIP_COMPILE_ARGS) --extra embedded -c requirements/dev.txt \
		-o requirements/run.txt pyproject.toml
	$(PIP_COMPILE) $(PIP_COMPILE_ARGS) -o requirements/fuzz.txt requirements/fuzz.in
	$(PIP_COMPILE) $(PIP_COMPILE_ARGS) -o requirements/procrastinate.txt requirements/procrastinate.in
	$(PIP_COMPILE) $(PIP_COMPILE_ARGS) --no-strip-extras -o requirements/polaris.txt requirements/polaris.in

wheel: $(STAMP) ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove .venv and whatever else these commands made
	rm -rf $(VENV) $(FUZZ) .bench dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find src tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +
