"""What AST spends its time in, as functions: fused GPU kernels where they run, else plain PyTorch.

`window_attention` (ASSA, section 3.2) and `gelu_depthwise` (the middle of FRFN, section 3.3) take
the kernels of `attention_kernels` and `feed_forward_kernels` on NVIDIA GPUs from compute capability
8.0 up, where a Triton is installed that they were compiled with; CUDA builds of PyTorch bring one.
Everywhere else, and inside `plain_kernels()`, they take their plain twins in this file, which say
what is computed.

The kernels are tested in Triton's interpreter; their speed on a GPU is unmeasured.
"""

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Branches = Literal["both", "dense", "sparse"]

SHIFT_MASK_LOGIT = -100.0  # Official: finite, so that a fully masked row could not become NaN.
# The weights of one window and head have to fit into a GPU's registers, and its queries, keys and
# values into shared memory.
LARGEST_FUSED_WINDOW = 8
LARGEST_FUSED_HEAD = 32
OLDEST_TRITON, NEWEST_TRITON = (3, 6), (3, 8)  # that the kernels were compiled with; 3.9 fails
OLDEST_CAPABILITY = 8  # the first with bfloat16

_plain_only = False


def _find_triton() -> bool:
    """Whether a Triton that compiles the kernels is installed; importing it would take a second."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return OLDEST_TRITON <= tuple(int(part) for part in version.split(".")[:2]) <= NEWEST_TRITON


TRITON_INSTALLED = _find_triton()


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Inside the block all models of the process compute in plain PyTorch: for comparisons."""
    global _plain_only
    before, _plain_only = _plain_only, True
    try:
        yield
    finally:
        _plain_only = before


def is_plain_only() -> bool:
    """Whether this is inside of `plain_kernels()`."""
    return _plain_only


def fuses(x: Tensor) -> bool:
    """Whether the fused kernels compute on a tensor like x; exports are plain, to run anywhere."""
    return (
        x.is_cuda
        and TRITON_INSTALLED
        and not _plain_only
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and torch.cuda.get_device_properties(x.device).major >= OLDEST_CAPABILITY
        and not torch.compiler.is_exporting()
    )


def fuses_windows(x: Tensor, *, heads: int, window: int) -> bool:
    """Whether `window_attention` computes on tokens like x, (B, H, W, C)."""
    size = x.shape[-1] // heads
    return fuses(x) and window <= LARGEST_FUSED_WINDOW and size <= LARGEST_FUSED_HEAD


def window_attention(
    qkv: Tensor,
    bias: Tensor,
    dense_share: Tensor | None,
    *,
    heads: int,
    window: int,
    shift: int,
    branches: Branches,
) -> Tensor:
    """Adaptive sparse attention in shifted windows, between the two projections, on a GPU.

    The logits q·kᵀ/√d + bias go through a softmax (dense branch) and through ReLU² (sparse branch);
    the two are fused, and multiply the values. Only where `fuses_windows` says so: elsewhere
    `plain_window_attention` computes the same.

    Args:
        qkv: queries, keys and values of every token, (B, H, W, 3C); H and W are multiples of the
            window.
        bias: the position bias, (heads, window², window²).
        dense_share: the dense branch's share of the weights, (); None if there is one branch.
        heads: that share the C channels.
        window: side of the window [tokens].
        shift: of the windows, down and right [tokens].
        branches: `both`, `dense` or `sparse`.

    Returns:
        (B, H, W, C).
    """
    from fairweather.models.fast.cuda_attention import fused_window_attention

    return fused_window_attention(
        qkv, bias, dense_share, heads=heads, window=window, shift=shift, branches=branches
    )


def plain_window_attention(
    qkv: Tensor,
    bias: Tensor,
    dense_share: Tensor | None,
    *,
    heads: int,
    window: int,
    shift: int,
    branches: Branches,
) -> Tensor:
    """`window_attention` in plain PyTorch, on any device."""
    masks = tuple(mask.to(qkv) for mask in shift_masks(window, shift)) if shift else None
    attended = attend_in_windows(
        torch.roll(qkv, (-shift, -shift), dims=(1, 2)),
        bias,
        dense_share,
        heads=heads,
        window=window,
        branches=branches,
        masks=masks,
    )
    return torch.roll(attended, (shift, shift), dims=(1, 2))


