"""What Triton's interpreter lacks for our kernels: bfloat16 as a GPU computes with it."""

from typing import Any

import numpy as np


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
