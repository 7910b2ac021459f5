"""Real training runs, tiny ones: what they leave behind, and that they can be stopped anywhere."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from PIL import Image
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from fairweather.data import add_rain, read_bytes
from fairweather.errors import MissingExtraError, RecipeError, TrainingError
from fairweather.models import PRESETS, create_model, load_model, read_metadata
from fairweather.training import Recipe, train
from fairweather.training.module import RestorationModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the log"),
    # Said whenever a run is resumed.
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

SIDE_PX = 64
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


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for number in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        clean = np.asarray(coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
        if number < 6:
            save(root / f"clean/{number}.png", clean)
        else:
            save(root / f"pairs/target/{number}.png", clean)
            save(root / f"pairs/input/{number}.png", clean // 2)
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


@pytest.fixture(scope="module", autouse=True)
def _one_thread_of_the_cpu() -> Iterator[None]:
    with one_thread_of_the_cpu():
        yield


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nobody stopped."""
    run = tmp_path_factory.mktemp("trained")
    assert train(make_recipe(), data=data, run=run, devices=1) == run / "model.safetensors"
    return run


def assert_same_weights(run: Path, other: Path) -> None:
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


def test_the_weights_load_and_say_where_they_are_from(trained: Path) -> None:
    model = load_model(trained / "model.safetensors")
    assert model.config == PRESETS["ast_n"]
    metadata = read_metadata(trained / "model.safetensors")
    assert metadata["task"] == "rain"
    assert Recipe.model_validate_json(metadata["recipe"]) == make_recipe()
    assert json.loads(metadata["training_data"]) == ["clean", "pairs"]
    untrained = create_model("ast_n").state_dict()
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


def column_of(table: Path, column: str) -> list[float]:
    with table.open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


def logged(run: Path, stage: int, column: str) -> list[float]:
    """A column of the only log of a stage that was not stopped."""
    (table,) = (run / "logs").glob(f"stage-{stage}*/metrics.csv")
    return column_of(table, column)


def test_the_best_of_the_last_stage_is_kept(trained: Path) -> None:
    for stage, validations in ((0, 3), (1, 2)):
        scores_db = logged(trained, stage, "val_psnr_db")
        assert len(scores_db) == validations
        done = json.loads((trained / f"stage-{stage}/done.json").read_text())
        assert done["held_out_psnr_db"] == pytest.approx(max(scores_db), abs=1e-4)
    metadata = read_metadata(trained / "model.safetensors")
    assert float(metadata["held_out_psnr_db"]) == pytest.approx(max(scores_db), abs=1e-3)


def test_training_undoes_the_damage(data: Path, tmp_path: Path) -> None:
    """The pairs are darkened to a half; a few steps must brighten them by several dB."""
    stage = {"crop_px": 16, "batch": 2, "steps": 20, "learning_rate": 5e-3, "warmup_steps": 4}
    recipe = make_recipe(
        data={"pairs": ["pairs"], "held_out_every": 2},
        stages=[stage],
        validate_every_steps=20,
    )
    train(recipe, data=data, run=tmp_path, devices=1)
    assert logged(tmp_path, 0, "val_psnr_db")[-1] > logged(tmp_path, 0, "val_input_psnr_db")[-1] + 3


