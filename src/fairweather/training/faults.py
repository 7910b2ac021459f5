"""What to say when a run meets numbers that are not finite: which files, which layer, what next."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fairweather.data import Pair
from fairweather.errors import TrainingError
from fairweather.models import plain_kernels

ADVICE = (
    "start a new run folder with a lower learning rate, with precision=32-true, or without the"
    " files named here. The checkpoints from before are kept"
)
NAMED_FILES = 8


def describe_fault(
    what: str,
    *,
    step: int,
    model: nn.Module | None = None,
    images: Tensor | None = None,
    pairs: Sequence[Pair] = (),
) -> TrainingError:
    """Return the error that names the batch's files and the first layer that is not finite.

    Args:
        what: what was seen, as in "the loss is nan".
        step: when.
        model: the network, run again on the images to find the layer.
        images: (B, 3, H, W), what it was given.
        pairs: where the images are from, one for each; without them no files are named.
    """
    parts = [f"step {step}: {what}"]
    if model is not None and images is not None:
        spoilt = (~torch.isfinite(images)).flatten(1).any(1)
        if spoilt.any():
            parts.append("the degraded images already hold values that are not finite")
        else:
            layer, output = find_nonfinite_layer(model, images)
            spoilt = (~torch.isfinite(output)).flatten(1).any(1)
            if layer:
                parts.append(f"the first layer whose output is not finite is {layer}")
        pairs = [p for p, bad in zip(pairs, spoilt.tolist(), strict=True) if bad] or pairs
    if pairs:
        parts.append(f"the batch's files are {_names(pairs)}")
    return TrainingError(f"{'; '.join(parts)}; {ADVICE}")


def find_nonfinite_layer(model: nn.Module, images: Tensor) -> tuple[str | None, Tensor]:
    """Find the first innermost module whose output is not finite; return the output as well."""
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, args: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(f"{name} ({type(module).__name__})")

        return module.register_forward_hook(look)

    innermost = [(n, m) for n, m in model.named_modules() if not any(m.children())]
    handles = [watch(name, module) for name, module in innermost]
    try:
        # Past a compiled call and past fused kernels, which would not see the hooks.
        with torch.no_grad(), plain_kernels():
            output = model.forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return (found[0] if found else None), output


def find_nonfinite_gradient(model: nn.Module) -> str | None:
    """Return the name of the first parameter whose gradient is not finite."""
    named = model.named_parameters()
    return find_nonfinite({name: p.grad for name, p in named if p.grad is not None})


def find_nonfinite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that is not finite."""
    if not tensors:
        return None
    # One question to the device instead of one for each tensor.
    if torch.stack([tensor.detach().sum() for tensor in tensors.values()]).isfinite().all():
        return None
    return next((name for name, t in tensors.items() if not torch.isfinite(t).all()), None)


class CannotWriteError(TrainingError):
    """A run that cannot write, as on a full disk, which is no fault of its recipe."""


def cannot_write(path: object, error: Exception) -> CannotWriteError:
    """Return the error of a run that cannot write a file."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return CannotWriteError(
        f"{path}: cannot be written: {reason}; make room there, and the same command goes on"
    )


def _names(pairs: Sequence[Pair]) -> str:
    names = ", ".join(f"'{pair.degraded}'" for pair in pairs[:NAMED_FILES])
    more = f" and {len(pairs) - NAMED_FILES} more" if len(pairs) > NAMED_FILES else ""
    return names + more
