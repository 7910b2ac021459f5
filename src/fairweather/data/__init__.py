"""Folders of images → pairs to train on."""

from fairweather.data.augmentation import (
    Augmentation,
    RandomCrops,
    mix_up,
    random_crop,
    random_jitter,
    random_orientation,
)
from fairweather.data.cache import ImageCache, PairCache, default_cache_folder
from fairweather.data.check import Finding, check_pairs
from fairweather.data.degradations import DEGRADATIONS, WEATHERS, RainRanges, add_rain
from fairweather.data.degrade import degrade_folder, degrade_pixels
from fairweather.data.layouts import (
    describe_layout,
    find_layout_pairs,
    list_layouts,
    unpack_side_by_side,
)
from fairweather.data.pairs import Pair, find_images, find_pairs, natural_order, read_bytes

__all__ = [
    "DEGRADATIONS",
    "WEATHERS",
    "Augmentation",
    "Finding",
    "ImageCache",
    "Pair",
    "PairCache",
    "RainRanges",
    "RandomCrops",
    "add_rain",
    "check_pairs",
    "default_cache_folder",
    "degrade_folder",
    "degrade_pixels",
    "describe_layout",
    "find_images",
    "find_layout_pairs",
    "find_pairs",
    "list_layouts",
    "mix_up",
    "natural_order",
    "random_crop",
    "random_jitter",
    "random_orientation",
    "read_bytes",
    "unpack_side_by_side",
]
