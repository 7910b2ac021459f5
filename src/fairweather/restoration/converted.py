"""Engines on the CPU that run a converted model: OpenVINO and ONNX Runtime.

Both read the same ONNX graph, which is made once for each model. They have as many threads as
PyTorch: OMP_NUM_THREADS where it is set, otherwise all cores.
"""

import contextlib
import importlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairweather.errors import OptionError
from fairweather.export import Portable, to_onnx
from fairweather.hardware import host_budget_bytes
from fairweather.models import AST, ASTConfig
from fairweather.restoration.conversions import converted

GRAPH_NAME = "model.onnx"
CONVERTERS = ("onnx", "onnxscript")
# OpenVINO would compute in bf16 by itself on processors that have it.
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
MOST_FIXED_SHAPES = 2  # each holds the weights once more


class OpenVINOEngine:
    """OpenVINO on the CPU.

    A graph compiled for one shape is about a seventh faster than one for any shape, and compiling
    takes a second: it is done for a shape that comes a second time.

    Attributes:
        device: the CPU.
        config: the network's config.
    """

    def __init__(self, path: Path, config: ASTConfig, *, precision: str = "fp32"):
        """Reads a converted model; `create_openvino_engine` converts one.

        Args:
            path: an `.onnx`, or an `.xml` with its `.bin`.
            config: what it was made from.
            precision: `fp32` or `bf16`.
        """
        openvino: Any = importlib.import_module("openvino")
        self.device = torch.device("cpu")
        self.config = config
        self._settings = {
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        # So that what is read stays in memory, and the file may vanish.
        self._core = openvino.Core()
        self._core.set_property({"ENABLE_MMAP": False})
        self._network = self._core.read_model(path)
        self._any_shape = self._core.compile_model(self._network, "CPU", self._settings)
        self._fixed: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._last_shape: tuple[int, ...] = ()
        self._busy = threading.Lock()  # a compiled model runs once at a time

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) float32 in [0, 1] → the same, not clipped."""
        image = np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))
        with self._busy:
            restored = self._compiled_for(image.shape)({0: image})[0]
        return restored.transpose(0, 2, 3, 1)

    def _compiled_for(self, shape: tuple[int, ...]) -> Any:
        if shape in self._fixed:
            self._fixed.move_to_end(shape)
            return self._fixed[shape]
        if shape != self._last_shape:
            self._last_shape = shape
            return self._any_shape
        network = self._network.clone()
        network.reshape(list(shape))
        self._fixed[shape] = self._core.compile_model(network, "CPU", self._settings)
        while len(self._fixed) > MOST_FIXED_SHAPES:
            self._fixed.popitem(last=False)
        return self._fixed[shape]

    def free_bytes(self) -> int:
        """How much memory a tile may take: a share of what the machine has."""
        return host_budget_bytes()

    def release(self) -> None:
        """Forgets what was compiled for single shapes."""
        with self._busy:
            self._fixed.clear()


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU.

    Attributes:
        device: the CPU.
        config: the network's config.
    """

    def __init__(self, path: Path, config: ASTConfig):
        """Reads a converted model; `create_onnxruntime_engine` converts one.

        Args:
            path: an `.onnx`.
            config: what it was made from.
        """
        onnxruntime: Any = importlib.import_module("onnxruntime")
        self.device = torch.device("cpu")
        self.config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what fails is raised, and may be mended with smaller tiles
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) float32 in [0, 1] → the same, not clipped."""
        image = np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))
        return self._session.run(None, {"image": image})[0].transpose(0, 2, 3, 1)

    def free_bytes(self) -> int:
        """How much memory a tile may take: a share of what the machine has."""
        return host_budget_bytes()

    def release(self) -> None:
        """Nothing: ONNX Runtime takes what it keeps for the next, smaller tile."""


def create_openvino_engine(model: AST, *, precision: str = "fp32") -> OpenVINOEngine:
    """Converts a model for OpenVINO, or finds what was converted before.

    Raises:
        OptionError: for a precision that OpenVINO does not have here.
    """
    if precision not in OPENVINO_PRECISIONS:
        known = " and ".join(OPENVINO_PRECISIONS)
        raise OptionError(f"precision {precision!r}: engine 'openvino' has {known}")
    with converted_graph(model) as path:
        return OpenVINOEngine(path, model.config, precision=precision)


def create_onnxruntime_engine(model: AST) -> OnnxRuntimeEngine:
    """Converts a model for ONNX Runtime, or finds what was converted before."""
    with converted_graph(model) as path:
        return OnnxRuntimeEngine(path, model.config)


@contextlib.contextmanager
def converted_graph(model: AST) -> Iterator[Path]:
    """The model as an ONNX file whose output is not clipped."""

    def write(folder: Path) -> None:
        graph = to_onnx(Portable(model, clips=False), {})
        (folder / GRAPH_NAME).write_bytes(graph.SerializeToString())

    with converted(model, kind="onnx", packages=CONVERTERS, write=write) as folder:
        yield folder / GRAPH_NAME
