"""The GPU kernel of the attention: that it agrees with the formula, and fits a GPU's registers.

The checks run in Triton's interpreter or on a GPU: see kernel_cases.py.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from kernel_cases import (
    DEVICE,
    assert_autocast_fits,
    assert_repeatable,
    check,
    in_every_dtype,
    numbers,
)
from torch import Tensor, nn
from triton_kernels import compile_kernel, fits_registers, needs_triton

from fairweather.models import shift_masks, window_attention
from fairweather.models.fast import cuda_attention as attention


class Attention(NamedTuple):
    """One call of the attention."""

    window: int
    shift: int
    heads: int
    size: int
    branches: str
    batch: int
    rows: int
    columns: int

    @property
    def options(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("heads", "window", "shift", "branches")}


ATTENTIONS = (
    Attention(8, 0, 2, 16, "both", 1, 2, 2),
    Attention(8, 4, 1, 32, "both", 2, 1, 2),
    Attention(8, 4, 2, 10, "dense", 1, 2, 1),
    Attention(8, 3, 1, 16, "sparse", 1, 1, 1),
    Attention(4, 2, 3, 16, "both", 1, 3, 2),
    Attention(4, 1, 1, 5, "sparse", 2, 1, 2),
    Attention(2, 1, 2, 32, "both", 1, 2, 3),
    Attention(7, 3, 1, 8, "both", 1, 1, 2),
)


def random_attention(seed: int) -> Attention:
    draw = random.Random(seed)
    window = draw.choice((4, 8))
    return Attention(
        window,
        draw.randrange(window),
        draw.randint(1, 3),
        draw.choice((4, 10, 16, 24, 32)),
        draw.choice(("both", "dense", "sparse")),
        draw.randint(1, 2),
        draw.randint(1, 3),
        draw.randint(1, 3),
    )


def attention_inputs(case: Attention) -> list[Tensor]:
    height, width = case.rows * case.window, case.columns * case.window
    qkv = numbers(case.batch, height, width, 3 * case.heads * case.size, seed=1)
    bias = numbers(case.heads, case.window**2, case.window**2, seed=2)
    share = [torch.tensor(0.37, dtype=torch.float64)] if case.branches == "both" else []
    return [1.5 * qkv, bias, *share]


def plain_attention(qkv: Tensor, bias: Tensor, share: Tensor | None, **options: Any) -> Tensor:
    """The formula, of what the projection gives."""
    shift = options["shift"]
    masks = shift_masks(options["window"], shift).to(qkv) if shift else None
    return window_attention.formula(qkv, nn.Identity(), bias, share, masks, **options)


def attend(function: Callable[..., Tensor], case: Attention) -> Callable[..., Tensor]:
    return lambda qkv, bias, share=None: function(qkv, bias, share, **case.options)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of several windows in a small image."""
    monkeypatch.setattr(attention, "FORWARD_PROGRAMS", 4)
    monkeypatch.setattr(attention, "BACKWARD_PROGRAMS", 3)


@pytest.mark.parametrize(
    ("case", "dtype"),
    in_every_dtype(ATTENTIONS, in_float32=map(random_attention, range(6))),
    ids=str,
)
def check_that_it_computes_the_formula(case: Attention, dtype: torch.dtype) -> None:
    fused, plain = attention.fused_window_attention, plain_attention
    check(attend(fused, case), attend(plain, case), attention_inputs(case), dtype)


def check_that_gradients_are_the_same_bit_for_bit_in_each_run() -> None:
    case = ATTENTIONS[0]
    assert_repeatable(attend(attention.fused_window_attention, case), attention_inputs(case))


def check_that_parameters_stay_in_float32_under_autocast() -> None:
    case = Attention(4, 2, 1, 16, "both", 1, 2, 1)
    first, *parameters = attention_inputs(case)
    leaves = [first.bfloat16(), *(value.float() for value in parameters)]
    assert_autocast_fits(attend(attention.fused_window_attention, case), leaves)


def check_tensors_that_do_not_lie_in_order() -> None:
    case = Attention(4, 2, 1, 16, "both", 1, 2, 1)
    qkv, bias, share = (value.float().to(DEVICE) for value in attention_inputs(case))
    fused = attend(attention.fused_window_attention, case)
    assert torch.equal(
        fused(qkv.transpose(1, 2).contiguous().transpose(1, 2), bias, share),
        fused(qkv, bias, share),
    )


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_it_compiles_for_a_gpu_and_fits_its_registers(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    settings = attention.launch_settings(
        dtype, channels=256, heads=8, window=8, shift=4, branches="both"
    )
    for kernel in (attention.attention_forward, attention.attention_backward):
        assert fits_registers(compile_kernel(kernel, settings, dtype))
