"""`fairweather models`."""

import dataclasses
import importlib
import json
import math
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fairweather.cli.console import counting, out_console, print_json, table_of
from fairweather.cli.options import AsJson, Overwrite, WeightsFile
from fairweather.errors import TAKEN, CheckpointError, DataError

if TYPE_CHECKING:
    from fairweather.models import Network


Naming = Literal["fairweather", "official", "keras"]  # whose parameter names a file has
SUFFIXES: dict[Naming, tuple[str, ...]] = {
    "fairweather": (".safetensors",),
    "official": (".pth",),
    "keras": (".keras", ".weights.h5"),
}


def models_list(*, as_json: AsJson = False) -> None:
    """List the presets that you can train, and the bundled weights that restore."""
    from fairweather.models import list_models

    entries = list_models()
    if as_json:
        print_json([dataclasses.asdict(entry) for entry in entries])
        return
    table = table_of("name", "kind", "what", "parameters", "GMACs at 256 × 256")
    for entry in entries:
        table.add_row(
            entry.name, entry.kind, entry.description, f"{entry.parameters:,}", f"{entry.gmacs:.2f}"
        )
    out_console.print(table)


def models_info(
    weights: WeightsFile,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the architecture and origin of a weights file."""
    from fairweather.models import count_parameters

    model, told = load_source(weights, bottleneck_shift=None)
    metadata = {key: plain(value) for key, value in told.items()}
    facts: dict[str, Any] = {
        "weights": weights,
        "parameters": count_parameters(model),
        "config": dataclasses.asdict(model.config),
        "metadata": metadata,
    }
    if as_json:
        print_json(facts)
        return
    table = table_of("", "", show_header=False, box=None)
    table.add_row("weights", weights)
    table.add_row("parameters", f"{facts['parameters']:,}")
    for section in (facts["config"], metadata):
        for key, value in section.items():
            if key == "recipe":  # a page of its own: see --json
                value = value["name"]
            table.add_row(key.replace("_", " "), str(value))
    out_console.print(table)


def models_convert(
    source: WeightsFile,
    target: Annotated[
        Path,
        typer.Argument(
            help="New file: .safetensors, .pth for official, .keras or .weights.h5 for keras."
        ),
    ],
    *,
    to: Annotated[
        Naming, typer.Option(help="Format and parameter names to write.")
    ] = "fairweather",
    bottleneck_shift: Annotated[
        bool,
        typer.Option(
            "--bottleneck-shift",
            help="The source was trained with shifted windows in its bottleneck.",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Convert weights between our format, the official code's and Keras."""
    if not target.name.endswith(SUFFIXES[to]):
        suffixes = " or ".join(SUFFIXES[to])
        raise typer.BadParameter(f"{target}: {to} weights are written as {suffixes}")
    if target.exists() and not overwrite:
        raise CheckpointError(f"'{target}' {TAKEN}")
    model, metadata = load_source(source, bottleneck_shift=bottleneck_shift or None)
    try:
        write_target(model, target, to=to, metadata=metadata)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error
    out_console.print(f"{source} → {target}")


def models_precision(
    weights: WeightsFile,
    data: Annotated[
        Path, typer.Argument(help="Test set, or a folder of several, as `evaluate` takes it.")
    ],
    *,
    degradation: Annotated[
        str | None,
        typer.Option(
            help="DATA holds clean photographs: degrade them first, or none: see evaluate."
        ),
    ] = None,
    precision: Annotated[
        Literal["bf16", "fp16"], typer.Option(help="Number format to compare with fp32.")
    ] = "bf16",
    as_json: AsJson = False,
) -> None:
    """Measure what a lower precision costs on a CPU, and record it in the card of the weights."""
    from fairweather.evaluation import evaluate, find_degraded_set, find_test_sets
    from fairweather.models import PrecisionRecord, write_precision_records

    sets = (
        [find_degraded_set(data, degradation=degradation)]
        if degradation is not None
        else find_test_sets(data)
    )
    means: dict[str, dict[str, float]] = {}
    for one in ("fp32", precision):
        with counting(f"images in {one}", total=None, hidden=as_json) as show:
            found = evaluate(
                sets,
                weights=[weights],
                protocol="plain",
                device="cpu",
                precision=one,
                on_progress=show,
            )
        if found.faults:
            raise DataError(found.faults[0])
        means[one] = {
            result.name: result.mean(result.columns[0]).figures["psnr_db"]
            for result in found.sets
            if result.rows
        }
    records = [
        PrecisionRecord(name, precision, means[precision][name], fp32_db)
        for name, fp32_db in means["fp32"].items()
        if math.isfinite(fp32_db) and math.isfinite(means[precision].get(name, math.inf))
    ]
    if not records:
        raise DataError(f"{data}: holds no image that {weights} changes")
    card = write_precision_records(weights, records)
    if as_json:
        print_json({"card": str(card), "records": [dataclasses.asdict(one) for one in records]})
        return
    table = table_of("images", "precision", "loss")
    for one in records:
        table.add_row(one.images, one.precision, f"{one.loss_db:.4f} dB")
    out_console.print(table)
    out_console.print(f"recorded in {card}")


def load_source(source: str, *, bottleneck_shift: bool | None) -> tuple["Network", dict[str, str]]:
    """Return the model in a weights file of any naming, and the metadata that goes with it."""
    from fairweather.models import load_model, read_metadata

    if source.endswith(SUFFIXES["keras"]):
        keras = import_keras()
        return keras.to_torch(keras.load_model(source, bottleneck_shift=bottleneck_shift)), {}
    model = load_model(source, bottleneck_shift=bottleneck_shift)
    return model, {key: value for key, value in read_metadata(source).items() if key != "config"}


def import_keras(*, backend: str | None = None) -> ModuleType:
    """Import the Keras wing, which is an extra and takes seconds to import.

    Its files are the same on every backend. PyTorch is there in any case, and is the quietest.

    Args:
        backend: the one that it has to be; None takes what KERAS_BACKEND names, or PyTorch.
    """
    os.environ["KERAS_BACKEND"] = backend or os.environ.get("KERAS_BACKEND", "torch")
    return importlib.import_module("fairweather.keras")


def write_target(model: "Network", target: Path, *, to: Naming, metadata: dict[str, str]) -> None:
    """Write a model under the names of `to`, and say what is lost."""
    from fairweather.models import save_model, save_official

    if to == "keras":
        keras = import_keras()
        keras.save_model(keras.from_torch(model), target)
        out_console.print("note: metadata is not in it")
    elif to == "official":
        save_official(model, target)
        out_console.print("note: metadata, bottleneck_shift and stochastic depth are not in it")
    else:
        save_model(model, target, metadata=metadata)


def plain(value: str) -> Any:
    """Return a metadata value: what its JSON says, or the text itself."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
