"""`fairweather data`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fairweather.cli.console import (
    counted,
    counting,
    err_console,
    out_console,
    print_json,
    printable,
)
from fairweather.cli.options import AsJson, Overwrite

if TYPE_CHECKING:
    from fairweather.data import Made


def data_degrade(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of clean photographs.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the pairs.")],
    task: Annotated[
        str,
        typer.Option(
            help="Degradation to add: rain, raindrop, haze, snow, shadow, moire, motion_blur,"
            " low_light or weather (one of the first four for each photograph)."
        ),
    ] = "rain",
    seed: Annotated[int, typer.Option(help="The same seed gives the same degradation.")] = 0,
) -> None:
    """Degrade clean photographs to make training pairs.

    Writes input/ (degraded), target/ (clean) and contact_sheet.jpg, which shows some of them. What
    cannot be degraded is named at the end; the same command goes on where it was stopped.
    """
    from fairweather.data import degrade_folder

    with counting("photographs") as show:
        made = degrade_folder(source, out, task=task, seed=seed, on_done=show)
    tell_made(made, out, f", the first of them in {out / 'contact_sheet.jpg'}")


def tell_made(made: "Made", out: Path, more: str = "") -> None:
    """Print how many pairs there are, and each file that none could be made of."""
    for fault in made.faults:
        err_console.print(printable(f"failed: {fault}"))
    kept = f" ({made.kept} of them from before)" if made.kept else ""
    failed = f", {len(made.faults)} failed" if made.faults else ""
    out_console.print(f"{counted(made.new + made.kept, 'pair')}{kept} in {out}{more}{failed}")
    if made.faults:
        raise typer.Exit(1)


def data_check(
    folder: Annotated[Path, typer.Argument(help="Data set to check.")],
    *,
    layout: Annotated[
        str,
        typer.Option(
            help="How its files are arranged: folders (input/ and target/), or one that"
            " `fairweather data layouts` lists."
        ),
    ] = "folders",
    split: Annotated[str, typer.Option(help="Part of the data set to check.")] = "all",
    test_split: Annotated[
        str | None, typer.Option(help="Another part, which must not share scenes with it.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check only 200 pairs, and the alignment of 24.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find broken, misaligned, swapped, duplicate and leaked pairs before you train on them."""
    from fairweather.data import check_pairs, find_layout_pairs

    pairs = find_layout_pairs(folder, layout, split=split)
    test_pairs = []
    if test_split is not None:
        test_pairs = find_layout_pairs(folder, layout, split=test_split)
    with counting("pairs", total=len(pairs), hidden=as_json) as show:
        findings = check_pairs(pairs, test_pairs=test_pairs, quick=quick, on_pair=show)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        document = {"pairs": len(pairs), "findings": [asdict(finding) for finding in findings]}
        print_json(document)
    else:
        for finding in findings:
            out_console.print(f"{finding.severity}: {finding.kind}: {finding.message}")
        numbers = {"pair": len(pairs), "error": errors, "warning": len(findings) - errors}
        out_console.print(", ".join(counted(number, thing) for thing, number in numbers.items()))
    if errors:
        raise typer.Exit(1)


def data_unpack(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Data set as its authors publish it.")
    ],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the pairs.")],
    layout: Annotated[
        str,
        typer.Option(help="A layout with both images in one file: see `fairweather data layouts`."),
    ],
    split: Annotated[str, typer.Option(help="Part of the data set to split.")] = "train",
    degraded: Annotated[
        Literal["left", "right"] | None,
        typer.Option(help="Which half is degraded.", show_default="found by looking at some files"),
    ] = None,
) -> None:
    """Split files that hold both images of a pair side by side into input/ and target/."""
    from fairweather.data import unpack_side_by_side

    with counting("files") as show:
        made = unpack_side_by_side(
            source, out, layout=layout, split=split, degraded=degraded, on_done=show
        )
    tell_made(made, out / split)


def data_pack(
    folder: Annotated[Path, typer.Argument(help="Folder that a recipe's folders are relative to.")],
    *,
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR|URL",
            help="Where to write the shards: a folder, s3://, gs://, az:// or what fsspec knows.",
        ),
    ],
    shard_mb: Annotated[
        int, typer.Option("--shard-mb", help="Size of a shard in megabytes.", min=1)
    ] = 512,
    overwrite: Overwrite = False,
) -> None:
    """Pack the images and lists of a folder into tar files, to train on from an object store.

    Relative paths are kept. `fairweather train --data` takes the folder or URL of the shards in
    place of the folder that was packed.
    """
    from fairweather.data import pack_folder

    with counting("files") as show:
        packed = pack_folder(folder, out, shard_mb=shard_mb, overwrite=overwrite, on_done=show)
    files, shards = counted(packed.files, "file"), counted(packed.shards, "shard")
    out_console.print(f"{files} in {shards}, {packed.size_bytes / 1e6:.1f} MB, in {out}")


def data_layouts(
    name: Annotated[
        str | None, typer.Argument(help="Layout to describe; without it, all are listed.")
    ] = None,
) -> None:
    """Show how public data sets are arranged on disk, and where their authors publish them."""
    from fairweather.data import describe_layout, list_layouts

    if name is None:
        for known in list_layouts():
            out_console.print(known)
        out_console.print("\n`fairweather data layouts NAME` describes one")
    else:
        out_console.print(describe_layout(name))
