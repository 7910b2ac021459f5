"""Crops → (degraded, clean) in [0, 1], the same whatever framework trains on them."""

import numpy as np
import torch
from torch import Tensor

from fairweather.data import DEGRADATIONS, mix_up
from fairweather.training.recipe import Recipe

Batch = dict[str, Tensor]


def seed_of(batch: Batch, *, recipe: Recipe, index: int) -> int:
    """Of everything random in a step: the same however the stage was interrupted.

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
    """What a step trains on, with degradation made for the synthetic crops, and MixUp.

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
        shares = recipe.data.weather_shares
        options = {"shares": shares} if shares else {}
        made = DEGRADATIONS[recipe.task](clean, generator=generator, **options)
        stays_clean = torch.rand(len(clean), generator=generator).to(clean.device)
        makes = synthetic & (stays_clean >= identity_fraction(recipe, index))
        degraded = torch.where(makes.view(-1, 1, 1, 1), made, degraded)
    augmentation = recipe.augmentation
    if torch.rand((), generator=generator) < augmentation.mixup_probability:
        return mix_up(degraded, clean, alpha=augmentation.mixup_alpha, generator=generator)
    return degraded, clean


def identity_fraction(recipe: Recipe, index: int) -> float:
    """Share of synthetic crops that a stage leaves clean."""
    stage, data = recipe.stages[index], recipe.data
    return data.identity_fraction if stage.identity_fraction is None else stage.identity_fraction


def degrade_held_out(
    batch: Batch, *, recipe: Recipe, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """One held-out image, under degradation that is the same at every validation.

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
        degraded = DEGRADATIONS[recipe.task](clean, generator=generator)
    return degraded, clean


def in_unit_range(batch: Batch, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The bytes of a batch as floats in [0, 1]."""
    return batch["degraded"].to(dtype) / 255, batch["clean"].to(dtype) / 255
