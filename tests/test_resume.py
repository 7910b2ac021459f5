"""Runs that are stopped anywhere, by whatever means, end as if they had not been."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_runs import (
    ALONE,
    STAGES,
    StopAt,
    StoppedError,
    assert_same_run,
    assert_same_weights,
    make_recipe,
    of_pairs,
    one_thread_of_the_cpu,
    read_logs,
    stop,
    train,
    weights_in,
    write_images,
)
from torch import Tensor

from fairweather.errors import CheckpointError
from fairweather.training.module import RestorationModule

pytestmark = ALONE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"), pairs=8)


Moment = tuple[str, int, int]
# Made up, so that the best weights of stage 0 are its first ones and of stage 1 its last ones.
SCORES_DB = {(0, 2): 30.0, (0, 4): 20.0, (0, 6): 10.0, (1, 2): 10.0, (1, 4): 20.0}


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
        return module.index

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
        train(make_recipe(), data=data, run=run)
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
        train(make_recipe(), data=data, run=tmp_path)
    saved = tmp_path / f"stage-{stop_at[1]}/last.ckpt"
    steps_saved = torch.load(saved, weights_only=True)["global_step"] if saved.exists() else 0
    watch.moments.clear()
    train(make_recipe(), data=data, run=tmp_path)
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
            train(make_recipe(), data=data, run=tmp_path)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it switched off
    assert not (tmp_path / "stage-0/done.json").exists()
    train(make_recipe(), data=data, run=tmp_path)
    assert_same_weights(tmp_path, uninterrupted[0])


def train_and_be_killed(data: Path, run: Path, *moment: str) -> None:
    """Runs in a process of its own."""
    watch = Watch(pytest.MonkeyPatch())
    watch.stop_at = moment[0], int(moment[1]), int(moment[2])
    watch.stop = lambda: os.kill(os.getpid(), signal.SIGKILL)
    with one_thread_of_the_cpu():
        train(make_recipe(), data=data, run=run)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_killed_process_is_resumed_by_another(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch
) -> None:
    """Killed at any step, and still not a point of its curves is lost or changed."""
    expected, uninterrupted_watch = uninterrupted
    moment = random.Random(0).choice(uninterrupted_watch.moments)
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(Path(__file__).parent)!r});"
        f" import test_resume; test_resume.train_and_be_killed(pathlib.Path({str(data)!r}),"
        f" pathlib.Path({str(tmp_path)!r}), *{list(map(str, moment))})"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "model.safetensors").exists()
    train(make_recipe(), data=data, run=tmp_path)
    assert_same_run(tmp_path, expected)
    assert read_logs(tmp_path) == read_logs(expected)
    trained = [m[1:] for m in watch.moments if m[0] == "train"]
    steps_before = moment[2] - moment[2] % 2  # the last validated step
    assert trained[0] == (moment[1], max(0, steps_before - 2 * (moment[0] == "validate")))


def test_a_resumed_run_has_the_curves_of_one_that_was_not_stopped(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch
) -> None:
    for watch.stop_at in (("train", 0, 3), ("train", 0, 5), ("train", 1, 3)):
        with pytest.raises(StoppedError):
            train(make_recipe(), data=data, run=tmp_path)
    train(make_recipe(), data=data, run=tmp_path)
    assert len(list((tmp_path / "logs").rglob("*.csv"))) == 3 + 2
    assert read_logs(tmp_path) == read_logs(uninterrupted[0])


def test_a_run_goes_on_in_a_folder_that_was_moved(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch
) -> None:
    """The best of stage 0 is from before; its score must not be forgotten."""
    watch.stop_at = ("train", 0, 3)
    with pytest.raises(StoppedError):
        train(make_recipe(), data=data, run=tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "other")
    train(make_recipe(), data=data, run=tmp_path / "other")
    assert_same_run(tmp_path / "other", uninterrupted[0])


class StopAfterFit(Callback):
    """A stage is trained, but nothing says so yet."""

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        raise StoppedError


class Note(Callback):
    """Writes down every batch of a run."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append((pl_module.index, batch_idx))


