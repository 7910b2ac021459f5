"""Which damage a photograph has: its views, the bundled classifier, and what to restore it with."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fairweather.errors import ImageError
from fairweather.imaging import as_bytes, resized
from fairweather.models import DAMAGES, VIEW_PX, DamageNet, Views, load_damage_net
from fairweather.restoration.memory import from_memory

SEEN_PX = 768  # long side at which larger photographs are looked at, too
GRID = 3
WEATHER = ("rain", "raindrop", "haze", "snow")  # what the all-in-one weights restore


@dataclass(frozen=True)
class Diagnosis:
    """What the classifier found, and what is done about it.

    Attributes:
        damage: the most probable of `DAMAGES`.
        probability: of it.
        sure: whether that is enough to act on.
        weights: bundled weights to restore with; None leaves the photograph as it is.
    """

    damage: str
    probability: float
    sure: bool
    weights: str | None


def classify_damage(image: Any) -> dict[str, float]:
    """How probable each damage is, by the bundled classifier.

    A photograph is seen as a whole, scaled down to 96 × 96, and in nine crops of 96 × 96 at its
    own scale. One whose long side is over 768 px is also seen in nine crops of it at 768 px, where
    the streaks and drops of a large photograph look like those of a small one.

    Args:
        image: whatever a `Restorer` restores, except a batch.

    Returns:
        The probabilities of clean, rain, raindrop, haze, snow, shadow and moire, which sum to 1.

    Raises:
        ImageError: for a batch, or another shape, type or range.
    """
    found: list[dict[str, float]] = []

    def look(pixels: np.ndarray, *, grey: bool = False) -> np.ndarray:
        found.append(probabilities(bundled_net()[0], damage_views(as_bytes(pixels))))
        return pixels

    if isinstance(image, torch.Tensor) and image.ndim == 4:
        raise ImageError(f"cannot classify a batch of shape {tuple(image.shape)}; give one image")
    from_memory(image, look)
    return found[0]


def probabilities(net: DamageNet, views: Views) -> dict[str, float]:
    """The probability of each of `DAMAGES` for one photograph."""
    with torch.inference_mode():
        return dict(zip(DAMAGES, net(views).double().softmax(-1)[0].tolist(), strict=True))


@functools.cache
def bundled_net() -> tuple[DamageNet, float]:
    """The bundled classifier, and the probability from which it is sure."""
    net, metadata = load_damage_net()
    return net, float(metadata["threshold"])


def diagnose(found: dict[str, float], *, threshold: float, weights: Iterable[str]) -> Diagnosis:
    """Decides what to do about a photograph.

    The damage's own weights restore it, or else the all-in-one `weather` where it is weather. Where
    no damage is probable enough, but weather of some kind is, `weather` does, too. A photograph
    that is probably clean, or of which nothing is sure, has no weights.

    Args:
        found: what `classify_damage` gives.
        threshold: the probability from which a damage is sure.
        weights: names of bundled weights.

    Returns:
        The damage, and its weights. Weights that are not bundled are named, too.
    """
    bundled = set(weights)
    damage = max(found, key=found.__getitem__)
    sure = found[damage] >= threshold
    if damage == "clean":
        return Diagnosis(damage, found[damage], sure, None)
    if sure:
        by_all = damage not in bundled and damage in WEATHER and "weather" in bundled
        return Diagnosis(damage, found[damage], sure, "weather" if by_all else damage)
    is_weather = sum(found[name] for name in WEATHER) >= threshold and "weather" in bundled
    return Diagnosis(damage, found[damage], sure, "weather" if is_weather else None)


def damage_views(pixels: np.ndarray) -> Views:
    """What the classifier sees of one photograph.

    Args:
        pixels: (H, W, 3) uint8 RGB, of any size; what is smaller than a crop is mirrored outwards.

    Returns:
        A batch of one, the same for the same pixels.
    """
    height, width = pixels.shape[:2]
    scales = [pixels]
    if max(height, width) > SEEN_PX:
        scale = SEEN_PX / max(height, width)
        scales.append(resized(pixels, (round(height * scale), round(width * scale))))
    crops = [crop for image in scales for crop in grid_crops(mirrored(image))]
    small = resized(pixels, (VIEW_PX, VIEW_PX))
    images = torch.from_numpy(np.stack([*crops, small])).permute(0, 3, 1, 2).float() / 255
    return Views(images[None, :-1], images[-1:])


def grid_crops(image: np.ndarray) -> list[np.ndarray]:
    """Crops spread evenly from border to border, those at one place once."""
    rows, columns = (
        dict.fromkeys(round(i * (side - VIEW_PX) / (GRID - 1)) for i in range(GRID))
        for side in image.shape[:2]
    )
    return [image[y : y + VIEW_PX, x : x + VIEW_PX] for y in rows for x in columns]


def mirrored(image: np.ndarray) -> np.ndarray:
    """At least as large as a crop, by mirroring; of one row or column, by repeating it."""
    pad = [(0, max(0, VIEW_PX - side)) for side in image.shape[:2]]
    return np.pad(image, [*pad, (0, 0)], mode="symmetric") if any(map(any, pad)) else image
