"""Load for services: photographs in synthetic rain, and their order."""

import io
from collections.abc import Iterator

import numpy as np
import skimage.data
from PIL import Image

from fairweather.data import degrade_pixels
from fairweather.imaging import resized

# Longer sides [px], as often as they come.
SIZES = (200, 200, 320, 320, 500, 500, 800, 1200, 1732)


def make_photos() -> list[np.ndarray]:
    """Return rainy photographs from 200 px to 2 megapixels."""
    photo = np.ascontiguousarray(skimage.data.rocket())
    height, width = photo.shape[:2]
    photos = []
    for index, longest in enumerate(SIZES):
        small = resized(photo, (round(longest * height / width), longest))
        photos.append(degrade_pixels(small, task="rain", seed=index))
    return photos


def encoded(pixels: np.ndarray) -> bytes:
    """Return a PNG of an image."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def order() -> Iterator[int]:
    """Yield which photograph is next, without an end."""
    generator = np.random.default_rng(0)
    while True:
        yield from generator.permutation(len(SIZES)).tolist()
