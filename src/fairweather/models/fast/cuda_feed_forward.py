"""The middle of the feed-forward network (FRFN, section 3.3) in Triton, forward and backward.

GELU, a depthwise 3×3 convolution, GELU and the gate in one pass over (B, H, W, C): a program walks
down a strip of rows, so that each number comes about once from memory and goes through GELU three
times instead of nine. The backward pass keeps nothing but the input: one kernel computes the
convolution again and the gradients behind it, a second one brings them back through the
convolution. `gated_depthwise` in ast.py is the formula.

Tested in Triton's interpreter, and compiled for compute capability 9.0; the speed on a GPU is
unmeasured.
"""

# Triton comes with CUDA builds of PyTorch only, and launches its functions as `kernel[grid](…)`.
# pyright: reportMissingImports=false, reportIndexIssue=false, reportGeneralTypeIssues=false

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

FORWARD_ROWS = 16  # of a strip; the rows above and below it are read and go through GELU twice
BACKWARD_ROWS = 32  # longer, since each strip leaves a partial gradient of the filters
TILE = 512  # numbers in one row of a strip: four for each thread, 8 bytes of bfloat16
WARPS = 4

_NORMAL_DENSITY = tl.constexpr(0.3989422804014327)  # 1 / √(2π)
_HALF_LOG2_E = tl.constexpr(0.7213475204444817)


@triton.jit
def _tail(x):
    """Φ(−|x|), the normal distribution's tail, as two to the power of a fitted polynomial.

    GELU and not memory would limit these kernels: this takes a third of the instructions of erf.
    GELU by it is within 3e-7 of the exact one in float32, closer than by 1 + erf, which cancels.
    """
    a = tl.abs(x)
    power = a * -1.991902763620601e-06 + 2.927205787273124e-05
    power = power * a - 0.00013808855146635324
    power = power * a - 0.0002534356899559498
    power = power * a + 0.007216388359665871
    power = power * a - 0.05260304734110832
    power = power * a - 0.45917221903800964
    power = power * a - 1.1511096954345703
    return tl.exp2(power * a - 0.9999998807907104)


@triton.jit
def _gelu(x):
    return tl.maximum(x, 0.0) - tl.abs(x) * _tail(x)


@triton.jit
def _gelu_and_slope(x):
    tail = _tail(x)
    below = tl.where(x > 0, 1.0 - tail, tail)
    slope = below + x * tl.exp2(x * x * -_HALF_LOG2_E) * _NORMAL_DENSITY
    return tl.maximum(x, 0.0) - tl.abs(x) * tail, slope


