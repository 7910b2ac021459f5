"""`fairweather train`, as people call it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console
from tiny_runs import (
    ALONE,
    STAGES,
    logged,
    make_recipe,
    write_images,
)
from typer.testing import CliRunner, Result

import fairweather.cli.train
from fairweather.cli import app
from fairweather.errors import (
    CheckpointError,
    DataError,
    FairweatherError,
    OptionError,
    RecipeError,
    TrainingError,
)
from fairweather.training import Recipe, dump_recipe, list_recipes, load_recipe

pytestmark = ALONE

Run = Callable[..., Result]
ONE_STEP = make_recipe(stages=[{**STAGES[0], "steps": 1}], name="one_step")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command in an empty folder, where lines are long enough not to be broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fairweather.cli.train, "be_quiet", lambda: None)  # for good, that is

    def run(*words: object) -> Result:
        monkeypatch.setattr("fairweather.cli.train.out_console", Console(width=400))
        return CliRunner().invoke(app, ["train", *map(str, words)])

    return run


def written(folder: Path, recipe: Recipe) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    return path


def fault_of(result: Result, kind: type[FairweatherError]) -> str:
    assert isinstance(result.exception, kind), result
    return str(result.exception)


def test_the_command_trains_where_it_is_told(run: Run, data: Path, tmp_path: Path) -> None:
    recipe, out, cache = written(tmp_path, ONE_STEP), tmp_path / "out", tmp_path / "cache"
    done = run(recipe, "seed=5", "stages.0.batch=4", "--data", data, "-o", out, "--cache", cache)
    assert done.exit_code == 0, done
    assert done.stdout.endswith(f"trained: {out / 'model.safetensors'}\n")
    trained = load_recipe(out / "recipe.yaml")
    assert (trained.seed, trained.stages[0].batch) == (5, 4)
    assert len(list(cache.rglob("*.npy"))) > 0
    assert len(logged(out, 0, "train_loss")) == 1
    again = run(out / "recipe.yaml", "--data", data, "-o", out, "--cache", cache)
    assert again.exit_code == 0
    assert again.stdout.endswith(
        f"was finished before, nothing was trained: {out / 'model.safetensors'}\n"
    )
    assert len(json.loads((out / "starts.json").read_text())) == 2


def test_by_default_the_run_folder_is_named_after_the_recipe(
    run: Run, data: Path, tmp_path: Path
) -> None:
    recipe = written(tmp_path, ONE_STEP)
    done = run(recipe, "--data", data, "--cache", tmp_path / "cache")
    assert done.stdout.endswith(f"trained: {Path('runs/one_step/model.safetensors')}\n")
    assert (tmp_path / "runs/one_step/model.safetensors").exists()
    weights = tmp_path / "runs/one_step/model.safetensors"
    words = "name=other", "architecture.embed_dim=8", "--weights", weights
    other = run(recipe, *words, "--data", data, "--cache", tmp_path / "cache")
    assert "is not of the recipe's architecture" in fault_of(other, CheckpointError)
    assert not (tmp_path / "runs/other").exists()


def test_a_dry_run_tells_all_and_writes_nothing(run: Run, data: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path, make_recipe())
    done = run(recipe, "--data", data, "--dry-run")
    assert done.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
    lines = done.stdout.splitlines()
    assert lines[0] == "tiny: A recipe for tests."
    assert lines[1].startswith("model: ast_n, 0.0")
    assert lines[2].startswith("data: 6 images or pairs to train on, 2 held out (")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert [row[:-1] for row in rows] == [
        ["0", "32 px", "2", "6", "0", "2 steps", "0.001 → 1e-06"],
        ["1", "48 px", "2", "4", "1", "2 steps", "0.001 → 1e-06"],
    ]
    assert all(row[-1].endswith(" GiB") for row in rows)


def test_a_dry_run_without_data(run: Run, tmp_path: Path) -> None:
    stages = [{"crop_px": 20, "batch": 2, "epochs": 3, "warmup_epochs": 1, "learning_rate": 1e-3}]
    recipe = written(tmp_path, make_recipe(stages=stages))
    done = run(recipe, "--dry-run")
    assert "20 px, as costly as 24" in done.stdout
    assert "data: not looked at; give their folder with --data" in done.stdout
    assert "3 epochs" in done.stdout
    missing = run(recipe, "--dry-run", "--data", tmp_path / "missing")
    assert f"data: {tmp_path / 'missing/clean'}: is not a folder" in missing.stdout
    assert "is not a folder" in fault_of(missing, DataError)
    refused = run(recipe, "--dry-run", "--devices", 3)
    assert "batch 2 does not divide among 3 devices" in fault_of(refused, DataError)


def test_a_dry_run_checks_all_that_the_run_needs(run: Run, data: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path, ONE_STEP)
    words = (recipe, "--data", data, "--dry-run")
    assert "no file" in fault_of(run(*words, "--weights", "nowhere.pth"), CheckpointError)
    assert "architecture" in fault_of(run(*words, "--weights", "weather"), CheckpointError)
    assert "architecture" in fault_of(
        run(recipe, "--weights", "weather", "--dry-run"), CheckpointError
    )
    (tmp_path / "file").touch()
    assert "no folder" in fault_of(run(*words, "-o", tmp_path / "file/run"), TrainingError)
    mixed = run(*words, "precision=16-mixed")
    assert "needs a GPU" in fault_of(mixed, RecipeError)
    saved = {path.name for path in tmp_path.iterdir()}
    assert run(*words).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == saved
    broken = write_images(tmp_path / "broken")
    for path in (broken / "pairs/input").iterdir():
        path.write_bytes(b"no image")
    told = fault_of(run(recipe, "--data", broken, "--dry-run"), DataError)
    assert "cannot be trained on" in told
    assert run(recipe, "--data", data, "-o", "there", "--cache", tmp_path / "cache").exit_code == 0
    other = run(recipe, "--data", data, "-o", "there", "seed=9", "--dry-run")
    assert "another recipe" in fault_of(other, RecipeError)
    assert (
        run(recipe, "--data", data, "-o", "there", "seed=9", "--dry-run", "--fresh").exit_code == 0
    )


def test_a_dry_run_names_the_figure_to_reach_and_the_hours(run: Run, tmp_path: Path) -> None:
    published = {
        "model": "somebody's", "psnr_db": 32.5, "ssim": 0.9, "test_set": "the test set",
        "protocol": "over Y", "source": "a paper",
    }  # fmt: skip
    cost = {"hours": 12.5, "machine": "one GPU", "basis": "measured"}
    done = run(written(tmp_path, make_recipe(published=published, cost=cost)), "--dry-run")
    *_, figure, hours = done.stdout.splitlines()
    assert figure == (
        "figure to reach: 32.5 dB / 0.9 of somebody's on the test set, over Y (a paper)"
    )
    assert hours == "takes about 12.5 h on one GPU; measured"


def test_a_dry_run_of_a_bundled_recipe(run: Run) -> None:
    done = run("rain_n", "--dry-run")
    assert done.exit_code == 0
    recipe = load_recipe("rain_n")
    for part in (recipe.preset, *(f"{stage.crop_px} px" for stage in recipe.stages)):
        assert part in done.stdout


def test_names_of_recipes_are_never_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    listed = run("--list").stdout.split()
    assert set(list_recipes()) <= set(listed)


def test_the_recipes_are_listed(run: Run, tmp_path: Path) -> None:
    done = run("--list")
    assert done.exit_code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines()]
    rows = [row for row in rows if row]
    assert [row[0] for row in rows] == list_recipes()
    for name, task, preset, figure, _ in rows:
        recipe = load_recipe(name)
        assert (task, preset) == (recipe.task, recipe.preset)
        if recipe.published:
            assert f"{recipe.published.psnr_db:g} dB" in figure
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_json_and_nothing_else(run: Run) -> None:
    done = run("--schema")
    schema = json.loads(done.stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"].keys() == Recipe.model_fields.keys()
    assert schema["additionalProperties"] is False


def test_what_is_missing_is_asked_for(run: Run, data: Path, tmp_path: Path) -> None:
    assert "name a recipe; `fairweather train --list`" in fault_of(run(), OptionError)
    assert "--data DIR" in fault_of(run("rain_n"), OptionError)
    missing = run(written(tmp_path, ONE_STEP), "--data", tmp_path / "no", "-o", tmp_path / "out")
    assert "is not a folder" in fault_of(missing, DataError)
    assert not (tmp_path / "out").exists()


def test_torchrun_decides_over_the_devices(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RUN_ID", "0"), ("LOCAL_WORLD_SIZE", "8"), ("WORLD_SIZE", "16")):
        monkeypatch.setenv(f"TORCHELASTIC_{name}" if name == "RUN_ID" else name, value)
    recipe = written(tmp_path, ONE_STEP)
    done = run(recipe, "--data", data, "--devices", 1, "-o", tmp_path / "out")
    assert "batch 2 does not divide among 16 devices" in fault_of(done, DataError)


def test_the_help_names_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    assert all(parameter.help for parameter in command.params)


def test_keras_is_given_the_same_work(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def train(recipe: Recipe, **options: Any) -> Path:
        given.update(options, name=recipe.name)
        return Path("model.keras")

    monkeypatch.setitem(sys.modules, "fairweather.keras", SimpleNamespace(train=train))
    words = (written(tmp_path, ONE_STEP), "--framework", "keras", "--data", data)
    done = run(*words, "-o", "there", "--cache", "kept", "--weights", "rain", "--unchecked")
    assert (done.exit_code, done.stdout) == (0, "trained: model.keras\n")
    assert given.pop("verbose") in (1, 2)
    assert given == {
        "name": "one_step", "data": data, "run": Path("there"), "cache": Path("kept"),
        "weights": "rain", "unchecked": True, "fresh": False,
    }  # fmt: skip
    assert "takes neither" in fault_of(run(*words, "--devices", 2), OptionError)
