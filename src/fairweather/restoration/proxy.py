"""Degradation that is as large as the photograph, undone on a small version of it, the proxy.

A shadow multiplies the light by what hardly changes from pixel to pixel, so the factor that takes
it away can be found on a proxy, where the network sees the whole shadow at once, and be applied at
the full size, where every detail is kept. In between, the factor follows the photograph's own
edges: in each small window its logarithm is a linear function of the logarithm of the brightness, a
guided filter (He et al., "Guided Image Filtering", PAMI 2013; "Fast Guided Filter", 2015).

A network that is not sure changes a little everywhere. So the factors of a photograph that is
hardly changed count for nothing, and it comes back as it was.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.imaging import as_bytes, as_float, quantise, resized

DARKEST = 0.02  # is added to both, for a factor of nearly black is not to be had from 8 bits
RADIUS_PX = 1  # of the guided filter's windows, on the proxy
EVEN = 0.003  # variance of the logarithm of the brightness below which a window is one surface
UNNOTICED, CERTAIN = 0.15, 0.2  # root mean squares of the factors' logarithms: none, all of it
ROWS = 64  # of the photograph at a time


def make_proxy(pixels: np.ndarray, *, longest_px: int) -> np.ndarray:
    """A photograph scaled down, or as it is if it is small enough.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        longest_px: its longer side after that, at most.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    return resized(as_bytes(pixels), (round(height * scale), round(width * scale)))


def apply_from_proxy(
    pixels: np.ndarray,
    *,
    proxy: np.ndarray,
    restored: np.ndarray,
    out: np.ndarray,
    strength: float = 1.0,
) -> None:
    """Changes a photograph by the factors by which its proxy was changed.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        proxy: (h, w, 3) float32 in [0, 1].
        restored: the same, restored.
        out: (H, W, 3) to write to, of any of those types.
        strength: with which it was restored, in [0, 1]; less changes less, and is as certain.
    """
    height, width = pixels.shape[:2]
    factors = np.log((restored + DARKEST) / (proxy + DARKEST))
    factors *= certainty(factors / max(strength, 1e-6))
    maps = fit_factors(log_brightness(proxy), factors)
    factor_range = float(factors.min()), float(factors.max())
    maps = interpolate(maps, axis=1, length=width)(0, width)
    rows = interpolate(maps, axis=0, length=height)
    for start in range(0, height, ROWS):
        stop = min(start + ROWS, height)
        slope, offset = np.split(rows(start, stop), 2, axis=-1)
        values = as_float(pixels[start:stop])
        logarithms = (slope * log_brightness(values) + offset).clip(*factor_range)
        quantise((values + DARKEST) * np.exp(logarithms) - DARKEST, out=out[start:stop])


def certainty(factors: np.ndarray) -> float:
    """How much of the factors counts, in [0, 1], from their logarithms."""
    changed = float(np.sqrt(np.square(factors).mean()))
    return min(1.0, max(0.0, (changed - UNNOTICED) / (CERTAIN - UNNOTICED)))


def fit_factors(brightness: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The guided filter: factors as linear functions of the brightness in small windows.

    Args:
        brightness: (h, w, 1), logarithms.
        factors: (h, w, 3), logarithms.

    Returns:
        Slopes and offsets (h, w, 6).
    """
    guide, wanted = as_planes(brightness), as_planes(factors)
    mean, mean_wanted = window_mean(guide), window_mean(wanted)
    covariance = window_mean(guide * wanted) - mean * mean_wanted
    slope = covariance / (window_mean(guide.square()) - mean.square() + EVEN)
    maps = window_mean(torch.cat((slope, mean_wanted - slope * mean), 1))
    return maps[0].permute(1, 2, 0).numpy()


def log_brightness(values: np.ndarray) -> np.ndarray:
    """(H, W, 3) → (H, W, 1)."""
    return np.log(values.mean(-1, keepdims=True) + np.float32(DARKEST))


def as_planes(image: np.ndarray) -> Tensor:
    """(H, W, C) → (1, C, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def window_mean(planes: Tensor) -> Tensor:
    """The mean around each pixel of (1, C, H, W), whose border is repeated outwards."""
    side = 2 * RADIUS_PX + 1
    return F.avg_pool2d(F.pad(planes, (RADIUS_PX,) * 4, mode="replicate"), side, stride=1)


def interpolate(maps: np.ndarray, *, axis: int, length: int) -> Callable[[int, int], np.ndarray]:
    """Scales an array up along one axis, linearly between the middles of its pixels.

    Returns:
        What gives places start to stop of `length`.
    """
    before = maps.shape[axis]

    def part(start: int, stop: int) -> np.ndarray:
        place = (np.arange(start, stop) + 0.5) * (before / length) - 0.5
        place = place.clip(0, before - 1).astype(np.float32)
        first = np.floor(place).astype(int)
        shape = [1] * maps.ndim
        shape[axis] = -1
        share = (place - first).reshape(shape)
        second = (first + 1).clip(max=before - 1)
        low, high = (maps.take(index, axis) for index in (first, second))
        return low + share * (high - low)

    return part
