"""The CPU's backends: with gradients those of `cpu_training`, without those of `cpu_strips`."""

from collections.abc import Callable
from typing import Any

import torch

from fairweather.models.fast import cpu_strips, cpu_training


def find(operation: Any, args: Any, options: Any, **_: Any) -> Callable[..., Any] | None:
    """Return the backend of an operation of ast.py for these arguments; None if there is none."""
    room = cpu_training if torch.is_grad_enabled() else cpu_strips
    return room.find(operation, args)
