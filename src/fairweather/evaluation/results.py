"""An evaluation in memory, and as results.json and results.csv."""

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fairweather.evaluation.protocol_text import describe_protocol
from fairweather.evaluation.protocols import INFERENCES, MetricProtocol
from fairweather.evaluation.published import PUBLISHED, PublishedFigure, why_not_comparable
from fairweather.evaluation.sets import TestSet
from fairweather.evaluation.weights import INPUT, WeightsFacts
from fairweather.files import read_document

FORMAT = "fairweather evaluation 1"
PACKAGES = ("fairweather", "torch", "numpy", "scikit-image", "pillow")
RESTORED = "restored"  # the one column of images that were restored elsewhere
FIRST = ("psnr_db", "ssim", "gain_db")

Figures = Mapping[str, float]
"""By name, as in {"psnr_db": 31.2, "ssim": 0.91}; the PSNR of identical images is infinite."""


@dataclass(frozen=True)
class Row:
    """The figures of one image: its own, and those that each of the weights reaches."""

    name: str
    height: int
    width: int
    input: Figures | None
    restored: Mapping[str, Figures]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def gain_db(self, weights: str) -> float:
        """Return by how much PSNR rose; NaN where the input's is not known or infinite."""
        if self.input is None or "psnr_db" not in self.input:
            return math.nan
        after, before = self.restored[weights]["psnr_db"], self.input["psnr_db"]
        return math.nan if math.isinf(before) else after - before

    def columns(self) -> Iterator[tuple[str, Figures]]:
        """Yield the figures of the input, if it has any, then those of each of the weights."""
        if self.input is not None:
            yield INPUT, self.input
        yield from self.restored.items()


@dataclass(frozen=True)
class Mean:
    """Means over the images of a set.

    Attributes:
        figures: each over the images where it is finite; infinite if it is so in all.
        counts: over how many images, for the figures that are not finite in all.
    """

    figures: Figures
    counts: Mapping[str, int]


@dataclass
class SetResult:
    """A test set's rows, in the order of its items, and what could not be evaluated."""

    about: TestSet
    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the test set."""
        return self.about.name

    @property
    def columns(self) -> list[str]:
        """The weights that have figures here."""
        return list(self.rows[0].restored) if self.rows else []

    @property
    def has_input(self) -> bool:
        """Whether the figures of doing nothing are known."""
        return any(row.input is not None for row in self.rows)

    def mean(self, weights: str | None) -> Mean:
        """Return the means over the images: of weights and their gain, or of the input (None)."""
        if weights is None:
            return _mean([row.input for row in self.rows if row.input is not None])
        rows = [dict(row.restored[weights]) for row in self.rows]
        if "psnr_db" in rows[0] and self.has_input:
            for figures, row in zip(rows, self.rows, strict=True):
                figures["gain_db"] = row.gain_db(weights)
        return _mean(rows)

    def means(self) -> dict[str | None, Mean]:
        """Return the means of the input (None), where it is known, and of each of the weights."""
        columns = [*([None] if self.has_input else []), *self.columns]
        return {column: self.mean(column) for column in columns}


def _mean(rows: Sequence[Figures]) -> Mean:
    figures, counts = {}, {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        finite = [value for value in values if math.isfinite(value)]
        figures[name] = statistics.fmean(finite) if finite else values[0]
        if len(finite) < len(rows):
            counts[name] = len(finite)
    return Mean(figures, counts)


class Comparison(NamedTuple):
    """A published figure, and the reasons why ours may not be compared with it."""

    figure: PublishedFigure
    reasons: list[str]

    @property
    def verdict(self) -> str:
        """Whether they compare, in words."""
        return f"not comparable: {'; '.join(self.reasons)}" if self.reasons else "comparable"


@dataclass
class Evaluation:
    """Everything that a report tells.

    Attributes:
        protocol: how the figures were computed; None for photographs without a clean version.
        inference: how the model was run; None for images that were restored elsewhere.
        self_ensemble: whether results are averaged over flips and quarter turns.
        weights: one for each column.
        device: where the model ran.
        sets: the rows.
        notes: what a reader has to know beside the figures.
    """

    protocol: MetricProtocol | None
    inference: str | None = None
    self_ensemble: bool = False
    weights: list[WeightsFacts] = field(default_factory=list)
    device: str = ""
    sets: list[SetResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What could not be evaluated, in all sets."""
        return [fault for result in self.sets for fault in result.faults]

    @property
    def figure_names(self) -> list[str]:
        """The figures that some set has a mean of: PSNR, SSIM and gain first."""
        means = [mean for result in self.sets for mean in result.means().values()]
        known = dict.fromkeys(name for mean in means for name in mean.figures)
        return [*(name for name in FIRST if name in known), *(n for n in known if n not in FIRST)]

    @property
    def ranked_by(self) -> str:
        """What orders the images: `gain_db`, or `psnr_db` or `change_levels` without that."""
        if self.protocol is None:
            return "change_levels"
        return "gain_db" if any(result.has_input for result in self.sets) else "psnr_db"

    def rank(self, row: Row) -> float:
        """Return what orders a row: a figure of the first weights; NaN if it is not known."""
        weights, by = next(iter(row.restored)), self.ranked_by
        return row.gain_db(weights) if by == "gain_db" else row.restored[weights].get(by, math.nan)

    def published(self, result: SetResult) -> Comparison | None:
        """Return the published figure to put beside those of a set, if there is one."""
        figure = PUBLISHED.get(result.about.benchmark)
        if figure is None or self.protocol is None:
            return None
        reasons = why_not_comparable(
            figure,
            protocol=self.protocol,
            inference=self.inference,
            ensemble=self.self_ensemble,
            images=len(result.rows),
            training=[facts.training_data for facts in self.weights],
        )
        return Comparison(figure, reasons)


