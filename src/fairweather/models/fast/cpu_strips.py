"""A block on a CPU without gradients: in strips and tiles that stay in the cache.

Plain PyTorch spends more than half of a block's time outside of matrix products. Here oneDNN's
linear layers apply the GELU or add the residual while their output is still in a register, windows
are cut out once for both linear layers of the attention, logits become attention weights in place,
and no intermediate tensor is larger than a band of rows, however large the image. The numbers are
those of the plain path up to rounding.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Modules of ast.py, which must not be imported here: it finds this file by `dispatch`.
Block = Any
FeatureRefinement = Any
WindowAttention = Any

Module = TypeVar("Module", bound=nn.Module)

WINDOWS_IN_STRIP = 64
BAND_BYTES = 8 << 20  # of normalised rows
TILE_BYTES = 2 << 20  # of one of the feed-forward network's tensors
TILE_TOKENS = 1024  # at least: a call costs 20 µs, and products of few rows are slow
DTYPES = (torch.float32, torch.bfloat16)
REACH = 2  # rows: what the partial and the depthwise convolution reach together

onednn: Any = torch.ops.mkldnn


# Its layers that also apply what follows them.
HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(onednn, name) for name in ("_linear_pointwise", "_convolution_pointwise")
)


def runs_here(x: Tensor) -> bool:
    """Return whether what is computed of a tensor like x, on the CPU, has a backend."""
    return HAS_ONEDNN and x.dtype in DTYPES and not torch.is_grad_enabled()


def runs_in_strips(block: Block) -> bool:
    """Return whether a block can be computed this way: in the types that its layers have."""
    if block.training or not hasattr(block.feed_forward, "partial"):  # it is no FRFN
        return False
    dtype = block.feed_forward.expand.weight.dtype
    return dtype == torch.bfloat16 or not torch.is_autocast_enabled("cpu")


def multiplies_in_bf16() -> bool:
    """Return whether oneDNN's layers take bf16 on this processor, as `multiply_in_bf16` needs."""
    return HAS_ONEDNN and onednn._is_mkldnn_bf16_supported()


def multiply_in_bf16(model: Module) -> Module:
    """Return a copy of an AST whose blocks multiply in bf16 and add up in fp32, on a CPU.

    Norms, biases of positions and what the blocks are added to stay in fp32. The layers outside of
    blocks are left to autocast, and so is a block that does not run in strips.
    """
    model = copy.deepcopy(model)
    for block in model.modules():
        if hasattr(block, "feed_forward"):
            for layer in block.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.to(torch.bfloat16)
    return model


def needed_sides(
    x: Tensor, decoder: nn.ModuleList, *, height: int, width: int
) -> list[tuple[int, int]]:
    """Return the rows and columns of each decoder stage that height × width pixels depend on.

    Around the image lies padding. The encoder and the bottleneck need all of it; a block of the
    decoder reaches only so far.
    """
    sides: list[tuple[int, int]] = []
    rows, columns = height + 1, width + 1  # the last convolution reaches one pixel
    for stage in reversed(decoder):
        rows, columns = needed_length(stage, rows), needed_length(stage, columns)
        sides.append((rows, columns))
        rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
    return sides[::-1]


def needed_length(stage: nn.Module, length: int) -> int:
    """Return how many rows a stage must be given for `length` right ones: whole windows."""
    window, blocks = 1, list[Any](stage.children())
    for block in reversed(blocks):
        window, shift = block.attention.window, block.attention.shift
        length = math.ceil((length + REACH - shift) / window) * window + shift
    return math.ceil(length / window) * window


def run_in_strips(x: Tensor, block: Block) -> Tensor:
    """Compute `block(x)` in evaluation mode.

    Args:
        x: (B, H, W, C) float32 on the CPU; it is overwritten if it is contiguous.
        block: one whose feed-forward network is an FRFN.

    Returns:
        (B, H, W, C).
    """
    x = x.float().contiguous()  # the residual; behind a convolution under autocast it is not
    for image in x:
        if block.attention is not None:
            attend(block.attention, block.attention_norm, image)
        enhance = functools.partial(convolve_quarter, block.feed_forward.partial)
        refine(block.feed_forward, block.feed_forward_norm, image, enhance=enhance)
    return x


