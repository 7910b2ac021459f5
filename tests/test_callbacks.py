"""What a run folder holds besides the weights, and that it is enough to train the run again."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from PIL import Image
from tiny_runs import (
    ALONE,
    STAGES,
    StopAt,
    StoppedError,
    assert_same_weights,
    first_stage,
    make_recipe,
    read_logs,
    stop,
    train,
    write_images,
)

from fairweather.data import read_bytes
from fairweather.errors import TrainingError
from fairweather.imaging import as_bytes
from fairweather.models import load_model
from fairweather.training import dump_recipe, load_recipe
from fairweather.training.callbacks import BestPoint, ResumePoint, WholeFiles

pytestmark = ALONE

GAP_PX, CROP_PX = 8, 48


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def resumed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in each stage, whose curves were drawn."""
    run = tmp_path_factory.mktemp("resumed")
    for stage, batch in ((0, 3), (1, 3)):
        with pytest.raises(StoppedError):
            train(make_recipe(), data=data, run=run, callbacks=(StopAt(stage=stage, batch=batch),))
    train(make_recipe(), data=data, run=run, curves_every_s=60)
    return run


def test_the_recipe_of_a_run_is_whole_and_trains_it_again(
    data: Path, resumed: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(resumed / "recipe.yaml")
    assert recipe == make_recipe()
    assert (resumed / "recipe.yaml").read_text("utf-8") == dump_recipe(recipe)
    assert "gradient_clip_norm: 1.0\n" in dump_recipe(recipe)  # a default that nobody wrote
    train(recipe, data=data, run=tmp_path)
    assert_same_weights(tmp_path, resumed)


def test_every_start_is_noted(resumed: Path) -> None:
    starts = json.loads((resumed / "starts.json").read_text())
    assert len(starts) == 3
    for start in starts:
        assert start["seed"] == 3
        assert (start["images_trained_on"], start["images_held_out"]) == (6, 2)
        for package in ("fairweather", "torch", "lightning", "numpy"):
            assert start[package] == version(package)
        assert start["command"]
    assert [start["time"] for start in starts] == sorted(start["time"] for start in starts)


def test_the_curves_are_of_the_whole_run(resumed: Path) -> None:
    names = ("learning_rate", "loss", "psnr", "ssim")
    assert sorted(path.stem for path in (resumed / "curves").iterdir()) == sorted(names)
    for name in names:
        with Image.open(resumed / f"curves/{name}.png") as image:
            image.load()
            assert image.format == "PNG"
            assert image.size == (880, 495)
    columns, starts = read_logs(resumed)
    assert starts == [0, 6]
    assert list(columns["train_loss"]) == list(columns["lr"]) == list(range(10))
    assert list(columns["val_psnr_db"]) == list(columns["val_ssim"]) == [1, 3, 5, 7, 9]
    assert columns["lr"][0] == 1e-3
    assert columns["lr"][6] == columns["lr"][7] == 1e-3  # a fresh optimiser, warmed up in one step
    assert columns["lr"][9] < columns["lr"][8] < 1e-3


def panels(path: Path) -> list[np.ndarray]:
    pixels = read_bytes(path)
    assert pixels.shape == (CROP_PX, 3 * CROP_PX + 2 * GAP_PX, 3)
    for gap in (1, 2):
        left = gap * CROP_PX + (gap - 1) * GAP_PX
        assert (pixels[:, left : left + GAP_PX] == 255).all()
    starts = (panel * (CROP_PX + GAP_PX) for panel in range(3))
    return [pixels[:, start : start + CROP_PX] for start in starts]


def centre(path: Path) -> np.ndarray:
    return read_bytes(path)[8:-8, 8:-8]


def test_every_validation_leaves_pictures(data: Path, resumed: Path) -> None:
    """Left as it came, in the middle what the network made of it, right the truth."""
    names = sorted(path.name for path in (resumed / "triptychs").iterdir())
    assert names == [
        f"stage-{stage}-step-{step:07}-image-{image}.png"
        for stage, steps in ((0, (2, 4, 6)), (1, (2, 4)))
        for step in steps
        for image in (0, 1)
    ]
    for name in names:
        degraded, restored, clean = panels(resumed / "triptychs" / name)
        if name.endswith("0.png"):  # synthetic
            assert np.array_equal(clean, centre(data / "clean/0.png"))
            assert not np.array_equal(degraded, clean)
        else:
            assert np.array_equal(clean, centre(data / "pairs/target/7.png"))
            assert np.array_equal(degraded, centre(data / "pairs/input/7.png"))
        assert not np.array_equal(restored, degraded)
    best = max(
        (score, step)
        for step, score in read_logs(resumed)[0]["val_psnr_db"].items()
        if step >= len(range(6))
    )[1]
    degraded, restored, _ = panels(resumed / f"triptychs/stage-1-step-{best - 5:07}-image-1.png")
    image = torch.from_numpy(degraded.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = load_model(resumed / "model.safetensors")(image)[0]
    pixels = as_bytes(expected.clamp(0, 1).permute(1, 2, 0).numpy())
    assert np.abs(pixels.astype(int) - restored).max() <= 1


def test_pictures_are_rounded_and_clipped(tmp_path: Path) -> None:
    row = np.array([-0.5, 0.4 / 255, 0.6 / 255, 254.6 / 255, 2.0], np.float32)
    image = np.broadcast_to(row[None, :, None], (2, 5, 3))
    first_stage(make_recipe(), run=tmp_path).write_triptych((image,), step=2, number=0)
    picture = read_bytes(tmp_path / "triptychs/stage-0-step-0000002-image-0.png")
    assert picture[0, :, 0].tolist() == [0, 0, 1, 255, 255]


class CurvesSeen(Callback):
    """Notes at each validation whether curves were drawn before it; stops at the third."""

    def __init__(self, run: Path):
        self.run = run
        self.drawn: list[bool] = []

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        assert trainer.progress_bar_callback is None  # no terminal here
        self.drawn.append((self.run / "curves/loss.png").exists())
        if len(self.drawn) == 3:
            stop()


@pytest.mark.parametrize(
    ("every_s", "during", "after"), [(None, False, False), (600, False, True), (0, True, True)]
)
def test_curves_are_drawn_now_and_then_and_of_a_run_that_fails(
    data: Path, tmp_path: Path, every_s: float | None, during: bool, after: bool
) -> None:
    seen = CurvesSeen(tmp_path)
    with pytest.raises(StoppedError):
        train(make_recipe(), data=data, run=tmp_path, callbacks=(seen,), curves_every_s=every_s)
    assert seen.drawn == [False, during, during]
    assert (tmp_path / "curves/loss.png").exists() is after


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"global_step": 1}, path)
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda *_: stop())
    with pytest.raises(StoppedError):
        WholeFiles().save_checkpoint({"global_step": 2}, path)
    assert torch.load(path, weights_only=True)["global_step"] == 1
    monkeypatch.setattr(Path, "replace", replace)
    WholeFiles().save_checkpoint({"global_step": 3}, path)
    assert torch.load(path, weights_only=True)["global_step"] == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["before-last.ckpt", "last.ckpt"]
    assert torch.load(tmp_path / "before-last.ckpt", weights_only=True)["global_step"] == 1


