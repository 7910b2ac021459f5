"""The pictures of a report as PNG: each set's best and worst image, crops, and its histogram."""

import math
import re
from pathlib import Path

import numpy as np
from PIL import Image

from fairweather.evaluation.report.cards import Strips, difference_map
from fairweather.evaluation.report.histogram import write_png
from fairweather.evaluation.report.pictures import enlarged, fitted, strip
from fairweather.evaluation.report.rows import Evaluation, Images, Row, SetResult, rank
from fairweather.files import replacing

PANEL_PX = 600


class Extremes:
    """Keeps the pictures of the best and the worst so far on disk, and nothing in memory."""

    def __init__(self, folder: Path):
        """Takes an existing folder for the PNG files."""
        self.folder = folder
        self.sizes: dict[Path, float] = {}
        self.names: dict[str, str] = {}

    def add(self, result: SetResult, row: Row, images: Images, *, strips: Strips, by: str) -> None:
        """Takes an image in: writes it, where it goes further than those before it."""
        size = rank(row, next(iter(row.restored)), by=by)
        scene = None
        for kind, sign in (("worst", -1), ("best", 1)):
            if self._goes_further(path := self._path(result, kind), sign * size):
                if scene is None:
                    parts = [*images.named(), difference_map(images)]
                    scene = strip([_panel(image) for _, image in parts], gap_px=8)
                _write(path, scene)
        kinds = (("helped_most", 1), ("hurt_most", -1))
        for (kind, sign), (_, crop, pixels) in zip(kinds, strips, strict=False):
            if self._goes_further(path := self._path(result, kind), sign * crop.gain):
                _write(path, enlarged(pixels, times=2))

    def finish(self, evaluation: Evaluation) -> None:
        """Draws the histograms."""
        for result in evaluation.sets:
            for name in result.columns:
                if gains := finite_gains(result, name):
                    several = len(result.columns) > 1
                    kind = f"{_plain(name)}-gain" if several else "gain"
                    path = self._path(result, kind)
                    write_png(path, gains, title=f"{result.name}: {name}")

    def _path(self, result: SetResult, kind: str) -> Path:
        if result.name not in self.names:
            plain = _plain(result.name)
            taken = plain in self.names.values()
            self.names[result.name] = f"{plain}-{len(self.names) + 1}" if taken else plain
        return self.folder / f"{self.names[result.name]}-{kind}.png"

    def _goes_further(self, path: Path, size: float) -> bool:
        """Remembers the size if it is the largest so far."""
        if math.isnan(size) or size <= self.sizes.get(path, -math.inf):
            return False
        self.sizes[path] = size
        return True


def finite_gains(result: SetResult, name: str) -> list[float]:
    """The gains of weights on a set's images, without those of identical images."""
    gains = (row.gain_db(name) for row in result.rows)
    return [gain for gain in gains if math.isfinite(gain)]


def _panel(image: np.ndarray) -> np.ndarray:
    return np.asarray(fitted(image, side_px=PANEL_PX))


def _write(path: Path, pixels: np.ndarray) -> None:
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, "PNG")


def _plain(name: str) -> str:
    """For a file's name."""
    return re.sub(r"[^\w.+-]+", "_", name)
