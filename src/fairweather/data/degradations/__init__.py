"""Synthetic degradation: batches of clean images → the same scenes degraded, by task.

Every degradation is called alike, `add_rain(clean, generator=generator, ranges=None)`, and returns
(B, 3, H, W) in [0, 1]:

    clean      (B, 3, H, W) RGB in [0, 1], at least 16×16; every image gets a degradation of its own
    generator  a CPU generator; the same seed gives the same degradation on every device
    ranges     what to draw the parameters from, if not the defaults
"""

from collections.abc import Callable

from torch import Tensor

from fairweather.data.degradations.haze import HazeRanges, add_haze
from fairweather.data.degradations.moire import MoireRanges, add_moire
from fairweather.data.degradations.rain import RainRanges, add_rain
from fairweather.data.degradations.rain_layers import LayerRanges, RainLayers, split_layers
from fairweather.data.degradations.raindrop import RaindropRanges, add_raindrops
from fairweather.data.degradations.shadow import ShadowRanges, add_shadow
from fairweather.data.degradations.snow import SnowRanges, add_snow
from fairweather.data.degradations.weather import WEATHERS, add_weather

DEGRADATIONS: dict[str, Callable[..., Tensor]] = {
    **WEATHERS,
    "shadow": add_shadow,
    "moire": add_moire,
    "weather": add_weather,
}

__all__ = [
    "DEGRADATIONS",
    "WEATHERS",
    "HazeRanges",
    "LayerRanges",
    "MoireRanges",
    "RainLayers",
    "RainRanges",
    "RaindropRanges",
    "ShadowRanges",
    "SnowRanges",
    "add_haze",
    "add_moire",
    "add_rain",
    "add_raindrops",
    "add_shadow",
    "add_snow",
    "add_weather",
    "split_layers",
]
