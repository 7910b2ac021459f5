"""A run folder goes on with its own data, weights and recipe, and with nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import filelock
import pytest
from tiny_runs import ALONE, STAGES, make_recipe, save, train, write_images

from fairweather.data import read_bytes
from fairweather.errors import FairweatherError, RecipeError, TrainingError
from fairweather.models import create_model, save_model
from fairweather.training import is_finished

pytestmark = ALONE

RECIPE = make_recipe(stages=[{**STAGES[0], "steps": 2}])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    train(RECIPE, data=data, run=tmp_path / "run")
    return tmp_path / "run"


def refusal(run: Path, data: Path, kind: type[FairweatherError], **options: Any) -> str:
    before = (run / "model.safetensors").read_bytes(), (run / "starts.json").read_bytes()
    with pytest.raises(kind) as caught:
        train(options.pop("recipe", RECIPE), data=data, run=run, **options)
    assert before == ((run / "model.safetensors").read_bytes(), (run / "starts.json").read_bytes())
    assert "-o" in str(caught.value)
    assert "--fresh" in str(caught.value)
    return str(caught.value)


def test_other_data_are_refused_and_the_difference_is_named(run: Path, data: Path) -> None:
    image = data / "clean/3.png"
    pixels = read_bytes(image)
    save(image, 255 - pixels)
    assert "'clean/3.png' is another file" in refusal(run, data, TrainingError)
    image.rename(data / "clean/31.png")
    assert "'clean/3.png' is no longer among them" in refusal(run, data, TrainingError)
    save(data / "clean/new.png", pixels)
    told = refusal(run, data, TrainingError)
    assert "6 images to train on and 2 held out there, 7 and 2 here" in told


def test_other_weights_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    save_model(create_model(RECIPE.config), tmp_path / "start.safetensors")
    told = refusal(run, data, TrainingError, weights=tmp_path / "start.safetensors")
    assert "other start weights: none there, start.safetensors here" in told


def test_another_recipe_is_refused_with_what_differs(run: Path, data: Path) -> None:
    other = make_recipe(stages=[{**STAGES[0], "steps": 2, "batch": 4}], seed=5)
    told = refusal(run, data, RecipeError, recipe=other)
    assert "(seed is 3 there and 5 here; stages.0.batch is 2 there and 4 here)" in told


def test_a_finished_run_says_so_and_trains_nothing(
    run: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_finished(run, RECIPE)
    before = (run / "model.safetensors").read_bytes()
    moved = data.rename(data.with_name("moved"))  # relative names are the same
    assert train(RECIPE, data=moved, run=run) == run / "model.safetensors"
    assert "was finished before; nothing was trained" in caplog.text
    assert (run / "model.safetensors").read_bytes() == before
    assert len(list((run / "logs").iterdir())) == 1


def test_fresh_moves_the_run_aside_and_begins_anew(
    run: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (run / "model.safetensors").read_bytes()
    other = make_recipe(stages=[{**STAGES[0], "steps": 3}])
    train(other, data=data, run=run, fresh=True)
    assert (run.with_name("run.1") / "model.safetensors").read_bytes() == before
    assert "is now in" in caplog.text
    assert is_finished(run, other)
    assert len(json.loads((run / "starts.json").read_text())) == 1
    shutil.rmtree(run)
    train(other, data=data, run=run, fresh=True)  # nothing to move
    assert not run.with_name("run.2").exists()


def test_a_run_of_an_older_version_goes_on(run: Path, data: Path) -> None:
    (run / "begun.json").unlink()
    train(RECIPE, data=data, run=run)
    (run / "begun.json").unlink()
    save(data / "clean/new.png", read_bytes(data / "clean/0.png"))
    assert "6 images to train on" in refusal(run, data, TrainingError)


@pytest.mark.parametrize("fresh", [False, True])
def test_two_processes_do_not_train_in_one_folder(run: Path, data: Path, fresh: bool) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with (
        filelock.FileLock(run / ".lock"),
        pytest.raises(TrainingError, match=r"another process trains in this folder now.* -o"),
    ):
        train(RECIPE, data=data, run=run, fresh=fresh)
    assert all(path.read_bytes() == content for path, content in before.items())
    train(RECIPE, data=data, run=run)  # it was let go of
