"""The LightningDataModule of one stage of a recipe: what is trained on and what is held out."""

import lightning
import torch
from torch.utils.data import DistributedSampler, SequentialSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from fairweather.data import ImageCache
from fairweather.training.batches import HeldOutCrops, crops_of_a_part, training_crops
from fairweather.training.run import StageRun


class RestorationData(lightning.LightningDataModule):
    """The training stream and the held-out crops of one stage."""

    def __init__(self, stage: StageRun, *, world_size: int = 1):
        """Spread each batch over `world_size` processes.

        Raises:
            DataError: if the batch does not divide among the processes and their parts.
        """
        super().__init__()
        self.stage = stage
        self.world_size = world_size
        self.images = ImageCache(stage.machines.cache, resize_px=stage.recipe.data.resize_px)
        self.part = crops_of_a_part(stage.stage, devices=world_size)

    def train_dataloader(self) -> StatefulDataLoader:
        """Exactly `length.steps` batches; resumes at the batch where it was saved."""
        crops = training_crops(
            self.stage.recipe,
            index=self.stage.index,
            pairs=self.stage.split[0],
            batches=self.stage.length.steps,
            images=self.images,
        )
        return StatefulDataLoader(
            crops,
            batch_size=self.part,
            sampler=self._sampler(crops),
            num_workers=self.stage.machines.workers,
        )

    def val_dataloader(self) -> StatefulDataLoader:
        """One held-out image at a time, since their sizes differ."""
        crop_px = self.stage.recipe.validation_crop_px
        crops = HeldOutCrops(self.stage.split[1], crop_px=crop_px, images=self.images)
        return StatefulDataLoader(crops, batch_size=1, sampler=self._sampler(crops))

    def _sampler(self, crops: torch.utils.data.Dataset) -> torch.utils.data.Sampler:
        if self.world_size == 1:
            return SequentialSampler(crops)  # type: ignore[arg-type]
        return DistributedSampler(crops, shuffle=False)
