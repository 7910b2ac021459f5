"""`fairweather train`."""

import contextlib
import importlib
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fairweather.cli.console import out_console, print_json, table_of
from fairweather.cli.options import AllowCode, Cache, Unchecked, Workers
from fairweather.errors import OptionError

if TYPE_CHECKING:
    from fairweather.training import Plan, Recipe


def train_command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Name of a bundled recipe, or a .yaml file.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value …]",
            help="Change values of the recipe, for example stages.0.batch=8.",
        ),
    ] = None,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Folder that holds the recipe's data sets, or shards of it that `fairweather data"
            " pack` has made, here or in an object store (s3://…).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder of the run; if it holds a stopped run of the same recipe, data and"
            " --weights, that goes on.",
            show_default="runs/RECIPE",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: a bundled name, a file, hf:OWNER/NAME or a URL with"
            " #sha256=…"
        ),
    ] = None,
    framework: Annotated[
        Literal["torch", "keras"],
        typer.Option(
            help="Framework to train with; keras uses the backend that KERAS_BACKEND names."
        ),
    ] = "torch",
    devices: Annotated[
        int, typer.Option(help="Number of GPUs, or of single-threaded processes on a CPU.", min=1)
    ] = 1,
    workers: Workers = 0,
    cache: Cache = None,
    unchecked: Unchecked = False,
    allow_code: AllowCode = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Move a run that the folder holds to another name, and begin anew."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print stages, memory and data, check all that a run needs, stop."
        ),
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the bundled recipes.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of a recipe, for editors.")
    ] = False,
) -> None:
    """Train as a recipe says, or continue a stopped run.

    Runs on one machine, or under torchrun on many.
    """
    from fairweather.data import bring_data, default_cache_folder
    from fairweather.training import is_finished, load_recipe, recipe_schema

    if schema:
        print_json(recipe_schema(), indent=2)
        return
    if listing:
        print_recipes()
        return
    if recipe is None:
        raise OptionError("name a recipe; `fairweather train --list` shows them")
    loaded = load_recipe(recipe, overrides=overrides or [], allow_code=allow_code)
    if data is None and not dry_run:
        raise OptionError("give the folder of the images: --data DIR")
    be_quiet()
    cache = cache or default_cache_folder()
    run = out or Path("runs") / loaded.name
    if fresh and "TORCHELASTIC_RUN_ID" in os.environ:  # whose processes would race for the folder
        raise OptionError("--fresh does not go with torchrun; choose another folder with -o")
    if framework == "keras" and (devices > 1 or workers):
        raise OptionError("--framework keras takes neither --devices nor --workers")
    # Otherwise TensorFlow, where Keras runs on it, tells what it was built with.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    folder = None if data is None else bring_data(data, cache=cache)
    work: dict[str, Any] = {"run": run, "weights": weights, "unchecked": unchecked, "fresh": fresh}
    if dry_run:
        check_all(loaded, data=folder, devices=devices, framework=framework, **work)
        return
    finished = not fresh and is_finished(run, loaded)
    if framework == "keras":
        from fairweather.hardware import shows_bars

        keras = importlib.import_module("fairweather.keras")  # an extra, and seconds to import
        verbose = 1 if shows_bars() else 2
        path = keras.train(loaded, data=folder, cache=cache, verbose=verbose, **work)
    else:
        from fairweather.training import Machines, train

        assert folder is not None
        quiet_lightning()
        machines = Machines.of_torchrun(workers=workers, cache=cache)
        machines = machines or Machines(devices=devices, workers=workers, cache=cache)
        path = train(loaded, data=folder, machines=machines, **work)
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        what = "was finished before, nothing was trained" if finished else "trained"
        out_console.print(f"{what}: {path}")


