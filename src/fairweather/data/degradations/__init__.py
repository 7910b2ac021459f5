"""Synthetic damage: batches of clean images → the same scenes degraded, by task."""

from collections.abc import Callable

from torch import Tensor

from fairweather.data.degradations.rain import RainRanges, add_rain

DEGRADATIONS: dict[str, Callable[..., Tensor]] = {"rain": add_rain}

__all__ = ["DEGRADATIONS", "RainRanges", "add_rain"]
