"""Searches over tiny recipes: what they vary, prune, resume and leave behind."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import optuna
import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from PIL import Image

from fairweather import cli
from fairweather.errors import FairweatherError, OptionError, RecipeError, TrainingError
from fairweather.training import Machines, Recipe, dump_recipe, load_recipe, train
from fairweather.training.module import RestorationModule
from fairweather.training.tune import search as rooms
from fairweather.training.tune.search import SearchResult, mend_journal, tune
from fairweather.training.tune.space import parse_space
from fairweather.training.tune.summary import TrialResult, draw_summary, floor_db

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the log"),
    # Said whenever a run is resumed.
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

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
def _one_thread_of_the_cpu_and_no_curves() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: False))
        patch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: False))
        patch.setattr("fairweather.training.run.draw_curves", lambda _: [])  # most of the time
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
    with Image.open(result.summary_path) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 400
        assert len(image.convert("L").getcolors() or []) > 10
    assert [row["trial"] for row in rows_of(out)] == ["0", "1", "2", "3"]
    assert not [*out.rglob("*.ckpt")]
    for trial in result.trials:
        assert (out / trial.folder / "model.safetensors").exists() is trial.complete
        assert (trial.seconds > 0) is trial.complete
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


def test_a_folder_in_use_is_refused(data: Path, tmp_path: Path) -> None:
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(TrainingError, match="another process"),
    ):
        tune(make_recipe(), data=data, out=tmp_path, space=SPACE)


def scored_by_weight_decay(module: RestorationModule, batch: Any, batch_idx: int) -> None:
    module.log("val_psnr_db", 30 if module.recipe.weight_decay == 0.02 else 20, batch_size=1)


def test_a_bad_trial_is_stopped_early(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RestorationModule, "validation_step", scored_by_weight_decay)
    monkeypatch.setattr(rooms, "NEVER_PRUNED_TRIALS", 1)
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
    study = rooms.open_study(searched[0], first={})
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


def test_the_plot_of_many_kinds_of_trials(tmp_path: Path) -> None:
    """One that went wrong is shown at the foot of the axis, and does not press the others."""
    space = parse_space(
        ["weight_decay=1e-6..1e-1", "stages.0.batch=1|2", RATES, "loss.edge=0.0..1.0"],
        make_recipe(),
    )
    values: dict[str, float | str] = {
        "weight_decay": 1e-3, "stages.0.batch": "1", "loss.edge": 0.5,
        "stages.*.learning_rate": 2.0,
    }  # fmt: skip
    scores_db = [27.0, 27.1, 27.3, 11.0, None]
    results = [
        TrialResult(
            number=number,
            folder=f"trial-{number:04}",
            complete=number in (0, 2, 3),
            psnr_db=score_db,
            values=values,
            trained=1.0,
            seconds=1.0,
            reason="",
        )
        for number, score_db in enumerate(scores_db)
    ]
    floor = floor_db(results)
    assert floor is not None
    assert 25 < floor < 27
    assert floor_db(results[:3]) is None
    assert floor_db(results[4:]) is None
    for shown in (results, results[:1], results[4:]):
        draw_summary(tmp_path / "summary.png", shown, dimensions=space)
        with Image.open(tmp_path / "summary.png") as image:
            image.load()


def test_several_devices_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one device"):
        tune(make_recipe(), data=data, out=tmp_path, machines=Machines(devices=2))


def test_missing_data_are_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FairweatherError):
        tune(make_recipe(), data=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_torn_journal_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    mend_journal(path)
    path.write_bytes(b'{"a":1}\n{"b":')
    (tmp_path / "study.log.lock").touch()
    mend_journal(path)
    assert path.read_bytes() == b'{"a":1}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.log"]


def tune_and_be_killed(data: Path, out: Path) -> None:
    """Runs in a process of its own; killed in the last step of the second trial."""
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        study = rooms.open_study(out, first={})
        if (len(study.trials), module.index, module.global_step) == (2, 1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, batch_idx)

    RestorationModule.training_step = training_step  # type: ignore[method-assign]
    tune(make_recipe(), data=data, out=out, space=(RATES,), trials=3)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_killed_search_is_resumed_in_the_middle_of_its_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        f"import runpy, pathlib; names = runpy.run_path({__file__!r});"
        f" names['tune_and_be_killed'](*map(pathlib.Path, {[str(data), str(tmp_path)]}))"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(rows_of(tmp_path)) == 1
    drawn = load_recipe(tmp_path / "trial-0001/recipe.yaml")
    steps: list[tuple[int, int]] = []
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        steps.append((module.index, module.global_step))
        return step(module, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", training_step)
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=3)
    assert [(trial.number, trial.complete) for trial in result.trials] == [
        (0, True), (1, True), (2, True),
    ]  # fmt: skip
    assert steps == [(1, 1), *((0, n) for n in range(4)), *((1, n) for n in range(2))]
    assert load_recipe(tmp_path / "trial-0001/recipe.yaml") == drawn
    study = rooms.open_study(tmp_path, first={})
    assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert all(len(trial.intermediate_values) == 6 for trial in study.trials)


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
