# `make help` lists what there is. Everything happens in .venv of this checkout.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# More than two cores: many tests wait for processes, disks and databases.
JOBS   ?= 3
ARGS   ?=
# What `make coverage` runs; empty: all.
TESTS  ?=
CXX_FILES := $(shell find cpp -name '*.cc' -o -name '*.h')
CXX_BUILD := $(shell find cpp -name 'CMakeLists.txt' -o -name 'CMakePresets.json')
# The presets find Ninja, and the lint preset Python, in the environment.
CMAKE  := cd cpp && MAKEFLAGS= PATH="$(abspath $(BIN)):$$PATH"

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit cpp format lock wheel bench coverage mutants clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml requirements.lock scripts/web-parts.sh $(CXX_FILES) $(CXX_BUILD)
	@scripts/python-parts.sh $(PYTHON)
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@scripts/web-parts.sh $(BIN)/python
	@touch $@

demo: $(STAMP)  ## everything, from synthetic cells to three instruments and back (ARGS="--data DIR --workdir DIR --seed N --json FILE --keep")
	$(BIN)/cellfleet demo $(ARGS)

test: lint  ## lint, types, C++ tests, Python tests
	@$(MAKE) --no-print-directory -j2 --output-sync types cpp
	@$(MAKE) --no-print-directory unit

lint: $(STAMP) build/cpp-lint/.tidy  ## ruff, clang-format, clang-tidy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

# Only when the C++ has changed: it takes half a minute.
build/cpp-lint/.tidy: $(STAMP) $(CXX_FILES) $(CXX_BUILD) $(shell find cpp -name .clang-tidy)
	$(CMAKE) cmake --preset linux-lint >/dev/null
	printf '%s\n' $(wildcard cpp/*/*.cc) | xargs -P 2 -n 2 $(BIN)/clang-tidy -p build/cpp-lint --quiet
	@touch $@

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

cpp: $(STAMP)  ## the C++ library's own tests, with the address and undefined-behaviour sanitizers
	$(CMAKE) cmake --preset linux-sanitizers >/dev/null
	$(CMAKE) cmake --build --preset linux-sanitizers
	$(CMAKE) ctest --preset linux-sanitizers

unit: $(STAMP)  ## pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

format: $(STAMP)  ## format with ruff and clang-format, and apply ruff's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

lock: $(STAMP)  ## write requirements.lock from this environment
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v ' @ ' | LC_ALL=C sort > requirements.lock.new
	mv requirements.lock.new requirements.lock

wheel: $(STAMP)  ## a wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps -w dist .

bench: $(STAMP)  ## all benchmarks
	for b in benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

coverage: $(STAMP)  ## lines and branches that the tests reach, per room (ARGS="trust device/update" lists what they miss there)
	@mkdir -p build/coverage
	$(BIN)/python -m coverage erase
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python scripts/coverage_rooms.py $(ARGS)

mutants: $(STAMP)  ## the share of small faults in the pure rules that the tests notice, about 30 minutes (ARGS="[trust|metrics|...] [--jobs N]")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock mutmut==3.8.1
	$(BIN)/python scripts/mutants.py $(ARGS)

clean:  ## remove the environment and all build outputs
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
