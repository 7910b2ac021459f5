"""Options that several commands take."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
WeightsFile = Annotated[
    str,
    typer.Argument(
        help="A bundled name, a weights file (ours, an official .pth, or of Keras), hf:OWNER/NAME,"
        " or a URL with #sha256=…"
    ),
]
Device = Annotated[str, typer.Option(help="Device to run on: auto, cpu, cuda, mps or xpu.")]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Processor threads to compute with.",
        min=1,
        show_default="OMP_NUM_THREADS, or one for each core",
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16", "auto"],
    typer.Option(help="Number format to compute in; auto takes bf16 where it is free."),
]
SelfEnsemble = Annotated[
    bool,
    typer.Option(
        "--self-ensemble",
        help="Average over the flips and turns that the weights were trained with: 2 to 8 times"
        " slower, better.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the target.")]
Workers = Annotated[
    int, typer.Option(help="Number of processes that load data, for each device.", min=0)
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder for decoded images and unpacked shards.",
        show_default="the user's cache folder",
    ),
]
Unchecked = Annotated[
    bool, typer.Option("--unchecked", help="Train even if a quick check finds faults in the pairs.")
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Run the code that the recipe names as its perceptual_backbone."
    ),
]


def parse_size(size: str) -> tuple[int, int]:
    """Read `HxW` in pixels."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", size)
    if not match:
        raise typer.BadParameter(f"--size {size}: is no height and width, such as 256x384")
    return int(match[1]), int(match[2])
