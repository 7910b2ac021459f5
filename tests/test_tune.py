"""Searches over tiny recipes: what they vary, prune, resume and leave behind."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import ALONE
from tiny_searches import RATES, SPACE, make_recipe, rows_of, tune, write_images

from fairweather import cli
from fairweather.errors import FairweatherError, OptionError, RecipeError, TrainingError
from fairweather.training import Machines, SearchResult, dump_recipe, load_recipe, train
from fairweather.training.module import RestorationModule
from fairweather.training.tune import search as rooms
from fairweather.training.tune import study as storage

pytestmark = ALONE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    out = tmp_path_factory.mktemp("searched")
    return out, tune(make_recipe(), data=data, out=out, space=SPACE, trials=4)


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
            r"another recipe and other data \(\d+ images to train on",
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
