"""Synthetic raindrops on the lens or a window: clean photographs → the same scenes through drops.

A drop is a small lens: through it the scene appears upside down, shrunken and out of focus, with a
dark rim where light is bent away from the camera (as in the data of Qian et al., "Attentive
Generative Adversarial Network for Raindrop Removal", CVPR 2018).
Here drops are bumps of a height field, and the scene is sampled along the field's slope.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class RaindropRanges:
    """From what each parameter of an image through drops is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs through wet windows.

    Attributes:
        drops: how many drops for 128 × 128 px; images of other areas get more or fewer.
        radius_px: of a drop, log-uniform.
        elongation: height of a drop over its width.
        irregularity: how far a drop's rim departs from an ellipse.
        refraction: how far a drop's rim looks away, as a multiple of its radius.
        defocus_px: blur of the scene seen through a drop, and of the drop's edge.
        rim: how much darker the rim is than the middle.
        gain: brightness inside a drop against the scene.
    """

    drops: tuple[float, float] = (2.0, 24.0)
    radius_px: tuple[float, float] = (3.0, 20.0)
    elongation: tuple[float, float] = (0.8, 1.7)
    irregularity: tuple[float, float] = (0.0, 0.35)
    refraction: tuple[float, float] = (1.5, 5.0)
    defocus_px: tuple[float, float] = (0.8, 4.0)
    rim: tuple[float, float] = (0.0, 0.5)
    gain: tuple[float, float] = (0.75, 1.2)


def add_raindrops(
    clean: Tensor, *, generator: torch.Generator, ranges: RaindropRanges | None = None
) -> Tensor:
    """Looks at a batch of clean images through drops; every image gets drops of its own.

    Args:
        clean: (B, 3, H, W) RGB in [0, 1], at least 16×16.
        generator: a CPU generator; the same seed gives the same drops on every device.
        ranges: what to draw the parameters from.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    ranges = ranges or RaindropRanges()
    batch, _, height, width = clean.shape
    dice = Dice(generator, clean.device)
    defocus_px = dice.uniform(ranges.defocus_px, batch, 1, 1, 1)
    cover, offset_row, offset_column = drop_field(dice, ranges, batch=batch, size=(height, width))
    cover = gaussian_blur(cover, 0.5 * defocus_px)
    blurred = gaussian_blur(clean, defocus_px)
    row = torch.arange(height, device=clean.device).view(1, height, 1) - offset_row
    column = torch.arange(width, device=clean.device).view(1, 1, width) - offset_column
    grid = torch.stack((2 * (column + 0.5) / width - 1, 2 * (row + 0.5) / height - 1), -1)
    refracted = F.grid_sample(blurred, grid, padding_mode="reflection", align_corners=False)
    steepness = torch.hypot(offset_row, offset_column)[:, None]
    steepness = steepness / steepness.amax((-2, -1), keepdim=True).clamp(min=1e-6)
    shade = 1 - dice.uniform(ranges.rim, batch, 1, 1, 1) * steepness
    drop = refracted * shade * dice.uniform(ranges.gain, batch, 1, 1, 1)
    return torch.lerp(clean, drop.clamp(0, 1), cover.expand_as(clean)).clamp(0, 1)


def drop_field(
    dice: Dice, ranges: RaindropRanges, *, batch: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where drops are, (B, 1, H, W) in [0, 1], and how far they bend the view down and right."""
    height, width = size
    density = height * width / 128**2
    most = max(1, round(ranges.drops[1] * density))
    counts = dice.uniform(ranges.drops, batch) * density
    parts = {
        name: dice.uniform(bounds, most, batch, 1, 1)
        for name, bounds in {
            "row": (0.0, float(height)),
            "column": (0.0, float(width)),
            "elongation": ranges.elongation,
            "irregularity": ranges.irregularity,
            "phase": (0.0, 2 * torch.pi),
            "refraction": ranges.refraction,
        }.items()
    }
    radii_px = dice.log_uniform(ranges.radius_px, most, batch, 1, 1).clamp(max=min(size) / 4)
    row = torch.arange(height, device=dice.device).view(1, height, 1)
    column = torch.arange(width, device=dice.device).view(1, 1, width)
    cover = torch.zeros(batch, height, width, device=dice.device)
    offsets = [torch.zeros_like(cover), torch.zeros_like(cover)]
    for number in range(most):
        down = (row - parts["row"][number]) / parts["elongation"][number]
        right = column - parts["column"][number]
        bearing = torch.atan2(down, right)
        wobble = 1 + parts["irregularity"][number] * (2 * bearing + parts["phase"][number]).sin()
        distance = torch.hypot(down, right) / (radii_px[number] * wobble)
        inside = (distance < 1) & (number < counts).view(batch, 1, 1).to(dice.device)
        # A drop's slope grows towards its rim: the middle looks straight, the rim far away.
        bend = parts["refraction"][number] * distance.clamp(max=1)
        cover = torch.where(inside, (4 * (1 - distance)).clamp(0, 1), cover)
        offsets[0] = torch.where(inside, down * bend, offsets[0])
        offsets[1] = torch.where(inside, right * bend, offsets[1])
    return cover[:, None], offsets[0], offsets[1]


def gaussian_blur(image: Tensor, sigma_px: Tensor) -> Tensor:
    """Blurs every image of (B, C, H, W) with its own σ (B, 1, 1, 1), reflected at the borders."""
    batch, channels, height, width = image.shape
    radius = min(int(3 * float(sigma_px.max()) + 1), height - 1, width - 1)
    at = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (at / sigma_px.view(batch, 1).clamp(min=0.05)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    stacked = F.pad(image, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    stacked = F.conv2d(stacked, kernel[:, None, :, None], groups=batch * channels)
    return F.conv2d(stacked, kernel[:, None, None, :], groups=batch * channels).view_as(image)
