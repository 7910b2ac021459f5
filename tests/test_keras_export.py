"""SavedModel and LiteRT, each alone with its file; `test_keras_backends.py` runs this."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import random_v2
from test_keras_model import SMALL, VARIANTS, images, torch_forward
from test_keras_model import random_model as deeper_model
from typer.testing import CliRunner

from fairweather import cli, models
from fairweather.errors import ExportError, OptionError
from fairweather.models import ASTConfig

# TensorFlow 2.21 warns that its own interpreter will go, and of NumPy where it freezes a graph.
pytestmark = pytest.mark.filterwarnings("ignore")

# Every block is traced for each signature, and a shift needs two in the bottleneck.
random_model = functools.partial(deeper_model, depths=(1, 1, 2))
one_block_each = functools.partial(
    deeper_model, depths=(1, 1, 1), heads=(1, 1, 1), feed_forward="mlp", branches="dense"
)


def check_a_saved_model_alone_gives_what_pytorch_gives(fk: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    theirs, path = random_model(bottleneck_shift=True, global_context=True), tmp_path / "model"
    exported = fk.export_saved_model(fk.from_torch(theirs), path, metadata={"task": "rain"})
    print(f"SavedModel: {exported.differences}")
    assert "the signature look" in exported.notes[0]
    assert set(exported.differences) == {(64, 64), (200, 336), (121, 83)}
    assert max(exported.differences.values()) < 1e-5
    loaded = tf.saved_model.load(str(path)).signatures
    run = loaded["serving_default"]
    assert run.structured_input_signature[1]["image"].shape == (None, None, None, 3)
    for size in ((1, 1), (3, 50), (16, 16), (41, 29)):
        free = torch_forward(theirs, images(*size))
        restored = run(image=tf.constant(images(*size)))["restored"].numpy()
        np.testing.assert_allclose(restored, free.clip(0, 1), atol=1e-4)
    assert 0 < np.mean((free > 0) & (free < 1)) < 1  # the comparison means something
    about = json.loads((path / "assets.extra" / "fairweather.json").read_text("utf-8"))
    assert about["task"] == "rain"
    assert ASTConfig(**json.loads(about["config"])) == theirs.config
    assert about["context"].startswith("what the signature look gives")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert_told_of_the_whole(loaded.__getitem__, theirs, (41, 58))


def check_a_saved_model_replaces_only_a_saved_model(fk: Any, tmp_path: Path) -> None:
    model, path = fk.from_torch(one_block_each()), tmp_path / "photos"
    path.mkdir()
    (path / "photo.jpg").touch()
    for overwrite, message in ((False, "exists already"), (True, "holds no SavedModel")):
        with pytest.raises(ExportError, match=message):
            fk.export_saved_model(model, path, overwrite=overwrite)
    (path / "saved_model.pb").touch()
    fk.export_saved_model(model, path, overwrite=True)
    assert not (path / "photo.jpg").exists()
    assert (path / "saved_model.pb").stat().st_size > 1000


@pytest.mark.parametrize(
    "changes", [{"bottleneck_shift": True, "global_context": True}, *VARIANTS[:2]]
)
def check_litert_alone_gives_what_pytorch_gives(
    fk: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    from tensorflow.lite.tools import flatbuffer_utils

    interpreter_type = interpreter()
    theirs, path, size = random_model(**changes), tmp_path / "model.tflite", (21, 38)
    exported = fk.export_litert(
        fk.from_torch(theirs), path, size=size, metadata={"licence": "Apache-2.0"}
    )
    print(f"LiteRT {changes}: {exported.differences}")
    assert exported.differences[size] < 1e-5
    assert exported.bytes == path.stat().st_size
    run = interpreter_type(model_path=str(path))
    image = images(*size)[:1]
    restored = run.get_signature_runner("serving_default")(image=image)["restored"]
    np.testing.assert_allclose(restored, torch_forward(theirs, image).clip(0, 1), atol=1e-4)
    model = flatbuffer_utils.read_model(str(path))
    assert [code.customCode for code in model.operatorCodes if code.customCode] == []
    (entry,) = [entry for entry in model.metadata if entry.name == b"fairweather"]
    about = json.loads(bytes(model.buffers[entry.buffer].data))
    assert about["licence"] == "Apache-2.0"
    assert about["input"].startswith("image: (1, 21, 38, 3) float32, RGB in [0, 1]")
    if theirs.config.global_context:
        assert_told_of_the_whole(run.get_signature_runner, theirs, size)


def interpreter() -> Any:
    """LiteRT's own if it is installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter


