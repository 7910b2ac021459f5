"""`fairweather train`."""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

from fairweather.cli.console import out_console


def train_command(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a .yaml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="As in stages.0.batch=8.")
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="The folder that the recipe's folders lie in.")],
    run: Annotated[
        Path | None,
        typer.Option(help="The run folder, by default runs/RECIPE; a stopped run goes on."),
    ] = None,
    devices: Annotated[
        int, typer.Option(help="GPUs, or on a CPU single-threaded processes.", min=1)
    ] = 1,
    workers: Annotated[int, typer.Option(help="Data loading processes a device.", min=0)] = 0,
) -> None:
    """Train a recipe, or go on with a stopped run."""
    from fairweather.training import load_recipe, train

    logging.basicConfig(format="%(message)s")
    logging.getLogger("fairweather").setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no advertisements
    for theirs in ("lightning", "torchdata", "torch.autograd"):
        warnings.filterwarnings("ignore", module=theirs)
    loaded = load_recipe(recipe, overrides=overrides or [])
    folder = run or Path("runs") / loaded.name
    path = train(loaded, data=data, run=folder, devices=devices, workers=workers)
    out_console.print(f"trained: {path}")
