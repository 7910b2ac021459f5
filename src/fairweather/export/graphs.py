"""The model for other programs: ONNX, OpenVINO and torch.export, each verified against PyTorch.

All three have one convention: a float32 RGB image named `image`, (B, 3, H, W) in [0, 1], goes in,
and `restored` of the same shape, clipped to [0, 1], comes out, for any batch, height and width.
"""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fairweather.errors import MissingExtraError
from fairweather.export.verification import (
    Exported,
    Runner,
    check_target,
    describe_export,
    sample_images,
    size_bytes,
    verify_export,
)
from fairweather.files import staging
from fairweather.models import AST

TOLERANCE = 1e-4
SHAPE = "(B, 3, H, W)"
AXES = ("batch", None, "height", "width")
ONNX_OPSET = 20  # the first with GELU; OpenCV 5.0 crashes on what it is composed of before
ONNX_IR_VERSION = 9  # of that opset: what readers of its time accept, as ONNX Runtime 1.17
METADATA_NAME = "fairweather"


class Portable(nn.Module):
    """A copy of a model on the CPU in float32, as exporters can read it."""

    def __init__(self, model: AST, *, clips: bool = True):
        """Copies the weights.

        Args:
            model: stays as it is.
            clips: whether the output is clipped to [0, 1].
        """
        super().__init__()
        self.clips = clips
        self.model = AST(model.config)
        self.model.load_state_dict(model.state_dict())
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # Otherwise torch.export looks for channels-last memory, and keeps what it found
                # for a batch of two as a condition that a batch of one fails.
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 3, H, W)."""
        restored = self.model(image)
        return restored.clamp(0, 1) if self.clips else restored


def export_onnx(
    model: AST,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes an ONNX file of the standard operations, opset 20.

    What the weights are lies in its metadata. The file appears only after ONNX Runtime has given
    PyTorch's output from it, at three sizes.

    Args:
        model: stays as it is.
        path: the `.onnx` to write.
        metadata: what else its metadata shall say, as `fairweather.models.read_metadata` gives it.
        overwrite: whether a file at `path` may be replaced.

    Raises:
        OptionError: for another suffix.
        ExportError: if `path` is taken, or the exported model computes something else.
        MissingExtraError: without the extra `export`.
        OSError: if the file cannot be written.
    """
    onnx, onnxruntime = import_extra("onnx"), import_extra("onnxruntime")
    path, portable = Path(path), Portable(model)
    check_target(path, suffix=".onnx", overwrite=overwrite)
    about = describe_export(model.config, metadata, shape=SHAPE)
    with staging(path, overwrite=overwrite) as whole:
        onnx.save(to_onnx(portable, about), whole)
        differences = verify_torch(onnx_runner(onnxruntime, whole), portable)
    return Exported(path, size_bytes(path), differences)