def assert_told_of_the_whole(
    get: Callable[[str], Any], theirs: models.AST, size: tuple[int, int]
) -> None:
    """The signatures look and restore, which a file of a model with a global context has."""
    import tensorflow as tf

    image = images(*size)[:1]
    batch = torch.from_numpy(image).permute(0, 3, 1, 2)
    with torch.no_grad():
        places = theirs.look_around(batch)
        told = theirs(batch, 2 * places.mean((1, 2), keepdim=True)).clamp(0, 1)
    restored = told.permute(0, 2, 3, 1).numpy()
    assert np.abs(restored - torch_forward(theirs, image).clip(0, 1)).max() > 1e-3
    found = np.array(get("look")(image=tf.constant(image))["context"])
    np.testing.assert_allclose(found, places.numpy(), atol=1e-5)
    inputs = {"image": tf.constant(image), "context": tf.constant(2 * found)}
    found = np.array(get("restore")(**inputs)["restored"])
    np.testing.assert_allclose(found, restored, atol=1e-4)


def check_an_export_that_computes_something_else_is_not_written(
    fk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairweather.keras import export

    model, verify = fk.from_torch(one_block_each()), export.verify_functions

    def compare(exported: Any, functions: Any, **options: Any) -> Any:
        """What is exported is compared with another model."""
        (name,) = functions

        def darker(image: Any) -> Any:
            return {"restored": functions[name](image)["restored"] * 0.9}

        return verify(exported, {name: darker}, **options)

    monkeypatch.setattr(export, "verify_functions", compare)
    with pytest.raises(ExportError, match="away from the original at 64×64"):
        fk.export_saved_model(model, tmp_path / "model")
    with pytest.raises(ExportError, match="away from the original at 24×32"):
        fk.export_litert(model, tmp_path / "model.tflite", size=(24, 32))
    assert list(tmp_path.iterdir()) == []


def check_wrong_calls_are_refused(fk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    model = fk.create_model(SMALL, init="official")
    with pytest.raises(OptionError, match=r"ends in \.tflite"):
        fk.export_litert(model, tmp_path / "model.onnx")
    with pytest.raises(OptionError, match="0×8"):
        fk.export_litert(model, tmp_path / "model.tflite", size=(0, 8))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for write, name in ((fk.export_litert, "a.tflite"), (fk.export_saved_model, "a")):
        with pytest.raises(OptionError, match="KERAS_BACKEND=tensorflow before"):
            write(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def check_the_command_writes_both(fk: Any, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    models.save_model(one_block_each(), weights, metadata={"task": "snow"})
    for to, name in (("saved-model", "mine"), ("litert", "mine.tflite")):
        words = ["export", str(weights), str(tmp_path / name), "--to", to]
        done = CliRunner().invoke(cli.app, [*words, *(["--size", "24x40"] * (to == "litert"))])
        assert done.exit_code == 0, done.output
        assert "compared with the original, largest difference" in done.output
    assert "one image of 24×40" in done.output
    about = json.loads((tmp_path / "mine/assets.extra/fairweather.json").read_text("utf-8"))
    assert about["task"] == "snow"
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def check_ast_v2_alone_gives_what_pytorch_gives(fk: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    theirs = random_v2(depths=(1, 1, 1), refinement_blocks=0)
    model = fk.from_torch(theirs)
    for exported in (
        fk.export_saved_model(model, tmp_path / "model"),
        fk.export_litert(model, tmp_path / "model.tflite", size=(41, 58)),
    ):
        assert max(exported.differences.values()) < 1e-4
    run = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for size in ((1, 1), (3, 50)):
        restored = run(image=tf.constant(images(*size)))["restored"].numpy()
        free = torch_forward(theirs, images(*size))
        np.testing.assert_allclose(restored, free.clip(0, 1), atol=1e-4)
