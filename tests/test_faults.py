"""Numbers that are not finite stop a run at once, are traced to their place, and are never kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_runs import (
    ALONE,
    SIDE_PX,
    STAGES,
    StopAt,
    make_recipe,
    of_pairs,
    save,
    train,
    write_images,
)
from torch import Tensor, nn

from fairweather.data import DEGRADATIONS, Pair
from fairweather.errors import TrainingError
from fairweather.models import create_model
from fairweather.training import Recipe
from fairweather.training.faults import (
    describe_fault,
    find_nonfinite,
    find_nonfinite_gradient,
    find_nonfinite_layer,
)
from fairweather.training.module import RestorationModule

pytestmark = ALONE

RED = "clean/3.png"
PAIRS = [Pair(Path(f"in/{n}.png"), Path(f"out/{n}.png")) for n in range(12)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the images is red, so that a crop of it is told from others."""
    root = write_images(tmp_path_factory.mktemp("data"), pairs=8)
    save(root / RED, np.full((SIDE_PX, SIDE_PX, 3), (255, 0, 0), np.uint8))
    return root


def fault_of(recipe: Recipe, *callbacks: Callback, data: Path, run: Path, kept_step: int) -> str:
    """Trains until the run stops itself; what is in the folder then is from before, and whole."""
    with pytest.raises(TrainingError) as caught:
        train(recipe, data=data, run=run, callbacks=callbacks)
    files = {path.name for path in (run / "stage-0").iterdir()}
    assert {"last.ckpt", "best.ckpt"} <= files <= {"last.ckpt", "best.ckpt", "before-last.ckpt"}
    assert not (run / "model.safetensors").exists()
    assert not list(run.rglob("*.tmp"))
    for name in files:
        saved = torch.load(run / "stage-0" / name, weights_only=True)
        tensors = [*saved["state_dict"].values()]
        tensors += [t for s in saved["optimizer_states"][0]["state"].values() for t in s.values()]
        assert all(tensor.isfinite().all() for tensor in tensors)
        if name == "last.ckpt":
            assert saved["global_step"] == kept_step
    return str(caught.value)


def test_degradation_that_is_not_finite_names_the_one_image(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_now_on: list[bool] = []

    def degradation(clean: Tensor, *, generator: torch.Generator) -> Tensor:
        is_red = (clean[:, 0].amin((1, 2)) == 1) & (clean[:, 1].amax((1, 2)) == 0)
        spoilt = is_red & bool(from_now_on)
        return torch.where(spoilt.view(-1, 1, 1, 1), torch.nan, clean / 2)

    monkeypatch.setitem(DEGRADATIONS, "rain", degradation)
    steps: list[int] = []
    plant = StopAt(stage=0, batch=5, action=lambda module: from_now_on.append(True))
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Tensor:
        steps.append(batch_idx)
        return step(module, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", training_step)
    recipe = make_recipe(
        data={"clean": ["clean"], "held_out_every": 6},
        stages=[{**STAGES[0], "batch": 4, "steps": 20}],
        validate_every_steps=5,
    )
    message = fault_of(recipe, plant, data=data, run=tmp_path, kept_step=5)
    assert message.startswith(f"step {steps[-1]}: the loss is nan; ")
    assert "the degraded images already hold values that are not finite" in message
    assert f"the batch's files are '{data / RED}';" in message  # no other of the four
    assert "The checkpoints from before are kept" in message
    assert "layer" not in message
    assert 5 <= steps[-1] < 10  # within the steps that were seen to hold the image


def spoil(name: str) -> Callable[[RestorationModule], None]:
    def plant(module: RestorationModule) -> None:
        with torch.no_grad():
            module.model.get_parameter(name).view(-1)[0] = torch.nan

    return plant


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("encoder.0.0.feed_forward_norm.weight", "encoder.0.0.feed_forward_norm (LayerNorm)"),
        ("bottleneck.0.attention.qkv.bias", "bottleneck.0.attention.qkv (Linear)"),
        ("output_conv.bias", "output_conv (Conv2d)"),
    ],
)
def test_a_weight_that_is_not_finite_names_the_layer(
    data: Path, tmp_path: Path, parameter: str, layer: str
) -> None:
    plant = StopAt(stage=0, batch=3, action=spoil(parameter))
    message = fault_of(make_recipe(), plant, data=data, run=tmp_path, kept_step=2)
    assert message.startswith("step 3: the loss is nan; ")
    assert f"the first layer whose output is not finite is {layer};" in message
    assert message.count(".png'") == 2


