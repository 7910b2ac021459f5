# Sets fairweather up in a virtual environment of its own and runs it. `make` lists the commands.
# GNU make 3.81 and later.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2

BIN         := $(VENV)/bin
CONSTRAINTS := constraints/cpu.txt
CORE        := $(VENV)/core.stamp
DEV         := $(VENV)/dev.stamp
KERAS       := $(VENV)/keras.stamp
KERNELS     := $(VENV)/kernels.stamp
INSTALL     := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

# The recipe reads IN and OUT from its environment, unexpanded, so that a path may hold any character.
override IN  := $(value IN)
override OUT := $(value OUT)
export IN OUT

.DEFAULT_GOAL := help
.PHONY: help setup keras kernels restore test test-slow fuzz kills check format docs clean

help:
	@echo 'make restore              restore a sample photograph, into ./sample'
	@echo 'make restore IN=PATH      restore one photograph or one folder, beside it or to OUT=PATH,'
	@echo '                          with more options in ARGS, as in ARGS=--overwrite'
	@echo 'make setup                install all that the commands below need'
	@echo 'make keras                install Keras, TensorFlow and JAX too, so that they are tested'
	@echo 'make kernels              install Triton too, on Linux, so that GPU kernels are tested on the CPU'
	@echo 'make test                 run the tests, on WORKERS=2 cores'
	@echo 'make test-slow            run those that take longest too, as continuous integration does'
	@echo 'make fuzz                 damage files at random and look for crashes, SECONDS=300 for each kind'
	@echo 'make kills                kill runs at random moments, KILLS=30 times for each kind'
	@echo 'make check                formatting, lint, types and the rules of the house'
	@echo 'make format               fix what the formatter and the linter can fix'
	@echo 'make docs                 build the site into build/site'
	@echo 'make clean                remove the virtual environment, the sample and the caches'
	@echo
	@echo 'The first command sets up $(VENV) with $(PYTHON); PYTHON=... and VENV=... choose others.'

setup: $(DEV)

keras: $(KERAS)

kernels: $(KERNELS)

restore: $(CORE)
	@if [ -z "$$IN" ]; then \
	    $(BIN)/fairweather restore --sample; \
	else \
	    $(BIN)/fairweather restore "$$IN" --compare $${OUT:+-o "$$OUT"} $(ARGS); \
	fi

# One thread for each worker: two pools of two threads on two cores would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: $(DEV)
	$(PYTEST) -m 'not slow'

test-slow: $(DEV)
	$(PYTEST) -m slow

SECONDS ?= 300

fuzz: $(DEV)
	OMP_NUM_THREADS=1 FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -n $(WORKERS) -rP tests/fuzz

KILLS ?= 30

kills: $(DEV)
	OMP_NUM_THREADS=1 FAIRWEATHER_KILLS=$(KILLS) $(BIN)/python -m pytest -n $(WORKERS) tests/faults

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_architecture.py

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV)
	$(BIN)/python scripts/build_site.py

clean:
	rm -rf $(VENV) build dist sample .pytest_cache .hypothesis .ruff_cache
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: it is most of the download, and the part that can fail.
$(CORE): pyproject.toml $(CONSTRAINTS)
	@echo 'Setting up $(VENV), once: a few hundred megabytes to download.'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e .
	@touch $@

$(DEV): $(CORE)
	$(INSTALL) -e '.[train,export,int8,heif,jxl,raw,video,ray,docs,dev]'
	@touch $@

# tensorflow-cpu has no macOS wheel: make keras TENSORFLOW=tensorflow there.
TENSORFLOW ?= tensorflow-cpu

$(KERAS): $(DEV)
	$(INSTALL) keras $(TENSORFLOW) ai-edge-litert 'jax[cpu]'
	@touch $@

# Alone, since a CPU build of PyTorch asks for no version of it; models/fast/dispatch.py says which fit.
TRITON ?= 3.8.0

$(KERNELS): $(DEV)
	$(INSTALL) --no-deps triton==$(TRITON)
	@touch $@
