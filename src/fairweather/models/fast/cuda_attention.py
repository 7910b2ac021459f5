"""Fused window attention (ASSA, section 3.2) in Triton, forward and backward.

One program works through several windows with one head. It reads queries, keys and values where the
projection left them and writes the result to the same tokens, so that windows, the cyclic shift and
the shift mask are only addresses. Logits and weights stay on chip; the backward pass computes them
again. Products take the input's type and add up in float32. `window_attention` in ast.py is the
formula.

Tested in Triton's interpreter, and compiled for compute capability 9.0; the speed on a GPU is
unmeasured.
"""

# Triton comes with CUDA builds of PyTorch only, and launches its functions as `kernel[grid](…)`.
# pyright: reportMissingImports=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false, reportOperatorIssue=false

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fairweather.models.config import SHIFT_MASK_LOGIT

# Several for each multiprocessor of the largest GPUs; more windows make longer programs. A program
# reads one head's position bias once, and backward it writes one partial gradient of it.
FORWARD_PROGRAMS = 4096
BACKWARD_PROGRAMS = 2048

_MASKED = tl.constexpr(SHIFT_MASK_LOGIT)
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _locate(window, height, width, WINDOW: tl.constexpr, SHIFT: tl.constexpr, TOKENS: tl.constexpr):
    """Locate a window's tokens in (B·H·W), and the side of the image each was shifted from."""
    token = tl.arange(0, TOKENS)
    columns = width // WINDOW
    windows = (height // WINDOW) * columns
    place = window % windows
    row = (place // columns) * WINDOW + token // WINDOW + SHIFT
    column = (place % columns) * WINDOW + token % WINDOW + SHIFT
    side = (row >= height).to(tl.int32) * 2 + (column >= width).to(tl.int32)
    row = tl.where(row >= height, row - height, row)
    column = tl.where(column >= width, column - width, column)
    # 64 bits: 8K video has more than 2^31 numbers in one projection.
    first = (window // windows).to(tl.int64) * height
    return (first + row) * width + column, side


@triton.jit
def _read_bias(bias, head, WINDOW: tl.constexpr, TOKENS: tl.constexpr):
    """Read one head's position bias; minus infinity for keys that only pad the tile."""
    token = tl.arange(0, TOKENS)
    size: tl.constexpr = WINDOW * WINDOW
    inside = (token < size)[:, None] & (token < size)[None, :]
    places = head * size * size + token[:, None] * size + token[None, :]
    tile = tl.load(bias + places, mask=inside, other=0.0).to(tl.float32)
    # Padding queries keep finite logits: a row of NaN would spread in the backward products.
    return tl.where((token < size)[None, :], tile, -float("inf"))


@triton.jit
def _logits(query, key, bias, side, scale, SHIFT: tl.constexpr, PRECISION: tl.constexpr):
    logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale + bias
    if SHIFT > 0:
        logits += tl.where(side[:, None] != side[None, :], _MASKED, 0.0)
    return logits


@triton.jit
def _branches(logits, BRANCHES: tl.constexpr):
    """Return the softmax and the ReLU of logits; a branch that is left out is only a name."""
    dense = logits
    positive = logits
    if BRANCHES != "sparse":
        # Two to the power of a sum of products: one fused multiplication, one special function.
        powers = tl.exp2(logits * _LOG2_E - (tl.max(logits, 1) * _LOG2_E)[:, None])
        dense = powers * (1.0 / tl.sum(powers, 1))[:, None]
    if BRANCHES != "dense":
        positive = tl.maximum(logits, 0.0)
    return dense, positive


@triton.jit
def _fuse(dense, positive, share, BRANCHES: tl.constexpr):
    weights = dense
    if BRANCHES == "sparse":
        weights = positive * positive
    if BRANCHES == "both":
        weights = share * dense + (1.0 - share) * (positive * positive)
    return weights


@triton.jit
def _read_window(qkv, token, place, inside, channels: tl.constexpr):
    """Read queries, keys and values of one head, each (tokens, lanes)."""
    source = qkv + token[:, None] * (3 * channels) + place
    query = tl.load(source, mask=inside, other=0.0)
    key = tl.load(source + channels, mask=inside, other=0.0)
    value = tl.load(source + 2 * channels, mask=inside, other=0.0)
    return query, key, value


@triton.jit(do_not_specialize=["windows", "per_program"])
def attention_forward(
    qkv, bias, share, out, windows, per_program, height, width, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
    BRANCHES: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Grid (heads, groups of windows)."""
    channels: tl.constexpr = HEADS * SIZE
    head = tl.program_id(0)  # neighbours share cache lines: heads lie side by side in memory
    lane = tl.arange(0, LANES)[None, :]
    place = head * SIZE + lane
    inside = (tl.arange(0, TOKENS) < WINDOW * WINDOW)[:, None] & (lane < SIZE)
    position_bias = _read_bias(bias, head, WINDOW, TOKENS)
    dense_share = 0.0
    if BRANCHES == "both":
        dense_share = tl.load(share).to(tl.float32)
    first = tl.program_id(1) * per_program
    for window in range(first, tl.minimum(first + per_program, windows)):
        token, side = _locate(window, height, width, WINDOW, SHIFT, TOKENS)
        query, key, value = _read_window(qkv, token, place, inside, channels)
        logits = _logits(query, key, position_bias, side, scale, SHIFT, PRECISION)
        dense, positive = _branches(logits, BRANCHES)
        weights = _fuse(dense, positive, dense_share, BRANCHES).to(value.dtype)
        attended = tl.dot(weights, value, input_precision=PRECISION)
        target = out + token[:, None] * channels + place
        tl.store(target, attended.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _logit_gradient(
    dense, positive, weight_gradient, share, share_gradient, BRANCHES: tl.constexpr
):
    """Return the gradients of the logits, and of the dense share as a sum for each query."""
    gradient = weight_gradient
    dense_sum = share_gradient
    if BRANCHES != "sparse":
        dense_product = dense * weight_gradient
        dense_sum = tl.sum(dense_product, 1)
        gradient = dense_product - dense * dense_sum[:, None]
    if BRANCHES != "dense":
        sparse_product = positive * weight_gradient
        if BRANCHES == "both":
            gradient = share * gradient + (2.0 - 2.0 * share) * sparse_product
            share_gradient += dense_sum - tl.sum(positive * sparse_product, 1)
        else:
            gradient = 2.0 * sparse_product
    return gradient, share_gradient


@triton.jit
def _write_window(qkv_gradient, query, key, value, token, place, inside, channels: tl.constexpr):
    """The counterpart of `_read_window`."""
    target = qkv_gradient + token[:, None] * (3 * channels) + place
    kind: tl.constexpr = qkv_gradient.dtype.element_ty
    tl.store(target, query.to(kind), mask=inside)
    tl.store(target + channels, key.to(kind), mask=inside)
    tl.store(target + 2 * channels, value.to(kind), mask=inside)


@triton.jit
def _write_parts(
    bias_parts, share_parts, bias_gradient, share_gradient, part,
    WINDOW: tl.constexpr, BRANCHES: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    token = tl.arange(0, TOKENS)
    size: tl.constexpr = WINDOW * WINDOW
    inside = (token < size)[:, None] & (token < size)[None, :]
    target = bias_parts + part.to(tl.int64) * (size * size)
    tl.store(target + token[:, None] * size + token[None, :], bias_gradient, mask=inside)
    if BRANCHES == "both":
        tl.store(share_parts + part, tl.sum(share_gradient, 0))


@triton.jit(do_not_specialize=["windows", "per_program"])
def attention_backward(
    qkv, bias, share, out_gradient, qkv_gradient, bias_parts, share_parts,
    windows, per_program, height, width, scale,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WINDOW: tl.constexpr, SHIFT: tl.constexpr,
    BRANCHES: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Grid (heads, groups of windows); each leaves a part of the bias' and the share's gradient."""
    channels: tl.constexpr = HEADS * SIZE
    head = tl.program_id(0)
    lane = tl.arange(0, LANES)[None, :]
    place = head * SIZE + lane
    inside = (tl.arange(0, TOKENS) < WINDOW * WINDOW)[:, None] & (lane < SIZE)
    position_bias = _read_bias(bias, head, WINDOW, TOKENS)
    dense_share = 0.0
    if BRANCHES == "both":
        dense_share = tl.load(share).to(tl.float32)
    bias_gradient = tl.zeros((TOKENS, TOKENS), tl.float32)
    share_gradient = tl.zeros((TOKENS,), tl.float32)
    first = tl.program_id(1) * per_program
    for window in range(first, tl.minimum(first + per_program, windows)):
        token, side = _locate(window, height, width, WINDOW, SHIFT, TOKENS)
        query, key, value = _read_window(qkv, token, place, inside, channels)
        gradient = tl.load(out_gradient + token[:, None] * channels + place, mask=inside, other=0.0)
        logits = _logits(query, key, position_bias, side, scale, SHIFT, PRECISION)
        dense, positive = _branches(logits, BRANCHES)
        weights = _fuse(dense, positive, dense_share, BRANCHES).to(value.dtype)
        to_value = tl.dot(tl.trans(weights), gradient, input_precision=PRECISION)
        to_weights = tl.dot(gradient, tl.trans(value), input_precision=PRECISION)
        to_logits, share_gradient = _logit_gradient(
            dense, positive, to_weights, dense_share, share_gradient, BRANCHES
        )
        bias_gradient += to_logits
        rounded = to_logits.to(query.dtype)
        to_query = tl.dot(rounded, key, input_precision=PRECISION) * scale
        to_key = tl.dot(tl.trans(rounded), query, input_precision=PRECISION) * scale
        _write_window(qkv_gradient, to_query, to_key, to_value, token, place, inside, channels)
    part = tl.program_id(1) * HEADS + head
    _write_parts(
        bias_parts, share_parts, bias_gradient, share_gradient, part, WINDOW, BRANCHES, TOKENS
    )


def _tile_side(length: int) -> int:
    """Matrix products on a GPU take powers of two, from 16."""
    return max(16, 1 << (length - 1).bit_length())


def launch_settings(
    kind: torch.dtype, *, channels: int, heads: int, window: int, shift: int, branches: str
) -> dict[str, Any]:
    """Return what the kernels are compiled for; the queries, keys and values are of that kind."""
    tensor_cores = kind != torch.float32 or torch.backends.cuda.matmul.fp32_precision == "tf32"
    tokens, lanes = _tile_side(window**2), _tile_side(channels // heads)
    # Chosen by the compiler's report for capability 9.0, not by time. Four warps are one warp
    # group, a tensor core's tile of 64 rows; eight would compute it twice. Without tensor cores
    # four would run out of registers, as would reading the next window ahead of its turn.
    warps = max(1, tokens // 16) * (1 if tensor_cores else 2)
    reads_ahead = tensor_cores and lanes * kind.itemsize <= 64
    return {
        "HEADS": heads,
        "SIZE": channels // heads,
        "WINDOW": window,
        "SHIFT": shift,
        "BRANCHES": branches,
        "PRECISION": "tf32" if tensor_cores else "ieee",
        "TOKENS": tokens,
        "LANES": lanes,
        "num_warps": warps,
        "num_stages": 2 if reads_ahead else 1,
    }


def _launch(
    qkv: Tensor, programs: int, *, heads: int, window: int, **options: Any
) -> tuple[tuple[int, int], tuple[int | float, ...], dict[str, Any]]:
    """Return the grid of about so many programs, the kernels' numbers, and their settings."""
    batch, height, width, channels = *qkv.shape[:-1], qkv.shape[-1] // 3
    settings = launch_settings(qkv.dtype, channels=channels, heads=heads, window=window, **options)
    windows = batch * (height // window) * (width // window)
    per_program = math.ceil(windows * heads / programs)
    numbers = windows, per_program, height, width, (channels // heads) ** -0.5
    return (heads, math.ceil(windows / per_program)), numbers, settings


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, dense_share: Tensor | None, options: dict[str, Any]
    ) -> Tensor:
        qkv, bias = qkv.contiguous(), bias.contiguous()
        ctx.save_for_backward(qkv, bias, dense_share)
        ctx.options = options
        grid, numbers, settings = _launch(qkv, FORWARD_PROGRAMS, **options)
        share = qkv if dense_share is None else dense_share  # not read if there is one branch
        out = qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)
        with torch.cuda.device_of(qkv):
            attention_forward[grid](qkv, bias, share, out, *numbers, **settings)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, bias, dense_share = ctx.saved_tensors
        grid, numbers, settings = _launch(qkv, BACKWARD_PROGRAMS, **ctx.options)
        share = qkv if dense_share is None else dense_share
        qkv_gradient = torch.empty_like(qkv)
        # Parts that are added up afterwards: atomic additions would not always give the same bits.
        bias_parts = bias.new_empty(grid[1], *bias.shape, dtype=torch.float32)
        share_parts = bias.new_zeros(grid[1], ctx.options["heads"], dtype=torch.float32)
        parts = qkv_gradient, bias_parts, share_parts
        with torch.cuda.device_of(qkv):
            attention_backward[grid](
                qkv, bias, share, gradients[0].contiguous(), *parts, *numbers, **settings
            )
        to_share = None if dense_share is None else share_parts.sum().to(dense_share.dtype)
        return qkv_gradient, bias_parts.sum(0).to(bias.dtype), to_share, None


def fused_window_attention(
    qkv: Tensor,
    bias: Tensor,
    dense_share: Tensor | None,
    *,
    heads: int,
    window: int,
    shift: int,
    branches: str,
) -> Tensor:
    """Compute `window_attention` of ast.py behind the projection: (B, H, W, 3C) → (B, H, W, C)."""
    options = {"heads": heads, "window": window, "shift": shift, "branches": branches}
    return _WindowAttention.apply(qkv, bias, dense_share, options)
