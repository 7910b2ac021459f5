"""What the checks of the GPU kernels share: where they run, how near to float64 they must be.

With TRITON_INTERPRET=1, which has to be set before Triton is imported, they run in its interpreter
on the CPU; otherwise on a CUDA device. test_fast_kernels.py starts them in a process of its own.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from parity import relative_error
from torch import Tensor
from triton_kernels import repair_bfloat16

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALVES = (torch.bfloat16, torch.float16)
if INTERPRETED:
    repair_bfloat16()
torch.backends.cudnn.allow_tf32 = False  # its default would be 1e-3 from float32


def numbers(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def values_and_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], *, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """The output, then the gradient of every input, for one random gradient of the output."""
    leaves = [value.to(device, dtype, copy=True).requires_grad_() for value in inputs]
    output = function(*leaves)
    output.backward(numbers(*output.shape, seed=9).to(device, dtype))
    gradients = [leaf.grad for leaf in leaves]
    assert all(gradient is not None for gradient in gradients)
    return [value.detach().cpu().double() for value in (output, *gradients)]  # type: ignore[union-attr]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [relative_error(one, other) for one, other in zip(found, expected, strict=True)]


def in_every_dtype(cases: Iterable[Any], *, in_float32: Iterable[Any]) -> list[Any]:
    """Cases of every dtype, and more of them in float32, for `pytest.mark.parametrize`.

    The interpreter, which is slow, takes each case in one of the half precisions.
    """
    cases = list(cases)
    step = len(HALVES) if INTERPRETED else 1
    halves = [(case, half) for i, half in enumerate(HALVES) for case in cases[i % step :: step]]
    return [*((case, torch.float32) for case in (*cases, *in_float32)), *halves]


def check(
    fused: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor], dtype: Any
) -> None:
    """Float32 within 1e-5 of float64; half precision within 1.5 times the formula's error."""
    inputs = [value.to(dtype) for value in inputs]
    exact = values_and_gradients(plain, inputs, dtype=torch.float64, device="cpu")
    found = values_and_gradients(fused, inputs, dtype=dtype, device=DEVICE)
    ours = errors(found, exact)
    if dtype == torch.float32:
        assert max(ours) < 1e-5, ours
        return
    theirs = errors(values_and_gradients(plain, inputs, dtype=dtype, device=DEVICE), exact)
    for our, their, value in zip(ours, theirs, exact, strict=True):
        # A single number may come out right by chance: it only has to be as good as its type.
        floor = torch.finfo(dtype).eps if value.numel() == 1 else 0
        assert our <= max(1.5 * their, floor), (ours, theirs)


def assert_repeatable(function: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """The output and all gradients are the same in each run, bit for bit."""
    once, twice = (
        values_and_gradients(function, inputs, dtype=torch.float32, device=DEVICE) for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))


def assert_autocast_fits(function: Callable[..., Tensor], leaves: list[Tensor]) -> None:
    """A bfloat16 input and float32 parameters, as autocast gives them: each gradient fits."""
    leaves = [leaf.to(DEVICE).requires_grad_() for leaf in leaves]
    output = function(*leaves)
    output.float().square().sum().backward()
    assert output.dtype == torch.bfloat16
    assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]  # type: ignore[union-attr]
