"""The `fairweather` command: parses, calls, prints."""

import dataclasses
import enum
import io
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fairweather import __version__
from fairweather.data import DEGRADATIONS, degrade_folder, degrade_pixels
from fairweather.errors import CheckpointError, FairweatherError, OptionError, RecipeError
from fairweather.imaging import DEFAULT_MAX_PIXELS, Photo, write_image, write_side_by_side
from fairweather.models import (
    count_parameters,
    list_models,
    load_model,
    read_metadata,
    save_model,
    save_official,
)
from fairweather.restoration import (
    Failure,
    Job,
    Restored,
    Restorer,
    Summary,
    keep_freed_memory,
    plan_jobs,
    run_jobs,
)

app = typer.Typer(
    name="fairweather",
    help="Restore photographs spoiled by rain and other weather.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List, describe and convert models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
data_app = typer.Typer(help="Make data to train on.", no_args_is_help=True)
app.add_typer(data_app, name="data")

SAMPLE_SEED = 1  # looks like rain; not chosen by how well it is restored

out_console = Console(soft_wrap=True, highlight=False, markup=False)
err_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


class Precision(enum.StrEnum):
    """What the network computes in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Naming(enum.StrEnum):
    """Whose parameter names a converted file has."""

    fairweather = "fairweather"
    official = "official"


def main() -> None:
    """Runs the command; every error of ours is one line, without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up like Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every file name can be encoded
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except FairweatherError as error:
        err_console.print(f"error: {error}")
        sys.exit(2 if isinstance(error, OptionError | RecipeError) else 1)


@app.callback(invoke_without_command=True)
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Restore photographs spoiled by rain and other weather."""
    if version:
        out_console.print(__version__)
        raise typer.Exit


@app.command("restore")
def restore_command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PHOTO|FOLDER|GLOB …", help="What to restore; folders with all below."
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="A file for one photo, else a folder; without it, beside the input."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="Damage to undo, by bundled weights.")] = "rain",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights instead: a .safetensors, an official .pth, or a folder with one."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps or xpu.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="What to compute in.")] = Precision.fp32,
    tile: Annotated[
        str, typer.Option(help="Side of a tile in pixels, 'auto', or 'none' for no tiles.")
    ] = "auto",
    strength: Annotated[float, typer.Option(help="0 is the input, 1 the restored image.")] = 1.0,
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Average over 8 views: 8 times slower, better.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write input and result side by side.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing targets.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Go on after an interrupted run.")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option(help="Refuse images with more pixels.", min=1)
    ] = DEFAULT_MAX_PIXELS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="Make a rainy sample in ./sample and restore it.")
    ] = False,
) -> None:
    """Restore photos, folders and globs; inputs are never overwritten.

    photo.jpg becomes photo.restored.jpg beside it, a folder photos is mirrored in photos-restored.
    """
    keep_freed_memory()
    if sample:
        restore_sample(device=device)
        return
    if not inputs:
        raise typer.BadParameter("name a photo, a folder or a glob, or use --sample")
    if overwrite and skip_existing:
        raise typer.BadParameter("--overwrite and --skip-existing exclude each other")
    restorer = Restorer(
        weights or task,
        device=device,
        precision=precision.value,
        tile=parse_tile(tile),
        strength=strength,
        self_ensemble=self_ensemble,
    )
    jobs, failures = plan_jobs(inputs, out=out)
    asked = len(jobs) + len(failures)
    summary = Summary(failed=failures)
    interrupted = False
    shown = Shown(jobs, as_json=as_json)
    with shown.progress:
        try:
            run_jobs(
                restorer,
                jobs,
                summary=summary,
                existing="overwrite" if overwrite else "skip" if skip_existing else "refuse",
                compare=compare,
                max_pixels=max_pixels,
                on_start=shown.start,
                on_done=shown.finish,
            )
        except KeyboardInterrupt:
            interrupted = True
    print_summary(summary, asked=asked, interrupted=interrupted, as_json=as_json)
    if summary.failed or interrupted:
        raise typer.Exit(1)


def progress_bar(*, hidden: bool) -> Progress:
    """A bar on standard error with time left, for people only."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err_console,
        transient=True,
        disable=hidden or not err_console.is_terminal,
    )


class Shown:
    """What a person sees while jobs run: a line for each file, a bar for files and for tiles."""

    def __init__(self, jobs: list[Job], *, as_json: bool):
        self.as_json = as_json
        self.progress = progress_bar(hidden=as_json)
        # On a terminal the lines go above the bar, which only the bar's own console can do.
        self.console = err_console if sys.stdout.isatty() else out_console
        self.files = self.progress.add_task("files", total=len(jobs), visible=len(jobs) > 1)
        self.tiles = self.progress.add_task("tiles", visible=False)

    def start(self, job: Job) -> Any:
        """Before a file; gives the callback for its tiles."""
        self.progress.reset(self.tiles, description=job.source.name, visible=False)

        def on_tile(done: int, total: int) -> None:
            self.progress.update(self.tiles, completed=done, total=total, visible=total > 4)

        return on_tile

    def finish(self, outcome: Restored | Failure | Job) -> None:
        """After a file."""
        self.progress.advance(self.files)
        if self.as_json or not isinstance(outcome, Restored):
            return
        self.console.print(
            f"{outcome.source} → {outcome.target}"
            f"  ({outcome.width} × {outcome.height}, {outcome.seconds:.1f} s)"
        )
        for note in outcome.notes:
            self.console.print(f"    note: {note}")


