"""The LightningDataModule of one stage of a recipe: what is trained on and what is held out."""

from pathlib import Path

import lightning
import torch
from torch.utils.data import DistributedSampler, SequentialSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from fairweather.data import ImageCache
from fairweather.training.batches import HeldOutCrops, Split, crops_of_a_part, training_crops
from fairweather.training.recipe import Recipe
from fairweather.training.schedules import StageLength


class RestorationData(lightning.LightningDataModule):
    """The training stream and the held-out crops of one stage."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        index: int,
        length: StageLength,
        split: Split,
        world_size: int = 1,
        workers: int = 0,
        cache: Path | None = None,
    ):
        """Prepare the loaders.

        Args:
            recipe: what to train.
            index: the stage's number.
            length: the stage, counted in steps.
            split: as `split_pairs` returns it.
            world_size: over how many processes the batch is spread.
            workers: loading processes for each of them.
            cache: folder of decoded images; None keeps them in memory.

        Raises:
            DataError: if the batch does not divide among the processes and their parts.
        """
        super().__init__()
        self.recipe = recipe
        self.index = index
        self.length = length
        self.training_pairs, self.held_out = split
        self.world_size = world_size
        self.workers = workers
        self.images = ImageCache(cache, resize_px=recipe.data.resize_px)
        self.part = crops_of_a_part(recipe.stages[index], devices=world_size)

    def train_dataloader(self) -> StatefulDataLoader:
        """Exactly `length.steps` batches; resumes at the batch where it was saved."""
        crops = training_crops(
            self.recipe,
            index=self.index,
            pairs=self.training_pairs,
            batches=self.length.steps,
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