def test_a_full_disk_leaves_the_old_checkpoint_and_says_how_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, room = TorchCheckpointIO.save_checkpoint, 3

    def half(io: TorchCheckpointIO, content: Any, path: Any, options: Any = None) -> None:
        nonlocal room
        room -= 1
        if room >= 0:
            save(io, content, path, options)
        else:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", half)
    recipe, run = make_recipe(stages=STAGES[:1]), tmp_path / "run"
    with pytest.raises(TrainingError, match=r"No space left .* the same command goes on"):
        train(recipe, data=data, run=run)
    saved = {path.name: path for path in (run / "stage-0").iterdir()}
    assert {"last.ckpt"} <= saved.keys() <= {"last.ckpt", "best.ckpt", "before-last.ckpt"}
    for path in saved.values():
        assert torch.load(path, weights_only=True)["global_step"] > 0
    monkeypatch.undo()
    train(recipe, data=data, run=run)
    train(recipe, data=data, run=tmp_path / "whole")
    assert_same_weights(run, tmp_path / "whole")


def test_a_resume_point_is_never_between_the_parts_of_a_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor before a validation of the same step."""
    saved: list[tuple[int, bool]] = []
    parts: list[int] = []

    def save(point: ResumePoint, trainer: Any, module: Any) -> None:
        saved.append((trainer.global_step, trainer.validating))
        parts.append(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    monkeypatch.setattr(ResumePoint, "_save", save)
    monkeypatch.setattr("fairweather.training.stage_run.RESUME_EVERY_STEPS", 1)
    stage = {**STAGES[0], "batch": 4, "accumulate": 2}
    recipe = make_recipe(stages=[stage], validate_every_steps=3, ema_decay=None)
    train(recipe, data=data, run=tmp_path / "even")
    assert saved == [(1, False), (2, False), (3, True), (4, False), (5, False), (6, True)]
    assert parts == [2, 4, 6, 8, 10, 12]
    saved.clear()
    stage = {"crop_px": 16, "batch": 6, "epochs": 4, "learning_rate": 1e-3}
    train(make_recipe(stages=[stage], validate_every_steps=3), data=data, run=tmp_path / "uneven")
    assert saved == [(1, False), (2, False), (3, True), (4, True)]


def test_what_was_logged_before_a_resume_point_is_on_the_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process writes nothing more, and a resumed one does not log it again."""
    on_disk: dict[int, list[int]] = {}
    save_checkpoint = lightning.Trainer.save_checkpoint

    def save(trainer: lightning.Trainer, path: Any, *rest: Any) -> None:
        if Path(path).name == "last.ckpt":
            on_disk[trainer.global_step] = list(read_logs(tmp_path)[0].get("val_psnr_db", []))
        save_checkpoint(trainer, path, *rest)

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", save)
    stage = {"crop_px": 16, "batch": 1, "steps": 45, "learning_rate": 1e-3}  # every second logged
    train(make_recipe(stages=[stage], validate_every_steps=15), data=data, run=tmp_path)
    assert on_disk == {15: [14], 30: [14, 29], 45: [14, 29, 44]}


def test_the_best_point_knows_its_score_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old/stage-0", tmp_path / "new/stage-0"
    one = BestPoint(old)
    one.best_model_path = one.kth_best_model_path = str(old / "best.ckpt")
    one.best_k_models = {str(old / "best.ckpt"): torch.tensor(30.0)}
    one.best_model_score = one.kth_value = torch.tensor(30.0)
    other = BestPoint(new)
    other.load_state_dict(one.state_dict())
    assert other.best_model_score == other.kth_value == 30
    assert other.best_model_path == other.kth_best_model_path == str(new / "best.ckpt")
    assert list(other.best_k_models) == [str(new / "best.ckpt")]
