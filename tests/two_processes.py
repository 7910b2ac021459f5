"""A run of one process, and torchrun with two, which can be stopped and tell what they train on."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import assert_close, of_pairs, read_logs, weights_in

from fairweather.training import Recipe, dump_recipe

STEPS = 20
STOPPED_AT = 12
BATCH = 4
TOLERANCE = 1e-9

SCRIPT = """
import json, os, sys
import fairweather.training
from lightning.pytorch.callbacks import Callback
sys.path.insert(0, {tests!r})
from tiny_runs import StopAt
from fairweather.cli import main

stop_at, told = {stop_at}, {told!r}

class Tell(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        words = [trainer.global_step, batch["number"].tolist(), batch["index"].tolist()]
        with open(told, "a") as file:
            file.write(json.dumps(words) + "\\n")

callbacks = (Tell(),)
if stop_at is not None:  # both processes end at the start of this batch, as in a power cut
    callbacks = (StopAt(stage=0, batch=stop_at, action=lambda module: os._exit(3)), *callbacks)
train = fairweather.training.train
fairweather.training.train = lambda *a, **b: train(*a, **b, callbacks=callbacks)
main()
"""


def make_recipe(*, steps: int = STEPS, each_once: bool = False) -> Recipe:
    """Nothing random but the crops; the gradients are clipped in every step."""
    stage = {"crop_px": 16, "batch": BATCH, "steps": steps, "learning_rate": 1e-3}
    data = {"pairs": ["pairs"], "held_out_every": 3, "each_once": each_once}
    return of_pairs(data=data, stages=[stage], validate_every_steps=5, gradient_clip_norm=0.01)


def save_recipe(recipe: Recipe, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    return path


def write_script(folder: Path, *, stop_at: int | None = None) -> Path:
    """A program that does what `fairweather` does, and tells what it trains on: `trained_on`."""
    script, tests = folder / "command.py", str(Path(__file__).parent)
    script.write_text(SCRIPT.format(tests=tests, stop_at=stop_at, told=str(folder / "told")))
    return script


def trained_on(folder: Path) -> list[tuple[int, list[int], list[int]]]:
    """The step, the numbers of the crops and those of their pairs, for each batch and process."""
    return [tuple(json.loads(line)) for line in (folder / "told").read_text().splitlines()]


def assert_same_as_alone(run: Path, alone: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        weights, expected = (weights_in(folder / "stage-0" / name) for folder in (run, alone))
        assert {tensor.dtype for tensor in weights.values()} == {torch.float64}
        assert_close(weights, expected, atol=TOLERANCE)
    columns, expected_columns = (read_logs(folder)[0] for folder in (run, alone))
    assert columns.keys() == expected_columns.keys()
    for name, points in columns.items():
        assert points == pytest.approx(expected_columns[name], rel=0, abs=TOLERANCE), name
    assert list(columns["train_loss"]) == list(range(STEPS))
    assert list(columns["val_psnr_db"]) == [4, 9, 14, 19]
