"""`fairweather models train-classifier` and `fairweather models confusion`."""

import dataclasses
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fairweather.cli.console import counting, out_console
from fairweather.cli.options import AsJson
from fairweather.errors import CheckpointError
from fairweather.models import CLASSIFIER_WEIGHTS


class TrainingPrecision(StrEnum):
    """What a training computes in."""

    fp32 = "fp32"
    bf16 = "bf16"


def models_train_classifier(
    *,
    data: Annotated[
        Path, typer.Option(help="A folder with clean/, and pairs/ of real degradation.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors to write.")],
    steps: Annotated[int, typer.Option(help="How many batches of 24.", min=1)] = 4000,
    minutes: Annotated[
        float | None, typer.Option(help="Ends it in any case; then no seed repeats it.")
    ] = None,
    precision: Annotated[
        TrainingPrecision, typer.Option(help="bf16 is faster on CPUs that have it.")
    ] = TrainingPrecision.fp32,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that make the samples.", min=0)] = 2,
) -> None:
    """Train the classifier that `restore --task auto` asks which degradation a photo has."""
    from fairweather.training import train_classifier

    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"{out}: weights are written as .safetensors")
    try:
        with counting("batches", total=steps) as show:
            best = train_classifier(
                data,
                out,
                steps=steps,
                minutes=minutes,
                precision=precision.value,
                seed=seed,
                workers=workers,
                on_step=show,
            )
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error.strerror or error}") from error
    out_console.print(
        f"{out}: of step {best.step}, with {best.accuracy:.1%} of the held-out photographs right"
        f" and a loss of {best.loss:.3f}; sure from {best.threshold:.0%}"
    )


def models_confusion(
    *,
    data: Annotated[Path, typer.Option(help="A folder with dev/ and real/.")],
    weights: Annotated[
        Path, typer.Option(help="Of the classifier.", show_default="the bundled ones")
    ] = CLASSIFIER_WEIGHTS,
    as_json: AsJson = False,
) -> None:
    """What the classifier takes photos of known degradation for, as a table in Markdown."""
    from fairweather.models import CLASSES
    from fairweather.training import confuse

    with counting("photographs", hidden=as_json) as show:
        rows = confuse(data, weights=weights, on_image=show)
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(row) for row in rows]) + "\n")
        return
    columns = (
        "photographs",
        "show",
        "images",
        *CLASSES,
        "restored rightly",
        "wrongly",
        "`weather`",
    )
    lines = [columns, ("---", "---", *["---:"] * (len(columns) - 2))]
    lines += [
        (
            *(row.name, row.degradation, row.images, *row.found.values()),
            *(row.sure_right, row.sure_wrong, row.by_weather),
        )
        for row in rows
    ]
    for line in lines:
        sys.stdout.write(f"| {' | '.join(str(cell or '') for cell in line)} |\n")
