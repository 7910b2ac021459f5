"""`fairweather tune`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fairweather.cli.console import out_console, table_of
from fairweather.cli.options import AllowCode, Cache, Unchecked, Workers
from fairweather.cli.train import be_quiet, quiet_lightning
from fairweather.errors import OptionError, TrainingError

if TYPE_CHECKING:
    from fairweather.training import SearchResult

SHOWN_TRIALS = 10


def tune_command(
    recipe: Annotated[str, typer.Argument(help="Name of a bundled recipe, or a .yaml file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value …]",
            help="Change values of the recipe for all trials, for example stages.0.steps=500.",
        ),
    ] = None,
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|URL",
            help="Folder that holds the recipe's data sets, or shards of it, as for train.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder of the search; if it holds a stopped search, that goes on.",
            show_default="runs/RECIPE-tune",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Number of trials, those of a stopped search included.", min=1)
    ] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="Value to vary, and its range; repeat for more.",
            show_default="stages.*.learning_rate=x0.2..5 and stages.*.batch=x0.5|1|2",
        ),
    ] = None,
    workers: Workers = 0,
    cache: Cache = None,
    unchecked: Unchecked = False,
    allow_code: AllowCode = False,
) -> None:
    """Search the values of a recipe, such as its learning rates, for the best PSNR.

    RANGE is LOW..HIGH or a choice such as 4|8|16. LOW..HIGH is searched on a logarithmic scale if
    HIGH is at least ten times LOW, and in whole numbers if both are whole. A leading x, as in
    x0.2..5 or x0.5|1|2, multiplies the recipe's own value. stages.*. sets all stages alike, and a
    stage's final_learning_rate follows its learning_rate. Examples (quote them in a shell):

    stages.*.learning_rate=1e-4..2e-3   stages.0.batch=4|8|16   architecture.window=4|8
    architecture.embed_dim=8|16   loss.edge=0.01..0.2   weight_decay=1e-5..1e-1

    The first trial uses the recipe's own values if they are in range. After four complete trials,
    a trial is pruned if, past a quarter of its steps, it is worse than the median of the complete
    ones at that point. Values that make an invalid recipe, diverge or run out of memory are pruned
    with the reason.

    Trials are compared by PSNR on held-out training images, never on a test split. The best of
    many is a little optimistic: measure it again on a test set. Short trials favour high learning
    rates: make them as long as the training you plan, or check the best at that length. Where a
    stage is counted in steps, a larger batch sees more crops and takes longer.

    Each process searches on one device. To use several, start the same command once for each of
    them; the trial of a process that was stopped is continued by the next. After every trial the
    folder's summary.png, values.png, steps.png, trials.csv and best.yaml are updated, beside the
    run of each trial.
    """
    from fairweather.data import bring_data, default_cache_folder
    from fairweather.training import Machines, load_recipe, search_recipe

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise OptionError("tune runs on one device; start it without torchrun")
    loaded = load_recipe(recipe, overrides=overrides or [], allow_code=allow_code)
    be_quiet()
    quiet_lightning()
    cache = cache or default_cache_folder()
    out = out or Path("runs") / f"{loaded.name}-tune"
    result = search_recipe(
        loaded,
        data=bring_data(data, cache=cache),
        out=out,
        space=search or (),
        trials=trials,
        machines=Machines(workers=workers, cache=cache),
        unchecked=unchecked,
    )
    out_console.print(trials_table(result))
    if not result.trained:
        out_console.print(f"this search was finished before, nothing was trained: {out}")
    out_console.print(f"all trials: {out / 'trials.csv'}, {result.summary_path}")
    if result.best is None:
        reasons = ", ".join(sorted({trial.reason for trial in result.trials}))
        raise TrainingError(f"{out}: none of {len(result.trials)} trials was complete: {reasons}")
    out_console.print(
        f"best: {result.best.folder}, {result.best.psnr_db:.2f} dB on held-out training images;"
        f" to train it: fairweather train {result.recipe_path} --data {data}"
        f" --out {Path('runs') / f'{loaded.name}-best'}"
    )


def trials_table(result: "SearchResult") -> Table:
    """Return a table of the best trials, then of those that were pruned."""
    order = sorted(result.trials, key=lambda t: (not t.complete, -(t.psnr_db or 0.0), t.number))
    labels = [".\n".join(d.label.rsplit(".", 1)) for d in result.dimensions]
    table = table_of("trial", "held-out\nPSNR", *labels, "trained", "minutes")
    for trial in order[:SHOWN_TRIALS]:
        table.add_row(
            str(trial.number),
            "" if trial.psnr_db is None else f"{trial.psnr_db:.2f} dB",
            *(d.show(trial.values[d.key]) for d in result.dimensions),
            f"{trial.trained:.0%}" + ("" if trial.complete else ", pruned"),
            f"{trial.seconds / 60:.1f}",
        )
    return table
