"""What the damage classifier says about photographs whose damage is known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fairweather.data import degrade_pixels, find_images, find_layout_pairs, read_bytes
from fairweather.errors import DataError
from fairweather.models import DAMAGE_WEIGHTS, DAMAGES, load_damage_net
from fairweather.restoration import damage_views, diagnose, probabilities

# Folder below dev/pairs, layout, damage of the degraded sides.
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
Known = tuple[str, str, Callable[[], np.ndarray]]  # set, damage, and what reads the photograph


@dataclass
class Confusion:
    """What was found in the photographs of a set.

    Attributes:
        name: folder of the set.
        damage: what they show, one of `DAMAGES`.
        found: how many were taken for each of `DAMAGES`.
        sure_right: how many would have been restored, for this damage.
        sure_wrong: how many would have been restored, for another one.
        by_weather: how many would have been restored with `weather`, for nothing was sure but that
            there is weather of some kind.
    """

    name: str
    damage: str
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DAMAGES, 0))
    sure_right: int = 0
    sure_wrong: int = 0
    by_weather: int = 0

    @property
    def images(self) -> int:
        """How many photographs there are."""
        return sum(self.found.values())


def confuse(
    data: Path,
    *,
    weights: Path = DAMAGE_WEIGHTS,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> list[Confusion]:
    """Classifies the photographs of DATA/dev, and those of DATA/real, whose folder is their label.

    Args:
        data: the folder; sets that are not there are left out.
        weights: of the classifier, by default the bundled one.
        on_image: called with (photographs done, photographs in all).

    Returns:
        One for each set and damage; clean sides of pairs are a set of their own.

    Raises:
        DataError: if there is none of the sets.
        CheckpointError: if the weights are no classifier.
    """
    net, metadata = load_damage_net(weights)
    threshold = float(metadata["threshold"])
    photographs = [*dev_photographs(data / "dev"), *real_photographs(data / "real")]
    if not photographs:
        raise DataError(f"{data}: holds neither dev/pairs nor dev/clean nor real")
    rows: dict[tuple[str, str], Confusion] = {}
    for number, (name, damage, read) in enumerate(photographs, 1):
        row = rows.setdefault((name, damage), Confusion(name, damage))
        told = probabilities(net, damage_views(read()))
        found = diagnose(told, threshold=threshold, weights=(*DAMAGES, "weather"))
        row.found[found.damage] += 1
        if found.weights == "weather":
            row.by_weather += 1
        elif found.weights is not None:
            row.sure_right += found.damage == damage
            row.sure_wrong += found.damage != damage
        on_image(number, len(photographs))
    return list(rows.values())


def dev_photographs(root: Path) -> Iterator[Known]:
    """Both sides of pairs, clean photographs, and these under synthetic snow: it has no pairs."""
    clean = find_images(root / DEV_CLEAN) if (root / DEV_CLEAN).is_dir() else []
    for path in clean:
        yield f"dev/{DEV_CLEAN}", "clean", lambda path=path: read_bytes(path)
    for seed, path in enumerate(clean):

        def snowy(path: Path = path, seed: int = seed) -> np.ndarray:
            return degrade_pixels(read_bytes(path), task="snow", seed=seed)

        yield f"dev/{DEV_CLEAN}, synthetic snow", "snow", snowy
    for folder, layout, damage in DEV_PAIRS:
        if not (root / "pairs" / folder).is_dir():
            continue
        pairs = find_layout_pairs(root / "pairs" / folder, layout, split="all")
        for path in dict.fromkeys(pair.degraded for pair in pairs):
            yield f"dev/pairs/{folder}", damage, lambda path=path: read_bytes(path)
        for path in dict.fromkeys(pair.clean for pair in pairs):
            yield f"dev/pairs/{folder}, clean sides", "clean", lambda path=path: read_bytes(path)


def real_photographs(root: Path) -> Iterator[Known]:
    """Photographs of real damage, of which some have two kinds at once."""
    for damage in DAMAGES:
        if (root / damage).is_dir():
            for path in find_images(root / damage):
                yield f"real/{damage}", damage, lambda path=path: read_bytes(path)
