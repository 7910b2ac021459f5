"""Pairs → crops → (degraded, clean) in [0, 1], the same whatever framework trains on them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairweather.data import (
    DEGRADATIONS,
    ImageCache,
    Pair,
    PairCache,
    RainLayers,
    RandomCrops,
    find_images,
    find_layout_pairs,
    mix_up,
    ranges_of,
    split_layers,
)
from fairweather.errors import DataError
from fairweather.training.recipe import DataSpec, Recipe, Stage

Batch = dict[str, Tensor]
Split = tuple[list[Pair], list[Pair]]


def split_pairs(recipe: Recipe, root: Path) -> Split:
    """Find the pairs to train on, and those of every n-th scene to choose the best checkpoint by.

    A scene is a clean image with all its degraded ones, whichever folder of the recipe it lies in.

    Raises:
        DataError: if a folder is missing or empty, or there is only one scene.
    """
    data = recipe.data
    pairs = [Pair(path, path) for folder in data.clean for path in find_images(root / folder)]
    for source in data.pairs:
        pairs += find_layout_pairs(root / source.folder, source.layout, split=source.split)
    scenes: dict[Path, list[Pair]] = {}
    for pair in pairs:
        scenes.setdefault(pair.clean.resolve(), []).append(pair)
    stride = max(data.held_out_every, math.ceil(len(scenes) / data.held_out_at_most))
    held_out_scenes = dict.fromkeys(list(scenes)[::stride])
    training = [pair for pair in pairs if pair.clean.resolve() not in held_out_scenes]
    held_out = [pair for scene in held_out_scenes for pair in scenes[scene]]
    if data.layers:
        training, held_out = add_layered_pairs(training, held_out, data=data, root=root)
    held_out = held_out[:: math.ceil(len(held_out) / data.held_out_at_most)]
    if not training:
        raise DataError(f"{root}: one image is not enough to train and to validate on")
    return training, held_out


def add_layered_pairs(
    training: list[Pair], held_out: list[Pair], *, data: DataSpec, root: Path
) -> Split:
    """Add each clean photograph once more, under rain from the layers of its own side."""
    paths = [path for folder in data.layers for path in find_images(root / folder)]
    sides = []
    for pairs, layers in zip(
        (training, held_out), split_layers(paths, held_out_every=data.held_out_every), strict=True
    ):
        rainy = [pair for pair in pairs if not pair.is_synthetic and data.layers_of_pairs]
        bank = RainLayers([*layers, *rainy])
        layered = [replace(pair, degrade=bank.degrade) for pair in pairs if pair.is_synthetic]
        sides.append([*pairs, *layered])
    return sides[0], sides[1]


def crops_of_a_part(stage: Stage, *, devices: int) -> int:
    """Return how many crops a device computes at once.

    Raises:
        DataError: if the batch does not divide among the devices and their parts.
    """
    crops, rest = divmod(stage.batch, devices * stage.accumulate)
    if rest:
        parts = f" in {stage.accumulate} parts" if stage.accumulate > 1 else ""
        raise DataError(f"batch {stage.batch} does not divide among {devices} devices{parts}")
    return crops


class HeldOutCrops(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The centre of every held-out image."""

    def __init__(self, pairs: Sequence[Pair], *, crop_px: int, images: ImageCache | None = None):
        self.cache = PairCache(pairs, images=images)
        self.crop_px = crop_px

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """As `RandomCrops` and the image's number; what is smaller than the crop stays as it is."""
        pair = self.cache.pairs[index]
        degraded, clean = (self._centre(pixels) for pixels in self.cache[index])
        if pair.degrade:  # the same at every validation
            degraded = pair.degrade(clean, np.random.default_rng(index))
        return {
            "degraded": torch.from_numpy(degraded).permute(2, 0, 1),
            "clean": torch.from_numpy(clean).permute(2, 0, 1),
            "synthetic": torch.tensor(pair.is_synthetic and pair.degrade is None),
            "number": torch.tensor(index),
        }

    def _centre(self, pixels: np.ndarray) -> np.ndarray:
        top, left = (max(0, (side - self.crop_px) // 2) for side in pixels.shape[:2])
        return pixels[top : top + self.crop_px, left : left + self.crop_px].copy()


def training_crops(
    recipe: Recipe, *, index: int, pairs: Sequence[Pair], batches: int, images: ImageCache
) -> RandomCrops:
    """Return the crops of a number of batches of a stage, in the order in which they are used."""
    stage = recipe.stages[index]
    return RandomCrops(
        pairs,
        crop_px=stage.crop_px,
        length=batches * stage.batch,
        seed=(recipe.seed, index),
        real_fraction=recipe.data.real_fraction or 0.0,
        layer_fraction=recipe.data.layer_fraction,
        each_once=recipe.data.each_once,
        augmentation=recipe.augmentation,
        images=images,
    )


def seed_of(batch: Batch, *, recipe: Recipe, index: int) -> int:
    """Return the seed of everything random in a step: the same however the stage was stopped.

    Args:
        batch: of `RandomCrops`, collated.
        recipe: whose seed it is.
        index: the stage's number.
    """
    entropy = (recipe.seed, index, int(batch["number"][0]))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0])


