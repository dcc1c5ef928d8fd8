# `make help` lists the targets. Everything runs inside .venv, made from the exact, hashed requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := obslib demo_service autoscaler stack grafana prometheus tests benchmarks

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The certificates the machine trusts, as pip does where it is told to: proxies with a certificate of their own are common.
export UV_SYSTEM_CERTS := 1

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "obslib needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock …"
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "Python cannot make virtual environments here. On Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.PHONY: setup
setup: $(READY) ## make the Python environment

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command "make lock" --upgrade

.PHONY: lock
lock: ## renew requirements.lock, requirements-bench.lock and the image's from pyproject.toml
	$(COMPILE) --all-extras --group dev -o requirements.lock pyproject.toml
	$(COMPILE) --extra fastapi --extra contrib --group bench -o requirements-bench.lock pyproject.toml
	$(COMPILE) --extra fastapi --extra contrib --extra httpx --extra sqlalchemy --extra redis --extra celery --group demo \
	  --constraint requirements.lock -o deploy/requirements.lock pyproject.toml

# --- checks ----------------------------------------------------------------------------------------------------------

.PHONY: format
format: $(READY) ## format the code
	$(BIN)/ruff format $(SOURCES)

.PHONY: format-check
format-check: $(READY)
	$(BIN)/ruff format --check --quiet $(SOURCES)

.PHONY: lint
lint: $(READY) ## ruff
	$(BIN)/ruff check --quiet $(SOURCES)

.PHONY: types
types: $(READY) ## mypy, strict, on the packages and the tests; pyright, strict, on what users see
	$(BIN)/mypy
	@# It finds the environment's Python on PATH; --pythonpath does nothing with --verifytypes.
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --warnings
	@PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes obslib --ignoreexternal \
	  | awk '/ error: |completeness/; /completeness score: 100%/ {whole = 1} END {exit !whole}'

.PHONY: imports
imports: $(READY) ## which module may import which
	$(BIN)/lint-imports --no-logo

.PHONY: unit
unit: $(READY) ## unit tests, with coverage of obslib
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -m "not integration" -q
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=97

.PHONY: generate
generate: $(READY) ## write rules, alerts and their tests from prometheus/policy.yml, and the dashboards
	$(BIN)/python -m prometheus.generate
	$(BIN)/python -m grafana.generate

.PHONY: generated
generated: $(READY) ## whether the generated files are what the policy and the dashboards' sources say
	$(BIN)/python -m prometheus.generate --check
	$(BIN)/python -m grafana.generate --check

.PHONY: check
check: format-check lint types imports generated unit ## before each commit: all of the above

.PHONY: test-matrix
test-matrix: $(READY) ## the behavioural tests on every supported FastAPI, Starlette and OpenTelemetry SDK
	$(BIN)/python -m tests.matrix $(ARGS)

# Tests with the real components mostly wait, the others mostly compute: together they take as long as the former alone.
# Those that compute step aside, for the former watch clocks.
.PHONY: test
test: format-check lint types imports generated ## everything, with the real Prometheus, Jaeger, Redis and HAProxy
	$(BIN)/python -m stack install
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory --jobs=2 --keep-going test-real test-meanwhile
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=100

.PHONY: test-real
test-real: $(READY)
	$(BIN)/coverage run -m pytest -q -m "integration and not computes"

.PHONY: test-meanwhile
test-meanwhile: $(READY)
	@mkdir -p .test
	@echo "Meanwhile the unit tests, those that only compute and the short matrix run; what they say is in .test/meanwhile.log, and comes when they are done."
	@{ nice -n 10 $(BIN)/coverage run -m pytest -q -m "not integration or computes" && nice -n 10 $(BIN)/python -m tests.matrix --short --jobs 1; } \
	  > .test/meanwhile.log 2>&1 \
	  && { echo; echo "Unit tests and the short matrix:"; grep -E "passed|failed" .test/meanwhile.log; } \
	  || { echo; cat .test/meanwhile.log; exit 1; }

