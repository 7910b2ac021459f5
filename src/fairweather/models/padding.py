"""Padding to a multiple, done once for the whole network."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.errors import OptionError


def divide_up(length: int, unit: int) -> int:
    """Return how many units a length begins; −(−length // unit) would be one less when exported."""
    return (length + unit - 1) // unit


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the bottom and right to a multiple.

    By reflection, or by replication along an axis that is not longer than its padding.
    """
    height, width = image.shape[-2:]
    if not (isinstance(height, int) and isinstance(width, int)):  # torch.export, of any size
        return gather_padded(image, multiple)
    if height < 1 or width < 1:
        raise OptionError(f"the image is {height}×{width}; it needs at least one pixel")
    bottom = divide_up(height, multiple) * multiple - height
    right = divide_up(width, multiple) * multiple - width
    for padding, length in (((0, right, 0, 0), width), ((0, 0, 0, bottom), height)):
        if any(padding):
            image = F.pad(image, padding, mode="reflect" if max(padding) < length else "replicate")
    return image


def gather_padded(image: Tensor, multiple: int) -> Tensor:
    """Do the same as `pad_to_multiple`, with no branch that depends on a size."""
    for axis in (-1, -2):
        length = image.shape[axis]
        padded = divide_up(length, multiple) * multiple
        place = torch.arange(padded, device=image.device)
        # Neither abs nor clamp: OpenCV has them for floats alone.
        reflected = torch.minimum(place, 2 * (length - 1) - place)
        replicated = torch.where(place < length, place, length - 1)
        # The reflection of an axis that is not longer than its padding runs out at the start.
        index = torch.where(reflected.min() < 0, replicated, reflected)
        image = image.index_select(axis, index)
    return image
