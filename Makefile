# Every command of this repository; `make` alone prints them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
# A process a core, the tests of one file together, the files in the order of collection.
SIDE_BY_SIDE := --numprocesses=logical --dist=loadfile --no-loadscope-reorder

# Each step of a pipeline is a process of its own: where Python may not keep bytecode, every one of them would
# compile all that it imports anew, which is most of its time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check types rules unit local browser test-charts test-cluster docs lock images test-long bench-data bench-data-growth bench-serving bench-soak compare-seldon soak-kills clean

help: ## Print these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# What the demonstration imports, compiled on all cores at once; else each step that is the first to want a module
# compiles it, one after the other. uv does not compile, pip always has.
COMPILED := alembic anyio click codecarbon cryptography deltalake docker evidently fastapi fsspec google jinja2 joblib \
    kfp kfp_server_api kubernetes litestar markdown_it matplotlib mlflow narwhals nltk numpy oauthlib onnx \
    opentelemetry optuna pandas pandera polars pydantic pygments rapidfuzz requests rich ruamel scipy skl2onnx sklearn \
    skops sqlalchemy sqlparse starlette typer urllib3 yaml

setup: $(READY) ## Make a virtual environment from the hashed requirements

$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/uv.txt requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q -j 0 -x '/tests/' $(addprefix $(VENV)/lib/python3.11/site-packages/,$(COMPILED))
	@touch $(READY)

demo: setup ## The whole loop on a year of real flights, on this machine
	$(BIN)/seatrial demo

test: check unit test-charts local browser ## All tests; prints the coverage of src/ by lines
	$(BIN)/python -m coverage combine --quiet build/coverage
	$(BIN)/python tools/print_coverage.py

# mypy takes half of the time, on one core: what else is checked runs beside it, and each says all that it has to say at once.
check: setup ## Lint, format, types, layers, house rules
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types rules

types: setup
	$(BIN)/mypy
	MYPYPATH=benchmarks/data $(BIN)/mypy benchmarks/data/*.py
	MYPYPATH=benchmarks/serving $(BIN)/mypy benchmarks/serving/*.py

rules: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(PYTEST) tests/repository

unit: setup ## Tests of single modules, without a network or a server
	$(PYTEST) $(SIDE_BY_SIDE) --cov --cov-report= tests/unit tests/contracts
	@mkdir -p build/coverage && mv .coverage build/coverage/.coverage.unit

local: setup ## The loop with real parts: pipelines, server, crashes
	$(PYTEST) $(SIDE_BY_SIDE) --cov --cov-report= -m "not long" tests/local
	@mkdir -p build/coverage && mv .coverage build/coverage/.coverage.local

test-long: setup ## What takes minutes: kills by the dozen, races, real clients of both protocols
	$(PYTEST) $(SIDE_BY_SIDE) -m long tests/local

browser: setup ## Pages in headless Chromium; skipped where there is none
	$(PYTEST) tests/browser

test-charts: setup ## The Helm charts, rendered; skipped where there is no helm
	$(PYTEST) $(SIDE_BY_SIDE) tests/charts

CLUSTER_TESTS ?= tests/cluster
test-cluster: setup ## The platform on a kind cluster; skipped where there is none
	$(PYTEST) --durations=15 $(CLUSTER_TESTS)

docs: setup ## Write the reference pages anew
	$(BIN)/python tools/generate_reference.py

# Every other file is a part of dev.txt: the same versions, wherever the code runs.
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
PART := $(COMPILE) --constraint requirements/dev.txt

lock: setup ## Resolve requirements/ anew
	$(COMPILE) $(addprefix --group ,demo dev server mlflow pipeline) pyproject.toml --output-file requirements/dev.txt
	$(PART) --group server --output-file requirements/server.txt
	$(PART) --group mlflow --output-file requirements/mlflow.txt
	$(PART) --group pipeline pyproject.toml --output-file requirements/pipeline.txt
	$(PART) --no-deps --group demo --output-file requirements/demo.txt
	echo uv | $(COMPILE) - --output-file requirements/uv.txt
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' | $(COMPILE) - --output-file requirements/build.txt

# For instance: make images IMAGES=server OPTIONS="--engine docker --base-image registry.example.com/python:3.11"
images: setup ## Build our container images with podman or docker
	$(BIN)/python tools/build_images.py $(OPTIONS) $(IMAGES)

bench-data: setup ## Data work beside Feast, pandas, evidently, Metaflow and ZenML; about ten minutes
	$(BIN)/python benchmarks/data/bench.py

bench-data-growth: setup ## The same from 10^4 to 10^7 rows; draws docs/explanation/growth.svg; about half an hour
	$(BIN)/python benchmarks/data/growth.py

# A slice, for instance: make soak-kills SOAK="--seconds 300 --folder build/soak"; the next call in that folder goes on.
soak-kills: setup ## Kill the server 1,000 times over 10^6 requests while the object store goes away and comes back; account
	PYTHONPATH=tests:. $(BIN)/python -m tests.local.serving.kill_soak $(SOAK)

# For instance: make bench-serving OPTIONS="--only ours,echo --connections 16"
bench-serving: setup ## Our server beside Seldon's, MLServer, MLflow's and BentoML; about ten minutes
	$(BIN)/python benchmarks/serving/bench.py $(OPTIONS)

compare-seldon: setup ## Ask seldon-core-microservice and our server the same, and print where they differ
	$(BIN)/python -m pytest -q -rs -s tests/local/serving/test_seldon_comparison.py

bench-soak: setup ## A day of requests and outcomes in minutes; prints memory before and after
	$(BIN)/python benchmarks/serving/soak.py $(OPTIONS)

clean: ## Remove what was built; the virtual environment stays
	rm -rf build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
