"""The GPU kernels of the feed-forward network: that they agree with the formula, and fit a GPU.

The checks run in Triton's interpreter or on a GPU: see kernel_cases.py.
"""

import random
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import (
    DEVICE,
    INTERPRETED,
    assert_autocast_fits,
    assert_repeatable,
    check,
    in_every_dtype,
    numbers,
)
from torch import Tensor
from triton_kernels import compile_kernel, fits_registers, needs_triton

from fairweather.models.fast import cuda_feed_forward as feed_forward


class FeedForward(NamedTuple):
    """One call of the feed-forward network's middle."""

    hidden: int
    batch: int
    height: int
    width: int


FEED_FORWARDS = (
    FeedForward(20, 1, 9, 5),
    FeedForward(64, 1, 3, 7),
    FeedForward(40, 2, 4, 7),
    FeedForward(5, 1, 1, 1),
)


def random_feed_forward(seed: int) -> FeedForward:
    draw = random.Random(seed)
    sides = draw.randint(1, 9), draw.randint(1, 20)
    return FeedForward(draw.choice((8, 20, 33, 64)), 1, *sides)


def feed_forward_inputs(case: FeedForward) -> list[Tensor]:
    expanded = numbers(case.batch, case.height, case.width, 2 * case.hidden, seed=1)
    return [2 * expanded, numbers(case.hidden, 1, 3, 3, seed=2), numbers(case.hidden, seed=3)]


def plain_gelu_depthwise(expanded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The formula, of what the projection gives."""
    local, gate = expanded.chunk(2, -1)
    local = F.gelu(local).permute(0, 3, 1, 2)
    local = F.conv2d(local, weight, bias, padding=1, groups=len(bias)).permute(0, 2, 3, 1)
    return F.gelu(local) * F.gelu(gate)


@pytest.fixture(autouse=True)
def short_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several strips in a small image; the interpreter takes long for each row."""
    if INTERPRETED:
        monkeypatch.setattr(feed_forward, "FORWARD_ROWS", 4)
        monkeypatch.setattr(feed_forward, "BACKWARD_ROWS", 2)
        monkeypatch.setattr(feed_forward, "TILE", 256)


@pytest.mark.parametrize(
    ("case", "dtype"),
    in_every_dtype(FEED_FORWARDS, in_float32=map(random_feed_forward, range(3))),
    ids=str,
)
def check_that_they_compute_the_formula(case: FeedForward, dtype: torch.dtype) -> None:
    fused, plain = feed_forward.fused_gelu_depthwise, plain_gelu_depthwise
    check(fused, plain, feed_forward_inputs(case), dtype)


def check_gelu_and_its_slope_far_out() -> None:
    """A filter that only passes the middle on: the output is GELU of GELU."""
    x = torch.linspace(-40, 40, 16 * 80).view(1, 4, 4, 80).to(DEVICE)
    weight = torch.zeros(40, 1, 3, 3, device=DEVICE)
    weight[:, :, 1, 1] = 1
    inputs = [x, weight, torch.zeros(40, device=DEVICE)]
    check(feed_forward.fused_gelu_depthwise, plain_gelu_depthwise, inputs, torch.float32)


def check_that_gradients_are_the_same_bit_for_bit_in_each_run() -> None:
    inputs = feed_forward_inputs(FeedForward(8, 1, 3, 2))
    assert_repeatable(feed_forward.fused_gelu_depthwise, inputs)


def check_that_parameters_stay_in_float32_under_autocast() -> None:
    first, *parameters = feed_forward_inputs(FeedForward(5, 1, 1, 2))
    leaves = [first.bfloat16(), *(value.float() for value in parameters)]
    assert_autocast_fits(feed_forward.fused_gelu_depthwise, leaves)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_they_compile_for_a_gpu_and_fit_its_registers(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    settings = feed_forward.launch_settings(128, rows=feed_forward.FORWARD_ROWS)
    for kernel in (
        feed_forward.gelu_depthwise_forward,
        feed_forward.gelu_depthwise_backward_gate,
        feed_forward.gelu_depthwise_backward_filters,
    ):
        assert fits_registers(compile_kernel(kernel, settings, dtype))
