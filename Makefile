# Everything runs in a virtual environment of its own, .venv in this checkout, with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,
# One mark for each set of extras: what is installed follows from EXTRAS, and going back to fewer costs nothing.
READY = $(VENV)/.ready-$(subst $(comma),-,$(EXTRAS))
SOURCE ?=
EXTRAS ?= dev
PYTEST_ARGS ?=
LANES ?= 3
BENCH_ARGS ?= start lean four verify shards --scale=1/16 --rounds=3 --report=-
LOAD_ARGS ?= --scale=1/16 --rounds=3 --report=-
DIST ?= dist
ENGINE ?= podman
BASE_IMAGE ?= python:3.13-slim-trixie
VERSION := $(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' fetcher/version.py)
IMAGE ?= weightlift:$(VERSION)
SUITE ?= bookworm

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY) ## make .venv with everything; nothing to do when it is up to date

$(READY): pyproject.toml constraints.txt setup.py $(wildcard fetcher/integrity/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "weightlift needs Python 3.11 or later; say which: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(READY) ## fetch, verify, place and warm a model; SOURCE=hf://org/model for a real one
	$(BIN)/python -m fetcher.testing.demo $(SOURCE)

test: lint types contracts pytest ## run every check

lint: $(READY) ## style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy k8s/images/*.py
	$(BIN)/mypy k8s/system/*.py

contracts: $(READY) ## check the import rules
	$(BIN)/lint-imports

pytest: $(READY) ## the tests alone, in LANES side by side; PYTEST_ARGS="-k resume -x" narrows them
	$(BIN)/pytest --numprocesses=$(LANES) $(PYTEST_ARGS)

ENGINES ?= vllm sglang
WITH := tests/loader/adapters/engines

engines: ## test the adapters with vLLM and SGLang themselves, in environments of their own (some GB and minutes)
	for engine in $(ENGINES); do \
		python=.engines/$$engine/bin/python; \
		$(PYTHON) -m venv .engines/$$engine && \
		$$python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch]' -r $(WITH)/$$engine.txt && \
		$$python -m pip install --quiet --disable-pip-version-check --no-deps -r $(WITH)/$$engine-alone.txt && \
		$$python -m pytest tests/loader/adapters/test_engines.py -k $$engine $(PYTEST_ARGS) || exit 1; done

ARM ?= aarch64-linux-gnu-gcc

dist: $(READY) ## build the sdist and the wheels for x86-64 and (with gcc-aarch64-linux-gnu) arm64, each with its compiled part
	rm -rf build $(DIST)
	$(BIN)/python -m build --outdir $(DIST)
	if command -v "$(ARM)" >/dev/null; then rm -rf build; \
		CC=$(ARM) LDSHARED="$(ARM) -shared" _PYTHON_HOST_PLATFORM=linux-aarch64 $(BIN)/python -m build --wheel --outdir $(DIST); fi
	for wheel in $(DIST)/*-linux_*.whl; do \
		PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir $(DIST) $$wheel && rm $$wheel || exit 1; done
	for wheel in $(DIST)/*.whl; do \
		for part in _sha256 _crc; do \
			$(BIN)/python -m zipfile -l $$wheel | grep $$part.abi3.so || { echo "$$wheel lacks $$part" >&2; exit 1; }; done; done

image: dist ## build the container image from BASE_IMAGE (python:...-slim) with ENGINE (podman) and call it IMAGE (weightlift:VERSION)
	ENGINE=$(ENGINE) BASE_IMAGE=$(BASE_IMAGE) IMAGE=$(IMAGE) VERSION=$(VERSION) DIST=$(DIST) PYTHON=$(BIN)/python k8s/images/build

base: ## make a BASE_IMAGE of Debian's SUITE (bookworm) with mmdebstrap, where no registry can be reached; nothing to do when it is there
	k8s/images/debian-base $(SUITE) $(BASE_IMAGE)

coldstart: $(READY) ## what IMAGE weighs, and how long its commands take to start in a fresh container
	$(BIN)/python k8s/images/coldstart.py --engine $(ENGINE) $(IMAGE)

LOCK = $(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

lock: $(READY) ## write down what the image is made of, from pyproject.toml and constraints.txt
	$(LOCK) --extra loader --extra all --constraints constraints.txt --output-file k8s/images/requirements.txt pyproject.toml
	$(LOCK) --constraints k8s/images/requirements.txt --output-file k8s/images/tools.txt k8s/images/tools.in

bench: $(READY) ## measure for some minutes: the pieces, then fetching and loading at a small scale; writes nothing but .bench
	$(BIN)/pytest benchmarks --benchmark-enable --benchmark-only --timeout=0 $(PYTEST_ARGS)
	$(BIN)/python -m benchmarks fetch $(BENCH_ARGS)
	$(BIN)/python -m benchmarks load $(LOAD_ARGS)

docs: $(READY) ## write the reference pages from the code and build the site: build/site
	$(BIN)/python -m docs.generator
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site

format: $(READY) ## rewrite the sources in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

upgrade: ## a new .venv with the newest versions, written down in constraints.txt; then run make test
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,torch]'
	{ head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	mv constraints.new constraints.txt
	@touch $(VENV)/.ready-dev $(VENV)/.ready-dev-torch
	$(MAKE) lock

clean: ## remove .venv and everything generated
	rm -rf $(VENV) .engines .bench build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo test lint types contracts pytest engines dist image base coldstart lock bench docs format upgrade clean
