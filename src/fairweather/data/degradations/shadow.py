"""Synthetic shadows: clean photographs → the same scenes with part of the light taken away.

In linear light a shaded surface keeps the ambient share of its light, bluer than the sun's;
in the penumbra part of the sun is visible (Le and Samaras, "Shadow Removal via Shadow Image
Decomposition", ICCV 2019: a linear map of the lit colours in the shadow, and a soft matte).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fairweather.data.degradations.raindrop import gaussian_blur
from fairweather.data.degradations.randomness import Dice

GAMMA = 2.2


@dataclass(frozen=True)
class ShadowRanges:
    """From what each parameter of a shaded image is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs of shadows.

    Attributes:
        ambient: share of the linear light that stays in the umbra.
        blueness: how much more of the blue stays than of the red.
        penumbra_px: blur of the matte's edge, log-uniform.
        area: share of the image in the shadow.
        cells: bumps of the outline along the image: few make large smooth shapes.
        straight_probability: the outline is a straight edge, as of a building.
        texture: how uneven the umbra is.
    """

    ambient: tuple[float, float] = (0.12, 0.6)
    blueness: tuple[float, float] = (0.0, 0.35)
    penumbra_px: tuple[float, float] = (0.6, 12.0)
    area: tuple[float, float] = (0.1, 0.7)
    cells: tuple[int, int] = (1, 4)
    straight_probability: float = 0.3
    texture: tuple[float, float] = (0.0, 0.15)


def add_shadow(
    clean: Tensor, *, generator: torch.Generator, ranges: ShadowRanges | None = None
) -> Tensor:
    """Casts a shadow on each of a batch of clean images.

    Args:
        clean: (B, 3, H, W) RGB in [0, 1], at least 16×16.
        generator: a CPU generator; the same seed gives the same shadow on every device.
        ranges: what to draw the parameters from.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    ranges = ranges or ShadowRanges()
    batch, _, height, width = clean.shape
    dice = Dice(generator, clean.device)
    matte = shadow_matte(dice, ranges, batch=batch, size=(height, width))
    ambient = dice.uniform(ranges.ambient, batch, 1, 1, 1)
    blueness = dice.uniform(ranges.blueness, batch, 1, 1, 1)
    channel = torch.tensor((-0.5, 0.0, 0.5), device=clean.device).view(1, 3, 1, 1)
    uneven = dice.smooth_noise(batch, 1, size=(height, width), cells=3)
    uneven = 1 + uneven * dice.uniform(ranges.texture, batch, 1, 1, 1)
    kept = (ambient * (1 + blueness * channel) * uneven).clamp(0.02, 1)
    light = 1 - matte * (1 - kept)
    return (clean.clamp(min=0) ** GAMMA * light).clamp(0, 1) ** (1 / GAMMA)


def shadow_matte(dice: Dice, ranges: ShadowRanges, *, batch: int, size: tuple[int, int]) -> Tensor:
    """How much of the sun is hidden: (B, 1, H, W) in [0, 1], soft at the edge."""
    height, width = size
    least, most = ranges.cells
    smooth = torch.stack(
        [dice.smooth_noise(batch, 1, size=size, cells=cells) for cells in range(least, most + 1)]
    )
    chosen = dice.uniform((0.0, float(most + 1 - least)), batch).long()
    outline = smooth[chosen, torch.arange(batch, device=smooth.device)]
    row = torch.linspace(-1, 1, height, device=dice.device).view(1, 1, height, 1)
    column = torch.linspace(-1, 1, width, device=dice.device).view(1, 1, 1, width)
    angle = dice.uniform((0.0, 2 * torch.pi), batch, 1, 1, 1)
    edge = row * angle.sin() + column * angle.cos()
    straight = dice.chance(ranges.straight_probability, batch, 1, 1, 1)
    outline = torch.where(straight, edge, outline)
    area = dice.uniform(ranges.area, batch)
    levels = torch.stack(
        [one.flatten().quantile(1 - share) for one, share in zip(outline, area, strict=True)]
    )
    hidden = (outline > levels.view(batch, 1, 1, 1)).float()
    return gaussian_blur(hidden, dice.log_uniform(ranges.penumbra_px, batch, 1, 1, 1))
