"""OpenVINO models in 8 bits: calibrated by NNCF on pairs, and measured before they are written."""

import contextlib
import dataclasses
import importlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.metrics import peak_signal_noise_ratio

from fairweather.errors import DataError, ExportError
from fairweather.export.graphs import (
    OPENVINO_SUFFIXES,
    SHAPE,
    Portable,
    PortableLook,
    import_extra,
    module_runner,
    openvino_runner,
    quiet,
    save_openvino,
    to_openvino,
    verify_graph,
)
from fairweather.export.verification import (
    Exported,
    check_targets,
    describe_export,
    describe_look,
    export_notes,
    look_path,
    sample_images,
    size_bytes,
    verify_export,
)
from fairweather.files import staging
from fairweather.imaging import as_float, read_image
from fairweather.models import Network

CALIBRATION_PX = 256  # the middle of an image of the pairs
MOST_PAIRS = 24  # for each of calibration and measurement
LARGEST_LOSS_DB = 0.1
COARSE = 0.5  # of one pixel: 8 bits are judged by their PSNR, this only finds a broken graph
TIMED_ROUNDS = 9
# What NNCF would quantise by itself where it gains no time and costs quality.
KEPT_TYPES = ["Add", "Divide", "Gelu", "MVN", "Multiply", "ReduceMean", "Relu", "Softmax"]