def print_summary(summary: Summary, *, asked: int, interrupted: bool, as_json: bool) -> None:
    """Says what was done, and names each input that could not be."""
    if as_json:
        document = dataclasses.asdict(summary)
        sys.stdout.write(json.dumps({**document, "interrupted": interrupted}, default=str) + "\n")
        return
    for failure in summary.failed:
        err_console.print(f"failed: {failure.reason}")
    parts = [f"{len(summary.restored)} restored"]
    if summary.skipped:
        parts.append(f"{len(summary.skipped)} skipped, since their targets exist")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    if interrupted:
        finished = len(summary.restored) + len(summary.skipped) + len(summary.failed)
        parts.append(f"stopped with {asked - finished} not done")
    if interrupted or summary.failed or asked > 1:
        err_console.print(", ".join(parts))


def parse_tile(tile: str) -> Any:
    """`auto`, `none` or a number of pixels."""
    if tile == "auto":
        return "auto"
    if tile == "none":
        return None
    if not tile.isdecimal():
        raise typer.BadParameter(f"--tile {tile}: is neither a number of pixels, auto nor none")
    return int(tile)


def restore_sample(*, device: str) -> None:
    """Lays synthetic rain over a photograph of scikit-image, restores it, and says how well."""
    import skimage.data
    from skimage.metrics import peak_signal_noise_ratio

    folder = Path("sample")
    folder.mkdir(exist_ok=True)
    clean = skimage.data.rocket()
    rainy = degrade_pixels(clean, task="rain", seed=SAMPLE_SEED)
    restored = Restorer("rain", device=device)(rainy)
    photos = {"rainy": Photo(rainy), "restored": Photo(restored), "clean": Photo(clean)}
    for name, photo in photos.items():
        write_image(folder / f"{name}.png", photo)
    compare = folder / "compare.png"
    write_side_by_side(compare, *photos.values())
    for moment, image in (("before", rainy), ("after", restored)):
        psnr_db = peak_signal_noise_ratio(clean, image, data_range=255)
        out_console.print(f"PSNR {moment}: {psnr_db:.2f} dB")
    out_console.print(f"rainy, restored and clean side by side: {compare}")


@models_app.command("list")
def models_list(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
) -> None:
    """Presets that can be trained, and bundled weights that restore."""
    entries = list_models()
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(entry) for entry in entries]) + "\n")
        return
    table = Table("name", "kind", "what", "parameters", "GMACs at 256 × 256")
    for entry in entries:
        table.add_row(
            entry.name, entry.kind, entry.description, f"{entry.parameters:,}", f"{entry.gmacs:.2f}"
        )
    out_console.print(table)


@models_app.command("info")
def models_info(
    weights: Annotated[str, typer.Argument(help="A bundled name or a weights file.")],
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
) -> None:
    """Architecture and origin of weights, told from the file."""
    model = load_model(weights)
    metadata = {k: v for k, v in read_metadata(weights).items() if k != "config"}
    facts: dict[str, Any] = {
        "weights": weights,
        "parameters": count_parameters(model),
        "config": dataclasses.asdict(model.config),
        "metadata": metadata,
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    table = Table(show_header=False, box=None)
    table.add_row("weights", weights)
    table.add_row("parameters", f"{facts['parameters']:,}")
    for section in (facts["config"], metadata):
        for key, value in section.items():
            table.add_row(key.replace("_", " "), str(value))
    out_console.print(table)


@models_app.command("convert")
def models_convert(
    source: Annotated[str, typer.Argument(help="A weights file of ours or an official .pth.")],
    target: Annotated[Path, typer.Argument(help="A new .safetensors, or .pth for official names.")],
    *,
    to: Annotated[
        Naming, typer.Option(help="Whose parameter names to write.")
    ] = Naming.fairweather,
    bottleneck_shift: Annotated[
        bool, typer.Option("--bottleneck-shift", help="The model shifts windows in its bottleneck.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the target.")] = False,
) -> None:
    """Convert weights between the official names and ours."""
    suffix = ".pth" if to is Naming.official else ".safetensors"
    if target.suffix != suffix:
        raise typer.BadParameter(f"{target}: {to.value} weights are written as {suffix}")
    if target.exists() and not overwrite:
        raise CheckpointError(f"'{target}' exists already; use --overwrite to replace it")
    model = load_model(source, bottleneck_shift=bottleneck_shift or None)
    try:
        if to is Naming.official:
            save_official(model, target)
            out_console.print("note: official files hold neither metadata nor bottleneck_shift")
        else:
            kept = {k: v for k, v in read_metadata(source).items() if k != "config"}
            save_model(model, target, metadata=kept)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error.strerror or error}") from error
    out_console.print(f"{source} → {target}")


@data_app.command("degrade")
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


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a .yaml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="As in stages.0.batch=8.")
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="The folder that the recipe's folders lie in.")],
    run: Annotated[
        Path | None,
        typer.Option(help="The run folder [runs/RECIPE]; a stopped run goes on."),
    ] = None,
    devices: Annotated[
        int, typer.Option(help="GPUs, or on a CPU single-threaded processes.", min=1)
    ] = 1,
    workers: Annotated[int, typer.Option(help="Data loading processes a device.", min=0)] = 0,
) -> None:
    """Train a recipe, or go on with a stopped run."""
    from fairweather.training import load_recipe, train

    loaded = load_recipe(recipe, overrides=overrides or [])
    folder = run or Path("runs") / loaded.name
    path = train(loaded, data=data, run=folder, devices=devices, workers=workers)
    out_console.print(f"trained: {path}")


if __name__ == "__main__":
    main()
