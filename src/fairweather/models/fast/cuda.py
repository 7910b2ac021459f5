"""When NVIDIA GPUs compute operations of ast.py with the fused Triton kernels.

The kernels need compute capability 8.0 and a Triton that they were compiled with, which CUDA builds
of PyTorch bring. Unmeasured code is opt-in: the kernels are off by default except on GPUs in
`MEASURED`, until FAIRWEATHER_KERNELS=1 is in the environment or the call is inside
`fairweather.models.gpu_kernels()`. The first call for a device, dtype and size compares each kernel
with plain PyTorch, forward and backward, and falls back with one warning (see `self_check`).
"""

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from fairweather.models.fast.self_check import SelfCheck

# Compute capabilities for which a docs/results/speed/gpu-*.json, written by benchmarks/gpu.sh,
# shows the kernels right and faster.
MEASURED: frozenset[tuple[int, int]] = frozenset()
OLDEST_CAPABILITY = (8, 0)  # the first with bfloat16
OLDEST_TRITON, NEWEST_TRITON = (3, 6), (3, 8)  # that the kernels were compiled with; 3.9 fails
# The weights of one window and head have to fit into a GPU's registers, and its queries, keys and
# values into shared memory.
LARGEST_WINDOW = 8
LARGEST_HEAD = 32


class Kernel(NamedTuple):
    """A fused kernel behind an operation.

    Attributes:
        run: takes the operation's arguments.
        sizes: what it is compiled for, from the operation's arguments; None if it cannot be.
        sample: small random arguments in float64, from those at hand.
    """

    run: Callable[..., Tensor]
    sizes: Callable[..., tuple[Any, ...] | None]
    sample: Callable[..., tuple[Any, ...]]


def find(operation: Any, args: Any, options: Any, *, asked: bool) -> Callable[..., Tensor] | None:
    """Return the kernel of an operation for these arguments; None where plain PyTorch computes.

    Args:
        operation: of ast.py.
        args: its arguments, a CUDA tensor first.
        options: its keyword arguments.
        asked: whether the caller wants kernels that nobody has measured on such a GPU.
    """
    kernel, x = KERNELS.get(operation.name), args[0]
    if kernel is None or not (is_wanted(x.device, asked=asked) and runs_on(x)):
        return None
    sizes = kernel.sizes(*args, **options)
    if sizes is None:
        return None
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    precision = torch.backends.cuda.matmul.fp32_precision
    agrees = CHECK.passes(
        (operation.name, x.device, x.dtype, half, precision, *sizes),
        kernel=kernel.run,
        formula=operation.formula,
        sample=lambda: kernel.sample(*args, **options),
        like=args,
        options=options,
    )
    return kernel.run if agrees else None


def list_kernel_checks() -> list[dict[str, Any]]:
    """List what this process compared of the GPU kernels with plain PyTorch, for a report.

    Returns:
        For each operation, dtype and size: the fault, None if the kernel agrees, and the errors of
        the output and of each gradient, the kernel's and plain PyTorch's.
    """
    return [
        {
            "operation": name,
            "dtype": str(dtype if half is None else half).removeprefix("torch."),
            "sizes": sizes,
            "fault": verdict.fault,
            "kernel_errors": [ours for ours, _, _ in verdict.errors],
            "plain_errors": [plain for _, plain, _ in verdict.errors],
        }
        for (name, _, dtype, half, _, *sizes), verdict in CHECK.verdicts.items()  # type: ignore[misc]
    ]


def is_wanted(device: torch.device, *, asked: bool) -> bool:
    """Return whether the kernels are asked for, or measured on such a GPU."""
    if asked or os.environ.get("FAIRWEATHER_KERNELS") == "1":
        return True
    return bool(MEASURED) and torch.cuda.get_device_capability(device) in MEASURED


def runs_on(x: Tensor) -> bool:
    """Return whether the kernels compute on tensors like x."""
    return (
        TRITON_INSTALLED
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(x.device) >= OLDEST_CAPABILITY
    )


def find_triton() -> bool:
    """Return whether a fitting Triton is installed; importing it would take a second."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return OLDEST_TRITON <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST_TRITON


def run_attention(
    x: Tensor, qkv: Any, bias: Tensor, dense_share: Tensor | None, masks: object, **options: Any
) -> Tensor:
    """Compute `window_attention` of ast.py; the kernel masks by addresses."""
    from fairweather.models.fast.cuda_attention import fused_window_attention

    return fused_window_attention(qkv(x), bias, dense_share, **options)


def attention_sizes(
    x: Tensor, *_: object, heads: int, window: int, shift: int, branches: str
) -> tuple[Any, ...] | None:
    """Return what the attention kernel is compiled for; None if it would not fit a GPU."""
    if window > LARGEST_WINDOW or x.shape[-1] // heads > LARGEST_HEAD:
        return None
    return x.shape[-1], heads, window, shift, branches


def sample_attention(
    x: Tensor, qkv: Any, bias: Tensor, share: Tensor | None, masks: Tensor | None, **options: Any
) -> tuple[Any, ...]:
    """Make arguments for four windows, with logits of about 2."""
    side, channels = 2 * options["window"], x.shape[-1]
    project = skip_init(nn.Linear, channels, 3 * channels)
    dense = None if share is None else torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    return (
        random_tensor((1, side, side, channels), seed=1),
        random_layer(project, scale=1.5 / channels**0.5),
        random_tensor(tuple(bias.shape), seed=2),
        dense,
        None if masks is None else masks.double(),
    )


def run_gated_depthwise(x: Tensor, expand: nn.Linear, depthwise: nn.Conv2d) -> Tensor:
    """Compute `gated_depthwise` of ast.py."""
    from fairweather.models.fast.cuda_feed_forward import fused_gelu_depthwise

    return fused_gelu_depthwise(expand(x), depthwise.weight, depthwise.bias)


def gate_sizes(x: Tensor, expand: object, depthwise: nn.Conv2d) -> tuple[int, ...]:
    """Return what the kernels of the feed-forward network are compiled for."""
    return x.shape[-1], depthwise.in_channels


def sample_gate(x: Tensor, expand: object, depthwise: nn.Conv2d) -> tuple[Any, ...]:
    """Make arguments for an image of several strips."""
    channels, hidden = x.shape[-1], depthwise.in_channels
    return (
        random_tensor((1, 35, 21, channels), seed=1),
        random_layer(skip_init(nn.Linear, channels, 2 * hidden), scale=1.5 / channels**0.5),
        random_layer(skip_init(nn.Conv2d, hidden, hidden, 3, padding=1, groups=hidden), scale=0.5),
    )


def random_tensor(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Draw a leaf in float64 and leave PyTorch's own random state alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def random_layer(layer: nn.Module, *, scale: float) -> nn.Module:
    """Fill a layer with random parameters in float64."""
    layer = layer.double()
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = random_tensor(tuple(parameter.shape), seed=seed).detach() * scale
    return layer


TRITON_INSTALLED = find_triton()
CHECK = SelfCheck()
KERNELS = {
    "window_attention": Kernel(run_attention, attention_sizes, sample_attention),
    "gated_depthwise": Kernel(run_gated_depthwise, gate_sizes, sample_gate),
}
