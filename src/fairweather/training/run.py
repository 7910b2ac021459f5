"""Recipe → run folder: every stage trained by Lightning, stoppable and resumable at any time."""

import json
import logging
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import lightning
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from fairweather.data import Pair, check_pairs
from fairweather.errors import CheckpointError, DataError, RecipeError, TrainingError
from fairweather.files import replacing
from fairweather.hardware import keep_freed_memory
from fairweather.models import AST, add_global_context, create_model, load_model, save_model
from fairweather.training.callbacks import (
    BestPoint,
    Curves,
    LastValidation,
    Patience,
    ResumePoint,
    Triptychs,
    WholeFiles,
)
from fairweather.training.curves import draw_curves
from fairweather.training.data_module import RestorationData, crops_of_a_part, split_pairs
from fairweather.training.module import RestorationModule, freeze
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import dump_recipe, load_recipe
from fairweather.training.schedules import StageLength, length_of

log = logging.getLogger(__name__)

PACKAGES = ("fairweather", "torch", "lightning", "torchmetrics", "torchdata", "numpy", "pillow")
NAMED_FINDINGS = 8
RESUME_EVERY_STEPS = 200


@dataclass(frozen=True)
class Machines:
    """Where a run is computed.

    Attributes:
        devices: GPUs of each machine; on a CPU, single-threaded processes.
        nodes: machines; above 1 it is started by torchrun on each of them.
        workers: loading processes for each device.
        cache: folder of decoded images; None keeps them in memory.
    """

    devices: int = 1
    nodes: int = 1
    workers: int = 0
    cache: Path | None = None

    @classmethod
    def of_torchrun(cls, *, workers: int = 0, cache: Path | None = None) -> "Machines | None":
        """As torchrun says in the environment; None where the process was started without it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        return cls(devices=devices, nodes=nodes, workers=workers, cache=cache)


def train(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    machines: Machines | None = None,
    weights: str | Path | None = None,
    unchecked: bool = False,
    callbacks: tuple[Callback, ...] = (),
) -> Path:
    """Trains a recipe, or goes on where a killed run of the same folder stopped.

    Args:
        recipe: what to train.
        data: the folder that the recipe's folders are relative to.
        run: the run folder: the recipe, checkpoints, logs, curves, pictures and, at the end,
            `model.safetensors`.
        machines: where; one device by default.
        weights: start from these instead of an untrained network; as for `load_model`.
        unchecked: train on pairs even if a quick look finds broken or misaligned ones.
        callbacks: more of Lightning's, told about every stage.

    Returns:
        The path of the weights that did best on the held-out images.

    Raises:
        RecipeError: if the folder holds a run of another recipe, or this machine cannot train it.
        DataError: if data are missing, pairs are broken or misaligned, or a batch does not divide
            among the devices.
        TrainingError: if the run stops early, as for numbers that are not finite.
        CheckpointError: if `weights` cannot be loaded or are of another architecture.
    """
    keep_freed_memory()
    machines = machines or Machines()
    refuse_impossible(recipe, machines)  # what is wrong is said before anything is written
    split = split_pairs(recipe, data)
    lightning.seed_everything(recipe.seed, verbose=False)
    model = start_model(recipe, weights)
    if is_first_process() and not unchecked and not (run / "stage-0").exists():
        refuse_broken_pairs([*split[0], *split[1]])
    run.mkdir(parents=True, exist_ok=True)
    if is_first_process():
        note_start(recipe, run, images=(len(split[0]), len(split[1])), machines=machines)
    started = time.time()
    score = float("nan")
    try:
        for index in range(len(recipe.stages)):
            score = train_stage(
                recipe,
                index,
                model=model,
                split=split,
                run=run,
                machines=machines,
                callbacks=callbacks,
            )
    finally:  # also of a run that fails, where they show how
        if is_first_process():
            draw_curves(run)
    path = run / "model.safetensors"
    if is_first_process():
        metadata = {
            "task": recipe.task,
            "recipe": recipe.model_dump_json(),
            "training_data": json.dumps([*recipe.data.clean, *map(str, recipe.data.pairs)]),
            "held_out_psnr_db": f"{score:.3f}",
        }
        save_model(model.float(), path, metadata=metadata)
        log.info("%s: %.2f dB held out, %.0f s", recipe.name, score, time.time() - started)
    return path


def refuse_impossible(recipe: Recipe, machines: Machines) -> None:
    """What this machine cannot train, told before the stages that it could."""
    for stage in recipe.stages:
        crops_of_a_part(stage, devices=machines.devices * machines.nodes)
    on_cpu = not (CUDAAccelerator.is_available() or MPSAccelerator.is_available())
    if recipe.precision == "16-mixed" and on_cpu:  # Lightning would take bf16-mixed instead
        raise RecipeError("precision: 16-mixed needs a GPU; choose bf16-mixed or 32-true")


def start_model(recipe: Recipe, weights: str | Path | None) -> AST:
    """An untrained network of the recipe, or one with weights of the same architecture.

    Raises:
        RecipeError: if a stage freezes parts that the network does not have, or all of it.
        CheckpointError: if `weights` cannot be loaded or are of another architecture.
    """
    model = create_model(recipe.config)
    for stage in recipe.stages:
        freeze(model, stage.frozen)  # each stage does; here so that what is wrong is said at once
    if weights is not None:
        loaded = load_model(weights)
        if model.config.global_context and not loaded.config.global_context:
            loaded = add_global_context(loaded)
        shapes, theirs = (
            {name: tensor.shape for name, tensor in one.state_dict().items()}
            for one in (model, loaded)
        )
        told_apart = ("branches", "bottleneck_shift", "heads", "window")  # that no shape tells
        differing = [
            f"{name} {getattr(loaded.config, name)} instead of {getattr(model.config, name)}"
            for name in told_apart
            if getattr(loaded.config, name) != getattr(model.config, name)
        ]
        if theirs != shapes or differing:
            raise CheckpointError(
                f"{weights}: is not of the recipe's architecture, {recipe.preset}"
                f" {recipe.architecture or ''} {', '.join(differing)}".rstrip()
                + "; choose a recipe of its own"
            )
        model.load_state_dict(loaded.state_dict())
    # Here too, so that a resumed run takes the weights of a finished stage without rounding.
    return model.double() if recipe.precision == "64-true" else model


def refuse_broken_pairs(pairs: list[Pair]) -> None:
    """A quick look at the pairs, since a misaligned one costs more than it takes."""
    real = [pair for pair in pairs if not pair.is_synthetic]
    errors = [f for f in check_pairs(real, quick=True) if f.severity == "error"]
    if errors:
        shown = "\n".join(f"  {finding.message}" for finding in errors[:NAMED_FINDINGS])
        more = len(errors) - NAMED_FINDINGS
        raise DataError(
            f"{len(errors)} of the pairs looked at cannot be trained on:\n{shown}\n"
            + (f"  and {more} more\n" if more > 0 else "")
            + "`fairweather data check` looks at all of them; mend or remove them, or train all the"
            " same with --unchecked"
        )


def train_stage(
    recipe: Recipe,
    index: int,
    *,
    model: AST,
    split: tuple[list[Pair], list[Pair]],
    run: Path,
    machines: Machines,
    callbacks: tuple[Callback, ...] = (),
) -> float:
    """Trains one stage, or skips it if it is done; leaves its best weights in the model."""
    stage = recipe.stages[index]
    folder = run / f"stage-{index}"
    done = folder / "done.json"
    if not done.exists():
        length = length_of(
            stage, images=len(split[0]), validate_every_steps=recipe.validate_every_steps
        )
        if is_first_process():
            log.info(
                "stage %d (%d in all): %d steps, crops of %d px, batches of %d, rate %g to %g",
                *(index, len(recipe.stages), length.steps, stage.crop_px, stage.batch),
                *(stage.learning_rate, stage.final_learning_rate),
            )
        module = RestorationModule(
            model, recipe=recipe, index=index, length=length, pairs=split[0], held_out=split[1]
        )
        best = BestPoint(folder)
        trainer = build_trainer(
            recipe, index, length=length, run=run, machines=machines, callbacks=[best, *callbacks]
        )
        source = RestorationData(
            recipe,
            index=index,
            length=length,
            split=split,
            world_size=trainer.world_size,
            workers=machines.workers,
            cache=machines.cache,
        )
        resume = folder / "last.ckpt"
        start = resume if resume.exists() else None
        if start and is_first_process():
            log.info("stage %d goes on from %s", index, start)
        try:
            trainer.fit(module, source, ckpt_path=start, weights_only=True)
        except (KeyboardInterrupt, SystemExit):  # the second is how Lightning ends after Ctrl-C
            if is_first_process():
                at = trainer.global_step
                log.warning("stage %d was stopped at step %d; the same command goes on", index, at)
            raise
        if trainer.global_step < length.steps and not stopped_early(trainer):
            raise TrainingError(
                f"stage {index} stopped at step {trainer.global_step}; the same command goes on"
            )
        if trainer.is_global_zero:
            figures = {"held_out_psnr_db": float(best.best_model_score or "nan")}
            log.info(
                "stage %d: best %.2f dB on held-out images", index, figures["held_out_psnr_db"]
            )
            with replacing(done) as file:
                file.write(json.dumps(figures).encode())
        trainer.strategy.barrier()
    saved = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    prefix = "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in saved.items()})
    return json.loads(done.read_text())["held_out_psnr_db"]


def stopped_early(trainer: lightning.Trainer) -> bool:
    """Whether it was the recipe's patience that ended the stage."""
    stopping = trainer.early_stopping_callback
    return isinstance(stopping, Patience) and stopping.is_exhausted


