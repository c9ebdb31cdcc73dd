# `make demo` and `make test` do all set-up themselves, into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Prints dots while a command prints nothing.
HEARTBEAT := $(PYTHON) packaging/heartbeat.py
TORTURE_SECONDS ?= 120
MINUTES ?= 480
ROBOTS ?= 5
FAULT_SECONDS ?= 20
# Tests wait for processes half of their time.
WORKERS ?= $(shell expr $$(nproc) \* 2)
# They have targets of their own, since they need a browser, ROS 2 or nodes from PyPI.
WITHOUT_PEERS := --ignore tests/hub --ignore tests/browser --ignore tests/ros2_peers
FUZZ_ENTRIES ?= 1000000
EXPLORE_EXAMPLES ?= 1000
AGENT_FRAMES ?= 100000
FLEET_FRAMES ?= 100000
LITMUS_ROUNDS ?= 1000000
MUTANTS ?= 200
SANITIZE_TESTS ?= tests/shm tests/node tests/libdora
# Robots wait for each other and for deadlines half of their time.
HWTEST_WORKERS ?= 2
HWTESTS := hwtests/robots hwtests/systemd hwtests/realtime

.PHONY: help native native-node demo demo-fleet robots gate nightly steady test test-long test-examples test-pure test-unsteady sanitize lint bytecode generate browser hub ros2 ros2-part bench bench-rt bench-link bench-fleet bench-newcomer bench-console soak-console \
    bench-observe bench-record bench-rollout bench-ros2 check-record check-stepping torture explore mutants fuzz fuzz-agent fuzz-fleet litmus faults model \
    wheels check-wheels docs deb apt-repo arm64 hwtest hwtest-long hwtest-alone robot vmtest clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

native: $(BIN)/python ## Compile the Python files, and the C part of the data plane if a compiler is there (DORAD_NATIVE=1: or fail)
	@$(BIN)/python packaging/version.py >/dev/null
	@echo "Compiling the C part of the data plane, if there is a compiler and it has changed, and the Python files"
	@$(HEARTBEAT) $(BIN)/python packaging/native.py
	@$(HEARTBEAT) $(BIN)/python -m compileall -q dorad dorafleet

native-node: ## Build libdora_node, for nodes in C and C++, into build/native-node (PREFIX=FOLDER)
	@$(PYTHON) packaging/nodelib.py $(if $(PREFIX),--output $(PREFIX))

demo: $(VENV)/.demo native ## Find faces in a moving camera picture for ten seconds
	@echo "Running a camera, a detector and a sink for ten seconds: the first of them load libraries, then they print each second"
	$(BIN)/dora run docs/examples/vision/dataflow.yml --env FRAMES=300

demo-fleet: $(VENV)/.fleet native ## Run one dataflow over three robots on this machine, and cut a cable (half a minute)
	$(BIN)/python -m hwtests.demo

robots: $(VENV)/.fleet native ## Boot robots as containers, and open a shell in their network (on Debian 13, as root or with sudo; ROBOTS=5)
	$(if $(filter-out 0,$(shell id -u)),sudo) $(BIN)/python -B -m hwtests.robots $(ROBOTS)

gate: ## Run what a change must pass, with a second look at tests that failed (25 minutes; as root, on Debian 13; SUITES='test pure')
	@$(PYTHON) -m hwtests.suites gate $(SUITES)

nightly: ## Run what takes longer, is random, or needs a quiet machine (3 hours; as root, on Debian 13; RESUME=1 goes on with the last one)
	@$(PYTHON) -m hwtests.suites nightly $(if $(RESUME),--resume) $(SUITES)

steady: $(VENV)/.dev native ## Run the tests that differ from a commit ten times, on a busy machine with a slow disk (BASE=COMMIT, ALL=1 for all tests)
	$(BIN)/python -m hwtests.suites.steady $(if $(ALL),--all) $(if $(BASE),--base $(BASE)) $(PYTEST_ARGS)

# Prints the ten slowest steps. PYTEST_ARGS='--durations 0' prints all: setup, call and teardown of each test.
# Its tests wait more than others.
test: WORKERS := $(shell expr $$(nproc) \* 3)
test: $(VENV)/.dev native ## Check style, types and dependencies, and run every test but those of test-long, test-examples, browser, hub and ros2
	@$(MAKE) --no-print-directory -j2 lint bytecode
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 10 -m 'not long and not examples and not unsteady' tests $(WITHOUT_PEERS) $(PYTEST_ARGS)

test-long: $(VENV)/.dev native ## Run the tests of five seconds and more: whole fleets, several daemons, real releases, builds, long attacks, models
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 40 -m 'long and not unsteady' $$(grep -rl 'mark\.long' tests --include 'test_*.py') $(PYTEST_ARGS)

