"""A block of AST-v2 on a CPU without gradients: in bands of rows that stay in the cache.

Its attention takes two passes over an image. The first makes queries, keys and values of a band
and sums up what the queries and keys of each head have in common; only the values are kept. The
second multiplies the values by one matrix, of the attention weights and the output layer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.models.fast.cpu_strips import linear, linear_plus, refine, share

# Modules of astv2.py, which must not be imported here: it finds this file by `dispatch`.
ChannelBlock = Any
ChannelAttention = Any

BAND_BYTES = 2 << 20  # of queries, keys and values


def run_in_bands(x: Tensor, block: ChannelBlock) -> Tensor:
    """Compute `block(x)` in evaluation mode.

    Args:
        x: (B, H, W, C) float32 on the CPU; it is overwritten if it is contiguous.
        block: with both its parts in float32.

    Returns:
        (B, H, W, C).
    """
    x = x.contiguous()
    for image in x:
        if block.attention is not None:
            attend(block.attention, block.attention_norm, image)
        feed_forward = block.feed_forward
        refine(
            feed_forward,
            block.feed_forward_norm,
            image,
            enhance=lambda rows: feed_forward.enhance(rows[None])[0],  # noqa: B023 - used at once
            activation="none",
        )
    return x


def attend(attention: ChannelAttention, norm: nn.LayerNorm, image: Tensor) -> None:
    """Add attention(norm(image)) to an image (H, W, C)."""
    height, width, channels = image.shape
    heads = attention.heads
    size = channels // heads
    value = torch.empty_like(image)
    products = image.new_zeros(heads, size, size)
    squares = image.new_zeros(2 * channels)
    rows = share(height, max(1, BAND_BYTES // (4 * width * 3 * channels)))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        qkv = project_band(attention, norm, image, top, bottom)
        value[top:bottom] = qkv[..., 2 * channels :]
        query_key = qkv[..., : 2 * channels].reshape(-1, 2 * channels)
        squares += torch.linalg.vector_norm(query_key, dim=0).square_()
        by_head = query_key.view(-1, 2, heads, size)
        for head in range(heads):
            products[head].addmm_(by_head[:, 0, head].T, by_head[:, 1, head])
    query_lengths, key_lengths = squares.sqrt_().view(2, heads, size, 1)
    weights = attention.weights(products, query_lengths, key_lengths)
    output = attention.output.weight.view(channels, heads, size).transpose(0, 1)
    matrix = (output @ weights).transpose(0, 1).reshape(channels, channels)
    mixed = nn.Linear(channels, channels, bias=False, device="meta")
    mixed.weight = nn.Parameter(matrix, requires_grad=False)
    for top in range(0, height, rows):
        band = image[top : top + rows]
        band.copy_(linear_plus(mixed, value[top : top + rows], band))


def project_band(
    attention: ChannelAttention, norm: nn.LayerNorm, image: Tensor, top: int, bottom: int
) -> Tensor:
    """Return queries, keys and values of the rows from top to bottom, (rows, W, 3C)."""
    above, below = max(0, top - 1), min(image.shape[0], bottom + 1)
    qkv = linear(attention.qkv, norm(image[above:below]))
    # Rows of zeros are needed at an edge of the image only.
    qkv = F.pad(qkv, (0, 0, 0, 0, int(above == top), int(below == bottom)))
    convolved = F.conv2d(
        qkv[None].permute(0, 3, 1, 2),
        attention.depthwise.weight,
        padding=(0, 1),
        groups=attention.depthwise.groups,
    )
    return convolved[0].permute(1, 2, 0)
