"""Synthetic snow: clean photographs → the same scenes behind falling flakes and a veil.

Flakes lie in layers of growing distance: near ones are few, large, blurred by defocus and motion,
far ones many and small, as in Snow100K (Liu et al., "DesnowNet", TIP 2018); between them the snow
in the air acts like haze.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class SnowRanges:
    """From what each parameter of a snowy image is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs of snowfall.

    Attributes:
        layers: how many layers of flakes lie over each other.
        radius_px: radius of a flake, log-uniform for each layer.
        coverage: share of the image under the flakes of one layer, log-uniform.
        opacity: brightest value of a layer.
        softness: width of a flake's edge as a share of its radius: defocus.
        motion: length of a flake's path during the exposure as a multiple of its radius.
        angle_deg: direction of fall, 0 is straight down.
        brightness: of the flakes and of the veil.
        veil: share of the light that snow in the air scatters.
    """

    layers: tuple[int, int] = (1, 5)
    radius_px: tuple[float, float] = (0.6, 7.0)
    coverage: tuple[float, float] = (0.002, 0.12)
    opacity: tuple[float, float] = (0.3, 1.0)
    softness: tuple[float, float] = (0.2, 1.2)
    motion: tuple[float, float] = (0.0, 3.0)
    angle_deg: tuple[float, float] = (-50.0, 50.0)
    brightness: tuple[float, float] = (0.8, 1.0)
    veil: tuple[float, float] = (0.0, 0.25)


def add_snow(
    clean: Tensor, *, generator: torch.Generator, ranges: SnowRanges | None = None
) -> Tensor:
    """Lets snow fall over a batch of clean images; every image gets snow of its own.

    Args:
        clean: (B, 3, H, W) RGB in [0, 1], at least 16×16.
        generator: a CPU generator; the same seed gives the same snow on every device.
        ranges: what to draw the parameters from.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    ranges = ranges or SnowRanges()
    batch = len(clean)
    dice = Dice(generator, clean.device)
    white = dice.uniform(ranges.brightness, batch, 1, 1, 1).expand_as(clean)
    veil = dice.uniform(ranges.veil, batch, 1, 1, 1).expand_as(clean)
    snowy = torch.lerp(clean, white, veil)
    layers = flake_layers(dice, ranges, batch=batch, size=(clean.shape[2], clean.shape[3]))
    for layer in layers.split(1, dim=1):
        snowy = torch.lerp(snowy, white, layer.expand_as(snowy))
    return snowy.clamp(0, 1)


def flake_layers(dice: Dice, ranges: SnowRanges, *, batch: int, size: tuple[int, int]) -> Tensor:
    """How much the flakes of each layer cover: (B, layers, H, W) in [0, 1]."""
    most = ranges.layers[1]
    shape = (batch, most, 1, 1)
    number = torch.arange(most, device=dice.device).view(1, most, 1, 1)
    active = dice.uniform((ranges.layers[0], most + 1.0), batch, 1, 1, 1).floor() > number
    radius_px = dice.log_uniform(ranges.radius_px, *shape).clamp(max=min(size) / 8)
    flake = flake_profile(dice, ranges, size=size, radius_px=radius_px)
    area_px = flake.sum((-2, -1), keepdim=True)
    coverage = dice.log_uniform(ranges.coverage, *shape)
    draws = dice.uniform((0.0, 1.0), batch, most, *size)
    # The same draw decides where a flake is and how bright it is: rescaled, it is uniform again.
    flakes = (draws < coverage / area_px) * (0.5 + 0.5 * draws * area_px / coverage)
    drawn = torch.fft.irfft2(torch.fft.rfft2(flakes) * torch.fft.rfft2(flake), s=size)
    # Where the air is uneven, so is the snow in it, and no two flakes are alike.
    uneven = dice.smooth_noise(batch, most, size=size, cells=max(8, max(size) // 6))
    drawn = drawn * (1 + 0.35 * uneven).clamp(0, 1)
    return drawn.clamp(0, 1) * dice.uniform(ranges.opacity, *shape) * active


def flake_profile(
    dice: Dice, ranges: SnowRanges, *, size: tuple[int, int], radius_px: Tensor
) -> Tensor:
    """One flake for each layer, peak 1, centred on the corner of the torus: (B, layers, H, W).

    A disc with an uneven rim and a soft edge, drawn out along its path.
    """
    height, width = size
    shape = radius_px.shape
    row = torch.fft.fftfreq(height, 1 / height, device=dice.device).view(1, 1, height, 1)
    column = torch.fft.fftfreq(width, 1 / width, device=dice.device).view(1, 1, 1, width)
    angle = dice.uniform(ranges.angle_deg, shape[0], 1, 1, 1).deg2rad()
    along = row * angle.cos() + column * angle.sin()
    across = column * angle.cos() - row * angle.sin()
    path_px = radius_px * dice.uniform(ranges.motion, *shape)
    along = along - along.clamp(-path_px / 2, path_px / 2)
    distance = torch.hypot(along, across)
    bearing = torch.atan2(along, across)
    rim = torch.ones_like(distance)
    for lobes in (2, 3, 5):
        phase = dice.uniform((0.0, 2 * torch.pi), *shape)
        rim = rim + dice.uniform((0.0, 0.18), *shape) * (lobes * bearing + phase).cos()
    edge_px = (radius_px * dice.uniform(ranges.softness, *shape)).clamp(min=0.5)
    profile = ((rim * radius_px - distance) / edge_px + 0.5).clamp(0, 1)
    profile = profile * profile * (3 - 2 * profile)
    return profile / profile.amax((-2, -1), keepdim=True).clamp(min=1e-6)
