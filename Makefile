# make demo  sets everything up and opens the sample slide in napari (without a display: writes demo.png)
# make test  sets everything up and passes all checks and tests
# make test-fast  passes the tests of the packages below the docks and training, in under two minutes
# make docs  builds the documentation site in site/html, and runs its tutorials (again only when something changed)
# make fuzz  opens changed files of every format for 10 minutes each
# make test-slow  passes the tests that take long, which `make test` leaves out
# make test-isa  runs the numeric tests as on other processors: with older instruction sets in oneDNN
#                (ONEDNN_MAX_CPU_ISA) and torch (ATEN_CPU_CAPABILITY), on one thread and two, with and without bfloat16;
#                a line for each; some 5 minutes a setting
# make dist-test  builds the wheel twice, compares, and tries it in clean environments of every Python at hand
# make audit  asks for known advisories of the versions in constraints.txt
# make margins   trains with five seeds under four of these, and says how near values come to the thresholds of tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Compiled modules are kept where the environment says otherwise, too: tests start some hundred processes.
export PYTHONDONTWRITEBYTECODE :=
# A display where there is one, a virtual one elsewhere.
SCREEN := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname -s)),,xvfb-run -a -s "-screen 0 1600x1000x24")

.PHONY: demo test test-fast lint unit test-slow test-isa margins docs fuzz coverage dist-test audit setup clean

demo: setup
	$(SCREEN) $(BIN)/napari-cpnn demo $(if $(SCREEN),--screenshot demo.png)

test: lint unit

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/npe2 validate src/napari_cpnn/napari.yaml

# Files of tests run side by side, each process on one thread; a process that dies ends the run instead of hanging it.
unit: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(SCREEN) $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# What a change of one package needs, in under two minutes: without docks, training, fuzzing and real data.
FAST := tests/test_house.py tests/test_geometry.py tests/test_lattice.py tests/test_palette.py tests/test_settings.py \
  tests/test_texts.py tests/test_untrusted.py tests/counts tests/storage tests/slides tests/prototypes tests/regions \
  tests/painting tests/prediction --ignore tests/storage/test_hdf5.py --ignore tests/slides/test_large_slides.py

test-fast: setup
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses 4 $(FAST)

test-slow: setup
	$(SCREEN) $(BIN)/python -m pytest -m slow

test-isa: setup
	$(BIN)/python scripts/test_isa.py

margins: setup
	$(BIN)/python scripts/test_isa.py --margins

# Warnings are errors; -E reads all pages again, and the outputs of tutorials are kept in site/cache.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m sphinx -W --keep-going -n -E -q -b html docs site/html

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

# Opens changed files of every format for FUZZ_SECONDS each (600); FUZZ names formats and options, such as "svs --replay 7".
fuzz: setup
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign $(FUZZ)

# The same with coverage, which takes longer.
coverage: setup
	$(SCREEN) $(BIN)/python -m pytest -m "not slow" --cov --cov-report=term

# Wheel and sdist, built twice and equal, tried in clean environments of every Python at hand.
dist-test:
	$(PYTHON) scripts/dist_test.py

# Known advisories of the versions in constraints.txt; asks a server.
audit: setup
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/system_packages.sh
	sh scripts/system_packages.sh
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "napari-cpnn needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group test --group lint
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo.png site docs/api/generated
