"""The fused GPU kernels, checked where Triton interprets them or a GPU computes them."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from triton_kernels import needs_triton


def run_checks(**environment: str) -> str:
    """Run the checks of the kernels in a process of its own, and return its last line."""
    tests = Path(__file__).parent
    files = ("test_cuda_attention.py", "test_cuda_feed_forward.py", "test_dispatch.py")
    options = ("-q", "-p", "no:cacheprovider", "-o", "python_functions=check_")
    command = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(
        command, cwd=tests, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@needs_triton
@pytest.mark.slow
def test_kernels_in_tritons_interpreter() -> None:
    if importlib.metadata.version("triton").startswith("3.6."):
        pytest.skip("NOT TESTED: kernels on a CPU; Triton 3.6 cannot interpret with NumPy 2.4")
    assert re.search(r"\d\d passed", run_checks(TRITON_INTERPRET="1"))


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: kernels on a GPU")
def test_kernels_on_a_gpu() -> None:
    assert re.search(r"\d\d passed", run_checks(TRITON_INTERPRET="0"))


def test_importing_fairweather_leaves_triton_alone() -> None:
    code = "import sys, fairweather; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