def test_a_finished_run_is_not_trained_again(
    data: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_file(trained / "model.safetensors")
    (trained / "model.safetensors").unlink()
    monkeypatch.setattr(lightning.Trainer, "fit", lambda *_, **__: pytest.fail("trains again"))
    path = train(make_recipe(), data=data, run=trained, devices=1)
    after = load_file(path)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_folder_with_another_recipe_is_refused(data: Path, trained: Path) -> None:
    before = (trained / "recipe.json").read_text()
    with pytest.raises(RecipeError, match="another recipe") as caught:
        train(make_recipe(seed=4), data=data, run=trained, devices=1)
    assert str(trained) in str(caught.value)
    assert (trained / "recipe.json").read_text() == before


def test_a_loss_that_is_not_finite_stops_the_run(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(stages=[{**STAGES[0], "learning_rate": 1e30}])
    with pytest.raises(TrainingError, match=r"step \d+: the loss is nan"):
        train(recipe, data=data, run=tmp_path, devices=1)
    assert not (tmp_path / "model.safetensors").exists()


Moment = tuple[str, int, int]
# Made up, so that the best weights of stage 0 are its first ones and of stage 1 its last ones.
SCORES_DB = {(0, 2): 30.0, (0, 4): 20.0, (0, 6): 10.0, (1, 2): 10.0, (1, 4): 20.0}


class StoppedError(Exception):
    """Stands for a power cut."""


def stop() -> None:
    raise StoppedError


def interrupt() -> None:
    raise KeyboardInterrupt


class Watch:
    """Writes down every step of a run, its weights too, and stops it at one moment."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.moments: list[Moment] = []
        self.weights: dict[tuple[int, int], dict[str, Tensor]] = {}
        self.stop_at: Moment | None = None
        self.stop: Callable[[], None] = stop
        step = RestorationModule.training_step

        def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Tensor:
            self.note("train", module)
            return step(module, batch, batch_idx)

        def validation_step(module: RestorationModule, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                self.note("validate", module)
            score_db = SCORES_DB[self.stage_of(module), module.global_step]
            module.log("val_psnr_db", score_db, batch_size=1)

        patch.setattr(RestorationModule, "training_step", training_step)
        patch.setattr(RestorationModule, "validation_step", validation_step)

    @staticmethod
    def stage_of(module: RestorationModule) -> int:
        return module.recipe.stages.index(module.stage)

    def note(self, what: str, module: RestorationModule) -> None:
        stage, step = self.stage_of(module), module.global_step
        self.moments.append((what, stage, step))
        if what == "train":  # before the step: the result of the step before
            state = module.model.state_dict()
            self.weights[stage, step] = {name: tensor.clone() for name, tensor in state.items()}
        if self.moments[-1] == self.stop_at:
            self.stop_at = None
            self.stop()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watch]:
    """A run with the scores above that nobody stopped."""
    run = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        watch = Watch(patch)
        train(make_recipe(), data=data, run=run, devices=1)
    return run, watch


def test_a_run_is_as_long_as_the_recipe_says(uninterrupted: tuple[Path, Watch]) -> None:
    moments = uninterrupted[1].moments
    assert [m[1:] for m in moments if m[0] == "train"] == [
        *((0, step) for step in range(6)),
        *((1, step) for step in range(4)),
    ]
    assert [m[1:] for m in moments if m[0] == "validate"] == list(SCORES_DB)


def test_a_stage_starts_from_the_averaged_weights_of_the_best_step(
    uninterrupted: tuple[Path, Watch],
) -> None:
    """Best in stage 0 was step 2, whose average is of the weights after the steps 1 and 2."""
    weights = uninterrupted[1].weights
    for name, start in weights[1, 0].items():
        average = 0.5 * weights[0, 1][name] + 0.5 * weights[0, 2][name]
        torch.testing.assert_close(start, average, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize(
    "stop_at",
    [
        ("train", 0, 1),  # before the first checkpoint
        ("validate", 0, 2),
        ("train", 0, 3),
        ("train", 0, 5),
        ("train", 1, 0),  # between the stages
        ("train", 1, 3),
        ("validate", 1, 4),  # after the last step
    ],
    ids=lambda moment: "-".join(map(str, moment)),
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch, stop_at: Moment
) -> None:
    watch.stop_at = stop_at
    with pytest.raises(StoppedError):
        train(make_recipe(), data=data, run=tmp_path, devices=1)
    saved = tmp_path / f"stage-{stop_at[1]}/last.ckpt"
    steps_saved = torch.load(saved, weights_only=True)["global_step"] if saved.exists() else 0
    watch.moments.clear()
    train(make_recipe(), data=data, run=tmp_path, devices=1)
    expected, uninterrupted_watch = uninterrupted
    assert [moment[1:] for moment in watch.moments if moment[0] == "train"] == [
        moment for moment in uninterrupted_watch.weights if moment >= (stop_at[1], steps_saved)
    ]
    for moment, weights in uninterrupted_watch.weights.items():
        for name, tensor in weights.items():
            assert torch.equal(tensor, watch.weights[moment][name]), (moment, name)
    for stage in ("stage-0", "stage-1"):
        done, expected_done = (folder / stage / "done.json" for folder in (tmp_path, expected))
        assert json.loads(done.read_text()) == json.loads(expected_done.read_text())
    assert_same_weights(tmp_path, expected)


def test_a_run_goes_on_after_control_c(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch
) -> None:
    watch.stop_at, watch.stop = ("train", 0, 5), interrupt
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(make_recipe(), data=data, run=tmp_path, devices=1)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it switched off
    assert not (tmp_path / "stage-0/done.json").exists()
    train(make_recipe(), data=data, run=tmp_path, devices=1)
    assert_same_weights(tmp_path, uninterrupted[0])


def test_a_resumed_run_keeps_its_curves(data: Path, tmp_path: Path, watch: Watch) -> None:
    watch.stop_at = ("train", 0, 5)
    with pytest.raises(StoppedError):
        train(make_recipe(), data=data, run=tmp_path, devices=1)
    train(make_recipe(), data=data, run=tmp_path, devices=1)
    tables = sorted((tmp_path / "logs").rglob("*.csv"))
    scores_db = {value for table in tables for value in column_of(table, "val_psnr_db")}
    assert scores_db == set(SCORES_DB.values())


def train_and_be_killed(data: Path, run: Path) -> None:
    """Runs in a process of its own."""
    watch = Watch(pytest.MonkeyPatch())
    watch.stop_at, watch.stop = ("train", 1, 3), lambda: os.kill(os.getpid(), signal.SIGKILL)
    with one_thread_of_the_cpu():
        train(make_recipe(), data=data, run=run, devices=1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_killed_process_is_resumed_by_another(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch
) -> None:
    code = (
        f"import runpy, pathlib; names = runpy.run_path({__file__!r});"
        f" names['train_and_be_killed'](*map(pathlib.Path, {[str(data), str(tmp_path)]}))"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "stage-1/last.ckpt").exists()
    assert not (tmp_path / "model.safetensors").exists()
    train(make_recipe(), data=data, run=tmp_path, devices=1)
    assert ("train", 1, 2) in watch.moments
    assert ("train", 1, 1) not in watch.moments
    assert_same_weights(tmp_path, uninterrupted[0])


def test_stochastic_depth_is_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    monkeypatch.setitem(PRESETS, "ast_n", replace(PRESETS["ast_n"], stochastic_depth=0.5))
    recipe = make_recipe(stages=STAGES[1:])
    train(recipe, data=data, run=tmp_path / "expected", devices=1)
    watch.stop_at = ("train", 0, 3)
    with pytest.raises(StoppedError):
        train(recipe, data=data, run=tmp_path / "stopped", devices=1)
    train(recipe, data=data, run=tmp_path / "stopped", devices=1)
    assert_same_weights(tmp_path / "stopped", tmp_path / "expected")


def test_only_parameters_are_averaged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[str] = []
    step = RestorationModule.validation_step
    fresh = dict(create_model("ast_n").named_buffers())

    def validation_step(module: RestorationModule, batch: Any, batch_idx: int) -> None:
        buffers = module.model.named_buffers()
        changed.extend(name for name, buffer in buffers if not torch.equal(buffer, fresh[name]))
        step(module, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "validation_step", validation_step)
    recipe = make_recipe(ema_decay=0.9, stages=[{**STAGES[0], "steps": 2}])
    train(recipe, data=data, run=tmp_path, devices=1)
    assert changed == []


WITHOUT_LIGHTNING = """
import sys
sys.modules["lightning"] = None
import fairweather, fairweather.data
import fairweather.training
"""


def test_a_missing_extra_says_how_it_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIGHTNING], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"{MissingExtraError.__name__}: training needs lightning;" in last
    assert "pip install 'fairweather[train]'" in last
