"""What restoring gave."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairweather.restoration.auto import Diagnosis
from fairweather.restoration.shots import RestoredClip


@dataclass(frozen=True)
class Restored:
    """What restoring a file gave: where it was written, how long it took, what to tell the user."""

    source: Path
    target: Path
    compare: Path | None
    height: int
    width: int
    seconds: float
    notes: tuple[str, ...]
    diagnosis: Diagnosis | None = None  # where the degradation was not given, but found
    levels: int = 0  # how often the photograph was halved, to be restored coarse to fine
    frames: int | None = None  # of a clip
    precision: str | None = None  # in which the network computed; None if in none, or in several

    @classmethod
    def of_clip(
        cls, source: Path, target: Path, made: RestoredClip, *, started: float, precision: str
    ) -> "Restored":
        """Return what restoring a clip gave that was begun at a time of `time.monotonic`."""
        seconds = time.monotonic() - started
        size = (made.height, made.width)
        known = None if precision == "auto" else precision
        return cls(
            source, target, None, *size, seconds, made.notes, frames=made.frames, precision=known
        )


class Outcome(NamedTuple):
    """Restored pixels, or those that were given if they are left as they are; see `Restored`."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    levels: int = 0
    precision: str | None = None
