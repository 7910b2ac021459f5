"""What no weights could do, and no file may become, refused before any work."""

from pathlib import Path
from typing import Literal

from fairweather.errors import FileTakenError, OptionError
from fairweather.restoration.scales import MOST_LEVELS, Levels

Existing = Literal["refuse", "skip", "overwrite"]
TilePx = int | Literal["auto"] | None


def refuse_existing(*paths: Path | None, overwrite: bool) -> None:
    """Raise, before any work, an ImageError for files that may not be replaced."""
    for path in filter(None, paths):
        if path.exists() and not overwrite:
            raise FileTakenError(
                f"'{path}' exists already; choose another name, or allow it with --overwrite"
                " (overwrite=True)"
            )


def check_options(
    *,
    tile: TilePx,
    overlap_px: int | None,
    batch: int | None,
    strength: float,
    levels: Levels,
) -> None:
    """Refuse options that no weights could have."""
    if not 0 <= strength <= 1:
        raise OptionError(f"strength {strength}: must lie in [0, 1]")
    if levels != "auto" and (isinstance(levels, str) or not 0 <= levels <= MOST_LEVELS):
        raise OptionError(
            f"levels {levels!r}: is neither 'auto' nor a number from 0 to {MOST_LEVELS}"
        )
    if isinstance(tile, str) and tile != "auto":
        raise OptionError(f"tile {tile!r}: is neither a number of pixels, 'auto' nor None")
    if overlap_px is not None and overlap_px < 0:
        raise OptionError(f"overlap_px {overlap_px}: must not be negative")
    if batch is not None and batch < 1:
        raise OptionError(f"batch {batch}: must be at least 1")
