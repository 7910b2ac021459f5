"""What a run would do is told before it is done, and is what it then does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import (
    ALONE,
    STAGES,
    make_recipe,
    read_logs,
    train,
    write_images,
)

from fairweather.errors import DataError
from fairweather.models import count_parameters, create_model
from fairweather.training import load_recipe, plan_training
from fairweather.training.plan import estimate_memory
from fairweather.training.schedules import StageLength

pytestmark = ALONE

IN_EPOCHS = [
    {"crop_px": 16, "batch": 4, "epochs": 3, "warmup_epochs": 1, "learning_rate": 1e-3},
    {"crop_px": 32, "batch": 2, "epochs": 1, "learning_rate": 1e-3},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clean images and two pairs: with every seventh scene held out six are left."""
    return write_images(tmp_path_factory.mktemp("data"))


def test_a_plan_is_what_a_run_does(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(stages=IN_EPOCHS, validate_every_steps=None)
    plan = plan_training(recipe, data=data)
    assert list(tmp_path.iterdir()) == []
    assert (plan.training_images, plan.held_out_images, plan.data_fault) == (6, 2, None)
    assert plan.parameters == count_parameters(create_model(recipe.config))
    assert [stage.length for stage in plan.stages] == [
        StageLength(steps=6, warmup_steps=2, validate_every_steps=2),
        StageLength(steps=3, warmup_steps=0, validate_every_steps=3),
    ]
    train(recipe, data=data, run=tmp_path / "run")
    columns, starts = read_logs(tmp_path / "run")
    assert starts == [0, 6]
    assert list(columns["train_loss"]) == list(range(9))
    assert list(columns["val_psnr_db"]) == [1, 3, 5, 8]
    assert [columns["lr"][step] for step in range(3)] == pytest.approx([5e-4, 1e-3, 1e-3])


def test_without_data_only_what_the_recipe_says_is_told() -> None:
    counted_in_steps = plan_training(make_recipe(), data=None)
    assert counted_in_steps.training_images is None
    lengths = [stage.length for stage in counted_in_steps.stages]
    assert lengths == [StageLength(6, 0, 2), StageLength(4, 1, 2)]
    in_epochs = plan_training(make_recipe(stages=IN_EPOCHS), data=None)
    assert [stage.length for stage in in_epochs.stages] == [None, None]
    assert in_epochs.data_fault is None
    once_an_epoch = plan_training(make_recipe(validate_every_steps=None), data=None)
    assert [stage.length for stage in once_an_epoch.stages] == [None, None]


def test_a_fault_of_the_data_is_part_of_the_plan(data: Path) -> None:
    plan = plan_training(make_recipe(data={"clean": ["missing"]}), data=data)
    assert plan.data_fault is not None
    assert str(data / "missing") in plan.data_fault
    assert plan.training_images is None
    assert [stage.length for stage in plan.stages] == [StageLength(6, 0, 2), StageLength(4, 1, 2)]
    assert all(stage.memory_bytes > 0 for stage in plan.stages)


def test_devices_share_a_batch(data: Path) -> None:
    recipe = make_recipe(stages=[{**STAGES[0], "batch": 8}])
    (one,), (four,) = (plan_training(recipe, data=data, devices=n).stages for n in (1, 4))
    assert one.length == four.length
    in_parts = make_recipe(stages=[{**STAGES[0], "batch": 8, "accumulate": 4}])
    assert plan_training(in_parts, data=data).stages[0].memory_bytes == four.memory_bytes
    assert four.memory_bytes < 0.6 * one.memory_bytes
    with pytest.raises(DataError, match="batch 8 does not divide among 3 devices"):
        plan_training(recipe, data=data, devices=3)


def memory(*, crops: int = 4, crop_px: int = 64, **changes: object) -> int:
    return estimate_memory(make_recipe(**changes), crops=crops, crop_px=crop_px)


def test_memory_grows_with_the_crops() -> None:
    """By the same for each crop; what is left without crops is parameters, five times."""
    one, two, three = (memory(crops=crops) for crops in (1, 2, 3))
    assert two - one == pytest.approx(three - two, rel=0.01)
    state = 4 * 5 * count_parameters(create_model(make_recipe().config))
    assert 2 * one - two == pytest.approx(state, rel=0.1)
    assert memory(crop_px=128) > 3.5 * memory(crop_px=64)
    assert memory(ema_decay=None) == memory() - state // 5


def test_memory_depends_on_how_it_is_computed() -> None:
    plain = memory()
    assert memory(precision="64-true") == pytest.approx(2 * plain, rel=0.02)
    for precision in ("bf16-mixed", "16-mixed"):
        assert 0.5 * plain < memory(precision=precision) < 0.9 * plain
    deeper = {"architecture": {**make_recipe().architecture, "depths": [2, 2, 2]}}
    assert memory(**deeper, activation_checkpointing=True) < 0.6 * memory(**deeper)


def test_a_large_recipe_is_planned_quickly_and_fits_no_small_gpu() -> None:
    """Shapes without values: nothing of this size is allocated."""
    recipe = load_recipe("rain13k")
    planned = estimate_memory(recipe, crops=64, crop_px=512)
    assert planned > 100 * 2**30


MEASURED = """
import json, sys
import torch
sys.path.insert(0, {tests!r})
from tiny_runs import make_recipe
from fairweather.models import create_model
from fairweather.training.plan import estimate_memory

def train(recipe, crops, crop_px):
    model = create_model(recipe.config).train()
    model.activation_checkpointing = recipe.activation_checkpointing
    optimizer = torch.optim.AdamW(model.parameters())
    average = [parameter.detach().clone() for parameter in model.parameters()]
    for step in range(2):
        image = torch.rand(crops, 3, crop_px, crop_px)
        (model(image) - image).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

torch.set_num_threads(1)
recipes = [make_recipe(architecture={{}}, activation_checkpointing=a) for a in (True, False)]
estimates = [estimate_memory(recipe, crops=2, crop_px=128) for recipe in recipes]
for recipe in recipes:
    train(recipe, 1, 16)

def peak():  # unlike that of getrusage it is of this process alone
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

before = peak()
held = []
for recipe in recipes:  # the one that needs less goes first, since only the peak is known
    train(recipe, 2, 128)
    held.append(peak() - before)
print(json.dumps([estimates, held]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and asks glibc to give back")
def test_a_training_step_needs_the_memory_that_was_estimated() -> None:
    """A process of its own, whose allocator gives freed memory back at once."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "CUDA_VISIBLE_DEVICES": ""}
    code = MEASURED.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    estimates, held = json.loads(done.stdout)
    for estimated_bytes, held_bytes in zip(estimates, held, strict=True):
        assert estimated_bytes == pytest.approx(held_bytes, rel=0.4)
    assert held[0] < 0.7 * held[1]
