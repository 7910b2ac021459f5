"""Synthetic degradation: batches of clean images → the same scenes degraded, by task."""

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
