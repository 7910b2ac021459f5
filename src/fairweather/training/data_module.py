"""The LightningDataModule of one stage of a recipe: what is trained on and what is held out."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from fairweather.data import (
    ImageCache,
    Pair,
    PairCache,
    RainLayers,
    RandomCrops,
    find_images,
    find_layout_pairs,
    split_layers,
)
from fairweather.errors import DataError
from fairweather.training.recipe import DataSpec, Recipe, Stage
from fairweather.training.schedules import StageLength


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


class RestorationData(lightning.LightningDataModule):
    """The training stream and the held-out crops of one stage."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        index: int,
        length: StageLength,
        split: tuple[list[Pair], list[Pair]],
        world_size: int = 1,
        workers: int = 0,
        cache: Path | None = None,
    ):
        """Prepares the loaders.

        Args:
            recipe: what to train.
            index: the stage's number.
            length: the stage, counted in steps.
            split: as `split_pairs` gives it.
            world_size: over how many processes the batch is spread.
            workers: loading processes for each of them.
            cache: folder of decoded images; None keeps them in memory.

        Raises:
            DataError: if the batch does not divide among the processes and their parts.
        """
        super().__init__()
        self.recipe = recipe
        self.stage = recipe.stages[index]
        self.index = index
        self.length = length
        self.training_pairs, self.held_out = split
        self.world_size = world_size
        self.workers = workers
        self.images = ImageCache(cache, resize_px=recipe.data.resize_px)
        self.part = crops_of_a_part(self.stage, devices=world_size)

    def train_dataloader(self) -> StatefulDataLoader:
        """Exactly `length.steps` batches; resumes at the batch where it was saved."""
        crops = RandomCrops(
            self.training_pairs,
            crop_px=self.stage.crop_px,
            length=self.length.steps * self.stage.batch,
            seed=(self.recipe.seed, self.index),
            real_fraction=self.recipe.data.real_fraction or 0.0,
            layer_fraction=self.recipe.data.layer_fraction,
            augmentation=self.recipe.augmentation,
            images=self.images,
        )
        return StatefulDataLoader(
            crops,
            batch_size=self.part,
            sampler=self._sampler(crops),
            num_workers=self.workers,
        )

    def val_dataloader(self) -> StatefulDataLoader:
        """One held-out image at a time, since their sizes differ."""
        crops = HeldOutCrops(
            self.held_out, crop_px=self.recipe.validation_crop_px, images=self.images
        )
        return StatefulDataLoader(crops, batch_size=1, sampler=self._sampler(crops))

    def _sampler(self, crops: torch.utils.data.Dataset) -> torch.utils.data.Sampler:
        if self.world_size == 1:
            return SequentialSampler(crops)  # type: ignore[arg-type]
        return DistributedSampler(crops, shuffle=False)


def crops_of_a_part(stage: Stage, *, devices: int) -> int:
    """How many crops a device computes at once.

    Raises:
        DataError: if the batch does not divide among the devices and their parts.
    """
    crops, rest = divmod(stage.batch, devices * stage.accumulate)
    if rest:
        parts = f" in {stage.accumulate} parts" if stage.accumulate > 1 else ""
        raise DataError(f"batch {stage.batch} does not divide among {devices} devices{parts}")
    return crops


def split_pairs(recipe: Recipe, root: Path) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and those of every n-th scene, held out to choose the best checkpoint.

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
) -> tuple[list[Pair], list[Pair]]:
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
