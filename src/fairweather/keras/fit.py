"""Recipe → run folder with Keras: what `fairweather.training` does, by `compile` and `fit`."""

# Keras is an extra: without it there is nothing for the type checker to look up here.
# pyright: reportMissingImports=false

import json
import logging
import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import torch

from fairweather.data import Pair
from fairweather.errors import CheckpointError, RecipeError, TrainingError
from fairweather.files import replacing
from fairweather.hardware import keep_freed_memory
from fairweather.keras.callbacks import (
    BestWeights,
    Columns,
    Curves,
    LastStep,
    Patience,
    ResumePoint,
    Triptychs,
    read_state,
)
from fairweather.keras.convert import from_torch, save_model, to_torch
from fairweather.keras.data import HeldOutImages, TrainingBatches, for_backend
from fairweather.keras.losses import WeightedLoss
from fairweather.keras.metrics import PSNR, SSIM
from fairweather.keras.model import AST
from fairweather.keras.optimization import build_optimizer, schedule_of
from fairweather.models import save_model as save_torch_model

if TYPE_CHECKING:
    from fairweather.training import Recipe, StageLength

log = logging.getLogger(__name__)

POLICIES = {
    "32-true": "float32",
    "bf16-mixed": "mixed_bfloat16",
    "16-mixed": "mixed_float16",
}
Split = tuple[list[Pair], list[Pair]]


def train(
    recipe: "Recipe",
    *,
    data: Path,
    run: Path,
    weights: str | Path | None = None,
    cache: Path | None = None,
    unchecked: bool = False,
    verbose: int = 0,
) -> Path:
    """Trains a recipe with Keras, or goes on where a killed run of the same folder stopped.

    The start weights, the batches, the learning rates and the run folder are those of
    `fairweather.training.train`; checkpoints are Keras' `.weights.h5`. A stopped run goes on from
    its last validation. Needs the extra `train` too.

    Args:
        recipe: what to train.
        data: the folder that the recipe's folders are relative to.
        run: the run folder; at the end it holds `model.keras`, and `model.safetensors` for
            `Restorer`.
        weights: start from these instead of an untrained network; as for
            `fairweather.load_model`.
        cache: folder of decoded images; None keeps them in memory.
        unchecked: train on pairs even if a quick look finds broken or misaligned ones.
        verbose: as for `fit`: 0 is silent, 1 a progress bar, 2 a line for each validation.

    Returns:
        The path of the `.safetensors` weights that did best on the held-out images.

    Raises:
        RecipeError: if the folder holds a run of another recipe or framework, or the recipe asks
            for what only PyTorch does here.
        DataError: if data are missing, or pairs are broken or misaligned.
        TrainingError: if numbers are not finite.
        CheckpointError: if `weights` cannot be loaded or are of another architecture.
    """
    from fairweather.training import (
        Machines,
        draw_curves,
        note_start,
        refuse_broken_pairs,
        split_pairs,
        start_model,
    )

    keep_freed_memory()
    refuse_impossible(recipe)
    split = split_pairs(recipe, data)
    keras.utils.set_random_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    model = from_torch(start_model(recipe, weights), dtype=POLICIES[recipe.precision])
    if not unchecked and not (run / "stage-0").exists():
        refuse_broken_pairs([*split[0], *split[1]])
    run.mkdir(parents=True, exist_ok=True)
    images = (len(split[0]), len(split[1]))
    note_start(recipe, run, images=images, machines=Machines(), framework="keras")
    started = time.time()
    score = float("nan")
    try:
        for index in range(len(recipe.stages)):
            stage = StageRun(recipe, index, run=run, split=split, cache=cache)
            score = train_stage(stage, model, verbose=verbose)
    finally:  # also of a run that fails, where they show how
        draw_curves(run)
    metadata = {
        "task": recipe.task,
        "recipe": recipe.model_dump_json(),
        "framework": f"keras on {keras.backend.backend()}",
        "held_out_psnr_db": f"{score:.3f}",
    }
    save_model(model, run / "model.keras")
    path = run / "model.safetensors"
    save_torch_model(to_torch(model), path, metadata=metadata)
    log.info("%s: %.2f dB held out, %.0f s", recipe.name, score, time.time() - started)
    return path


