"""Where every degradation gets its random numbers and smooth random fields from."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class Dice:
    """Random numbers drawn on the CPU, so that a seed gives the same rain on every device."""

    def __init__(self, generator: torch.Generator, device: torch.device):
        self.generator = generator
        self.device = device

    def uniform(self, bounds: tuple[float, float], *shape: int) -> Tensor:
        """Uniform in the bounds."""
        low, high = bounds
        return (low + (high - low) * torch.rand(shape, generator=self.generator)).to(self.device)

    def log_uniform(self, bounds: tuple[float, float], *shape: int) -> Tensor:
        """Log-uniform in the bounds, which are above zero."""
        low, high = torch.tensor(bounds).log().tolist()
        return self.uniform((low, high), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator).to(self.device)

    def smooth_noise(self, *shape: int, size: tuple[int, int], cells: int) -> Tensor:
        """Fields (*shape, H, W) with about `cells` bumps along an axis, mean 0, deviation 1."""
        coarse = self.normal(math.prod(shape), 1, cells + 3, cells + 3)
        height, width = size
        field = F.interpolate(coarse, scale_factor=max(size) / cells, mode="bicubic")
        field = field[..., :height, :width].reshape(*shape, height, width)
        return (field - field.mean((-2, -1), keepdim=True)) / field.std((-2, -1), keepdim=True)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """True with the probability."""
        return self.uniform((0.0, 1.0), *shape) < probability
