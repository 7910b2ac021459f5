"""The LightningModule and LightningDataModule of one stage of a recipe."""

from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DistributedSampler, SequentialSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from fairweather.data import (
    DEGRADATIONS,
    Pair,
    PairCache,
    RandomCrops,
    find_images,
    find_pairs,
)
from fairweather.errors import DataError, TrainingError
from fairweather.training.losses import LOSSES, cosine_with_warmup
from fairweather.training.recipe import Recipe, Stage

Batch = dict[str, Tensor]


class RestorationModule(lightning.LightningModule):
    """Trains a network to undo the damage of a recipe's task."""

    def __init__(self, model: nn.Module, *, recipe: Recipe, stage: Stage):
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.stage = stage
        self.loss = LOSSES[recipe.loss]

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → the same."""
        return self.model(image)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on freshly degraded crops; a loss that is not finite stops the run."""
        draw = self.global_step * self.trainer.world_size + self.global_rank
        seed = self.recipe.seed + 1 + draw
        torch.manual_seed(seed)  # of stochastic depth, so that a resumed run draws the same
        degraded, clean = self.degrade(batch, seed=seed)
        loss = self.loss(self(degraded).float(), clean)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {self.global_step}: the loss is {loss.item()}; start a new run folder with a"
                " lower learning rate, or with precision=32-true. The checkpoints are kept"
            )
        self.log("train_loss", loss, on_step=True, prog_bar=True)
        return loss

    def degrade(self, batch: Batch, *, seed: int) -> tuple[Tensor, Tensor]:
        """Floats in [0, 1], with damage made for the synthetic crops of the batch."""
        degraded, clean = batch["degraded"].float() / 255, batch["clean"].float() / 255
        synthetic = batch["synthetic"]
        if synthetic.any():
            generator = torch.Generator().manual_seed(seed)
            damaged = DEGRADATIONS[self.recipe.task](clean, generator=generator)
            stays_clean = torch.rand(len(clean), generator=generator).to(clean.device)
            damages = synthetic & (stays_clean >= self.recipe.data.identity_fraction)
            degraded = torch.where(damages.view(-1, 1, 1, 1), damaged, degraded)
        return degraded, clean

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """PSNR of held-out crops under damage that is the same at every validation."""
        number = int(batch["number"])  # of the image, the same for any number of devices
        generator = torch.Generator().manual_seed(self.recipe.seed + number)
        degraded, clean = batch["degraded"].float() / 255, batch["clean"].float() / 255
        if batch["synthetic"].item():
            degraded = DEGRADATIONS[self.recipe.task](clean, generator=generator)
        # Each for every image: devices that log different names would wait for each other.
        self._log_psnr("val_identity_psnr_db", self(clean), clean)
        self._log_psnr("val_psnr_db", self(degraded), clean)
        self._log_psnr("val_input_psnr_db", degraded, clean)

    def _log_psnr(self, name: str, restored: Tensor, clean: Tensor) -> None:
        error = (restored.float().clamp(0, 1) - clean).square().mean().clamp(min=1e-10)
        on_bar = name == "val_psnr_db"
        self.log(name, -10 * error.log10(), prog_bar=on_bar, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, linear warm-up and a cosine, stepped with every batch."""
        stage = self.stage
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=stage.learning_rate, weight_decay=self.recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: cosine_with_warmup(
                step,
                steps=stage.steps,
                warmup_steps=stage.warmup_steps,
                floor=stage.final_learning_rate / stage.learning_rate,
            ),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class HeldOutCrops(torch.utils.data.Dataset[Batch]):
    """The centre of every held-out image."""

    def __init__(self, pairs: Sequence[Pair], *, crop_px: int):
        self.cache = PairCache(pairs)
        self.crop_px = crop_px

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> Batch:
        """As `RandomCrops` and the image's number; what is smaller than the crop stays as it is."""
        degraded, clean = self.cache[index]
        return {
            "degraded": self._centre(degraded),
            "clean": self._centre(clean),
            "synthetic": torch.tensor(self.cache.pairs[index].is_synthetic),
            "number": torch.tensor(index),
        }

    def _centre(self, pixels: np.ndarray) -> Tensor:
        top, left = (max(0, (side - self.crop_px) // 2) for side in pixels.shape[:2])
        crop = pixels[top : top + self.crop_px, left : left + self.crop_px]
        return torch.from_numpy(crop.copy()).permute(2, 0, 1)


class RestorationData(lightning.LightningDataModule):
    """The training stream and the held-out crops of one stage."""

    def __init__(self, recipe: Recipe, *, stage: Stage, root: Path, world_size: int, workers: int):
        super().__init__()
        self.recipe = recipe
        self.stage = stage
        self.world_size = world_size
        self.workers = workers
        if stage.batch % world_size:
            raise DataError(f"batch {stage.batch} does not divide among {world_size} devices")
        self.training_pairs, self.held_out = split_pairs(recipe, root)

    def train_dataloader(self) -> StatefulDataLoader:
        """Exactly `stage.steps` batches; resumes at the batch where it was saved."""
        crops = RandomCrops(
            self.training_pairs,
            crop_px=self.stage.crop_px,
            length=self.stage.steps * self.stage.batch,
            seed=self.recipe.seed,
            real_fraction=self.recipe.data.real_fraction,
        )
        return StatefulDataLoader(
            crops,
            batch_size=self.stage.batch // self.world_size,
            sampler=self._sampler(crops),
            num_workers=self.workers,
        )

    def val_dataloader(self) -> StatefulDataLoader:
        """One held-out image at a time, since their sizes differ."""
        crops = HeldOutCrops(self.held_out, crop_px=self.recipe.validation_crop_px)
        return StatefulDataLoader(crops, batch_size=1, sampler=self._sampler(crops))

    def _sampler(self, crops: torch.utils.data.Dataset) -> torch.utils.data.Sampler:
        if self.world_size == 1:
            return SequentialSampler(crops)  # type: ignore[arg-type]
        return DistributedSampler(crops, shuffle=False)


def split_pairs(recipe: Recipe, root: Path) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and every n-th held out to choose the best checkpoint."""
    pairs = [
        Pair(path, path) for folder in recipe.data.clean for path in find_images(root / folder)
    ]
    pairs += [pair for folder in recipe.data.pairs for pair in find_pairs(root / folder)]
    every = recipe.data.held_out_every
    held_out = pairs[::every]
    # By file, since one may lie in several of the recipe's folders.
    clean = {pair.clean.resolve() for pair in held_out}
    training = [pair for pair in pairs if pair.clean.resolve() not in clean]
    if not training:
        raise DataError(f"{root}: one image is not enough to train and to validate on")
    return training, held_out
