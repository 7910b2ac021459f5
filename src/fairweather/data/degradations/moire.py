"""Synthetic moiré: clean images → photographs of a screen that shows them.

A screen is a grid of red, green and blue stripes; the camera samples it with a grid of its own, one
colour at each pixel (Bayer), and guesses the other two. The beat of the two grids is the moiré
(Yuan et al., "AIM 2019 Challenge on Image Demoireing", section 2, simulate the same chain).
What the camera does next decides what is seen: the picture is scaled down, which takes the finest
pattern away, its colours are smoothed and its contrast is raised.
The result stays aligned with the input: only the phase of the screen's grid is bent, not the image.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.light import GAMMA
from fairweather.data.degradations.randomness import Dice, smooth_step


@dataclass(frozen=True)
class MoireRanges:
    """From what each parameter of a photographed screen is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographed screens and by measuring tone, colour and detail
    of pairs of Yu et al., "Towards Efficient and Scale-Robust Ultra-High-Definition Image
    Demoireing" (ECCV 2022).

    Attributes:
        pitch_px: sizes of a screen pixel on the sensor at which the grids beat slowest [sensor
            pixels]: one screen pixel for each sensor pixel, or for each pixel of one colour.
        detuning: how far the size is from one of these, as a share of it.
        angle_deg: rotation of the screen against the sensor.
        sweep: by how much the screen's frequency differs between the ends of the image, as lens and
            perspective make it [periods a sensor pixel]. It turns straight bands into arcs.
        bend: unevenness of the grid [screen pixels].
        contrast: how dark it is between the stripes.
        lines: how dark it is between the rows of a stripe, as a share of the contrast.
        scaling_px: blur of the pattern by scaling the picture down.
        chroma: share of the pattern's colour that the camera leaves.
        optics_px: blur of the picture.
        exponent: of the tone curve, log-uniform; above 1 darkens.
        steepness: how much steeper the tone curve is in the middle than at its ends.
        saturation: of the photograph against what the screen shows.
        gain: exposure.
        tint: largest deviation of red and blue from it: white balance.
        black: light that the screen and the room add.
    """

    pitch_px: tuple[float, ...] = (1.0, 2.0)
    detuning: tuple[float, float] = (-0.2, 0.2)
    angle_deg: tuple[float, float] = (-12.0, 12.0)
    sweep: tuple[float, float] = (0.0, 0.25)
    bend: tuple[float, float] = (0.0, 2.0)
    contrast: tuple[float, float] = (0.15, 1.0)
    lines: tuple[float, float] = (0.2, 1.0)
    scaling_px: tuple[float, float] = (0.3, 1.0)
    chroma: tuple[float, float] = (0.05, 0.5)
    optics_px: tuple[float, float] = (0.0, 0.5)
    exponent: tuple[float, float] = (0.65, 1.8)
    steepness: tuple[float, float] = (0.0, 0.8)
    saturation: tuple[float, float] = (0.7, 1.35)
    gain: tuple[float, float] = (0.8, 1.1)
    tint: float = 0.1
    black: tuple[float, float] = (0.0, 0.06)


def add_moire(
    clean: Tensor, *, generator: torch.Generator, ranges: MoireRanges | None = None
) -> Tensor:
    """Photograph a screen that shows each of a batch of clean images."""
    ranges = ranges or MoireRanges()
    shape = (len(clean), 1, 1, 1)
    dice = Dice(generator, clean.device)
    pattern = screen_grid(dice, ranges, batch=len(clean), size=(clean.shape[2], clean.shape[3]))
    pattern = gaussian_blur(demosaick(pattern), dice.uniform(ranges.scaling_px, *shape))
    grey = pattern.mean(1, keepdim=True)
    pattern = grey + (pattern - grey) * dice.uniform(ranges.chroma, *shape)
    seen = gaussian_blur(clean, dice.uniform(ranges.optics_px, *shape))
    # The pattern multiplies linear light: (J^2.2 · p)^(1/2.2).
    return develop(seen * pattern.clamp(min=0) ** (1 / GAMMA), dice, ranges)


def develop(photo: Tensor, dice: Dice, ranges: MoireRanges) -> Tensor:
    """What the camera makes of colours: exposure, white balance, tone curve and saturation."""
    shape = (len(photo), 1, 1, 1)
    red, blue = (1 + dice.uniform((-ranges.tint, ranges.tint), *shape) for _ in range(2))
    gain = torch.cat((red, torch.ones_like(red), blue), 1) * dice.uniform(ranges.gain, *shape)
    photo = (photo * gain).clamp(0, 1) ** dice.log_uniform(ranges.exponent, *shape)
    steepness = dice.uniform(ranges.steepness, *shape).expand_as(photo)
    photo = torch.lerp(photo, smooth_step(photo), steepness)
    grey = photo.mean(1, keepdim=True)
    photo = grey + (photo - grey) * dice.uniform(ranges.saturation, *shape)
    black = dice.uniform(ranges.black, *shape)
    return (black + (1 - black) * photo).clamp(0, 1)


def screen_grid(dice: Dice, ranges: MoireRanges, *, batch: int, size: tuple[int, int]) -> Tensor:
    """Light of the screen's stripes where the sensor samples them: (B, 3, H, W), mean about 1."""
    height, width = size
    shape = (batch, 1, 1, 1)
    middle = dice.uniform((0.0, 1.0), 2, *shape)
    row = torch.arange(height, device=dice.device).view(1, 1, height, 1) - middle[0] * height
    column = torch.arange(width, device=dice.device).view(1, 1, 1, width) - middle[1] * width
    slowest = torch.tensor(ranges.pitch_px, device=dice.device)
    chosen = dice.uniform((0.0, float(len(slowest))), *shape).long()
    pitch = slowest[chosen] * (1 + dice.uniform(ranges.detuning, *shape))
    angle = dice.uniform(ranges.angle_deg, *shape).deg2rad()
    bends = dice.smooth_noise(batch, 2, size=size, cells=1) * dice.uniform(ranges.bend, *shape)
    # A frequency that changes along the image is a phase with squares in it.
    swept = dice.uniform((-1.0, 1.0), 2, 3, *shape) * dice.uniform(ranges.sweep, *shape)
    squares = torch.stack(torch.broadcast_tensors(row * row, row * column, column * column))
    swept = (swept * squares / (2 * max(size))).sum(1)
    phase = dice.uniform((0.0, 1.0), 2, *shape)
    across = (column * angle.cos() - row * angle.sin()) / pitch + bends[:, :1] + swept[0] + phase[0]
    down = (column * angle.sin() + row * angle.cos()) / pitch + bends[:, 1:] + swept[1] + phase[1]
    stripe = torch.arange(3, device=dice.device).view(1, 3, 1, 1) / 3
    contrast = dice.uniform(ranges.contrast, *shape)
    stripes = 1 + contrast * (2 * torch.pi * (across - stripe)).cos()
    contrast = contrast * dice.uniform(ranges.lines, *shape)
    lines = 1 + contrast * (2 * torch.pi * down).cos()
    return stripes * lines


def demosaick(image: Tensor) -> Tensor:
    """Keep one colour at each pixel (Bayer, RGGB) and interpolate the others: (B, 3, H, W)."""
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


def gaussian_blur(image: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur every image of (B, C, H, W) with its own σ (B, 1, 1, 1), reflected at the borders."""
    batch, channels, height, width = image.shape
    radius = min(int(3 * float(sigma_px.max()) + 1), height - 1, width - 1)
    at = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (at / sigma_px.view(batch, 1).clamp(min=0.05)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    stacked = F.pad(image, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    stacked = F.conv2d(stacked, kernel[:, None, :, None], groups=batch * channels)
    return F.conv2d(stacked, kernel[:, None, None, :], groups=batch * channels).view_as(image)
