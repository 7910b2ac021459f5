"""The two ways in which the official scripts run their model, to repeat published figures.

`Restorer` is better at both: it pads no more than it must, and its tiles leave no seam.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.errors import OptionError


def restore_square_padded(model: nn.Module, image: Tensor, *, multiple: int = 128) -> Tensor:
    """Restore as the official SPAD script does: in the middle of a black square.

    Args:
        model: (B, 3, H, W) → the same.
        image: (B, 3, H, W) in [0, 1].
        multiple: the side of the square is the next multiple of this [px].

    Returns:
        (B, 3, H, W), not clipped.
    """
    height, width = image.shape[-2:]
    side = square_side(height, width, multiple=multiple)
    top, left = (side - height) // 2, (side - width) // 2
    padding = (left, side - width - left, top, side - height - top)
    restored = model(F.pad(image, padding))
    return restored[..., top : top + height, left : left + width]


def square_side(height: int, width: int, *, multiple: int) -> int:
    """Return the side of the square into which `restore_square_padded` puts an image [px]."""
    return math.ceil(max(height, width) / multiple) * multiple


def restore_equal_tiles(
    model: nn.Module, image: Tensor, *, tile_px: int, overlap_px: int
) -> Tensor:
    """Restore as the official raindrop and haze scripts do: tiles averaged with equal weight.

    Args:
        model: (B, 3, H, W) → the same.
        image: (B, 3, H, W) in [0, 1].
        tile_px: side of a tile; 384 for AGAN, 1152 for Dense-Haze. A side that is longer than the
            image's is cut to that.
        overlap_px: overlap of neighbours; 80 for AGAN, 384 for Dense-Haze.

    Returns:
        (B, 3, H, W), not clipped.

    Raises:
        OptionError: if the overlap is not smaller than a tile.
    """
    height, width = image.shape[-2:]
    if not 0 <= overlap_px < tile_px:
        raise OptionError(f"overlap {overlap_px}: must be under the tile's {tile_px} px")
    total, count = torch.zeros_like(image), torch.zeros_like(image[:, :1])
    for top in equal_starts(height, tile_px=tile_px, overlap_px=overlap_px):
        for left in equal_starts(width, tile_px=tile_px, overlap_px=overlap_px):
            window = (..., slice(top, top + tile_px), slice(left, left + tile_px))
            total[window] += model(image[window])
            count[window] += 1
    return total / count


def equal_starts(length: int, *, tile_px: int, overlap_px: int) -> Sequence[int]:
    """Return where the official tiles start on an axis; the last one ends with it."""
    if length <= tile_px:
        return [0]
    return [*range(0, length - tile_px, tile_px - overlap_px), length - tile_px]
