"""The curves of a run, drawn from its CSV logs: loss, PSNR, SSIM and learning rate."""

import csv
import logging
import re
import time
from collections import defaultdict
from pathlib import Path

from fairweather.imaging import Curve, write_curves

log = logging.getLogger(__name__)

Points = dict[int, float]


class CurvePlotter:
    """Draws the curves of a run, at most every so many seconds; None never draws."""

    def __init__(self, run: Path, *, every_s: float | None):
        self.run = run
        self.every_s = every_s
        self.drawn = time.monotonic()

    def draw(self, *, if_due: bool = False) -> None:
        """Draw the curves if they are wanted, and `if_due` if the last drawing is old enough."""
        if self.every_s is None or (if_due and time.monotonic() - self.drawn < self.every_s):
            return
        try:
            draw_curves(self.run)
        except OSError as error:  # a full disk ends the run where it cannot keep its weights
            log.warning("%s: the curves cannot be drawn: %s", self.run, error.strerror or error)
        self.drawn = time.monotonic()


def draw_curves(run: Path) -> list[Path]:
    """Write `curves/{loss,psnr,ssim,learning_rate}.png` of what the logs hold.

    Args:
        run: the run folder.

    Returns:
        The files that were written; a curve without points is left out.
    """
    columns, starts = read_logs(run)
    figures = {
        "loss": ("loss", {"train_loss": "training loss"}),
        "psnr": (
            "PSNR of held-out images [dB]",
            {"val_psnr_db": "restored", "val_input_psnr_db": "degraded, as it came"},
        ),
        "ssim": (
            "SSIM of held-out images",
            {"val_ssim": "restored", "val_input_ssim": "degraded, as it came"},
        ),
        "learning_rate": ("learning rate", {"lr": "learning rate"}),
    }
    written = []
    for name, (title, wanted) in figures.items():
        curves = [
            Curve(label, *zip(*sorted(columns[column].items()), strict=True))
            for column, label in wanted.items()
            if columns.get(column)
        ]
        if curves:
            path = run / "curves" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            write_curves(path, curves, title=title, marks=starts)
            written.append(path)
    return written


def read_logs(run: Path) -> tuple[dict[str, Points], list[int]]:
    """Read each logged column by the step of the whole run, and the steps at which stages start.

    Where a run was resumed, the later log has the last word about a step.
    """
    columns: dict[str, Points] = defaultdict(dict)
    starts: list[int] = []
    begin = 0
    for stage in range(_stages(run)):
        starts.append(begin)
        last = begin
        for table in sorted((run / "logs").glob(f"stage-{stage}.*/metrics.csv"), key=_attempt):
            with table.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    numbers = _numbers(row)
                    if "step" not in numbers:
                        continue
                    step = begin + int(numbers.pop("step"))
                    last = max(last, step + 1)
                    for column, number in numbers.items():
                        name = "lr" if column.startswith("lr-") else column
                        columns[name][step] = number
        begin = last
    return columns, starts


def _numbers(row: dict[str, str]) -> dict[str, float]:
    """What a row holds; nothing if a killed process wrote only a part of it."""
    try:
        return {column: float(value) for column, value in row.items() if value != ""}
    except (TypeError, ValueError):
        return {}


def _stages(run: Path) -> int:
    found = [re.match(r"stage-(\d+)\.", path.name) for path in (run / "logs").glob("stage-*")]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _attempt(table: Path) -> int:
    return int(table.parent.name.rpartition(".")[2])
