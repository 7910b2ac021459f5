"""`fairweather data`."""

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fairweather.cli.console import counting, out_console
from fairweather.cli.options import AsJson
from fairweather.data import (
    DEGRADATIONS,
    check_pairs,
    degrade_folder,
    describe_layout,
    find_layout_pairs,
    list_layouts,
    unpack_side_by_side,
)


class Side(StrEnum):
    """A half of an image."""

    left = "left"
    right = "right"


def data_degrade(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Clean photographs.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the pairs.")],
    task: Annotated[
        str, typer.Option(help=f"The degradation: {', '.join(DEGRADATIONS)}.")
    ] = "rain",
    seed: Annotated[int, typer.Option(help="The same seed makes the same degradation.")] = 0,
) -> None:
    """Make pairs for training: input/ degraded, target/ clean, and a contact sheet."""
    with counting("photographs") as show:
        count = degrade_folder(source, out, task=task, seed=seed, on_done=show)
    out_console.print(f"{count} pairs in {out}, the first of them in {out / 'contact_sheet.jpg'}")


def data_check(
    folder: Annotated[Path, typer.Argument(help="A data set; by default input/ and target/.")],
    *,
    layout: Annotated[
        str, typer.Option(help="How it lies on disk: see `fairweather data layouts`.")
    ] = "folders",
    split: Annotated[str, typer.Option(help="Which part of it to check.")] = "all",
    test_split: Annotated[
        str | None, typer.Option(help="A part that must not share scenes with it.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="200 pairs, and the offsets of 24.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find broken, misaligned, swapped, duplicate and leaked pairs before they cost a run."""
    pairs = find_layout_pairs(folder, layout, split=split)
    test_pairs = []
    if test_split is not None:
        test_pairs = find_layout_pairs(folder, layout, split=test_split)
    with counting("pairs", total=len(pairs), hidden=as_json) as show:
        findings = check_pairs(pairs, test_pairs=test_pairs, quick=quick, on_pair=show)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        document = {"pairs": len(pairs), "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(document, default=str) + "\n")
    else:
        for finding in findings:
            out_console.print(f"{finding.severity}: {finding.kind}: {finding.message}")
        out_console.print(f"{len(pairs)} pairs, {errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(1)


def data_unpack(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="The data set as it came.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for the pairs.")],
    layout: Annotated[str, typer.Option(help="One with both images in a file: see `layouts`.")],
    split: Annotated[str, typer.Option(help="Which part of it.")] = "train",
    degraded: Annotated[
        Side | None,
        typer.Option(help="The degraded half.", show_default="found by looking at some files"),
    ] = None,
) -> None:
    """Take files apart that hold both images of a pair side by side, into input/ and target/."""
    side = degraded.value if degraded else None
    with counting("pairs"):
        count = unpack_side_by_side(source, out, layout=layout, split=split, degraded=side)
    out_console.print(f"{count} pairs in {out / split}")


def data_layouts(
    name: Annotated[
        str | None, typer.Argument(help="A layout; without it, all of them are listed.")
    ] = None,
) -> None:
    """How the public benchmarks lie on disk, and where their authors publish them."""
    if name is None:
        for known in list_layouts():
            out_console.print(known)
        out_console.print("\n`fairweather data layouts NAME` shows the tree of one")
    else:
        out_console.print(describe_layout(name))
