"""Triton on a CPU: kernels compiled for a GPU, and bfloat16 for the interpreter, which lacks it."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="NOT TESTED: kernels compiled for a GPU; Triton is not installed, or interprets",
)


def repair_bfloat16() -> None:
    """Makes the interpreter round to bfloat16 and multiply matrices of it.

    It keeps bfloat16 as 16-bit integers; up to version 3.7 it cuts off bits where a GPU rounds to
    the nearest, and its matrix product multiplies the integers.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def widen(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        wide = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return TensorHandle(wide, tl.float32)

    def rounding_cast(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return cast(self, source, target)
        bits = np.ascontiguousarray(source.data).view(np.uint32)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # ties to even
        return TensorHandle(nearest.astype(np.uint16), tl.bfloat16)

    def widening_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widen(a), widen(b), *rest)

    InterpreterBuilder.cast_impl = rounding_cast
    InterpreterBuilder.create_dot = widening_dot


def compile_kernel(kernel: Any, settings: dict[str, Any], dtype: torch.dtype) -> str:
    """Compiles a kernel for compute capability 9.0; returns what it takes of a multiprocessor."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
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


def fits_registers(usage: str) -> bool:
    """Whether nothing was spilled: that lies on a stack."""
    return re.search(r"REG:\d+ STACK:0 ", usage) is not None