@triton.jit
def _read(image, row, column, channel, height, width, STRIDE: tl.constexpr, HIDDEN: tl.constexpr):
    """(columns, channels) of one row in float32; zero outside, which is how images are padded."""
    inside = ((row >= 0) & (row < height) & (column >= 0) & (column < width))[:, None]
    inside = inside & (channel < HIDDEN)[None, :]
    line = image + row.to(tl.int64) * width * STRIDE
    places = column[:, None] * STRIDE + channel[None, :]
    return tl.load(line + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _write(
    image, values, row, column, channel, height, width, STRIDE: tl.constexpr, HIDDEN: tl.constexpr
):
    """The counterpart of `_read`; nothing outside."""
    inside = ((row >= 0) & (row < height) & (column < width))[:, None]
    inside = inside & (channel < HIDDEN)[None, :]
    line = image + row.to(tl.int64) * width * STRIDE
    places = column[:, None] * STRIDE + channel[None, :]
    tl.store(line + places, values.to(image.dtype.element_ty), mask=inside)


@triton.jit
def _read_filters(weight, channel, HIDDEN: tl.constexpr):
    """The nine taps of each channel from (hidden, 3, 3), each (1, channels)."""
    first = weight + channel[None, :] * 9
    known = (channel < HIDDEN)[None, :]
    return (
        tl.load(first, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 1, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 2, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 3, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 4, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 5, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 6, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 7, mask=known, other=0.0).to(tl.float32),
        tl.load(first + 8, mask=known, other=0.0).to(tl.float32),
    )


@triton.jit
def _strip(height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return this program's strip; the grid is (channels, columns, images × strips of rows).

    How many pixels lie before its image, its first row, its columns and its channels.
    """
    strips = tl.cdiv(height, ROWS)
    before = (tl.program_id(2) // strips).to(tl.int64) * height * width
    row = tl.program_id(2) % strips * ROWS
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    return before, row, column, channel


@triton.jit
def _start_convolution(
    weight, bias, channel, HIDDEN: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr
):
    """The filters, their bias, and the sums of no row yet."""
    taps = _read_filters(weight, channel, HIDDEN)
    offset = tl.load(bias + channel, mask=channel < HIDDEN, other=0.0).to(tl.float32)[None, :]
    return taps, offset, tl.zeros((COLUMNS, CHANNELS), tl.float32)


@triton.jit
def _convolve_next_row(
    image, row, column, channel, height, width, taps, upper, lower,
    STRIDE: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """Add a row of GELU to the three rows of the convolution that see it.

    `upper` and `lower` are the sums so far of the row above and of the row itself; returns the sums
    of the row above, now complete, of the row itself and of the row below.
    """
    left = _gelu(_read(image, row, column - 1, channel, height, width, STRIDE, HIDDEN))
    middle = _gelu(_read(image, row, column, channel, height, width, STRIDE, HIDDEN))
    right = _gelu(_read(image, row, column + 1, channel, height, width, STRIDE, HIDDEN))
    complete = upper + left * taps[6] + middle * taps[7] + right * taps[8]
    upper = lower + left * taps[3] + middle * taps[4] + right * taps[5]
    lower = left * taps[0] + middle * taps[1] + right * taps[2]
    return complete, upper, lower


@triton.jit
def gelu_depthwise_forward(
    expanded, weight, bias, out, height, width,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of channels, blocks of columns, images × strips of rows)."""
    STRIDE: tl.constexpr = 2 * HIDDEN
    before, first, column, channel = _strip(height, width, ROWS, COLUMNS, CHANNELS)
    expanded += before * STRIDE
    out += before * HIDDEN
    taps, offset, upper = _start_convolution(weight, bias, channel, HIDDEN, COLUMNS, CHANNELS)
    lower = upper
    for step in range(0, ROWS + 2):
        row = first + step - 1
        convolved, upper, lower = _convolve_next_row(
            expanded, row, column, channel, height, width, taps, upper, lower, STRIDE, HIDDEN
        )
        if step >= 2:
            gate = _read(expanded + HIDDEN, row - 1, column, channel, height, width, STRIDE, HIDDEN)
            result = _gelu(convolved + offset) * _gelu(gate)
            _write(out, result, row - 1, column, channel, height, width, HIDDEN, HIDDEN)


@triton.jit
def gelu_depthwise_backward_gate(
    out_gradient, expanded, weight, bias, conv_gradient, gradient, height, width,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradients of the convolution's output and of the gate; the grid is the forward pass's."""
    STRIDE: tl.constexpr = 2 * HIDDEN
    before, first, column, channel = _strip(height, width, ROWS, COLUMNS, CHANNELS)
    expanded += before * STRIDE
    gradient += before * STRIDE
    conv_gradient += before * HIDDEN
    out_gradient += before * HIDDEN
    taps, offset, upper = _start_convolution(weight, bias, channel, HIDDEN, COLUMNS, CHANNELS)
    lower = upper
    for step in range(0, ROWS + 2):
        row = first + step - 1
        convolved, upper, lower = _convolve_next_row(
            expanded, row, column, channel, height, width, taps, upper, lower, STRIDE, HIDDEN
        )
        if step >= 2:
            above = row - 1
            local, slope = _gelu_and_slope(convolved + offset)
            arriving = _read(out_gradient, above, column, channel, height, width, HIDDEN, HIDDEN)
            gate = _read(expanded + HIDDEN, above, column, channel, height, width, STRIDE, HIDDEN)
            gate, gate_slope = _gelu_and_slope(gate)
            onward = arriving * slope * gate
            to_gate = arriving * local * gate_slope
            beside = gradient + HIDDEN
            _write(beside, to_gate, above, column, channel, height, width, STRIDE, HIDDEN)
            _write(conv_gradient, onward, above, column, channel, height, width, HIDDEN, HIDDEN)


@triton.jit
def _read_three(image, row, column, channel, height, width, HIDDEN: tl.constexpr):
    """One row three times: the columns to the left, the columns, those to the right."""
    left = _read(image, row, column - 1, channel, height, width, HIDDEN, HIDDEN)
    middle = _read(image, row, column, channel, height, width, HIDDEN, HIDDEN)
    right = _read(image, row, column + 1, channel, height, width, HIDDEN, HIDDEN)
    return left, middle, right


@triton.jit
def gelu_depthwise_backward_filters(
    conv_gradient, expanded, weight, gradient, parts, height, width,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradients of the input and, one part for each strip, of the filters and their bias."""
    STRIDE: tl.constexpr = 2 * HIDDEN
    before, first, column, channel = _strip(height, width, ROWS, COLUMNS, CHANNELS)
    expanded += before * STRIDE
    gradient += before * STRIDE
    conv_gradient += before * HIDDEN
    taps = _read_filters(weight, channel, HIDDEN)
    zero = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    sums = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    above = _read_three(conv_gradient, first - 1, column, channel, height, width, HIDDEN)
    here = _read_three(conv_gradient, first, column, channel, height, width, HIDDEN)
    for step in range(0, ROWS):
        row = first + step
        below = _read_three(conv_gradient, row + 1, column, channel, height, width, HIDDEN)
        source = _read(expanded, row, column, channel, height, width, STRIDE, HIDDEN)
        value, slope = _gelu_and_slope(source)
        # A tap that reads up and left of an output pixel brings its gradient back down and right.
        arriving = below[2] * taps[0] + below[1] * taps[1] + below[0] * taps[2]
        arriving += here[2] * taps[3] + here[1] * taps[4] + here[0] * taps[5]
        arriving += above[2] * taps[6] + above[1] * taps[7] + above[0] * taps[8]
        _write(gradient, arriving * slope, row, column, channel, height, width, STRIDE, HIDDEN)
        sums = (
            sums[0] + value * below[2],
            sums[1] + value * below[1],
            sums[2] + value * below[0],
            sums[3] + value * here[2],
            sums[4] + value * here[1],
            sums[5] + value * here[0],
            sums[6] + value * above[2],
            sums[7] + value * above[1],
            sums[8] + value * above[0],
            sums[9] + here[1],
        )
        above = here
        here = below
    program = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    target = parts + program.to(tl.int64) * (10 * HIDDEN) + channel
    for tap in tl.static_range(10):
        tl.store(target + tap * HIDDEN, tl.sum(sums[tap], 0), mask=channel < HIDDEN)


def launch_settings(hidden: int, *, rows: int) -> dict[str, Any]:
    """Return what the kernels are compiled for: so many channels, in strips of so many rows."""
    channels = 64 if hidden % 64 == 0 else 32
    return {
        "HIDDEN": hidden,
        "ROWS": rows,
        "COLUMNS": TILE // channels,
        "CHANNELS": channels,
        "num_warps": WARPS,
    }


def _grid(shape: torch.Size, settings: dict[str, Any]) -> tuple[int, int, int]:
    batch, height, width, _ = shape
    return (
        math.ceil(settings["HIDDEN"] / settings["CHANNELS"]),
        math.ceil(width / settings["COLUMNS"]),
        batch * math.ceil(height / settings["ROWS"]),
    )


class _GeluDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, expanded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        expanded, weight, bias = expanded.contiguous(), weight.contiguous(), bias.contiguous()
        ctx.save_for_backward(expanded, weight, bias)
        height, width, channels = expanded.shape[1:]
        settings = launch_settings(channels // 2, rows=FORWARD_ROWS)
        out = expanded.new_empty(*expanded.shape[:-1], channels // 2)
        with torch.cuda.device_of(expanded):
            gelu_depthwise_forward[_grid(expanded.shape, settings)](
                expanded, weight, bias, out, height, width, **settings
            )
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        expanded, weight, bias = ctx.saved_tensors
        out_gradient = gradients[0].contiguous()
        height, width, channels = expanded.shape[1:]
        settings = launch_settings(channels // 2, rows=BACKWARD_ROWS)
        grid = _grid(expanded.shape, settings)
        gradient, conv_gradient = torch.empty_like(expanded), torch.empty_like(out_gradient)
        # Parts that are added up afterwards: atomic additions would not always give the same bits.
        parts = weight.new_empty((grid[1] * grid[2], 10, channels // 2), dtype=torch.float32)
        with torch.cuda.device_of(expanded):
            gelu_depthwise_backward_gate[grid](
                *(out_gradient, expanded, weight, bias, conv_gradient, gradient),
                *(height, width),
                **settings,
            )
            gelu_depthwise_backward_filters[grid](
                conv_gradient, expanded, weight, gradient, parts, height, width, **settings
            )
        sums = parts.sum(0)
        weight_gradient = sums[:9].T.reshape(weight.shape).to(weight.dtype)
        return gradient, weight_gradient, sums[9].to(bias.dtype)


def fused_gelu_depthwise(expanded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `gated_depthwise` of ast.py behind the expansion: (B, H, W, 2 · hidden) → half that.

    The convolution pads with zeros, behind the first GELU.
    """
    return _GeluDepthwise.apply(expanded, weight, bias)
