"""Pairs of degraded and clean images: which files they are, and their bytes."""

import json
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fairweather.errors import DataError, FairweatherError
from fairweather.files import read_document, walk_once, write_text
from fairweather.imaging import IMAGE_SUFFIXES, Photo, as_bytes, read_image, write_image

MADE = "fairweather pairs 1"
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


def iterate_images(folder: Path, *, also: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the image files under a folder, linked folders included, as the disk lists them.

    Args:
        folder: where to look.
        also: suffixes of other files to yield.
    """
    suffixes = IMAGE_SUFFIXES | also

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be searched: {error.strerror}")

    for parent, _, names in walk_once(folder, on_error=refuse):
        for path in (parent / name for name in names if not name.startswith(".")):
            if path.suffix.lower() in suffixes and path.is_file():
                yield path


def composed(name: str) -> str:
    """Return a name with each accent in its letter: archives made on a Mac hold them apart."""
    return unicodedata.normalize("NFC", name)


def name_images(folder: Path) -> dict[Path, Path]:
    """Map names without suffixes to the images under a folder; two of one name are an error.

    Names with composed and with decomposed accents are the same.
    """
    images = find_images(folder)
    plain = (path.relative_to(folder).with_suffix("").as_posix() for path in images)
    return map_names(zip((Path(composed(name)) for name in plain), images, strict=True))


def map_names(named: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """Map names to files; two files of one name are an error."""
    paths: dict[Key, Path] = {}
    for name, path in named:
        if name in paths:
            raise DataError(f"{paths[name]} and {path}: have one name; rename one of them")
        paths[name] = path
    return paths


@dataclass(frozen=True)
class Made:
    """What became of the files that pairs are made of.

    Attributes:
        new: how many pairs were made.
        kept: how many an earlier call had made.
        faults: why others could not be made, in one sentence each that names the file.
    """

    new: int
    kept: int
    faults: tuple[str, ...]


def make_pairs(
    files: Mapping[Path, Path],
    out: Path,
    make: Callable[[Path, Path], tuple[Photo, Photo]],
    *,
    about: Mapping[str, object],
    on_done: Callable[[int, int], None],
) -> Made:
    """Make a pair of each file and write it; go on after those that fail, and where a call stopped.

    Args:
        files: names and files.
        out: where to write; pairs that are there already have to be made in the same way.
        make: gives the degraded and the clean photo of a name and its file.
        about: the way in which pairs are made, which is kept beside them.
        on_done: called with (files done, files in all).

    Raises:
        DataError: if `out` holds other pairs, or no pair could be made.
    """
    begin_pairs(out, about)
    new, kept, faults = 0, 0, []
    for done, (name, path) in enumerate(files.items(), 1):
        try:
            if all(file.exists() for file in pair_files(out, name)):
                kept += 1
            else:
                degraded, clean = make(name, path)
                write_pair(out, name, degraded=degraded, clean=clean)
                new += 1
        except (FairweatherError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            faults.append(text if str(path) in text else f"'{path}': {text}")
        on_done(done, len(files))
    if not new + kept:
        raise DataError("; ".join(faults[:3]))
    return Made(new, kept, tuple(faults))


def begin_pairs(folder: Path, about: Mapping[str, object]) -> None:
    """Write down how pairs are made, or raise a DataError if a folder holds other pairs."""
    record, about = folder / "made.json", {"format": MADE, **about}
    if record.exists():
        told = read_document(record, form=MADE, otherwise="does not say how pairs were made")
        other = [key for key, value in about.items() if told.get(key) != value]
        if other:
            words = ", ".join(f"{key} {told.get(key)}, not {about[key]}" for key in other)
            raise DataError(f"'{folder}' holds pairs with {words}; choose another folder")
        return
    for side in ("input", "target"):
        if (folder / side).exists():
            raise DataError(f"'{folder / side}' exists already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(about) + "\n")


def pair_files(folder: Path, name: Path) -> tuple[Path, Path]:
    """Return the files of a pair, degraded and clean, in the form of the layout `folders`."""
    return folder / "input" / f"{name}.png", folder / "target" / f"{name}.png"


def write_pair(folder: Path, name: Path, *, degraded: Photo, clean: Photo) -> None:
    """Write the files of a pair."""
    for target, photo in zip(pair_files(folder, name), (degraded, clean), strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, photo)


def read_bytes(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB."""
    return as_bytes(read_image(path).pixels)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts numbers in names by their value: 2 before 10."""
    parts = re.split("([0-9]+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name