def export_openvino(
    model: AST,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes an OpenVINO model, an `.xml` with its weights in a `.bin` beside it.

    What the weights are lies in its runtime information under `fairweather`. The files appear only
    after OpenVINO has given PyTorch's output from them, at three sizes. Arguments and errors are
    those of `export_onnx`.
    """
    path, portable = Path(path), Portable(model)
    check_openvino_target(path, overwrite=overwrite)
    core, network = to_openvino(portable)
    about = describe_export(model.config, metadata, shape=SHAPE)
    with staging(path, overwrite=overwrite) as whole:
        save_openvino(network, whole, about)
        differences = verify_torch(openvino_runner(core, whole), portable)
    precision = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    notes = () if precision == "f32" else (coarse_note(precision),)
    return Exported(path, size_bytes(path, path.with_suffix(".bin")), differences, notes)


def export_torch(
    model: AST,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a torch.export program: `torch.export.load(path).module()(image)`.

    What the weights are lies in the file as `fairweather.json` (`extra_files` of
    `torch.export.load`). The program is for the CPU; `torch.export.passes.move_to_device_pass`
    moves it. The file appears only after it has given PyTorch's output, at three sizes. Arguments
    and errors are those of `export_onnx`, but it needs no extra.
    """
    path, portable = Path(path), Portable(model)
    check_target(path, suffix=".pt2", overwrite=overwrite)
    about = describe_export(model.config, metadata, shape=SHAPE)
    extra = {f"{METADATA_NAME}.json": json.dumps(about)}
    with staging(path, overwrite=overwrite) as whole:
        with quiet():
            torch.export.save(capture(portable), whole, extra_files=extra)
            loaded = torch.export.load(whole).module()
        differences = verify_torch(module_runner(loaded), portable)
    return Exported(path, size_bytes(path), differences)


def capture(portable: Portable) -> ExportedProgram:
    """The model as a graph for any batch, height and width."""
    # Here, so that a PyTorch that has moved its private settings can still restore.
    settings = importlib.import_module("torch.fx.experimental._config")
    multiple = portable.model.config.size_multiple
    example = torch.zeros(2, 3, multiple + 5, 2 * multiple + 3)
    axes = {axis: Dim.DYNAMIC for axis, name in enumerate(AXES) if name}
    # So that a batch of one, or an image of one window, is no case of its own; torch.onnx.export
    # sets the same.
    with torch.no_grad(), settings.patch(backed_size_oblivious=True):
        program = torch.export.export(portable, (example,), dynamic_shapes=(axes,), strict=False)
    for node in program.graph.nodes:  # paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def to_onnx(portable: Portable, about: Mapping[str, str]) -> Any:
    """The model as an ONNX message with that metadata."""
    onnx = import_extra("onnx")
    import_extra("onnxscript")
    with quiet():
        program = torch.onnx.export(
            capture(portable),
            (),
            dynamo=True,
            input_names=["image"],
            output_names=["restored"],
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    assert program is not None  # as dynamo is set
    message: Any = program.model_proto
    message.ir_version = ONNX_IR_VERSION
    graph = message.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")  # how PyTorch came to it, with paths of this machine
    del graph.value_info[:]  # in the names of symbols that are replaced here
    for value in (*graph.input, *graph.output):
        for name, dimension in zip(AXES, value.type.tensor_type.shape.dim, strict=True):
            if name:
                dimension.dim_param = name
    onnx.helper.set_model_props(message, dict(about))
    onnx.checker.check_model(message, full_check=True)
    return message


def check_openvino_target(path: Path, *, overwrite: bool) -> None:
    """`check_target` for an `.xml` and the `.bin` beside it."""
    check_target(path, suffix=".xml", overwrite=overwrite)
    check_target(path.with_suffix(".bin"), suffix=".bin", overwrite=overwrite)


def to_openvino(portable: Portable) -> tuple[Any, Any]:
    """OpenVINO's core, and the model as it read it."""
    core = import_extra("openvino").Core()
    return core, core.read_model(to_onnx(portable, {}).SerializeToString())


def save_openvino(network: Any, path: Path, about: Mapping[str, str]) -> None:
    """Writes an `.xml` and its `.bin` with that metadata."""
    for key, value in about.items():
        network.set_rt_info(value, [METADATA_NAME, key])
    import_extra("openvino").save_model(network, path, compress_to_fp16=False)


def verify_torch(exported: Runner, portable: Portable) -> dict[tuple[int, int], float]:
    """Compares a file of any of the three formats with PyTorch."""
    images = sample_images(channels_last=False)
    return verify_export(exported, module_runner(portable), images=images, tolerance=TOLERANCE)


def module_runner(module: nn.Module) -> Runner:
    """Runs a PyTorch module."""

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(image)).numpy()

    return run


def onnx_runner(onnxruntime: Any, path: Path) -> Runner:
    """Runs an ONNX file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["restored"], {"image": image})[0]


def openvino_runner(core: Any, network: Any) -> Runner:
    """Runs an OpenVINO file, or what was read from one, in OpenVINO, in float32."""
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    run = core.compile_model(network, "CPU", settings)
    return lambda image: run({"image": image})["restored"]


def coarse_note(precision: str) -> str:
    """What to know where OpenVINO does not compute in float32 by itself."""
    return (
        f"OpenVINO computes in {precision} on this processor unless INFERENCE_PRECISION_HINT is"
        " f32; it was verified with f32"
    )


def import_extra(name: str, *, extra: str = "export") -> Any:
    """A package of an extra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"exporting needs {missing.name}, which is missing; install it with:"
            f" pip install 'fairweather[{extra}]'"
        ) from missing


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves out what the exporters say of themselves, to the log and as warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