@dataclass(frozen=True)
class Images:
    """The pictures of one item, (H, W, 3) float32 in [0, 1] each."""

    degraded: np.ndarray | None
    restored: Mapping[str, np.ndarray]
    clean: np.ndarray | None

    @property
    def reference(self) -> np.ndarray:
        """What restored images are compared with: the clean one, or the input without that."""
        image = self.clean if self.clean is not None else self.degraded
        assert image is not None, "an item has a degraded or a clean image"
        return image

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield all of them, in the order in which they are shown."""
        if self.degraded is not None:
            yield "degraded", self.degraded
        yield from self.restored.items()
        if self.clean is not None:
            yield "clean", self.clean


def as_tree(evaluation: Evaluation) -> dict[str, Any]:
    """Return what results.json holds; null stands for an infinite PSNR (of equal images)."""
    how = evaluation.protocol
    return {
        "format": FORMAT,
        "protocol": asdict(how) | {"in_words": describe_protocol(how)} if how else None,
        "inference": evaluation.inference,
        "inference_in_words": INFERENCES.get(evaluation.inference or "", ""),
        "self_ensemble": evaluation.self_ensemble,
        "device": evaluation.device,
        "weights": [asdict(facts) for facts in evaluation.weights],
        "versions": {package: version(package) for package in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
        "notes": evaluation.notes,
        "sets": [_set_tree(evaluation, result) for result in evaluation.sets],
        "faults": evaluation.faults,
    }


def as_results_tree(evaluation: Evaluation) -> dict[str, Any]:
    """Return what `evaluate --restored --json` prints: the figures of one set of results."""
    (result,) = evaluation.sets
    assert evaluation.protocol is not None
    return {
        "protocol": evaluation.protocol.name,
        "images": [
            {
                "name": row.name,
                **_finite(row.restored[RESTORED]),
                **({} if row.input is None else {"input": _finite(row.input)}),
            }
            for row in result.rows
        ],
        "mean": {
            **(_mean_tree(result.mean(RESTORED)) if result.rows else {}),
            **({"input": _mean_tree(result.mean(None))} if result.has_input else {}),
        },
    }


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json file, as `as_tree` returned it.

    Files of before December 2026 name the synthetic degradation of a set "damage".

    Raises:
        DataError: if it is something else.
    """
    otherwise = f"is no results.json of `fairweather evaluate` ('{FORMAT}')"
    tree = read_document(path, form=FORMAT, otherwise=otherwise)
    for one in tree["sets"]:
        if "damage" in one:
            one["degradation"] = one.pop("damage")
    return tree


def as_table(evaluation: Evaluation) -> str:
    """Return results.csv: a line for each image and column; the unknown and infinite is empty."""
    rows = [(result, row) for result in evaluation.sets for row in result.rows]
    names = dict.fromkeys(name for _, row in rows for _, one in row.columns() for name in one)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["set", "task", "image", "height", "width", "weights", *names, "gain_db", "seconds"]
    writer.writerow(heads)
    for result, row in rows:
        for column, figures in row.columns():
            gain = row.gain_db(column) if column != INPUT else math.nan
            seconds = row.seconds.get(column, math.nan)
            values = [*(figures.get(name, math.nan) for name in names), gain, seconds]
            cells = [f"{value:.6f}" if math.isfinite(value) else "" for value in values]
            about = [*map(as_text, (result.name, result.about.task, row.name))]
            writer.writerow([*about, row.height, row.width, as_text(column), *cells])
    return text.getvalue()


def as_text(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, as names that begin like one are."""
    cell = cell.replace("\r", "\\r")  # which the csv module does not quote
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\n")) else cell


def _finite(figures: Figures) -> dict[str, float | None]:
    """For JSON, which has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _mean_tree(mean: Mean) -> dict[str, Any]:
    counts = {"mean_of": dict(mean.counts)} if mean.counts else {}
    return {**_finite(mean.figures), **counts}


def _set_tree(evaluation: Evaluation, result: SetResult) -> dict[str, Any]:
    published = evaluation.published(result)
    about = result.about
    return {
        "name": result.name,
        "task": about.task,
        "layout": about.layout,
        "split": about.split,
        "folder": about.folder,
        "degradation": about.degradation,
        "count": len(result.rows),
        "mean": {
            "input": _mean_tree(result.mean(None)) if result.has_input else None,
            "restored": {name: _mean_tree(result.mean(name)) for name in result.columns},
        },
        "published": published
        and {**asdict(published.figure), "not_comparable_because": published.reasons},
        "images": [_row_tree(row) for row in result.rows],
        "faults": result.faults,
    }


def _row_tree(row: Row) -> dict[str, Any]:
    restored = {}
    for name, figures in row.restored.items():
        restored[name] = _finite(figures)
        if row.input is not None and "psnr_db" in row.input:
            restored[name] |= _finite({"gain_db": row.gain_db(name)})
        if name in row.seconds:
            restored[name] |= {"seconds": round(row.seconds[name], 3)}
    return {
        "name": row.name,
        "height": row.height,
        "width": row.width,
        "input": None if row.input is None else _finite(row.input),
        "restored": restored,
    }
