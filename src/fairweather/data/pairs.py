"""Pairs of degraded and clean images, and random crops, the same for both images of a pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fairweather.errors import DataError
from fairweather.imaging import IMAGE_SUFFIXES, read_image


@dataclass(frozen=True)
class Pair:
    """Two files of one scene; a clean photograph without a partner is its own `degraded`."""

    degraded: Path
    clean: Path

    @property
    def is_synthetic(self) -> bool:
        """Whether the damage has still to be made."""
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


class PairCache:
    """Decoded pairs, kept in memory as bytes, since decoding costs more than cropping."""

    def __init__(self, pairs: Sequence[Pair]):
        self.pairs = list(pairs)
        self._decoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The degraded and the clean image, (H, W, 3) uint8 each."""
        if index not in self._decoded:
            pair = self.pairs[index]
            clean = read_bytes(pair.clean)
            degraded = clean if pair.is_synthetic else read_bytes(pair.degraded)
            if degraded.shape != clean.shape:
                sizes = [f"{a.shape[0]}×{a.shape[1]}" for a in (degraded, clean)]
                raise DataError(
                    f"pair '{pair.degraded.name}': degraded is {sizes[0]} but clean is {sizes[1]};"
                    " is one of them rotated or resized?"
                )
            self._decoded[index] = degraded, clean
        return self._decoded[index]


def read_bytes(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB."""
    return to_bytes(read_image(path).pixels)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8 as it is, uint16 rounded to uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


class RandomCrops(Dataset[dict[str, Tensor]]):
    """Crops number 0, 1, 2 …: the pair, the place and the turn follow from the seed and the number.

    So no sampler has to shuffle, and a resumed run goes on with just the crops it would have had.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        crop_px: int,
        length: int,
        seed: int,
        real_fraction: float = 0.0,
    ):
        """A stream of `length` crops of crop_px × crop_px.

        Args:
            pairs: what to crop from; synthetic ones and real ones.
            crop_px: side of a crop; smaller images are reflected outwards.
            length: how many crops there are.
            seed: of everything random.
            real_fraction: share of crops taken from real pairs where there are both kinds.
        """
        self.cache = PairCache(pairs)
        self.kinds = [
            [i for i, pair in enumerate(pairs) if pair.is_synthetic is synthetic]
            for synthetic in (True, False)
        ]
        self.crop_px = crop_px
        self.length = length
        self.seed = seed
        self.real_fraction = real_fraction
        if not pairs:
            raise DataError("there is nothing to crop from: no pairs and no clean images")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`degraded` and `clean` (3, crop_px, crop_px) uint8, and `synthetic`, a boolean."""
        random = np.random.default_rng((self.seed, number))
        synthetic, real = self.kinds
        choices = (
            real if (random.random() < self.real_fraction and real) or not synthetic else synthetic
        )
        index = choices[random.integers(len(choices))]
        crops = random_crop(self.cache[index], crop_px=self.crop_px, random=random)
        degraded, clean = random_orientation(crops, random=random)
        return {
            "degraded": torch.from_numpy(degraded).permute(2, 0, 1),
            "clean": torch.from_numpy(clean).permute(2, 0, 1),
            "synthetic": torch.tensor(self.cache.pairs[index].is_synthetic),
        }


def random_crop(
    images: tuple[np.ndarray, np.ndarray], *, crop_px: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same square of both images; every offset can be drawn, the last row and column too."""
    height, width = images[0].shape[:2]
    missing = max(0, crop_px - height), max(0, crop_px - width)
    if any(missing):
        pad = [(0, missing[0]), (0, missing[1]), (0, 0)]
        images = np.pad(images[0], pad, mode="reflect"), np.pad(images[1], pad, mode="reflect")
    top = random.integers(max(height, crop_px) - crop_px + 1)
    left = random.integers(max(width, crop_px) - crop_px + 1)
    window = slice(top, top + crop_px), slice(left, left + crop_px)
    return images[0][window], images[1][window]


def random_orientation(
    images: tuple[np.ndarray, np.ndarray], *, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same flip and quarter turns of both images."""
    turns, flip = int(random.integers(4)), random.random() < 0.5

    def turn(image: np.ndarray) -> np.ndarray:
        turned = np.rot90(image, turns)
        return np.ascontiguousarray(turned[:, ::-1] if flip else turned)

    return turn(images[0]), turn(images[1])