def attend_in_windows(
    qkv: Tensor,
    bias: Tensor,
    dense_share: Tensor | None,
    *,
    heads: int,
    window: int,
    branches: Branches,
    masks: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """`plain_window_attention` where what is to be shifted has been, and stays so.

    Args:
        qkv: as there, behind the cyclic shift.
        bias: as there.
        dense_share: as there.
        heads: as there.
        window: as there.
        branches: as there.
        masks: `shift_masks`, if there was a shift.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = qkv.shape
    rows, columns, size = height // window, width // window, channels // (3 * heads)
    query, key, value = (
        qkv.view(batch, rows, window, columns, window, 3, heads, size)
        .permute(5, 0, 1, 3, 6, 2, 4, 7)
        .reshape(3, batch, rows, columns, heads, window**2, size)
        .unbind(0)
    )
    logits = (query * size**-0.5) @ key.mT + bias
    if masks is not None:  # the same for every size: only windows of the last row and column wrap
        row_mask, column_mask, corner_mask = masks
        logits[:, -1, :-1] += row_mask
        logits[:, :-1, -1] += column_mask
        logits[:, -1, -1] += corner_mask
    attended = fuse_branches(logits, dense_share, branches=branches) @ value
    return (
        attended.view(batch, rows, columns, heads, window, window, size)
        .permute(0, 1, 4, 2, 5, 3, 6)
        .reshape(batch, height, width, heads * size)
    )


def fuse_branches(logits: Tensor, dense_share: Tensor | None, *, branches: Branches) -> Tensor:
    """Attention weights of the same shape as the logits (…, queries, keys)."""
    if branches == "dense":
        return logits.softmax(-1)
    sparse = logits.relu().square()
    if dense_share is None:
        return sparse
    return torch.lerp(sparse, logits.softmax(-1), dense_share)


def shift_masks(window: int, shift: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is added to the logits of windows in the last row, the last column and the corner.

    After the cyclic shift such a window holds tokens from opposite sides of the image; each may
    attend only to tokens of its own side. Three tensors (window², window²), 0 or −100.
    """
    wrapped = torch.arange(window) >= window - shift
    row, column = (grid.flatten() for grid in torch.meshgrid(wrapped, wrapped, indexing="ij"))
    row_differs = row[:, None] != row[None, :]
    column_differs = column[:, None] != column[None, :]
    masks = (row_differs, column_differs, row_differs | column_differs)
    row_mask, column_mask, corner_mask = (mask * SHIFT_MASK_LOGIT for mask in masks)
    return row_mask, column_mask, corner_mask


def gelu_depthwise(expanded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """GELU, a depthwise 3×3 convolution, GELU, and the product with the GELU of the gate.

    Args:
        expanded: (B, H, W, 2 · hidden), the gate behind what is convolved; (B, H, W, hidden)
            without a gate.
        weight: of the convolution, (hidden, 1, 3, 3); it pads with zeros, behind the first GELU.
        bias: of the convolution, (hidden,).

    Returns:
        (B, H, W, hidden).
    """
    if bias is None or not fuses(expanded):
        return plain_gelu_depthwise(expanded, weight, bias)
    from fairweather.models.fast.cuda_feed_forward import fused_gelu_depthwise

    return fused_gelu_depthwise(expanded, weight, bias)


def plain_gelu_depthwise(expanded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`gelu_depthwise` in plain PyTorch, on any device."""
    hidden = weight.shape[0]
    local = F.gelu(expanded[..., :hidden]).permute(0, 3, 1, 2)
    local = F.conv2d(local, weight, bias, padding=1, groups=hidden).permute(0, 2, 3, 1)
    if expanded.shape[-1] == hidden:
        return F.gelu(local)
    return F.gelu(local) * F.gelu(expanded[..., hidden:])


def mask_windows(masks: tuple[Tensor, ...], rows: int, columns: int) -> Tensor:
    """The masks for all windows of an image: (rows, columns, 1, window², window²).

    For exported graphs, in which nothing may be written into a part of unknown size.
    """
    row_mask, column_mask, _ = masks  # in the corner both hold
    is_last_row = (torch.arange(rows, device=row_mask.device) == rows - 1).view(-1, 1, 1, 1, 1)
    is_last_column = (torch.arange(columns, device=row_mask.device) == columns - 1).view(
        -1, 1, 1, 1
    )
    return torch.minimum(is_last_row * row_mask, is_last_column * column_mask)
