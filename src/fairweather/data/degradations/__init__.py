"""Synthetic degradation: batches of clean images → the same scenes degraded, by task.

Every degradation is called alike, `add_rain(clean, generator=generator, ranges=None)`, and returns
(B, 3, H, W) in [0, 1]:

    clean      (B, 3, H, W) RGB in [0, 1], at least 16×16; every image gets a degradation of its own
    generator  a CPU generator; the same seed gives the same degradation on every device
    ranges     what to draw the parameters from, if not the defaults
"""

from collections.abc import Callable

from torch import Tensor

from fairweather.data.degradations.low_light import add_low_light
from fairweather.data.degradations.moire import add_moire
from fairweather.data.degradations.motion_blur import add_motion_blur
from fairweather.data.degradations.shadow import add_shadow
from fairweather.data.degradations.weather import WEATHERS, add_weather

DEGRADATIONS: dict[str, Callable[..., Tensor]] = {
    **WEATHERS,
    "shadow": add_shadow,
    "moire": add_moire,
    "motion_blur": add_motion_blur,
    "low_light": add_low_light,
    "weather": add_weather,
}

__all__ = ["DEGRADATIONS", "WEATHERS"]
