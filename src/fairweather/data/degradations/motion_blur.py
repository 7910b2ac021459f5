"""Synthetic motion blur: photographs → the same scenes taken with an unsteady hand.

While the shutter is open the camera wanders, and a pixel gathers the light of all that passes by:
the photograph is convolved with the trajectory (Boracchi and Foi, "Modeling the performance of
image restoration from motion blur", IEEE TIP 2012). That is of light, not of the values of a file.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.data.degradations.light import GAMMA
from fairweather.data.degradations.randomness import Dice

MOMENTS = 96  # of the exposure; their light is split among the four pixels around each


@dataclass(frozen=True)
class MotionBlurRanges:
    """From what each parameter of a blurred image is drawn, uniformly unless said otherwise.

    Attributes:
        extent_px: larger side of what a point of light becomes [px], log-uniform.
        wander: how much the direction changes while the shutter is open, 0 is a straight line.
        noise: standard deviation of the noise that the blurred photograph has, log-uniform.
    """

    extent_px: tuple[float, float] = (4.0, 32.0)
    wander: tuple[float, float] = (0.0, 0.35)
    noise: tuple[float, float] = (1e-4, 1e-2)


def add_motion_blur(
    clean: Tensor, *, generator: torch.Generator, ranges: MotionBlurRanges | None = None
) -> Tensor:
    """Shake the camera that takes a batch of clean images, each in its own way."""
    ranges = ranges or MotionBlurRanges()
    dice = Dice(generator, clean.device)
    batch, channels, height, width = clean.shape
    kernels = draw_trajectories(dice, ranges, batch=batch)
    radius = kernels.shape[-1] // 2
    light = clean.clamp(0, 1) ** GAMMA
    # Beyond the border lies what is nearest to it, as far as that goes.
    for sides, length in (((radius, radius, 0, 0), width), ((0, 0, radius, radius), height)):
        light = F.pad(light, sides, mode="reflect" if radius < length else "replicate")
    kernels = kernels.repeat_interleave(channels, 0)[:, None]
    light = F.conv2d(light.flatten(0, 1)[None], kernels, groups=len(kernels))
    blurred = light.view_as(clean).clamp(0, 1) ** (1 / GAMMA)
    noise = dice.log_uniform(ranges.noise, batch, 1, 1, 1) * dice.normal(*clean.shape)
    return (blurred + noise).clamp(0, 1)


def draw_trajectories(dice: Dice, ranges: MotionBlurRanges, *, batch: int) -> Tensor:
    """Return what a point of light becomes, (B, side, side) of sum 1, centred."""
    turns = dice.normal(batch, MOMENTS) * dice.uniform(ranges.wander, batch, 1)
    start = dice.uniform((0.0, 2 * torch.pi), batch, 1)
    direction = start + turns.cumsum(1)
    places = torch.stack((direction.sin(), direction.cos()), -1).cumsum(1)
    extent = (places.amax(1) - places.amin(1)).amax(1).view(-1, 1, 1)
    places = places * (dice.log_uniform(ranges.extent_px, batch, 1, 1) / extent)
    places = places - places.mean(1, keepdim=True)
    radius = int(ranges.extent_px[1]) + 1  # the mean of an uneven path lies near one of its ends
    axis = torch.arange(-radius, radius + 1, device=places.device)
    near = (1 - (places[..., None] - axis).abs()).clamp(min=0)  # (B, moments, 2, side)
    return torch.einsum("bmr,bmc->brc", near[:, :, 0], near[:, :, 1]) / MOMENTS