def build_trainer(
    recipe: Recipe,
    index: int,
    *,
    length: StageLength,
    run: Path,
    machines: Machines,
    callbacks: list[Callback],
) -> lightning.Trainer:
    """Lightning's trainer for one stage."""
    stage = recipe.stages[index]
    attempt = len([*(run / "logs").glob(f"stage-{index}.*")])  # a CSVLogger empties its folder
    every_steps = min(length.validate_every_steps, RESUME_EVERY_STEPS)
    more: list[Callback] = []
    if recipe.ema_decay is not None:
        # Buffers are copied: the average of an index is truncated to the index before it.
        more.append(EMAWeightAveraging(decay=recipe.ema_decay, use_buffers=False))
    if recipe.early_stopping_validations is not None:
        more.append(Patience(recipe.early_stopping_validations))
    return lightning.Trainer(
        accelerator="auto",
        devices=machines.devices,
        num_nodes=machines.nodes,
        precision=recipe.precision,
        max_epochs=1,
        max_steps=length.steps,
        val_check_interval=length.validate_every_steps * stage.accumulate,
        accumulate_grad_batches=stage.accumulate,
        gradient_clip_val=recipe.gradient_clip_norm,
        use_distributed_sampler=False,
        plugins=[WholeFiles()],
        callbacks=[
            *more,
            LastValidation(),
            LearningRateMonitor(logging_interval="step"),
            Triptychs(run / "triptychs", stage=index),
            Curves(run),
            *callbacks,
            ResumePoint(run / f"stage-{index}" / "last.ckpt", every_steps=every_steps),
        ],
        logger=[
            CSVLogger(run, name="logs", version=f"stage-{index}.{attempt}"),
            TensorBoardLogger(run, name="tensorboard", version=f"stage-{index}"),
        ],
        log_every_n_steps=max(1, min(50, length.steps // 20)),
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


def note_start(
    recipe: Recipe,
    run: Path,
    *,
    images: tuple[int, int],
    machines: Machines,
    framework: str = "torch",
) -> None:
    """Writes the resolved recipe and, for every start, versions, seed, data and machine.

    Raises:
        RecipeError: if the folder holds a run of another recipe or framework.
    """
    saved = run / "recipe.yaml"
    if saved.exists() and load_recipe(saved) != recipe:
        raise RecipeError(
            f"{run} holds a run of another recipe; choose a new folder, or go on with that one:"
            f" fairweather train {saved} --data DIR --out {run}"
        )
    path = run / "starts.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    begun = starts[0].get("framework", "torch") if starts else framework
    if begun != framework:
        raise RecipeError(f"{run} holds a run of {begun}; choose a new folder for {framework}")
    with replacing(saved) as file:
        file.write(dump_recipe(recipe).encode())
    starts.append(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "framework": framework,
            "seed": recipe.seed,
            "images_trained_on": images[0],
            "images_held_out": images[1],
            "devices": machines.devices,
            "nodes": machines.nodes,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{package: version(package) for package in PACKAGES},
        }
    )
    with replacing(path) as file:
        file.write(json.dumps(starts, indent=2).encode())


def is_first_process() -> bool:
    """Whether this is the only process, or the one of several that writes."""
    return getattr(rank_zero_only, "rank", 0) == 0
