"""The model for other programs: ONNX, OpenVINO and torch.export, each verified against PyTorch.

All three have one convention: a float32 RGB image named `image`, (B, 3, H, W) in [0, 1], goes in,
and `restored` of the same shape, clipped to [0, 1], comes out, for any batch, height and width.

A network with a global context becomes two graphs. The looker, in a file of its own, takes an
`image` and gives its `context`, (B, rows, columns, C): what each place says. The restorer takes a
`context` beside the image, and the mean of it over rows and columns: either what the looker gave
for the same image, or for a tile the mean over the places of the photograph that it is part of.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fairweather.errors import MissingExtraError, installing
from fairweather.export.verification import (
    Exported,
    Runner,
    Size,
    check_targets,
    describe_export,
    describe_look,
    export_notes,
    largest,
    look_path,
    sample_images,
    size_bytes,
    verify_export,
)
from fairweather.files import staging
from fairweather.models import Network, build_network

TOLERANCE = 1e-4
SHAPE = "(B, 3, H, W)"
Axes = tuple[str | None, ...]  # the names of those that are free
IMAGE_AXES: Axes = ("batch", None, "height", "width")
CONTEXT_AXES: Axes = ("batch", "rows", "columns", None)
OPENVINO_SUFFIXES = (".xml", ".bin")
ONNX_OPSET = 20  # the first with GELU; OpenCV 5.0 crashes on what it is composed of before
ONNX_IR_VERSION = 9  # of that opset: what readers of its time accept, as ONNX Runtime 1.17
METADATA_NAME = "fairweather"


def copied(model: Network) -> Network:
    """Copy a model to the CPU in float32, as exporters can read it."""
    copy = build_network(model.config)
    copy.load_state_dict(model.state_dict())
    for module in copy.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            # Otherwise torch.export looks for channels-last memory, and keeps what it found
            # for a batch of two as a condition that a batch of one fails.
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return copy


class Portable(nn.Module):
    """The restorer: a copy of a model whose context, if it has one, is an input."""

    output_name = "restored"
    output_axes = IMAGE_AXES

    def __init__(self, model: Network, *, clips: bool = True):
        """Copy the weights; the model stays as it is."""
        super().__init__()
        self.clips = clips
        self.model = copied(model)
        self.input_axes = {"image": IMAGE_AXES}
        if model.config.global_context:
            self.input_axes["context"] = CONTEXT_AXES
        self.eval()

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and, for a network with a context, (B, rows, columns, C) → (B, 3, H, W)."""
        told = None if context is None else context.mean((1, 2), keepdim=True)
        restored = self.model(image, told)
        return restored.clamp(0, 1) if self.clips else restored


class PortableLook(nn.Module):
    """The looker: a copy of a model with a global context that says what each place says."""

    output_name = "context"
    output_axes = CONTEXT_AXES

    def __init__(self, model: Network):
        """Copy the weights; the model stays as it is."""
        super().__init__()
        self.model = copied(model)
        self.input_axes = {"image": IMAGE_AXES}
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, rows, columns, C)."""
        return self.model.look_around(image)


Graph = Portable | PortableLook


def export_onnx(
    model: Network,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write an ONNX file of the standard operations, opset 20, or two.

    What the weights are lies in its metadata. For a network with a global context the looker lies
    beside it, as `NAME.look.onnx`. The files appear only after ONNX Runtime has given PyTorch's
    output from them, at three sizes.

    Args:
        model: stays as it is.
        path: the `.onnx` to write.
        metadata: what else its metadata shall say, as `fairweather.models.read_metadata` gives it.
        overwrite: whether files at `path` may be replaced.

    Raises:
        OptionError: for another suffix.
        ExportError: if `path` is taken, or the exported model computes something else.
        MissingExtraError: without the extra `export`.
        OSError: if the files cannot be written.
    """
    onnx = import_extra("onnx")
    import_extra("onnxruntime")

    def write(graph: Graph, whole: Path, about: Mapping[str, str]) -> Runner:
        onnx.save(to_onnx(graph, about), whole)
        return onnx_runner(whole)

    return export_graphs(
        model, path, suffixes=(".onnx",), write=write, metadata=metadata, overwrite=overwrite
    )