def test_a_gradient_that_is_not_finite_names_the_parameter(data: Path, tmp_path: Path) -> None:
    """The loss stays finite; the files are those of both parts of the batch."""

    def hook(module: RestorationModule) -> None:
        module.model.downsample[0].weight.register_hook(lambda gradient: gradient * torch.nan)

    plant = StopAt(stage=0, batch=6, action=hook)
    recipe = of_pairs(
        stages=[{**STAGES[0], "batch": 4, "accumulate": 2}], gradient_clip_norm=None, ema_decay=None
    )
    message = fault_of(recipe, plant, data=data, run=tmp_path, kept_step=2)
    assert message.startswith("step 3: the gradient of downsample.0.weight is not finite; ")
    assert message.count(".png'") == 4
    assert str(data / "pairs/input") in message


class SpoilAfter(Callback):
    """Makes a weight NaN right after a step, as an overflowing update would."""

    def __init__(self, batch: int):
        self.batch = batch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if rest[-1] == self.batch:
            spoil("output_conv.bias")(pl_module)


def test_a_validation_keeps_no_spoilt_weights(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(ema_decay=None)
    message = fault_of(recipe, SpoilAfter(3), data=data, run=tmp_path, kept_step=2)
    assert message.startswith("step 4: the restored image is not finite in the validation; ")
    assert "output_conv (Conv2d)" in message
    assert f"'{data / 'clean/0.png'}'" in message


def test_no_spoilt_weights_are_resumed_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between validations, and where the average is still finite."""
    monkeypatch.setattr("fairweather.training.stage_run.RESUME_EVERY_STEPS", 1)
    message = fault_of(make_recipe(), SpoilAfter(4), data=data, run=tmp_path, kept_step=4)
    assert message.startswith("step 5: the weights of output_conv.bias are not finite; ")
    run = tmp_path / "other"
    message = fault_of(make_recipe(), SpoilAfter(3), data=data, run=run, kept_step=3)
    assert message.startswith("step 4: ")


def test_a_run_that_stopped_itself_can_go_on(data: Path, tmp_path: Path) -> None:
    """If the cause is gone, as that of a broken disk or GPU is."""
    plant = StopAt(stage=0, batch=3, action=spoil("output_conv.bias"))
    fault_of(make_recipe(), plant, data=data, run=tmp_path, kept_step=2)
    train(make_recipe(), data=data, run=tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    assert len(json.loads((tmp_path / "starts.json").read_text())) == 2


def test_only_the_images_that_are_spoilt_are_named() -> None:
    images = torch.zeros(12, 3, 8, 8)
    images[5, 1, 2, 3], images[9, 0, 0, 0] = torch.inf, torch.nan
    model = create_model(make_recipe().config)
    fault = describe_fault("the loss is nan", step=7, model=model, images=images, pairs=PAIRS)
    assert "files are 'in/5.png', 'in/9.png';" in str(fault)


def test_many_files_are_counted() -> None:
    fault = describe_fault("the loss is nan", step=7, pairs=PAIRS)
    assert "'in/7.png' and 4 more;" in str(fault)
    assert "in/8.png" not in str(fault)


def test_the_image_that_breaks_the_network_is_named() -> None:
    """The images are finite; one of them makes an activation overflow."""
    images = torch.rand(12, 3, 8, 8)
    images[4] = 1e38
    model = create_model(make_recipe().config)
    fault = describe_fault("the loss is nan", step=7, model=model, images=images, pairs=PAIRS)
    assert "files are 'in/4.png';" in str(fault)
    assert "the first layer whose output is not finite is " in str(fault)


def test_the_first_layer_is_found_and_the_hooks_are_gone() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    nn.init.constant_(model[1].weight, torch.nan)
    layer, output = find_nonfinite_layer(model, torch.ones(2, 3))
    assert layer == "1 (Linear)"
    assert output.isnan().all()
    assert not any(module._forward_hooks for module in model.modules())
    assert find_nonfinite_layer(model[0], torch.ones(2, 3))[0] is None


def test_large_numbers_are_no_fault() -> None:
    """Their sum overflows, which is only a reason to look."""
    large = torch.full((4,), 3e38)
    assert find_nonfinite({"large": large}) is None
    assert find_nonfinite({"large": large, "spoilt": torch.tensor([0, -torch.inf])}) == "spoilt"
    assert find_nonfinite({}) is None
    assert find_nonfinite_gradient(nn.Linear(2, 2)) is None
