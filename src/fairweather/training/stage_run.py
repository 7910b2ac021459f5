"""A run with Lightning: how it trains one stage of a recipe, and `train`, which trains them all."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LambdaCallback,
    LearningRateMonitor,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from fairweather.errors import CheckpointError, RecipeError, TrainingError
from fairweather.hardware import shows_bars
from fairweather.models import Network
from fairweather.training.batches import crops_of_a_part
from fairweather.training.callbacks import (
    LAST,
    BestPoint,
    Patience,
    ResumePoint,
    Triptychs,
    WholeFiles,
    find_resume_point,
    validate_last_step,
)
from fairweather.training.data_module import RestorationData
from fairweather.training.module import RestorationModule
from fairweather.training.recipe import Recipe
from fairweather.training.run import (
    SECONDS_BETWEEN_CURVES,
    Machines,
    StageRun,
    is_first_process,
    run_recipe,
)

RESUME_EVERY_STEPS = 200


def train(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    machines: Machines | None = None,
    weights: str | Path | None = None,
    unchecked: bool = False,
    fresh: bool = False,
    callbacks: tuple[Callback, ...] = (),
    curves_every_s: float | None = SECONDS_BETWEEN_CURVES,
) -> Path:
    """Train a recipe, or go on where a killed run of the same folder stopped.

    Args:
        recipe: what to train.
        data: the folder that the recipe's folders are relative to.
        run: the run folder: the recipe, checkpoints, logs, curves, pictures and, at the end,
            `model.safetensors`.
        machines: where; one device by default.
        weights: start from these instead of an untrained network; as for `load_model`.
        unchecked: train on pairs even if a quick look finds broken or misaligned ones.
        fresh: move a run that is in the folder to another name, and begin anew.
        callbacks: more of Lightning's, told about every stage.
        curves_every_s: least seconds between two drawings of the curves; None never draws any.

    Returns:
        The path of the weights that did best on the held-out images.

    Raises:
        RecipeError: if the folder holds a run of another recipe, or this machine cannot train it.
        TrainingError: if it holds a run on other data or from other weights, or the run stops
            early, as for numbers that are not finite.
        DataError: if data are missing, pairs are broken or misaligned, or a batch does not divide
            among the devices.
        CheckpointError: if `weights` cannot be loaded or are of another architecture.
    """
    machines = machines or Machines()
    refuse_impossible(recipe, machines)
    return run_recipe(
        recipe,
        data=data,
        run=run,
        fit_stage=partial(fit_stage, callbacks=callbacks),
        load_best=load_best,
        framework="torch",
        versions={},
        machines=machines,
        weights=weights,
        unchecked=unchecked,
        fresh=fresh,
        curves_every_s=curves_every_s,
    )


def refuse_impossible(recipe: Recipe, machines: Machines) -> None:
    """Refuse what this machine cannot train, before the stages that it could."""
    for stage in recipe.stages:
        crops_of_a_part(stage, devices=machines.devices * machines.nodes)
    on_cpu = not (CUDAAccelerator.is_available() or MPSAccelerator.is_available())
    if recipe.precision == "16-mixed" and on_cpu:  # Lightning would take bf16-mixed instead
        raise RecipeError("precision: 16-mixed needs a GPU; choose bf16-mixed or 32-true")


def fit_stage(stage: StageRun, model: Network, *, callbacks: tuple[Callback, ...] = ()) -> float:
    """Train a stage to its end; return the best held-out PSNR in dB."""
    best = BestPoint(stage.folder)
    trainer = build_trainer(stage, callbacks=[best, *callbacks])
    module = RestorationModule(model, stage=stage)
    source = RestorationData(stage, world_size=trainer.world_size)
    start = find_resume_point(stage.folder)
    if start:
        stage.tell_resumed(start)
    trainer.fit(module, source, ckpt_path=start, weights_only=True)
    if trainer.global_step < stage.length.steps and not stopped_early(trainer):
        raise TrainingError(
            f"stage {stage.index} stopped at step {trainer.global_step}; the same command goes on"
        )
    trainer.strategy.barrier()
    return float("nan" if best.best_model_score is None else best.best_model_score)


def load_best(stage: StageRun, model: Network) -> None:
    """Put the weights that did best in a stage into the network."""
    path = stage.folder / "best.ckpt"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # whatever the unpickler makes of broken bytes
        raise CheckpointError(
            f"{path}: is damaged ({str(error).partition(chr(10))[0]}); remove the folder"
            f" {stage.folder}, and the same command trains this stage again"
        ) from error
    model.load_state_dict({name.removeprefix("model."): value for name, value in saved.items()})


def stopped_early(trainer: lightning.Trainer) -> bool:
    """Tell whether it was the recipe's patience that ended the stage."""
    stopping = trainer.early_stopping_callback
    return isinstance(stopping, Patience) and stopping.is_exhausted


def build_trainer(stage: StageRun, *, callbacks: list[Callback]) -> lightning.Trainer:
    """Make Lightning's trainer for one stage."""
    recipe, shape, length, run = stage.recipe, stage.stage, stage.length, stage.run
    every_steps = min(length.validate_every_steps, RESUME_EVERY_STEPS)
    more: list[Callback] = []
    if recipe.ema_decay is not None:
        # Buffers are copied: the average of an index is truncated to the index before it.
        more.append(EMAWeightAveraging(decay=recipe.ema_decay, use_buffers=False))
    if recipe.early_stopping_validations is not None:
        more.append(Patience(recipe.early_stopping_validations))
    if is_first_process():
        more.append(LambdaCallback(on_validation_end=lambda *_: stage.plotter.draw(if_due=True)))
    import_event_writer()
    return lightning.Trainer(
        accelerator="auto",
        devices=stage.machines.devices,
        num_nodes=stage.machines.nodes,
        precision=recipe.precision,
        max_epochs=1,
        max_steps=length.steps,
        val_check_interval=length.validate_every_steps * shape.accumulate,
        accumulate_grad_batches=shape.accumulate,
        gradient_clip_val=recipe.gradient_clip_norm,
        use_distributed_sampler=False,
        plugins=[WholeFiles()],
        callbacks=[
            *more,
            LambdaCallback(on_train_batch_end=validate_last_step),
            LearningRateMonitor(logging_interval="step"),
            Triptychs(stage),
            *callbacks,
            ResumePoint(stage.folder / LAST, every_steps=every_steps),
        ],
        logger=[
            CSVLogger(run, name="logs", version=stage.new_log().name),
            TensorBoardLogger(run, name="tensorboard", version=f"stage-{stage.index}"),
        ],
        log_every_n_steps=max(1, min(50, length.steps // 20)),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=shows_bars(),
    )


def import_event_writer() -> None:
    """Import what writes events for TensorBoard, without TensorFlow.

    To make folders it would import TensorFlow, if that is installed, which takes seconds.
    TensorBoard has a stand-in, and keeps what it had for everything else.
    """
    compat: Any = importlib.import_module("tensorboard.compat")
    before = compat.tf
    compat.tf = importlib.import_module("tensorboard.compat.tensorflow_stub")
    try:
        importlib.import_module("torch.utils.tensorboard")
    finally:
        compat.tf = before
