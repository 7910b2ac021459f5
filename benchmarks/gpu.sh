#!/bin/sh
# Compare the GPU kernels with plain PyTorch and time them on this machine's first NVIDIA GPU, in
# less than five minutes: benchmarks/gpu.sh [--official CHECKOUT]. The result is a file
# docs/results/speed/gpu-NAME.json; PYTHON chooses another interpreter than .venv/bin/python.
cd "$(dirname "$0")/.." || exit 1
PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-.venv/bin/python}" benchmarks/gpu.py "$@"
