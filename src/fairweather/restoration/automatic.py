"""`--task auto`: each photograph is restored with the weights for the damage that it has."""

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from fairweather.errors import CheckpointError
from fairweather.files import replacing
from fairweather.imaging import (
    DEFAULT_MAX_PIXELS,
    Photo,
    read_image,
    write_image,
    write_side_by_side,
)
from fairweather.models import list_weights
from fairweather.restoration.damage import (
    Diagnosis,
    as_bytes,
    bundled_net,
    classify_damage,
    diagnose,
)
from fairweather.restoration.restorer import OnTile, Restored, Restorer, refuse_existing


class AutoRestorer:
    """Restores photograph files, each with the bundled weights for its damage.

    What is clean, or not surely damaged, is written as it is.
    """

    def __init__(self, load: Callable[[str], Restorer] = Restorer):
        """Loads nothing yet.

        Args:
            load: gives a Restorer with the bundled weights of a name; called once for each.
        """
        self._load = load
        self._restorers: dict[str, Restorer] = {}

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
        """Restores a file, or copies it; arguments and errors are those of a Restorer.

        Returns:
            What was done, with the diagnosis.

        Raises:
            ImageError: if the source cannot be read or the target not be written.
            CheckpointError: if no bundled weights restore the damage.
        """
        source, target = Path(source), Path(target)
        started = time.monotonic()
        refuse_existing(target, compare, overwrite=overwrite)
        photo = read_image(source, max_pixels=max_pixels)
        found = classify_damage(as_bytes(photo.pixels))
        known = list_weights()
        diagnosis = diagnose(found, threshold=bundled_net()[1], weights=known)
        if diagnosis.weights is None:
            done = write_unchanged(photo, source, target, overwrite=overwrite, compare=compare)
        elif diagnosis.weights not in known:
            raise CheckpointError(
                f"'{source}': shows {diagnosis.damage} ({diagnosis.probability:.0%}), for which no"
                f" weights are bundled; choose others with --task ({', '.join(known)}) or --weights"
            )
        else:
            done = self._restorer(diagnosis.weights).restore_file(
                source,
                target,
                overwrite=overwrite,
                compare=compare,
                max_pixels=max_pixels,
                on_tile=on_tile,
            )
        return dataclasses.replace(
            done,
            seconds=time.monotonic() - started,
            notes=(*explain(diagnosis), *done.notes),
            diagnosis=diagnosis,
        )

    def _restorer(self, weights: str) -> Restorer:
        if weights not in self._restorers:
            self._restorers[weights] = self._load(weights)
        return self._restorers[weights]


def explain(diagnosis: Diagnosis) -> tuple[str, ...]:
    """What a user should know about a diagnosis beside the damage itself."""
    if diagnosis.weights is None and diagnosis.damage == "clean":
        return ("no damage was found, so the photograph is as it was",)
    if diagnosis.weights is None:
        return (
            f"it may be {diagnosis.damage}, but that is not sure, so the photograph is as it was;"
            " --task restores it in any case",
        )
    if diagnosis.weights != diagnosis.damage:
        return (f"restored with the weights {diagnosis.weights}",)
    return ()


def write_unchanged(
    photo: Photo, source: Path, target: Path, *, overwrite: bool, compare: Path | None
) -> Restored:
    """Copies a photograph, byte for byte unless the target's suffix asks for another format."""
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    notes = photo.notes
    if target.suffix.lower() == source.suffix.lower():
        with source.open("rb") as file, replacing(target, overwrite=overwrite) as copy:
            shutil.copyfileobj(file, copy)
        notes = ()
    else:
        notes = (*notes, *write_image(target, photo, overwrite=overwrite))
    if compare is not None:
        write_side_by_side(compare, photo, photo)
    height, width = photo.pixels.shape[:2]
    return Restored(source, target, compare, height, width, time.monotonic() - started, notes)
