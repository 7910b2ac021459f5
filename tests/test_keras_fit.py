"""Training with Keras beside training with PyTorch; `test_keras_backends.py` runs this."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import random_model
from tiny_runs import (
    ALONE,
    column_of,
    first_stage,
    logged,
    make_recipe,
    train,
    write_images,
)

import fairweather
from fairweather import training
from fairweather.errors import CheckpointError, RecipeError, TrainingError
from fairweather.training import Recipe, split_pairs
from fairweather.training.data_module import RestorationData

pytestmark = [
    *ALONE,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy"),
]

ONE_STAGE = ({"crop_px": 32, "batch": 2, "steps": 6, "learning_rate": 1e-3},)
FROM_START = make_recipe(stages=ONE_STAGE, early_stopping_validations=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of which Keras' Adam, which treats tiny gradients otherwise, makes the same."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    fairweather.models.save_model(random_model(FROM_START.config, std=0.2), path)
    return path


@pytest.fixture(scope="module")
def whole(fk: Any, data: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Keras that was never stopped."""
    run = tmp_path_factory.mktemp("whole")
    train_keras(fk, FROM_START, data=data, weights=start, run=run)
    return run


def train_keras(fk: Any, recipe: Recipe, **options: Any) -> Path:
    """Trains without drawing curves, which takes longer."""
    return fk.train(recipe, curves_every_s=None, **options)


def keras_log(run: Path, stage: int, attempt: int = 0) -> Path:
    return run / "logs" / f"stage-{stage}.{attempt}" / "metrics.csv"


def check_batches_are_those_of_pytorch(fk: Any, data: Path) -> None:
    recipe = make_recipe()
    pairs, held_out = split_pairs(recipe, data)
    batches = fk.TrainingBatches(recipe, pairs=pairs, batches=6)
    source = RestorationData(first_stage(recipe, split=(pairs, held_out)))
    assert len(batches) == 6
    for number, batch in enumerate(source.train_dataloader()):
        seed = training.seed_of(batch, recipe=recipe, index=0)
        expected = training.degrade_crops(batch, recipe=recipe, index=0, seed=seed)
        for ours, theirs in zip(batches[number], expected, strict=True):
            assert (ours.shape, ours.dtype) == ((2, 32, 32, 3), np.float32)
            np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1))
    later = fk.TrainingBatches(recipe, pairs=pairs, batches=6, begin=4)
    np.testing.assert_array_equal(later[1], batches[5])
    assert len(later) == 2


def check_data_for_fit(fk: Any, data: Path) -> None:
    import keras

    recipe = make_recipe()
    batches, held_out = fk.load_data(recipe, data, batches=3)
    if keras.backend.backend() == "tensorflow":
        shapes = [tuple(one.shape) for one in next(iter(batches))]
        assert [len([*one]) for one in (batches, held_out)] == [3, 2]
    else:
        shapes = [one.shape for one in batches[0]]
        assert (len(batches), len(held_out)) == (3, 2)
    assert shapes == [(2, 32, 32, 3)] * 2


def check_a_run_of_keras_is_a_run_of_pytorch(
    fk: Any, data: Path, start: Path, whole: Path, tmp_path: Path
) -> None:
    """From the same start weights, on the same batches, with averaged weights and clipping."""
    assert FROM_START.config.stochastic_depth == 0
    theirs = train(FROM_START, data=data, weights=start, run=tmp_path)
    for column in ("val_psnr_db", "val_input_psnr_db", "val_ssim"):
        values = column_of(keras_log(whole, 0), column)
        assert values == pytest.approx(logged(tmp_path, 0, column), abs=1e-3), column
    losses = column_of(keras_log(whole, 0), "train_loss")
    of_two_steps = np.reshape(logged(tmp_path, 0, "train_loss"), (-1, 2)).mean(1)
    assert losses == pytest.approx(of_two_steps, rel=1e-3)
    started, restored, expected = (
        torch.cat(
            [tensor.flatten() for tensor in fairweather.load_model(path).state_dict().values()]
        )
        for path in (start, whole / "model.safetensors", theirs)
    )
    error = ((restored - expected).norm() / (expected - started).norm()).item()
    print(f"the way of the weights differs from PyTorch's by {error:.1%}")
    assert error < 0.1


