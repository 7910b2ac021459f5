"""`fairweather export`."""

import enum
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fairweather.cli.console import err_console, out_console
from fairweather.cli.models import SUFFIXES, Naming, import_keras, load_source
from fairweather.cli.options import parse_size
from fairweather.data import find_pairs
from fairweather.errors import ExportError
from fairweather.export import (
    Exported,
    Quantized,
    check_target,
    export_onnx,
    export_openvino,
    export_openvino_int8,
    export_torch,
)
from fairweather.models import read_metadata


class Format(enum.StrEnum):
    """What other programs read."""

    saved_model = "saved-model"
    litert = "litert"
    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"


FORMAT_SUFFIXES = {
    Format.litert: ".tflite",
    Format.onnx: ".onnx",
    Format.openvino: ".xml",
    Format.torch: ".pt2",
}
TORCH_FORMATS = {
    Format.onnx: export_onnx,
    Format.openvino: export_openvino,
    Format.torch: export_torch,
}
NOTES = {
    Format.saved_model: "any batch, height and width",
    Format.onnx: "any batch, height and width",
    Format.openvino: "any batch, height and width; the weights are in the .bin beside it",
    Format.torch: "any batch, height and width; torch.export.load(…).module()(image) on the CPU",
}


def export_command(
    weights: Annotated[
        str,
        typer.Argument(
            help="A bundled name, a weights file of ours, an official .pth, hf:OWNER/NAME, a URL"
            " with #sha256=…, or a file of Keras."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="A new .onnx, .xml (OpenVINO), .pt2 (torch), .tflite (litert),"
            " or folder (saved-model)."
        ),
    ],
    *,
    to: Annotated[Format, typer.Option(help="Whose format to write.")],
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="litert only: the one size of its images; 256x256 without it."
        ),
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="PAIRS",
            help="openvino only: in 8 bits, calibrated and measured on these pairs, a folder with"
            " input/ and target/.",
        ),
    ] = None,
    largest_loss: Annotated[
        float,
        typer.Option(metavar="DB", help="Of PSNR by 8 bits; above it nothing is written."),
    ] = 0.1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the target.")] = False,
) -> None:
    """Export a model for other programs; what it gives there is compared before it is written."""
    if size is not None and to is not Format.litert:
        raise typer.BadParameter(f"--size {size}: only litert has a fixed size; {NOTES[to]}")
    if int8 is not None and to is not Format.openvino:
        raise typer.BadParameter(f"--int8 {int8}: only openvino is written in 8 bits")
    pixels = parse_size(size or "256x256")
    if to in FORMAT_SUFFIXES:
        check_target(target, suffix=FORMAT_SUFFIXES[to], overwrite=overwrite)
    try:
        with err_console.status("exporting, then comparing with the original …"):
            if to in TORCH_FORMATS:
                model, metadata = load_source(weights, bottleneck_shift=None)
                write: Callable[..., Exported] = TORCH_FORMATS[to]
                if int8 is not None:
                    pairs = [(pair.degraded, pair.clean) for pair in find_pairs(int8)]
                    write = functools.partial(
                        export_openvino_int8, pairs=pairs, largest_loss_db=largest_loss
                    )
                exported = write(model, target, metadata=metadata, overwrite=overwrite)
            else:
                exported = export_with_keras(
                    weights, target, to=to, size=pixels, overwrite=overwrite
                )
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}") from error
    print_exported(weights, exported, note=NOTES.get(to, f"one image of {pixels[0]}×{pixels[1]}"))


def export_with_keras(
    weights: str, target: Path, *, to: Format, size: tuple[int, int], overwrite: bool
) -> Exported:
    """Writes one of the formats that only TensorFlow writes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keras = import_keras(backend="tensorflow")
    model = keras.load_model(weights)
    is_keras = weights.endswith(SUFFIXES[Naming.keras])
    metadata = {} if is_keras else read_metadata(weights)
    if to is Format.saved_model:
        return keras.export_saved_model(model, target, metadata=metadata, overwrite=overwrite)
    return keras.export_litert(model, target, size=size, metadata=metadata, overwrite=overwrite)


def print_exported(weights: str, exported: Exported, *, note: str) -> None:
    """Says what was written, how it is used, and how far it is from the original."""
    out_console.print(f"{weights} → {exported.path}  ({exported.bytes / 1e6:.1f} MB)")
    out_console.print("    image: float32 RGB in [0, 1] → restored: the same, clipped to [0, 1]")
    out_console.print(f"    {note}")
    figures = ", ".join(
        f"{difference:.1e} at {height}×{width}"
        for (height, width), difference in exported.differences.items()
    )
    out_console.print(f"    compared with the original, largest difference: {figures}")
    if isinstance(exported, Quantized):
        print_quantized(exported)
    for line in exported.notes:
        out_console.print(f"    note: {line}")


def print_quantized(quantized: Quantized) -> None:
    """Says what 8 bits cost and gain, and what bfloat16 does."""
    out_console.print(
        f"    in OpenVINO on {quantized.pairs} pairs that did not calibrate it, and speed on this"
        " processor:"
    )
    for name, variant in quantized.variants.items():
        out_console.print(
            f"    {name:<10}  {variant.psnr_db:.2f} dB, lost {quantized.loss_db(name):.3f} dB,"
            f" {variant.times_as_fast:.2f} times as fast as fp32"
        )
