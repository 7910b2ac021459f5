"""Measure what `--task auto` gains where it restores a photograph twice, as a Markdown table.

The photographs are those that the training of the classifier held out: with one degradation, to
see that nothing is lost, and with two, one over the other.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from classifier_gains import psnr
from classifier_samples import as_jpeg, held_out_samples, load_photographs
from fairweather import Restorer
from fairweather.cli import counting, run_command
from fairweather.data import degrade_pixels
from fairweather.models import CLASSIFIER_WEIGHTS, load_classifier
from fairweather.restoration import Chooser, Outcome, restore_in_turn

MIXED = (
    ("haze", "rain"),
    ("haze", "snow"),
    ("haze", "raindrop"),
    ("rain", "raindrop"),
    ("shadow", "rain"),
)
MOST_DB = 50.0  # from which on nobody sees a difference
QUALITY = 90  # of the JPEG of what has two degradations


def main(
    *,
    data: Annotated[Path, typer.Option(help="The folder that the classifier was trained with.")],
    most: Annotated[int, typer.Option(help="Photographs of each kind.", min=1)] = 30,
) -> None:
    """Measure what restoring twice gains."""
    choose = Chooser(functools.partial(Restorer, device="cpu"))
    rows: dict[str, list[tuple[float, float, int]]] = {}
    seed = int(load_classifier(CLASSIFIER_WEIGHTS)[1]["seed"])
    samples = list(known_photographs(data, seed=seed, most=most))
    with counting("photographs", total=len(samples)) as show:
        for number, (kind, degraded, clean) in enumerate(samples, 1):
            row = rows.setdefault(kind, [])
            row.append(gains_in_turn(choose, degraded, clean))
            show(number, len(samples), kind)
    sys.stdout.write("| photographs | number | restored | first [dB] | twice | second [dB] |\n")
    sys.stdout.write("|---|" + "---:|" * 5 + "\n")
    for kind, row in rows.items():
        first, second = np.mean([one[0] for one in row]), np.mean([one[1] for one in row])
        once, twice = (sum(one[2] >= times for one in row) for times in (1, 2))
        cells = (kind, len(row), once, f"{first:+.2f}", twice, f"{second:+.2f}")
        sys.stdout.write(f"| {' | '.join(map(str, cells))} |\n")


def known_photographs(
    data: Path, *, seed: int, most: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield what a photograph shows, it degraded, and clean, both (H, W, 3) uint8."""
    known = list(held_out_samples(load_photographs(data)[1], seed=seed))
    known = [known[i] for i in np.random.default_rng(seed).permutation(len(known))]
    for shown in dict.fromkeys(one.degradation for one in known):
        for one in [one for one in known if one.degradation == shown][:most]:
            yield shown, one.image, one.clean
    for first, second in MIXED:
        clean = [one.clean for one in known if one.degradation == "clean"][:most]
        for number, image in enumerate(clean):
            degraded = degrade_pixels(image, task=first, seed=number)
            degraded = degrade_pixels(degraded, task=second, seed=1000 + number)
            yield f"{first} and {second}", as_jpeg(degraded, quality=QUALITY), image


def gains_in_turn(
    choose: Chooser[Restorer], degraded: np.ndarray, clean: np.ndarray
) -> tuple[float, float, int]:
    """Return what the first restoration gains [dB], what the second, and how many there were."""
    results = [degraded]

    def restore(restorer: Restorer, pixels: np.ndarray) -> Outcome:
        results.append(restorer.restore_pixels(pixels))
        return Outcome(results[-1])

    restore_in_turn(choose, degraded, restore)
    reached = [min(MOST_DB, psnr(result, clean)) for result in results]
    steps = np.diff(reached + [reached[-1]] * (3 - len(reached)))
    return float(steps[0]), float(steps[1]), len(results) - 1


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
