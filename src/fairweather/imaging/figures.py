"""Pictures for people: input beside result."""

from pathlib import Path

import numpy as np
from PIL import Image

from fairweather.imaging.image import Photo, write_image

GAP_PX = 8
LONGEST_SIDE_PX = 2000


def write_side_by_side(path: Path, *photos: Photo) -> None:
    """Writes photos of one scene beside each other, scaled down to at most 2000 px each.

    Args:
        path: the file to write; one of that name is replaced.
        photos: of the same size.

    Raises:
        ImageError: if the file cannot be written.
    """
    panels = [thumbnail(photo) for photo in photos]
    gap = np.full((panels[0].shape[0], GAP_PX, 3), 255, np.uint8)
    row = [part for panel in panels for part in (panel, gap)][:-1]
    write_image(path, Photo(np.concatenate(row, axis=1)))


def thumbnail(photo: Photo) -> np.ndarray:
    """(h, w, 3) uint8, at most 2000 px a side; opacity is left out."""
    pixels = photo.pixels
    step = max(1, max(pixels.shape[:2]) // (2 * LONGEST_SIDE_PX))  # so that little is copied
    pixels = pixels[::step, ::step]
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)
