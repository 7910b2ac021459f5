"""What no weights could do, and no file may become, refused before any work."""

from pathlib import Path
from typing import Any, Literal

from fairweather.errors import TAKEN, FileTakenError, OptionError
from fairweather.models import overlap_px as needed_overlap_px
from fairweather.restoration.engines import Engine
from fairweather.restoration.finishing import list_finishes
from fairweather.restoration.scales import MOST_LEVELS, Levels
from fairweather.restoration.tiled import smallest_tile_px

MOST_TILE_PX = {"cpu": 512}  # larger tiles gain nothing on a CPU and take longer to show progress
Existing = Literal["refuse", "skip", "overwrite"]
TilePx = int | Literal["auto"] | None


def refuse_existing(*paths: Path | None, overwrite: bool) -> None:
    """Raise, before any work, an ImageError for files that may not be replaced."""
    for path in filter(None, paths):
        if path.exists() and not overwrite:
            raise FileTakenError(f"'{path}' {TAKEN}")


def check_options(*, tile: TilePx, overlap_px: int | None, batch: int | None) -> None:
    """Refuse options that no weights could have."""
    if isinstance(tile, str) and tile != "auto":
        raise OptionError(f"tile {tile!r}: is neither a number of pixels, 'auto' nor None")
    if overlap_px is not None and overlap_px < 0:
        raise OptionError(f"overlap_px {overlap_px}: must not be negative")
    if batch is not None and batch < 1:
        raise OptionError(f"batch {batch}: must be at least 1")


def check_changes(
    *,
    strength: float = 1.0,
    levels: Levels = "auto",
    finish: str | None = None,
    fast: bool = False,
    self_ensemble: bool = False,
    **others: Any,
) -> None:
    """Refuse values of options that do not depend on the weights, and other options."""
    if others:
        raise OptionError(f"{min(others)}: is chosen when a Restorer is made")
    if not 0 <= strength <= 1:
        raise OptionError(f"strength {strength}: must lie in [0, 1]")
    if levels != "auto" and (isinstance(levels, str) or not 0 <= levels <= MOST_LEVELS):
        raise OptionError(
            f"levels {levels!r}: is neither 'auto' nor a number from 0 to {MOST_LEVELS}"
        )
    if finish is not None and finish not in list_finishes():
        raise OptionError(f"finish {finish!r}: is none of {', '.join(list_finishes())}")
    if not isinstance(fast, bool) or not isinstance(self_ensemble, bool):
        raise OptionError("fast and self_ensemble: are True or False")


def pick_tiles(
    tile: TilePx,
    engine: Engine,
    *,
    batch: int,
    overlap_px: int | None,
    budget_bytes: int | None,
) -> tuple[int | None, int]:
    """Return the side of the tiles that a call begins with, None for one tile, and their overlap.

    Args:
        tile: what is asked for [px].
        engine: what runs the network.
        batch: tiles at a time.
        overlap_px: how far tiles have to overlap; None is as far as the network needs it.
        budget_bytes: what those may take that are computed at once.

    Raises:
        OptionError: if a tile would have no core between its overlaps.
    """
    multiple = engine.config.size_multiple
    side = tile if isinstance(tile, int) else None
    needed_px = needed_overlap_px(engine.config, tile_px=side) if overlap_px is None else overlap_px
    smallest_px = smallest_tile_px(overlap_px=needed_px, multiple=multiple)
    if isinstance(tile, str):
        batch_bytes_per_px = engine.bytes_per_px * batch * engine.at_once()
        budget_bytes = budget_bytes or engine.free_bytes()
        side = int((budget_bytes / batch_bytes_per_px) ** 0.5) // multiple * multiple
        most_px = MOST_TILE_PX.get(engine.device.type, 1024)
        side = max(min(side, max(most_px, 2 * smallest_px)), smallest_px)
    elif side is not None:
        least_px = multiple if overlap_px is None else overlap_px
        refused_px = smallest_tile_px(overlap_px=least_px, multiple=multiple)
        if side < refused_px:
            raise OptionError(
                f"tile {side}: needs at least {refused_px} px for these weights and an overlap"
                f" of {least_px} px"
            )
        side = max(side, smallest_px)
    if overlap_px is None and side is not None:
        needed_px = min(needed_overlap_px(engine.config, tile_px=side), side // 2)
    return side, needed_px