def check_the_run_folder(fk: Any, data: Path, tmp_path: Path) -> None:
    import keras

    run = tmp_path / "run"
    recipe = make_recipe()
    path = train_keras(fk, recipe, data=data, run=run)
    for name in ("recipe.yaml", "starts.json", "model.keras", "stage-1/done.json"):
        assert (run / name).is_file(), name
    assert len([*(run / "triptychs").glob("*.png")]) == 2 * (3 + 2)
    start = json.loads((run / "starts.json").read_text())[0]
    assert (start["framework"], start["keras"]) == ("keras", keras.version())
    assert start["backend"] == keras.backend.backend()
    metadata = fairweather.models.read_metadata(path)
    assert json.loads(metadata["training_data"]) == ["clean", "pairs"]
    assert metadata["framework"] == "keras"
    assert Recipe.model_validate_json(metadata["recipe"]) == recipe
    done = json.loads((run / "stage-1/done.json").read_text())
    assert float(metadata["held_out_psnr_db"]) == pytest.approx(done["held_out_psnr_db"], abs=1e-3)
    assert column_of(keras_log(run, 0), "step") == [1, 3, 5]
    rates = column_of(keras_log(run, 1), "lr")  # of the steps 1 and 3, after one of warm-up
    assert rates == pytest.approx([1e-3, 1e-6 + 0.25 * (1e-3 - 1e-6)], rel=1e-3)
    if keras.backend.backend() == "tensorflow":
        assert [*run.glob("tensorboard/stage-0/validation/events.*")]
    model = fairweather.load_model(path)
    image = np.random.default_rng(0).random((1, 20, 30, 3), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    loaded = fk.load_model(run / "model.keras")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded(image)), expected, atol=1e-5)
    with pytest.raises(RecipeError, match="holds a run of keras"):
        train(recipe, data=data, run=run)


def check_a_stopped_run_goes_on(
    fk: Any, data: Path, start: Path, whole: Path, tmp_path: Path
) -> None:
    """The weights are those of a run that was never stopped, whatever was left half done."""
    run = tmp_path / "run"
    options: dict[str, Any] = {"data": data, "weights": start, "run": run}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fk.TrainingBatches, "__getitem__", stops_at(fk, batch=5))
        with pytest.raises(Exception, match="power cut"):
            train_keras(fk, FROM_START, **options)
    assert not (run / "model.safetensors").exists()
    train_keras(fk, FROM_START, **options)
    assert column_of(keras_log(run, 0, 1), "step") == [5]
    left, right = (
        fairweather.load_model(folder / "model.safetensors").state_dict() for folder in (run, whole)
    )
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], rtol=0, atol=1e-6, msg=name)
    shutil.rmtree(run / "triptychs")
    train_keras(fk, FROM_START, **options)  # is done, so nothing is trained again
    assert not (run / "triptychs").exists()


def stops_at(fk: Any, *, batch: int) -> Any:
    """A `TrainingBatches.__getitem__` that fails at a batch."""
    get = fk.TrainingBatches.__getitem__

    def fail(self: Any, index: int) -> Any:
        if self.begin + index == batch:
            raise RuntimeError("power cut")
        return get(self, index)

    return fail


def check_a_damaged_resume_point_falls_back(
    fk: Any, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = make_recipe(stages=ONE_STAGE), tmp_path / "run"
    train_keras(fk, recipe, data=data, run=run)
    last = run / "stage-0/last.weights.h5"
    for damaged in (b"", last.read_bytes()[:2000]):
        (run / "stage-0/done.json").unlink()
        last.write_bytes(damaged)
        train_keras(fk, recipe, data=data, run=run)
        assert f"{last} is damaged" in caplog.text
        caplog.clear()
    (run / "stage-0/best.weights.h5").write_bytes(b"")
    (run / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.weights\.h5: is damaged"):
        train_keras(fk, recipe, data=data, run=run)


def check_a_loss_of_nan_names_the_files(
    fk: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = fk.TrainingBatches.__getitem__

    def spoil(self: Any, index: int) -> Any:
        degraded, clean = get(self, index)
        return (degraded * np.float32("nan"), clean) if index == 3 else (degraded, clean)

    monkeypatch.setattr(fk.TrainingBatches, "__getitem__", spoil)
    with pytest.raises(
        TrainingError, match=r"step 3: the loss is nan; the batch's files are '.*png'"
    ):
        train_keras(fk, make_recipe(stages=ONE_STAGE), data=data, run=tmp_path / "run")
    assert (tmp_path / "run/stage-0/last.weights.h5").is_file()  # of step 2


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"compile": True}, "compile"),
        ({"precision": "64-true"}, "precision: 64-true"),
        ({"activation_checkpointing": True}, "activation_checkpointing"),
        ({"optimizer": "adam"}, "adam with weight_decay"),
        ({"stages": ({**ONE_STAGE[0], "accumulate": 2},)}, "accumulate"),
        ({"stages": ({**ONE_STAGE[0], "frozen": ("input_conv",)},)}, "frozen"),
    ],
)
def check_what_keras_cannot_do_is_refused(
    fk: Any, data: Path, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(RecipeError, match=key):
        train_keras(fk, make_recipe(**changes), data=data, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
