"""From file to file: what every way of restoring a photograph file shares."""

import abc
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairweather.errors import ImageError
from fairweather.files import replacing
from fairweather.imaging import (
    DEFAULT_MAX_PIXELS,
    Photo,
    read_image,
    write_image,
    write_side_by_side,
)

OnTile = Callable[[int, int], None]


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


@dataclass(frozen=True)
class Outcome:
    """What became of a photo in memory.

    Attributes:
        photo: the restored one; the one that was given if it is left as it is.
        notes: sentences for the user.
        diagnosis: where the degradation was not given, but found.
    """

    photo: Photo
    notes: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None


class FileRestorer(abc.ABC):
    """Restores files by way of `process_photo`."""

    @abc.abstractmethod
    def process_photo(self, photo: Photo, *, on_tile: OnTile | None = None) -> Outcome:
        """Restores a photo that was read with `read_image`, or gives it back as it is."""

    def restore_file(
        self,
        source: str | Path,
        target: str | Path,
        *,
        overwrite: bool = False,
        compare: Path | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        on_tile: OnTile | None = None,
    ) -> Restored:
        """Restores a file; the target appears whole or not at all, in a folder made if need be.

        A photograph that is left as it is becomes a copy, byte for byte unless the target's suffix
        asks for another format.

        Args:
            source: an image file.
            target: where to write; its suffix decides the format.
            overwrite: whether files at `target` and `compare` may be replaced.
            compare: where to write input and result side by side, if anywhere.
            max_pixels: larger images are refused.
            on_tile: called with (tiles done, tiles in all).

        Raises:
            ImageError: if the source cannot be read or the target not be written.
            CheckpointError: if weights are chosen by the degradation, and none are bundled for it.
        """
        source, target = Path(source), Path(target)
        started = time.monotonic()
        refuse_existing(target, compare, overwrite=overwrite)
        photo = read_image(source, max_pixels=max_pixels)
        target.parent.mkdir(parents=True, exist_ok=True)
        outcome = self.process_photo(photo, on_tile=on_tile)
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
        )


def refuse_existing(*paths: Path | None, overwrite: bool) -> None:
    """Before any work: raises an ImageError for files that may not be replaced."""
    for path in filter(None, paths):
        if path.exists() and not overwrite:
            raise ImageError(
                f"'{path}' exists already; choose another name, or allow it with --overwrite"
                " (overwrite=True)"
            )
