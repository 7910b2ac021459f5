"""The fused GPU kernels and their plain twins: that they agree, compile, and who gets which."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fairweather.models import ast, plain_kernels
from fairweather.models.ast import FeatureRefinement, WindowAttention
from fairweather.models.fast import dispatch as kernels

needs_triton = pytest.mark.skipif(
    not kernels.TRITON_INSTALLED,
    reason="NOT TESTED: the fused GPU kernels; Triton is not installed",
)


def run_checks(**environment: str) -> str:
    """Runs kernel_checks.py in a process of its own, and returns its last line."""
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "kernel_checks.py"]
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


def compile_kernel(kernel: Any, settings: dict[str, Any], kind: str) -> str:
    """Compiles a kernel for compute capability 9.0; returns what it takes of a multiprocessor."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    numbers = {"windows": "i32", "per_program": "i32", "height": "i32", "width": "i32"}
    wide = ("weight", "bias", "share", "parts", "bias_parts", "share_parts")
    types = {
        **dict.fromkeys(kernel.arg_names, f"*{kind}"),
        **dict.fromkeys(wide, "*fp32"),
        **numbers,
        "scale": "fp32",
        **dict.fromkeys(settings, "constexpr"),
    }
    signature = {name: types[name] for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types[name].startswith("*")
    }
    constants = {name: value for name, value in settings.items() if name in signature}
    options = {name: value for name, value in settings.items() if name not in signature}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return read_resources(compiled.asm["cubin"])


def read_resources(binary: bytes) -> str:
    """The line of cuobjdump, which comes with Triton: registers, stack, shared memory."""
    import triton

    path = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "--dump-resource-usage", path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_kernels_compile_for_a_gpu_and_fit_its_registers(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("NOT TESTED: kernels for a GPU; TRITON_INTERPRET=1 leaves nothing to compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from fairweather.models.fast import cuda_attention as attention
    from fairweather.models.fast import cuda_feed_forward as feed_forward

    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    windows = attention.launch_settings(
        dtype, channels=256, heads=8, window=8, shift=4, branches="both"
    )
    strips = feed_forward.launch_settings(128, gated=True, rows=feed_forward.FORWARD_ROWS)
    for kernel, settings in (
        (attention.attention_forward, windows),
        (attention.attention_backward, windows),
        (feed_forward.gelu_depthwise_forward, strips),
        (feed_forward.gelu_depthwise_backward_gate, strips),
        (feed_forward.gelu_depthwise_backward_filters, strips),
    ):
        usage = compile_kernel(kernel, settings, kind)
        assert re.search(r"REG:\d+ STACK:0 ", usage), usage  # a stack holds what was spilled


@pytest.mark.parametrize("branches", ["both", "dense", "sparse"])
@pytest.mark.parametrize("shifts", [False, True])
def test_plain_twin_is_the_modules_attention(
    branches: kernels.Branches, shifts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(12, 2, window=4, shifts=shifts, branches=branches).double()
    torch.nn.init.normal_(layer.bias_table)
    x = torch.randn(2, 12, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x)
        monkeypatch.setattr(ast, "fuses_windows", lambda x, **options: True)
        monkeypatch.setattr(ast, "window_attention", kernels.plain_window_attention)
        torch.testing.assert_close(layer(x), expected)


def test_plain_twin_is_the_modules_feed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = FeatureRefinement(8, 20).double()
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x)
        monkeypatch.setattr(ast, "fuses", lambda x: True)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"is_cuda": False}, False),
        ({"dtype": torch.float64}, False),
        ({"dtype": torch.bfloat16}, True),
        ({"major": 7}, False),
        ({"installed": False}, False),
        ({"shape": (1, 8, 8, 66)}, False),
        ({"window": 16}, False),
    ],
)
def test_who_gets_the_kernels(
    changes: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Any = SimpleNamespace(
        **{"is_cuda": True, "dtype": torch.float32, "device": "cuda:0", "major": 9, "window": 8}
        | {"installed": True, "shape": (1, 8, 8, 64)}
        | changes
    )
    monkeypatch.setattr(kernels, "TRITON_INSTALLED", case.installed)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: case)
    assert kernels.fuses_windows(case, heads=2, window=case.window) is expected
    with plain_kernels():
        assert not kernels.fuses_windows(case, heads=2, window=case.window)
        assert not kernels.fuses(case)


def test_importing_fairweather_leaves_triton_alone() -> None:
    code = "import sys, fairweather; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
