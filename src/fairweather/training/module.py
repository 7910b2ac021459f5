"""The LightningModule of one stage of a recipe."""

import dataclasses
import json
import math
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from fairweather.data import Pair
from fairweather.models import CONFIG_KEY, Network
from fairweather.training.batches import Batch, degrade_crops, degrade_held_out, seed_of
from fairweather.training.faults import describe_fault, find_nonfinite_gradient
from fairweather.training.losses import (
    HIGHEST_PSNR_DB,
    SSIM_WINDOW_PX,
    WeightedLoss,
    load_backbone,
    ssim,
)
from fairweather.training.run import StageRun, freeze
from fairweather.training.schedules import cosine_with_warmup


class RestorationModule(lightning.LightningModule):
    """Trains a network to undo the degradation of a recipe's task."""

    def __init__(self, model: Network, *, stage: StageRun):
        """Prepare to train the network in place."""
        super().__init__()
        self.model = model
        self.stage_run = stage
        self.recipe = recipe = stage.recipe
        self.index = stage.index
        freeze(model, stage.stage.frozen)
        model.activation_checkpointing = recipe.activation_checkpointing
        if recipe.compile:
            model.compile()
        self._files_of_step: list[Pair] = []
        target = recipe.perceptual_backbone
        self.loss = WeightedLoss(recipe.loss, backbone=load_backbone(target) if target else None)

    @property
    def _image_dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → the same."""
        return self.model(image)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on freshly degraded crops; a loss that is not finite stops the run."""
        seed = seed_of(batch, recipe=self.recipe, index=self.index)
        torch.manual_seed(seed)  # of stochastic depth, so that a resumed run draws the same
        degraded, clean = degrade_crops(
            batch, recipe=self.recipe, index=self.index, seed=seed, dtype=self._image_dtype
        )
        loss = self.loss(self(degraded), clean)
        files = [self.stage_run.split[0][index] for index in batch["index"].tolist()]
        if not torch.isfinite(loss):
            raise describe_fault(
                f"the loss is {loss.item()}",
                step=self.global_step,
                model=self.model,
                images=degraded,
                pairs=files,
            )
        self._files_of_step += files
        self.log("train_loss", loss, on_step=True, prog_bar=True, sync_dist=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stops before gradients that are not finite spoil the weights; fp16's are scaled anew."""
        files, self._files_of_step = self._files_of_step, []
        if self.recipe.precision == "16-mixed":
            return
        name = find_nonfinite_gradient(self.model)
        if name:
            what = f"the gradient of {name} is not finite"
            raise describe_fault(what, step=self.global_step, pairs=files)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """PSNR and SSIM of held-out crops under degradation that is the same at every validation.

        Returns:
            `degraded`, `restored` and `clean` (1, 3, H, W) in [0, 1], and the image's `number`.

        Raises:
            TrainingError: if the result is not finite, so that such weights are never kept.
        """
        number = int(batch["number"])
        degraded, clean = degrade_held_out(batch, recipe=self.recipe, dtype=self._image_dtype)
        # Each for every image: devices that log different names would wait for each other.
        restored = self(degraded).to(clean.dtype).clamp(0, 1)
        if not torch.isfinite(restored).all():
            raise describe_fault(
                "the restored image is not finite in the validation",
                step=self.global_step,
                model=self.model,
                images=degraded,
                pairs=[self.stage_run.split[1][number]],
            )
        scores = {
            "val_psnr_db": psnr_db(restored, clean),
            "val_input_psnr_db": psnr_db(degraded, clean),
        }
        if self.recipe.data.clean:
            scores["val_identity_psnr_db"] = psnr_db(self(clean).to(clean.dtype), clean)
        if min(clean.shape[-2:]) >= SSIM_WINDOW_PX:
            scores["val_ssim"] = 1 - ssim(restored, clean)
            scores["val_input_ssim"] = 1 - ssim(degraded.clamp(0, 1), clean)
        weight = self._share_of(number, batch_idx=batch_idx)
        for name, score in scores.items():
            on_bar = name == "val_psnr_db"
            self.log(name, weight * score, prog_bar=on_bar, batch_size=1, sync_dist=True)
        images = {"degraded": degraded, "restored": restored, "clean": clean}
        return {**images, "number": batch["number"]}

    def _share_of(self, number: int, *, batch_idx: int) -> float:
        """What an image counts, so that the mean over all devices is that of one device.

        The sampler shows the first images again where the devices would not have equally many.
        """
        devices = self.trainer.world_size
        shown = batch_idx * devices + self.trainer.global_rank
        rounds = math.ceil(len(self.stage_run.split[1]) / devices)
        return devices * rounds / len(self.stage_run.split[1]) if shown == number else 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the config, which the shapes of tensors do not tell, for `load_model`."""
        checkpoint[CONFIG_KEY] = json.dumps(dataclasses.asdict(self.model.config))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam or AdamW, linear warm-up and a cosine, stepped with every batch."""
        stage, length = self.stage_run.stage, self.stage_run.length
        make = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.recipe.optimizer]
        optimizer = make(
            [one for one in self.model.parameters() if one.requires_grad],
            lr=stage.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: cosine_with_warmup(
                step,
                steps=length.steps,
                warmup_steps=length.warmup_steps,
                floor=stage.final_learning_rate / stage.learning_rate,
                cycles=stage.cycles,
                part=stage.cosine_part,
            ),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def psnr_db(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the PSNR of a whole batch in [0, 1], clipped, over all channels; at most 100 dB."""
    score_db = peak_signal_noise_ratio(restored.clamp(0, 1), clean, data_range=1.0)
    return score_db.clamp(max=HIGHEST_PSNR_DB)
