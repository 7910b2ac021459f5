"""Pairs of degraded and clean images: which files they are, and their bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairweather.errors import DataError
from fairweather.imaging import IMAGE_SUFFIXES, read_image

Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Two files of one scene; a clean photograph without a partner is its own `degraded`.

    Attributes:
        degraded: the one file.
        clean: the other.
        degrade: makes the degraded crop of a clean one, both (H, W, 3) uint8, when it is cut. None
            leaves a synthetic pair to the training step.
    """

    degraded: Path
    clean: Path
    degrade: Degrade | None = None

    @property
    def is_synthetic(self) -> bool:
        """Whether the degradation has still to be made."""
        return self.degraded == self.clean


def find_images(folder: Path) -> list[Path]:
    """The image files under a folder, in the order of their names; an empty folder is an error."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give the folder that holds the images")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not found:
        raise DataError(f"{folder}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def find_pairs(folder: Path) -> list[Pair]:
    """Pairs of a folder that holds `input/` and `target/` with files of the same names.

    Suffixes may differ. A file without a partner is an error that names it.
    """
    degraded, clean = (name_images(folder / side) for side in ("input", "target"))
    lone = sorted(degraded.keys() ^ clean.keys())
    if lone:
        side, other = ("input", "target") if lone[0] in degraded else ("target", "input")
        raise DataError(
            f"{folder}: {side}/{lone[0]} has no partner in {other}/"
            f" ({len(lone)} such files); rename or remove them"
        )
    return [Pair(degraded[name], clean[name]) for name in sorted(degraded)]


def name_images(folder: Path) -> dict[Path, Path]:
    """The images under a folder by their names without suffixes; a name given twice is an error."""
    named: dict[Path, Path] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("")
        if name in named:
            raise DataError(f"{named[name]} and {path}: have one name; rename one of them")
        named[name] = path
    return named


def read_bytes(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB."""
    return to_bytes(read_image(path).pixels)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8 as it is, uint16 rounded to uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
