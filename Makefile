# HARP: `make demo` and `make test` need nothing but Python 3.11+, stable Rust, a C and C++ compiler and make.
#
#   make demo     an unmodified CuPy program on an embedded pool, over mutual TLS
#   make test     all tests, two files at a time (AT_ONCE=0: one after the other)
#   make build    the native parts and the commands, in .venv/bin
#   make lint     formatting, lints and types of all languages
#   make bench    measure, beside the baselines; writes bench/out/latest.json
#   make bench-compare BASE=<git ref>  this tree beside another state of it: what is faster, what slower
#   make bench-counts  write the instruction counts that the tests hold this tree against
#   make simulate  place the openb workload, beside what its paper published (DATA=folder)
#   make generate  rewrite the generated files (spec, environment reference)
#   make clients  the tests that clients bring themselves, directly and pooled (FULL=1: all of them)
#   make client-environments  the client libraries that demo and test use
#   make programs  the CUDA compiler and the programs that the tests run
#   make clean    remove everything that was built or downloaded

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CARGO ?= cargo
# Files of tests that run at a time: most wait more than they compute.
AT_ONCE ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test build native lint bench bench-compare bench-counts simulate generate settings clients client-environments torch-environment programs clean prerequisites

help:
	@sed -n 's/^#   //p' Makefile

prerequisites:
	@tools/prerequisites.sh $(PYTHON)

$(VENV)/.ready: pyproject.toml setup.py requirements/dev.txt | prerequisites
	@echo "== Python environment ($(VENV))"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --requirement requirements/dev.txt
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

native: | prerequisites
	@echo "== native parts (cargo, release)"
	$(CARGO) build --release --locked

build: $(VENV)/.ready native

clients: build client-environments
	$(BIN)/python tests/clients/suites/run.py $(if $(FULL),--full) $(SUITES)

client-environments: $(VENV)/.ready
	@echo "== client libraries: CuPy, numba-cuda, cuda.core (.cache)"
	$(BIN)/python tests/clients/environment.py

torch-environment: $(VENV)/.ready
	@echo "== PyTorch's stock wheel (.cache, 3.6 GB)"
	$(BIN)/python tests/clients/environment.py torch

programs: $(VENV)/.ready
	@echo "== CUDA compiler and test programs (.cache)"
	$(BIN)/python tests/programs/build.py

demo: build client-environments
	@echo "== demo: examples/cupy_demo.py under harp-run"
	@$(BIN)/python examples/demo.py

test: build client-environments torch-environment programs
	@echo "== tests of the native parts"
	$(CARGO) test --release --workspace --locked
	@echo "== tests of everything, end to end"
	$(BIN)/python -m pytest --numprocesses $(AT_ONCE) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

bench: build client-environments
	$(BIN)/python bench/run.py
	$(BIN)/python bench/placement.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/store.py
	$(BIN)/python bench/attach.py
	$(BIN)/python bench/failover.py

bench-compare: build client-environments
	$(BIN)/python bench/compare.py $(or $(BASE),$(error BASE=<git ref> is what to compare with)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-counts: build client-environments
	$(BIN)/python bench/counts.py --write

simulate: $(VENV)/.ready
	$(BIN)/python -m harp_scheduler.simulate $(if $(DATA),--data $(DATA)) $(if $(SEEDS),--seeds $(SEEDS))

# Everything that is generated from the call spec, and the reference of environment variables.
generate: settings
	cd proto/src && ../../$(BIN)/python -m harp_spec.gen write
	PYTHONPATH=tests $(BIN)/python tests/faults/catalogue.py > docs/faults.md

settings: $(VENV)/.ready
	$(BIN)/harp settings --markdown > docs/environment.md

clean:
	rm -rf target build .cache $(VENV) bench/out .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
