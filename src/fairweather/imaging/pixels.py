"""Pixels of one type or size → another."""

import numpy as np
from PIL import Image


def as_float(values: np.ndarray) -> np.ndarray:
    """Any supported type → float32 in [0, 1]."""
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return values.astype(np.float32)


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8, uint16, or floats in [0, 1] → uint8, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.rint(pixels * 255).astype(np.uint8)


def quantise(values: np.ndarray, *, out: np.ndarray) -> None:
    """Writes floats into an array of any type, clipped to [0, 1]; integers get their full range."""
    clipped = np.clip(values, 0, 1)
    if np.issubdtype(out.dtype, np.integer):
        clipped *= np.float32(np.iinfo(out.dtype).max)
        np.rint(clipped, out=clipped)
    out[...] = clipped


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at another (height, width), antialiased."""
    height, width = max(1, size[0]), max(1, size[1])
    scaled = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BICUBIC, reducing_gap=3
    )
    return np.asarray(scaled)
