"""Folders of images → pairs to train on."""

from fairweather.data.degradations import DEGRADATIONS, RainRanges, add_rain
from fairweather.data.degrade import degrade_folder, degrade_pixels
from fairweather.data.pairs import (
    Pair,
    PairCache,
    RandomCrops,
    find_images,
    find_pairs,
    random_crop,
    random_orientation,
    read_bytes,
)

__all__ = [
    "DEGRADATIONS",
    "Pair",
    "PairCache",
    "RainRanges",
    "RandomCrops",
    "add_rain",
    "degrade_folder",
    "degrade_pixels",
    "find_images",
    "find_pairs",
    "random_crop",
    "random_orientation",
    "read_bytes",
]
