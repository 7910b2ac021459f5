"""Synthetic haze: clean photographs → the same scenes behind scattering air.

Koschmieder's scattering model: I = J·t + A·(1 − t) with the transmission t = exp(−β·d). There is no
depth map, so the depth d is made of what scenes have in common: it grows towards one side, mostly
upwards; it varies smoothly; and it changes where the image changes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class HazeRanges:
    """From what each parameter of a hazy image is drawn, uniformly.

    Attributes:
        density: β, optical thickness at the far end of the scene. RESIDE uses 0.6 to 1.8 (Li et
            al., "Benchmarking Single-Image Dehazing and Beyond", TIP 2019); the range is wider on
            both sides, since real photographs are.
        airlight: A, brightness of the haze; RESIDE uses 0.7 to 1.0.
        tint: largest deviation of a channel of the airlight from grey.
        near_depth: depth of the nearest point as a share of the farthest.
        slope: weight of the depth that grows towards one side.
        slope_angle_deg: direction in which it grows, 0 is upwards.
        relief: weight of the depth that follows the image.
        patchiness: standard deviation of β over the image: haze in swathes.
    """

    density: tuple[float, float] = (0.3, 2.5)
    airlight: tuple[float, float] = (0.6, 1.0)
    tint: float = 0.05
    near_depth: tuple[float, float] = (0.05, 0.6)
    slope: tuple[float, float] = (0.0, 1.0)
    slope_angle_deg: tuple[float, float] = (-60.0, 60.0)
    relief: tuple[float, float] = (0.2, 1.0)
    patchiness: tuple[float, float] = (0.0, 0.15)


def add_haze(
    clean: Tensor, *, generator: torch.Generator, ranges: HazeRanges | None = None
) -> Tensor:
    """Puts haze into a batch of clean images; every image gets haze of its own.

    Args:
        clean: (B, 3, H, W) RGB in [0, 1], at least 16×16.
        generator: a CPU generator; the same seed gives the same haze on every device.
        ranges: what to draw the parameters from.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    ranges = ranges or HazeRanges()
    batch, _, height, width = clean.shape
    dice = Dice(generator, clean.device)
    depth = guess_depth(clean, dice, ranges)
    patches = dice.smooth_noise(batch, 1, size=(height, width), cells=3)
    patches = 1 + patches * dice.uniform(ranges.patchiness, batch, 1, 1, 1)
    density = dice.uniform(ranges.density, batch, 1, 1, 1) * patches.clamp(min=0.2)
    tint = 1 + dice.uniform((-ranges.tint, ranges.tint), batch, 3, 1, 1)
    airlight = (dice.uniform(ranges.airlight, batch, 1, 1, 1) * tint).clamp(max=1)
    transmission = torch.exp(-density * depth)
    return (clean * transmission + airlight * (1 - transmission)).clamp(0, 1)


def guess_depth(clean: Tensor, dice: Dice, ranges: HazeRanges) -> Tensor:
    """A plausible depth (B, 1, H, W) in [0, 1] whose edges lie on edges of the image."""
    batch, _, height, width = clean.shape
    row = torch.linspace(0.5, -0.5, height, device=clean.device).view(1, 1, height, 1)
    column = torch.linspace(-0.5, 0.5, width, device=clean.device).view(1, 1, 1, width)
    angle = dice.uniform(ranges.slope_angle_deg, batch, 1, 1, 1).deg2rad()
    slope = row * angle.cos() + column * angle.sin()
    coarse = dice.smooth_noise(batch, 1, size=(height, width), cells=2)
    fine = dice.smooth_noise(batch, 1, size=(height, width), cells=6)
    grey = clean.mean(1, keepdim=True)
    relief = guided_filter(grey, coarse + 0.5 * fine, radius_px=max(4, min(height, width) // 12))
    depth = slope * 2 * dice.uniform(ranges.slope, batch, 1, 1, 1)
    depth = depth + 0.4 * relief * dice.uniform(ranges.relief, batch, 1, 1, 1)
    low, high = depth.amin((-2, -1), keepdim=True), depth.amax((-2, -1), keepdim=True)
    near = dice.uniform(ranges.near_depth, batch, 1, 1, 1)
    return near + (1 - near) * (depth - low) / (high - low).clamp(min=1e-6)


def guided_filter(
    guide: Tensor, values: Tensor, *, radius_px: int, epsilon: float = 1e-3
) -> Tensor:
    """Smooths values but keeps the guide's edges.

    The fast guided filter (He and Sun, 2015): its coefficients are found on every fourth pixel.

    Args:
        guide: (B, 1, H, W).
        values: (B, 1, H, W).
        radius_px: half the side of the window.
        epsilon: variance of the guide under which it counts as flat.
    """
    step = min(4, *guide.shape[-2:])
    small_guide, small_values = (F.avg_pool2d(x, step, ceil_mode=True) for x in (guide, values))
    radius = max(1, radius_px // step)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    mean_guide, mean_values = mean(small_guide), mean(small_values)
    covariance = mean(small_guide * small_values) - mean_guide * mean_values
    slope = covariance / (mean(small_guide.square()) - mean_guide.square() + epsilon)
    coefficients = torch.cat((mean(slope), mean(mean_values - slope * mean_guide)), 1)
    coefficients = F.interpolate(coefficients, size=guide.shape[-2:], mode="bilinear")
    return coefficients[:, :1] * guide + coefficients[:, 1:]
