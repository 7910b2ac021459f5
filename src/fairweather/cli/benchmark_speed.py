"""`fairweather benchmark restore`, `training` and `speed-page`."""

import enum
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from fairweather.cli.console import counting, err_console, out_console
from fairweather.cli.options import parse_size
from fairweather.files import write_text

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
        help="Of the official code, which then takes part on the same weights. Its code runs.",
    ),
]
Allocators = Annotated[
    list[GlibcSetting] | None,
    typer.Option(
        "--official-allocator",
        help="With glibc as it comes, or told to keep freed memory; both without this option.",
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")]


def benchmark_restore_command(
    *,
    model: Model = "ast_t",
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for more, plain included; without it, all that start fast."),
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="HxW", help="Repeat for more; 256x256 without it.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in a call.", min=1)] = 1,
    threads: Threads = 1,
    rounds: Rounds = 5,
    device: Device = "auto",
    precision: Precision = "fp32",
    official: Official = None,
    allocators: Allocators = None,
    json_file: JsonFile = None,
) -> None:
    """Time engines, and the official code, in turns: seconds, memory, share of the ceiling."""
    from fairweather.benchmark import Setting, benchmark_restore

    sizes = [parse_size(one) for one in size or ["256x256"]]
    setting = Setting(
        device=device,
        precision=precision,
        threads=threads,
        rounds=rounds,
        official=official,
        allocators=tuple(one.value for one in allocators or GlibcSetting),
    )
    with counting() as show:
        measured = benchmark_restore(
            model,
            engines=engine or (),
            sizes=sizes,
            batch=batch,
            setting=setting,
            on_turn=lambda name, done, total: show(done, total, name),
        )
    words = [word for name in measured["engines"] for word in ("--engine", name)]
    words += [word for height, width in sizes for word in ("--size", f"{height}x{width}")]
    words += ["--batch", str(batch)]
    finish(measured, words=words, allocators=allocators, json_file=json_file)


def benchmark_training_command(
    *,
    model: Model = "ast_t",
    batch: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 8,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=16)] = 128,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="A step that keeps fewer activations, too.")
    ] = False,
    threads: Threads = 1,
    rounds: Rounds = 5,
    device: Device = "auto",
    precision: Precision = "fp32",
    official: Official = None,
    allocators: Allocators = None,
    json_file: JsonFile = None,
) -> None:
    """Time a training step, and the official code's, in turns: seconds, memory, throughput."""
    from fairweather.benchmark import Setting, benchmark_training

    setting = Setting(
        device=device,
        precision=precision,
        threads=threads,
        rounds=rounds,
        official=official,
        allocators=tuple(one.value for one in allocators or GlibcSetting),
    )
    with counting() as show:
        measured = benchmark_training(
            model,
            batch=batch,
            crop_px=crop,
            checkpointing=checkpointing,
            setting=setting,
            on_turn=lambda name, done, total: show(done, total, name),
        )
    words = ["--batch", str(batch), "--crop", str(crop)]
    words += ["--checkpointing"] if checkpointing else []
    finish(measured, words=words, allocators=allocators, json_file=json_file)


def benchmark_speed_page_command(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT.json …", help="What `--json` of the others wrote."),
    ],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="The Markdown file to write.")],
) -> None:
    """Write a page of speed and memory from JSON files; nothing on it is typed."""
    from fairweather.benchmark import write_speed_page

    write_speed_page(results, out)
    out_console.print(f"page: {out}")


def finish(
    measured: Tree,
    *,
    words: list[str],
    allocators: list[GlibcSetting] | None,
    json_file: Path | None,
) -> None:
    """Prints the tables, writes the file, and fails if a contestant did."""
    measured["command"] = command_of(measured, words=words, allocators=allocators or [])
    for run in measured["runs"]:
        out_console.print(table_of(run))
        out_console.print(ceiling_line(run))
    out_console.print(measured["command"])
    if json_file is not None:
        write_text(json_file, json.dumps(measured, indent=2, ensure_ascii=False) + "\n")
        out_console.print(f"figures: {json_file}")
    faults = [fault for run in measured["runs"] for fault in run["faults"]]
    for fault in faults:
        err_console.print(f"failed: {fault}")
    if faults:
        raise typer.Exit(1)


def command_of(measured: Tree, *, words: list[str], allocators: list[GlibcSetting]) -> str:
    """The command that measures this again, without paths of this machine."""
    setting = measured["setting"]
    parts = ["fairweather", "benchmark", measured["kind"], "--model", measured["model"]["name"]]
    parts += words
    for name in ("threads", "rounds", "device", "precision"):
        parts += [f"--{name}", str(setting[name])]
    if setting["official"]:
        parts += ["--official", setting["official"]]
        for allocator in allocators:
            parts += ["--official-allocator", allocator.value]
    return shlex.join(parts)


def table_of(run: Tree) -> Table:
    """One size, narrow enough for a terminal; the file says more."""
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
    """What the machine could do in the same rounds."""
    ceiling = run["ceiling"]
    parts = []
    if "matrix_gflop_per_s" in ceiling:
        speed = ceiling["matrix_gflop_per_s"]["median"]
        parts.append(f"matrix product {speed:,.0f} GFLOP/s ({ceiling['matrix_routine']})")
    if "copy_gb_per_s" in ceiling:
        parts.append(f"copy {ceiling['copy_gb_per_s']['median']:,.1f} GB/s")
    return f"ceiling: {', '.join(parts)}"
