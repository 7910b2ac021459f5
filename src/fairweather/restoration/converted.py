"""Engines on the CPU that run a converted model: OpenVINO and ONNX Runtime.

Both read the same ONNX graphs: one that restores, and for a network with a global context one that
looks. Converting takes most of a minute, so the graphs are kept in the user's cache folder, in an
entry named after all that they were made of, which may be deleted at any time. The runtimes have
as many threads as PyTorch: OMP_NUM_THREADS where it is set, otherwise all cores.
"""

import hashlib
import importlib
import json
import logging
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch

from fairweather.errors import OptionError
from fairweather.export import Portable, PortableLook, Runner, to_onnx
from fairweather.files import staging
from fairweather.hardware import host_budget_bytes
from fairweather.models import Config, Network, fingerprint
from fairweather.restoration.engines import Context, activation_bytes_per_px

log = logging.getLogger(__name__)

CONVERTERS = ("onnx", "onnxscript")
RESTORER, LOOKER = "model.onnx", "model.look.onnx"
LAYOUT = 3  # raise it when other files are written under the same versions
# OpenVINO would compute in bf16 by itself on processors that have it.
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
MOST_FIXED_SHAPES = 2  # each holds the weights once more


class ConvertedEngine:
    """An `Engine` of the graphs of a converted model on the CPU."""

    def __init__(self, config: Config, folder: Path, read: Callable[[Path], Runner]):
        """Read the graphs in a folder, which were made from a model of that config."""
        self.device = torch.device("cpu")
        self.config = config
        self.bytes_per_px = activation_bytes_per_px(config)
        self._restorer = read(folder / RESTORER)
        self._looker = read(folder / LOOKER) if config.global_context else None

    def __call__(self, tiles: np.ndarray, context: Context = None) -> np.ndarray:
        """Restore tiles; see `Engine`."""
        inputs = [np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))]
        if self._looker is not None:
            places = self.look(tiles) if context is None else context
            told = places.mean((1, 2), keepdims=True)  # of one shape, whatever the tiles' is
            inputs.append(np.repeat(told, len(tiles) // len(told), axis=0))
        return self._restorer(*inputs).transpose(0, 2, 3, 1)

    def look(self, image: np.ndarray) -> np.ndarray:
        """Return what each place says; see `Engine`."""
        if self._looker is None:
            raise OptionError("this network has no global context, so it does not look")
        return self._looker(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))

    def at_once(self) -> int:
        """Return 1: the runtimes have threads of their own."""
        return 1

    def free_bytes(self) -> int:
        """Return how much memory a tile may take: a share of what the machine has."""
        return host_budget_bytes()

    def release(self) -> None:
        """Give memory back that OpenVINO keeps; ONNX Runtime takes its own for smaller tiles."""
        if isinstance(self._restorer, OpenVINOGraph):
            self._restorer.release()


class OpenVINOGraph:
    """A graph in OpenVINO.

    A graph compiled for one shape is about a seventh faster than one for any shape, and compiling
    takes a second: it is done for a shape that comes a second time.
    """

    def __init__(self, path: Path, *, precision: str):
        openvino: Any = importlib.import_module("openvino")
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

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the first output."""
        with self._busy:
            return self._compiled_for(inputs)(list(inputs))[0]

    def _compiled_for(self, inputs: tuple[np.ndarray, ...]) -> Any:
        shape = inputs[0].shape
        if shape in self._fixed:
            self._fixed.move_to_end(shape)
            return self._fixed[shape]
        if shape != self._last_shape:
            self._last_shape = shape
            return self._any_shape
        network = self._network.clone()
        network.reshape({index: list(each.shape) for index, each in enumerate(inputs)})
        self._fixed[shape] = self._core.compile_model(network, "CPU", self._settings)
        while len(self._fixed) > MOST_FIXED_SHAPES:
            self._fixed.popitem(last=False)
        return self._fixed[shape]

    def release(self) -> None:
        """Forget what was compiled for single shapes."""
        with self._busy:
            self._fixed.clear()


def load_converted(model: Network, read: Callable[[Path], Runner]) -> ConvertedEngine:
    """Load a converted model from the cache; convert it if it is not there, or broken."""
    entry = cache_folder() / f"onnx-{content_key(model)}"
    if entry.is_dir():
        try:
            return ConvertedEngine(model.config, entry, read)
        except Exception as error:  # each runtime raises what it likes
            log.warning("'%s' cannot be read, so it is made again: %s", entry, error)
    else:
        # A warning, so that whoever waits for a first photograph sees why.
        log.warning("converting the model, once, which takes a minute or more")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / RESTORER).write_bytes(to_onnx(Portable(model, clips=False)).SerializeToString())
        if model.config.global_context:
            (folder / LOOKER).write_bytes(to_onnx(PortableLook(model)).SerializeToString())
        engine = ConvertedEngine(model.config, folder, read)
        keep(folder, entry)
    return engine


def cache_folder() -> Path:
    """Return where converted models are kept."""
    return Path(platformdirs.user_cache_dir("fairweather")) / "engines"


def content_key(model: Network) -> str:
    """Return a name that is the same for the same weights, config and versions."""
    packages = ("fairweather", "torch", *CONVERTERS)
    about = {
        "layout": LAYOUT,
        "network": fingerprint(model),
        "versions": {package: version(package) for package in packages},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def keep(folder: Path, entry: Path) -> None:
    """Copy a folder into the cache, whole or not at all; warn where that is impossible."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with staging(entry, overwrite=True) as whole:
            shutil.copytree(folder, whole)
    except OSError as error:
        if not entry.is_dir():  # or else another process was first
            log.warning(
                "the converted model cannot be kept in '%s', so it is made each time: %s;"
                " XDG_CACHE_HOME chooses another folder",
                entry.parent,
                error.strerror or error,
            )
