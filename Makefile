# Every target builds the environment it needs from nothing, with the versions in constraints.txt.
# PYTHON=python3.12 make test    takes another interpreter for an environment not yet built.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# A test that fails is run once more, and named RERUN: what fails twice fails the run.
RETRY := --reruns 1 -r fER
PYTEST_ARGS ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow coverage test-torch test-oldest test-openvino wheel-check docs docs-serve check format bench proto proto-check clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.lab  ## a photo through split networks over emulated links, measured and explained
	$(BIN)/midstream demo

test: $(VENV)/.dev  ## the tests, without the exhaustive ones (PYTEST_ARGS="-k wire" narrows them)
	$(BIN)/python -m pytest $(RETRY) -n $(WORKERS) $(PYTEST_ARGS)

# A part without a test of its own passes: pytest then ends with 5.
slow: $(VENV)/.dev  ## the exhaustive proofs: every cut of every model (SHARD=3/24 runs a part of them)
	$(BIN)/python -m pytest -n $(WORKERS) -m slow --hypothesis-profile explore \
	  $(if $(SHARD),--shard $(SHARD)) $(PYTEST_ARGS) || { code=$$?; test $$code = 5 -a -n "$(SHARD)"; }

coverage: $(VENV)/.dev  ## the tests once more, counting what they run: a floor for each package
	$(BIN)/python -m pytest $(RETRY) -n $(WORKERS) --cov --cov-report= $(PYTEST_ARGS)
	@$(BIN)/python tests/coverage_floors.py

test-torch: .venv-torch/.torch  ## torch modules taken in, and torch as a backend, in an environment that has torch
	.venv-torch/bin/python -m pytest $(RETRY) -m torch $(PYTEST_ARGS)

test-oldest: .venv-oldest/.oldest  ## the tests with the oldest versions that pyproject.toml allows
	.venv-oldest/bin/python -m pytest $(RETRY) -n $(WORKERS) $(PYTEST_ARGS)

# What a stranger gets: the wheel alone, in an environment that has nothing else of ours.
wheel-check: $(VENV)/.dev  ## the built wheel, installed in a clean environment, and its command run
	@rm -rf build/wheel build/clean && mkdir -p build/wheel
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w build/wheel .
	@$(PYTHON) -m venv build/clean
	@build/clean/bin/pip install --quiet --disable-pip-version-check -c constraints.txt build/wheel/midstream-*.whl
	cd build && clean/bin/midstream --version && clean/bin/midstream plan digits --link lte --runs 3 > wheel/plan.txt \
	  && clean/bin/python -c "from importlib.resources import files; assert files('midstream_lab.report').joinpath('html/report.css').is_file()"

docs: .venv-docs/.docs  ## the documents as a site in build/site; broken links fail
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

docs-serve: .venv-docs/.docs  ## the same on http://127.0.0.1:8000, built again as pages change
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs serve

test-openvino: .venv-openvino/.openvino  ## the proofs on OpenVINO, in an environment that has its onnxruntime
	.venv-openvino/bin/python -m pytest -m openvino $(PYTEST_ARGS)

check: $(VENV)/.dev proto-check  ## ruff, mypy --strict, the import rules, the generated code
	@failed=; for tool in "ruff check" "ruff format --check --quiet" mypy "lint-imports --no-logo"; do \
	  echo "== $$tool"; $(BIN)/$$tool || failed="$$failed [$$tool]"; \
	done; test -z "$$failed" || { echo "check failed:$$failed"; exit 1; }

format: $(VENV)/.dev  ## lay the code out as `make check` wants it
	$(BIN)/ruff check --select I --fix --quiet
	$(BIN)/ruff format --quiet

bench: $(VENV)/.dev  ## every benchmark, one after the other; results go to out/benchmarks
	@mkdir -p out/benchmarks
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
	  echo "== $$script"; $(BIN)/python $$script | tee out/benchmarks/$$(basename $$script .py).txt; \
	done

proto: .venv-proto/.compiler  ## regenerate the code of proto/midstream_wire/v1/midstream.proto
	PYTHONPATH=proto .venv-proto/bin/python -m midstream_wire.generate

# The generated code is committed; this proves that it is what the compiler makes of the .proto.
proto-check: .venv-proto/.compiler
	@rm -rf build/generated && mkdir -p build/generated
	@PYTHONPATH=proto .venv-proto/bin/python -m midstream_wire.generate build/generated
	@cd build/generated; for made in midstream_wire/v1/*_pb2*; do \
	  cmp $$made ../../proto/$$made || { echo "proto/$$made must be what the compiler makes of the .proto: run 'make proto'"; exit 1; }; \
	done; echo "generated code matches the .proto"

clean:  ## remove environments, caches and outputs
	rm -rf .venv .venv-torch .venv-oldest .venv-openvino .venv-proto .venv-docs build dist out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp stands for what is installed; .dev includes all that .lab does.

define create
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
  { echo "midstream needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo missing): name another, as in 'make PYTHON=python3.12 $(MAKECMDGOALS)'"; exit 1; }
@echo "setting up $(@D)"
@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
endef

define install
@$(@D)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
@$(@D)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
@touch $@
endef

$(VENV)/.lab: EXTRAS := lab
$(VENV)/.lab: pyproject.toml constraints.txt
	$(create)
	$(install)

$(VENV)/.dev: EXTRAS := dev
$(VENV)/.dev: pyproject.toml constraints.txt
	$(create)
	$(install)
	@touch $(@D)/.lab

.venv-torch/.torch: EXTRAS := dev,torch
.venv-torch/.torch: pyproject.toml constraints.txt
	$(create)
	$(install)

.venv-docs/.docs: EXTRAS := docs
.venv-docs/.docs: pyproject.toml constraints.txt
	$(create)
	$(install)

# Every lower bound of what midstream and its lab need, as an exact version.
define floors
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
needed = project["dependencies"] + project["optional-dependencies"]["lab"]
print(*(each.replace(">=", "==") for each in needed), sep="\n")
endef
export floors

.venv-oldest/.oldest: EXTRAS := dev
.venv-oldest/.oldest: pyproject.toml constraints.txt
	$(create)
	@$(@D)/bin/python -c "$$floors" > $(@D)/floors.txt
	$(install)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -r $(@D)/floors.txt
	@touch $@

# Its onnxruntime takes the place of the other: both are the same Python package.
.venv-openvino/.openvino: EXTRAS := dev
.venv-openvino/.openvino: pyproject.toml constraints.txt
	$(create)
	$(install)
	@$(@D)/bin/pip uninstall --quiet --yes onnxruntime
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --force-reinstall --no-deps onnxruntime-openvino

.venv-proto/.compiler: proto/compiler.txt
	$(create)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check -r proto/compiler.txt
	@touch $@
