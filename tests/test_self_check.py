"""The comparison of a kernel with its formula before it is trusted, with plain functions."""

import copy
from typing import Any

import pytest
import torch

from fairweather.models.fast.self_check import SelfCheck


def double_it(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return times * layer(x).square()


def right(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    y = layer(x)
    return (times * y) * y


def wrong(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return right(x, layer, times=1.01 * times)


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 1.1


def wrong_backward(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return WrongBackward.apply(right(x, layer, times=times))  # type: ignore[no-any-return]


def not_a_number(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return right(x, layer, times=float("nan"))


def raising(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    raise RuntimeError("out of shared memory\nand more")


def random_leaf(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def check(kernel: Any, *, dtype: torch.dtype, checker: SelfCheck) -> bool:
    layer = torch.nn.Linear(8, 8)
    return checker.passes(
        (kernel.__name__, dtype),
        kernel=kernel,
        formula=double_it,
        sample=lambda: (random_leaf(2, 5, 5, 8), copy.deepcopy(layer).double()),
        like=(torch.zeros(1, 1, 1, 8, dtype=dtype), layer.to(dtype)),
        options={"times": 2.0},
    )


DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_right_kernel_passes(dtype: torch.dtype, context: Any) -> None:
    state = torch.get_rng_state()
    with context():
        checker = SelfCheck()
        torch.set_rng_state(state)
        assert check(right, dtype=dtype, checker=checker)


@pytest.mark.parametrize("dtype", [torch.float32], ids=str)
@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (wrong, r"double_it is \d\.\de-0[23] from float64, plain PyTorch \d\.\de-0[78]"),
        (wrong_backward, r"double_it is \d\.\de-0[12] from float64"),
        (not_a_number, "double_it is nan from float64"),
        (raising, "double_it failed with RuntimeError: out of shared memory\\. The network"),
    ],
)
def test_a_wrong_kernel_is_refused_with_one_warning(
    kernel: Any, said: str, dtype: torch.dtype
) -> None:
    checker = SelfCheck()
    with pytest.warns(RuntimeWarning, match=said) as warned:
        assert not check(kernel, dtype=dtype, checker=checker)
    assert len(warned) == 1
    assert not check(kernel, dtype=dtype, checker=checker)  # warnings are errors: no second one
    assert not check(raising, dtype=torch.bfloat16, checker=checker)
    assert check(right, dtype=dtype, checker=checker)


def test_a_check_that_runs_out_of_memory_says_nothing_about_the_kernel() -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    checker = SelfCheck()
    with pytest.raises(torch.OutOfMemoryError):
        check(full, dtype=torch.float32, checker=checker)
    full.__name__ = "right"
    assert check(right, dtype=torch.float32, checker=checker)
