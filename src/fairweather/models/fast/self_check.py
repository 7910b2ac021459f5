"""Compare a fast kernel with the plain formula before it is trusted, on the device at hand."""

import copy
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Function = Callable[..., Tensor]

# How far a kernel may be from float64, beside the plain formula's own error in the same dtype.
TIMES_PLAIN = 3.0
FLOOR = 2e-5  # of the largest number; a coarser dtype's own precision
LONE = 10.0  # times that for a single number, which plain PyTorch may meet by chance


class Verdict(NamedTuple):
    """What a comparison found.

    Attributes:
        fault: why the kernel is not used; None if it agrees.
        errors: for the output and each gradient, the kernel's error, plain PyTorch's in the same
            dtype, and what the kernel is allowed, each beside the largest exact number; empty if
            the kernel failed.
    """

    fault: str | None
    errors: list[tuple[float, float, float]]


class SelfCheck:
    """Remember which kernels agreed with their formula; warn once if one does not.

    Attributes:
        verdicts: by what each holds for.
    """

    def __init__(self) -> None:
        self.verdicts: dict[Hashable, Verdict] = {}
        self._warned = False

    def passes(
        self,
        key: Hashable,
        *,
        kernel: Function,
        formula: Function,
        sample: Callable[[], Sequence[Any]],
        like: Sequence[Any],
        options: dict[str, Any],
    ) -> bool:
        """Return whether a kernel agrees with its formula, forward and backward.

        Args:
            key: what the verdict holds for: the operation, device, dtype and sizes.
            kernel: takes the same arguments as the formula.
            formula: the operation in plain PyTorch.
            sample: makes small random arguments in float64, tensors or modules, if the key is new;
                those that require it get a gradient.
            like: the arguments at hand, which give device and dtype of each.
            options: keyword arguments of both.
        """
        if key not in self.verdicts:
            verdict = _judge(kernel, formula, sample(), like, options)
            self.verdicts[key] = verdict
            if verdict.fault is not None and not self._warned:
                self._warned = True
                warnings.warn(
                    f"a GPU kernel is not used: {verdict.fault}. The network computes in plain"
                    " PyTorch where this happens, with right results but slower. Unset"
                    " FAIRWEATHER_KERNELS to silence this, and report what benchmarks/gpu.sh says",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return self.verdicts[key].fault is None


def _judge(kernel: Function, formula: Function, sample: Any, like: Any, options: Any) -> Verdict:
    name = formula.__name__
    try:
        errors = _relative_errors(kernel, formula, sample, like, options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton raises nearly anything on what it cannot compile
        said = (str(error).strip().splitlines() or [""])[0]
        return Verdict(f"{name} failed with {type(error).__name__}: {said}", [])
    for ours, plain, allowed in errors:
        if not ours <= allowed:  # also where it is NaN
            fault = f"{name} is {ours:.1e} from float64, plain PyTorch {plain:.1e}"
            return Verdict(fault, errors)
    return Verdict(None, errors)


def _relative_errors(
    kernel: Function, formula: Function, sample: Any, like: Any, options: Any
) -> list[tuple[float, float, float]]:
    """Measure how far the output and each gradient are from those of the formula in float64."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        args = [_cast(one, *_kind_of(other)) for one, other in zip(sample, like, strict=True)]
        doubles = [_cast(one, _kind_of(one)[0], torch.float64) for one in args]
        exact = _values_and_gradients(formula, doubles, options)
        ours, plain = (_values_and_gradients(one, args, options) for one in (kernel, formula))
    floor = max(FLOOR, torch.finfo(ours[0].dtype).eps)
    errors = []
    for right, *both in zip(exact, ours, plain, strict=True):
        scale = right.abs().max().clamp(min=1e-30)
        our, their = (((one.double() - right).abs().max() / scale).item() for one in both)
        least = LONE * floor if right.numel() == 1 else floor
        errors.append((our, their, max(TIMES_PLAIN * their, least)))
    return errors


def _kind_of(value: Any) -> tuple[Any, Any]:
    tensor = next(value.parameters()) if isinstance(value, nn.Module) else value
    return (None, None) if tensor is None else (tensor.device, tensor.dtype)


def _cast(value: Any, device: Any, dtype: Any) -> Any:
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(device, dtype)
    if isinstance(value, Tensor):
        return value.detach().to(device, dtype, copy=True).requires_grad_(value.requires_grad)
    return value


def _values_and_gradients(function: Function, args: Any, options: Any) -> list[Tensor]:
    """Return the output, then the gradient of every leaf, for one random gradient of the output."""
    leaves = [
        leaf
        for value in args
        if value is not None
        for leaf in (value.parameters() if isinstance(value, nn.Module) else [value])
        if leaf.requires_grad
    ]
    output = function(*args, **options)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(output, leaves, gradient.to(output))
    return [output.detach(), *gradients]
