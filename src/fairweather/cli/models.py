"""`fairweather models`."""

import dataclasses
import enum
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fairweather.cli.console import out_console
from fairweather.errors import CheckpointError
from fairweather.models import (
    count_parameters,
    list_models,
    load_model,
    read_metadata,
    save_model,
    save_official,
)


class Naming(enum.StrEnum):
    """Whose parameter names a converted file has."""

    fairweather = "fairweather"
    official = "official"


def models_list(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
) -> None:
    """Presets that can be trained, and bundled weights that restore."""
    entries = list_models()
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(entry) for entry in entries]) + "\n")
        return
    table = Table("name", "kind", "what", "parameters", "GMACs at 256 × 256")
    for entry in entries:
        table.add_row(
            entry.name, entry.kind, entry.description, f"{entry.parameters:,}", f"{entry.gmacs:.2f}"
        )
    out_console.print(table)


def models_info(
    weights: Annotated[str, typer.Argument(help="A bundled name or a weights file.")],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
) -> None:
    """Architecture and origin of weights, told from the file."""
    model = load_model(weights)
    metadata = {k: plain(v) for k, v in read_metadata(weights).items() if k != "config"}
    facts: dict[str, Any] = {
        "weights": weights,
        "parameters": count_parameters(model),
        "config": dataclasses.asdict(model.config),
        "metadata": metadata,
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    table = Table(show_header=False, box=None)
    table.add_row("weights", weights)
    table.add_row("parameters", f"{facts['parameters']:,}")
    for section in (facts["config"], metadata):
        for key, value in section.items():
            if key == "recipe":  # a page of its own: see --json
                value = value["name"]
            table.add_row(key.replace("_", " "), str(value))
    out_console.print(table)


def models_convert(
    source: Annotated[str, typer.Argument(help="A weights file of ours or an official .pth.")],
    target: Annotated[Path, typer.Argument(help="A new .safetensors, or .pth for official names.")],
    *,
    to: Annotated[
        Naming, typer.Option(help="Whose parameter names to write.")
    ] = Naming.fairweather,
    bottleneck_shift: Annotated[
        bool, typer.Option("--bottleneck-shift", help="The model shifts windows in its bottleneck.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the target.")] = False,
) -> None:
    """Convert weights between the official names and ours."""
    suffix = ".pth" if to is Naming.official else ".safetensors"
    if target.suffix != suffix:
        raise typer.BadParameter(f"{target}: {to.value} weights are written as {suffix}")
    if target.exists() and not overwrite:
        raise CheckpointError(f"'{target}' exists already; use --overwrite to replace it")
    model = load_model(source, bottleneck_shift=bottleneck_shift or None)
    try:
        if to is Naming.official:
            save_official(model, target)
            out_console.print("note: metadata, bottleneck_shift and stochastic depth are not in it")
        else:
            kept = {k: v for k, v in read_metadata(source).items() if k != "config"}
            save_model(model, target, metadata=kept)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error
    out_console.print(f"{source} → {target}")


def plain(value: str) -> Any:
    """A metadata value: what its JSON says, or the text itself."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
