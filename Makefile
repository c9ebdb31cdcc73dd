# `make demo` and `make test` do all set-up themselves, into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Prints dots while a command prints nothing.
HEARTBEAT := $(PYTHON) packaging/heartbeat.py
TORTURE_SECONDS ?= 120
MINUTES ?= 480
FAULT_SECONDS ?= 20
# Tests wait for processes half of their time.
WORKERS ?= $(shell expr $$(nproc) \* 2)
FUZZ_ENTRIES ?= 1000000
EXPLORE_EXAMPLES ?= 1000
AGENT_FRAMES ?= 100000
FLEET_FRAMES ?= 100000
LITMUS_ROUNDS ?= 1000000
MUTANTS ?= 200
HWTESTS := hwtests/robots hwtests/systemd hwtests/realtime

.PHONY: help native demo demo-fleet test test-long test-examples test-pure sanitize lint bytecode generate hub bench bench-rt bench-link bench-fleet bench-console soak-console \
    bench-record bench-rollout check-record torture explore mutants fuzz fuzz-agent fuzz-fleet litmus faults model \
    wheels deb arm64 hwtest hwtest-long vmtest clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

native: $(BIN)/python ## Compile the Python files, and the C part of the data plane if a compiler is there (DORAD_NATIVE=1: or fail)
	@$(BIN)/python packaging/version.py >/dev/null
	@echo "Compiling the C part of the data plane, if there is a compiler and it has changed, and the Python files"
	@$(HEARTBEAT) $(BIN)/python packaging/native.py
	@$(HEARTBEAT) $(BIN)/python -m compileall -q dorad dorafleet

demo: $(VENV)/.demo native ## Find faces in a moving camera picture for ten seconds
	@echo "Running a camera, a detector and a sink for ten seconds: the first of them load libraries, then they print each second"
	$(BIN)/dora run docs/examples/vision/dataflow.yml --stop-after 10s

demo-fleet: $(VENV)/.dev native ## Run one dataflow over three robots on this machine, and cut a cable (half a minute)
	$(BIN)/python -m hwtests.demo

# Prints the ten slowest steps. PYTEST_ARGS='--durations 0' prints all: setup, call and teardown of each test.
test: $(VENV)/.dev native ## Check style, types and dependencies, and run every test but those of test-long, test-examples and hub
	@$(MAKE) --no-print-directory -j2 lint bytecode
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 10 -m 'not long and not examples' tests --ignore tests/hub $(PYTEST_ARGS)

test-long: $(VENV)/.dev native ## Run the tests of whole fleets, of builds, of long attacks, and of models in real time
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m long $$(grep -rl 'mark\.long' tests --include 'test_*.py') $(PYTEST_ARGS)

test-examples: $(VENV)/.dev native ## Run every example and the commands of every page
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m examples tests/examples tests/docs $(PYTEST_ARGS)

test-pure: export DORAD_NATIVE := 0
test-pure: $(VENV)/.dev ## Run the tests of the data plane and of nodes in pure Python
	$(BIN)/pytest -n $(WORKERS) --dist worksteal tests/shm tests/node $(PYTEST_ARGS)

sanitize: $(VENV)/.dev ## Run the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
	packaging/sanitize.sh $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Check style, types and dependency order
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Compiles the tests once for all workers while mypy uses one processor. What cannot be collected, the tests report.
bytecode: $(VENV)/.dev
	@$(BIN)/pytest -qq --collect-only tests --ignore tests/hub >/dev/null 2>&1 || true

generate: $(VENV)/.dev ## Generate what derives from other files: asyncio methods, the pages of the control API, the table of its methods, docs/house.svg
	$(BIN)/python packaging/asyncmethods.py
	$(BIN)/python packaging/house.py
	$(BIN)/python -m tests.control.reference
	$(BIN)/python -m tests.fleet.coordinator.test_method_table

hub: $(VENV)/.dev native ## Run third-party nodes from PyPI, unmodified
	$(BIN)/python -m tests.hub.environment
	$(BIN)/pytest tests/hub $(PYTEST_ARGS)

bench: $(VENV)/.dev native ## Measure beside dora 1.1.0 and iceoryx2 (about 15 minutes)
	$(BIN)/python -m hwtests.bench

bench-rt: $(VENV)/.dev ## Measure how exactly a node wakes up with and without real time (2 minutes)
	$(BIN)/python -m hwtests.realtime

bench-link: $(VENV)/.dev native ## Measure links between machines beside raw Zenoh and dora 1.1.0 (30 minutes)
	$(BIN)/python -m hwtests.link --write

bench-record: $(VENV)/.dev native ## Measure recording beside the mcap library; DORA=FOLDER also beside dora 1.1.0 (2 minutes)
	$(BIN)/python -m hwtests.record.bench $(if $(DORA),--dora $(DORA))

check-record: $(VENV)/.dev native ## Check that rerun and @mcap/core read our recordings, if they are installed
	$(BIN)/pytest -n0 hwtests/record $(PYTEST_ARGS)

