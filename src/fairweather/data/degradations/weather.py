"""Synthetic bad weather of every kind, for weights that restore whatever the weather did."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fairweather.data.degradations.haze import add_haze
from fairweather.data.degradations.rain import add_rain
from fairweather.data.degradations.raindrop import add_raindrops
from fairweather.data.degradations.snow import add_snow

WEATHERS = {"rain": add_rain, "raindrop": add_raindrops, "haze": add_haze, "snow": add_snow}


def add_weather(
    clean: Tensor, *, generator: torch.Generator, shares: Mapping[str, float] | None = None
) -> Tensor:
    """Give each image of a batch rain, raindrops, haze or snow.

    The `shares`, by the keys of `WEATHERS` and in any unit, tell how often each of them comes: all
    as often if None, and those left out never.
    """
    if shares is None:
        drawn = torch.randint(len(WEATHERS), (len(clean),), generator=generator)
    else:
        weights = torch.tensor([shares.get(task, 0.0) for task in WEATHERS])
        drawn = torch.multinomial(weights, len(clean), replacement=True, generator=generator)
    degraded = clean.clone()
    for kind, degradation in enumerate(WEATHERS.values()):
        chosen = (drawn == kind).to(clean.device)
        if chosen.any():
            degraded[chosen] = degradation(clean[chosen], generator=generator)
    return degraded
