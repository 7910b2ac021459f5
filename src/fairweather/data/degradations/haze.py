"""Synthetic haze: clean photographs → the same scenes behind scattering air.

Koschmieder's scattering model: I = J·t + A·(1 − t) with the transmission t = exp(−β·d) (Narasimhan
and Nayar, "Vision and the Atmosphere", IJCV 2002). There is no depth map, so the depth d is made of
what scenes have in common: a ground that recedes, objects that stand at depths of their own and
differ in colour from what is behind them, and smooth relief.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class HazeRanges:
    """From what each parameter of a hazy image is drawn, uniformly unless said otherwise.

    Attributes:
        density: β, optical thickness at the far end of the scene, log-uniform. RESIDE uses 0.6 to
            1.8 (Li et al., "Benchmarking Single-Image Dehazing and Beyond", TIP 2019). Thinner haze
            than here looks like a soft photograph, which is to be left alone.
        airlight: A, brightness of the haze; RESIDE uses 0.7 to 1.0.
        warmth: red of the airlight over its blue, log-uniform: from distant blue to dust.
        tint: largest deviation of its green from between them.
        near_depth: depth of the nearest point as a share of the farthest.
        spread: standard deviation of the depth over the image as a share of its range. With the
            density it was set so that the transmission varies as it does in pairs of RESIDE.
        ground: weight of the ground that recedes towards one side.
        ground_angle_deg: direction in which it recedes, 0 is upwards.
        horizon: how near the end of the ground is to the horizon: at 0 it recedes evenly, near 1
            it is close but for the last rows.
        objects: weight of the depths that follow the colours of the image.
        relief: weight of the smooth depth that keeps the edges of the image.
        patchiness: standard deviation of β over the image: haze in swathes.
    """

    density: tuple[float, float] = (0.8, 2.3)
    airlight: tuple[float, float] = (0.65, 1.0)
    warmth: tuple[float, float] = (0.82, 1.25)
    tint: float = 0.02
    near_depth: tuple[float, float] = (0.0, 0.4)
    spread: tuple[float, float] = (0.25, 0.45)
    ground: tuple[float, float] = (0.0, 1.0)
    ground_angle_deg: tuple[float, float] = (-40.0, 40.0)
    horizon: tuple[float, float] = (0.0, 0.9)
    objects: tuple[float, float] = (0.0, 0.6)
    relief: tuple[float, float] = (0.0, 0.5)
    patchiness: tuple[float, float] = (0.0, 0.15)


def add_haze(
    clean: Tensor, *, generator: torch.Generator, ranges: HazeRanges | None = None
) -> Tensor:
    """Put haze into a batch of clean images."""
    ranges = ranges or HazeRanges()
    batch, _, height, width = clean.shape
    shape = (batch, 1, 1, 1)
    dice = Dice(generator, clean.device)
    depth = guess_depth(clean, dice, ranges)
    patches = dice.smooth_noise(batch, 1, size=(height, width), cells=3)
    patches = 1 + patches * dice.uniform(ranges.patchiness, *shape)
    density = dice.log_uniform(ranges.density, *shape) * patches.clamp(min=0.2)
    red = dice.log_uniform(ranges.warmth, *shape).sqrt()
    green = 1 + dice.uniform((-ranges.tint, ranges.tint), *shape)
    colour = torch.cat((red, green, 1 / red), 1)
    colour = colour / colour.mean(1, keepdim=True)
    airlight = (dice.uniform(ranges.airlight, *shape) * colour).clamp(max=1)
    transmission = torch.exp(-density * depth)
    return (clean * transmission + airlight * (1 - transmission)).clamp(0, 1)


def guess_depth(clean: Tensor, dice: Dice, ranges: HazeRanges) -> Tensor:
    """A plausible depth (B, 1, H, W) in [0, 1] whose edges lie on edges of the image."""
    batch, _, height, width = clean.shape
    shape = (batch, 1, 1, 1)
    radius_px = max(4, min(height, width) // 12)
    row = torch.linspace(0.5, -0.5, height, device=clean.device).view(1, 1, height, 1)
    column = torch.linspace(-0.5, 0.5, width, device=clean.device).view(1, 1, 1, width)
    angle = dice.uniform(ranges.ground_angle_deg, *shape).deg2rad()
    far = 0.5 + (row * angle.cos() + column * angle.sin()) / (angle.cos().abs() + angle.sin().abs())
    horizon = dice.uniform(ranges.horizon, *shape)
    ground = (1 - horizon) * far / (1 - horizon * far)
    direction = dice.normal(batch, 3, 1, 1)
    colours = (clean * direction).sum(1, keepdim=True)
    objects = guided_filter(colours, colours, radius_px=radius_px, epsilon=0.02)
    objects = (1.5 * normalise(objects)).tanh()
    noise = dice.smooth_noise(batch, 1, size=(height, width), cells=2)
    noise = noise + 0.5 * dice.smooth_noise(batch, 1, size=(height, width), cells=6)
    relief = guided_filter(clean.mean(1, keepdim=True), noise, radius_px=radius_px)
    depth = normalise(ground) * dice.uniform(ranges.ground, *shape)
    depth = depth + objects * dice.uniform(ranges.objects, *shape)
    depth = depth + normalise(relief) * dice.uniform(ranges.relief, *shape)
    depth = (0.5 + normalise(depth) * dice.uniform(ranges.spread, *shape)).clamp(0, 1)
    near = dice.uniform(ranges.near_depth, *shape)
    return near + (1 - near) * depth


def normalise(field: Tensor) -> Tensor:
    """Every (H, W) of (B, 1, H, W) moved and scaled to mean 0 and deviation 1; flat ones stay 0."""
    centred = field - field.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=1e-4)


def guided_filter(
    guide: Tensor, values: Tensor, *, radius_px: int, epsilon: float = 1e-3
) -> Tensor:
    """Smooth values (B, 1, H, W) in windows of twice the radius, but keep the guide's edges.

    The fast guided filter (He and Sun, 2015): its coefficients are found on every fourth pixel.
    A guide of less variance than `epsilon` counts as flat.
    """
    step = min(4, *guide.shape[-2:])
    small_guide, small_values = (F.avg_pool2d(x, step, ceil_mode=True) for x in (guide, values))
    radius = max(1, radius_px // step)

    def mean(x: Tensor) -> Tensor:
        # Rows, then columns: the mean over a square at the price of two lines.
        for across in ((1, 0), (0, 1)):
            window = [1 + 2 * radius * axis for axis in across]
            pad = [radius * axis for axis in across]
            x = F.avg_pool2d(x, window, 1, pad, count_include_pad=False)
        return x

    mean_guide, mean_values = mean(small_guide), mean(small_values)
    covariance = mean(small_guide * small_values) - mean_guide * mean_values
    slope = covariance / (mean(small_guide.square()) - mean_guide.square() + epsilon)
    coefficients = torch.cat((mean(slope), mean(mean_values - slope * mean_guide)), 1)
    coefficients = F.interpolate(coefficients, size=guide.shape[-2:], mode="bilinear")
    return coefficients[:, :1] * guide + coefficients[:, 1:]