def attend(attention: WindowAttention, norm: nn.LayerNorm, image: Tensor) -> None:
    """Add attention(norm(image)) to an image (H, W, C), some rows of windows at a time.

    A strip reads and writes the same rows, so no other strip misses what it overwrites.
    """
    height, width, channels = image.shape
    window, shift = attention.window, attention.shift
    rows, columns = height // window, width // window
    step = max(1, WINDOWS_IN_STRIP // columns)
    for first in range(0, rows, step):
        last = min(rows, first + step)
        top, bottom = first * window + shift, last * window + shift
        strip = image[top:bottom]
        if bottom > height:  # the last windows go on at the top of the image
            strip = torch.cat((strip, image[: bottom - height]))
        if shift:
            strip = torch.roll(strip, -shift, dims=1)
        windows = strip.view(-1, window, columns, window, channels)
        windows = windows.transpose(1, 2).reshape(-1, window**2, channels)
        qkv = linear(attention.qkv, norm(windows).to(attention.qkv.weight.dtype))
        attended = attend_strip(attention, qkv, columns=columns, is_last=last == rows)
        merged = linear_plus(attention.output, attended, windows)
        merged = merged.view(-1, columns, window, window, channels).transpose(1, 2)
        if not shift:
            strip.view(-1, window, columns, window, channels).copy_(merged)
            continue
        merged = torch.roll(merged.reshape(-1, width, channels), shift, dims=1)
        image[top:bottom] = merged[: height - top]
        if bottom > height:
            image[: bottom - height] = merged[height - top :]


def attend_strip(attention: WindowAttention, qkv: Tensor, *, columns: int, is_last: bool) -> Tensor:
    """Attend within windows: q, k and v (windows, window², 3C) → (windows, window², C).

    Args:
        attention: its bias, masks and branches.
        qkv: of some rows of windows.
        columns: windows in a row.
        is_last: whether the last row is the image's.
    """
    count, tokens, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    size = channels // attention.heads
    query, key, value = qkv.view(count, tokens, 3, attention.heads, size).unbind(2)
    bias, share, masks = attention.position_bias(), attention.dense_share(), attention.shift_masks
    attended = qkv.new_empty(count, tokens, attention.heads, size)
    for head in range(attention.heads):
        logits = torch.baddbmm(
            bias[head].to(qkv.dtype), query[:, :, head], key[:, :, head].mT, alpha=size**-0.5
        )
        if masks is not None:
            row_mask, column_mask, corner_mask = masks
            by_row = logits.view(-1, columns, tokens, tokens)
            inner = by_row[:-1] if is_last else by_row
            inner[:, -1] += column_mask
            if is_last:
                by_row[-1, :-1] += row_mask
                by_row[-1, -1] += corner_mask
        weights = fuse_in_place(logits, share, branches=attention.branches)
        attended[:, :, head] = torch.bmm(weights, value[:, :, head])
    return attended.view(count, tokens, channels)


def fuse_in_place(logits: Tensor, dense_share: Tensor | None, *, branches: str) -> Tensor:
    """Fuse the branches in the memory of the logits (…, queries, keys)."""
    if branches == "sparse":
        return logits.relu_().square_()
    dense = logits.softmax(-1)
    if branches == "dense" or dense_share is None:
        return dense
    return torch.lerp(logits.relu_().square_(), dense, dense_share, out=dense)


def refine(
    frfn: FeatureRefinement,
    norm: nn.LayerNorm,
    image: Tensor,
    *,
    enhance: Callable[[Tensor], Tensor],
    activation: str = "gelu",
) -> None:
    """Add frfn(norm(image)) to an image (H, W, C), a band of rows at a time.

    Args:
        frfn: its layers.
        norm: what comes before it.
        image: it is overwritten.
        enhance: what comes before `expand`, of rows (H, W, C), which it may overwrite.
        activation: behind each half of `expand` and behind `depthwise`, `gelu` or `none`.
    """
    height, width, channels = image.shape
    step = share(height, max(REACH, BAND_BYTES // (4 * width * channels)))
    before = image[:0]
    for top in range(0, height, step):
        bottom = min(height, top + step)
        start = max(0, top - REACH)
        above = image[start:top]
        after = above.clone()
        above.copy_(before)  # for as long as they are read
        x = norm(image[start : bottom + REACH]).to(frfn.expand.weight.dtype)
        above.copy_(after)
        before = image[bottom - REACH : bottom].clone()
        margin = min(1, top)  # of what the partial convolution gives, one row is kept on each side
        x = enhance(x)[top - start - margin :][: margin + bottom - top + 1]
        refine_band(frfn, x[None], image[None, top:bottom], margin=margin, activation=activation)


def convolve_quarter(partial: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply the partial convolution to x (H, W, C), in its memory."""
    quarter = partial.in_channels
    convolved = F.conv2d(x[None, ..., :quarter].permute(0, 3, 1, 2), partial.weight, padding=1)
    x[..., :quarter] = convolved[0].permute(1, 2, 0)
    return x


def refine_band(
    frfn: FeatureRefinement, x: Tensor, image: Tensor, *, margin: int, activation: str
) -> None:
    """Add what follows the partial convolution to a band of rows, tile by tile.

    Args:
        frfn: its layers.
        x: behind the partial convolution, (1, margin + H or one row more, W, C).
        image: the band, (1, H, W, C).
        margin: rows of x above the band.
        activation: as for `refine`.
    """
    height, width = image.shape[1:3]
    rows, columns = tile_sides(height, width, frfn.depthwise.in_channels)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        lines = slice(top + margin, bottom + margin)
        for left in range(0, width, columns):
            place = slice(left, min(width, left + columns))
            tile = image[:, top:bottom, place]
            refine_tile(frfn, x, tile, lines, place, activation=activation)


def tile_sides(height: int, width: int, channels: int) -> tuple[int, int]:
    """Return the rows and columns of a tile [tokens].

    What the depthwise convolution reaches beyond a tile is computed twice, so strips of a wide
    image, which are of few rows, would be a third more work. Where the image is narrow a tile is as
    wide as it is: its rows then lie together, and need no copy.
    """
    tokens = max(TILE_TOKENS, TILE_BYTES // (4 * channels))
    side = math.isqrt(tokens)
    columns = width if width <= 4 * side else share(width, 2 * side)
    return share(height, max(1, tokens // columns)), columns


def share(length: int, most: int) -> int:
    """Return the length of equally long pieces, none of them longer than `most`."""
    return math.ceil(length / math.ceil(length / most))


def refine_tile(
    frfn: FeatureRefinement,
    x: Tensor,
    tile: Tensor,
    rows: slice,
    columns: slice,
    *,
    activation: str,
) -> None:
    """Add what follows the partial convolution to a tile of an image.

    Args:
        frfn: its layers.
        x: behind the partial convolution, (1, H, W, C); what lies around the tile is read too.
        tile: (1, rows, columns, C).
        rows: where the tile lies in x.
        columns: the same.
        activation: as for `refine`.
    """
    depthwise, expand, then = frfn.depthwise, frfn.expand, (activation, [], "none")
    weight, gate_weight = expand.weight.chunk(2)
    bias, gate_bias = (None, None) if expand.bias is None else expand.bias.chunk(2)
    above, left = max(0, rows.start - 1), max(0, columns.start - 1)
    reached = x[:, above : rows.stop + 1, left : columns.stop + 1]  # by the convolution
    # Zeros are needed at an edge of the image only; elsewhere they would be worked on in vain.
    row_padding = int(reached.shape[1] < rows.stop - rows.start + 2)
    column_padding = int(reached.shape[2] < columns.stop - columns.start + 2)
    local = onednn._linear_pointwise(reached, weight, bias, *then)
    local = onednn._convolution_pointwise(
        local.permute(0, 3, 1, 2),
        depthwise.weight,
        depthwise.bias,
        [row_padding, column_padding],
        *([1, 1], [1, 1], depthwise.groups),  # stride, dilation, groups
        *then,
    ).permute(0, 2, 3, 1)
    if row_padding:
        local = local[:, rows.start - above : rows.stop - above]
    if column_padding:
        local = local[:, :, columns.start - left : columns.stop - left]
    gate = onednn._linear_pointwise(x[:, rows, columns], gate_weight, gate_bias, *then)
    tile.add_(linear(frfn.project, gate.mul_(local)))


def convolve_to_image(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Apply a 3 × 3 convolution to few channels.

    oneDNN computes 16 channels where there are 3. So one convolution gives four pixels at a time.

    Args:
        x: (B, H, W, C), H and W even.
        layer: its padding is 1.

    Returns:
        (B, channels, H, W).
    """
    channels = layer.out_channels
    weight = layer.weight.new_zeros(channels, 2, 2, layer.in_channels, 4, 4)
    for row in range(2):
        for column in range(2):
            weight[:, row, column, :, row : row + 3, column : column + 3] = layer.weight
    bias = None if layer.bias is None else layer.bias.repeat_interleave(4)
    four = F.conv2d(x.permute(0, 3, 1, 2), weight.flatten(0, 2), bias, stride=2, padding=1)
    return F.pixel_shuffle(four, 2)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Compute layer(x); oneDNN is faster than the BLAS where there are few channels."""
    return onednn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "none")


def linear_plus(layer: nn.Linear, x: Tensor, residual: Tensor) -> Tensor:
    """Compute layer(x) + residual."""
    if x.dtype != residual.dtype:
        return residual + linear(layer, x)
    return onednn._linear_pointwise.binary(x, residual, layer.weight, layer.bias, "add")
