"""Pairs of degraded and clean images: which files they are, and their bytes."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairweather.errors import DataError
from fairweather.imaging import IMAGE_SUFFIXES, as_bytes, read_image


@dataclass(frozen=True)
class Pair:
    """Two files of one scene; a clean photograph without a partner is its own `degraded`."""

    degraded: Path
    clean: Path

    @property
    def is_synthetic(self) -> bool:
        """Whether the degradation has still to be made."""
        return self.degraded == self.clean


def find_images(folder: Path) -> list[Path]:
    """List the image files under a folder by name; it is an error if there are none."""
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
    """Pair the files of the same names in `input/` and `target/` of a folder.

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
    """Map names without suffixes to the images under a folder; two of one name are an error."""
    named: dict[Path, Path] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("")
        if name in named:
            raise DataError(f"{named[name]} and {path}: have one name; rename one of them")
        named[name] = path
    return named


def read_bytes(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB."""
    return as_bytes(read_image(path).pixels)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts numbers in names by their value: 2 before 10."""
    parts = re.split("([0-9]+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name