bench-fleet: $(VENV)/.dev ## Measure a coordinator with 1,000 simulated robots (3 minutes)
	$(BIN)/python -m hwtests.scale --write

bench-rollout: $(VENV)/.dev ## Measure a rollout beside ansible-playbook on ten systemd robots (as root, on Debian 13, 20 minutes)
	$(BIN)/python -m hwtests.fleet.comparison --write

bench-console: $(VENV)/.dev ## Measure the console beside Textual's own widgets, and over a slow line (6 minutes)
	$(BIN)/python -m hwtests.console --write

soak-console: $(VENV)/.dev ## Use a console beside a busy fleet, and fail if it grows (MINUTES=480)
	$(BIN)/python -m hwtests.console.soak --minutes $(MINUTES)

torture: $(VENV)/.dev native ## Kill native and pure nodes at random and look for damage (TORTURE_SECONDS=120)
	$(BIN)/python -m hwtests.torture --seconds $(TORTURE_SECONDS)

explore: $(VENV)/.dev native ## Draw new examples for every property test, and more of them (EXPLORE_EXAMPLES=1000)
	EXPLORE_EXAMPLES=$(EXPLORE_EXAMPLES) $(BIN)/pytest -n $(WORKERS) --dist worksteal \
	    $$(grep -rlE '@given|RuleBasedStateMachine' tests --include 'test_*.py') $(PYTEST_ARGS)

# MUTANTS_ARGS='--seed 7' repeats a run; `python -m hwtests.mutants --help` names all options.
mutants: $(VENV)/.dev native ## Change the pure cores in one place each, and count the changes that their tests notice (MUTANTS=200, a quarter of an hour)
	$(BIN)/python -m hwtests.mutants --count $(MUTANTS) --jobs $$(nproc) $(MUTANTS_ARGS)

fuzz: $(VENV)/.dev native ## Let native and pure receivers read random entries, and compare them (FUZZ_ENTRIES=1000000)
	$(BIN)/python -m hwtests.fuzz --entries $(FUZZ_ENTRIES)

fuzz-agent: $(VENV)/.dev ## Send random frames to an agent (AGENT_FRAMES=100000)
	AGENT_FRAMES=$(AGENT_FRAMES) $(BIN)/pytest tests/agent/test_hostile.py -k random

fuzz-fleet: $(VENV)/.dev ## Send random frames to a coordinator: as a stranger, a client and a robot (FLEET_FRAMES=100000 each)
	FLEET_FRAMES=$(FLEET_FRAMES) $(BIN)/pytest tests/fleet/coordinator/test_hostile_robots.py tests/fleet/coordinator/test_serve.py -k random

litmus: $(VENV)/.dev ## Look for the reorderings that the data plane's fences forbid (needs gcc and 2 processors)
	$(BIN)/python -m hwtests.litmus --rounds $(LITMUS_ROUNDS)

faults: $(VENV)/.dev native ## Inflict faults on running dataflows and look for damage (FAULT_SECONDS=20 each)
	$(BIN)/python -m hwtests.faults --seconds $(FAULT_SECONDS)

wheels: $(BIN)/python ## Build a wheel with the C part and one of pure Python into dist/
	DORAD_NATIVE=1 $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	DORAD_NATIVE=0 $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

deb: ## Build the Debian packages into dist/
	packaging/deb.sh

arm64: ## Build the packages for arm64 and try them under emulation (as root, on Debian 13, an hour)
	packaging/arm64.sh

hwtest: $(VENV)/.dev ## Try the package and real time on systemd robots (as root, on Debian 13)
	$(BIN)/pytest -n0 --timeout 600 -rsP $(HWTESTS) $(PYTEST_ARGS)

hwtest-long: export HWTEST_LONG := 1
hwtest-long: HWTESTS += hwtests/fleet
hwtest-long: hwtest ## The same with fleets, 50 power cuts, half an hour of rollouts under faults, and more of all else (two hours)

vmtest: $(VENV)/.dev ## See the limits of nodes hold, and recordings survive power cuts, on a virtual machine (as root, 15 minutes; an hour with POWER_CUTS=20)
	$(BIN)/pytest -n0 --timeout 1800 -rsP hwtests/machine

model: ## Check the data plane's protocol exhaustively (needs spin and gcc)
	$(PYTHON) -m hwtests.model.run

clean: ## Remove what these targets made
	rm -rf dorad/shm/native/_native.abi3.so build/native build/sanitize $(VENV) .venv-hub .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get -qq update && apt-get -qq install -y python3-venv; \
	    else echo "Python's venv module is missing; install it: sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@echo "Creating the virtual environment $(VENV)"
	$(HEARTBEAT) $(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing dorad and what the demonstration needs into $(VENV); the first time that takes a minute or two"
	$(HEARTBEAT) $(BIN)/pip install --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing dorad and what its tests need into $(VENV); the first time that takes a few minutes"
	$(HEARTBEAT) $(BIN)/pip install --disable-pip-version-check --editable '.[demo,dev,fleet]'
	@touch $@ $(VENV)/.demo
