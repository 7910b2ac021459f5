"""`--task auto`: which degradation a photograph has, and the weights that restore it."""

import functools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from fairweather.errors import CheckpointError, ImageError
from fairweather.imaging import as_bytes, resized
from fairweather.models import (
    CLASSES,
    VIEW_PX,
    DegradationClassifier,
    Views,
    list_weights,
    load_classifier,
)
from fairweather.restoration.in_memory import from_memory

SEEN_PX = 768  # long side at which larger photographs are looked at, too
GRID = 3
LEAST_GAIN_DB = 0.4  # to be expected; chosen on held-out photographs, see experiments/classifier.md

T = TypeVar("T")
Gains = Mapping[str, Mapping[str, float]]  # weights → degradation → gain in PSNR [dB]


@dataclass(frozen=True)
class Diagnosis:
    """What the classifier found, and what is done about it.

    Attributes:
        degradation: the most probable of `CLASSES` (`fairweather.models`), if the photograph is
            left as it is; if not, the most probable but for clean.
        probability: of it.
        sure: whether it is so probable that 95 % of such findings are right.
        weights: bundled weights to restore with; None leaves the photograph as it is.
        then: what the result still showed, and was restored for after that.
    """

    degradation: str
    probability: float
    sure: bool
    weights: str | None
    then: "Diagnosis | None" = None


class Chooser(Generic[T]):
    """Find what restores each photograph, and load it once for each of the bundled weights."""

    def __init__(self, load: Callable[[str], T]):
        """Load nothing yet; `load` is called once with each name of bundled weights needed."""
        self._load = load
        self._loaded: dict[str, T] = {}
        self._loading = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> tuple[T | None, Diagnosis, tuple[str, ...]]:
        """Return what restores (H, W, 3) pixels, the diagnosis, and notes for the user.

        None for a photograph that is clean, or that no weights can be expected to improve.

        Raises:
            CheckpointError: if no bundled weights restore the degradation.
        """
        found = classify_degradation(as_bytes(pixels))
        known = list_weights()
        _, threshold, gains = bundled_net()
        diagnosis = diagnose(found, threshold=threshold, gains=gains)
        if diagnosis.weights is None:
            return None, diagnosis, explain(diagnosis)
        if diagnosis.weights not in known:
            raise CheckpointError(
                f"shows {diagnosis.degradation} ({diagnosis.probability:.0%}), for which no"
                f" weights are bundled; choose others with --task ({', '.join(known)}) or --weights"
            )
        with self._loading:
            if diagnosis.weights not in self._loaded:
                self._loaded[diagnosis.weights] = self._load(diagnosis.weights)
        return self._loaded[diagnosis.weights], diagnosis, explain(diagnosis)


def explain(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Say what a user should know about a diagnosis beside the degradation itself."""
    if diagnosis.weights is None and diagnosis.degradation == "clean":
        return ("no degradation was found, so the photograph is as it was",)
    if diagnosis.weights is None:
        return (
            f"it may be {diagnosis.degradation}, but that is not sure enough to expect a gain, so"
            " the photograph is as it was; --task restores it in any case",
        )
    if diagnosis.weights != diagnosis.degradation:
        return (f"restored with the weights {diagnosis.weights}",)
    return ()


def classify_degradation(image: Any) -> dict[str, float]:
    """Return how probable each degradation is, by the bundled classifier.

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
        found.append(probabilities(bundled_net()[0], classifier_views(as_bytes(pixels))))
        return pixels

    if isinstance(image, torch.Tensor) and image.ndim == 4:
        raise ImageError(f"cannot classify a batch of shape {tuple(image.shape)}; give one image")
    from_memory(image, look)
    return found[0]


def probabilities(net: DegradationClassifier, views: Views) -> dict[str, float]:
    """Return the probability of each of `CLASSES` for one photograph."""
    with torch.inference_mode():
        return dict(zip(CLASSES, net(views).double().softmax(-1)[0].tolist(), strict=True))


@functools.cache
def bundled_net() -> tuple[DegradationClassifier, float, Gains]:
    """Return the bundled classifier, the probability from which it is sure, and what to expect."""
    net, metadata = load_classifier()
    return net, float(metadata["threshold"]), json.loads(metadata["gains"])


def diagnose(found: Mapping[str, float], *, threshold: float, gains: Gains) -> Diagnosis:
    """Decide what to do about a photograph: take the weights from which most is to be expected.

    A photograph is left as it is where less than `LEAST_GAIN_DB` is to be expected of any.

    Args:
        found: what `classify_degradation` gives.
        threshold: the probability from which a degradation is sure.
        gains: what each weights gain on average from photographs of each of `CLASSES` [dB].

    Returns:
        The degradation, and the weights.
    """
    expected = {
        name: sum(found[shown] * gain for shown, gain in each.items())
        for name, each in gains.items()
    }
    best = max(expected, key=expected.__getitem__)
    helps = expected[best] > LEAST_GAIN_DB
    possible = [shown for shown in found if shown != "clean"] if helps else list(found)
    degradation = max(possible, key=found.__getitem__)
    sure = found[degradation] >= threshold
    return Diagnosis(degradation, found[degradation], sure, best if helps else None)


def classifier_views(pixels: np.ndarray) -> Views:
    """Return what the classifier sees of one photograph.

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
    """Return crops spread evenly from border to border, those at one place once."""
    rows, columns = (
        dict.fromkeys(round(i * (side - VIEW_PX) / (GRID - 1)) for i in range(GRID))
        for side in image.shape[:2]
    )
    return [image[y : y + VIEW_PX, x : x + VIEW_PX] for y in rows for x in columns]


def mirrored(image: np.ndarray) -> np.ndarray:
    """Mirror an image outwards to the size of a crop; one row or column is repeated."""
    pad = [(0, max(0, VIEW_PX - side)) for side in image.shape[:2]]
    return np.pad(image, [*pad, (0, 0)], mode="symmetric") if any(map(any, pad)) else image