IN_PARTS = [{**stage, "batch": 4, "accumulate": 2} for stage in STAGES]
IN_EPOCHS = [
    {"crop_px": 16, "batch": 2, "epochs": 2, "warmup_epochs": 1, "learning_rate": 1e-3},
    {"crop_px": 32, "batch": 3, "epochs": 1, "learning_rate": 1e-3},
]
KINDS = {
    "parts": (make_recipe(stages=IN_PARTS), 20),
    "epochs": (make_recipe(stages=IN_EPOCHS, validate_every_steps=None), 2 * 6 + 4),
    "uneven": (make_recipe(stages=IN_EPOCHS, validate_every_steps=5), 2 * 6 + 4),
    "double": (of_pairs(stages=STAGES, ema_decay=None), 10),
    "stochastic": (
        make_recipe(architecture={**make_recipe().architecture, "stochastic_depth": 0.5}),
        10,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_again_and_again(data: Path, tmp_path: Path, kind: str) -> None:
    """At random batches of both stages, at the end of a stage and at the start of the next."""
    (recipe, batches), note = KINDS[kind], Note()
    expected, stopped = tmp_path / "expected", tmp_path / "stopped"
    train(recipe, data=data, run=expected, callbacks=(note,))
    assert len(note.batches) == len(set(note.batches)) == batches
    choose = random.Random(kind)
    in_stage = [[m for m in note.batches[1:] if m[0] == stage] for stage in (0, 1)]
    first, last = (
        sorted(choose.sample(moments[1:], count))
        for moments, count in zip(in_stage, (2, 1), strict=True)
    )
    stops = [StopAt(stage=s, batch=b) for s, b in (*first, (1, 0), *last)]
    for callback in (*stops[:2], StopAfterFit(), *stops[2:]):
        with pytest.raises(StoppedError):
            train(recipe, data=data, run=stopped, callbacks=(callback,))
    train(recipe, data=data, run=stopped)
    assert_same_run(stopped, expected)
    assert read_logs(stopped) == read_logs(expected)


def test_patience_ends_a_stage_for_good(data: Path, tmp_path: Path, watch: Watch) -> None:
    """Stage 0 gets worse from its first validation on, stage 1 does not."""
    recipe = make_recipe(early_stopping_validations=1)
    steps = [*((0, step) for step in range(4)), *((1, step) for step in range(4))]
    train(recipe, data=data, run=tmp_path / "expected")
    assert [m[1:] for m in watch.moments if m[0] == "train"] == steps
    watch.moments.clear()
    run = tmp_path / "stopped"
    stops: list[Callback] = [StopAt(stage=0, batch=3), StopAfterFit(), StopAt(stage=1, batch=1)]
    for callback in stops:
        with pytest.raises(StoppedError):
            train(recipe, data=data, run=run, callbacks=(callback,))
    assert (run / "stage-0/done.json").exists()
    train(recipe, data=data, run=run)
    again = [(0, 2), (0, 3)], [(1, 0), (1, 0)]
    trained = [m[1:] for m in watch.moments if m[0] == "train"]
    assert trained == [*steps[:3], *again[0], *again[1], *steps[5:]]
    assert_same_run(run, tmp_path / "expected")
    assert read_logs(run) == read_logs(tmp_path / "expected")


def test_what_a_run_keeps_is_from_its_best_step(data: Path, tmp_path: Path, watch: Watch) -> None:
    """Without an average it is just the weights of that step."""
    train(make_recipe(ema_decay=None), data=data, run=tmp_path)
    kept = weights_in(tmp_path / "stage-0/best.ckpt")
    for name, tensor in watch.weights[0, 2].items():
        assert torch.equal(kept[f"model.{name}"], tensor), name
        assert torch.equal(watch.weights[1, 0][name], tensor), name


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "gone"])
def test_a_damaged_last_checkpoint_loses_one_interval(
    data: Path,
    tmp_path: Path,
    uninterrupted: tuple[Path, Watch],
    watch: Watch,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch.stop_at = ("train", 0, 5)
    with pytest.raises(StoppedError):
        train(make_recipe(), data=data, run=tmp_path)
    last = tmp_path / "stage-0/last.ckpt"
    content = last.read_bytes()
    middle = len(content) // 2
    part = bytes(byte ^ 255 for byte in content[middle : middle + 256])
    changed = content[:middle] + part + content[middle + 256 :]
    spoilt = {"empty": b"", "cut": content[:middle], "changed": changed}
    last.unlink() if damage == "gone" else last.write_bytes(spoilt[damage])
    watch.moments.clear()
    train(make_recipe(), data=data, run=tmp_path)
    assert watch.moments[0] == ("train", 0, 2)  # of step 4 was the last
    assert (f"{last} is damaged" in caplog.text) == (damage != "gone")
    assert_same_run(tmp_path, uninterrupted[0])


def test_where_both_are_damaged_the_stage_begins_anew(
    data: Path, tmp_path: Path, uninterrupted: tuple[Path, Watch], watch: Watch
) -> None:
    watch.stop_at = ("train", 0, 5)
    with pytest.raises(StoppedError):
        train(make_recipe(), data=data, run=tmp_path)
    for name in ("last.ckpt", "before-last.ckpt"):
        (tmp_path / "stage-0" / name).write_bytes(b"")
    train(make_recipe(), data=data, run=tmp_path)
    assert_same_run(tmp_path, uninterrupted[0])


def test_damaged_best_weights_are_named(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(stages=STAGES[:1])
    train(recipe, data=data, run=tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "stage-0/best.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"best\.ckpt: is damaged .* remove the folder"):
        train(recipe, data=data, run=tmp_path)
