"""The named operations of ast.py and astv2.py, and how a call of one finds a faster backend.

`@operation` marks a formula. A call looks for a backend of the device that its first argument is
on, and computes the formula where there is none. Each device has a room in this folder with a
function `find`, which is imported when the first tensor of that device comes; the room alone
decides what it takes. torch.compile, torch.export and tracers always see the formula, so that what
they make of it runs anywhere.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Generic, Literal, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

ROOMS = {"cpu": "cpu", "cuda": "cuda"}

Mode = Literal["plain", "default", "all"]
_mode: Mode = "default"


class Operation(Generic[P, R]):
    """A formula of ast.py that a device may have a faster backend for.

    Attributes:
        formula: the operation in plain PyTorch, which says what is computed.
        name: of the operation.
    """

    def __init__(self, formula: Callable[P, R]):
        functools.update_wrapper(self, formula)
        self.formula = formula
        self.name = formula.__name__

    def __call__(self, *args: P.args, **options: P.kwargs) -> R:
        """Compute the operation on its first argument, a tensor, as fast as its device can."""
        if torch.compiler.is_compiling() or _mode == "plain":
            return self.formula(*args, **options)
        return self._find_backend(args, options)(*args, **options)

    def _find_backend(self, args: Any, options: Any) -> Callable[P, R]:
        room = ROOMS.get(args[0].device.type)
        if room is None or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            return self.formula
        find = import_module(f"{__package__}.{room}").find
        return find(self, args, options, asked=_mode == "all") or self.formula


def operation(formula: Callable[P, R]) -> Operation[P, R]:
    """Mark a formula whose first argument is a tensor as an operation that may have backends."""
    return Operation(formula)


def plain_kernels() -> AbstractContextManager[None]:
    """Compute all models of the process in plain PyTorch within the block: for comparisons."""
    return _in_mode("plain")


def gpu_kernels() -> AbstractContextManager[None]:
    """Compute with the fused GPU kernels within the block, wherever they run.

    They are off by default on GPUs without a committed measurement (see `fast/cuda.py`); the
    environment variable FAIRWEATHER_KERNELS=1 does the same for a whole process. Elsewhere than on
    an NVIDIA GPU this changes nothing.
    """
    return _in_mode("all")


@contextmanager
def _in_mode(mode: Mode) -> Iterator[None]:
    global _mode
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before
