"""From file to file: what every way of restoring a photograph file shares."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairweather.errors import ImageError
from fairweather.files import replacing
from fairweather.imaging import (
    Photo,
    read_image,
    write_image,
    write_side_by_side,
)


@dataclass(frozen=True)
class Diagnosis:
    """What the classifier found, and what is done about it.

    Attributes:
        degradation: the most probable of `CLASSES` (`fairweather.models`).
        probability: of it.
        sure: whether that is enough to act on.
        weights: bundled weights to restore with; None leaves the photograph as it is.
    """

    degradation: str
    probability: float
    sure: bool
    weights: str | None


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


@dataclass(frozen=True)
class Outcome:
    """What became of a photo in memory.

    Attributes:
        photo: the restored one; the one that was given if it is left as it is.
        notes: sentences for the user.
        diagnosis: where the degradation was not given, but found.
        levels: how often it was halved, to be restored coarse to fine.
    """

    photo: Photo
    notes: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    levels: int = 0


def restore_file(
    process: Callable[[Photo], Outcome],
    source: Path,
    target: Path,
    *,
    overwrite: bool,
    compare: Path | None,
    max_pixels: int,
) -> Restored:
    """Read a photo, process it and write what becomes of it; see `Restorer.restore_file`."""
    started = time.monotonic()
    refuse_existing(target, compare, overwrite=overwrite)
    photo = read_image(source, max_pixels=max_pixels)
    target.parent.mkdir(parents=True, exist_ok=True)
    outcome = process(photo)
    notes = outcome.notes
    if outcome.photo is photo and target.suffix.lower() == source.suffix.lower():
        with source.open("rb") as file, replacing(target, overwrite=overwrite) as copy:
            shutil.copyfileobj(file, copy)
    else:
        notes += (*photo.notes, *write_image(target, outcome.photo, overwrite=overwrite))
    if compare is not None:
        write_side_by_side(compare, photo, outcome.photo)
    height, width = photo.pixels.shape[:2]
    return Restored(
        source,
        target,
        compare,
        height,
        width,
        time.monotonic() - started,
        notes,
        outcome.diagnosis,
        outcome.levels,
    )


def refuse_existing(*paths: Path | None, overwrite: bool) -> None:
    """Raise, before any work, an ImageError for files that may not be replaced."""
    for path in filter(None, paths):
        if path.exists() and not overwrite:
            raise ImageError(
                f"'{path}' exists already; choose another name, or allow it with --overwrite"
                " (overwrite=True)"
            )
