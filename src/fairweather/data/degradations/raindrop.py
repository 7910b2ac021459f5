"""Synthetic raindrops on the lens or a window: clean photographs → the same scenes through drops.

A drop is a fish-eye lens: it shows a wide, shrunken, upside-down view of the surroundings, more sky
than the frame holds, and since the camera is focused far behind it, it is a soft disc that hides
the scene only in part (You et al., "Adherent Raindrop Modeling, Detection and Removal in Video",
TPAMI 2016, sections 3 and 4).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.randomness import Dice, between, scatter, smooth_step

FILLED = 0.7  # share of a layer's cells that hold a drop
SMALLEST = 0.4  # smallest drop of a layer as a share of the largest


@dataclass(frozen=True)
class RaindropRanges:
    """From what each parameter of an image through drops is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs through wet glass and at pairs of Qian et al.,
    "Attentive Generative Adversarial Network for Raindrop Removal" (CVPR 2018).

    Attributes:
        layers: how many layers of drops lie over each other.
        radius_px: of the largest drop of a layer, log-uniform; at most a quarter of a side.
        coverage: share of the image under the drops of one layer, log-uniform.
        elongation: height of a drop over its width.
        irregularity: how far a drop's rim departs from an ellipse.
        softness: width of a drop's edge as a share of its radius: the drop's own defocus.
        opacity: share of the light that comes through the drop rather than past it.
        view: side of the part of the scene that a drop shows, as a share of the image's.
        wander: how far the view is turned from behind the drop to the middle of the image.
        sky: share of skylight, as bright as the brightest part of the scene, at a drop's bottom.
        rim: how much darker the rim is than the middle; soft drops have less of it.
        glint: brightness of the sky's reflection; soft drops have less of it.
    """

    layers: tuple[int, int] = (1, 4)
    radius_px: tuple[float, float] = (3.0, 40.0)
    coverage: tuple[float, float] = (0.05, 0.4)
    elongation: tuple[float, float] = (0.9, 1.5)
    irregularity: tuple[float, float] = (0.0, 0.2)
    softness: tuple[float, float] = (0.15, 1.2)
    opacity: tuple[float, float] = (0.6, 1.0)
    view: tuple[float, float] = (0.3, 1.0)
    wander: tuple[float, float] = (0.0, 0.7)
    sky: tuple[float, float] = (0.1, 1.0)
    rim: tuple[float, float] = (0.0, 0.7)
    glint: tuple[float, float] = (0.0, 0.6)


def add_raindrops(
    clean: Tensor, *, generator: torch.Generator, ranges: RaindropRanges | None = None
) -> Tensor:
    """Look at a batch of clean images through drops."""
    ranges = ranges or RaindropRanges()
    batch = len(clean)
    dice = Dice(generator, clean.device)
    layers = dice.uniform((ranges.layers[0], ranges.layers[1] + 1.0), batch, 1, 1, 1).floor()
    wet = clean
    for number in range(ranges.layers[1]):
        cover, light = drop_layer(dice, ranges, clean=clean)
        wet = torch.lerp(wet, light.sqrt(), (cover * (layers > number)).expand_as(wet))
    return wet.clamp(0, 1)


def drop_layer(dice: Dice, ranges: RaindropRanges, *, clean: Tensor) -> tuple[Tensor, Tensor]:
    """How much drops cover, (B, 1, H, W), and the linear light through them, (B, 3, H, W)."""
    shape, size = (len(clean), 1, 1), (clean.shape[2], clean.shape[3])
    radius_px = dice.log_uniform(ranges.radius_px, *shape).clamp(max=min(size) / 4)
    softness = dice.uniform(ranges.softness, *shape)
    # An ellipse of the drop's area, a lobe of the rim and half of the edge reach this far.
    reach = max(ranges.elongation) ** 0.5 * (1 + ranges.irregularity[1] + 0.5 * softness)
    reach_px = reach * radius_px
    area_px = FILLED * torch.pi * radius_px.square() * (1 + SMALLEST + SMALLEST**2) / 3
    spacing_px = (area_px / dice.log_uniform(ranges.coverage, *shape)).sqrt()
    drops = scatter(
        dice, size=size, reach_px=reach_px, spacing_px=spacing_px, smallest=SMALLEST, traits=5
    )
    traits = drops.traits
    radius_px = radius_px * drops.scale
    elongation = between(ranges.elongation, traits[0]).sqrt()
    down, right = drops.down / (radius_px * elongation), drops.right * elongation / radius_px
    bearing = torch.atan2(down, right)
    turn = 2 * torch.pi * traits[1]
    lobes = 0.6 * (2 * bearing + turn).sin() + 0.4 * (3 * bearing + 5 * turn).sin()
    lobes = 1 + between(ranges.irregularity, traits[2]) * lobes
    down, right = down / lobes, right / lobes
    distance = torch.hypot(down, right)
    cover = smooth_step((1 - distance) / softness + 0.5) * (traits[3] < FILLED)
    cover = cover * between(ranges.opacity, traits[4])
    towards = torch.stack((down, right))
    return cover[:, None], look_through(
        dice, ranges, clean=clean, towards=towards, softness=softness
    )


def look_through(
    dice: Dice, ranges: RaindropRanges, *, clean: Tensor, towards: Tensor, softness: Tensor
) -> Tensor:
    """Linear light (B, 3, H, W) from each point of a drop: the scene, the sky, and the dark rim.

    A point lies `towards` (2, B, H, W) down and right of its drop's middle [radii]. The `softness`
    (B, 1, 1) blurs the view, which from 1 on is a mean of the surroundings.
    """
    batch, _, height, width = clean.shape
    shape = (batch, 1, 1)
    towards = towards.clamp(-1.5, 1.5)
    row = torch.linspace(-1, 1, height, device=clean.device).view(1, height, 1)
    column = torch.linspace(-1, 1, width, device=clean.device).view(1, 1, width)
    behind = torch.stack(torch.broadcast_tensors(row, column))
    # Upside down, wider towards the rim, and wherever the drop is, much of the same world.
    bend = dice.uniform(ranges.view, *shape) * (0.5 + 0.5 * towards.square().sum(0))
    seen = behind * (1 - dice.uniform(ranges.wander, *shape)) - bend * towards
    grid = torch.stack((seen[1], seen[0]), -1)
    scenes = [pool(clean.square(), pixels) for pixels in (48, 8)]
    sharp, soft = (
        F.grid_sample(scene, grid, padding_mode="reflection", align_corners=False)
        for scene in scenes
    )
    light = torch.lerp(sharp, soft, softness[:, None].clamp(0, 1).expand_as(sharp))
    # The sky that a drop shows at its bottom and mirrors at its top.
    skylight = scenes[1].amax((-2, -1), keepdim=True).expand_as(light)
    down, right = towards
    sky = dice.uniform(ranges.sky, *shape) * (0.5 + 0.5 * down).clamp(0, 1)
    light = torch.lerp(light, skylight, sky[:, None].expand_as(light))
    focus = (1 - softness).clamp(min=0)
    rim = dice.uniform(ranges.rim, *shape) * focus * towards.square().sum(0).square()
    light = light * (1 - rim).clamp(min=0)[:, None]
    glint = torch.exp(-30 * ((down + 0.45).square() + (right - 0.2).square()))
    glint = glint * focus * dice.uniform(ranges.glint, *shape)
    return torch.lerp(light, skylight, glint[:, None].expand_as(light)).clamp(0, 1)


def pool(image: Tensor, pixels: int) -> Tensor:
    """Average (B, C, H, W) over squares so that about `pixels` are left on the shorter side."""
    return F.avg_pool2d(image, max(1, min(image.shape[-2:]) // pixels), ceil_mode=True)
