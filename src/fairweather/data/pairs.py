"""Pairs of degraded and clean images: which files they are, and their bytes."""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fairweather.errors import DataError
from fairweather.imaging import IMAGE_SUFFIXES, Photo, as_bytes, read_image, write_image

Key = TypeVar("Key", bound=Hashable)
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
    """List the image files under a folder by name; it is an error if there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give the folder that holds the images")
    found = sorted(iterate_images(folder))
    if not found:
        raise DataError(f"{folder}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def iterate_images(folder: Path) -> Iterator[Path]:
    """Yield the image files under a folder as the disk lists them."""
    for path in folder.rglob("*"):
        hidden = path.name.startswith(".")
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path


def name_images(folder: Path) -> dict[Path, Path]:
    """Map names without suffixes to the images under a folder; two of one name are an error."""
    images = find_images(folder)
    return map_names((path.relative_to(folder).with_suffix(""), path) for path in images)


def map_names(named: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Map names to files; two files of one name are an error."""
    paths: dict[Key, Path] = {}
    for name, path in named:
        if name in paths:
            raise DataError(f"{paths[name]} and {path}: have one name; rename one of them")
        paths[name] = path
    return paths


def refuse_pairs_in(folder: Path) -> None:
    """Raise a DataError if a folder holds pairs, which are never mixed with new ones."""
    for side in ("input", "target"):
        if (folder / side).exists():
            raise DataError(f"'{folder / side}' exists already; choose another folder")


def write_pair(folder: Path, name: Path, *, degraded: Photo, clean: Photo) -> None:
    """Write `input/NAME.png` and `target/NAME.png`, the form of the layout `folders`."""
    for side, photo in (("input", degraded), ("target", clean)):
        target = folder / side / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, photo)


def read_bytes(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB."""
    return as_bytes(read_image(path).pixels)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts numbers in names by their value: 2 before 10."""
    parts = re.split("([0-9]+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name
