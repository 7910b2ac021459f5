"""How Keras trains one stage of a recipe, by `compile` and `fit`, and `train`, for all of them."""

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import keras

from fairweather import models
from fairweather.errors import CheckpointError, RecipeError, TrainingError
from fairweather.files import replacing
from fairweather.keras.callbacks import (
    BestWeights,
    Columns,
    LastStep,
    Patience,
    ResumePoint,
    Triptychs,
    before,
    read_state,
)
from fairweather.keras.convert import from_torch, save_model, to_torch
from fairweather.keras.data import HeldOutImages, TrainingBatches, for_backend
from fairweather.keras.losses import WeightedLoss
from fairweather.keras.metrics import PSNR, SSIM
from fairweather.keras.network import Network
from fairweather.keras.optimization import build_optimizer, schedule_of
from fairweather.training import (
    SECONDS_BETWEEN_CURVES,
    Machines,
    Recipe,
    StageRun,
    run_recipe,
)

log = logging.getLogger(__name__)

POLICIES = {
    "32-true": "float32",
    "bf16-mixed": "mixed_bfloat16",
    "16-mixed": "mixed_float16",
}


def train(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    weights: str | Path | None = None,
    cache: Path | None = None,
    unchecked: bool = False,
    fresh: bool = False,
    verbose: int = 0,
    curves_every_s: float | None = SECONDS_BETWEEN_CURVES,
) -> Path:
    """Train a recipe with Keras, or go on where a killed run of the same folder stopped.

    The start weights, the batches, the learning rates and the run folder are those of
    `fairweather.training.train`; checkpoints are Keras' `.weights.h5`. A stopped run goes on from
    its last validation. Needs the extra `train` too.

    At its end the run folder holds `model.keras` besides `model.safetensors`, whose path is
    returned. `cache` is a folder of decoded images (None keeps them in memory), and `verbose` is as
    for `fit`: 0 is silent, 1 a progress bar, 2 a line for each validation. What only PyTorch does
    here raises a RecipeError; all else is as for `fairweather.training.train`.
    """
    refuse_impossible(recipe)
    path = run_recipe(
        recipe,
        data=data,
        run=run,
        fit_stage=partial(fit_stage, verbose=verbose),
        load_best=load_best,
        framework="keras",
        versions={"keras": keras.version(), "backend": keras.backend.backend()},
        machines=Machines(cache=cache),
        weights=weights,
        unchecked=unchecked,
        fresh=fresh,
        curves_every_s=curves_every_s,
    )
    ours = from_torch(models.load_model(path), dtype=POLICIES[recipe.precision])
    save_model(ours, run / "model.keras")
    return path


def refuse_impossible(recipe: Recipe) -> None:
    """Refuse what of a recipe Keras does not do, before anything is written.

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


def fit_stage(stage: StageRun, start: models.Network, *, verbose: int = 0) -> float:
    """Train a stage to its end, from the weights of `start`; return the best PSNR in dB."""
    stage.folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(stage.recipe.seed + stage.index)  # of stochastic depth
    model: Any = from_torch(start, dtype=POLICIES[stage.recipe.precision])
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
    every = stage.length.validate_every_steps
    epochs = math.ceil(stage.length.steps / every)  # from one validation to the next
    begin = state.get("epoch", 0)
    batches = TrainingBatches(
        stage.recipe,
        pairs=stage.split[0],
        batches=epochs * every,
        index=stage.index,
        begin=begin * every,
        cache=stage.machines.cache,
    )
    held_out = HeldOutImages(stage.recipe, pairs=stage.split[1], cache=stage.machines.cache)
    last = LastStep(batches, steps=stage.length.steps, every=every)
    best = BestWeights(best_of(stage), best=state.get("best", -math.inf))
    folder = stage.new_log()
    folder.mkdir(parents=True)
    table = keras.callbacks.CSVLogger(str(folder / "metrics.csv"))
    try:
        model.fit(
            for_backend(batches),
            epochs=epochs,
            initial_epoch=begin,
            steps_per_epoch=every,
            validation_data=for_backend(held_out),
            callbacks=list_callbacks(stage, last, best, table, held_out=held_out, state=state),
            shuffle=False,  # of a PyDataset, whose batches are numbered
            verbose=verbose,
        )
    finally:
        table.on_train_end()  # which Keras leaves out after an error
    if best.best == -math.inf:
        raise TrainingError(f"stage {stage.index}: no validation gave a number")
    return best.best


def load_best(stage: StageRun, model: models.Network) -> None:
    """Put the weights that did best in a stage into the PyTorch network."""
    ours = from_torch(model)
    try:
        ours.load_weights(best_of(stage))
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{best_of(stage)}: is damaged ({str(error).partition(chr(10))[0]}); remove the folder"
            f" {stage.folder}, and the same command trains this stage again"
        ) from error
    model.load_state_dict(to_torch(ours).state_dict())


def best_of(stage: StageRun) -> Path:
    """Return where the weights lie that did best on the held-out images."""
    return stage.folder / "best.weights.h5"


def last_of(stage: StageRun) -> Path:
    """Return where that lies which a stopped stage goes on from."""
    return stage.folder / "last.weights.h5"


def restore_state(stage: StageRun, model: Network) -> dict[str, Any]:
    """Load what a stopped stage goes on from, if there is anything; return where it stood."""
    last = last_of(stage)
    for path in (last, before(last)):
        if not path.exists():
            continue
        try:
            state = read_state(path)
            model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
        except (OSError, KeyError, ValueError) as error:
            log.warning("%s is damaged: %s", path, str(error).partition("\n")[0])
            continue
        if path != last:  # a copy, so that the next one does not replace the only good one
            with replacing(last) as file:
                file.write(path.read_bytes())
        stage.tell_resumed(path)
        return state
    return {}


def list_callbacks(
    stage: StageRun,
    last: LastStep,
    best: BestWeights,
    table: Any,
    *,
    held_out: HeldOutImages,
    state: dict[str, Any],
) -> list[Any]:
    """Return the callbacks in the order in which Keras has to call them.

    When a validation ends, the averaged weights are in the model until `SwapEMAWeights`; when an
    epoch ends, the columns have to be there before they are written, and all before the checkpoint.
    """
    recipe = stage.recipe
    rates = schedule_of(stage.stage, length=stage.length)
    callbacks = [
        last,
        best,
        Triptychs(stage, held_out, last=last),
        *([] if recipe.ema_decay is None else [keras.callbacks.SwapEMAWeights()]),
        Columns(score_input(held_out), schedule=rates, last=last),
        table,
        keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: stage.plotter.draw(if_due=True)),
    ]
    if keras.backend.backend() == "tensorflow":  # whose event files the callback writes
        folder = stage.run / "tensorboard" / f"stage-{stage.index}"
        callbacks.append(keras.callbacks.TensorBoard(str(folder), write_graph=False))
    patience = None
    if recipe.early_stopping_validations is not None:
        patience = Patience(recipe.early_stopping_validations, state=state)
        callbacks.append(patience)
    return [*callbacks, ResumePoint(last_of(stage), last=last, best=best, patience=patience)]


def score_input(held_out: HeldOutImages) -> dict[str, float]:
    """Return PSNR and SSIM of the held-out images as they came, to log beside every validation."""
    scores = {"val_input_psnr_db": PSNR(), "val_input_ssim": SSIM()}
    for degraded, clean in held_out:
        for metric in scores.values():
            metric.update_state(clean, degraded)
    return {name: float(metric.result()) for name, metric in scores.items()}
