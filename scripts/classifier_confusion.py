"""Print what the classifier takes photographs of known degradations for, as a Markdown table."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from classifier_gains import psnr
from fairweather import Restorer
from fairweather.cli import counting, run_command
from fairweather.data import degrade_pixels, find_images, find_layout_pairs, read_bytes
from fairweather.errors import DataError
from fairweather.models import CLASSES, CLASSIFIER_WEIGHTS, load_classifier
from fairweather.restoration import classifier_views, diagnose, probabilities

# Folder below dev/pairs, layout, degradation of the degraded sides.
DEV_PAIRS = (
    ("rain/Rain100L", "folders", "rain"),
    ("rain/Rain100H", "folders", "rain"),
    ("rain/DDN-demo", "folders", "rain"),
    ("rain/ICTGV-demo", "folders", "rain"),
    ("raindrop/AGAN", "folders", "raindrop"),
    ("haze/SOTS-indoor", "sots", "haze"),
    ("haze/REVIDE", "folders", "haze"),
    ("shadow/ISTD-composite", "folders", "shadow"),
    ("shadow/UIUC", "folders", "shadow"),
    ("moire/UHDM-700px", "folders", "moire"),
)
DEV_CLEAN = "clean/Kodak24"
UNHARMED_DB = 40.0  # PSNR of a clean photograph to itself
Known = tuple[str, str, Callable[[], np.ndarray]]  # set, degradation, and what reads the photograph
COLUMNS = (
    *("photographs", "show", "images", *CLASSES),
    *("restored rightly", "wrongly", "`weather`", "under 40 dB"),
)


def main(
    *,
    data: Annotated[Path, typer.Option(help="A folder with dev/ and real/.")],
    weights: Annotated[
        Path, typer.Option(help="Of the classifier.", show_default="the bundled ones")
    ] = CLASSIFIER_WEIGHTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
) -> None:
    """Print what the classifier takes photographs of known degradations for."""
    with counting("photographs", hidden=as_json) as show:
        rows = confuse(data, weights=weights, on_image=show)
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(row) for row in rows]) + "\n")
        return
    lines = [COLUMNS, ("---", "---", *["---:"] * (len(COLUMNS) - 2))]
    lines += [
        (
            *(row.name, row.degradation, row.images, *row.found.values()),
            *(row.right, row.wrong, row.by_weather, row.harmed),
        )
        for row in rows
    ]
    for line in lines:
        sys.stdout.write(f"| {' | '.join(str(cell or '') for cell in line)} |\n")


@dataclass
class Confusion:
    """What was found in the photographs of a set.

    Attributes:
        name: folder of the set.
        degradation: what they show, one of `CLASSES`.
        found: how many were taken for each of `CLASSES`.
        right: how many would have been restored with the weights for this degradation.
        wrong: how many would have been restored with those for another one.
        by_weather: how many would have been restored with `weather`.
        harmed: how many clean ones would come back with less than `UNHARMED_DB`.
    """

    name: str
    degradation: str
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    right: int = 0
    wrong: int = 0
    by_weather: int = 0
    harmed: int = 0

    @property
    def images(self) -> int:
        """Return how many photographs there are."""
        return sum(self.found.values())


def confuse(
    data: Path,
    *,
    weights: Path = CLASSIFIER_WEIGHTS,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> list[Confusion]:
    """Classify the photographs of DATA/dev, and those of DATA/real, whose folder is their label.

    Args:
        data: the folder; sets that are not there are left out.
        weights: of the classifier, by default the bundled one.
        on_image: called with (photographs done, photographs in all).

    Returns:
        One for each set and degradation; clean sides of pairs are a set of their own.

    Raises:
        DataError: if there is none of the sets.
        CheckpointError: if the weights are no classifier.
    """
    net, metadata = load_classifier(weights)
    threshold, gains = float(metadata["threshold"]), json.loads(metadata["gains"])
    photographs = [*dev_photographs(data / "dev"), *real_photographs(data / "real")]
    if not photographs:
        raise DataError(f"{data}: holds neither dev/pairs nor dev/clean nor real")
    rows: dict[tuple[str, str], Confusion] = {}
    load = functools.cache(functools.partial(Restorer, device="cpu"))
    for number, (name, degradation, read) in enumerate(photographs, 1):
        row = rows.setdefault((name, degradation), Confusion(name, degradation))
        image = read()
        told = probabilities(net, classifier_views(image))
        found = diagnose(told, threshold=threshold, gains=gains)
        row.found[found.degradation] += 1
        if found.weights == "weather":
            row.by_weather += 1
        elif found.weights is not None:
            row.right += found.weights == degradation
            row.wrong += found.weights != degradation
        if degradation == "clean" and found.weights is not None:
            row.harmed += psnr(load(found.weights)(image), image) < UNHARMED_DB
        on_image(number, len(photographs))
    return list(rows.values())


def dev_photographs(root: Path) -> Iterator[Known]:
    """Yield both sides of pairs, and clean photographs with and without synthetic snow."""
    clean = find_images(root / DEV_CLEAN) if (root / DEV_CLEAN).is_dir() else []
    for path in clean:
        yield f"dev/{DEV_CLEAN}", "clean", lambda path=path: read_bytes(path)
    for seed, path in enumerate(clean):

        def snowy(path: Path = path, seed: int = seed) -> np.ndarray:
            return degrade_pixels(read_bytes(path), task="snow", seed=seed)

        yield f"dev/{DEV_CLEAN}, synthetic snow", "snow", snowy
    for folder, layout, degradation in DEV_PAIRS:
        if not (root / "pairs" / folder).is_dir():
            continue
        pairs = find_layout_pairs(root / "pairs" / folder, layout, split="all")
        for path in dict.fromkeys(pair.degraded for pair in pairs):
            yield f"dev/pairs/{folder}", degradation, lambda path=path: read_bytes(path)
        for path in dict.fromkeys(pair.clean for pair in pairs):
            yield f"dev/pairs/{folder}, clean sides", "clean", lambda path=path: read_bytes(path)


def real_photographs(root: Path) -> Iterator[Known]:
    """Yield photographs of real degradation, of which some have two kinds at once."""
    for degradation in CLASSES:
        if (root / degradation).is_dir():
            for path in find_images(root / degradation):
                yield f"real/{degradation}", degradation, lambda path=path: read_bytes(path)


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
