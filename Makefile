# What people and CI run. Needs Rust, make and a C compiler; installs the rest by itself, or
# prints the command to do so. Everything is fast when it is already there.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
FUZZ_SECONDS ?= 60
# Cargo's profile for `make demo`; `PROFILE=release` takes longer to build.
PROFILE ?= dev
CLIENTS := tests/clients
VENV := $(CLIENTS)/python/.venv
MODULES := $(CLIENTS)/node/node_modules

.PHONY: help demo test model storm fuzz check bench deps tools lints clients clean-clients

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools ## Build the gateway and play the demo; DEMO_ARGS=--once ends after the table
	$(CARGO) run --locked --profile $(PROFILE) -p kgateway-waypoint -- demo $(DEMO_ARGS)

# The first build has the tests' features too, so that the second finds all of it done; it also
# leaves the gateway's binary, which the tests start.
test: tools clients ## All tests, with foreign clients against the built gateway
	$(CARGO) build --locked --workspace --bins --tests
	$(CARGO) test --locked --workspace
	$(MAKE) --no-print-directory model

model: ## Model checks of what threads share, in every order that the memory model allows
	RUSTFLAGS="$$RUSTFLAGS --cfg loom" $(CARGO) test --locked -p waypoint-policy --lib \
		--target-dir $${CARGO_TARGET_DIR:-target}/model -- limit::model

# Without a sanitizer, which stable compilers do not have: the fuzzer looks for panics and hangs.
fuzz: tools ## A minute of strangers' bytes for each reader; FUZZ_SECONDS changes it
	@tests/tools/need 'c++ --version' g++
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@for target in read_answer stream retry_headers; do \
		$(CARGO) fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit 1; \
	done

storm: tools ## A minute of many callers on few limits, where `make test` takes ten seconds
	$(CARGO) build --locked --workspace --bins --tests
	WAYPOINT_STORM_SECONDS=60 $(CARGO) test --locked --workspace --test main -- storm

check: tools lints ## Formatting, lints, and the house rules: arrows, purity, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked --workspace --test main -- house::

# Both packages and all targets at once: one build for all contenders, and nothing is built twice.
bench: tools ## Benchmarks: criterion, then end to end; BENCH_ARGS go to e2e, such as --quick
	$(CARGO) build --locked --release -p kgateway-waypoint -p waypoint-benches --bins --benches
	$(CARGO) bench --locked -p kgateway-waypoint -p waypoint-benches --bench '*' -- --quick --noplot
	$${CARGO_TARGET_DIR:-target}/release/e2e run $(BENCH_ARGS)
	$${CARGO_TARGET_DIR:-target}/release/e2e run --contenders gateway,limited \
		--only chat-1k,tools-call --no-latency --idle 0

deps: tools lints clients ## Install what the other targets need

tools:
	@command -v $(CARGO) >/dev/null || { echo "missing: cargo; see rustup.rs" >&2; exit 1; }
	@tests/tools/need 'cc --version' gcc libc6-dev
	@tests/tools/need 'cmake --version' cmake

lints:
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy

clients: $(VENV)/.installed $(MODULES)/.installed ## Install the foreign clients and the store of the tests
	@tests/tools/need 'redis-server --version || valkey-server --version' redis-server

clean-clients: ## Remove the foreign clients
	rm -rf $(VENV) $(MODULES)

# Stamps live in what they stand for, so that removing it installs it again.
$(VENV)/.installed: $(CLIENTS)/python/requirements.txt $(CLIENTS)/node/requirements.txt
	@tests/tools/need '$(PYTHON) -c "import sys, venv, ensurepip; assert sys.version_info >= (3, 10)"' python3-venv
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
		-r $(CLIENTS)/python/requirements.txt
	$(CLIENTS)/node/install-node $(VENV)
	touch $@

$(MODULES)/.installed: $(VENV)/.installed $(CLIENTS)/node/package.json $(CLIENTS)/node/package-lock.json
	cd $(CLIENTS)/node && PATH="$(abspath $(VENV))/bin:$$PATH" npm ci --no-progress --loglevel=error
	touch $@