Inputs = tuple[np.ndarray, ...]  # an image, and its context where the network has one


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run a model in OpenVINO.

    Attributes:
        psnr_db: mean over the pairs that it was measured on.
        times_as_fast: as fp32 at 256×256, processor seconds of one thread on this machine.
    """

    psnr_db: float
    times_as_fast: float


@dataclasses.dataclass(frozen=True)
class Quantized(Exported):
    """An OpenVINO model in 8 bits.

    Attributes:
        pairs: how many it was measured on; none of them calibrated it.
        variants: `fp32` and `int8`, whose other operations are in fp32, and where the processor has
            bfloat16, `int8, bf16` and `bf16`, which compute them, or all, in that.
    """

    pairs: int = 0
    variants: Mapping[str, Variant] = dataclasses.field(default_factory=dict)

    def loss_db(self, name: str = "int8") -> float:
        """Return what a variant loses against fp32."""
        return self.variants["fp32"].psnr_db - self.variants[name].psnr_db


def export_openvino_int8(
    model: Network,
    path: str | Path,
    *,
    pairs: Sequence[tuple[Path, Path]],
    metadata: Mapping[str, str] | None = None,
    largest_loss_db: float = LARGEST_LOSS_DB,
    overwrite: bool = False,
) -> Quantized:
    """Write an OpenVINO model whose linear layers and convolutions compute in 8 bits.

    NNCF calibrates it on every second pair; on the others its PSNR is compared with that of fp32.

    Args:
        model: stays as it is.
        path: the `.xml` to write, with its weights in a `.bin` beside it.
        pairs: (degraded, clean) files of images of 256 px or more a side, four pairs or more.
        metadata: what else the file shall say, as `fairweather.models.read_metadata` gives it.
        largest_loss_db: of PSNR; a model that loses more is not written.
        overwrite: whether files at `path` may be replaced.

    Raises:
        OptionError: for another suffix.
        DataError: for too few pairs, or images that are too small.
        ExportError: if `path` is taken, or the model loses too much.
        MissingExtraError: without the extra `int8`.
        OSError: if the files cannot be written.
    """
    nncf, path = import_nncf(), Path(path)
    files = check_targets(path, model.config, suffixes=OPENVINO_SUFFIXES, overwrite=overwrite)
    if len(pairs) < 4:
        raise DataError(
            f"8 bits are calibrated and measured on four pairs or more, not {len(pairs)}"
        )
    looker = PortableLook(model) if model.config.global_context else None

    def inputs_of(image: np.ndarray) -> Inputs:
        return (image,) if looker is None else (image, module_runner(looker)(image))

    calibration = [inputs_of(read_middle(degraded)) for degraded, _ in pairs[: 2 * MOST_PAIRS : 2]]
    measured = [
        (inputs_of(read_middle(degraded)), read_middle(clean))
        for degraded, clean in pairs[1 : 2 * MOST_PAIRS : 2]
    ]
    core = import_extra("openvino").Core()
    network = to_openvino(core, Portable(model))
    with silent():
        eight = quantize(nncf, network, calibration)
    name = look_path(path).name
    about = describe_export(model.config, metadata, shape=SHAPE, looker=name)
    with staging(path, overwrite=overwrite) as whole:
        save_openvino(eight, whole, {**about, "precision": "int8"})
        run, exact = openvino_runner(core, whole), openvino_runner(core, network)
        differences = verify_export(
            lambda image: run(*inputs_of(image)),
            lambda image: exact(*inputs_of(image)),
            images=sample_images(channels_last=False),
            tolerance=COARSE,
        )
        if looker is not None:  # stays in float32: it takes little time, and all hangs on it
            about = describe_look(model.config, metadata, shape=SHAPE)
            save_openvino(to_openvino(core, looker), look_path(whole), about)
            verify_graph(openvino_runner(core, look_path(whole)), looker)
        written = [whole.with_name(file.name) for file in files]
        done = Quantized(
            path,
            size_bytes(*written),
            differences,
            export_notes(model.config, looker=name),
            pairs=len(measured),
            variants=compare(core, network, eight, pairs=measured),
        )
        if not done.loss_db() <= largest_loss_db:  # true for NaN as well
            raise ExportError(
                f"8 bits lose {done.loss_db():.3f} dB, where {largest_loss_db:g} are allowed, so"
                " nothing was written; calibrate with pairs of the degradation that the weights are"
                " for, or allow more (--largest-loss, largest_loss_db)"
            )
    return done


def quantize(nncf: Any, network: Any, images: Sequence[Inputs]) -> Any:
    """Return the network in 8 bits, for any size as before."""
    parameters = importlib.import_module("nncf.quantization.advanced_parameters")
    # A scale for each channel would count axis 1 as the channels, which is the height here.
    whole = parameters.QuantizationParameters(per_channel=False)
    return nncf.quantize(
        network,
        nncf.Dataset([dict(enumerate(inputs)) for inputs in images]),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(types=KEPT_TYPES, validate=False),
        advanced_parameters=parameters.AdvancedQuantizationParameters(
            activations_quantization_params=whole
        ),
    )


def read_middle(path: Path) -> np.ndarray:
    """Return the middle of an image: (1, 3, 256, 256) float32 in [0, 1]."""
    pixels = read_image(path).pixels
    top, left = ((side - CALIBRATION_PX) // 2 for side in pixels.shape[:2])
    if min(top, left) < 0:
        raise DataError(
            f"{path}: is {pixels.shape[0]}×{pixels.shape[1]}; calibration needs {CALIBRATION_PX} px"
            " a side"
        )
    middle = pixels[top : top + CALIBRATION_PX, left : left + CALIBRATION_PX]
    return np.ascontiguousarray(as_float(middle).transpose(2, 0, 1)[None])


def compare(
    core: Any, network: Any, eight: Any, *, pairs: Sequence[tuple[Inputs, np.ndarray]]
) -> dict[str, Variant]:
    """Measure quality and speed: of a network, of it in 8 bits, and of both with bfloat16."""
    variants = {"fp32": (network, "f32"), "int8": (eight, "f32")}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        variants |= {"int8, bf16": (eight, "bf16"), "bf16": (network, "bf16")}
    runs, psnr_db = {}, {}
    for name, (graph, precision) in variants.items():
        fixed = graph.clone()
        fixed.reshape({index: list(each.shape) for index, each in enumerate(pairs[0][0])})
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
        runs[name] = core.compile_model(fixed, "CPU", settings)
        scores = [
            peak_signal_noise_ratio(clean, runs[name](list(inputs))[0], data_range=1)
            for inputs, clean in pairs
        ]
        psnr_db[name] = float(np.mean(scores))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TIMED_ROUNDS):
        for name, run in runs.items():  # in turns: other work disturbs all alike
            started = time.process_time()
            run(list(pairs[0][0]))
            seconds[name].append(time.process_time() - started)
    exact = np.asarray(seconds["fp32"])
    return {
        name: Variant(psnr_db[name], float(np.median(exact / np.asarray(taken))))
        for name, taken in seconds.items()
    }


def import_nncf() -> Any:
    """Import NNCF."""
    with silent():
        return import_extra("nncf", extra="int8")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Leave out what NNCF logs, and the bars that it prints."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield
