"""`--task auto`: each photograph is restored with the weights for the damage that it has."""

from collections.abc import Callable

from fairweather.errors import CheckpointError
from fairweather.imaging import Photo, as_bytes
from fairweather.models import list_weights
from fairweather.restoration.damage import (
    Diagnosis,
    bundled_net,
    classify_damage,
    diagnose,
)
from fairweather.restoration.files import FileRestorer, OnTile, Outcome
from fairweather.restoration.restorer import Restorer


class AutoRestorer(FileRestorer):
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

    def process_photo(self, photo: Photo, *, on_tile: OnTile | None = None) -> Outcome:
        """Restores a photo that was read with `read_image`, or gives it back as it is.

        Raises:
            CheckpointError: if no bundled weights restore the damage.
        """
        found = classify_damage(as_bytes(photo.pixels))
        known = list_weights()
        diagnosis = diagnose(found, threshold=bundled_net()[1], weights=known)
        notes = explain(diagnosis)
        if diagnosis.weights is None:
            return Outcome(photo, notes, diagnosis)
        if diagnosis.weights not in known:
            raise CheckpointError(
                f"shows {diagnosis.damage} ({diagnosis.probability:.0%}), for which no weights are"
                f" bundled; choose others with --task ({', '.join(known)}) or --weights"
            )
        restored = self._restorer(diagnosis.weights).restore_photo(photo, on_tile=on_tile)
        return Outcome(restored, notes, diagnosis)

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
