"""Which backends of named operations a CPU has, and what they take."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fairweather.models.fast.cpu_channels import run_in_bands
from fairweather.models.fast.cpu_strips import (
    convolve_to_image,
    needed_sides,
    run_in_strips,
    runs_here,
    runs_in_strips,
)

BACKENDS: dict[str, Callable[..., Any]] = {
    "run_block": run_in_strips,
    "run_channel_block": run_in_bands,
    "sides_to_compute": needed_sides,
    "convolve_to_image": convolve_to_image,
}


def find(operation: Any, args: Any, options: Any, **_: Any) -> Callable[..., Any] | None:
    """Return the backend of an operation for these arguments; None if there is none."""
    backend = BACKENDS.get(operation.name)
    if backend is None or not runs_here(args[0]):
        return None
    if backend is run_in_strips and not runs_in_strips(args[1]):
        return None
    if backend is run_in_bands and not (runs_in_strips(args[1]) and is_float32(*args)):
        return None
    if backend is convolve_to_image and not isinstance(args[1], nn.Conv2d):
        return None
    return backend


def is_float32(x: torch.Tensor, block: nn.Module) -> bool:
    """Return whether a block and what it is applied to are in float32."""
    return all(each.dtype == torch.float32 for each in (x, *block.parameters()))
