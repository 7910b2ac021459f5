"""What a search leaves for people: plots, a table, and the best recipe, ready to train."""

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from fairweather.files import replacing, write_text
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import dump_recipe
from fairweather.training.tune.space import Dimension, Values, recipe_with

AXIS = "held-out PSNR [dB]"


@dataclass(frozen=True)
class TrialResult:
    """A trial that is done.

    Attributes:
        number: from 0.
        folder: its run folder, in the search's.
        complete: whether it was trained to its end; if not, it was pruned.
        psnr_db: of the held-out images, at the best step of its last stage; of a pruned trial the
            best that it had reached, if any.
        values: the draw for each key of the space.
        trained: fraction of its steps.
        seconds: how long it took since it was started last.
        reason: why it was pruned.
    """

    number: int
    folder: str
    complete: bool
    psnr_db: float | None
    values: Values
    trained: float
    seconds: float
    reason: str


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """Return the complete trial with the highest PSNR, of several the first."""
    complete = [result for result in results if result.complete]
    return max(complete, key=lambda result: result.psnr_db or 0.0, default=None)


def write_summary(
    out: Path,
    study: optuna.Study,
    *,
    results: Sequence[TrialResult],
    recipe: Recipe,
    dimensions: Sequence[Dimension],
) -> tuple[Path | None, Path]:
    """Write `trials.csv`, the plots and, if there is a best trial, `best.yaml`.

    Returns:
        The paths of the recipe and of `summary.png`.
    """
    write_text(out / "trials.csv", _table(results, dimensions))
    summary = draw_plots(out, study)
    best = best_of(results)
    if best is None:
        return None, summary
    path = out / "best.yaml"
    note = (
        f"# The best of {len(results)} trials, {best.folder}: {best.psnr_db:.2f} dB on held-out"
        " training images,\n# among which it was chosen; its figure on a test set is still to be"
        " measured.\n"
    )
    write_text(path, note + dump_recipe(recipe_with(recipe, dimensions, best.values)))
    return path, summary


def _table(results: Sequence[TrialResult], dimensions: Sequence[Dimension]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = [dimension.label for dimension in dimensions]
    writer.writerow(["trial", "state", "held_out_psnr_db", *labels, "trained", "seconds", "reason"])
    for result in results:
        writer.writerow(
            [
                result.number,
                "complete" if result.complete else "pruned",
                "" if result.psnr_db is None else f"{result.psnr_db:.3f}",
                *(result.values.get(dimension.key, "") for dimension in dimensions),
                f"{result.trained:.3f}",
                f"{result.seconds:.1f}",
                result.reason,
            ]
        )
    return text.getvalue()


def draw_plots(out: Path, study: optuna.Study) -> Path:
    """Draw Optuna's plots: the trials in their order, over each value, and step by step.

    Returns:
        The path of the first, `summary.png`; beside it are `values.png` and `steps.png`.
    """
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    kinds = {
        "summary.png": lambda: plots.plot_optimization_history(study, target_name=AXIS),
        "values.png": lambda: plots.plot_slice(study, target_name=AXIS),
        "steps.png": lambda: plots.plot_intermediate_values(study),
    }
    for name, plot in kinds.items():
        # Optuna would change the style of whatever is drawn later.
        with plt.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of axes without a width, where values do not differ
            plot()
            with replacing(out / name) as file:
                plt.savefig(file, format="png", dpi=110, bbox_inches="tight")
            plt.close()
    return out / "summary.png"