def export_openvino(
    model: Network,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write an OpenVINO model, an `.xml` with its weights in a `.bin` beside it, or two.

    What the weights are lies in its runtime information under `fairweather`. The looker of a
    network with a global context is `NAME.look.xml`. The files appear only after OpenVINO has given
    PyTorch's output from them, at three sizes. Arguments and errors are those of `export_onnx`.
    """
    core = import_extra("openvino").Core()

    def write(graph: Graph, whole: Path, about: Mapping[str, str]) -> Runner:
        save_openvino(to_openvino(core, graph), whole, about)
        return openvino_runner(core, whole)

    done = export_graphs(
        model, path, suffixes=OPENVINO_SUFFIXES, write=write, metadata=metadata, overwrite=overwrite
    )
    precision = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    if precision == "f32":
        return done
    note = (
        f"OpenVINO computes in {precision} on this processor unless INFERENCE_PRECISION_HINT is"
        " f32; it was verified with f32"
    )
    return dataclasses.replace(done, notes=(*done.notes, note))


def export_torch(
    model: Network,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a torch.export program: `torch.export.load(path).module()(image)`; or two.

    What the weights are lies in the file as `fairweather.json` (`extra_files` of
    `torch.export.load`). The looker of a network with a global context is `NAME.look.pt2`. The
    program is for the CPU; `torch.export.passes.move_to_device_pass` moves it. The files appear
    only after they have given PyTorch's output, at three sizes. Arguments and errors are those of
    `export_onnx`, but it needs no extra.
    """

    def write(graph: Graph, whole: Path, about: Mapping[str, str]) -> Runner:
        extra = {f"{METADATA_NAME}.json": json.dumps(about)}
        with quiet():
            torch.export.save(capture(graph), whole, extra_files=extra)
            return module_runner(torch.export.load(whole).module())

    return export_graphs(
        model, path, suffixes=(".pt2",), write=write, metadata=metadata, overwrite=overwrite
    )


def export_graphs(
    model: Network,
    path: str | Path,
    *,
    suffixes: Sequence[str],
    write: Callable[[Graph, Path, Mapping[str, str]], Runner],
    metadata: Mapping[str, str] | None,
    overwrite: bool,
) -> Exported:
    """Write the restorer, and the looker of a network with a global context, and verify both.

    `write` writes a graph with that metadata to a path, and gives what runs the file; the files of
    a graph have those `suffixes`.
    """
    path, config = Path(path), model.config
    files = check_targets(path, config, suffixes=suffixes, overwrite=overwrite)
    restorer = Portable(model)
    looker = PortableLook(model) if config.global_context else None
    name = look_path(path).name
    with staging(path, overwrite=overwrite) as whole:
        about = describe_export(config, metadata, shape=SHAPE, looker=name)
        differences = verify_graph(write(restorer, whole, about), restorer, looker=looker)
        if looker is not None:
            about = describe_look(config, metadata, shape=SHAPE)
            run = write(looker, look_path(whole), about)
            differences = largest(differences, verify_graph(run, looker))
    return Exported(path, size_bytes(*files), differences, export_notes(config, looker=name))


def verify_graph(
    exported: Runner, graph: Graph, *, looker: Graph | None = None
) -> dict[Size, float]:
    """Compare a file of any of the three formats with PyTorch.

    Args:
        exported: runs the file.
        graph: what it was made of.
        looker: gives the context of a restorer, here of another image, so that one that judged for
            itself is found out.
    """

    def told(image: np.ndarray) -> tuple[np.ndarray, ...]:
        return () if looker is None else (module_runner(looker)(image[..., ::-1, :] ** 2),)

    reference = module_runner(graph)
    return verify_export(
        lambda image: exported(image, *told(image)),
        lambda image: reference(image, *told(image)),
        images=sample_images(channels_last=False),
        tolerance=TOLERANCE,
    )


def capture(graph: Graph) -> ExportedProgram:
    """Return a graph for any batch, height and width."""
    # Here, so that a PyTorch that has moved its private settings can still restore.
    settings = importlib.import_module("torch.fx.experimental._config")
    config = graph.model.config
    multiple = config.size_multiple
    examples = {
        "image": torch.zeros(2, 3, multiple + 5, 2 * multiple + 3),
        "context": torch.zeros(2, 3, 4, config.channels[config.levels]),
    }
    shapes = tuple(
        {axis: Dim.DYNAMIC for axis, name in enumerate(axes) if name}
        for axes in graph.input_axes.values()
    )
    # So that a batch of one, or an image of one window, is no case of its own; torch.onnx.export
    # sets the same.
    with torch.no_grad(), settings.patch(backed_size_oblivious=True):
        inputs = tuple(examples[name] for name in graph.input_axes)
        program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:  # paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def to_onnx(portable: Graph, about: Mapping[str, str] | None = None) -> Any:
    """Return a graph as an ONNX message with that metadata."""
    onnx = import_extra("onnx")
    import_extra("onnxscript")
    with quiet():
        program = torch.onnx.export(
            capture(portable),
            (),
            dynamo=True,
            input_names=list(portable.input_axes),
            output_names=[portable.output_name],
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
    all_axes = (*portable.input_axes.values(), portable.output_axes)
    for value, axes in zip((*graph.input, *graph.output), all_axes, strict=True):
        for name, dimension in zip(axes, value.type.tensor_type.shape.dim, strict=True):
            if name:
                dimension.dim_param = name
    onnx.helper.set_model_props(message, dict(about or {}))
    onnx.checker.check_model(message, full_check=True)
    return message


def to_openvino(core: Any, graph: Graph) -> Any:
    """Return a graph as OpenVINO reads it."""
    return core.read_model(to_onnx(graph).SerializeToString())


def save_openvino(network: Any, path: Path, about: Mapping[str, str]) -> None:
    """Write an `.xml` and its `.bin` with that metadata."""
    for key, value in about.items():
        network.set_rt_info(value, [METADATA_NAME, key])
    import_extra("openvino").save_model(network, path, compress_to_fp16=False)


def module_runner(module: nn.Module) -> Runner:
    """Run a PyTorch module."""

    def run(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(*(torch.from_numpy(each.copy()) for each in inputs)).numpy()

    return run


def onnx_runner(path: Path) -> Runner:
    """Run an ONNX file in ONNX Runtime, with as many threads as PyTorch has."""
    onnxruntime = import_extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what fails is raised, and may be mended with smaller tiles
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def openvino_runner(core: Any, network: Any) -> Runner:
    """Run an OpenVINO file, or what was read from one, in OpenVINO, in float32."""
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    run = core.compile_model(network, "CPU", settings)
    return lambda *inputs: run(list(inputs))[0]


def import_extra(name: str, *, extra: str = "export") -> Any:
    """Import a package of an extra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"exporting needs {missing.name}, which is missing; install it with:"
            f" {installing(extra)}"
        ) from missing


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the exporters say of themselves, to the log and as warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
