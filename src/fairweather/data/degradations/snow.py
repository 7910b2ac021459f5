"""Synthetic snow: clean photographs → the same scenes behind falling flakes and a veil.

Flakes lie in layers of their own distance: near ones are few, large, blurred by defocus and motion,
far ones many and small, as the three sizes of Snow100K (Liu et al., "DesnowNet", TIP 2018); the
snow between them veils the scene (Chen et al., "JSTASR", ECCV 2020, equation 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fairweather.data.degradations.randomness import Dice, between, scatter, smooth_step

FILLED = 0.6  # share of a layer's cells that hold a flake
SMALLEST = 0.35  # smallest flake of a layer as a share of the largest


@dataclass(frozen=True)
class SnowRanges:
    """From what each parameter of a snowy image is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs of snowfall.

    Attributes:
        layers: how many layers of flakes lie over each other.
        radius_px: radius of the largest flake of a layer, log-uniform; at most a tenth of a side.
        coverage: share of the image under the flakes of one layer, log-uniform.
        opacity: brightest value of a layer; soft and fast flakes have less, their light is spread.
        softness: defocus: width of a flake's edge as a share of its radius, of a flake of 5 px;
            larger ones are nearer and softer.
        irregularity: how far a flake's rim departs from a disc.
        motion: longest path of a layer's flakes during the exposure as a multiple of their radius.
        angle_deg: direction of fall, 0 is straight down.
        flutter_deg: largest deviation of a flake from it.
        brightness: of the flakes and of the veil.
        tint: how much bluer than grey they are at most.
        veil_probability: how often there is a veil; one without flakes to be seen is haze.
        veil: share of the light that snow in the air scatters.
        patchiness: standard deviation of the veil over the image, as a share of it.
    """

    layers: tuple[int, int] = (2, 5)
    radius_px: tuple[float, float] = (0.7, 14.0)
    coverage: tuple[float, float] = (0.002, 0.06)
    opacity: tuple[float, float] = (0.6, 1.0)
    softness: tuple[float, float] = (0.5, 1.5)
    irregularity: tuple[float, float] = (0.1, 0.5)
    motion: tuple[float, float] = (0.0, 4.0)
    angle_deg: tuple[float, float] = (-50.0, 50.0)
    flutter_deg: tuple[float, float] = (0.0, 30.0)
    brightness: tuple[float, float] = (0.75, 1.0)
    tint: float = 0.05
    veil_probability: float = 0.25
    veil: tuple[float, float] = (0.02, 0.15)
    patchiness: tuple[float, float] = (0.0, 0.4)


def add_snow(
    clean: Tensor, *, generator: torch.Generator, ranges: SnowRanges | None = None
) -> Tensor:
    """Let snow fall over a batch of clean images."""
    ranges = ranges or SnowRanges()
    batch, _, height, width = clean.shape
    dice = Dice(generator, clean.device)
    layers = dice.uniform((ranges.layers[0], ranges.layers[1] + 1.0), batch, 1, 1).floor()
    angle = dice.uniform(ranges.angle_deg, batch, 1, 1).deg2rad()
    blue = torch.tensor((1.0, 0.6, 0.0), device=clean.device).view(1, 3, 1, 1)
    white = dice.uniform(ranges.brightness, batch, 1, 1, 1)
    white = (white * (1 - blue * dice.uniform((0.0, ranges.tint), batch, 1, 1, 1))).expand_as(clean)
    swathes = dice.smooth_noise(batch, 1, size=(height, width), cells=2)
    swathes = (1 + swathes * dice.uniform(ranges.patchiness, batch, 1, 1, 1)).clamp(0, 2)
    has_veil = dice.chance(ranges.veil_probability, batch, 1, 1, 1)
    veil = dice.uniform(ranges.veil, batch, 1, 1, 1) * swathes * has_veil
    snowy = torch.lerp(clean, white, veil.expand_as(clean))
    for number in range(ranges.layers[1]):
        cover = flake_layer(dice, ranges, angle=angle, size=(height, width)) * (layers > number)
        snowy = torch.lerp(snowy, white, cover[:, None].expand_as(clean))
    return snowy.clamp(0, 1)


def flake_layer(dice: Dice, ranges: SnowRanges, *, angle: Tensor, size: tuple[int, int]) -> Tensor:
    """How much the flakes of a layer cover, (B, H, W) in [0, 1]; they fall at the angle [rad]."""
    shape = angle.shape
    radius_px = dice.log_uniform(ranges.radius_px, *shape).clamp(max=min(size) / 10)
    softness = dice.uniform(ranges.softness, *shape) * (0.4 + radius_px / 8)
    motion = dice.uniform(ranges.motion, *shape).minimum(min(size) / 8 / radius_px)
    # A disc of each size, drawn out along its path, in the share of the cells that hold one.
    sizes = FILLED * (1 + SMALLEST + SMALLEST**2) / 3
    area_px = sizes * radius_px.square() * (torch.pi + motion)
    spacing_px = (area_px / dice.log_uniform(ranges.coverage, *shape)).sqrt()
    reach_px = radius_px * (1 + ranges.irregularity[1] + 0.5 * softness + 0.5 * motion) + 0.5
    flakes = scatter(
        dice, size=size, reach_px=reach_px, spacing_px=spacing_px, smallest=SMALLEST, traits=6
    )
    down, right, traits = flakes.down, flakes.right, flakes.traits
    flutter = dice.uniform(ranges.flutter_deg, *shape).deg2rad()
    angle = angle + flutter * between((-1.0, 1.0), traits[0])
    radius_px = radius_px * flakes.scale
    along = down * angle.cos() + right * angle.sin()
    across = right * angle.cos() - down * angle.sin()
    path_px = radius_px * motion * traits[1]
    along = along - along.clamp(-path_px / 2, path_px / 2)
    bearing = torch.atan2(along, across)
    turn = 2 * torch.pi * traits[2]
    lobes = (2 * bearing + turn).cos() + (3 * bearing + 5 * turn).cos()
    lobes = 1 + 0.5 * between(ranges.irregularity, traits[3]) * lobes
    edge_px = (radius_px * softness).clamp(min=1.0)
    cover = smooth_step((lobes * radius_px - torch.hypot(along, across)) / edge_px + 0.5)
    bright = between((0.6, 1.0), traits[4]) * (traits[5] < FILLED)
    spread = (1 + 0.5 * softness.square()) * (1 + 0.3 * motion * traits[1])
    return cover * bright * dice.uniform(ranges.opacity, *shape) / spread
