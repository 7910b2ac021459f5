"""What Keras calls while a stage runs: where it ends, checkpoints, pictures and columns."""

# A callback may have no model for the type checker, but it never is called without.
# pyright: reportOptionalMemberAccess=false

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from fairweather.files import staging
from fairweather.keras.data import HeldOutImages, TrainingBatches
from fairweather.keras.layers import ops
from fairweather.keras.optimization import CosineWithWarmup
from fairweather.training import TRIPTYCHS, StageRun, cannot_write, describe_fault

STATE = "fairweather_training"  # the attribute of the file that says where the run stands


class LastStep(keras.callbacks.Callback):
    """Ends the stage at its last step, which need not end an epoch, and at a loss of NaN."""

    def __init__(self, batches: TrainingBatches, *, steps: int, every: int):
        super().__init__()
        self.batches = batches
        self.steps = steps
        self.every = every
        self.done = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.done = epoch * self.every

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        loss = (logs or {})["loss"]
        if not np.isfinite(loss):
            step = self.done - 1
            pairs = self.batches.pairs_of(step)
            raise describe_fault(f"the loss is {loss}", step=step, pairs=pairs)
        if self.done >= self.steps:
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights that did best on the held-out images, the averaged ones if there are any.

    Listed before `SwapEMAWeights`, which puts the others back when a validation ends.
    """

    def __init__(self, path: Path, *, best: float):
        super().__init__()
        self.path = path
        self.best = best

    def on_test_end(self, logs: Any = None) -> None:
        score = (logs or {})["psnr_db"]
        if score > self.best:
            self.best = float(score)
            save_whole(self.model, self.path)


class Patience(keras.callbacks.EarlyStopping):
    """Ends a stage that gets no better, counting on where a killed process stopped counting."""

    def __init__(self, validations: int, *, state: Mapping[str, Any]):
        super().__init__("val_psnr_db", mode="max", patience=validations)
        self.state = state

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if "wait" in self.state:
            self.wait, self.best = self.state["wait"], self.state["patience_best"]


class ResumePoint(keras.callbacks.Callback):
    """Writes what a stopped run goes on from: weights, optimiser and where it stands, in one file.

    Listed last, so that it knows what the others found out.
    """

    def __init__(self, path: Path, *, last: LastStep, best: BestWeights, patience: Patience | None):
        super().__init__()
        self.path = path
        self.last = last
        self.best = best
        self.patience = patience

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        state = {"epoch": epoch + 1, "best": self.best.best, "over": self.model.stop_training}
        if self.patience is not None:
            waited = {"wait": self.patience.wait, "patience_best": float(self.patience.best)}
            state |= waited
        for variable in self.model.trainable_variables:
            if not np.isfinite(ops.convert_to_numpy(variable.value)).all():
                what = f"the weights of {variable.path} are not finite"
                raise describe_fault(what, step=self.last.done)
        save_whole(self.model, self.path, state=state)


class Triptychs(keras.callbacks.Callback):
    """Writes degraded | restored | clean of the first held-out images at every validation."""

    def __init__(self, stage: StageRun, held_out: HeldOutImages, *, last: LastStep):
        super().__init__()
        self.stage = stage
        self.held_out = held_out
        self.last = last

    def on_test_end(self, logs: Any = None) -> None:
        for number in range(min(TRIPTYCHS, len(self.held_out))):
            degraded, clean = self.held_out[number]
            model: Any = self.model
            restored = ops.convert_to_numpy(model(degraded, training=False))
            images = (degraded[0], restored[0], clean[0])
            self.stage.write_triptych(images, step=self.last.done, number=number)


class Columns(keras.callbacks.Callback):
    """Adds what the curves need and Keras does not log, for the callbacks listed after it."""

    def __init__(
        self, input_scores: Mapping[str, float], *, schedule: CosineWithWarmup, last: LastStep
    ):
        super().__init__()
        self.input_scores = input_scores
        self.schedule = schedule
        self.last = last

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            step = self.last.done - 1
            logs |= {
                "step": step,
                "lr": float(self.schedule(step)),
                "train_loss": logs["loss"],
                **self.input_scores,
            }


def save_whole(model: Any, path: Path, *, state: Mapping[str, Any] | None = None) -> None:
    """Write weights and optimiser in one move: a killed run leaves the old file or the new one."""
    try:
        with staging(path, overwrite=True) as whole:
            model.save_weights(whole)
            with h5py.File(whole, "a") as file:
                file.attrs[STATE] = json.dumps(state or {})
            if state is not None and path.exists():
                path.replace(before(path))
    except OSError as error:
        raise cannot_write(path, error) from error


def before(path: Path) -> Path:
    """Return where the file is kept that was written before the last one."""
    return path.with_name(f"before-{path.name}")


def read_state(path: Path) -> dict[str, Any]:
    """Return where the run stood that wrote a file of `save_whole`."""
    with h5py.File(path) as file:
        return json.loads(str(file.attrs[STATE]))