def refuse_impossible(recipe: "Recipe") -> None:
    """What of a recipe Keras does not do, told before anything is written.

    Raises:
        RecipeError: naming the key.
    """
    asked = {
        # Keras computes its layer norms in float32 also under the policy float64.
        f"precision: {recipe.precision}": recipe.precision not in POLICIES,
        "compile": recipe.compile,
        "activation_checkpointing": recipe.activation_checkpointing,
        "perceptual_backbone": recipe.perceptual_backbone is not None,
        "optimizer: adam with weight_decay": recipe.optimizer == "adam" and recipe.weight_decay > 0,
        "frozen": any(stage.frozen for stage in recipe.stages),
        "accumulate": any(stage.accumulate > 1 for stage in recipe.stages),
    }
    for key, is_asked in asked.items():
        if is_asked:
            raise RecipeError(f"{key}: is not to be had with Keras; change it or use PyTorch")
    WeightedLoss(recipe.loss)


@dataclass(frozen=True)
class StageRun:
    """One stage of a run.

    Attributes:
        recipe: what is trained.
        index: the stage's number.
        run: the run folder.
        split: pairs to train on, and held-out ones.
        cache: folder of decoded images; None keeps them in memory.
    """

    recipe: "Recipe"
    index: int
    run: Path
    split: Split
    cache: Path | None

    @property
    def folder(self) -> Path:
        """Where the stage's checkpoints lie."""
        return self.run / f"stage-{self.index}"

    @property
    def best(self) -> Path:
        """The weights that did best on the held-out images."""
        return self.folder / "best.weights.h5"

    @property
    def last(self) -> Path:
        """What a stopped run goes on from."""
        return self.folder / "last.weights.h5"

    @cached_property
    def length(self) -> "StageLength":
        """The stage, counted in steps."""
        from fairweather.training import length_of

        every = self.recipe.validate_every_steps
        stage = self.recipe.stages[self.index]
        return length_of(stage, images=len(self.split[0]), validate_every_steps=every)

    @property
    def epochs(self) -> int:
        """Stretches between two validations, which are Keras' epochs."""
        return math.ceil(self.length.steps / self.length.validate_every_steps)

    def batches(self, *, begin: int) -> TrainingBatches:
        """What is trained on from epoch `begin`."""
        every = self.length.validate_every_steps
        return TrainingBatches(
            self.recipe,
            pairs=self.split[0],
            batches=self.epochs * every,
            index=self.index,
            begin=begin * every,
            cache=self.cache,
        )

    def new_table(self) -> Path:
        """Where this start of the stage logs, for a CSVLogger would empty another's table."""
        attempt = len([*(self.run / "logs").glob(f"stage-{self.index}.*")])
        table = self.run / "logs" / f"stage-{self.index}.{attempt}" / "metrics.csv"
        table.parent.mkdir(parents=True)
        return table


def train_stage(stage: StageRun, model: AST, *, verbose: int) -> float:
    """Trains one stage, or skips it if it is done; leaves its best weights in the model."""
    stage.folder.mkdir(exist_ok=True)
    done = stage.folder / "done.json"
    if not done.exists():
        shape = stage.recipe.stages[stage.index]
        log.info(
            "stage %d (%d in all): %d steps, crops of %d px, batches of %d, rate %g to %g",
            *(stage.index, len(stage.recipe.stages), stage.length.steps, shape.crop_px),
            *(shape.batch, shape.learning_rate, shape.final_learning_rate),
        )
        score = fit_stage(stage, model, verbose=verbose)
        log.info("stage %d: best %.2f dB on held-out images", stage.index, score)
        with replacing(done) as file:
            file.write(json.dumps({"held_out_psnr_db": score}).encode())
    model.load_weights(stage.best)
    return json.loads(done.read_text())["held_out_psnr_db"]


