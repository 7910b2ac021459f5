"""Synthetic moiré: clean images → photographs of a screen that shows them.

A screen is a grid of red, green and blue stripes; the camera samples it with a grid of its own, one
colour at each pixel (Bayer), and guesses the other two. The beat of the two grids is the moiré
(Yuan et al., "AIM 2019 Challenge on Image Demoireing", section 2, simulate the same chain).
The result stays aligned with the input: only the phase of the screen's grid is bent, not the image.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.raindrop import gaussian_blur
from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class MoireRanges:
    """From what each parameter of a photographed screen is drawn, uniformly.

    The ranges were set by looking at photographed screens.

    Attributes:
        pitch_px: size of a screen pixel on the sensor [sensor pixels]; near 1 and 2 it beats most.
        angle_deg: rotation of the screen against the sensor.
        bend: how far lens and perspective bend the grid [screen pixels].
        contrast: how dark it is between the stripes.
        optics_px: blur of the lens, which weakens the beat.
        gamma: exponent of the tone curve.
        gain: exposure of each channel.
        black: light that the screen and the room add.
    """

    pitch_px: tuple[float, float] = (0.8, 2.4)
    angle_deg: tuple[float, float] = (-25.0, 25.0)
    bend: tuple[float, float] = (0.0, 3.0)
    contrast: tuple[float, float] = (0.15, 0.9)
    optics_px: tuple[float, float] = (0.0, 0.7)
    gamma: tuple[float, float] = (0.75, 1.25)
    gain: tuple[float, float] = (0.8, 1.1)
    black: tuple[float, float] = (0.0, 0.08)


def add_moire(
    clean: Tensor, *, generator: torch.Generator, ranges: MoireRanges | None = None
) -> Tensor:
    """Photographs a screen that shows each of a batch of clean images.

    Args:
        clean: (B, 3, H, W) RGB in [0, 1], at least 16×16.
        generator: a CPU generator; the same seed gives the same moiré on every device.
        ranges: what to draw the parameters from.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    ranges = ranges or MoireRanges()
    batch = len(clean)
    dice = Dice(generator, clean.device)
    size = (clean.shape[2], clean.shape[3])
    emitted = clean.clamp(min=0) ** 2.2 * screen_grid(dice, ranges, batch=batch, size=size)
    seen = gaussian_blur(emitted, dice.uniform(ranges.optics_px, batch, 1, 1, 1))
    photo = demosaick(seen).clamp(0, 1) ** (1 / 2.2)
    gain = dice.uniform(ranges.gain, batch, 3, 1, 1)
    black = dice.uniform(ranges.black, batch, 1, 1, 1)
    gamma = dice.uniform(ranges.gamma, batch, 1, 1, 1)
    return (black + (1 - black) * gain * photo**gamma).clamp(0, 1)


def screen_grid(dice: Dice, ranges: MoireRanges, *, batch: int, size: tuple[int, int]) -> Tensor:
    """Light of the screen's stripes where the sensor samples them: (B, 3, H, W), mean about 1."""
    height, width = size
    row = torch.arange(height, device=dice.device).view(1, 1, height, 1)
    column = torch.arange(width, device=dice.device).view(1, 1, 1, width)
    angle = dice.uniform(ranges.angle_deg, batch, 1, 1, 1).deg2rad()
    pitch = dice.uniform(ranges.pitch_px, batch, 1, 1, 1)
    bend = dice.uniform(ranges.bend, batch, 1, 1, 1)
    bends = dice.smooth_noise(batch, 2, size=size, cells=1) * bend
    across = (column * angle.cos() - row * angle.sin()) / pitch + bends[:, :1]
    down = (column * angle.sin() + row * angle.cos()) / pitch + bends[:, 1:]
    stripe = torch.arange(3, device=dice.device).view(1, 3, 1, 1) / 3
    contrast = dice.uniform(ranges.contrast, batch, 1, 1, 1)
    stripes = 1 + contrast * (2 * torch.pi * (across - stripe)).cos()
    lines = 1 + 0.5 * contrast * (2 * torch.pi * down).cos()
    return stripes * lines


def demosaick(image: Tensor) -> Tensor:
    """Keeps one colour at each pixel (Bayer, RGGB) and interpolates the others: (B, 3, H, W)."""
    height, width = image.shape[-2:]
    row = torch.arange(height, device=image.device).view(height, 1) % 2
    column = torch.arange(width, device=image.device).view(1, width) % 2
    masks = torch.stack(((row + column) == 0, (row + column) == 1, (row * column) == 1))
    masks = masks.to(image.dtype)[None]
    kernel = torch.tensor((0.5, 1.0, 0.5), device=image.device, dtype=image.dtype)
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)

    def spread(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)

    return spread(image * masks) / spread(masks)
