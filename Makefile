# From a fresh clone: `make demo` turns one photo into a 3D scene, `make test` runs all tests, `make lint` checks style and types.
# `make ablations` trains and judges the comparisons of the GGS paper in equal conditions; stopped, it goes on when started
# again. MINUTES is per run; ARGS takes further options, for example ARGS="--only ggs,no3d --bank DIR".
# `make ablations-ln3diff` does the same for LN3Diff++: the ladder of its autoencoder, and its two kinds of denoiser.
# `make bench` times the commands, the rasteriser, volume and mesh rendering, the networks, and how cost grows, on this
# machine's CPU in at most 10 minutes, and writes one report. JOBS is the number of threads.
# `make bench-gpu` times the rasteriser and the networks of objects on an NVIDIA GPU, gsplat beside them where installed.
# Needs python3 (3.11 or newer) with venv and pip. PYTHON=... picks another interpreter, VENV=... another folder.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
IMAGE ?= examples/room.jpg
OUT ?= out/demo
BENCH ?= out/bench
BENCH_MINUTES ?= 10
BENCH_GPU ?= out/bench-gpu
BENCH_GPU_MINUTES ?= 40
ABLATIONS ?= out/ablations
ABLATIONS_LN3DIFF ?= out/ablations-ln3diff
MINUTES ?= 30
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo install test lint format bench bench-gpu ablations ablations-ln3diff clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/latent3d scene $(IMAGE) --out $(OUT) --overwrite
	@echo
	@echo "The results are in $(OUT):"
	@echo "  $(OUT)/viewer.html      open it in a browser (works offline)"
	@echo "  $(OUT)/flythrough.mp4   a film of the scene"
	@echo "  $(OUT)/scene.ply        the Gaussian splats, for any 3DGS viewer"
	@echo "  $(OUT)/views $(OUT)/depth $(OUT)/cameras.json $(OUT)/card.json"

install: $(VENV)/.installed

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "latent3d needs Python 3.11 or newer: run 'make PYTHON=/path/to/python3.11'"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first and alone: a CPU-only build that the machine's own pip settings offer is then preferred to the CUDA one.
$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[test,lint,mesh]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP) --editable '.[bench]'
	@touch $@

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ablations: $(VENV)/.installed
	$(BIN)/python bench/ablations.py --out $(ABLATIONS) --minutes $(MINUTES) $(ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python bench/report.py --out $(BENCH) --minutes $(BENCH_MINUTES) --threads $(JOBS) $(ARGS)

bench-gpu: $(VENV)/.installed
	$(BIN)/python bench/gpu_report.py --out $(BENCH_GPU) --minutes $(BENCH_GPU_MINUTES) $(ARGS)

ablations-ln3diff: $(VENV)/.installed
	$(BIN)/python bench/ablations_ln3diff.py --out $(ABLATIONS_LN3DIFF) --minutes $(MINUTES) $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
