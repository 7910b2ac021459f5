"""`fairweather tune`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fairweather.cli.console import out_console
from fairweather.cli.train import be_quiet
from fairweather.data import default_cache_folder
from fairweather.errors import OptionError, TrainingError

if TYPE_CHECKING:
    from fairweather.training import SearchResult

SHOWN_TRIALS = 10


def tune_command(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a .yaml file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value …]", help="For all trials, as in stages.0.steps=500."),
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="The folder that the recipe's folders lie in.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="By default runs/RECIPE-tune; a stopped search there goes on."
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Altogether, with those of a stopped search.", min=1)
    ] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="What to vary, as often as wanted.",
            show_default="stages.*.learning_rate=x0.2..5 and stages.*.batch=x0.5|1|2",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Data loading processes.", min=0)] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where decoded images are kept.", show_default="the user's cache folder"),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Train on pairs that a quick check refuses.")
    ] = False,
) -> None:
    """Search a recipe's values, as its learning rates, for the best PSNR; on one device.

    RANGE is LOW..HIGH, on a logarithmic scale where HIGH is ten times LOW or more and in whole
    numbers where both ends are, or a choice, as 4|8|16. With x in front, as in x0.2..5 or x0.5|1|2,
    it is a factor of the recipe's own value. stages.*. is every stage, all with the same draw; a
    stage's final_learning_rate moves with its learning_rate. More examples, to be quoted for the
    shell:

    stages.*.learning_rate=1e-4..2e-3   stages.0.batch=4|8|16   architecture.window=4|8
    architecture.embed_dim=8|16   loss.edge=0.01..0.2   weight_decay=1e-5..1e-1

    The first trial has the recipe's own values, where they are in range. Once four are complete,
    those are pruned, after a quarter of their steps or later, that are worse than half of the
    complete ones were there; values that make no valid recipe, diverge or need too much memory are
    pruned with the reason.

    What counts is the PSNR of held-out training images, never of a test split; the best of many is
    a little too good, so measure it anew on a test set. Trials of few steps favour high learning
    rates: make them as long as the training that you mean, or check the best at that length. In
    stages counted in steps a larger batch sees more crops, and takes longer.

    OUT holds summary.png, trials.csv and best.yaml, rewritten after every trial, and the run of
    each trial.
    """
    from fairweather.training import Machines, load_recipe, tune

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise OptionError("tune runs on one device; start it without torchrun")
    loaded = load_recipe(recipe, overrides=overrides or [])
    be_quiet()
    out = out or Path("runs") / f"{loaded.name}-tune"
    result = tune(
        loaded,
        data=data,
        out=out,
        space=search or (),
        trials=trials,
        machines=Machines(workers=workers, cache=cache or default_cache_folder()),
        unchecked=unchecked,
    )
    out_console.print(table_of(result))
    out_console.print(f"all trials: {out / 'trials.csv'}, {result.summary_path}")
    if result.best is None:
        reasons = ", ".join(sorted({trial.reason for trial in result.trials}))
        raise TrainingError(f"{out}: none of {len(result.trials)} trials was complete: {reasons}")
    out_console.print(
        f"best: {result.best.folder}, {result.best.psnr_db:.2f} dB on held-out training images;"
        f" to train it: fairweather train {result.recipe_path} --data {data}"
        f" --out {Path('runs') / f'{loaded.name}-best'}"
    )


def table_of(result: "SearchResult") -> Table:
    """The best trials, then those that were pruned."""
    order = sorted(result.trials, key=lambda t: (not t.complete, -(t.psnr_db or 0.0), t.number))
    labels = [".\n".join(d.label.rsplit(".", 1)) for d in result.dimensions]
    table = Table()
    for name in ("trial", "held-out\nPSNR", *labels, "trained", "minutes"):
        table.add_column(name, overflow="fold")
    for trial in order[:SHOWN_TRIALS]:
        table.add_row(
            str(trial.number),
            "" if trial.psnr_db is None else f"{trial.psnr_db:.2f} dB",
            *(d.show(trial.values[d.key]) for d in result.dimensions),
            f"{trial.trained:.0%}" + ("" if trial.complete else ", pruned"),
            f"{trial.seconds / 60:.1f}",
        )
    return table