def fit_stage(stage: StageRun, model: AST, *, verbose: int) -> float:
    """Trains a stage to its end; returns the best held-out PSNR in dB."""
    model.compile(
        optimizer=build_optimizer(stage.recipe, index=stage.index, length=stage.length),
        loss=WeightedLoss(stage.recipe.loss),
        metrics=[PSNR(), SSIM()],
        # XLA takes minutes to compile this network for a CPU under TensorFlow, and gains nothing.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    state = restore_state(stage, model)
    if state.get("over"):
        return state["best"]
    begin = state.get("epoch", 0)
    batches = stage.batches(begin=begin)
    held_out = HeldOutImages(stage.recipe, pairs=stage.split[1], cache=stage.cache)
    every = stage.length.validate_every_steps
    last = LastStep(batches, steps=stage.length.steps, every=every)
    best = BestWeights(stage.best, best=state.get("best", -math.inf))
    table = keras.callbacks.CSVLogger(str(stage.new_table()))
    try:
        model.fit(
            for_backend(batches),
            epochs=stage.epochs,
            initial_epoch=begin,
            steps_per_epoch=every,
            validation_data=for_backend(held_out),
            callbacks=list_callbacks(stage, last, best, table, held_out=held_out, state=state),
            shuffle=False,  # of a PyDataset, whose batches are numbered
            verbose=verbose,
        )
    except KeyboardInterrupt:
        at = last.done
        log.warning("stage %d was stopped at step %d; the same command goes on", stage.index, at)
        raise
    finally:
        table.on_train_end()  # which Keras leaves out after an error
    if best.best == -math.inf:
        raise TrainingError(f"stage {stage.index}: no validation gave a number")
    return best.best


def restore_state(stage: StageRun, model: AST) -> dict[str, Any]:
    """Loads what a stopped run goes on from, if there is anything; says where it stood."""
    if not stage.last.exists():
        return {}
    try:
        state = read_state(stage.last)
        model.optimizer.build(model.trainable_variables)
        model.load_weights(stage.last)
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{stage.last}: cannot be gone on from: {error}") from error
    log.info("stage %d goes on from %s", stage.index, stage.last)
    return state


def list_callbacks(
    stage: StageRun,
    last: LastStep,
    best: BestWeights,
    table: Any,
    *,
    held_out: HeldOutImages,
    state: dict[str, Any],
) -> list[Any]:
    """The callbacks in the order in which Keras has to call them.

    When a validation ends, the averaged weights are in the model until `SwapEMAWeights`; when an
    epoch ends, the columns have to be there before they are written, and all before the checkpoint.
    """
    recipe = stage.recipe
    rates = schedule_of(recipe.stages[stage.index], length=stage.length)
    callbacks = [
        last,
        best,
        Triptychs(stage.run / "triptychs", held_out, stage=stage.index, last=last),
        *([] if recipe.ema_decay is None else [keras.callbacks.SwapEMAWeights()]),
        Columns(score_input(held_out), schedule=rates, last=last),
        table,
        Curves(stage.run),
    ]
    if keras.backend.backend() == "tensorflow":  # whose event files the callback writes
        folder = stage.run / "tensorboard" / f"stage-{stage.index}"
        callbacks.append(keras.callbacks.TensorBoard(str(folder), write_graph=False))
    patience = None
    if recipe.early_stopping_validations is not None:
        patience = Patience(recipe.early_stopping_validations, state=state)
        callbacks.append(patience)
    return [*callbacks, ResumePoint(stage.last, best=best, patience=patience)]


def score_input(held_out: HeldOutImages) -> dict[str, float]:
    """PSNR and SSIM of the held-out images as they came, which every validation is beside."""
    scores = {"val_input_psnr_db": PSNR(), "val_input_ssim": SSIM()}
    for degraded, clean in held_out:
        for metric in scores.values():
            metric.update_state(clean, degraded)
    return {name: float(metric.result()) for name, metric in scores.items()}
