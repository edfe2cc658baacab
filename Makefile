# Everything a person types here. Each target prepares .venv by itself; nothing outside the checkout is changed.
SHELL := /bin/bash
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python that is new enough and can make environments. PYTHON=… chooses another.
PYTHON ?= $(shell for name in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$name >/dev/null 2>&1 && $$name -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$name; break; }; done)
VENV := .venv/bin
PYTEST_ARGUMENTS ?=
# The wire as it was released last; there is none before the first release.
RELEASED := protos/released.binpb
export BUF_CACHE_DIR := $(CURDIR)/.cache/buf

.PHONY: help run demo test quick check mutants fmt protos released lock dist bench clean python

help: ## show this list
	@printf 'Prunella: a self-healing control plane for fleets of plugins\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

python:
	@if test -z "$(PYTHON)"; then \
		echo "Prunella needs Python 3.11 or newer with venv. On Debian or Ubuntu type:  apt install python3 python3-venv" >&2; \
		echo "(or name one: make run PYTHON=/path/to/python3.12)" >&2; exit 1; fi

run: python ## start the whole plane with its demo fleet and watch it heal; Ctrl-C stops it
	@$(PYTHON) deploy/bootstrap.py run && exec $(VENV)/prunella up --demo

demo: python ## run every scenario on a fresh plane and print one JSON document
	@$(PYTHON) deploy/bootstrap.py run && exec $(VENV)/prunella demo --exit --json

test: check ## lint, types and the whole suite, with servers of its own
	@# The import rules were checked already. Most of a test is waiting, so there are more workers than cores.
	@exec $(VENV)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder \
		--ignore tests/contract/test_architecture.py $(PYTEST_ARGUMENTS)

# One pass through each door: asked by gRPC, told by a fact, woken by time; and the agent, the terminal and the loop.
DOORS := tests/service/test_ingest_commands.py tests/service/test_ingest_silence.py tests/service/test_decider_handlers.py \
	tests/service/test_decider_reactions.py tests/service/test_patcher_authorize.py tests/service/test_queue_work.py \
	tests/service/test_ops_timeline.py tests/service/test_agent_session.py tests/service/test_cli_commands.py \
	tests/scenario/test_worked_example.py

quick: python ## what a change is most likely to break: units, contracts, each door once; in under three minutes
	@$(PYTHON) deploy/bootstrap.py test
	@exec $(VENV)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder \
		tests/unit tests/contract $(DOORS) $(PYTEST_ARGUMENTS)

check: python ## lint, format, types, protos (nothing released may break) and the import rules, in under a minute
	@$(PYTHON) deploy/bootstrap.py test
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check --quiet . || { echo "type: make fmt" >&2; exit 1; }
	@$(VENV)/buf lint protos
	@if test -e $(RELEASED); then $(VENV)/buf breaking protos --against $(RELEASED); fi
	@$(VENV)/mypy
	@$(VENV)/python -m pytest -q tests/contract/test_architecture.py

fmt: python ## format the code and mend what lint can mend
	@$(PYTHON) deploy/bootstrap.py test
	@$(VENV)/ruff check --fix --quiet . || true
	@$(VENV)/ruff format .

protos: python ## generate the code of protos/ again
	@$(PYTHON) deploy/bootstrap.py test
	@$(VENV)/python protos/generate.py --force
	@$(VENV)/buf lint protos

released: python ## with a release: write down the wire, which every later change must be able to read
	@$(PYTHON) deploy/bootstrap.py test
	@$(VENV)/buf build protos -o $(RELEASED)

lock: python ## resolve pyproject.toml again into constraints.txt
	@# A package that was just added cannot be installed before it is locked: an environment that is there will do.
	@test -x $(VENV)/uv || $(PYTHON) deploy/bootstrap.py test
	@$(VENV)/python deploy/lock.py

mutants: python ## how many small mistakes in each heart its unit tests notice (HEARTS="…" for some of them)
	@$(PYTHON) deploy/bootstrap.py test
	@$(VENV)/python -m tests.mutants $(HEARTS)

dist: python ## build both distributions, prunella and prunella-agent, into dist/
	@$(PYTHON) deploy/bootstrap.py test
	@$(VENV)/python -m deploy.dist

bench: python ## measure, and print the figures beside their targets as JSON
	@$(PYTHON) deploy/bootstrap.py bench
	@exec $(VENV)/python -m tests.bench

clean: ## remove .venv, generated code and caches (the plane's data stays: prunella up --fresh)
	@rm -rf .venv .cache .hypothesis .mypy_cache .ruff_cache .pytest_cache build dist protos/gen libs/agent/prunella
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