def degrade_crops(
    batch: Batch, *, recipe: Recipe, index: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return what a step trains on: degraded if synthetic, and mixed if the recipe asks for it.

    Args:
        batch: of `RandomCrops`, collated, on any device.
        recipe: its task, shares of weathers, identity fraction and augmentation.
        index: the stage's number.
        seed: of everything random.
        dtype: of the images returned.

    Returns:
        `degraded` and `clean`, (B, 3, H, W) in [0, 1].
    """
    degraded, clean = in_unit_range(batch, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    synthetic = batch["synthetic"]
    if synthetic.any():
        drawn = torch.rand(len(clean), generator=generator).to(clean.device)
        chosen = synthetic & (drawn >= identity_fraction(recipe, index))
        if chosen.any():
            shares = recipe.data.weather_shares
            options = {"shares": shares} if shares else _drawn_from(recipe)
            degrade = DEGRADATIONS[recipe.task]
            degraded[chosen] = degrade(clean[chosen], generator=generator, **options)
    augmentation = recipe.augmentation
    if torch.rand((), generator=generator) < augmentation.mixup_probability:
        return mix_up(degraded, clean, alpha=augmentation.mixup_alpha, generator=generator)
    return degraded, clean


def identity_fraction(recipe: Recipe, index: int) -> float:
    """Return the share of synthetic crops that a stage leaves clean."""
    stage, data = recipe.stages[index], recipe.data
    return data.identity_fraction if stage.identity_fraction is None else stage.identity_fraction


def degrade_held_out(
    batch: Batch, *, recipe: Recipe, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return one held-out image, under a degradation that is the same at every validation.

    Args:
        batch: one image of `HeldOutCrops`, collated.
        recipe: its task and seed.
        dtype: of the images returned.

    Returns:
        `degraded` and `clean`, (1, 3, H, W) in [0, 1].
    """
    degraded, clean = in_unit_range(batch, dtype=dtype)
    if batch["synthetic"].item():
        # Of the image's number, so that any number of devices makes the same.
        generator = torch.Generator().manual_seed(recipe.seed + int(batch["number"]))
        degrade = DEGRADATIONS[recipe.task]
        degraded = degrade(clean, generator=generator, **_drawn_from(recipe))
    return degraded, clean


def _drawn_from(recipe: Recipe) -> dict[str, Any]:
    changes = recipe.data.ranges
    return {"ranges": ranges_of(recipe.task, changes)} if changes else {}


def in_unit_range(batch: Batch, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the bytes of a batch as floats in [0, 1]."""
    return batch["degraded"].to(dtype) / 255, batch["clean"].to(dtype) / 255
