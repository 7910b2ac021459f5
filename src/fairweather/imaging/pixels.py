"""Pixels of one type or size → another."""

from collections.abc import Callable

import numpy as np
from PIL import Image

BAND_PX = 1 << 20


def by_rows(
    function: Callable[..., np.ndarray], *arrays: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Fill `out`, (H, W, …), from bands of the arrays, so that few wide numbers live at a time."""
    rows = max(1, BAND_PX // out.shape[1])
    for top in range(0, len(out), rows):
        out[top : top + rows] = function(*(array[top : top + rows] for array in arrays))
    return out


def as_float(values: np.ndarray) -> np.ndarray:
    """Return any supported type as float32 in [0, 1]."""
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return values.astype(np.float32)


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Return uint8, uint16, or floats in [0, 1] as uint8, rounded; uint8 is not copied."""
    if pixels.dtype == np.uint8:
        return pixels
    out = np.empty(pixels.shape, np.uint8)
    if pixels.dtype == np.uint16:  # value × 255 / 65535
        return by_rows(lambda band: (band.astype(np.uint32) + 128) // 257, pixels, out=out)
    return by_rows(lambda band: np.rint(band * 255), pixels, out=out)


def quantise(values: np.ndarray, *, out: np.ndarray) -> None:
    """Write floats into an array of any type, clipped to [0, 1]; integers get their full range."""
    clipped = np.clip(values, 0, 1)
    if np.issubdtype(out.dtype, np.integer):
        clipped *= np.float32(np.iinfo(out.dtype).max)
        np.rint(clipped, out=clipped)
    out[...] = clipped


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 at another (height, width), antialiased."""
    height, width = max(1, size[0]), max(1, size[1])
    scaled = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BICUBIC, reducing_gap=3
    )
    return np.asarray(scaled)
