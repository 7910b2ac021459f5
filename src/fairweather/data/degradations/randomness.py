"""What the degradations draw from: random numbers, smooth random fields, scattered particles."""

import math
from dataclasses import dataclass

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

    def one(self, bounds: tuple[float, float]) -> float:
        """One number, uniform in the bounds."""
        return self.uniform(bounds).item()

    def one_log(self, bounds: tuple[float, float]) -> float:
        """One number, log-uniform in the bounds."""
        return self.log_uniform(bounds).item()

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


@dataclass(frozen=True)
class Particles:
    """What each pixel knows of the one particle that may cover it.

    Attributes:
        down: how far the pixel lies below the particle's centre, (B, H, W) [pixels].
        right: how far it lies to the right of it, (B, H, W) [pixels].
        scale: size of the particle as a share of the largest, (B, H, W).
        traits: more numbers of the particle, uniform in [0, 1), (traits, B, H, W).
    """

    down: Tensor
    right: Tensor
    scale: Tensor
    traits: Tensor


def scatter(
    dice: Dice,
    *,
    size: tuple[int, int],
    reach_px: Tensor,
    spacing_px: Tensor,
    smallest: float,
    traits: int,
) -> Particles:
    """Scatter particles over images, one in each cell of a grid, never across its border.

    A pixel then needs to know only one particle, so that the cost is that of the image however many
    particles there are (as in Worley, "A Cellular Texture Basis Function", SIGGRAPH 1996).
    The grid is turned at random and each of its rows is shifted, so that it does not show.

    Args:
        dice: what to draw from.
        size: height and width of the images.
        reach_px: (B, 1, 1), how far the largest particle reaches, at least 1.
        spacing_px: (B, 1, 1), side of a cell; no less than twice the reach is used.
        smallest: scale of the smallest particle; scales are uniform up to 1.
        traits: how many more numbers each particle needs.
    """
    batch = len(reach_px)
    spacing_px = spacing_px.maximum(2 * reach_px)
    # The table's size must not depend on what was computed on a device, or a seed would draw other
    # numbers there; where an image has more cells, they repeat.
    cells = min(256, int(math.hypot(*size) / 4) + 2)
    table = dice.uniform((0.0, 1.0), 3 + traits, batch, cells * cells)
    start, shift = dice.uniform((0.0, 1.0), batch, 1, 1), dice.uniform((0.0, 1.0), batch, cells)
    turn = dice.uniform((0.0, 2 * math.pi), batch, 1, 1)
    sine, cosine = turn.sin(), turn.cos()
    y = torch.arange(size[0], device=dice.device).view(1, -1, 1) / spacing_px
    x = torch.arange(size[1], device=dice.device).view(1, 1, -1) / spacing_px
    row = y * cosine - x * sine + start
    number = (row.floor().long() % cells).flatten(1)
    column = y * sine + x * cosine + shift.gather(1, number).view_as(row)
    number = number * cells + column.floor().long().flatten(1) % cells
    values = table.gather(2, number.expand(3 + traits, -1, -1)).view(-1, *row.shape)
    scale = between((smallest, 1.0), values[2])
    margin = scale * reach_px / spacing_px
    row = (row - row.floor() - margin - (1 - 2 * margin) * values[0]) * spacing_px
    column = (column - column.floor() - margin - (1 - 2 * margin) * values[1]) * spacing_px
    return Particles(row * cosine + column * sine, column * cosine - row * sine, scale, values[3:])


def between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    """Uniform in the bounds for shares that are uniform in [0, 1]."""
    return bounds[0] + (bounds[1] - bounds[0]) * share


def smooth_step(x: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, 3x² − 2x³ between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
