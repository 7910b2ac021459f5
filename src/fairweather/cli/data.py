"""`fairweather data`."""

from pathlib import Path
from typing import Annotated

import typer

from fairweather.cli.console import out_console, progress_bar
from fairweather.data import DEGRADATIONS, degrade_folder, describe_layout, list_layouts


def data_degrade(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Clean photographs.")],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the pairs.")],
    task: Annotated[str, typer.Option(help=f"The damage: {', '.join(DEGRADATIONS)}.")] = "rain",
    seed: Annotated[int, typer.Option(help="The same seed makes the same damage.")] = 0,
) -> None:
    """Make pairs for training: input/ with synthetic damage, target/ clean, and a contact sheet."""
    with progress_bar(hidden=False) as progress:
        bar = progress.add_task("photographs", total=None)
        count = degrade_folder(
            source,
            out,
            task=task,
            seed=seed,
            on_done=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    out_console.print(f"{count} pairs in {out}, the first of them in {out / 'contact_sheet.jpg'}")


def data_layouts(
    name: Annotated[
        str | None, typer.Argument(help="A layout; without it, all of them are listed.")
    ] = None,
) -> None:
    """How the public benchmarks lie on disk, and where their authors publish them."""
    if name is None:
        for known in list_layouts():
            out_console.print(known)
    else:
        out_console.print(describe_layout(name))
