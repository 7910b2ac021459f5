"""Synthetic degradation: batches of clean images → the same scenes degraded, by task.

Every degradation is called alike, `add_rain(clean, generator=generator, ranges=None)`, and returns
(B, 3, H, W) in [0, 1]:

    clean      (B, 3, H, W) RGB in [0, 1], at least 16×16; every image gets a degradation of its own
    generator  a CPU generator; the same seed gives the same degradation on every device
    ranges     what to draw the parameters from, if not the defaults
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fairweather.data.degradations.haze import HazeRanges
from fairweather.data.degradations.low_light import LowLightRanges, add_low_light
from fairweather.data.degradations.moire import MoireRanges, add_moire
from fairweather.data.degradations.motion_blur import MotionBlurRanges, add_motion_blur
from fairweather.data.degradations.rain import RainRanges
from fairweather.data.degradations.raindrop import RaindropRanges
from fairweather.data.degradations.shadow import ShadowRanges, add_shadow
from fairweather.data.degradations.snow import SnowRanges
from fairweather.data.degradations.weather import WEATHERS, add_weather
from fairweather.errors import OptionError

DEGRADATIONS: dict[str, Callable[..., Tensor]] = {
    **WEATHERS,
    "shadow": add_shadow,
    "moire": add_moire,
    "motion_blur": add_motion_blur,
    "low_light": add_low_light,
    "weather": add_weather,
}

RANGES: dict[str, type] = {
    "rain": RainRanges,
    "raindrop": RaindropRanges,
    "haze": HazeRanges,
    "snow": SnowRanges,
    "shadow": ShadowRanges,
    "moire": MoireRanges,
    "motion_blur": MotionBlurRanges,
    "low_light": LowLightRanges,
}


def ranges_of(task: str, changes: Mapping[str, float | Sequence[float]]) -> Any:
    """Return from what the parameters of a degradation are drawn, its defaults but for the changes.

    Args:
        task: a key of `RANGES`.
        changes: by the name of the parameter, the least and the greatest value, or one number
            where the default is one, as in {"radius_px": (3, 60), "tint": 0.1}.

    Raises:
        OptionError: a degradation without ranges, a name it does not have, or values that do not
            go with it.
    """
    if task not in RANGES:
        raise OptionError(f"degradation {task!r}: has no ranges; these have: {', '.join(RANGES)}")
    ranges = RANGES[task]()
    defaults = {field.name: getattr(ranges, field.name) for field in dataclasses.fields(ranges)}
    kept = {}
    for name, value in changes.items():
        if name not in defaults:
            raise OptionError(f"range {name!r}: {task} has none; it has {', '.join(defaults)}")
        kept[name] = _range(name, value, default=defaults[name])
    return dataclasses.replace(ranges, **kept)


def _range(name: str, value: float | Sequence[float], *, default: Any) -> Any:
    if not isinstance(default, tuple):
        if isinstance(value, Sequence):
            raise OptionError(f"range {name!r}: takes one number, as its default {default}")
        return value
    told = f"its default is {list(default)}"
    if not isinstance(value, Sequence) or len(value) != len(default) or value[0] > value[-1]:
        raise OptionError(f"range {name!r}: takes the least and the greatest value; {told}")
    if not all(isinstance(number, int) for number in default):
        return tuple(value)
    if any(number != int(number) for number in value):
        raise OptionError(f"range {name!r}: takes whole numbers; {told}")
    return tuple(int(number) for number in value)


__all__ = ["DEGRADATIONS", "RANGES", "WEATHERS", "ranges_of"]
