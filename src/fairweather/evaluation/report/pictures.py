"""The pictures of a report: error maps, crops where a model helped most and least, PNG figures."""

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fairweather.evaluation.report.histogram import write_png
from fairweather.evaluation.results import Evaluation, Images, SetResult
from fairweather.imaging import as_bytes

CROP_PX = 96
GREATEST_ERROR = 0.25
PANEL_PX = 600
# Black, purple, red, yellow, white: rising in brightness, so that it reads in grey too.
HEAT = np.array([[0, 0, 0], [0.35, 0, 0.45], [0.85, 0.1, 0.2], [1, 0.75, 0.1], [1, 1, 1]])


@dataclass(frozen=True)
class Crop:
    """A square of an image, and by how much the mean squared error fell in it."""

    top: int
    left: int
    side_px: int
    gain: float

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return this part of (H, W, …)."""
        return image[self.top : self.top + self.side_px, self.left : self.left + self.side_px]


@dataclass(frozen=True)
class CloseUp:
    """One crop of all pictures of an image, and of the error map, side by side (h, w, 3) uint8."""

    words: str
    crop: Crop
    pixels: np.ndarray


def error_map(restored: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return the mean absolute error of the channels as (H, W, 3) uint8 in colours.

    Args:
        restored: (H, W, 3) in [0, 1].
        clean: likewise. No error is black; 0.25 and more is white.
    """
    error = np.abs(restored - clean).mean(-1) / GREATEST_ERROR
    place = error.clip(0, 1) * (len(HEAT) - 1)
    colours = [np.interp(place, np.arange(len(HEAT)), HEAT[:, c]) for c in range(3)]
    return as_bytes(np.stack(colours, -1))


def difference_map(images: Images) -> tuple[str, np.ndarray]:
    """Return the name and the map of how far the first restored image is from the reference."""
    name = "change" if images.clean is None else "error"
    return name, error_map(next(iter(images.restored.values())), images.reference)


def telling_crops(
    degraded: np.ndarray, restored: np.ndarray, clean: np.ndarray, *, side_px: int = CROP_PX
) -> tuple[Crop, Crop]:
    """Find where the squared error fell most, and where it fell least or rose.

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


def close_ups(images: Images) -> list[CloseUp]:
    """Show where the first weights helped most and least; needs the input and the clean image."""
    if images.degraded is None or images.clean is None:
        return []
    first = next(iter(images.restored.values()))
    crops = telling_crops(images.degraded, first, images.clean)
    found = []
    for crop, end in zip(crops, ("helped", "hurt"), strict=True):
        shown = [crop.cut(image) for _, image in images.named()]
        shown.append(error_map(crop.cut(first), crop.cut(images.clean)))
        what = "helped" if crop.gain >= 0 else "hurt"
        words = f"{what} {'most' if what == end else 'least'}"
        found.append(CloseUp(words, crop, strip(shown)))
    return found


def strip(images: Sequence[np.ndarray], *, gap_px: int = 4) -> np.ndarray:
    """Return images of one height side by side with white between, (H, …, 3) uint8."""
    gap = np.full((images[0].shape[0], gap_px, 3), 255, np.uint8)
    parts = [part for image in images for part in (as_bytes(image), gap)]
    return np.concatenate(parts[:-1], axis=1)


def fitted(image: np.ndarray, *, side_px: int) -> Image.Image:
    """Return an image with no side longer than that."""
    picture = Image.fromarray(np.ascontiguousarray(as_bytes(image)))
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return picture


def jpeg_uri(picture: Image.Image, *, quality: int = 85) -> str:
    """Return a picture as a data URI, so that a page loads nothing."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def finite_gains(result: SetResult, weights: str) -> list[float]:
    """Return the gains [dB] of weights on a set's images, without those of identical images."""
    gains = (row.gain_db(weights) for row in result.rows)
    return [gain for gain in gains if math.isfinite(gain)]


class FigureFiles:
    """PNG files of each set's best and worst image, its most telling crops, and its histograms.

    Whatever goes further than all before it is written at once, so that no picture is kept.
    """

    def __init__(self, folder: Path):
        """Take an existing folder for the files."""
        self.folder = folder
        self.furthest: dict[Path, float] = {}
        self.names: dict[str, str] = {}

    def add(self, result: SetResult, images: Images, *, rank: float, crops: list[CloseUp]) -> None:
        """Write an image, or a crop of it, if it is the best or the worst so far."""
        scene = None
        for kind, sign in (("worst", -1), ("best", 1)):
            if self._goes_further(path := self._path(result, kind), sign * rank):
                if scene is None:
                    parts = [*images.named(), difference_map(images)]
                    panels = [np.asarray(fitted(image, side_px=PANEL_PX)) for _, image in parts]
                    scene = strip(panels, gap_px=8)
                Image.fromarray(scene).save(path)
        kinds = (("helped_most", 1), ("hurt_most", -1))
        for (kind, sign), one in zip(kinds, crops, strict=False):
            if self._goes_further(path := self._path(result, kind), sign * one.crop.gain):
                Image.fromarray(one.pixels.repeat(2, 0).repeat(2, 1)).save(path)

    def finish(self, evaluation: Evaluation) -> None:
        """Draw the histograms."""
        for result in evaluation.sets:
            for name in result.columns:
                if gains := finite_gains(result, name):
                    kind = f"{_plain(name)}-gain" if len(result.columns) > 1 else "gain"
                    write_png(self._path(result, kind), gains, title=f"{result.name}: {name}")

    def _path(self, result: SetResult, kind: str) -> Path:
        if result.name not in self.names:
            plain = _plain(result.name)
            taken = plain in self.names.values()
            self.names[result.name] = f"{plain}-{len(self.names) + 1}" if taken else plain
        return self.folder / f"{self.names[result.name]}-{kind}.png"

    def _goes_further(self, path: Path, size: float) -> bool:
        """Remember the size if it is the largest so far; NaN never is."""
        if math.isnan(size) or size <= self.furthest.get(path, -math.inf):
            return False
        self.furthest[path] = size
        return True


def _plain(name: str) -> str:
    """For the name of a file."""
    return re.sub(r"[^\w.+-]+", "_", name)
