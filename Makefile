# The checks and the demonstration of deferpost.  `make help` lists the targets.
#
# Everything runs in .venv, which is made on first use and brought up to date when setup.py or
# pyproject.toml change.  PYTHON names the interpreter to make it with.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# Modules are compiled once, and not by each of the many processes that the tests start.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
LISTEN ?= tcp:8080:interface=127.0.0.1
APP ?= examples.documents:app

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.deferpost-installed
REPORTS := build/reports
# Processes that run tests at the same time.
AT_ONCE ?= 3
# What bench measures us against, in an environment of its own.
PEERS := build/bench-peers
PEERS_STAMP := $(PEERS)/.installed
# Only fuzz needs atheris.
FUZZ_STAMP := $(VENV)/.deferpost-fuzz-installed
SECONDS ?= 60

# bench joins the checks when it is there.
CODE := deferpost tests examples twisted/plugins $(wildcard bench)
# Trial test cases are told by their file names, as in tests/pools/test_behaviour_trial.py.  pytest
# runs them too, in processes of their own.
CASES = $(shell find tests -name 'test_*_trial.py' | sort)
ALONE = $(shell grep -lr 'mark\.alone' tests --include='*.py' | sort)
TRIAL = $(subst /,.,$(patsubst %.py,%,$(CASES)))

.PHONY: help run test lint types unit trial cover bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) ## serve the example app; LISTEN= and APP= choose another endpoint and app
	@echo 'In another terminal, try:'
	@echo '  curl --data-binary @README.rst http://127.0.0.1:$(word 2,$(subst :, ,$(LISTEN)))/rst'
	@echo '  curl --data-binary @README.rst http://127.0.0.1:$(word 2,$(subst :, ,$(LISTEN)))/sha256'
	@echo 'Ctrl-C ends it.'
	@# In the foreground of a terminal the daemon gets a process group of its own, so that Ctrl-C is
	@# for it alone and ends in status 0.  Elsewhere it takes the shell's place, in make's reach.
	@$(BIN)/python -c 'import os, sys; sys.exit(os.tcgetpgrp(0) != os.getpgrp())' 2>/dev/null \
		|| exec $(BIN)/deferpost --listen '$(LISTEN)' '$(APP)'; \
	status=0; (set -m; $(BIN)/deferpost --listen '$(LISTEN)' '$(APP)'; exit $$?) || status=$$?; \
	[ $$status -eq 0 ] || [ $$status -eq 130 ] || exit $$status

# Every step runs, so that one look shows all that is wrong; the tests come last, and their count
# is the last line.
test: $(STAMP) ## everything: lint, types, trial, and all tests with coverage
	@failed=; \
	for step in lint types trial cover; do \
		echo "== $$step"; \
		$(MAKE) --no-print-directory $$step || failed="$$failed $$step"; \
	done; \
	echo "== result"; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; fi; \
	$(BIN)/python -c "$$COUNT" $(REPORTS)/cases.xml $(REPORTS)/shared.xml $(REPORTS)/alone.xml; \
	[ -z "$$failed" ]

lint: $(STAMP) ## ruff, its checks and its format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy
	$(BIN)/mypy $(CODE)

unit: $(STAMP) ## the tests without those in tests/integration
	$(BIN)/python -m pytest -m 'not integration' --ignore=tests/integration

trial: $(STAMP) ## the tests that are trial test cases, by trial
ifeq ($(TRIAL),)
	@echo 'no module is named test_*_trial.py'
else
	@mkdir -p build
	$(BIN)/trial --temp-directory=build/trial $(TRIAL)
endif

# Trial's test cases have processes of their own: in one where pytest-twisted runs the reactor they
# cannot, and pytest-xdist begins with groups.  Tests that wait leave the machine to others; those
# that compare times have it for themselves.
cover: $(STAMP) ## all tests by pytest, with branch coverage of every process
	@rm -rf $(REPORTS) && mkdir -p $(REPORTS)
	$(BIN)/coverage erase
	@failed=; \
	$(BIN)/coverage run -m pytest -n $(AT_ONCE) --junitxml=$(REPORTS)/cases.xml $(CASES) || failed=yes; \
	$(BIN)/coverage run -m pytest -n $(AT_ONCE) --dist loadgroup -m 'not alone' --ignore-glob='*_trial.py' --junitxml=$(REPORTS)/shared.xml || failed=yes; \
	$(BIN)/coverage run -m pytest -m alone --junitxml=$(REPORTS)/alone.xml $(ALONE) || failed=yes; \
	[ -z "$$failed" ]
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(STAMP) $(PEERS_STAMP) ## the benchmarks, into docs/figures.rst; bench-quick for rough ones
	$(BIN)/python -m bench --docs

.PHONY: bench-quick bench-peers
bench-quick: $(STAMP) $(PEERS_STAMP)
	$(BIN)/python -m bench --quick

bench-peers: $(PEERS_STAMP)

# Its status is not 0 when it has found something; the file that shows it again is named then.
.PHONY: fuzz
fuzz: $(FUZZ_STAMP) ## let atheris look for what the wire gets wrong, for SECONDS=60
	nice -n 19 $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

clean: ## remove what the other targets made, but for .venv
	rm -rf build dist *.egg-info .coverage .coverage.* htmlcov _trial_temp*
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache twisted/plugins/dropin.cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Part of an environment is left behind where making it failed: one without pip is made again.
$(STAMP): setup.py pyproject.toml
	@usable='import sys, pip; sys.exit(sys.prefix == sys.base_prefix or sys.version_info < (3, 11))'; \
	$(BIN)/python -c "$$usable" 2>/dev/null || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
			echo 'deferpost needs Python 3.11 or later; name one: make PYTHON=/path/to/python3' >&2; \
			exit 1; }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo '$(PYTHON) has no venv; on Debian: apt install python3-venv' >&2; \
			exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

$(FUZZ_STAMP): $(STAMP)
	$(BIN)/python -m pip install --editable '.[fuzz]'
	@touch $@

$(PEERS_STAMP): bench/peers/requirements.txt | $(STAMP)
	$(BIN)/python -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --requirement $<
	@touch $@

# Reads the reports of pytest, and prints them as one line.
define COUNT
import sys
import xml.etree.ElementTree as tree

try:
    suites = [suite for name in sys.argv[1:] for suite in tree.parse(name).iter("testsuite")]
except (OSError, tree.ParseError):
    print("pytest did not get to its end: 0 passed, 1 failed")
    sys.exit(1)
count = lambda name: sum(int(suite.get(name, 0)) for suite in suites)
failed, skipped = count("failures") + count("errors"), count("skipped")
print(f"{count('tests') - failed - skipped} passed, {failed} failed, {skipped} skipped")
endef
export COUNT
