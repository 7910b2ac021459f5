"""`fairweather export`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fairweather.cli.console import err_console, out_console
from fairweather.cli.models import SUFFIXES, import_keras, load_source
from fairweather.cli.options import Overwrite, WeightsFile, parse_size
from fairweather.errors import ExportError

if TYPE_CHECKING:
    from fairweather.export import Exported, Quantized


Format = Literal["saved-model", "litert", "onnx", "openvino", "torch"]
FORMAT_SUFFIXES: dict[Format, str] = {
    "litert": ".tflite",
    "onnx": ".onnx",
    "openvino": ".xml",
    "torch": ".pt2",
}
NOTES: dict[Format, str] = {
    "saved-model": "any batch, height and width",
    "onnx": "any batch, height and width",
    "openvino": "any batch, height and width; the weights are in the .bin beside it",
    "torch": "any batch, height and width; torch.export.load(…).module()(image) on the CPU",
}


def export_command(
    weights: WeightsFile,
    target: Annotated[
        Path,
        typer.Argument(
            help="New .onnx, .xml (openvino), .pt2 (torch) or .tflite (litert) file, or folder"
            " (saved-model)."
        ),
    ],
    *,
    to: Annotated[Format, typer.Option(help="Format to write.")],
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="litert only: the size of the images it restores.",
            show_default="256x256",
        ),
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="PAIRS",
            help="openvino only: write 8-bit weights, calibrated and measured on the pairs in this"
            " folder (input/ and target/).",
        ),
    ] = None,
    largest_loss: Annotated[
        float,
        typer.Option(
            metavar="DB",
            help="With --int8: refuse to write the file if it loses more PSNR than this.",
        ),
    ] = 0.1,
    overwrite: Overwrite = False,
) -> None:
    """Export a network for other programs, and compare its output with the original first."""
    if size is not None and to != "litert":
        raise typer.BadParameter(f"--size {size}: only litert has a fixed size; {NOTES[to]}")
    if int8 is not None and to != "openvino":
        raise typer.BadParameter(f"--int8 {int8}: only openvino is written in 8 bits")
    pixels = parse_size(size or "256x256")
    if to in FORMAT_SUFFIXES:
        from fairweather.export import check_target

        check_target(target, suffix=FORMAT_SUFFIXES[to], overwrite=overwrite)
    try:
        with err_console.status("exporting, then comparing with the original …"):
            if to in ("saved-model", "litert"):
                exported = export_with_keras(
                    weights, target, to=to, size=pixels, overwrite=overwrite
                )
            elif int8 is not None:
                exported = export_int8(
                    weights, target, folder=int8, largest_loss_db=largest_loss, overwrite=overwrite
                )
            else:
                exported = export_with_torch(weights, target, to=to, overwrite=overwrite)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror or error}") from error
    print_exported(weights, exported, note=NOTES.get(to, f"one image of {pixels[0]}×{pixels[1]}"))


def export_with_torch(weights: str, target: Path, *, to: Format, overwrite: bool) -> "Exported":
    """Write one of the formats that PyTorch exports to."""
    from fairweather import export

    write = {
        "onnx": export.export_onnx,
        "openvino": export.export_openvino,
        "torch": export.export_torch,
    }[to]
    model, metadata = load_source(weights, bottleneck_shift=None)
    return write(model, target, metadata=metadata, overwrite=overwrite)


def export_int8(
    weights: str, target: Path, *, folder: Path, largest_loss_db: float, overwrite: bool
) -> "Quantized":
    """Write OpenVINO's format in 8 bits, calibrated on the pairs in a folder."""
    from fairweather.data import find_layout_pairs
    from fairweather.export import export_openvino_int8

    model, metadata = load_source(weights, bottleneck_shift=None)
    pairs = find_layout_pairs(folder, "folders", split="all")
    return export_openvino_int8(
        model,
        target,
        pairs=[(pair.degraded, pair.clean) for pair in pairs],
        largest_loss_db=largest_loss_db,
        metadata=metadata,
        overwrite=overwrite,
    )


def export_with_keras(
    weights: str, target: Path, *, to: Format, size: tuple[int, int], overwrite: bool
) -> "Exported":
    """Write one of the formats that only TensorFlow writes."""
    from fairweather.models import read_metadata

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keras = import_keras(backend="tensorflow")
    model = keras.load_model(weights)
    is_keras = weights.endswith(SUFFIXES["keras"])
    metadata = {} if is_keras else read_metadata(weights)
    if to == "saved-model":
        return keras.export_saved_model(model, target, metadata=metadata, overwrite=overwrite)
    return keras.export_litert(model, target, size=size, metadata=metadata, overwrite=overwrite)


def print_exported(weights: str, exported: "Exported", *, note: str) -> None:
    """Say what was written, how to use it, and how far it is from the original."""
    from fairweather.export import Quantized

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


def print_quantized(quantized: "Quantized") -> None:
    """Say what 8 bits cost and gain, and what bfloat16 does."""
    out_console.print(
        f"    in OpenVINO on {quantized.pairs} pairs that did not calibrate it, and speed on this"
        " processor:"
    )
    for name, variant in quantized.variants.items():
        out_console.print(
            f"    {name:<10}  {variant.psnr_db:.2f} dB, lost {quantized.loss_db(name):.3f} dB,"
            f" {variant.times_as_fast:.2f} times as fast as fp32"
        )