def check_all(
    recipe: "Recipe", *, data: Path | None, devices: int, framework: str, **work: Any
) -> None:
    """Print what a run would do, and raise what would end it before its first step."""
    from fairweather.training import Machines, prepare_run, refuse_impossible, start_model

    print_plan(recipe, data=data, devices=devices)
    if framework == "keras":
        importlib.import_module("fairweather.keras").refuse_impossible(recipe)
    else:
        refuse_impossible(recipe, Machines(devices=devices))
    if data is None:
        start_model(recipe, work["weights"])
    else:
        prepare_run(recipe, data=data, framework=framework, **work)


def be_quiet() -> None:
    """Show our own messages, and of other libraries only what needs to be read."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fairweather").setLevel(logging.INFO)
    for theirs in ("lightning", "torchdata", "torch.autograd"):
        warnings.filterwarnings("ignore", module=theirs)


def quiet_lightning() -> None:
    """Keep Lightning from telling what it finds on the machine, and from advertisements."""
    with contextlib.suppress(ImportError):  # whoever needs it says what installs it
        importlib.import_module("lightning.pytorch")  # which sets the levels of its loggers
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def print_recipes() -> None:
    """Print a table of the bundled recipes, with the figure that each has to reach."""
    from fairweather.training import list_recipes, load_recipe

    table = table_of("recipe", "task", "model", "figure to reach", "hours")
    for name in list_recipes():
        recipe = load_recipe(name)
        figure, cost = recipe.published, recipe.cost
        table.add_row(
            name,
            recipe.task,
            recipe.preset,
            f"{figure.psnr_db:g} dB, {figure.test_set} ({figure.model})" if figure else "",
            f"{cost.hours:g}, {cost.machine} ({cost.basis})" if cost else "",
        )
    out_console.print(table)


def print_plan(recipe: "Recipe", *, data: Path | None, devices: int) -> None:
    """Print what a run would do, stage by stage."""
    from fairweather.training import plan_training

    plan = plan_training(recipe, data=data, devices=devices)
    out_console.print(f"{recipe.name}: {recipe.description.strip()}")
    out_console.print(f"model: {recipe.preset}, {plan.parameters / 1e6:.2f} M parameters")
    out_console.print(describe_images(plan))
    heads = ("stage", "crop", "batch", "steps", "warm-up", "validated every", "rate", "memory")
    table = table_of(*heads)
    for index, (stage, planned) in enumerate(zip(recipe.stages, plan.stages, strict=True)):
        length = planned.length
        table.add_row(
            str(index),
            describe_crop(stage.crop_px, multiple=recipe.config.size_multiple),
            str(stage.batch),
            str(length.steps) if length else f"{stage.epochs} epochs",
            str(length.warmup_steps) if length else f"{stage.warmup_epochs} epochs",
            f"{length.validate_every_steps} steps" if length else "epoch",
            "{:.3g} → {:.3g}".format(*stage.rates),
            f"{planned.memory_bytes / 2**30:.1f} GiB",
        )
    out_console.print(table)
    if recipe.published:
        figure = recipe.published
        ssim = f" / {figure.ssim:g}" if figure.ssim is not None else ""
        out_console.print(
            f"figure to reach: {figure.psnr_db:g} dB{ssim} of {figure.model} on {figure.test_set},"
            f" {figure.protocol} ({figure.source})"
        )
    if recipe.cost:
        cost = recipe.cost
        out_console.print(f"takes about {cost.hours:g} h on {cost.machine}; {cost.basis}")


def describe_crop(crop_px: int, *, multiple: int) -> str:
    """Return the side of a crop, and what it costs if the network pads it."""
    padded_px = -(-crop_px // multiple) * multiple
    return f"{crop_px} px" + (f", as costly as {padded_px}" if padded_px > crop_px else "")


def describe_images(plan: "Plan") -> str:
    """Return one line about the images that were found."""
    if plan.data_fault:
        return f"data: {plan.data_fault}"
    if plan.training_images is None:
        return "data: not looked at; give their folder with --data"
    return (
        f"data: {plan.training_images} images or pairs to train on, {plan.held_out_images} held out"
        " (not opened; `fairweather data check` does)"
    )
