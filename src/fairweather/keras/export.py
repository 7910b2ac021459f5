"""The Keras model for other programs: TensorFlow SavedModel and LiteRT, each verified."""

# Keras is an extra: without it there is nothing for the type checker to look up here.
# pyright: reportMissingImports=false

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fairweather.errors import ExportError, OptionError
from fairweather.export import (
    Exported,
    check_target,
    describe_export,
    sample_images,
    size_bytes,
    verify_export,
)
from fairweather.files import staging
from fairweather.keras.layers import ops
from fairweather.keras.model import AST

TOLERANCE = 1e-3
LITERT_SIZE = (256, 256)
METADATA_NAME = "fairweather"


def export_saved_model(
    model: AST,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a TensorFlow SavedModel for any batch, height and width.

    Its signature `serving_default` (`serve` on the loaded object) takes `image`, (B, H, W, 3)
    float32 RGB in [0, 1], and gives `restored` of the same shape, clipped to [0, 1]. What the
    weights are lies in `assets.extra/fairweather.json`. The folder appears only after TensorFlow
    alone has given the model's output from it, at three sizes.

    Args:
        model: a model on the TensorFlow backend.
        path: the folder to make.
        metadata: what else its metadata shall say, as `fairweather.models.read_metadata` gives it.
        overwrite: whether a SavedModel at `path` may be replaced.

    Raises:
        OptionError: on another backend.
        ExportError: if `path` is taken, or the exported model computes something else.
        OSError: if the folder cannot be written.
    """
    tf, path = import_tensorflow("SavedModel"), Path(path)
    check_folder(path, overwrite=overwrite)
    about = describe_export(model.config, metadata, shape="(B, H, W, 3)")
    archive: Any = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, None, None, 3), tf.float32, name="image")]
    archive.add_endpoint("serve", clipped(model), input_signature=signature)
    with staging(path, overwrite=overwrite) as whole:
        archive.write_out(str(whole), verbose=False)
        extra = whole / "assets.extra"  # TensorFlow's place for what is not of the graph
        extra.mkdir()
        (extra / f"{METADATA_NAME}.json").write_text(json.dumps(about, indent=2), "utf-8")
        run = tf.saved_model.load(str(whole)).signatures["serving_default"]
        differences = verify_export(
            lambda image: run(image=tf.constant(image))["restored"].numpy(),
            lambda image: ops.convert_to_numpy(clipped(model)(image)["restored"]),
            images=sample_images(channels_last=True),
            tolerance=TOLERANCE,
        )
    return Exported(path, size_bytes(path), differences)


def export_litert(
    model: AST,
    path: str | Path,
    *,
    size: tuple[int, int] = LITERT_SIZE,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a LiteRT (TensorFlow Lite) model for one image of one size.

    Its signature `serving_default` takes `image`, (1, H, W, 3) float32 RGB in [0, 1], and gives
    `restored` of the same shape, clipped to [0, 1]. It needs LiteRT's own operations only, and none
    of TensorFlow. What the weights are lies in the file as metadata `fairweather`, in JSON. The
    file appears only after LiteRT has given the model's output from it.

    Args:
        model: a model on the TensorFlow backend.
        path: the `.tflite` to write.
        size: (height, width) [px]; larger images have to be cut into tiles of that size.
        metadata: what else its metadata shall say, as `fairweather.models.read_metadata` gives it.
        overwrite: whether a file at `path` may be replaced.

    Raises:
        OptionError: on another backend, for another suffix, or a size without pixels.
        ExportError: if `path` is taken, or the exported model computes something else.
        OSError: if the file cannot be written.
    """
    tf, path = import_tensorflow("LiteRT"), Path(path)
    if min(size) < 1:
        raise OptionError(f"size {size[0]}×{size[1]}: needs at least one pixel")
    check_target(path, suffix=".tflite", overwrite=overwrite)
    about = describe_export(model.config, metadata, shape=f"(1, {size[0]}, {size[1]}, 3)")
    content = add_metadata(convert_to_litert(tf, model, size), about)
    differences = verify_export(
        litert_runner(tf, content),
        lambda image: ops.convert_to_numpy(clipped(model)(image)["restored"]),
        images=sample_images(channels_last=True, sizes=(size,), batched=False),
        tolerance=TOLERANCE,
    )
    with staging(path, overwrite=overwrite) as whole:
        whole.write_bytes(content)
    return Exported(path, size_bytes(path), differences)


def import_tensorflow(what: str) -> Any:
    """TensorFlow, if it is what Keras runs on."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise OptionError(
            f"Keras runs on {backend} here, and only TensorFlow writes {what}; set"
            " KERAS_BACKEND=tensorflow before Keras is imported"
        )
    return importlib.import_module("tensorflow")


def check_folder(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace anything that is no SavedModel."""
    if not path.exists():
        return
    if not overwrite:
        raise ExportError(
            f"'{path}' exists already; choose another name, or allow it with --overwrite"
            " (overwrite=True)"
        )
    if not (path / "saved_model.pb").is_file():
        raise ExportError(f"'{path}' holds no SavedModel, so it is not replaced; choose another")


def clipped(model: AST) -> Any:
    """The model as other programs expect it: `image` in, `restored` in [0, 1] out."""

    def serve(image: Any) -> dict[str, Any]:
        return {"restored": ops.clip(model(image, training=False), 0.0, 1.0)}

    return serve


def convert_to_litert(tf: Any, model: AST, size: tuple[int, int]) -> bytes:
    """The model for one size, with its weights as constants and LiteRT's own operations only."""
    freeze = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    signature = [tf.TensorSpec((1, *size, 3), tf.float32, name="image")]
    traced = tf.function(clipped(model), input_signature=signature).get_concrete_function()
    # Frozen here: the converter takes Keras' variables for state, and leaves their values out.
    frozen = freeze.convert_variables_to_constants_v2(traced)

    @tf.function(input_signature=signature)
    def serve(image: Any) -> dict[str, Any]:  # a frozen function has lost the names
        return {"restored": frozen(image)[0]}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], tf.Module()
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except Exception as error:  # the converter raises nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"LiteRT cannot convert this model: {reason}") from error


def add_metadata(content: bytes, about: Mapping[str, str]) -> bytes:
    """A LiteRT model with one more entry in its metadata."""
    flatbuffers = importlib.import_module("tensorflow.lite.tools.flatbuffer_utils")
    schema = importlib.import_module("tensorflow.lite.python.schema_py_generated")
    model = flatbuffers.read_model_from_bytearray(bytearray(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)
    return bytes(flatbuffers.convert_object_to_bytearray(model))


def litert_runner(tf: Any, content: bytes) -> Any:
    """Runs a LiteRT model, with LiteRT's own package where it is installed."""
    try:
        interpreter_type = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ModuleNotFoundError:
        interpreter_type = tf.lite.Interpreter
    run = interpreter_type(model_content=content).get_signature_runner()
    return lambda image: run(image=image)["restored"]
