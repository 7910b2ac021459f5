"""Which engines there are, which of them are installed, and which one `auto` takes."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from fairweather.errors import MissingExtraError, OptionError, installing
from fairweather.export import onnx_runner
from fairweather.hardware import pick_device
from fairweather.models import AST, Network, multiplies_in_bf16, read_precision_records
from fairweather.restoration.converted import (
    CONVERTERS,
    OPENVINO_PRECISIONS,
    OpenVINOGraph,
    load_converted,
)
from fairweather.restoration.engines import Engine, TorchEngine

# What `auto` takes. Processor seconds of one thread, the rain weights (ast_n) at 256×256 and at
# 512×512, each row measured in turns in one run:
#   AMD EPYC with AVX-512    torch 0.17, 0.69   onnxruntime 0.20, 0.92   openvino 0.24, 1.05
#   Intel Xeon with AMX      torch 0.15, 0.58   onnxruntime 0.27, 1.23   openvino 0.26, 1.59
# Nothing was measured on a GPU, where the converted engines do not run.
FASTEST = "torch"

MOST_LOSS_DB = 0.01  # PSNR that `auto` gives away for bf16, on each set of the card


@dataclass(frozen=True)
class EngineEntry:
    """An engine, and whether it can be used here.

    Attributes:
        name: as `create_engine` takes it.
        description: what it is, in one line.
        missing: packages that it needs and that are not installed.
    """

    name: str
    description: str
    missing: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


DESCRIPTIONS = {
    "torch": "eager PyTorch; on a CPU in strips that stay in the cache",
    "compiled": "torch.compile; minutes of compiling before the first tile",
    "openvino": "OpenVINO on the CPU; converted once for each model",
    "onnxruntime": "ONNX Runtime on the CPU; converted once for each model",
}
NEEDS = {name: (name, *CONVERTERS) for name in ("openvino", "onnxruntime")}


def list_engines() -> list[EngineEntry]:
    """Return every engine that `create_engine` knows, and what it is missing here."""
    return [
        EngineEntry(name, description, missing_packages(name))
        for name, description in DESCRIPTIONS.items()
    ]


def missing_packages(name: str) -> tuple[str, ...]:
    """Return the packages that an engine needs and that are not installed."""
    needs = NEEDS.get(name, ())
    return tuple(package for package in needs if importlib.util.find_spec(package) is None)


def pick_engine(name: str) -> str:
    """Return the name of an engine that is installed; for `auto` the one measured fastest.

    Raises:
        OptionError: for an unknown name.
        MissingExtraError: if it is not installed.
    """
    if name == "auto":
        return FASTEST
    if name not in DESCRIPTIONS:
        raise OptionError(f"engine {name!r}: is none of auto, {', '.join(DESCRIPTIONS)}")
    if missing := missing_packages(name):
        raise MissingExtraError(
            f"engine {name!r} needs {', '.join(missing)}, which is missing; install it with:"
            f" {installing('cpu')}"
        )
    return name


def create_engine(
    name: str,
    model: Network,
    *,
    device: str = "auto",
    precision: str = "fp32",
) -> Engine:
    """Make what runs a network, by name.

    Args:
        name: one of `list_engines`, or `auto` for the one measured fastest.
        model: the network. The torch engines move it to the device and put it into evaluation mode.
        device: `auto`, `cpu`, `cuda`, `mps`, `xpu`; the converted engines run on the CPU alone.
        precision: `fp32`; the torch engines also take `bf16` and `fp16`, OpenVINO `bf16`.

    Raises:
        OptionError: for an unknown name, or a device or precision that the engine does not have.
        MissingExtraError: if the engine is not installed.
    """
    name = pick_engine(name)
    if name in ("torch", "compiled"):
        return TorchEngine(model, device=device, precision=precision, compiles=name == "compiled")
    if device not in ("auto", "cpu"):
        raise OptionError(f"device {device!r}: engine {name!r} runs on the CPU; use engine 'torch'")
    if name == "openvino":
        if precision not in OPENVINO_PRECISIONS:
            known = " and ".join(OPENVINO_PRECISIONS)
            raise OptionError(f"precision {precision!r}: engine 'openvino' has {known}")
        return load_converted(model, functools.partial(OpenVINOGraph, precision=precision))
    if precision != "fp32":
        raise OptionError(f"precision {precision!r}: engine {name!r} has only fp32")
    return load_converted(model, onnx_runner)


def pick_precision(
    precision: str, weights: Network | str | Path, model: Network, *, engine: str, device: str
) -> str:
    """Return the precision to compute in; for `auto` bf16 where it is free, else fp32.

    It is free where the processor multiplies in bf16, the network's strips do so, and the card of
    the weights records for bf16 no loss of more than 0.01 dB on any of its sets.
    """
    if precision != "auto":
        return precision
    here = pick_device(device).type == "cpu" and pick_engine(engine) == "torch"
    able = here and isinstance(model, AST) and multiplies_in_bf16()
    if not able or isinstance(weights, Network):
        return "fp32"
    losses = [one.loss_db for one in read_precision_records(weights) if one.precision == "bf16"]
    return "bf16" if losses and max(losses) <= MOST_LOSS_DB else "fp32"
