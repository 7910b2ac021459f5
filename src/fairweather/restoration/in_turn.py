"""Restore a photograph by what it shows, and the result by what that still shows."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fairweather.restoration.auto import Chooser
from fairweather.restoration.outcome import Outcome

T = TypeVar("T")


def restore_in_turn(
    choose: Chooser[T], pixels: np.ndarray, restore: Callable[[T, np.ndarray], Outcome]
) -> Outcome:
    """Restore a photograph of one degradation or of two, rain in mist for example.

    Args:
        choose: finds what restores a photograph.
        pixels: (H, W, 3) RGB.
        restore: restores pixels with what was found.

    Returns:
        The result. Its diagnosis holds under `then` what was found and restored second.

    Raises:
        CheckpointError: if no bundled weights restore the degradation.
    """
    restorer, diagnosis, notes = choose(pixels)
    if restorer is None:
        return Outcome(pixels, notes, diagnosis)
    first = restore(restorer, pixels)
    notes += first.notes
    restorer, then, _ = choose(first.pixels)
    if restorer is None or then.weights == diagnosis.weights:
        return first._replace(notes=notes, diagnosis=diagnosis)
    second = restore(restorer, first.pixels)
    notes += (f"then restored with the weights {then.weights}",)
    notes += tuple(note for note in second.notes if note not in notes)
    return second._replace(
        notes=notes,
        diagnosis=dataclasses.replace(diagnosis, then=then),
        levels=max(first.levels, second.levels),
        precision=first.precision if first.precision == second.precision else None,
    )
