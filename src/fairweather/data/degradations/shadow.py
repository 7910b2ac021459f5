"""Synthetic shadows: clean photographs → the same scenes with part of the light taken away.

In linear light a shaded surface keeps the ambient share of its light, outdoors bluer than the
sun's, indoors often yellower; in the penumbra part of the source is visible (Le and Samaras,
"Shadow Removal via Shadow Image Decomposition", ICCV 2019: a linear map of the lit colours in the
shadow, and a soft matte). The matte is a function of the signed distance to an outline, so that a
penumbra of any width costs the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fairweather.data.degradations.light import GAMMA
from fairweather.data.degradations.randomness import Dice, smooth_step

SIDES = 4
LIMBS = 5


@dataclass(frozen=True)
class ShadowRanges:
    """From what each parameter of a shaded image is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs of shadows and by measuring pairs with and without
    one: pages in a room (Jung et al., "Water-Filling: An Efficient Algorithm for Digitized Document
    Shadow Removal", ACCV 2018), where half of the shadow is penumbra, and pavements in the sun.

    Attributes:
        ambient: share of the linear light that stays in the umbra, log-uniform.
        blue_over_red: by how much more of the blue stays than of the red, log-uniform; above 1
            under a blue sky, below among warm walls.
        penumbra: width of the soft edge as a share of the longer side, log-uniform.
        widening: how far that width differs from one end of the image to the other, as when the
            shadow starts at an object's foot.
        area: share of the image in the shadow.
        texture: how uneven the umbra is.
    """

    ambient: tuple[float, float] = (0.1, 0.65)
    blue_over_red: tuple[float, float] = (0.65, 2.6)
    penumbra: tuple[float, float] = (0.004, 0.5)
    widening: tuple[float, float] = (0.0, 0.9)
    area: tuple[float, float] = (0.06, 0.65)
    texture: tuple[float, float] = (0.0, 0.15)


def add_shadow(
    clean: Tensor, *, generator: torch.Generator, ranges: ShadowRanges | None = None
) -> Tensor:
    """Cast a shadow on each of a batch of clean images."""
    ranges = ranges or ShadowRanges()
    batch, _, height, width = clean.shape
    dice = Dice(generator, clean.device)
    matte = shadow_matte(dice, ranges, batch=batch, size=(height, width))
    ambient = dice.log_uniform(ranges.ambient, batch, 1, 1, 1)
    blue = dice.log_uniform(ranges.blue_over_red, batch, 1, 1, 1)
    colour = blue ** torch.tensor((-0.5, 0.0, 0.5), device=clean.device).view(1, 3, 1, 1)
    uneven = dice.smooth_noise(batch, 1, size=(height, width), cells=3)
    uneven = 1 + uneven * dice.uniform(ranges.texture, batch, 1, 1, 1)
    kept = (ambient * colour * uneven).clamp(0.02, 1)
    # The linear map in gamma-encoded values: (J^γ · light)^(1/γ).
    return (clean * (1 - matte * (1 - kept)) ** (1 / GAMMA)).clamp(0, 1)


def shadow_matte(dice: Dice, ranges: ShadowRanges, *, batch: int, size: tuple[int, int]) -> Tensor:
    """How much of the source is hidden: (B, 1, H, W) in [0, 1], soft at the edge."""
    height, width = size
    longer = max(size)
    # The longer side is from −1 to 1; the ground is uneven, which bends every outline.
    row = torch.linspace(-height, height, height, device=dice.device).view(1, height, 1) / longer
    column = torch.linspace(-width, width, width, device=dice.device).view(1, 1, width) / longer
    bumps = dice.smooth_noise(2, batch, size=size, cells=6)
    bumps = bumps * dice.uniform((0.0, 0.02), batch, 1, 1)
    row, column = row + bumps[0], column + bumps[1]
    outlines = torch.stack(
        (
            convex(dice, row, column),
            limbs(dice, row, column),
            clumps(dice, batch=batch, size=size, cells=2),
            clumps(dice, batch=batch, size=size, cells=6),
        )
    )
    kind = dice.uniform((0.0, float(len(outlines))), batch).long()
    outside = outlines[kind, torch.arange(batch, device=dice.device)]
    area = dice.uniform(ranges.area, batch).tolist()
    step = max(1, longer // 256)  # a rough count is enough
    edges = [
        one[::step, ::step].flatten().quantile(share)
        for one, share in zip(outside, area, strict=True)
    ]
    outside = outside - torch.stack(edges).view(batch, 1, 1)
    angle = dice.uniform((0.0, 2 * torch.pi), batch, 1, 1)
    widening = 1 + dice.uniform(ranges.widening, batch, 1, 1) * (
        row * angle.sin() + column * angle.cos()
    ).clamp(-1, 1)
    # No edge is sharper than a pixel or so.
    soft = (2 * dice.log_uniform(ranges.penumbra, batch, 1, 1) * widening).clamp(min=3 / longer)
    return smooth_step(0.5 - outside / soft)[:, None]


def convex(dice: Dice, row: Tensor, column: Tensor) -> Tensor:
    """Signed distance to a convex outline of one to four straight sides: a wall, a board."""
    batch = len(row)
    sides = dice.uniform((1.0, SIDES + 1.0), batch, 1, 1).floor()
    first = dice.uniform((0.0, 2 * torch.pi), batch, 1, 1)
    middle = dice.uniform((-0.6, 0.6), 2, batch, 1, 1)
    down, right = row - middle[0], column - middle[1]
    distance = torch.full_like(down + right, -torch.inf)
    for number in range(SIDES):
        lean = dice.uniform((-0.3, 0.3), batch, 1, 1)
        away = dice.uniform((0.1, 0.8), batch, 1, 1)
        angle = first + lean + 2 * torch.pi * number / sides
        side = down * angle.sin() + right * angle.cos() - away
        distance = torch.where(sides > number, distance.maximum(side), distance)
    return distance


def limbs(dice: Dice, row: Tensor, column: Tensor) -> Tensor:
    """Signed distance to a chain of straight limbs, as of a person, a hand or a branch."""
    batch = len(row)
    distance = torch.full_like(row + column, torch.inf)
    starts = dice.uniform((-1.0, 1.0), LIMBS + 1, 2, batch, 1, 1)
    for number in range(LIMBS):
        # Every second limb hangs on the first one, the others on the one before.
        base = starts[0 if number % 2 else number]
        towards = starts[number + 1] - base
        along = (row - base[0]) * towards[0] + (column - base[1]) * towards[1]
        along = (along / towards.square().sum(0).clamp(min=1e-3)).clamp(0, 1)
        down, right = row - base[0] - along * towards[0], column - base[1] - along * towards[1]
        thick = dice.uniform((0.0, 0.25), batch, 1, 1) * (1 - 0.5 * along)
        distance = distance.minimum(torch.hypot(down, right) - thick)
    return distance


def clumps(dice: Dice, *, batch: int, size: tuple[int, int], cells: int) -> Tensor:
    """A fraction of the signed distance to ragged outlines: smooth noise with finer noise on it.

    Many cells give leaves and the light between them, few a bush, a crowd or a cloud. What casts
    them is deep, which makes their edges softer than a board's.
    """
    field = dice.smooth_noise(batch, size=size, cells=cells)
    field = field + 0.4 * dice.smooth_noise(batch, size=size, cells=3 * cells)
    field = field + 0.2 * dice.smooth_noise(batch, size=size, cells=9 * cells)
    return field / (8 * cells)
