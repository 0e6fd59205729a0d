# Everything a newcomer needs: make demo, make test, make lint. Needs python3 (3.11 to 3.13) with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := .venv-bench

.PHONY: help setup demo demo-vertex up test chaos lint format bench bench-lock lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP) ## Make .venv with everything pinned

demo: $(STAMP) ## Run the main job from end to end, with nothing else installed
	$(BIN)/lowtide demo

demo-vertex: $(STAMP) ## The same on Vertex AI, from and to Cloud Storage and BigQuery
	$(BIN)/lowtide demo --vertex

up: $(STAMP) ## Run everything on this machine until Ctrl-C
	$(BIN)/lowtide up

test: $(STAMP) ## Run all tests against real servers and workers
	$(BIN)/python -m pytest --numprocesses 3 --dist loadscope -m "not soak" $(ARGS)

chaos: $(STAMP) ## Try to break the promises: crashes, faults, and CHAOS_SECONDS (180) of everything at random
	CHAOS_SECONDS=$${CHAOS_SECONDS:-180} $(BIN)/python -m pytest tests/chaos -s $(ARGS)

lint: $(STAMP) ## Check style, types, layers, compose file and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint Dockerfile

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BENCH)/.installed: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	@echo '*' > $(BENCH)/.gitignore
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

bench: $(BENCH)/.installed ## Measure Lowtide beside the alternatives; ARGS="--quick" for a short run
	$(BENCH)/bin/python -m benchmarks $(ARGS)

# The contenders allow no newer fsspec and wrapt than their own; all else is what Lowtide itself is pinned to.
bench-lock: ## Pin what the benchmarks need (needs uv on the PATH)
	sed -n '/==/s/ \\$$//p' requirements-dev.txt | grep -v '^fsspec==\|^wrapt==' | uv pip compile benchmarks/requirements.in pyproject.toml \
	    --extra worker --extra emulator --extra embedded --constraint - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --quiet -o benchmarks/requirements.txt

lock: ## Pin all dependencies anew (needs uv on the PATH)
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet -o requirements-dev.txt

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) $(BENCH) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
