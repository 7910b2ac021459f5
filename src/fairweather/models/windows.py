"""Convolve (B, H, W, C) tensors, cut them into windows, and mask windows that wrap around."""

import torch
from torch import Tensor, nn

from fairweather.models.config import SHIFT_MASK_LOGIT


def convolve(x: Tensor, layer: nn.Module) -> Tensor:
    """Apply a convolution to (B, H, W, C); the permutations are views (channels-last memory)."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def split_into_windows(qkv: Tensor, *, heads: int, window: int) -> tuple[Tensor, ...]:
    """Cut (B, H, W, 3C) into q, k and v, each (B, rows, columns, heads, window², C / heads)."""
    batch, height, width, channels = qkv.shape
    rows, columns, size = height // window, width // window, channels // (3 * heads)
    return (
        qkv.view(batch, rows, window, columns, window, 3, heads, size)
        .permute(5, 0, 1, 3, 6, 2, 4, 7)
        .reshape(3, batch, rows, columns, heads, window**2, size)
        .unbind(0)
    )


def merge_windows(x: Tensor, *, window: int) -> Tensor:
    """Put windows (B, rows, columns, heads, window², C / heads) together: (B, H, W, C)."""
    batch, rows, columns, heads, _, size = x.shape
    return (
        x.view(batch, rows, columns, heads, window, window, size)
        .permute(0, 1, 4, 2, 5, 3, 6)
        .reshape(batch, rows * window, columns * window, heads * size)
    )


def relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each (query, key) of a window: (window², window²)."""
    axis = torch.arange(window)
    row, column = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    row_offset = row[:, None] - row[None, :] + window - 1
    column_offset = column[:, None] - column[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


def shift_masks(window: int, shift: int) -> Tensor:
    """Return what is added to the logits of windows in the last row, the last column, the corner.

    After the cyclic shift such a window holds tokens from opposite sides of the image, and each may
    attend only to tokens of its own side. (3, window², window²), 0 or −100.
    """
    wrapped = torch.arange(window) >= window - shift
    row, column = (grid.flatten() for grid in torch.meshgrid(wrapped, wrapped, indexing="ij"))
    row_differs = row[:, None] != row[None, :]
    column_differs = column[:, None] != column[None, :]
    differs = torch.stack((row_differs, column_differs, row_differs | column_differs))
    return differs * SHIFT_MASK_LOGIT


def mask_wrapped_windows(logits: Tensor, masks: Tensor) -> Tensor:
    """Add the masks to logits (B, rows, columns, …), in place except in an exported graph."""
    row_mask, column_mask, corner_mask = masks.unbind(0)
    rows, columns = logits.shape[1:3]
    if isinstance(rows, int):
        logits[:, -1, :-1] += row_mask
        logits[:, :-1, -1] += column_mask
        logits[:, -1, -1] += corner_mask
        return logits
    # torch.export, of any size: nothing may be written into a part of unknown size.
    is_last_row = (torch.arange(rows, device=masks.device) == rows - 1).view(-1, 1, 1, 1, 1)
    is_last_column = (torch.arange(columns, device=masks.device) == columns - 1).view(-1, 1, 1, 1)
    return logits + torch.minimum(is_last_row * row_mask, is_last_column * column_mask)
