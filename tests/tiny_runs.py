"""What the tests of real training runs share: a tiny recipe, its images, and ways to stop a run."""

import csv
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fairweather import training
from fairweather.data import Pair
from fairweather.training import Machines, Recipe, StageRun
from fairweather.training.curves import CurvePlotter, read_logs
from fairweather.training.module import RestorationModule

__all__ = ["read_logs"]  # beside what is written here

# Curves would take longer to draw than a tiny run to train; tests/test_curves.py draws some.
train = functools.partial(training.train, curves_every_s=None)

QUIET = [
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the log"),
    # Said whenever a run is resumed.
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
ALONE = [*QUIET, pytest.mark.usefixtures("one_cpu_thread")]

SIDE_PX = 64
NETWORK = {"embed_dim": 4, "depths": [1, 1, 1], "heads": [1, 1, 1], "window": 4}
STAGES = (
    {"crop_px": 32, "batch": 2, "steps": 6, "learning_rate": 1e-3},
    {"crop_px": 48, "batch": 2, "steps": 4, "learning_rate": 1e-3, "warmup_steps": 1},
)


def make_recipe(**changes: Any) -> Recipe:
    """Two short stages on six clean images and two pairs, of which one each is held out."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "task": "rain",
        "description": "A recipe for tests.",
        "preset": "ast_n",
        "architecture": NETWORK,
        "data": {
            "clean": ["clean"],
            "pairs": ["pairs"],
            "real_fraction": 0.3,
            "identity_fraction": 0.1,
            "held_out_every": 7,
        },
        "stages": STAGES,
        "ema_decay": 0.5,
        "seed": 3,
        "validate_every_steps": 2,
        "validation_crop_px": 48,
    }
    return Recipe.model_validate(tree | changes)


def of_pairs(**changes: Any) -> Recipe:
    """Real pairs only and double precision, for runs that must compute the same another way."""
    data = {"pairs": ["pairs"], "held_out_every": 3}
    stage = {"crop_px": 16, "batch": 4, "steps": 4, "learning_rate": 1e-3}
    return make_recipe(**({"data": data, "stages": [stage], "precision": "64-true"} | changes))


def first_stage(
    recipe: Recipe,
    *,
    split: tuple[list[Pair], list[Pair]] = ([], []),
    run: Path = Path(),
    workers: int = 0,
) -> StageRun:
    """The first stage of a run that draws no curves."""
    plotter = CurvePlotter(run, every_s=None)
    return StageRun(recipe, 0, run, split, Machines(workers=workers), plotter)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_images(root: Path, *, clean: int = 6, pairs: int = 2) -> Path:
    """Coarse noise: clean images, and pairs whose degraded half is darker."""
    random = np.random.default_rng(0)
    for number in range(clean + pairs):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
        if number < clean:
            save(root / f"clean/{number}.png", image)
        else:
            save(root / f"pairs/target/{number}.png", image)
            save(root / f"pairs/input/{number}.png", image // 2)
    return root


@contextmanager
def one_thread_of_the_cpu() -> Iterator[None]:
    """Sums in one order, so that runs can be compared to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: False))
        patch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: False))
        yield
    torch.set_num_threads(threads)


def column_of(table: Path, column: str) -> list[float]:
    with table.open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def logged(run: Path, stage: int, column: str) -> list[float]:
    """A column of the only log of a stage that was not stopped."""
    (table,) = (run / "logs").glob(f"stage-{stage}*/metrics.csv")
    return column_of(table, column)


def weights_in(checkpoint: Path) -> dict[str, Tensor]:
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]


def assert_close(weights: dict[str, Tensor], expected: dict[str, Tensor], *, atol: float) -> None:
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=atol, msg=name)


def assert_same_weights(run: Path, other: Path) -> None:
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert_close(weights, expected, atol=0)


def assert_same_run(run: Path, other: Path) -> None:
    """The weights that every stage kept, to the last bit, and their scores."""
    assert_same_weights(run, other)
    stages = sorted(path.name for path in other.glob("stage-*"))
    assert sorted(path.name for path in run.glob("stage-*")) == stages
    for stage in stages:
        done, expected = (json.loads((f / stage / "done.json").read_text()) for f in (run, other))
        assert done == expected
        best, expected_best = (weights_in(f / stage / "best.ckpt") for f in (run, other))
        assert_close(best, expected_best, atol=0)


class StoppedError(Exception):
    """Stands for a power cut."""


def stop() -> None:
    raise StoppedError


class StopAt(Callback):
    """Does something at the start of a batch of a stage, both from 0; by default it stops."""

    def __init__(
        self, *, stage: int, batch: int, action: Callable[[RestorationModule], None] | None = None
    ):
        self.moment = stage, batch
        self.action = action

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if (pl_module.index, batch_idx) == self.moment:
            if self.action is None:
                raise StoppedError
            self.action(pl_module)
