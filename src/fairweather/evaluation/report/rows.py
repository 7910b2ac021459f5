"""An evaluation in memory: a row of figures for each image, their means, what could not be done."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fairweather.evaluation.protocols import MetricProtocol
from fairweather.evaluation.sets import TestSet
from fairweather.evaluation.weights import WeightsFacts

Figures = Mapping[str, float]
"""By name, as in {"psnr_db": 31.2, "ssim": 0.91}; PSNR is infinite for identical images."""

RESTORED = "restored"  # the one column where no weights of ours were run


@dataclass(frozen=True)
class Row:
    """One image: its own figures, and those of each of the weights, by their names."""

    name: str
    height: int
    width: int
    input: Figures | None
    restored: Mapping[str, Figures]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def gain_db(self, weights: str) -> float:
        """How much higher PSNR became; NaN where that has no meaning."""
        if self.input is None or "psnr_db" not in self.input:
            return math.nan
        after, before = self.restored[weights]["psnr_db"], self.input["psnr_db"]
        return math.nan if math.isinf(before) else after - before


@dataclass(frozen=True)
class Mean:
    """Means over a set's images.

    Attributes:
        figures: each over the images where it is finite; infinite if it is so in all.
        counts: of how many images, for those figures that are not of all.
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
        """Of the test set."""
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
        """Means over the images: of weights with their gain, or of the input."""
        if weights is None:
            return _mean([row.input for row in self.rows if row.input is not None])
        with_gain = "psnr_db" in self.rows[0].restored[weights] and self.has_input
        return _mean(
            [
                {**row.restored[weights], "gain_db": row.gain_db(weights)}
                if with_gain
                else row.restored[weights]
                for row in self.rows
            ]
        )


def _mean(rows: list[Figures]) -> Mean:
    figures, counts = {}, {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        finite = [value for value in values if math.isfinite(value)]
        figures[name] = statistics.fmean(finite) if finite else values[0]
        if len(finite) < len(rows):
            counts[name] = len(finite)
    return Mean(figures, counts)


@dataclass
class Evaluation:
    """Everything that a report tells.

    Attributes:
        protocol: what the figures were computed under; None for photographs without a clean one.
        inference: how the model was run; None for images restored elsewhere.
        self_ensemble: whether it is the mean over flips and quarter turns.
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
    def ranked_by(self) -> str:
        """What orders the images: `gain_db`, or `psnr_db` or `change_levels` without that."""
        if self.protocol is None:
            return "change_levels"
        return "gain_db" if any(result.has_input for result in self.sets) else "psnr_db"


def rank(row: Row, weights: str, *, by: str) -> float:
    """What orders a row, as `Evaluation.ranked_by` names it; NaN if that is not known."""
    return row.gain_db(weights) if by == "gain_db" else row.restored[weights].get(by, math.nan)


@dataclass(frozen=True)
class Images:
    """One evaluated item in memory, for pictures: (H, W, 3) float32 in [0, 1] each."""

    degraded: np.ndarray | None
    restored: Mapping[str, np.ndarray]
    clean: np.ndarray | None

    @property
    def reference(self) -> np.ndarray:
        """What a restored image is compared with: the clean one, or the input without that."""
        image = self.clean if self.clean is not None else self.degraded
        assert image is not None, "an item has a degraded or a clean image"
        return image

    def named(self) -> Iterable[tuple[str, np.ndarray]]:
        """All of them, in the order in which they are shown."""
        if self.degraded is not None:
            yield "degraded", self.degraded
        yield from self.restored.items()
        if self.clean is not None:
            yield "clean", self.clean
