"""The Keras model for other programs: TensorFlow SavedModel and LiteRT, each verified."""

import importlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fairweather.errors import TAKEN, ExportError, OptionError
from fairweather.export import (
    Exported,
    Images,
    Size,
    check_target,
    describe_export,
    describe_look,
    export_notes,
    largest,
    sample_images,
    size_bytes,
    verify_export,
)
from fairweather.files import staging
from fairweather.keras.layers import ops
from fairweather.keras.network import Network
from fairweather.models import Config

TOLERANCE = 1e-3
LITERT_SIZE = (256, 256)
METADATA_NAME = "fairweather"
SERVING = "serving_default"
ENDPOINTS = {SERVING: "serve"}  # Keras makes the first endpoint the default signature as well
LOOKER = "the signature look"


def export_saved_model(
    model: Network,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a TensorFlow SavedModel for any batch, height and width.

    Its signature `serving_default` (`serve` on the loaded object) takes `image`, (B, H, W, 3)
    float32 RGB in [0, 1], and gives `restored` of the same shape, clipped to [0, 1]. A model with a
    global context has two more: `look` gives the `context` of an `image`, (B, rows, columns, C),
    and `restore` takes that beside the image, or for a tile the mean over the photograph that it is
    part of. What the weights are lies in `assets.extra/fairweather.json`. The folder appears only
    after TensorFlow alone has given the model's output from it, at three sizes.

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
    config, functions = model.config, functions_of(model)
    about = describe_keras(config, metadata, shape="(B, H, W, 3)")
    archive: Any = keras.export.ExportArchive()
    archive.track(model)
    for name, function in functions.items():
        specs = [
            tf.TensorSpec((None, None, None, channels), tf.float32, name=argument)
            for argument, channels in inputs_of(name, config).items()
        ]
        archive.add_endpoint(ENDPOINTS.get(name, name), function, input_signature=specs)
    with staging(path, overwrite=overwrite) as whole:
        archive.write_out(str(whole), verbose=False)
        extra = whole / "assets.extra"  # TensorFlow's place for what is not of the graph
        extra.mkdir()
        (extra / f"{METADATA_NAME}.json").write_text(json.dumps(about, indent=2), "utf-8")
        runs = tf.saved_model.load(str(whole)).signatures
        differences = verify_functions(
            {name: constants(tf, runs[name]) for name in functions},
            functions,
            images=sample_images(channels_last=True),
        )
    return Exported(path, size_bytes(path), differences, export_notes(config, looker=LOOKER))


def export_litert(
    model: Network,
    path: str | Path,
    *,
    size: tuple[int, int] = LITERT_SIZE,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a LiteRT (TensorFlow Lite) model for one image of one size.

    Its signature `serving_default` takes `image`, (1, H, W, 3) float32 RGB in [0, 1], and gives
    `restored` of the same shape, clipped to [0, 1]. A model with a global context has the
    signatures `look` and `restore` as well, as a SavedModel has. It needs LiteRT's own operations
    only, and none of TensorFlow. What the weights are lies in the file as metadata `fairweather`,
    in JSON. The file appears only after LiteRT has given the model's output from it.

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
    config, functions = model.config, functions_of(model)
    about = describe_keras(config, metadata, shape=f"(1, {size[0]}, {size[1]}, 3)")
    content = add_metadata(convert_to_litert(tf, functions, config, size=size), about)
    interpreter = litert_interpreter(tf, content)
    differences = verify_functions(
        {name: litert_runner(interpreter, name) for name in functions},
        functions,
        images=sample_images(channels_last=True, sizes=(size,), batched=False),
    )
    with staging(path, overwrite=overwrite) as whole:
        whole.write_bytes(content)
    return Exported(path, size_bytes(path), differences, export_notes(config, looker=LOOKER))


def describe_keras(
    config: Config, metadata: Mapping[str, str] | None, *, shape: str
) -> dict[str, str]:
    """Return the metadata of both formats."""
    about = describe_export(config, metadata, shape=shape, looker=LOOKER)
    if config.global_context:
        look = describe_look(config, None, shape=shape)
        about |= {key: look[key] for key in ("place_px", "margin_px")}
    return about


def functions_of(model: Network) -> dict[str, Any]:
    """Return what other programs expect, by the name of its signature, each with a dict as output.

    All take `image`; `restore` also takes a `context`, which `look` gives.
    """

    def serve(image: Any) -> dict[str, Any]:
        return {"restored": ops.clip(model(image, training=False), 0.0, 1.0)}

    if not model.config.global_context:
        return {SERVING: serve}
    layer: Any = model.get_layer("context")
    encoder = keras.Model(model.inputs, layer.input[0])

    def look(image: Any) -> dict[str, Any]:
        return {"context": layer.look_around(encoder(image, training=False), image)}

    def restore(image: Any, context: Any) -> dict[str, Any]:
        layer.told = context
        try:
            return serve(image)
        finally:
            layer.told = None

    return {SERVING: serve, "look": look, "restore": restore}


def inputs_of(name: str, config: Config) -> dict[str, int]:
    """Return the channels of each input of a signature."""
    image = {"image": 3}
    return image | {"context": config.channels[config.levels]} if name == "restore" else image


def verify_functions(
    exported: Mapping[str, Any], functions: Mapping[str, Any], *, images: Images
) -> dict[Size, float]:
    """Compare each signature with the model; `restore` is given the context of another image."""

    def run(side: Mapping[str, Any], name: str, image: np.ndarray) -> np.ndarray:
        inputs = {"image": image}
        if name == "restore":
            inputs["context"] = outputs_of(functions["look"], {"image": image[:, ::-1] ** 2})
        return outputs_of(side[name], inputs)

    differences = dict.fromkeys(images, 0.0)
    for name in functions:
        runs, reference = (partial(run, side, name) for side in (exported, functions))
        found = verify_export(runs, reference, images=images, tolerance=TOLERANCE)
        differences = largest(differences, found)
    return differences


def outputs_of(function: Any, inputs: dict[str, Any]) -> np.ndarray:
    """Return the only output of a function that gives a dict."""
    (output,) = function(**inputs).values()
    return np.asarray(ops.convert_to_numpy(output))


def constants(tf: Any, run: Any) -> Any:
    """Return a signature of TensorFlow that takes arrays."""
    return lambda **inputs: run(**{name: tf.constant(each) for name, each in inputs.items()})


def import_tensorflow(what: str) -> Any:
    """Import TensorFlow, if it is what Keras runs on."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise OptionError(
            f"Keras runs on {backend} here, and only TensorFlow writes {what}; set"
            " KERAS_BACKEND=tensorflow before Keras is imported"
        )
    return importlib.import_module("tensorflow")


def check_folder(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything that is no SavedModel."""
    if not path.exists():
        return
    if not overwrite:
        raise ExportError(f"'{path}' {TAKEN}")
    if not (path / "saved_model.pb").is_file():
        raise ExportError(f"'{path}' holds no SavedModel, so it is not replaced; choose another")


def convert_to_litert(
    tf: Any, functions: Mapping[str, Any], config: Config, *, size: tuple[int, int]
) -> bytes:
    """Convert functions for one size, with constant weights and LiteRT's own operations only."""
    freeze = importlib.import_module("tensorflow.python.framework.convert_to_constants")
    places = [-(-side // config.place_px) for side in size]
    signatures = []
    for name, function in functions.items():
        specs = [
            tf.TensorSpec(
                (1, *(size if argument == "image" else places), channels), tf.float32, name=argument
            )
            for argument, channels in inputs_of(name, config).items()
        ]
        traced = tf.function(function, input_signature=specs).get_concrete_function()
        # Frozen here: the converter takes Keras' variables for state, and leaves their values out.
        frozen = freeze.convert_variables_to_constants_v2(traced)
        (output,) = traced.structured_outputs
        signatures.append(named(tf, frozen, specs, name=name, output=output))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(signatures, tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except Exception as error:  # the converter raises nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"LiteRT cannot convert this model: {reason}") from error


def named(tf: Any, frozen: Any, specs: list[Any], *, name: str, output: str) -> Any:
    """Give a frozen function, which has lost them, its names back."""

    def serve(**inputs: Any) -> dict[str, Any]:
        return {output: frozen(*(inputs[spec.name] for spec in specs))[0]}

    serve.__name__ = name  # what the converter calls the signature
    traced = tf.function(serve)
    return traced.get_concrete_function(**{spec.name: spec for spec in specs})


def add_metadata(content: bytes, about: Mapping[str, str]) -> bytes:
    """Return a LiteRT model with one more entry in its metadata."""
    flatbuffers = importlib.import_module("tensorflow.lite.tools.flatbuffer_utils")
    schema = importlib.import_module("tensorflow.lite.python.schema_py_generated")
    model = flatbuffers.read_model_from_bytearray(bytearray(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)
    return bytes(flatbuffers.convert_object_to_bytearray(model))


def litert_interpreter(tf: Any, content: bytes) -> Any:
    """Return what runs a LiteRT model: LiteRT's own package where it is installed."""
    try:
        interpreter_type = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ModuleNotFoundError:
        interpreter_type = tf.lite.Interpreter
    return interpreter_type(model_content=content)


def litert_runner(interpreter: Any, name: str) -> Any:
    """Return a signature of a LiteRT model, whose outputs are copies."""
    run = interpreter.get_signature_runner(name)
    return lambda **inputs: {key: np.array(each) for key, each in run(**inputs).items()}
