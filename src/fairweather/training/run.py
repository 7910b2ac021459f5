"""Recipe → run folder: every stage trained by Lightning, stoppable and resumable at any time."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Checkpoint,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from fairweather.errors import RecipeError, TrainingError
from fairweather.models import create_model, save_model
from fairweather.restoration import keep_freed_memory
from fairweather.training.module import RestorationData, RestorationModule, split_pairs
from fairweather.training.recipe import Recipe

log = logging.getLogger(__name__)


def train(
    recipe: Recipe, *, data: Path, run: Path, devices: int | str = "auto", workers: int = 0
) -> Path:
    """Trains a recipe, or goes on where a killed run of the same folder stopped.

    Args:
        recipe: what to train.
        data: the folder that the recipe's folders are relative to.
        run: the run folder: checkpoints, logs and, at the end, `model.safetensors`.
        devices: how many devices; on a CPU, how many single-threaded processes.
        workers: data loading processes for each device.

    Returns:
        The path of the averaged weights that did best on the held-out images.
    """
    keep_freed_memory()
    split_pairs(recipe, data)  # what is missing is said before anything is written
    run.mkdir(parents=True, exist_ok=True)
    check_same_recipe(recipe, run)
    lightning.seed_everything(recipe.seed, verbose=False)
    model = create_model(recipe.preset)
    started = time.time()
    score = float("nan")
    for index in range(len(recipe.stages)):
        score = train_stage(
            recipe, index, model=model, data=data, run=run, devices=devices, workers=workers
        )
    path = run / "model.safetensors"
    if getattr(rank_zero_only, "rank", 0) == 0:
        save_model(
            model,
            path,
            metadata={
                "task": recipe.task,
                "recipe": recipe.model_dump_json(),
                "training_data": json.dumps([*recipe.data.clean, *recipe.data.pairs]),
                "held_out_psnr_db": f"{score:.3f}",
            },
        )
    log.info("trained %s in %.0f s: %s", recipe.name, time.time() - started, path)
    return path


def train_stage(
    recipe: Recipe,
    index: int,
    *,
    model: nn.Module,
    data: Path,
    run: Path,
    devices: int | str,
    workers: int,
) -> float:
    """Trains one stage, or skips it if it is done; leaves its best weights in the model."""
    stage = recipe.stages[index]
    folder = run / f"stage-{index}"
    done = folder / "done.json"
    if not done.exists():
        log.info("stage %d of %d: %s", index + 1, len(recipe.stages), stage)
        module = RestorationModule(model, recipe=recipe, stage=stage)
        best = ModelCheckpoint(
            folder, filename="best", monitor="val_psnr_db", mode="max", enable_version_counter=False
        )
        last = ResumePoint(folder / "last.ckpt", every_steps=min(recipe.validate_every_steps, 200))
        trainer = build_trainer(recipe, index, run=run, devices=devices, checkpoints=[best, last])
        source = RestorationData(
            recipe, stage=stage, root=data, world_size=trainer.world_size, workers=workers
        )
        resume = folder / "last.ckpt"
        trainer.fit(module, source, ckpt_path=resume if resume.exists() else None)
        if trainer.global_step < stage.steps:
            raise TrainingError(
                f"stage {index} stopped at step {trainer.global_step}; the same command goes on"
            )
        if trainer.is_global_zero:
            figures = {"held_out_psnr_db": float(best.best_model_score or "nan")}
            done.write_text(json.dumps(figures))
        trainer.strategy.barrier()
    saved = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    prefix = "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in saved.items()})
    return json.loads(done.read_text())["held_out_psnr_db"]


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint under another name first: a killed run leaves the old or the new one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        temporary = Path(f"{path}.tmp")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(path)


class ResumePoint(Checkpoint):
    """Writes the checkpoint to resume from, every so many steps and after every validation.

    Never before a validation of the same step: Lightning would take it as done when it resumes, and
    would not know its score, so that worse weights could replace the best ones.
    """

    def __init__(self, path: Path, *, every_steps: int):
        self.path = path
        self.every_steps = every_steps

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        validates = (batch_idx + 1) % trainer.val_check_interval == 0
        if trainer.global_step % self.every_steps == 0 and not validates:
            trainer.save_checkpoint(self.path)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        trainer.save_checkpoint(self.path)


def build_trainer(
    recipe: Recipe,
    index: int,
    *,
    run: Path,
    devices: int | str,
    checkpoints: list[Checkpoint],
) -> lightning.Trainer:
    """Lightning's trainer for one stage."""
    stage = recipe.stages[index]
    attempt = len([*(run / "logs").glob(f"stage-{index}.*")])  # a CSVLogger empties its folder
    return lightning.Trainer(
        accelerator="auto",
        devices=devices,
        precision=recipe.precision,
        max_epochs=1,
        max_steps=stage.steps,
        val_check_interval=min(recipe.validate_every_steps, stage.steps),
        gradient_clip_val=recipe.gradient_clip_norm,
        use_distributed_sampler=False,
        plugins=[WholeFiles()],
        callbacks=[
            # Buffers are copied: the average of an index is truncated to the index before it.
            EMAWeightAveraging(decay=recipe.ema_decay, use_buffers=False),
            LearningRateMonitor(logging_interval="step"),
            *checkpoints,
        ],
        logger=[
            CSVLogger(run, name="logs", version=f"stage-{index}.{attempt}"),
            TensorBoardLogger(run, name="tensorboard", version=f"stage-{index}"),
        ],
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


def check_same_recipe(recipe: Recipe, run: Path) -> None:
    """A run folder belongs to one recipe; another one would resume from weights that do not fit."""
    saved = run / "recipe.json"
    text = recipe.model_dump_json(indent=2)
    if saved.exists() and saved.read_text() != text:
        raise RecipeError(
            f"{run} holds a run of another recipe; choose a new folder or restore its {saved.name}"
        )
    saved.write_text(text)
