"""Searches over tiny recipes: what they vary, prune, resume and leave behind."""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from PIL import Image

from fairweather import cli
from fairweather.errors import FairweatherError, OptionError, RecipeError, TrainingError
from fairweather.training import (
    Machines,
    Recipe,
    SearchResult,
    dump_recipe,
    load_recipe,
    search_recipe,
    train,
)
from fairweather.training.module import RestorationModule
from fairweather.training.tune import search as rooms
from fairweather.training.tune import study as storage

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the log"),
    # Said whenever a run is resumed.
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

tune = functools.partial(search_recipe, curves_every_s=None)  # which would take most of the time

RATES = "stages.*.learning_rate=x0.2..5"
SPACE = (RATES, "architecture.window=2|1")  # a window of 1 is refused


def make_recipe(**changes: Any) -> Recipe:
    """Two stages of six steps and six validations in all, on three images and one held out."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "task": "rain",
        "description": "A recipe for tests.",
        "preset": "ast_n",
        "architecture": {"embed_dim": 4, "depths": [1, 1, 1], "heads": [1, 1, 1], "window": 2},
        "data": {"clean": ["clean"], "held_out_every": 4},
        "stages": [
            {"crop_px": 16, "batch": 1, "steps": 4, "learning_rate": 1e-3},
            {
                "crop_px": 16,
                "batch": 2,
                "steps": 2,
                "learning_rate": 5e-4,
                "final_learning_rate": 2e-4,
            },
        ],
        "validate_every_steps": 1,
        "validation_crop_px": 16,
        "seed": 3,
    }
    return Recipe.model_validate(tree | changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "clean").mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"clean/{number}.png")
    return root


@pytest.fixture(scope="module", autouse=True)
def _one_thread_of_the_cpu() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: False))
        patch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: False))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    out = tmp_path_factory.mktemp("searched")
    return out, tune(make_recipe(), data=data, out=out, space=SPACE, trials=4)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_first_trial_is_the_recipe_itself(searched: tuple[Path, SearchResult]) -> None:
    assert load_recipe(searched[0] / "trial-0000/recipe.yaml") == make_recipe()


def test_an_invalid_value_prunes_its_trial_alone(searched: tuple[Path, SearchResult]) -> None:
    out, result = searched
    invalid = [trial for trial in result.trials if trial.values["architecture.window"] == "1"]
    assert 0 < len(invalid) < 4
    for trial in result.trials:
        assert trial.complete is (trial not in invalid)
        assert ("window 1" in trial.reason) is (trial in invalid)
        assert (out / trial.folder).exists() is (trial not in invalid)
    assert [row["state"] == "pruned" for row in rows_of(out)] == [
        trial in invalid for trial in result.trials
    ]


def test_the_best_recipe_is_that_of_the_best_trial(searched: tuple[Path, SearchResult]) -> None:
    out, result = searched
    assert result.best is not None
    scores_db = [trial.psnr_db for trial in result.trials if trial.psnr_db is not None]
    assert result.best.psnr_db == max(scores_db)
    assert result.recipe_path == out / "best.yaml"
    assert load_recipe(out / "best.yaml") == load_recipe(out / result.best.folder / "recipe.yaml")
    assert f"{result.best.psnr_db:.2f} dB" in (out / "best.yaml").read_text()


def test_what_a_search_leaves(searched: tuple[Path, SearchResult]) -> None:
    out, result = searched
    assert result.summary_path == out / "summary.png"
    for name in ("summary.png", "values.png", "steps.png"):
        with Image.open(out / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 400
            assert len(image.convert("L").getcolors() or []) > 10
    assert [row["trial"] for row in rows_of(out)] == ["0", "1", "2", "3"]
    assert not [*out.rglob("*.ckpt")]
    for trial in result.trials:
        assert (out / trial.folder / "model.safetensors").exists() is trial.complete
        assert trial.seconds >= 0
    assert not [path for path in out.rglob("*.tmp*") if path.is_file()]


def test_a_search_goes_on_with_the_missing_trials(
    data: Path, searched: tuple[Path, SearchResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    shutil.copytree(searched[0], out)
    trained: list[str] = []

    def counted(*arguments: Any, run: Path, **named: Any) -> Path:
        trained.append(run.name)
        return train(*arguments, run=run, **named)

    monkeypatch.setattr(rooms, "train", counted)
    for _ in range(2):
        result = tune(make_recipe(), data=data, out=out, space=SPACE, trials=6)
        assert result.trials[:4] == searched[1].trials
        assert len(result.trials) == 6
    assert set(trained) <= {"trial-0004", "trial-0005"}
    assert len(trained) == len(set(trained)) > 0


def test_a_stopped_search_draws_as_if_it_had_not_been(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "train_trial", lambda *_, **__: "not trained here")
    monkeypatch.setattr(rooms, "write_summary", lambda out, *_, **__: (None, out))
    space = (RATES, "weight_decay=0.0..1.0")
    once = tune(make_recipe(), data=data, out=tmp_path / "a", space=space, trials=5)
    for trials in (1, 3, 5):
        parts = tune(make_recipe(), data=data, out=tmp_path / "b", space=space, trials=trials)
    assert [trial.values for trial in parts.trials] == [trial.values for trial in once.trials]
    assert len({trial.values["weight_decay"] for trial in once.trials}) == 5
    assert (once.best, once.recipe_path) == (None, None)


@pytest.mark.parametrize(
    ("changes", "space", "words"),
    [
        ({"weight_decay": 0.1}, SPACE, "another recipe"),
        ({}, SPACE[:1], "another space"),
        (
            {"data": {"clean": ["clean"], "held_out_every": 2}},
            SPACE,
            "another recipe and another number of images",
        ),
    ],
)
def test_a_folder_of_another_search_is_refused(
    data: Path,
    searched: tuple[Path, SearchResult],
    changes: dict[str, Any],
    space: tuple[str, ...],
    words: str,
) -> None:
    out = searched[0]
    before = (out / "search.yaml").read_bytes()
    with pytest.raises(RecipeError, match=words):
        tune(make_recipe(**changes), data=data, out=out, space=space, trials=9)
    assert (out / "search.yaml").read_bytes() == before


def test_a_folder_of_an_older_version_is_refused(
    data: Path, searched: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    shutil.copy(searched[0] / "search.yaml", tmp_path)
    (tmp_path / "study.log").touch()
    with pytest.raises(RecipeError, match="the journal of an older version"):
        tune(make_recipe(), data=data, out=tmp_path, space=SPACE, trials=4)


def scored_by_weight_decay(module: RestorationModule, batch: Any, batch_idx: int) -> None:
    module.log("val_psnr_db", 30 if module.recipe.weight_decay == 0.02 else 20, batch_size=1)


def test_a_bad_trial_is_stopped_early(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RestorationModule, "validation_step", scored_by_weight_decay)
    monkeypatch.setattr(storage, "NEVER_PRUNED_TRIALS", 1)
    space = ("weight_decay=0.02|0.5",)
    result = tune(make_recipe(), data=data, out=tmp_path, space=space, trials=4)
    bad = [trial for trial in result.trials if trial.values["weight_decay"] == "0.5"]
    assert 0 < len(bad) < 4
    for trial in bad:
        run = tmp_path / trial.folder
        assert (trial.complete, trial.psnr_db) == (False, 20)
        assert trial.trained == pytest.approx(2 / 6, abs=1e-3)
        assert "median" in trial.reason
        assert [*run.glob("logs/*/metrics.csv")]
        assert not [*run.rglob("*.ckpt")]
    assert [trial.psnr_db for trial in result.trials if trial not in bad] == [30] * (4 - len(bad))


def test_steps_go_on_from_stage_to_stage(data: Path, searched: tuple[Path, SearchResult]) -> None:
    study = storage.open_study(searched[0], first={})
    parts = list(study.trials[0].intermediate_values)
    assert parts == [10_000 * step // 6 for step in range(1, 7)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("step 0: the loss is nan"), "the loss is nan"),
        (RecipeError("loss term 'ssim': crops are smaller"), "smaller"),
        (torch.OutOfMemoryError("no memory for 8 GiB"), "8 GiB"),
    ],
)
def test_a_fault_of_the_values_prunes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(RestorationModule, "training_step", fails)
    (trial,) = tune(make_recipe(), data=data, out=tmp_path, trials=1).trials
    assert (trial.complete, trial.psnr_db, trial.trained) == (False, None, 0)
    assert words in trial.reason


def test_any_other_fault_ends_the_search_and_leaves_the_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise TrainingError("stage 0 stopped at step 3")

    with monkeypatch.context() as patch:
        patch.setattr(rooms, "train", fails)
        with pytest.raises(TrainingError, match="stopped"):
            tune(make_recipe(), data=data, out=tmp_path, trials=1)
    result = tune(make_recipe(), data=data, out=tmp_path, trials=1)
    assert [(trial.number, trial.complete) for trial in result.trials] == [(0, True)]


def test_several_devices_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one device"):
        tune(make_recipe(), data=data, out=tmp_path, machines=Machines(devices=2))


def test_missing_data_are_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FairweatherError):
        tune(make_recipe(), data=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def watched_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Stage and step of everything that is trained from now on."""
    steps: list[tuple[int, int]] = []
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        steps.append((module.index, module.global_step))
        return step(module, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", training_step)
    return steps


WHOLE_TRIAL = [*((0, n) for n in range(4)), *((1, n) for n in range(2))]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_a_stopped_search_goes_on_in_the_middle_of_its_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    step = RestorationModule.training_step

    def stops(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        if (module.index, module.global_step) == (0, 2):
            raise error
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(RestorationModule, "training_step", stops)
        patch.setattr(signal, "signal", lambda *_: None)  # Lightning switches Ctrl-C off
        with pytest.raises((KeyboardInterrupt, SystemExit, OSError)):
            tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=2)
    steps = watched_steps(monkeypatch)
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=2)
    assert steps == [*WHOLE_TRIAL[2:], *WHOLE_TRIAL]
    assert [(trial.number, trial.folder) for trial in result.trials] == [
        (0, "trial-0000"), (1, "trial-0001"),
    ]  # fmt: skip


