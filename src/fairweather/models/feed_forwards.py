"""The feed-forward networks that official checkpoints may have in place of FRFN."""

import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.models.windows import convolve


class LocallyEnhancedFeedForward(nn.Module):
    """LeFF (Uformer, CVPR 2022), which official checkpoints may use."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        return self.project(F.gelu(convolve(F.gelu(self.expand(x)), self.depthwise)))


class PlainFeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        return self.project(F.gelu(self.expand(x)))
