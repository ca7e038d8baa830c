# make demo · test · check · audit · format · bench (bench-serving, bench-models, bench-training) · upgrade · lock · image-gpu. Each sets itself up in .venv; nothing is installed globally.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS := docker/requirements/constraints.txt
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' $(CONSTRAINTS))
# PyTorch's own index of CPU builds, so that a machine without a GPU never downloads CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# What of pyproject.toml is installed, besides its group dev.
EXTRAS := training,serving,audio,otel,tensorboard

# What KServe's client imports and we do not: its package asks for 238 MB, of which a request over HTTP takes these. Of
# lightkube-models only the shapes of the API of Kubernetes are read, which manifests are held against.
KSERVE := kserve grpcio cloudevents deprecation lightkube-models

# What Triton's HTTP client needs.
TRITONCLIENT := geventhttpclient gevent greenlet zope.event zope.interface brotli python-rapidjson

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check audit format bench bench-models bench-serving bench-training upgrade lock image-gpu clean

help:  ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Mooring needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another with make PYTHON=…")'
	@echo "Setting up $(VENV) (a few minutes the first time)…"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c $(CONSTRAINTS) pip setuptools
	@# A wheel in a folder that pip is configured to look in (PIP_FIND_LINKS) comes first and needs no index.
	@$(PIP) install --no-index --no-deps '$(TORCH)' 2>/dev/null \
	  || $(PIP) install --index-url $(TORCH_INDEX) --no-deps '$(TORCH)'
	@$(PIP) install -c $(CONSTRAINTS) -e '.[$(EXTRAS)]' --group dev
	@# Triton's client asks for older versions of packages that it does not use over HTTP.
	@$(PIP) install -c $(CONSTRAINTS) --no-deps tritonclient $(TRITONCLIENT)
	@# Beside the environment: in it, `import mms` is to find our stand-in. Its tests need a java on PATH, too.
	@$(PIP) install -c $(CONSTRAINTS) --no-deps --upgrade --target $(VENV)/mms multi-model-server
	@# Beside the environment, too: its own versions are never to meet ours.
	@$(PIP) install -c $(CONSTRAINTS) --no-deps --upgrade --target $(VENV)/kserve $(KSERVE)
	@touch $@

demo: $(READY)  ## the main job on real input: train, interrupt, resume, serve, invoke
	@$(BIN)/python -m examples.digits.demo

test: $(READY)  ## every test that this machine can run
	@$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

check: $(READY)  ## ruff and mypy, strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy mooring tests examples benchmarks

audit: $(READY)  ## known vulnerabilities of what the images install, where a service answers
	@$(BIN)/python docker/audit.py

format: $(READY)  ## rewrite the code in the house style
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: bench-serving bench-models bench-training  ## all that is measured; see docs/benchmarks.md

bench-serving: $(READY)  ## the server against its peers (ARGS=--quick, ARGS="--rows tiny,load"); needs wrk and java
	@$(BIN)/python -m benchmarks.serving_suite $(ARGS)

bench-models: $(READY)  ## which model makes room, answers while others load, and copies of a busy one
	@$(BIN)/python -m benchmarks.eviction
	@$(BIN)/python -m benchmarks.loading_beside
	@$(BIN)/python -m benchmarks.hot_model

bench-training: $(READY)  ## train against bare torchrun, and what a checkpoint costs the loop
	@$(BIN)/python -m benchmarks.training

upgrade: $(READY)  ## the newest versions that go together into the constraints (ARGS=--dry-run only tells); lock and test come after
	@PATH=$(abspath $(BIN)):$$PATH $(BIN)/python docker/upgrade.py $(ARGS) --extras $(EXTRAS),gpu \
	  --beside pip multi-model-server tritonclient $(TRITONCLIENT) $(KSERVE)

lock: $(READY)  ## which files the images install, with hashes (ARGS="--wheels DIR" for torch's, where its index is out of reach)
	@PATH=$(abspath $(BIN)):$$PATH $(BIN)/python docker/lock.py $(ARGS)

image-gpu:  ## the GPU image with all of CUDA: some gigabytes
	docker build -f Dockerfile.gpu -t mooring:gpu .

clean:  ## forget the environment and what tools cached
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
