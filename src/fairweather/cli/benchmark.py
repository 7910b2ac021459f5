"""`fairweather benchmark`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fairweather.cli.console import counting, out_console
from fairweather.cli.options import AsJson

if TYPE_CHECKING:
    from fairweather.benchmark import DataBenchmark


def benchmark_data_command(
    folder: Annotated[Path, typer.Argument(help="Clean photographs.")],
    *,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=16)] = 128,
    batch: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 8,
    seconds: Annotated[
        float, typer.Option(help="How long each of the four is measured.", min=0)
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Compare the loading of crops with the training step of ast_n, on one thread each."""
    from fairweather.benchmark import benchmark_data
    from fairweather.hardware import keep_freed_memory

    keep_freed_memory()  # as training does
    with counting("rounds", hidden=as_json) as show:
        measured = benchmark_data(folder, crop_px=crop, batch=batch, seconds=seconds, on_round=show)
    if as_json:
        document = asdict(measured) | {"loading_to_step": measured.loading_to_step}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        out_console.print(table_of(measured))
        out_console.print(
            f"{measured.images} photographs, {measured.batch} crops of {measured.crop_px} px, one"
            f" thread: loading is {measured.loading_to_step:.1f} times as fast as the step"
        )


def benchmark_page_command(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS.json …", help="What `fairweather evaluate -o` wrote."),
    ],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="The Markdown file to write.")],
) -> None:
    """Write a page of figures from the results of evaluations; nothing on it is typed."""
    from fairweather.evaluation import write_benchmark_page

    write_benchmark_page(results, out)
    out_console.print(f"page: {out}")


def table_of(measured: "DataBenchmark") -> Table:
    """What was measured, in crops a second."""
    table = Table("", "crops/s")
    for name, speed in (
        ("loading, from the cache", measured.loading_crops_per_s),
        ("loading, decoded each time", measured.decoding_crops_per_s),
        ("degradation (rain)", measured.degradation_crops_per_s),
        (f"training step (ast_n, {measured.precision})", measured.step_crops_per_s),
    ):
        table.add_row(name, f"{speed:,.1f}")
    return table
