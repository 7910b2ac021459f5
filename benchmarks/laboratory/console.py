"""What the commands that measure speed share: options, tables, and the file of figures."""

import enum
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fairweather.files import write_text
from laboratory.official import REPOSITORY
from laboratory.setting import Setting

Tree = dict[str, Any]


class GlibcSetting(enum.StrEnum):
    """How the official code's process takes memory."""

    shipped = "shipped"
    tuned = "tuned"


Model = Annotated[
    str,
    typer.Option(metavar="NAME", help="A preset, with weights drawn from a seed, or weights."),
]
Threads = Annotated[int, typer.Option(help="Of each library that computes.", min=1)]
Rounds = Annotated[int, typer.Option(help="How often all take turns.", min=1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda …")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
Official = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKOUT",
        help=f"Of {REPOSITORY}, which then takes part on the same weights. Its code runs.",
    ),
]
Allocators = Annotated[
    list[GlibcSetting] | None,
    typer.Option(
        help="With glibc as it comes, or told to keep freed memory; both without this option."
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")]

console = Console(soft_wrap=True, highlight=False, markup=False)
error_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def finish(measured: Tree, *, call: list[str], setting: Setting, json_file: Path | None) -> None:
    """Print the tables, write the file, and fail if a contestant did.

    Args:
        measured: machine, versions and figures.
        call: the script, and the options that are its own.
        setting: gives the other options.
        json_file: where to.
    """
    measured["command"] = shlex.join(["python", *call, *setting.options()])
    for run in measured["runs"]:
        console.print(table_of(run))
        console.print(ceiling_line(run))
    console.print(measured["command"])
    if json_file is not None:
        write_text(json_file, json.dumps(measured, indent=2, ensure_ascii=False) + "\n")
        console.print(f"figures: {json_file}")
    faults = [fault for run in measured["runs"] for fault in run["faults"]]
    for fault in faults:
        error_console.print(f"failed: {fault}")
    if faults:
        raise typer.Exit(1)


def table_of(run: Tree) -> Table:
    """Make a table of one size, narrow enough for a terminal; the file says more."""
    contestants = run["contestants"]
    names = [one["name"] for one in contestants]
    baseline = next(
        (name for name in names if name.startswith("official")), names[0] if names else ""
    )
    batch, height, width = run["shape"]
    table = Table(title=f"{height}×{width}, batch {batch}", box=SIMPLE, padding=0)
    table.add_column("", no_wrap=True)
    heads = ("CPU\ns", "wall\ns", "MB", "MP/s", "GFLOP\n/s", "of\npeak", "differs\nby")
    beside = baseline.rpartition(", ")[2]
    for head in (*heads, f"times\n{beside}"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in contestants:
        share, difference = one.get("share_of_matrix_ceiling"), one["largest_difference"]
        times = one["faster_than"].get(baseline)
        table.add_row(
            one["name"],
            f"{one['processor_s']['median']:#.3g}",
            f"{one['wall_s']['median']:#.3g}",
            f"{one['peak_bytes'] / 1e6:.0f}",
            f"{one['megapixels_per_s']:.3g}",
            f"{one['gflop_per_s']:.3g}",
            "" if share is None else f"{share:.0%}",
            "" if difference is None else f"{difference:.0e}",
            "" if times is None else f"{times:.2f}",
        )
    return table


def ceiling_line(run: Tree) -> str:
    """Say what the machine could do in the same rounds."""
    ceiling = run["ceiling"]
    parts = []
    if "matrix_gflop_per_s" in ceiling:
        speed = ceiling["matrix_gflop_per_s"]["median"]
        parts.append(f"matrix product {speed:,.0f} GFLOP/s ({ceiling['matrix_routine']})")
    if "copy_gb_per_s" in ceiling:
        parts.append(f"copy {ceiling['copy_gb_per_s']['median']:,.1f} GB/s")
    return f"ceiling: {', '.join(parts)}"
