"""What training minimises."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean of √(difference² + ε²) with ε = 1e-3, the official training loss."""
    return ((restored - clean).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": F.l1_loss,
}


def cosine_with_warmup(step: int, *, steps: int, warmup_steps: int, floor: float) -> float:
    """Share of the base learning rate at a step: linear up, then a cosine down to the floor."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + torch.tensor(progress * torch.pi).cos().item())