test-examples: $(VENV)/.dev native ## Run every example and the commands of every page
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m 'examples and not unsteady' tests/examples tests/docs $(PYTEST_ARGS)

test-pure: export DORAD_NATIVE := 0
test-pure: $(VENV)/.dev ## Run the tests of the data plane and of nodes in pure Python
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m 'not unsteady' tests/shm tests/node $(PYTEST_ARGS)

# Code 5: none is marked.
test-unsteady: $(VENV)/.dev native ## Run the tests that are marked unsteady: they fail now and then, and each says why
	$(BIN)/pytest -n0 -m unsteady -rA tests $(WITHOUT_PEERS) $(PYTEST_ARGS) || [ $$? = 5 ]

sanitize: $(VENV)/.dev ## Run the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
	packaging/sanitize.sh $(SANITIZE_TESTS) $(PYTEST_ARGS)

lint: $(VENV)/.dev ## Check style, types and dependency order
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Compiles the tests once for all workers while mypy uses one processor. What cannot be collected, the tests report.
bytecode: $(VENV)/.dev
	@$(BIN)/pytest -qq --collect-only tests $(WITHOUT_PEERS) >/dev/null 2>&1 || true

generate: $(VENV)/.dev ## Generate what derives from other files: the pages of the control API, the table of its methods, docs/house.svg
	$(BIN)/python packaging/house.py
	$(BIN)/python -m tests.control.reference
	$(BIN)/python -m tests.fleet.coordinator.test_method_table

browser: $(VENV)/.dev native docs ## Run the tests of pages, also of the documentation, in Chromium, which must be installed (a minute)
	@command -v chromium >/dev/null || { echo "chromium is missing; install it: sudo apt-get install chromium" >&2; exit 1; }
	$(BIN)/pytest -n2 -m 'not unsteady' tests/browser $(PYTEST_ARGS)

hub: $(VENV)/.dev native ## Run third-party nodes from PyPI, unmodified
	$(BIN)/python -m tests.hub.environment
	$(BIN)/pytest -m 'not unsteady' tests/hub $(PYTEST_ARGS)

ros2: $(VENV)/.dev native ## Run the bridge to ROS 2 beside real nodes of ROS 2 from PyPI (x86-64)
	$(BIN)/python -m tests.ros2_peers.environment
	$(BIN)/pytest -n 2 --dist worksteal $(if $(ROS2_TESTS),$(ROS2_TESTS),tests/ros2_peers) $(PYTEST_ARGS)

ros2-part: ROS2_TESTS := -m 'not unsteady' $(addprefix tests/ros2_peers/,test_topics.py test_services.py test_classes.py test_class_calls.py test_codecs.py)
ros2-part: ros2 ## Run a part of it, of two minutes

bench: $(VENV)/.dev native ## Measure beside dora 1.1.0 and iceoryx2 (about 15 minutes)
	$(BIN)/python -m hwtests.bench

bench-rt: $(VENV)/.dev ## Measure how exactly a node wakes up with and without real time (2 minutes)
	$(BIN)/python -m hwtests.realtime

bench-link: $(VENV)/.dev native ## Measure links between machines beside raw Zenoh and dora 1.1.0 (30 minutes)
	$(BIN)/python -m hwtests.link --write

bench-record: $(VENV)/.dev native ## Measure recording beside the mcap library; DORA=FOLDER also beside dora 1.1.0 (2 minutes)
	$(BIN)/python -m hwtests.record.bench $(if $(DORA),--dora $(DORA))

check-record: $(VENV)/.dev native ## Check that rerun, @mcap/core and LeRobot read what we write, if they are installed, what messages of 1.5 GB take, and 400 recorders that leave (30 minutes)
	$(BIN)/pytest -n0 hwtests/record $(PYTEST_ARGS)

check-stepping: $(VENV)/.dev native ## Replay 200 random dataflows step by step 20 times each, beside busy loops (4 hours)
	$(BIN)/python -m hwtests.record.stepping $(STEPPING_ARGS)

bench-observe: $(VENV)/.dev native ## Measure what hop records, traces, metrics and log lines cost (2 minutes)
	$(BIN)/python -m hwtests.observe.bench --write

bench-ros2: $(VENV)/.dev native ## Measure the bridge to ROS 2 beside rclpy (5 minutes, x86-64)
	$(BIN)/python -m hwtests.ros2.bench --write

bench-fleet: $(VENV)/.dev ## Measure a coordinator with 1,000 simulated robots (3 minutes)
	$(BIN)/python -m hwtests.scale --write

bench-rollout: $(VENV)/.dev ## Measure a rollout beside ansible-playbook on ten systemd robots (as root, on Debian 13, 20 minutes)
	$(BIN)/python -m hwtests.fleet.comparison --write