def start(function: Callable[..., None], *arguments: Path, grace_s: int) -> subprocess.Popen[str]:
    """Calls a function of this file in a process of its own, whose heart beats fast."""
    code = (
        f"import runpy, pathlib; names = runpy.run_path({__file__!r});"
        f" names['storage'].HEARTBEAT_S = 1; names['storage'].GRACE_S = {grace_s};"
        f" names[{function.__name__!r}](*map(pathlib.Path, {[str(path) for path in arguments]}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tune_and_print(data: Path, out: Path) -> None:
    """Runs in a process of its own."""
    trained: list[int] = []
    result = tune(
        make_recipe(),
        data=data,
        out=out,
        space=(RATES,),
        trials=6,
        on_trial=lambda trial: trained.append(trial.number),
    )
    print(json.dumps([trained, [trial.number for trial in result.trials]]))


@pytest.mark.slow
def test_two_processes_share_a_search(data: Path, tmp_path: Path) -> None:
    processes = [start(tune_and_print, data, tmp_path, grace_s=120) for _ in range(2)]
    done = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    (one, known), (other, known_too) = (json.loads(out.splitlines()[-1]) for out, _ in done)
    # Both may have begun a last trial at the same moment, of which the first to end knows nothing.
    known = max(known, known_too, key=len)
    assert known == list(range(len(known)))
    assert len(known) in (6, 7)
    assert sorted([*one, *other]) == known
    assert min(len(one), len(other)) > 0
    draws = {load_recipe(path).stages[0].learning_rate for path in tmp_path.glob("*/recipe.yaml")}
    assert len(draws) == len(known)


def tune_and_be_killed(data: Path, out: Path) -> None:
    """Runs in a process of its own; killed in the last step of the second trial."""
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        if (out / "trial-0001").exists() and (module.index, module.global_step) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, batch_idx)

    RestorationModule.training_step = training_step  # type: ignore[method-assign]
    tune(make_recipe(), data=data, out=out, space=(RATES,), trials=3)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_killed_search_is_resumed_in_the_middle_of_its_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its heart has not beaten for long enough to know that it was killed."""
    killed = start(tune_and_be_killed, data, tmp_path, grace_s=5)
    _, errors = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, errors
    assert len(rows_of(tmp_path)) == 1
    drawn = load_recipe(tmp_path / "trial-0001/recipe.yaml")
    monkeypatch.setattr(storage, "HEARTBEAT_S", 1)
    monkeypatch.setattr(storage, "GRACE_S", 5)
    steps = watched_steps(monkeypatch)
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=2)
    assert steps == [(1, 1)]
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=3)
    assert [(trial.number, trial.complete) for trial in result.trials] == [
        (0, True), (1, True), (2, True),
    ]  # fmt: skip
    assert steps == [(1, 1), *WHOLE_TRIAL]
    assert load_recipe(tmp_path / "trial-0001/recipe.yaml") == drawn
    study = storage.open_study(tmp_path, first={})
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert [len(trial.intermediate_values) for trial in done] == [6, 6, 6]


def test_the_command(
    data: Path,
    searched: tuple[Path, SearchResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a search that is done, it tells what was found."""
    out, result = searched
    assert result.best is not None
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(dump_recipe(make_recipe(weight_decay=0.5)), encoding="utf-8")
    arguments = ["tune", recipe, "weight_decay=0.02", "--data", data, "-o", out, "--trials", "4"]
    for entry in SPACE:
        arguments += ["--search", entry]
    monkeypatch.setattr(sys, "argv", ["fairweather", *map(str, arguments)])
    monkeypatch.setattr(cli.tune, "be_quiet", lambda: None)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert f"best: {result.best.folder}, {result.best.psnr_db:.2f} dB" in shown
    assert f"fairweather train {out / 'best.yaml'}" in shown
    assert shown.count(" dB ") >= len([trial for trial in result.trials if trial.complete])
