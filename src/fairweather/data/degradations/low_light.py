"""Synthetic low light: photographs → the same scenes underexposed, with the noise of few photons.

Light is scaled down, and the sensor adds noise whose variance is linear in the signal, of photons
and of reading out (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for
single-image raw-data", IEEE TIP 2008). Dark photographs of LOL were taken with less exposure and
other ISO, and keep the tone curve of the camera (Wei et al., "Deep Retinex Decomposition for
Low-Light Enhancement", BMVC 2018).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fairweather.data.degradations.light import GAMMA
from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class LowLightRanges:
    """From what each parameter of a dark image is drawn, uniformly unless said otherwise.

    Attributes:
        stops: how many times the light is halved.
        cast: largest gain of red over green, or of blue, log-uniform around 1: a wrong white point.
        shot_noise: variance of photons' noise at full brightness of the dark image, log-uniform.
        read_noise: standard deviation of the noise of reading out, log-uniform.
    """

    stops: tuple[float, float] = (2.0, 5.5)
    cast: float = 1.15
    shot_noise: tuple[float, float] = (2e-5, 1e-3)
    read_noise: tuple[float, float] = (2e-4, 3e-3)


def add_low_light(
    clean: Tensor, *, generator: torch.Generator, ranges: LowLightRanges | None = None
) -> Tensor:
    """Take the light from a batch of clean images."""
    ranges = ranges or LowLightRanges()
    dice, batch = Dice(generator, clean.device), len(clean)
    exposure = 2 ** -dice.uniform(ranges.stops, batch, 1, 1, 1)
    gains = dice.log_uniform((1 / ranges.cast, ranges.cast), batch, 2, 1, 1)
    gains = torch.cat((gains[:, :1], torch.ones_like(gains[:, :1]), gains[:, 1:]), 1)
    light = clean.clamp(0, 1) ** GAMMA * exposure * gains
    shot = dice.log_uniform(ranges.shot_noise, batch, 1, 1, 1)
    read = dice.log_uniform(ranges.read_noise, batch, 1, 1, 1)
    light = light + (shot * light + read.square()).sqrt() * dice.normal(*clean.shape)
    return light.clamp(0, 1) ** (1 / GAMMA)
