"""Synthetic bad weather of every kind, for weights that restore whatever the weather did."""

import torch
from torch import Tensor

from fairweather.data.degradations.haze import add_haze
from fairweather.data.degradations.rain import add_rain
from fairweather.data.degradations.raindrop import add_raindrops
from fairweather.data.degradations.snow import add_snow

KINDS = (add_rain, add_raindrops, add_haze, add_snow)


def add_weather(clean: Tensor, *, generator: torch.Generator) -> Tensor:
    """Gives each image of a batch rain, raindrops, haze or snow, all as often.

    Args:
        clean: (B, 3, H, W) RGB in [0, 1], at least 16×16.
        generator: a CPU generator; the same seed gives the same weather on every device.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    drawn = torch.randint(len(KINDS), (len(clean),), generator=generator)
    degraded = clean.clone()
    for kind, damage in enumerate(KINDS):
        chosen = (drawn == kind).to(clean.device)
        if chosen.any():
            degraded[chosen] = damage(clean[chosen], generator=generator)
    return degraded
