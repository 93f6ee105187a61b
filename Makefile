# Each target says what it does after '##'; `make` alone lists them. The work itself is in tools/ and CMake.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
# More than the cores only makes them swap; set JOBS=1 on a machine that you share.
JOBS ?= $(shell nproc)
# Seconds for each fuzzer of `make fuzz`.
SECONDS ?= 1800
export JOBS

.PHONY: help
help:
	@echo "Penstock: make TARGET"
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

##@ Start
.PHONY: setup run
setup: ## install what everything else needs (Debian 12; the others run it when needed)
	@tools/setup.sh --verbose

run: .setup ## build and start the demo on http://127.0.0.1:8080
	@cmake --preset release >/dev/null
	@cmake --build --preset release -j $(JOBS) --target penstock mock_provider
	@exec build/release/bin/penstock demo

##@ Test
.PHONY: test check bench coverage fuzz tsan
test: .setup ## everything: checks, unit tests, fuzzers for seconds, black-box tests
	@$(PYTHON) tools/run_tests.py

check: .setup ## the fast ones: format, layers, lint, contracts, links (about a minute)
	@$(PYTHON) tools/check.py

bench: .setup ## micro benchmarks, and Penstock beside nginx and HAProxy
	@bench/run.sh

coverage: .setup ## lines and branches that the tests reach, per folder
	@tools/coverage.sh

fuzz: .setup ## every fuzzer for SECONDS each (default 1800)
	@$(PYTHON) tools/run_tests.py --only fuzz --fuzz-seconds $(SECONDS)

tsan: .setup ## unit tests with the thread sanitizer
	@$(PYTHON) tools/run_tests.py --only unit --preset tsan

##@ Develop
.PHONY: dev fmt clean
dev: .setup ## build with the address and undefined-behaviour sanitizers into build/dev
	@cmake --preset dev
	@cmake --build --preset dev -j $(JOBS)

fmt: .setup ## format C++ and Python in place
	@$(PYTHON) tools/check.py --fix

clean: ## delete build/ (.venv stays)
	@rm -rf build

.PHONY: .setup
.setup:
	@[ -n "$${PENSTOCK_SKIP_SETUP:-}" ] || tools/setup.sh