.PHONY: test-mutants
test-mutants: $(READY) ## whether promtool's tests notice each limit that is made a fifth larger or smaller; ten minutes
	$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: test-prometheus-3
test-prometheus-3: $(READY) ## the rules with Prometheus 3.16, which Go builds once in six minutes: promtool's tests, and alerts that fire
	NEWEST_PROMETHEUS=1 $(BIN)/python -m pytest -q tests/integration/test_rules.py tests/integration/test_alerts_fire.py \
	  -k "promtool or week or other_policies"

# --- the demo --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(READY) ## start the shop, its telemetry and steady load; Ctrl-C stops all of it
	@$(BIN)/python -m stack up $(ARGS)

.PHONY: install
install: $(READY) ## install the demo's components, start nothing
	@$(BIN)/python -m stack install

.PHONY: spike
spike: $(READY) ## send a spike of load to the running demo and show what becomes of it
	@$(BIN)/python -m stack spike

.PHONY: status
status: $(READY) ## what of the demo runs, where, and how much memory it takes
	@$(BIN)/python -m stack status

.PHONY: stop
stop: $(READY) ## stop the running demo
	@$(BIN)/python -m stack stop

# --- the same in containers --------------------------------------------------------------------------------------------

.PHONY: compose-secrets
compose-secrets: ## make the passwords that docker-compose.yml mounts; those that are there stay
	@$(PYTHON) -m stack.compose_secrets

.PHONY: compose-check
compose-check: $(READY) ## whether Docker Compose understands docker-compose.yml; builds it once where it is missing
	@$(BIN)/python -m stack.compose

# --- what it costs ---------------------------------------------------------------------------------------------------

BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready

$(BENCH_READY): requirements-bench.lock $(READY)
	@echo "Setting up $(BENCH_VENV) from requirements-bench.lock …"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BIN)/uv pip sync --quiet --python $(BENCH_VENV)/bin/python --require-hashes requirements-bench.lock
	@$(BIN)/uv pip install --quiet --python $(BENCH_VENV)/bin/python --no-deps --editable .
	@touch $@

.PHONY: bench
bench: $(BENCH_READY) ## obslib and its peers side by side: CPU a request, latency, scrapes, faults
	$(BENCH_VENV)/bin/python -m benchmarks

.PHONY: bench-quick
bench-quick: $(BENCH_READY) ## the main rows of it, in two minutes
	$(BENCH_VENV)/bin/python -m benchmarks --quick

.PHONY: comparison
comparison: $(BENCH_READY) ## ask obslib and its peers the same, and write the answers into docs/comparison.md
	$(BENCH_VENV)/bin/python -m benchmarks.comparison

.PHONY: profile
profile: $(BENCH_READY) ## where the microseconds of a request go: a table and a flame graph
	$(BENCH_VENV)/bin/python -m benchmarks.profile

.PHONY: bench-loop
bench-loop: $(READY) $(BENCH_READY) ## from a spike to a serving replica: times, losses, a picture; an hour
	$(BIN)/python -m benchmarks.loop
	$(BENCH_VENV)/bin/python -m benchmarks.loop_plot .bench/loop.json .bench/loop.png

.PHONY: bench-dashboards
bench-dashboards: $(READY) ## what it costs Prometheus to open each dashboard for six hours
	$(BIN)/python -m benchmarks.dashboards

.PHONY: bench-rules
bench-rules: $(READY) ## what all rules cost a Prometheus that watches two hundred services
	$(BIN)/python -m benchmarks.rules

.PHONY: soak
soak: $(READY) ## a million hostile requests through one process: does its memory stay where it is?
	$(BIN)/python -m benchmarks.soak

.PHONY: clean
clean: ## remove what was made in this folder; the components' cache stays
	rm -rf $(VENV) $(BENCH_VENV) .stack .bench build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
