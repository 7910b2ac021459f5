"""Real training runs, tiny ones: what they leave behind."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio
from tiny_runs import (
    ALONE,
    NETWORK,
    SIDE_PX,
    STAGES,
    logged,
    make_recipe,
    train,
    write_images,
)
from torch import Tensor

from fairweather.data import add_rain, read_bytes
from fairweather.errors import CheckpointError, MissingExtraError, RecipeError, TrainingError
from fairweather.models import create_model, load_model, read_metadata
from fairweather.training import Recipe
from fairweather.training.module import RestorationModule

pytestmark = ALONE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nobody stopped."""
    run = tmp_path_factory.mktemp("trained")
    assert train(make_recipe(), data=data, run=run) == run / "model.safetensors"
    return run


def test_checkpoints_know_what_shapes_do_not_tell(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        architecture=NETWORK | {"bottleneck_shift": True, "depths": [1, 2, 1]},
        stages=[{"crop_px": 32, "batch": 2, "steps": 2, "learning_rate": 1e-3}],
    )
    train(recipe, data=data, run=tmp_path)
    for name in ("last.ckpt", "best.ckpt"):
        assert load_model(tmp_path / "stage-0" / name).config == recipe.config


def test_weights_without_a_global_context_are_a_start(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(
        architecture=NETWORK | {"global_context": True},
        stages=[
            {"crop_px": 32, "batch": 2, "steps": 1, "learning_rate": 1e-9, "final_learning_rate": 0}
        ],
        ema_decay=None,
    )
    train(recipe, data=data, run=tmp_path, weights=trained / "model.safetensors")
    before = load_model(trained / "model.safetensors").state_dict()
    after = load_model(tmp_path / "model.safetensors")
    assert after.config.global_context
    for name, value in after.state_dict().items():
        if name in before:
            torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)
    with pytest.raises(CheckpointError, match="is not of the recipe's architecture"):
        train(make_recipe(), data=data, run=tmp_path / "b", weights=tmp_path / "model.safetensors")


def test_the_weights_load_and_say_where_they_are_from(trained: Path) -> None:
    model = load_model(trained / "model.safetensors")
    assert model.config == make_recipe().config
    metadata = read_metadata(trained / "model.safetensors")
    assert metadata["task"] == "rain"
    assert metadata["framework"] == "torch"
    assert Recipe.model_validate_json(metadata["recipe"]) == make_recipe()
    assert json.loads(metadata["training_data"]) == ["clean", "pairs"]
    untrained = create_model(make_recipe().config).state_dict()
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, untrained[n])]
    assert len(changed) > 0.9 * len(untrained)


def centre(path: Path, side_px: int) -> Tensor:
    start = (SIDE_PX - side_px) // 2
    pixels = read_bytes(path)[start : start + side_px, start : start + side_px]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def test_the_score_is_that_of_the_weights_on_the_held_out_images(data: Path, trained: Path) -> None:
    """Computed anew from the files alone: the first clean image and the last pair."""
    weights = trained / "model.safetensors"
    model, psnrs_db = load_model(weights), []
    for index, (degraded_path, clean_path) in enumerate(
        [
            (data / "clean/0.png", data / "clean/0.png"),
            (data / "pairs/input/7.png", data / "pairs/target/7.png"),
        ]
    ):
        degraded, clean = centre(degraded_path, 48), centre(clean_path, 48)
        if degraded_path == clean_path:
            degraded = add_rain(clean, generator=torch.Generator().manual_seed(3 + index))
        with torch.inference_mode():
            restored = model(degraded).clamp(0, 1)
        psnrs_db.append(peak_signal_noise_ratio(clean.numpy(), restored.numpy(), data_range=1))
    score_db = float(read_metadata(weights)["held_out_psnr_db"])
    assert score_db == pytest.approx(np.mean(psnrs_db), abs=2e-3)


def test_the_best_of_the_last_stage_is_kept(trained: Path) -> None:
    for stage, validations in ((0, 3), (1, 2)):
        scores_db = logged(trained, stage, "val_psnr_db")
        assert len(scores_db) == validations
        done = json.loads((trained / f"stage-{stage}/done.json").read_text())
        assert done["held_out_psnr_db"] == pytest.approx(max(scores_db), abs=1e-4)
    metadata = read_metadata(trained / "model.safetensors")
    assert float(metadata["held_out_psnr_db"]) == pytest.approx(max(scores_db), abs=1e-3)


def test_training_undoes_the_degradation(data: Path, tmp_path: Path) -> None:
    """The pairs are darkened to a half; a few steps must brighten them by several dB."""
    stage = {"crop_px": 16, "batch": 2, "steps": 20, "learning_rate": 5e-3, "warmup_steps": 4}
    recipe = make_recipe(
        data={"pairs": ["pairs"], "held_out_every": 2},
        stages=[stage],
        validate_every_steps=20,
    )
    train(recipe, data=data, run=tmp_path)
    assert logged(tmp_path, 0, "val_psnr_db")[-1] > logged(tmp_path, 0, "val_input_psnr_db")[-1] + 3


def test_a_finished_run_is_not_trained_again(
    data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_file(trained / "model.safetensors")
    (trained / "model.safetensors").unlink()
    monkeypatch.setattr(lightning.Trainer, "fit", lambda *_, **__: pytest.fail("trains again"))
    path = train(make_recipe(), data=data, run=trained)
    after = load_file(path)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_folder_with_another_recipe_is_refused(data: Path, trained: Path) -> None:
    before = (trained / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match="another recipe") as caught:
        train(make_recipe(seed=4), data=data, run=trained)
    assert str(trained) in str(caught.value)
    assert (trained / "recipe.yaml").read_text() == before


def test_a_loss_that_is_not_finite_stops_the_run(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(stages=[{**STAGES[0], "learning_rate": 1e30}])
    with pytest.raises(
        TrainingError, match=r"step \d+: the (loss is nan|gradient of .* is not finite)"
    ):
        train(recipe, data=data, run=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_only_parameters_are_averaged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[str] = []
    step = RestorationModule.validation_step
    fresh = dict(create_model(make_recipe().config).named_buffers())

    def validation_step(module: RestorationModule, batch: Any, batch_idx: int) -> None:
        buffers = module.model.named_buffers()
        changed.extend(name for name, buffer in buffers if not torch.equal(buffer, fresh[name]))
        step(module, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "validation_step", validation_step)
    recipe = make_recipe(ema_decay=0.9, stages=[{**STAGES[0], "steps": 2}])
    train(recipe, data=data, run=tmp_path)
    assert changed == []


WITHOUT_LIGHTNING = """
import sys
sys.modules["lightning"] = None
import fairweather, fairweather.data
from fairweather.training import load_recipe
assert load_recipe("rain_n").task == "rain"  # reads recipes without it
from fairweather.training import train
"""


def test_a_missing_extra_says_how_it_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIGHTNING], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"{MissingExtraError.__name__}: training needs lightning;" in last
    assert "pip install 'fairweather[train]'" in last
