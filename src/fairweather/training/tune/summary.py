"""What a search leaves for people: a plot, a table, and the best recipe, ready to train."""

import csv
import io
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairweather.files import replacing
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import dump_recipe
from fairweather.training.tune.space import Dimension, Values, recipe_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
COMPLETE, PRUNED, BEST = "C0", "0.5", "C3"
MARKERS = {
    "complete": ("o", COMPLETE, 28),
    "pruned": ("x", PRUNED, 28),
    "below this scale": ("v", PRUNED, 40),
    "best": ("*", BEST, 130),
}
AXIS = "held-out PSNR [dB]"
# The axis ends this many times as far below the median as the best is above it, so that a trial
# which went wrong does not press all others together.
SPREADS_BELOW_MEDIAN = 4
SMALLEST_SPREAD_DB = 0.05
WIDE_RATIO = 200  # of a logarithmic axis that has no room for 2 and 5 of each decade


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
        seconds: how long it took.
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
    """The complete trial with the highest PSNR, of several the first."""
    complete = [result for result in results if result.complete]
    return max(complete, key=lambda result: result.psnr_db or 0.0, default=None)


def write_summary(
    out: Path, results: Sequence[TrialResult], *, recipe: Recipe, dimensions: Sequence[Dimension]
) -> tuple[Path | None, Path]:
    """Writes `trials.csv`, `summary.png` and, if there is a best trial, `best.yaml`.

    Returns:
        The paths of the recipe and of the plot.
    """
    with replacing(out / "trials.csv") as file:
        file.write(_table(results, dimensions).encode())
    summary = out / "summary.png"
    draw_summary(summary, results, dimensions=dimensions)
    best = best_of(results)
    if best is None:
        return None, summary
    path = out / "best.yaml"
    note = (
        f"# The best of {len(results)} trials, {best.folder}: {best.psnr_db:.2f} dB on held-out"
        " training images,\n# among which it was chosen; its figure on a test set is still to be"
        " measured.\n"
    )
    with replacing(path) as file:
        file.write((note + dump_recipe(recipe_with(recipe, dimensions, best.values))).encode())
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


def draw_summary(
    path: Path, results: Sequence[TrialResult], *, dimensions: Sequence[Dimension]
) -> None:
    """Writes a PNG: the trials in their order, and their PSNR over each value that was varied."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(dimensions))
    rows = -(-len(dimensions) // columns)
    figure = Figure(figsize=(max(8, 4 * columns), 4.4 + 3.2 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2, *[1] * rows])
    history = figure.add_subplot(grid[0, :])
    _draw_history(history, results)
    for index, dimension in enumerate(dimensions):
        axes = figure.add_subplot(grid[1 + index // columns, index % columns], sharey=history)
        _draw_dimension(axes, results, dimension)
        if index % columns:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(AXIS)
    figure.legend(*history.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _draw_history(axes: "Axes", results: Sequence[TrialResult]) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = [result.number for result in results]
    _draw_points(axes, results, numbers)
    known = [(r.number, r.psnr_db) for r in results if r.complete and r.psnr_db is not None]
    if known:
        at, values = zip(*known, strict=True)
        highest = [*itertools.accumulate(values, max)]
        steps = [*at, numbers[-1]], [*highest, highest[-1]]
        axes.step(*steps, where="post", color=BEST, alpha=0.5, zorder=1, label="best so far")
    unmeasured = [result.number for result in results if result.psnr_db is None]
    if unmeasured:
        label = "pruned before any validation"
        foot = axes.get_xaxis_transform()
        heights = [0.04] * len(unmeasured)
        axes.plot(unmeasured, heights, "|", color=PRUNED, transform=foot, label=label, ms=10)
    axes.set(xlabel="trial", ylabel=AXIS, xlim=(-0.5, max([*numbers, 3]) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.1)
    axes.grid(alpha=0.3)
    best = best_of(results)
    title = f"best: {best.psnr_db:.2f} dB, trial {best.number}" if best else "no complete trial yet"
    axes.set_title(f"{len(results)} trials; {title}")
    floor = floor_db(results)
    if floor is not None:
        axes.set_ylim(bottom=floor)


def floor_db(results: Sequence[TrialResult]) -> float | None:
    """Where the axis ends, if some trials lie far below the others."""
    values = [result.psnr_db for result in results if result.psnr_db is not None]
    if not values:
        return None
    median = statistics.median(values)
    floor = median - SPREADS_BELOW_MEDIAN * max(max(values) - median, SMALLEST_SPREAD_DB)
    return floor if min(values) < floor else None


def _draw_dimension(axes: "Axes", results: Sequence[TrialResult], dimension: Dimension) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    drawn = [result for result in results if dimension.key in result.values]
    values = [result.values[dimension.key] for result in drawn]
    if dimension.choices:
        _draw_points(axes, drawn, [dimension.choices.index(str(value)) for value in values])
        axes.set_xticks(range(len(dimension.choices)), dimension.choices)
        axes.set_xlim(-0.5, len(dimension.choices) - 0.5)
    else:
        _draw_points(axes, drawn, [float(value) for value in values])
        axes.set_xlim(dimension.low, dimension.high)
        if dimension.is_log:
            axes.set_xscale("log")
            is_wide = dimension.high / dimension.low > WIDE_RATIO
            subs = (1,) if is_wide else (1, 2, 5)
            axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(dimension.label)
    axes.grid(alpha=0.3)


def _draw_points(axes: "Axes", results: Sequence[TrialResult], x: Sequence[float]) -> None:
    """Dots, crosses for what was pruned, a star for the best, triangles below the axis."""
    floor, best = floor_db(results), best_of(results)
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in MARKERS}
    for result, position in zip(results, x, strict=True):
        if result.psnr_db is None:
            continue
        if floor is not None and result.psnr_db < floor:
            points["below this scale"].append((position, floor))
        elif result == best:
            points["best"].append((position, result.psnr_db))
        else:
            points["complete" if result.complete else "pruned"].append((position, result.psnr_db))
    for name, (marker, colour, size) in MARKERS.items():
        if points[name]:
            label = "pruned: the best that it reached" if name == "pruned" else name
            at, values = zip(*points[name], strict=True)
            style = {"label": label, "marker": marker, "color": colour, "s": size}
            axes.scatter(at, values, zorder=3, clip_on=False, **style)
