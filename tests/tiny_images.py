"""What the tests of the data share: images that say where each pixel lies, and folders of pairs."""

from pathlib import Path

import numpy as np
from PIL import Image

from fairweather.data import Pair, find_layout_pairs


def coordinates(height: int, width: int, *, image: int = 0) -> np.ndarray:
    """Every pixel says where it is: row, column, and the number of its image."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, image)], -1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path


def save_pair(folder: Path, name: str | int, degraded: np.ndarray, clean: np.ndarray) -> Pair:
    return Pair(
        save(folder / f"input/{name}.png", degraded), save(folder / f"target/{name}.png", clean)
    )


def pairs_in(folder: Path) -> list[Pair]:
    """The pairs of `input/` and `target/`."""
    return find_layout_pairs(folder, "folders", split="all")
