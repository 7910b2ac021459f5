"""Differences made visible: error maps, and crops where a model helped most and hurt most."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

CROP_PX = 96
GREATEST_ERROR = 0.25
# Black, purple, red, yellow, white: rising in brightness, so that it reads in grey too.
HEAT = np.array([[0, 0, 0], [0.35, 0, 0.45], [0.85, 0.1, 0.2], [1, 0.75, 0.1], [1, 1, 1]])


@dataclass(frozen=True)
class Crop:
    """A square of an image, and how much the mean squared error fell in it."""

    top: int
    left: int
    side_px: int
    gain: float

    def cut(self, image: np.ndarray) -> np.ndarray:
        """This part of (H, W, …)."""
        return image[self.top : self.top + self.side_px, self.left : self.left + self.side_px]


def error_map(restored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The mean absolute error of the channels in colours, black for none, white for 0.25 and more.

    Args:
        restored: (H, W, 3) in [0, 1].
        clean: likewise.

    Returns:
        (H, W, 3) uint8.
    """
    error = np.abs(restored - clean).mean(-1) / GREATEST_ERROR
    place = error.clip(0, 1) * (len(HEAT) - 1)
    colours = [np.interp(place, np.arange(len(HEAT)), HEAT[:, c]) for c in range(3)]
    return to_bytes(np.stack(colours, -1))


def telling_crops(
    degraded: np.ndarray, restored: np.ndarray, clean: np.ndarray, *, side_px: int = CROP_PX
) -> tuple[Crop, Crop]:
    """Where the squared error fell most, and where it fell least or rose.

    Args:
        degraded: (H, W, 3) in [0, 1].
        restored: likewise.
        clean: likewise.
        side_px: of the squares; as large as the image at most.
    """
    side_px = min(side_px, *clean.shape[:2])
    before, after = (np.square(image - clean).mean(-1) for image in (degraded, restored))
    # The sum of every square that lies inside the image, at its upper left corner.
    sums = np.pad(before.astype(np.float64) - after, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    down, up = slice(side_px, None), slice(None, sums.shape[0] - side_px)
    right, left = slice(side_px, None), slice(None, sums.shape[1] - side_px)
    inside = (sums[down, right] - sums[up, right] - sums[down, left] + sums[up, left]) / side_px**2
    return tuple(  # type: ignore[return-value]
        Crop(int(row), int(column), side_px, float(inside[row, column]))
        for row, column in (
            np.unravel_index(pick(inside), inside.shape) for pick in (np.argmax, np.argmin)
        )
    )


def strip(images: Sequence[np.ndarray], *, gap_px: int = 4) -> np.ndarray:
    """Images of one size beside each other with white between, (H, …, 3) uint8."""
    gap = np.full((images[0].shape[0], gap_px, 3), 255, np.uint8)
    parts = [part for image in images for part in (to_bytes(image), gap)]
    return np.concatenate(parts[:-1], axis=1)


def enlarged(image: np.ndarray, *, times: int) -> np.ndarray:
    """Each pixel as a square of pixels."""
    return image.repeat(times, 0).repeat(times, 1)


def fitted(image: np.ndarray, *, side_px: int) -> Image.Image:
    """For a page: no side longer than that."""
    picture = Image.fromarray(np.ascontiguousarray(to_bytes(image)))
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return picture


def jpeg_uri(picture: Image.Image, *, quality: int = 85) -> str:
    """As a data URI, so that a page asks for nothing."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] or bytes → bytes."""
    if image.dtype == np.uint8:
        return image
    return (image.clip(0, 1) * 255).round().astype(np.uint8)