bench-newcomer: $(VENV)/.dev ## Follow README and tutorial on a bare Debian 13, with five robots, and time each page (as root, on Debian 13, an hour)
	$(BIN)/python -m hwtests.newcomer

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

# ziglang compiles for both architectures, with symbols of glibc 2.28 and older.
wheels: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
wheels: $(BIN)/python ## Build wheels with the C part for amd64 and arm64, one of pure Python, and the sources into dist/
	rm -f dist/dorad-*.whl dist/dorad-*.tar.gz
	@mkdir -p build
	@echo "Installing a compiler for both architectures into $(VENV); the first time that fetches 100 MB"
	@$(HEARTBEAT) $(BIN)/pip install --quiet --disable-pip-version-check build ziglang
	@for target in x86_64 aarch64; do \
	    echo "Building the wheel for $$target"; \
	    DORAD_NATIVE=1 CC="$(CURDIR)/$(BIN)/python -m ziglang cc -target $$target-linux-gnu.2.28 -s" \
	        $(BIN)/python -m build --wheel --outdir dist . >build/wheels.log || { tail -20 build/wheels.log; exit 1; }; \
	done
	@echo "Building the wheel of pure Python, and the sources"
	@DORAD_NATIVE=0 $(BIN)/python -m build --wheel --outdir dist . >build/wheels.log || { tail -20 build/wheels.log; exit 1; }
	@$(BIN)/python -m build --sdist --outdir dist . >build/wheels.log || { tail -20 build/wheels.log; exit 1; }
	@ls -1s --block-size=KiB dist/dorad-*

check-wheels: $(VENV)/.dev ## Install the wheels in dist/ with each Python of this machine, by pip and uv (needs PyPI, 5 minutes)
	$(BIN)/pytest -n0 --timeout 900 -rs hwtests/wheels $(PYTEST_ARGS)

docs: $(VENV)/.dev ## Build the documentation as a site into build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file packaging/site/mkdocs.yml
	@echo build/site/index.html

deb: ## Build the Debian packages into dist/
	packaging/deb.sh

apt-repo: ## Lay out a signed apt repository of the packages in dist/ into dist/apt (APT_KEY=FINGERPRINT)
	packaging/apt-repo.sh

arm64: ## Build the packages for arm64 and try them under emulation (as root, on Debian 13, an hour)
	packaging/arm64.sh

hwtest: $(VENV)/.dev native ## Try the package and real time on systemd robots (as root, on Debian 13)
	$(BIN)/pytest -n $(HWTEST_WORKERS) --dist loadfile --timeout 600 -rsP -m 'not alone' $(HWTESTS) $(PYTEST_ARGS)

hwtest-alone: $(VENV)/.dev native ## Measure whether nodes wake up in time with real time; nothing else may run
	$(BIN)/pytest -n0 --timeout 600 -rsP -m alone hwtests/realtime $(PYTEST_ARGS)

robot: $(VENV)/.dev native ## On one robot, install the package, run a dataflow, upgrade and remove it (as root, on Debian 13)
	$(BIN)/pytest -n $(HWTEST_WORKERS) --timeout 600 -rs -m robot hwtests/systemd $(PYTEST_ARGS)

hwtest-long: export HWTEST_LONG := 1
hwtest-long: HWTEST_WORKERS := 1
hwtest-long: HWTESTS += hwtests/fleet
hwtest-long: hwtest ## The same with fleets, 50 power cuts, half an hour of rollouts under faults, and more of all else (two hours)

vmtest: $(VENV)/.dev ## See the limits of nodes hold, and recordings survive power cuts, on a virtual machine (as root, 15 minutes; an hour with POWER_CUTS=20)
	$(BIN)/pytest -n0 --timeout 1800 -rsP hwtests/machine

model: ## Check the data plane's protocol exhaustively (needs spin and gcc)
	$(PYTHON) -m hwtests.model.run

clean: ## Remove what these targets made
	rm -rf dorad/shm/native/_native.abi3.so build/native build/native-node build/sanitize $(VENV) .venv-hub .venv-peers .venv-ros2* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

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

$(VENV)/.fleet: pyproject.toml | $(BIN)/python
	@echo "Installing dorad and what a fleet needs into $(VENV); the first time that takes a minute or two"
	$(HEARTBEAT) $(BIN)/pip install --disable-pip-version-check --editable '.[agent,demo,fleet,link]'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing dorad and what its tests need into $(VENV); the first time that takes a few minutes"
	$(HEARTBEAT) $(BIN)/pip install --disable-pip-version-check --editable '.[demo,dev,fleet]'
	@touch $@ $(VENV)/.demo $(VENV)/.fleet
