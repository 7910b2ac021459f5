"""Restore one file after another with the same weights, which are loaded once."""

import functools
import logging
from pathlib import Path

from fairweather.models import find_weights
from fairweather.restoration.outcome import Restored
from fairweather.restoration.restorer import AUTO, Restorer

log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=2)
def cached_restorer(weights: str | Path, device: str, *, engine: str, changed_ns: int) -> Restorer:
    """Keep Restorers for `restore`: a loop over files loads weights once, and again if changed."""
    log.debug("loading %s of %d", weights, changed_ns)
    return Restorer(weights, device=device, engine=engine)


def restore(
    source: str | Path,
    target: str | Path,
    *,
    weights: str | Path = "rain",
    device: str = "auto",
    engine: str = "auto",
    overwrite: bool = False,
) -> Restored:
    """Restore a photograph file with bundled or given weights.

    Args:
        source: an image file.
        target: where to write the restored one; its suffix decides the format.
        weights: as for `Restorer`.
        device: as for `Restorer`.
        engine: as for `Restorer`.
        overwrite: whether a file at the target may be replaced.

    Raises:
        ImageError: if the source cannot be read or the target not be written.
        CheckpointError: if the weights cannot be loaded, or none are bundled for the degradation
            that `auto` finds.
    """
    path = AUTO if weights == AUTO else find_weights(weights)
    changed_ns = path.stat().st_mtime_ns if isinstance(path, Path) else 0
    restorer = cached_restorer(path, device, engine=engine, changed_ns=changed_ns)
    return restorer.restore_file(source, target, overwrite=overwrite)
